//! Apache Kafka judges our files and serves them, and we read its.

use std::path::Path;
use std::process::Command;

use super::super::packages;
use super::super::runner::{Runner, Stage};
use super::{empty_directory, with};
use crate::command::{Result, command, run};

/// What Maven copies a POM's jars with.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";
const JAVA_MIN: u32 = 17;
/// The newest broker; its tools are not published.
pub(super) const NEWEST_BROKER: &str = "4.4.0";

pub(super) fn kafka(stage: &Stage) {
    let runner = stage.runner;
    if !stage.has("kafka", need_kafka(runner)) {
        return;
    }
    let work = runner.target.join("kafka/work");
    let Some(programs) = Programs::build(stage) else { return };
    if !stage.has("kafka", empty_directory(&work)) {
        return;
    }
    let below = |name: &str| work.join(name).to_string_lossy().into_owned();
    let (store, expected, export, written) = (below("store"), below("expect.jsonl"), below("export"), below("written"));
    let check = |arguments: &[&str]| programs.python("tests/kafka/check.py", arguments);
    let edgelog = |arguments: &[&str]| {
        let mut edgelog = runner.program(&programs.edgelog, ["--dir", &store]);
        edgelog.args(arguments);
        edgelog
    };

    if !stage.step_that_waits("a mixed workload", programs.mixed_workload(&store, &expected)) {
        return;
    }
    stage.step_that_waits("Kafka's tool reads every file", check(&["dump", &store]));
    stage.step_that_waits("... and would see damage", check(&["canary", &store]));
    let reset = |to| edgelog(&["groups", "reset", "a group/1", "*", to]);
    stage.step_that_waits("positions for a group", reset("--to-latest"));
    stage.step_that_waits("... and again", reset("--to-earliest"));
    stage.step_that_waits("Kafka's decoder reads them", check(&["offsets", &store]));
    let jobs = below("jobs");
    if stage.step_that_waits("a queue of jobs", programs.job_queue(&jobs)) {
        stage.step_that_waits("Kafka's decoder reads its state", check(&["shares", &jobs]));
    }
    for partition in partitions(Path::new(&store)) {
        let exported = edgelog(&["export", &partition, "--for-broker", "--to", &export]);
        stage.step_that_waits(&format!("export {partition}"), exported);
    }
    stage.step_that_waits("Kafka's tool reads the export", check(&["dump", &export]));
    stage.step_that_waits("a broker serves the export", check(&["serve", &export, "--expect", &expected]));

    if stage.step_that_waits("a broker writes", check(&["write", &written])) {
        stage.step_that_waits("edgelog reads what it wrote", check(&["read", &written]));
    }
    if stage.has("groups next to those of the newest Kafka", need_brokers(runner, &[NEWEST_BROKER.to_owned()])) {
        let groups = programs.python("tests/kafka/groups.py", &["run"]);
        stage.step_that_waits("groups do what Kafka's do", groups);
    }
}

/// The directories of partitions in a store: TOPIC-NUMBER.
fn partitions(store: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(store).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| {
        name.rsplit_once('-')
            .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    });
    names.sort();
    names
}

/// What the stages `kafka`, `bridge` and `sinks` run.
pub(super) struct Programs<'a> {
    runner: &'a Runner,
    /// The command line.
    pub(super) edgelog: String,
    /// The folder of the examples.
    examples: String,
}

impl<'a> Programs<'a> {
    /// Builds them; the step's own failure says why where there are none.
    pub(super) fn build(stage: &Stage<'a>) -> Option<Self> {
        let runner = stage.runner;
        let mut build =
            runner.cargo(["build", "--profile", "search", "--locked", "-p", "edgelog-cli", "--bin", "edgelog"]);
        build.args(["-p", "edgelog", "--features", "edgelog/bridge"]);
        for example in
            ["mixed_workload", "token_by_callback", "bridge_within", "scripted_writer", "job_queue", "group_script"]
        {
            build.args(["--example", example]);
        }
        let programs = Self {
            runner,
            edgelog: runner.below_target("search/edgelog"),
            examples: runner.below_target("search/examples"),
        };
        stage.step("build the command line and the examples", build).then_some(programs)
    }

    /// What the scripts find them and Kafka by.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let example = |name: &str| format!("{}/{name}", self.examples);
        vec![
            ("EDGELOG_KAFKA_LIB", self.runner.below_target("kafka/lib")),
            ("EDGELOG_BIN", self.edgelog.clone()),
            ("EDGELOG_TOKEN_EXAMPLE", example("token_by_callback")),
            ("EDGELOG_WITHIN_EXAMPLE", example("bridge_within")),
            ("EDGELOG_WRITER", example("scripted_writer")),
            ("EDGELOG_GROUP_SCRIPT", example("group_script")),
            ("EDGELOG_KAFKA_NEWEST", NEWEST_BROKER.to_owned()),
        ]
    }

    pub(super) fn python(&self, script: &str, arguments: &[&str]) -> Command {
        with(self.runner.python(script, arguments), self.variables())
    }

    /// Jobs that a share group in `store` does.
    fn job_queue(&self, store: &str) -> Command {
        self.runner.program(format!("{}/job_queue", self.examples), [store])
    }

    /// Records of every kind into `store`, and in `expected` what has to be read there.
    pub(super) fn mixed_workload(&self, store: &str, expected: &str) -> Command {
        self.runner.program(format!("{}/mixed_workload", self.examples), [store, "--expect", expected])
    }
}

/// Java, Maven, Python, and Kafka's jars.
pub(super) fn need_kafka(runner: &Runner) -> Result<()> {
    let root = &runner.root;
    let has_java = java_major("javac") >= JAVA_MIN && packages::has("java") && packages::has("mvn");
    if !has_java {
        packages::install(root, "to run Apache Kafka", &["default-jdk-headless", "maven"])?;
    }
    packages::need(root, "python3", "to drive Kafka in the tests", &["python3", "ca-certificates"])?;
    let jars = runner.target.join("kafka");
    let (pom, copied) = (root.join("tests/kafka/pom.xml"), jars.join("pom.xml"));
    if !is_copy(&copied, &pom) {
        eprintln!("Downloading Apache Kafka's jars from Maven Central (44 MB) into {}", jars.display());
        eprintln!("  why: its tools and its broker judge edgelog's files");
        let _ = std::fs::remove_dir_all(jars.join("lib"));
        let _ = std::fs::remove_file(jars.join("classes.jsa"));
        copy_jars(root, &pom, &jars, &[]).map_err(|why| format!("Maven could not download Kafka: {why}"))?;
    }
    if !jars.join("classes.jsa").exists() {
        let mut archive = runner.python("tests/kafka/check.py", &["archive"]);
        if run(archive.env("EDGELOG_KAFKA_LIB", jars.join("lib"))).is_err() {
            eprintln!("Kafka's programs will start without an archive of their classes, which takes twice the work");
        }
    }
    Ok(())
}

/// The broker of Apache Kafka of each of the versions, next to the others: $target/kafka/broker-VERSION/lib.
pub(super) fn need_brokers(runner: &Runner, versions: &[String]) -> Result<()> {
    let pom = runner.root.join("tests/kafka/broker/pom.xml");
    for version in versions {
        let home = runner.target.join(format!("kafka/broker-{version}"));
        if is_copy(&home.join("pom.xml"), &pom) {
            continue;
        }
        eprintln!(
            "Downloading the broker of Apache Kafka {version} from Maven Central (40 MB) into {}",
            home.display()
        );
        eprintln!("  why: the bridge has to deliver into each version, or be refused by it in words, and groups here");
        eprintln!("  have to do what those of the newest one do");
        let _ = std::fs::remove_dir_all(&home);
        copy_jars(&runner.root, &pom, &home, &[format!("-Dkafka.version={version}")])
            .map_err(|why| format!("Maven could not download Kafka {version}: {why}"))?;
    }
    Ok(())
}

/// Copies what `pom` depends on into `home`/lib, and then the POM itself: it says that all is there.
fn copy_jars(root: &Path, pom: &Path, home: &Path, definitions: &[String]) -> Result<()> {
    std::fs::create_dir_all(home).map_err(|error| format!("{}: {error}", home.display()))?;
    let mut maven = command(root, "mvn", ["-B", "-q", "-f"]);
    maven.arg(pom).args(definitions).args([COPY, "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", home.join("lib").display()));
    let done = maven.output().map_err(|error| format!("mvn: {error}"))?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stdout);
        let lines: Vec<&str> = text.lines().collect();
        return Err(lines[lines.len().saturating_sub(15)..].join("\n"));
    }
    std::fs::copy(pom, home.join("pom.xml")).map(|_| ()).map_err(|error| format!("{}: {error}", home.display()))
}

fn is_copy(copy: &Path, original: &Path) -> bool {
    std::fs::read(copy).is_ok_and(|copy| std::fs::read(original).is_ok_and(|original| original == copy))
}

/// The 21 of `javac 21.0.4`; 0 where there is none.
fn java_major(program: &str) -> u32 {
    let Ok(done) = Command::new(program).arg("-version").output() else { return 0 };
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let version = text.split_whitespace().nth(1).unwrap_or_default();
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0)
}

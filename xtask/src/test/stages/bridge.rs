//! The bridge against real brokers, which die, refuse, change and lie.

use std::path::PathBuf;
use std::thread;

use super::super::packages;
use super::super::runner::{Runner, Stage};
use super::kafka::{NEWEST_BROKER, Programs, need_brokers, need_kafka};
use super::{empty_directory, papers, with};
use crate::command::{Result, cargo, command, run, rust_minor};

/// The newest patch of each minor version that Maven Central has; 4.3's is in tests/kafka/pom.xml. 3.9 is refused.
const VERSIONS_ALWAYS: [&str; 2] = ["4.0.2", NEWEST_BROKER];
const VERSIONS_ALL: [&str; 5] = ["3.9.2", "4.0.2", "4.1.2", "4.2.2", NEWEST_BROKER];
/// librdkafka's consumer for Python, in an environment of its own.
const CONFLUENT_KAFKA_VERSION: &str = "2.11.1";
/// krafka, which has the fake broker, needs a newer Rust than edgelog.
const KRAFKA_RUST_MINOR: u32 = 95;

pub(super) fn bridge(stage: &Stage) {
    let runner = stage.runner;
    if !stage.has("bridge", need_kafka(runner)) {
        return;
    }
    let work = runner.target.join("kafka/bridge");
    if !stage.has("bridge", empty_directory(&work)) {
        return;
    }
    remove_logs(runner);
    without_a_broker(stage);
    let Some(programs) = Programs::build(stage) else { return };
    papers::pages(stage, &programs.edgelog, true);
    let (store, expected) = (work.join("store"), work.join("expect.jsonl"));
    let (store, expected) = (store.to_string_lossy(), expected.to_string_lossy());
    if !stage.step_that_waits("a mixed workload", programs.mixed_workload(&store, &expected)) {
        return;
    }
    let scripts = Scripts { stage, programs: &programs, arguments: ["run", &store, "--expect", &expected] };
    // Two or three at once: each has a broker of half a gibibyte.
    thread::scope(|scope| {
        scope.spawn(|| scripts.step("into a real broker", "transfer"));
        scripts.step("what the target refuses", "refusals");
        scripts.step("where it goes on", "positions");
    });
    thread::scope(|scope| {
        scope.spawn(|| scripts.step("batches made again on their way", "rebatched"));
        scope.spawn(|| scripts.step("over a bad line", "lines"));
        scope.spawn(|| scripts.step("into a cluster that changes", "quorum"));
        let heap = programs.python("tests/bridge/heap.py", &[]);
        stage.step_that_waits("its memory over a backlog", heap);
        scripts.other_consumers();
        scripts.other_versions();
        scripts.strict_broker();
        scripts.failing_device();
        scripts.as_a_service();
    });
    let (faults, records) = injected_and_compared(runner);
    stage.note(format!("The bridge, in all: {faults} faults injected, {records} records read back and compared"));
}

fn without_a_broker(stage: &Stage) {
    let runner = stage.runner;
    // Built as in the stage on units.
    let all = ["test", "--workspace", "--locked", "--all-features"];
    let tests = |arguments: &[&str]| {
        let mut tests = runner.cargo(all);
        tests.args(arguments);
        tests
    };
    // Of one build and one length with `workspace, all features` of `unit`, which has run them where it has run.
    if !runner.has_ended("unit") {
        stage.step("what the bridge decides", tests(&["--lib", "--", "bridge::", "kafka::"]));
        stage.step("secrets stay secret", tests(&["--test", "bridge_secrets"]));
    }
    let minor = rust_minor().unwrap_or(0);
    if minor >= KRAFKA_RUST_MINOR {
        let manifest = "tests/fake_broker/Cargo.toml";
        let answers = ["test", "--locked", "--no-fail-fast", "--manifest-path", manifest, "--", "--nocapture"];
        stage.step("every answer that a broker can give, and none", runner.cargo(answers));
    } else {
        let why = format!("krafka needs Rust 1.{KRAFKA_RUST_MINOR}, this is 1.{minor}");
        stage.leave_out("the bridge against a fake broker", &why);
    }
    // Without the feature nothing of it is compiled, and with it no async runtime comes along.
    let tree = r#"! "$0" tree -p edgelog --locked -e normal --prefix none |
             grep -E "^(kafka-protocol|bytes|uuid|rustls|ring|zeroize|tokio) " &&
         ! "$0" tree -p edgelog --locked -e normal --prefix none --features bridge |
             grep -E "^(tokio|aws-lc-rs|openssl-sys) ""#;
    let mut alone = runner.program("bash", ["-c", tree]);
    alone.arg(cargo());
    stage.step_that_waits("the library alone depends on nothing of it", alone);
}

/// The scripts of tests/bridge, which all send the same store.
struct Scripts<'a> {
    stage: &'a Stage<'a>,
    programs: &'a Programs<'a>,
    arguments: [&'a str; 4],
}

impl Scripts<'_> {
    fn step(&self, name: &str, script: &str) {
        let command = self.programs.python(&format!("tests/bridge/{script}.py"), &self.arguments);
        self.stage.step_that_waits(name, command);
    }

    fn other_consumers(&self) {
        let Self { stage, programs, arguments } = self;
        let runner = stage.runner;
        match need_confluent_kafka(runner) {
            Ok(python) => {
                let mut read_back = runner.program(python, ["tests/bridge/read_back.py"]);
                read_back.args(arguments);
                let read_back = with(read_back, programs.variables());
                stage.step_that_waits("read back by other people's consumers", read_back);
            }
            Err(why) => stage.leave_out("reading back by librdkafka's consumer", &why),
        }
    }

    fn other_versions(&self) {
        let Self { stage, programs, arguments } = self;
        let versions: Vec<String> = match super::variable("EDGELOG_KAFKA_VERSIONS", "").as_str() {
            "" => VERSIONS_ALWAYS.map(str::to_owned).to_vec(),
            "all" => VERSIONS_ALL.map(str::to_owned).to_vec(),
            some => some.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        };
        let brokers = need_brokers(stage.runner, &versions);
        if stage.has("the bridge against other versions of Kafka", brokers) {
            let into = programs.python("tests/bridge/versions.py", arguments);
            let into = with(into, [("EDGELOG_KAFKA_VERSIONS", versions.join(" "))]);
            stage.step_that_waits("into other versions of Kafka", into);
        }
    }

    fn strict_broker(&self) {
        let root = &self.stage.runner.root;
        let openssl = packages::need(root, "openssl", "to make certificates for the broker", &["openssl"]);
        if self.stage.has("the bridge's TLS and SASL", openssl) {
            self.step("into a broker that asks for logins", "secure");
        }
    }

    fn failing_device(&self) {
        let Self { stage, programs, arguments } = self;
        let root = &stage.runner.root;
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let device = if packages::can_be_root(root) {
            stage.install("to make a device that fails", &["e2fsprogs", "mount"]).and_then(|()| {
                let mut losetup = packages::as_root(root, &[("PATH", path.clone())]);
                run(losetup.args(["losetup", "--find"])).map_err(|why| format!("no loop device: {why}"))
            })
        } else {
            Err("mounting needs root".to_owned())
        };
        if stage.has("the bridge on a device that fails", device) {
            let mut variables = programs.variables();
            variables.push(("PATH", path));
            let mut eio = packages::as_root(root, &variables);
            eio.args(["python3", "tests/bridge/eio.py"]).args(arguments);
            stage.step_that_waits("on a device that fails", eio);
        }
    }

    /// The unit, under a systemd that is the first process of a machine of its own.
    fn as_a_service(&self) {
        let Self { stage, programs, arguments } = self;
        let root = &stage.runner.root;
        if !packages::can_be_root(root) {
            return stage.leave_out("the bridge under systemd", "namespaces and mounts need root");
        }
        let tools =
            packages::need(root, "systemctl", "to start the bridge's unit", &["systemd", "util-linux", "mount"]);
        if !stage.has("the bridge under systemd", tools) {
            return;
        }
        let script = |arguments: &[&str]| {
            let mut script = packages::as_root(root, &programs.variables());
            script.args(["python3", "tests/bridge/systemd.py"]).args(arguments);
            script
        };
        let probe = |controllers: &[&str]| {
            let done = script(&["probe"]).args(controllers).output().map_err(|error| error.to_string())?;
            if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()) }
        };
        if let Err(why) = probe(&[]) {
            return stage.leave_out_of_this_kernel("the bridge under systemd", &why);
        }
        let mut tests = script(arguments);
        if let Err(why) = probe(&["memory"]) {
            stage.leave_out_of_this_kernel("the memory that the bridge's unit allows", &why);
            tests.args(["--without", "memory"]);
        }
        stage.step_that_waits("as a service of systemd", tests);
    }
}

/// Installs librdkafka's consumer, and returns the Python that has it.
fn need_confluent_kafka(runner: &Runner) -> Result<PathBuf> {
    let home = runner.target.join(format!("confluent-kafka-{CONFLUENT_KAFKA_VERSION}"));
    let python = home.join("bin/python");
    let is_whole = home.join("is-whole");
    if is_whole.exists() {
        return Ok(python);
    }
    let root = &runner.root;
    let has_venv = run(&mut command(root, "python3", ["-c", "import ensurepip"]));
    has_venv.or_else(|_| packages::install(root, "to install a consumer for Kafka", &["python3-venv"]))?;
    eprintln!("Installing confluent-kafka {CONFLUENT_KAFKA_VERSION} from PyPI into {}", home.display());
    eprintln!("  why: a plain consumer has to read what the bridge delivers");
    let _ = std::fs::remove_dir_all(&home);
    run(command(root, "python3", ["-m", "venv"]).arg(&home))?;
    let mut install =
        command(root, home.join("bin/pip"), ["install", "--quiet", "--only-binary", ":all:", "--no-deps"]);
    run(install.arg(format!("confluent-kafka=={CONFLUENT_KAFKA_VERSION}")))?;
    std::fs::write(&is_whole, "").map_err(|error| format!("{}: {error}", is_whole.display()))?;
    Ok(python)
}

/// Of the logs of this stage, nothing of an earlier run is counted.
fn remove_logs(runner: &Runner) {
    for log in logs(runner) {
        let _ = std::fs::remove_file(log);
    }
}

fn logs(runner: &Runner) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runner.logs()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("/bridge-")).collect()
}

/// The sums of what each script says of its own part: `in all: N faults injected, N records ...`.
fn injected_and_compared(runner: &Runner) -> (u64, u64) {
    let mut sums = (0, 0);
    for log in logs(runner) {
        let text = std::fs::read(&log).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines().filter(|line| line.starts_with("in all: ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            sums = (sums.0 + number(2), sums.1 + number(5));
        }
    }
    sums
}

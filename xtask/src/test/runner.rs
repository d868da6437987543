//! Runs steps, shows and keeps what they print, and counts the tests in them.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::packages;
use super::processors::{Needs, Processors};
use super::results::{Results, reasons};
use super::screen::Screen;
use crate::command::Result;

/// No step may take longer, but in the stages that say so: a hang is a failure with a name.
const STEP_MAX: Duration = Duration::from_secs(1500);
/// How long a step that was ended by SIGTERM has until SIGKILL.
const KILL_AFTER: &str = "10";
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What all stages of one run share.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) root: PathBuf,
    pub(super) target: PathBuf,
    /// Whether what is left out is a failure.
    leaves_nothing_out: bool,
    processors: Processors,
    screen: Screen,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    results: Results,
    failures: Vec<Failure>,
    left_out: Vec<String>,
    notes: Vec<String>,
    times: Vec<String>,
}

#[derive(Debug)]
struct Failure {
    what: String,
    log: Option<PathBuf>,
}

/// One stage while it runs.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) runner: &'a Runner,
    name: &'static str,
    step_max: Duration,
    /// Its steps take no processors.
    waits: bool,
}

impl Runner {
    pub(super) fn new(root: &Path, target: &Path) -> Result<Self> {
        let runner = Self {
            root: root.to_owned(),
            target: target.to_owned(),
            leaves_nothing_out: std::env::var_os("CI").is_some_and(|value| !value.is_empty()),
            processors: Processors::new(thread::available_parallelism().map_or(1, usize::from)),
            screen: Screen::default(),
            tally: Mutex::default(),
        };
        let logs = runner.logs();
        std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
        Ok(runner)
    }

    /// Where each step's output is kept.
    pub(super) fn logs(&self) -> PathBuf {
        self.target.join("test-logs")
    }

    /// Runs a stage, and keeps the time that it took. With `waits`, none of its steps waits for processors.
    pub(super) fn stage(&self, name: &'static str, waits: bool, run: fn(&Stage)) {
        let began = Instant::now();
        self.screen.line(&format!("\n=== {name}"));
        run(&Stage { runner: self, name, step_max: STEP_MAX, waits });
        let took = format!("{name} {} s", began.elapsed().as_secs());
        self.screen.line(&format!("\n=== {took}"));
        self.change(|tally| tally.times.push(took));
    }

    /// Whether the stage has come to its end in this run.
    pub(super) fn has_ended(&self, stage: &str) -> bool {
        self.change(|tally| tally.times.iter().any(|took| took.split(' ').next() == Some(stage)))
    }

    /// Prints what came of all stages. Whether nothing failed.
    pub(super) fn summarise(&self) -> bool {
        self.change(|tally| {
            println!("\nTimes: {}", tally.times.join(", "));
            for note in &tally.notes {
                println!("{note}");
            }
            for left_out in &tally.left_out {
                println!("Left out: {left_out}");
            }
            for failure in &tally.failures {
                failure.print();
            }
            let Results { passed, failed, skipped } = tally.results;
            println!("{passed} passed, {failed} failed, {skipped} skipped");
            failed == 0
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.tally.lock().expect("no thread panics with it"))
    }
}

impl Failure {
    fn print(&self) {
        let log = self.log.as_ref();
        println!("Failed: {}{}", self.what, log.map_or(String::new(), |log| format!(" ({})", log.display())));
        let text = log.and_then(|log| std::fs::read(log).ok()).unwrap_or_default();
        for line in reasons(&String::from_utf8_lossy(&text)) {
            println!("  | {line}");
        }
    }
}

impl Stage<'_> {
    /// The same stage, with more time for each step.
    pub(super) fn with_step_max(&self, step_max: Duration) -> Self {
        Self { step_max, ..*self }
    }

    /// Runs a step that has a thread for each processor. Whether it succeeded.
    pub(super) fn step(&self, name: &str, command: Command) -> bool {
        self.run(name, Needs::Half, command)
    }

    /// Runs a step that uses one processor.
    pub(super) fn step_on_one(&self, name: &str, command: Command) -> bool {
        self.run(name, Needs::One, command)
    }

    /// Runs a step that waits most of its time.
    pub(super) fn step_that_waits(&self, name: &str, command: Command) -> bool {
        self.run(name, Needs::Waiting, command)
    }

    #[expect(clippy::needless_pass_by_value, reason = "each step's command is made for it")]
    fn run(&self, name: &str, needs: Needs, command: Command) -> bool {
        let _in_use = self.runner.processors.take(if self.waits { Needs::Waiting } else { needs });
        let heading = format!("--- {}: {name}", self.name);
        let log = self.log_of(name);
        let began = Instant::now();
        let ended = self.wait_for(bounded(&command, self.step_max), &heading, &log);
        let text = std::fs::read(&log).unwrap_or_default();
        let has_succeeded = ended.as_ref().is_ok_and(ExitStatus::success);
        let results = Results::of_step(&String::from_utf8_lossy(&text), has_succeeded);
        let is_ok = results.failed == 0;
        let mut end = match ended {
            Err(reason) => format!("{reason}\n"),
            Ok(status) if matches!(status.code(), Some(124 | 137)) => {
                format!("Ended: over {} s.\n", self.step_max.as_secs())
            }
            Ok(_) => String::new(),
        };
        let _ = write!(end, "{heading}: {}, {} s", if is_ok { "ok" } else { "FAILED" }, began.elapsed().as_secs());
        self.runner.screen.end(&heading, &log, &end);
        self.runner.change(|tally| {
            tally.results.add(results);
            if !is_ok {
                tally.failures.push(Failure { what: format!("{}: {name}", self.name), log: Some(log) });
            }
        });
        is_ok
    }

    /// Runs it, with all that it prints in `log`.
    fn wait_for(&self, mut command: Command, heading: &str, log: &Path) -> Result<ExitStatus> {
        let output = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = output.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
        loop {
            self.runner.screen.follow(heading, log);
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                return Ok(status);
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn log_of(&self, name: &str) -> PathBuf {
        let mut file = format!("{}-", self.name);
        for letter in name.chars() {
            if letter.is_ascii_alphanumeric() || letter == '.' {
                file.push(letter);
            } else if !file.ends_with('-') {
                file.push('-');
            }
        }
        self.runner.logs().join(file + ".log")
    }

    /// Says that something is not tested here, and why. Where nothing may be left out, that is a failure.
    pub(super) fn leave_out(&self, what: &str, why: &str) {
        self.say_left_out(what, why, self.runner.leaves_nothing_out);
    }

    /// The same of what this machine's kernel cannot do: no install mends that, and it is no failure.
    pub(super) fn leave_out_of_this_kernel(&self, what: &str, why: &str) {
        self.say_left_out(what, why, false);
    }

    fn say_left_out(&self, what: &str, why: &str, is_failure: bool) {
        self.runner.screen.line(&format!("\n*** LEFT OUT: {what}\n*** because {why}"));
        self.runner.change(|tally| {
            tally.left_out.push(format!("{what}: {why}"));
            if is_failure {
                tally.results.failed += 1;
                tally
                    .failures
                    .push(Failure { what: format!("{what}: left out, and CI leaves nothing out"), log: None });
            } else {
                tally.results.skipped += 1;
            }
        });
    }

    /// Whether `need` is there; where it is not, `what` is left out.
    pub(super) fn has(&self, what: &str, need: Result<()>) -> bool {
        need.map_err(|why| self.leave_out(what, &why)).is_ok()
    }

    /// A line for the end of the run.
    pub(super) fn note(&self, line: String) {
        self.runner.change(|tally| tally.notes.push(line));
    }

    pub(super) fn install(&self, why: &str, needed: &[&str]) -> Result<()> {
        packages::install(&self.runner.root, why, needed)
    }
}

/// The command, ended after `step_max`, and with this program, where the system has the tools for that.
fn bounded(command: &Command, step_max: Duration) -> Command {
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if packages::has("setpriv") {
        words.extend(["setpriv", "--pdeathsig", "TERM"].map(Into::into));
    }
    let seconds = step_max.as_secs().to_string();
    words.extend(["timeout", "--kill-after", KILL_AFTER, &seconds].map(Into::into));
    words.push(command.get_program().to_owned());
    words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
    let mut bounded = Command::new(&words[0]);
    bounded.args(&words[1..]);
    if let Some(directory) = command.get_current_dir() {
        bounded.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    bounded
}

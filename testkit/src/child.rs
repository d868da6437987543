//! A test's other processes, and waiting for what they do.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A child process that is killed when it is dropped, or when it takes longer than two minutes.
pub struct Watched {
    child: Arc<Mutex<Child>>,
    _done: Sender<()>,
}

impl Watched {
    pub fn new(child: Child) -> Watched {
        let child = Arc::new(Mutex::new(child));
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let watched = Arc::clone(&child);
        std::thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("a child process is killed after two minutes");
                let _ = watched.lock().unwrap().kill();
            }
        });
        Watched { child, _done: done }
    }

    /// What the child prints, line by line.
    pub fn lines(&self) -> impl Iterator<Item = String> + use<> {
        let stdout = self.child.lock().unwrap().stdout.take().expect("its standard output is a pipe");
        BufReader::new(stdout).lines().map_while(Result::ok)
    }

    /// Where the child reads from.
    pub fn stdin(&self) -> ChildStdin {
        self.child.lock().unwrap().stdin.take().expect("its standard input is a pipe")
    }

    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// SIGKILL.
    pub fn kill(&self) -> ExitStatus {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap()
    }

    /// Waits until the child has ended by itself, or by the two minutes.
    pub fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Runs the test `test` of this binary again, as a child that finds `environment`. Where this binary is another
/// machine's and runs emulated, `EDGELOG_TEST_EMULATOR` says by what.
pub fn run_again(test: &str, environment: &[(&str, &OsStr)]) -> Watched {
    let this = std::env::current_exe().unwrap();
    let mut command = match std::env::var("EDGELOG_TEST_EMULATOR") {
        Ok(emulator) => {
            let mut words = emulator.split_whitespace();
            let mut command = Command::new(words.next().expect("an emulator has a name"));
            command.args(words).arg(this);
            command
        }
        Err(_) => Command::new(this),
    };
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.envs(environment.iter().copied());
    Watched::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

/// A child's line to its parent: on a line of its own, also if the test runner has printed a part of a line.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("the parent listens");
}

/// Calls `done` until it answers true; fails after a minute with what it waited for.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "a minute has passed: {what}");
        std::thread::yield_now();
    }
}

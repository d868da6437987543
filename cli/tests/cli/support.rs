//! Runs the real binary on a data directory of its own, and waits for what it prints, never for time to pass.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::fs::OFlags;

/// Long enough for the slowest machine under load: reached only where something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A data directory that is removed with its test.
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("edgelog-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Place { root }
    }

    /// A path next to the store.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The data directory, which the first writer makes.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgelog"));
        command.args(arguments).env("EDGELOG_DIR", self.store()).env_remove("CLICOLOR_FORCE");
        command
    }

    /// Runs to the end with this on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Done {
        Place::run_command(self.command(arguments), input)
    }

    /// As [`run_with`](Place::run_with), of a command that has more to it than text.
    pub(crate) fn run_command(mut command: Command, input: &[u8]) -> Done {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            // The command may end without reading all of it.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        Done::new(&arguments.join(" "), &output)
    }

    /// What a terminal gets as standard output of a command that ends by itself, without colours. Line ends are line
    /// feeds.
    pub(crate) fn run_on_terminal(&self, arguments: &[&str]) -> Vec<u8> {
        self.run_on_terminal_of(arguments, 0)
    }

    /// As [`run_on_terminal`](Place::run_on_terminal), with so many columns; 0 is a terminal that does not say.
    pub(crate) fn run_on_terminal_of(&self, arguments: &[&str], columns: u16) -> Vec<u8> {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let mut master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let mut open = fs::OpenOptions::new();
        let terminal = open.read(true).write(true).custom_flags(OFlags::NOCTTY.bits() as i32).open(name).unwrap();
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&terminal, size).unwrap();
        let mut command = self.command(arguments);
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(terminal).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The command has its own handle now. When that is closed too, reading ends with an error.
        drop(command);
        let mut shown = Vec::new();
        let mut part = [0; 4096];
        while let Ok(read @ 1..) = rustix::io::read(&mut master, &mut part) {
            shown.extend_from_slice(&part[..read]);
        }
        child.wait().unwrap();
        shown.retain(|&byte| byte != b'\r');
        shown
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.run_with(arguments, b"")
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::new(self.command(arguments))
    }

    /// Changes one byte of a file in the store.
    pub(crate) fn flip(&self, file: &str, position: usize) {
        let path = self.store().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[position] ^= 0x10;
        fs::write(&path, bytes).unwrap();
    }

    /// Names of the segments of a log, oldest first.
    pub(crate) fn segments(&self, log: &str) -> Vec<String> {
        let names = fs::read_dir(self.store().join(log))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut logs: Vec<_> = names.filter(|name| Path::new(name).extension().is_some_and(|e| e == "log")).collect();
        logs.sort();
        logs.iter().map(|name| format!("{log}/{name}")).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// A command that ended.
pub(crate) struct Done {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    fn new(arguments: &str, output: &Output) -> Done {
        Done {
            what: format!("edgelog {arguments}"),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, after looking at the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Done {
        let Done { what, stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{what}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// Each line of standard output as JSON.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
    }
}

/// A command that runs, with its lines as they come. Dropping it kills it.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    pub(crate) fn new(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = lines_of(child.stdout.take().unwrap());
        let stderr = lines_of(child.stderr.take().unwrap());
        Running { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// The next line of standard output.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        self.stdout.recv_timeout(DEADLINE).unwrap_or_else(|error| {
            let stderr: Vec<String> = self.stderr.try_iter().collect();
            panic!("no line came: {error}; standard error: {stderr:?}")
        })
    }

    /// The next line of standard output that has `part` in it.
    #[track_caller]
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it as a power cut of the process would.
    pub(crate) fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends; all lines that were not taken yet.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Done {
        drop(self.stdin.take());
        let rest = |lines: &Receiver<String>| {
            let mut text = String::new();
            // The channel closes when the process has closed its end.
            while let Ok(line) = lines.recv_timeout(DEADLINE) {
                text.push_str(&line);
                text.push('\n');
            }
            text
        };
        let (stdout, stderr) = (rest(&self.stdout), rest(&self.stderr));
        let code = self.child.wait().unwrap().code();
        Done { what: "a running command".to_owned(), code, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

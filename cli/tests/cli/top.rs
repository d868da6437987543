//! Defends `top`: one table where there is no terminal, and a screen with keys where there is one.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Stdio};

use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::Place;

fn filled() -> Place {
    let place = Place::new();
    place.run(&["topics", "create", "net.a", "-p", "2", "-c", "retention.bytes=1MiB"]).exits(0);
    place.run(&["topics", "create", "net.b", "-c", "retention.ms=-1"]).exits(0);
    place.run_with(&["append", "cpu", "-k", "core0"], b"1\n2\nlast\x1b[2J\n").exits(0);
    place
}

#[test]
fn without_a_terminal_it_prints_one_table() {
    let place = filled();
    let done = place.run(&["top"]).exits(0);
    assert!(done.stderr.contains("there is no terminal"), "{}", done.stderr);
    let once = place.run(&["top", "--once"]).exits(0);
    assert_eq!((once.stderr.as_str(), once.lines().len()), ("", 5), "{}", once.stdout);
    assert!(once.lines()[0].contains("3 topics") && once.lines()[0].contains("no writer"), "{}", once.stdout);
    let cells = |at: usize| once.lines()[at].split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells(1), ["TOPIC", "PARTITIONS", "/S", "END", "OFFSETS", "BYTES", "RETENTION", "LAG"]);
    assert_eq!(cells(2)[..5], ["cpu", "1", "-", "3", "3"]);
    assert_eq!(cells(3)[6..], ["B", "7d,", "1.0", "MiB", "-"]);
    assert_eq!(cells(4)[7..], ["none", "-"]);
    assert_eq!(place.run(&["top", "--once", "net.*"]).exits(0).lines().len(), 4);
    let none = place.run(&["top", "x*"]).exits(1);
    assert!(none.stderr.contains("no topic in"), "{}", none.stderr);
    assert_eq!(place.run(&["top", "--every", "0s"]).code, Some(1));
}

/// A command on a terminal of its own, with what it has shown so far.
struct OnTerminal {
    child: Child,
    master: OwnedFd,
    terminal: fs::File,
    shown: String,
}

impl OnTerminal {
    fn start(place: &Place, arguments: &[&str]) -> OnTerminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let mut open = fs::OpenOptions::new();
        let terminal = open.read(true).write(true).custom_flags(OFlags::NOCTTY.bits() as i32).open(name).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 8, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let (input, output) = (terminal.try_clone().unwrap(), terminal.try_clone().unwrap());
        let mut command = place.command(arguments);
        let child = command.env("NO_COLOR", "1").stdin(input).stdout(output).stderr(Stdio::inherit()).spawn().unwrap();
        OnTerminal { child, master, terminal, shown: String::new() }
    }

    /// Reads until this is shown, and forgets what came before.
    fn wait_for(&mut self, text: &str) {
        let mut part = [0; 4096];
        while !self.shown.contains(text) {
            let read = rustix::io::read(&self.master, &mut part).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&part[..read]));
        }
        let end = self.shown.find(text).unwrap() + text.len();
        self.shown.drain(..end);
    }

    fn press(&self, keys: &[u8]) {
        rustix::io::write(&self.master, keys).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_choose_filter_and_end() {
    let place = filled();
    let mut top = OnTerminal::start(&place, &["top", "--every", "100ms"]);
    top.wait_for("\x1b[?1049h");
    // Each line is cut to the terminal, and the chosen topic's last record is harmless there.
    top.wait_for("> cpu");
    top.wait_for("cpu-0:2  just now  core0  last\\u{1b}[2J");
    assert!(top.is_raw());
    top.press(b"\x1b[B");
    top.wait_for("> net.a");
    top.press(b"j");
    top.wait_for("> net.b");
    top.press(b"/cp");
    top.wait_for("> cpu");
    top.wait_for("/cp_");
    // A q is a character of the filter here, and the end behind it.
    top.press(b"q");
    top.wait_for("/cpq_");
    top.press(b"\x7f\r");
    top.wait_for("1 topic with cp;");
    place.run_with(&["append", "cpu"], b"next\n").exits(0);
    top.wait_for("cpu-0:3  ");
    top.press(b"\x1b");
    top.wait_for("q ends, / filters");
    top.press(b"q");
    top.wait_for("\x1b[?1049l");
    assert_eq!(top.child.wait().unwrap().code(), Some(0));
    assert!(!top.is_raw(), "the terminal is as it was");
}

#[test]
fn enter_shows_the_partitions_of_a_topic() {
    let place = filled();
    place.run_with(&["append", "net.a-1"], b"a\nb\n").exits(0);
    let mut top = OnTerminal::start(&place, &["top", "--every", "100ms"]);
    top.wait_for("> cpu");
    top.press(b"j");
    top.wait_for("> net.a");
    top.press(b"\r");
    top.wait_for("PARTITION");
    top.wait_for("> net.a-0");
    top.wait_for("partitions of net.a;");
    top.press(b"j");
    top.wait_for("> net.a-1");
    top.wait_for("net.a-1:1  just now  b");
    // A q ends, and a slash is no filter here; Esc goes back to the same topic.
    top.press(b"/\x1b");
    top.wait_for("PARTITIONS");
    top.wait_for("> net.a");
    top.wait_for("q ends, / filters");
    top.press(b"q");
    top.wait_for("\x1b[?1049l");
    assert_eq!(top.child.wait().unwrap().code(), Some(0));
}

#[test]
fn ctrl_c_leaves_the_terminal_as_it_was() {
    let place = filled();
    let mut top = OnTerminal::start(&place, &["top"]);
    top.wait_for("> cpu");
    let pid = rustix::process::Pid::from_child(&top.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    top.wait_for("\x1b[?1049l");
    assert_eq!(top.child.wait().unwrap().code(), Some(130));
    assert!(!top.is_raw());
}

//! A terminal that a command has for itself: keys come one by one, and what is shown is a page.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// A key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Up,
    Down,
    Enter,
    Escape,
    Backspace,
}

/// Standard input without line editing and echo, and the terminal's other screen. Dropped, both are as they were. Ctrl-C
/// is a signal as before.
pub(crate) struct RawTerminal {
    before: Termios,
    out: io::Stdout,
    keys: io::Stdin,
}

/// The other screen, without a cursor; and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// How long a wait for a key lasts before Ctrl-C is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl RawTerminal {
    pub(crate) fn enter() -> io::Result<RawTerminal> {
        let (out, keys) = (io::stdout(), io::stdin());
        let before = tcgetattr(&keys)?;
        let mut raw = before.clone();
        raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        // A read returns what there is, also when that is nothing.
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&keys, OptionalActions::Now, &raw)?;
        let mut terminal = RawTerminal { before, out, keys };
        terminal.out.write_all(ENTER)?;
        terminal.out.flush()?;
        Ok(terminal)
    }

    /// Columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        match tcgetwinsize(&self.out) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
            _ => (80, 24),
        }
    }

    /// The keys that were pressed, or none after `wait` or some shorter time.
    pub(crate) fn keys(&self, wait: Duration) -> io::Result<Vec<Key>> {
        let mut watched = [PollFd::new(&self.keys, PollFlags::IN)];
        let wait = wait.min(LOOK_EVERY);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) as _ };
        match poll(&mut watched, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            polled => polled?,
        };
        let mut bytes = [0; 256];
        let read = rustix::io::read(&self.keys, &mut bytes)?;
        if read == 0 && watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            // The terminal has gone.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(keys_in(&bytes[..read]))
    }

    /// Shows lines, which have no more characters than the terminal has columns.
    pub(crate) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let mut page = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            let _ = write!(page, "{}{line}\x1b[K", if n == 0 { "" } else { "\r\n" });
        }
        page.push_str("\x1b[J");
        self.out.write_all(page.as_bytes())?;
        self.out.flush()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = self.out.write_all(LEAVE).and_then(|()| self.out.flush());
        let _ = tcsetattr(&self.keys, OptionalActions::Now, &self.before);
    }
}

/// What a terminal sends for keys. A sequence comes in one piece.
fn keys_in(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let text = String::from_utf8_lossy(bytes);
    let mut rest: &str = &text;
    while let Some(first) = rest.chars().next() {
        let (key, taken) = match first {
            '\x1b' if rest.starts_with("\x1b[A") || rest.starts_with("\x1bOA") => (Some(Key::Up), 3),
            '\x1b' if rest.starts_with("\x1b[B") || rest.starts_with("\x1bOB") => (Some(Key::Down), 3),
            // Another sequence: up to its last character.
            '\x1b' if rest.starts_with("\x1b[") || rest.starts_with("\x1bO") => {
                let end = rest[2..].find(|c: char| c.is_ascii_alphabetic() || c == '~');
                (None, end.map_or(rest.len(), |end| end + 3))
            }
            '\x1b' => (Some(Key::Escape), 1),
            '\r' | '\n' => (Some(Key::Enter), 1),
            '\x08' | '\x7f' => (Some(Key::Backspace), 1),
            other if other.is_control() => (None, other.len_utf8()),
            other => (Some(Key::Char(other)), other.len_utf8()),
        };
        keys.extend(key);
        rest = &rest[taken..];
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_out_of_what_a_terminal_sends() {
        let keys = keys_in("q\x1b[A\x1bOB\x1b[5~/\u{e9}\x7f\r\x01\x1b".as_bytes());
        let expected = [
            Key::Char('q'),
            Key::Up,
            Key::Down,
            Key::Char('/'),
            Key::Char('\u{e9}'),
            Key::Backspace,
            Key::Enter,
            Key::Escape,
        ];
        assert_eq!(keys, expected);
        assert_eq!(keys_in(b"\x1b[12"), []);
        assert_eq!(keys_in(b"\x1b[1\xff;5"), []);
    }
}

//! What steps print: one of them at a time, while it runs; what others print meanwhile is shown when it has ended.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Standard output, with the step that has it.
#[derive(Debug, Default)]
pub(super) struct Screen {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The output that is shown as it comes.
    live: Option<Shown>,
    /// Outputs of steps that ended meanwhile, with the line that ends each.
    ended: Vec<(Shown, String)>,
}

/// A step's output, and how much of it was shown.
#[derive(Debug)]
struct Shown {
    heading: String,
    log: PathBuf,
    file: Option<File>,
}

impl Screen {
    /// A line of the runner itself.
    pub(super) fn line(&self, line: &str) {
        let _state = self.state();
        print(format!("{line}\n").as_bytes());
    }

    /// Shows what the step has written to `log` since the last call, where no other step has the screen.
    pub(super) fn follow(&self, heading: &str, log: &Path) {
        let mut state = self.state();
        if state.live.is_none() {
            state.live = Some(Shown::new(heading, log));
        }
        if let Some(live) = state.live.as_mut().filter(|live| live.log == log) {
            live.show();
        }
    }

    /// Shows the rest of what the step has written, and `end`: now, or when the step that has the screen has ended.
    pub(super) fn end(&self, heading: &str, log: &Path, end: &str) {
        let mut state = self.state();
        let has_other = state.live.as_ref().is_some_and(|live| live.log != log);
        if has_other {
            state.ended.push((Shown::new(heading, log), end.to_owned()));
            return;
        }
        let live = state.live.take().unwrap_or_else(|| Shown::new(heading, log));
        let ended = std::mem::take(&mut state.ended);
        for (mut shown, end) in std::iter::once((live, end.to_owned())).chain(ended) {
            shown.show();
            print(format!("{end}\n").as_bytes());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }
}

impl Shown {
    fn new(heading: &str, log: &Path) -> Self {
        Self { heading: heading.to_owned(), log: log.to_owned(), file: None }
    }

    fn show(&mut self) {
        if self.file.is_none() {
            print(format!("\n{}\n", self.heading).as_bytes());
            self.file = File::open(&self.log).ok();
        }
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.file {
            // What was read before an error is shown.
            let _ = file.read_to_end(&mut bytes);
        }
        print(&bytes);
    }
}

/// A reader that went away (`./test | head`) does not end the tests.
fn print(bytes: &[u8]) {
    let mut output = io::stdout().lock();
    let _ = output.write_all(bytes).and_then(|()| output.flush());
}

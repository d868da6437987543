//! A bar or spinner on standard error for what takes more than a second, and nothing for what does not.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is done sooner needs no bar.
const QUIET_FOR: Duration = Duration::from_secs(1);

/// Shows how far a long task is, on a terminal only. Dropping it clears the line.
pub(crate) struct Progress {
    bar: ProgressBar,
    since: Instant,
    is_shown: bool,
}

impl Progress {
    /// Towards `total` bytes.
    pub(crate) fn bytes(label: &str, total: u64) -> Progress {
        let style = "{msg} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        Progress::new(label, ProgressBar::hidden().with_style(style_of(style)), Some(total))
    }

    /// Towards an end that is not known.
    pub(crate) fn spinner(label: &str) -> Progress {
        Progress::new(label, ProgressBar::hidden().with_style(style_of("{spinner:.cyan} {msg} {elapsed}")), None)
    }

    fn new(label: &str, bar: ProgressBar, total: Option<u64>) -> Progress {
        bar.set_message(label.to_owned());
        if let Some(total) = total {
            bar.set_length(total);
        }
        Progress { bar, since: Instant::now(), is_shown: !std::io::stderr().is_terminal() }
    }

    /// So much more is done.
    pub(crate) fn advance(&mut self, done: u64) {
        self.bar.inc(done);
        if !self.is_shown && self.since.elapsed() > QUIET_FOR {
            self.is_shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

/// Shows on standard error how far something is whose end moves while it is approached: from the first
/// [`show`](CatchUp::show) until nothing is left. Clones are the same bar.
#[derive(Clone)]
pub(crate) struct CatchUp {
    bar: ProgressBar,
}

impl CatchUp {
    pub(crate) fn new() -> CatchUp {
        let style = "{msg} {wide_bar:.cyan/dim} {human_pos}/{human_len} {per_sec} {eta}";
        CatchUp { bar: ProgressBar::hidden().with_style(style_of(style)) }
    }

    /// So much is done, and so much is left.
    pub(crate) fn show(&self, label: String, done: u64, left: u64) {
        if left == 0 {
            self.clear();
            return;
        }
        let was_shown = self.is_shown();
        if !was_shown {
            self.bar.reset();
        }
        self.bar.set_message(label);
        self.bar.set_length(done + left);
        self.bar.set_position(done);
        if !was_shown {
            // What was done before is no measure of how fast it goes.
            self.bar.reset_eta();
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Whether there is a bar to see.
    pub(crate) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Does what writes to the terminal itself, without the bar.
    pub(crate) fn suspend(&self, work: impl FnOnce()) {
        self.bar.suspend(work);
    }

    pub(crate) fn clear(&self) {
        if self.is_shown() {
            self.bar.finish_and_clear();
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style_of(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is ours")
}

/// Runs `work`; where that takes more than a second, a spinner says what is going on.
pub(crate) fn while_doing<T>(label: &str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut spinner = Progress::spinner(label);
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = is_done.recv_timeout(Duration::from_millis(100))
            {
                spinner.advance(1);
            }
        });
        let answer = work();
        drop(done);
        answer
    })
}

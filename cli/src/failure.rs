//! How a command ends: exit codes, and errors that say what to do next.

use std::fmt;
use std::io::{self, BufRead, IsTerminal};
use std::process::ExitCode;

use edgelog::escape::{Escaped, escaped};
use edgelog::inspect::{Finding, Severity};

use crate::print::Paint;

/// What a command's `run` returns.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// Damage was met, or data is lost.
pub(crate) const DAMAGE: u8 = 2;
/// Stopped by Ctrl-C before the work was done.
pub(crate) const INTERRUPTED: u8 = 130;

/// A line on standard error has at most so many characters: a whole path, and a list of topics.
pub(crate) const LINE_CHARS_MAX: usize = 4096;

/// Words for standard error, which a terminal or a log shows: no line of them is more than text.
pub(crate) fn said<T: fmt::Display>(words: T) -> Escaped<T> {
    escaped(words).at_most(LINE_CHARS_MAX).with_lines()
}

/// Why a command failed, and what a person can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    /// Damage, or an old message format, is in the way: the exit code is [`DAMAGE`].
    is_damage: bool,
    /// The reader of our output has gone: there is nothing to print.
    is_broken_pipe: bool,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, is_damage: false, is_broken_pipe: false }
    }

    /// The same failure with what to do next. A hint that was set nearer to the cause stays.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same failure, with what was being done.
    #[must_use]
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Failure {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Errors of standard output arrive as these. An error of a file is reported with its path where the file is opened.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let is_broken_pipe = error.kind() == io::ErrorKind::BrokenPipe;
        Failure { message: error.to_string(), hint: None, is_damage: false, is_broken_pipe }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        io::Error::from(error).into()
    }
}

/// What a person can do about an error of the library.
fn hint_of(error: &edgelog::Error) -> Option<&'static str> {
    match error {
        edgelog::Error::NotOpened { source, .. } => hint_of(source),
        edgelog::Error::DataDirLocked(_) => Some(
            "One process writes a data directory; any number may read it meanwhile: `tail`, `stat` and `topics` work now. \
                 To write, stop that process first, or choose another directory with --dir.",
        ),
        edgelog::Error::CorruptRecord { .. } | edgelog::Error::CorruptBatch { .. } => Some(
            "`edgelog fsck` says what is damaged, `edgelog tail` prints what is good on both sides, `edgelog repair` makes the log whole again.",
        ),
        error if error.is_out_of_place() => Some(
            "What was acknowledged stands in the files that were moved, as far as they exist. Put them back in their place before the store is opened again.",
        ),
        edgelog::Error::PreviousIo { .. } | edgelog::Error::LogFailed { .. } => Some(
            "What was acknowledged is safe. Look at the disk and the kernel's log (dmesg), then start again: opening recovers.",
        ),
        edgelog::Error::UnsupportedVersion { .. } => Some("Use the edgelog that wrote this directory, or a newer one."),
        edgelog::Error::RecordTooLarge { .. } | edgelog::Error::RecordBatchTooLarge { .. } => Some(
            "Raise the limit with `edgelog topics alter TOPIC --config max.message.bytes=N` (and segment.bytes, where it is smaller).",
        ),
        edgelog::Error::InvalidConfig { .. } => {
            Some("`edgelog topics describe` lists every key, its values and its default.")
        }
        edgelog::Error::InvalidPartitions { .. } | edgelog::Error::InvalidTopic { .. } => None,
        edgelog::Error::TopicExists { .. } => Some("`edgelog topics alter` changes its configuration."),
        error if error.is_storage_full() => Some(
            "The disk (or the quota) is full. Everything acknowledged is safe and readable. Free some room, or delete a topic: `edgelog topics delete NAME`.",
        ),
        edgelog::Error::Storage { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Some("Run as the user that owns the data directory, or choose another one with --dir.")
        }
        _ => None,
    }
}

impl From<edgelog::Error> for Failure {
    fn from(error: edgelog::Error) -> Failure {
        Failure {
            message: escaped(&error).to_string(),
            hint: hint_of(&error).map(str::to_owned),
            is_damage: error.is_corrupt(),
            is_broken_pipe: false,
        }
    }
}

/// Prints a failure on standard error and picks the exit code.
pub(crate) fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(failure) if failure.is_broken_pipe => ExitCode::SUCCESS,
        Err(failure) => {
            let paint = Paint::stderr();
            eprintln!("{} {}", paint.bad("error:"), said(&failure.message));
            if let Some(hint) = &failure.hint {
                eprintln!("{}", said(hint));
            }
            if failure.is_damage { ExitCode::from(DAMAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Ends with a usage error where options that `command` has without a subcommand stand before a subcommand: they would
/// be ignored. (`--dir` may stand anywhere, which clap's `args_conflicts_with_subcommands` does not allow.)
pub(crate) fn refuse_stray_options<T: Default + PartialEq>(options: &T, command: &str) {
    if *options != T::default() {
        let text = format!(
            "of the options of `edgelog {command}`, only --dir may stand before a subcommand: put the others behind it\n"
        );
        usage(&clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, text));
        std::process::exit(1);
    }
}

/// Prints what clap has to say of the command line. Its own exit code for a wrong one, 2, means damage here.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Where standard output or error is closed there is no reader of the message.
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Asks a person whether to do what cannot be undone. Fails if there is no terminal to ask on, or if the answer is no.
pub(crate) fn confirm(what: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(format!("this would {what}")).hint("Say --yes to do it."));
    }
    eprint!("This will {}. Go on? [y/N] ", said(what));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::new("nothing was done")) }
}

/// Reports what is damaged or lost. The command goes on, and exits with [`DAMAGE`].
pub(crate) fn damage(message: impl fmt::Display) {
    eprintln!("{} {}", Paint::stderr().bad("damage:"), said(message));
}

/// Reports a finding of a command that prints records and goes on; whether some were not printed, so that it exits with
/// [`DAMAGE`].
pub(crate) fn report_damage(finding: &Finding) -> bool {
    if finding.severity == Severity::Lost {
        damage(escaped(finding));
    } else {
        warn(escaped(finding));
    }
    // A note is about records that are sound perhaps, and that cannot be decompressed here.
    finding.severity != Severity::Heals
}

/// Reports something that does not stop the command.
pub(crate) fn warn(message: impl fmt::Display) {
    eprintln!("{} {}", Paint::stderr().warn("warning:"), said(message));
}

//! What the inspection commands share: the data directory for reading, progress, and an end by Ctrl-C.

use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use edgelog::Error;
use edgelog::inspect::{self, Progress, Selection};
use edgelog::storage::Storage;

use crate::context::Context;
use crate::failure::{Failure, INTERRUPTED, Outcome};
use crate::{interrupt, progress};

/// The data directory, for looking only.
pub(crate) fn open(ctx: &Context) -> Result<Arc<dyn Storage>, Failure> {
    // Attaching says in good words where there is no store. What else it may say, the inspection finds out for itself.
    if ctx.dir().join("edgelog.checkpoint").symlink_metadata().is_err() {
        drop(ctx.attach()?);
    }
    Ok(inspect::open_directory(ctx.dir())?)
}

/// The logs that a command names, or all of them.
pub(crate) fn select(storage: &Arc<dyn Storage>, topic: Option<&str>) -> Result<Selection, Failure> {
    Ok(topic.map_or(Ok(Selection::all()), |name| Selection::find(storage, name))?)
}

/// A bar that appears after a second, and looks for Ctrl-C.
pub(crate) struct Watch {
    label: &'static str,
    bar: Option<progress::Progress>,
    done: u64,
}

impl Watch {
    pub(crate) fn new(label: &'static str) -> Watch {
        Watch { label, bar: None, done: 0 }
    }

    pub(crate) fn look(&mut self, now: Progress) -> ControlFlow<()> {
        if now.bytes_done < self.done {
            // Another round begins.
            (self.bar, self.done) = (None, 0);
        }
        let bar = self.bar.get_or_insert_with(|| progress::Progress::bytes(self.label, now.bytes_total));
        bar.advance(now.bytes_done - self.done);
        self.done = now.bytes_done;
        if interrupt::raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What a command answers that Ctrl-C has stopped; its other errors are failures.
pub(crate) fn stopped(error: Error) -> Outcome {
    match error {
        Error::Storage { source, .. } if source.kind() == std::io::ErrorKind::Interrupted && interrupt::raised() => {
            Ok(ExitCode::from(INTERRUPTED))
        }
        error => Err(error.into()),
    }
}

//! The bridge's own files in the data directory: its lock, the progress file, and the flushes of logs that failed here.
//! Where another directory has the data directory's name, they are those in that one.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::Result;
use super::home::Home;
use super::progress_file::ProgressFile;
use crate::TopicPartition;
use crate::store::failed_flushes::{BRIDGE_FILE, FailedFlushes};

/// A directory without the bridge's lock may be in the course of being removed: it is left alone for so long, or
/// its removal would meet a file that was not there before.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);

pub(super) struct OwnFiles {
    home: Home,
    failed_flushes: FailedFlushes,
    progress: ProgressFile,
    /// Since when the data directory is not the one that was locked.
    missed: Option<Instant>,
}

impl OwnFiles {
    /// Locks the data directory `dir` for one bridge, and reads what one before has left there.
    pub(super) fn open(dir: &Path) -> Result<OwnFiles> {
        let home = Home::open(dir)?;
        let failed_flushes = FailedFlushes::open(home.storage(), BRIDGE_FILE)?.with_others(&*home.storage())?;
        let progress = ProgressFile::open(home.storage())?;
        Ok(OwnFiles { home, failed_flushes, progress, missed: None })
    }

    /// Where another directory has the store's name, the bridge's lock and files are those in that one from here on.
    /// Whether that was so.
    pub(super) fn move_if_replaced(&mut self) -> Result<bool> {
        if !self.is_replaced() {
            self.missed = None;
            return Ok(false);
        }
        if self.missed.get_or_insert_with(Instant::now).elapsed() < REMOVED_WITHIN {
            return Ok(false);
        }
        self.home = Home::open(self.home.dir())?;
        self.missed = None;
        self.failed_flushes =
            FailedFlushes::open(self.home.storage(), BRIDGE_FILE)?.with_others(&*self.home.storage())?;
        self.progress = ProgressFile::open(self.home.storage())?;
        Ok(true)
    }

    /// Whether the files do not stand in the directory of this name any more.
    pub(super) fn is_replaced(&self) -> bool {
        self.home.is_replaced()
    }

    /// The data directory.
    pub(super) fn dir(&self) -> &Path {
        self.home.dir()
    }

    /// Whether a log has no directory there.
    pub(super) fn lacks_directory_of(&self, log: &TopicPartition) -> bool {
        let looked = self.home.storage().metadata(&log.to_string());
        looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    pub(super) fn failed_flushes(&mut self) -> &mut FailedFlushes {
        &mut self.failed_flushes
    }

    /// What the progress file says, or will say once it is written.
    pub(super) fn progress(&mut self) -> &mut ProgressFile {
        &mut self.progress
    }

    /// Makes the progress file say what is known, where it does not.
    pub(super) fn write_progress(&mut self) -> Result<()> {
        let written = self.progress.write_if_behind();
        // Where it was removed with its store, there is nothing that it would have to say.
        if written.is_err() && self.is_replaced() { Ok(()) } else { written }
    }
}

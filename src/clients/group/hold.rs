//! A group's retention hold: from which offset on it still needs each log's records.
//!
//! # Invariants
//!
//! 1. What the file says of a log is never ahead of the position that the group's log has for it. Where a position
//!    moves back, the file is written first.
//! 2. It trails the positions by [`HOLD_INTERVAL_MS`] and more: that keeps records longer, and costs a commit nothing.
//! 3. A log is in the file before a consumer hands out its first record.

use std::sync::Arc;

use edgelog_core::{LogId, Offset, TimestampMs};

use crate::canary::{Bug, bug};
use crate::error::Result;
use crate::log::TopicPartition;
use crate::storage::Storage;
use crate::store::retention_holds::{GROUP, HeldLog, HeldLogs, HolderFile, Stored, read_holder};

/// So often the file follows the positions, in milliseconds.
const HOLD_INTERVAL_MS: i64 = 30_000;

/// A log by its name and id, and the first offset of it that is needed.
pub(super) type Need<'a> = (&'a TopicPartition, LogId, Offset);

#[derive(Debug)]
pub(super) struct Hold {
    storage: Arc<dyn Storage>,
    /// What the file says.
    logs: HeldLogs,
    /// A flush of this process has made the file say it. What another one left may be in the page cache alone, and what
    /// a write that failed left, on the disk alone.
    is_known: bool,
    /// Open for writing from the first write on.
    file: Option<HolderFile>,
    /// What it is to say once it is written.
    coming: HeldLogs,
    written: TimestampMs,
}

impl Hold {
    /// # Errors
    /// Those of the disk, and [`Error::UnsupportedVersion`](crate::Error::UnsupportedVersion).
    pub(super) fn open(storage: &Arc<dyn Storage>) -> Result<Hold> {
        let logs = match read_holder(&**storage, GROUP)? {
            // Until it is written again, retention keeps everything.
            Stored::Nothing | Stored::Damaged => HeldLogs::new(),
            Stored::Whole(held) => held.logs,
        };
        let (coming, written) = (logs.clone(), TimestampMs(i64::MIN));
        Ok(Hold { storage: Arc::clone(storage), logs, is_known: false, file: None, coming, written })
    }

    /// What the file said of each log.
    pub(super) fn logs(&self) -> &HeldLogs {
        &self.logs
    }

    /// The group needs these logs from these offsets on. Returns once the file says no more than that.
    ///
    /// # Errors
    /// Those of the disk. The file may say what it said before then.
    pub(super) fn lower(&mut self, needs: &[Need<'_>], now: TimestampMs) -> Result<()> {
        let mut is_ahead = !self.is_known && !needs.is_empty();
        for &(name, id, offset) in needs {
            let need = HeldLog { log_id: id, offset, own: Vec::new() };
            let holds = |logs: &HeldLogs| {
                logs.get(name).is_some_and(|held| held.log_id == need.log_id && held.offset <= offset)
            };
            is_ahead |= !holds(&self.logs);
            if !holds(&self.coming) {
                self.coming.insert(name.clone(), need);
            }
        }
        if is_ahead && !bug(Bug::HoldAheadOfThePosition) { self.write(now) } else { Ok(()) }
    }

    /// The group has committed these offsets: the file may say so when it is written next.
    pub(super) fn raise(&mut self, needs: &[Need<'_>]) {
        for &(name, id, offset) in needs {
            self.coming.insert(name.clone(), HeldLog { log_id: id, offset, own: Vec::new() });
        }
    }

    /// The group does not need the log any more.
    pub(super) fn forget(&mut self, name: &TopicPartition) {
        self.coming.remove(name);
    }

    /// Writes the file where it is behind and has not been written for a while, or at once.
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn follow(&mut self, now: TimestampMs, at_once: bool) -> Result<()> {
        let is_due = at_once || now < self.written || now.0.saturating_sub(self.written.0) >= HOLD_INTERVAL_MS;
        if is_due && self.logs != self.coming { self.write(now) } else { Ok(()) }
    }

    fn write(&mut self, now: TimestampMs) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(HolderFile::open(&self.storage, GROUP)?),
        };
        self.is_known = false;
        file.write(&self.coming, &[])?;
        self.is_known = true;
        self.logs.clone_from(&self.coming);
        self.written = now;
        Ok(())
    }
}

//! What flushes of attached processes could not make durable, for other such processes of the same boot.
//!
//! A flush that failed is shown by a lock of the process that made it, and goes with that process; the next one opens
//! the files again, and the kernel has reported the error already. So it is written down, in one small file of each
//! bridge and of each group of consumers (next to its retention hold), which the others read:
//!
//! ```text
//! edgelog-bridge 1 0 LENGTH CRC32       see `storage::framed`
//! BOOT                                  32 hexadecimal digits
//! LOG ID END EPOCH                      separated by tabs: see `FailedFlush`
//! ```
//!
//! It is replaced as a whole, and never flushed: it counts within one boot alone, in which the page cache shows it, and
//! asks little of a disk that has just failed. What a power cut makes of it is of another boot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use edgelog_core::LogId;

use super::retention_holds::{GROUPS_DIR, names_of_groups};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::log::{FailedFlush, TopicPartition};
use crate::storage::framed::{frame, read_whole, unframe};
use crate::storage::small_file::{Lasting, replace};
use crate::storage::{Storage, remove_if_there};

/// The bridge's file, in the data directory.
pub(crate) const BRIDGE_FILE: &str = "edgelog.bridge.failed";
/// A group's file, in its own directory.
pub(crate) const GROUP_FILE: &str = "edgelog.group.failed";
/// A file beyond this is none.
const BYTES_MAX: u64 = 16 << 20;

/// By log, each with the identity of the one that had the name.
pub(crate) type Flushes = BTreeMap<TopicPartition, (LogId, FailedFlush)>;

/// What any attached process of this boot has left. Of two flushes of one log, what is beyond both.
///
/// # Errors
/// Those of the disk.
pub(crate) fn read_all(storage: &dyn Storage) -> Result<Flushes> {
    let mut all = read(storage, BRIDGE_FILE)?;
    for group in names_of_groups(storage)? {
        for (log, (id, flush)) in read(storage, &format!("{GROUPS_DIR}/{group}/{GROUP_FILE}"))? {
            match all.get_mut(&log) {
                Some((of, known)) if *of == id => {
                    known.end = known.end.max(flush.end);
                    known.epoch = known.epoch.max(flush.epoch);
                }
                _ => drop(all.insert(log, (id, flush))),
            }
        }
    }
    Ok(all)
}

fn read(storage: &dyn Storage, file: &str) -> Result<Flushes> {
    match read_whole(storage, file, BYTES_MAX) {
        Ok(bytes) => Ok(parse(&bytes, storage.boot_id()).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(Error::storage("read", file)(source)),
    }
}

/// The failed flushes of one holder.
#[derive(Debug)]
pub(crate) struct FailedFlushes {
    /// Where the holder's file is.
    storage: Arc<dyn Storage>,
    file: &'static str,
    flushes: Flushes,
}

impl FailedFlushes {
    /// What the holder's processes of this boot have left. Writes nothing.
    pub(crate) fn open(storage: Arc<dyn Storage>, file: &'static str) -> Result<FailedFlushes> {
        let flushes = read(&*storage, file)?;
        Ok(FailedFlushes { storage, file, flushes })
    }

    /// With what other holders have left, whose files are in the data directory `main`.
    #[cfg(feature = "bridge")]
    pub(crate) fn with_others(mut self, main: &dyn Storage) -> Result<FailedFlushes> {
        self.flushes.extend(read_all(main)?);
        Ok(self)
    }

    /// What could not be flushed of this log, and the writer had not resolved when it was looked at last.
    pub(crate) fn of(&self, log: &TopicPartition, id: LogId) -> Option<FailedFlush> {
        self.flushes.get(log).filter(|(of, _)| *of == id).map(|(_, flush)| *flush)
    }

    pub(crate) fn remember(&mut self, log: &TopicPartition, id: LogId, flush: FailedFlush) {
        if bug(Bug::KeepFailedFlushesToOneself) || self.of(log, id) == Some(flush) {
            return;
        }
        self.flushes.insert(log.clone(), (id, flush));
        self.write();
    }

    pub(crate) fn forget(&mut self, log: &TopicPartition) {
        if self.flushes.remove(log).is_some() {
            self.write();
        }
    }

    /// Where it cannot be written, this process knows, and goes on.
    fn write(&self) {
        let written = if self.flushes.is_empty() { remove_if_there(&*self.storage, self.file) } else { self.replace() };
        if let Err(error) = written {
            tracing::warn!(%error, file = self.file, "the next process will not know what could not be flushed");
        }
    }

    fn replace(&self) -> io::Result<()> {
        let mut body = format!("{:x}\n", LogId::from_bytes(self.storage.boot_id()));
        for (log, (id, flush)) in &self.flushes {
            let _ = writeln!(body, "{log}\t{:x}\t{}\t{}", *id, flush.end, flush.epoch);
        }
        replace(&*self.storage, self.file, frame(0, &body).as_bytes(), Lasting::Process)
    }
}

/// `None` where it is of another boot, or none at all.
fn parse(bytes: &[u8], boot: [u8; 16]) -> Option<Flushes> {
    let (_, body) = unframe(bytes)?;
    let mut lines = body.lines();
    if LogId::from_hex(lines.next()?)?.to_bytes() != boot {
        return None;
    }
    lines.map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(TopicPartition, (LogId, FailedFlush))> {
    let mut fields = line.split('\t');
    let log = fields.next()?.parse().ok()?;
    let id = LogId::from_hex(fields.next()?)?;
    let flush = FailedFlush { end: fields.next()?.parse().ok()?, epoch: fields.next()?.parse().ok()? };
    fields.next().is_none().then_some((log, (id, flush)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use edgelog_core::{LeaderEpoch, Offset};

    #[test]
    fn what_failed_is_known_to_the_next_process_of_the_boot_for_the_same_log_and_until_it_is_resolved() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let open = || FailedFlushes::open(Arc::clone(&storage), BRIDGE_FILE).unwrap();
        let (a, b) = (TopicPartition::new("a-1", 0), TopicPartition::new("b", 12));
        let flush = FailedFlush { end: Offset(77), epoch: LeaderEpoch(3) };
        let mut here = open();
        here.remember(&a, LogId::from_bytes([1; 16]), flush);
        here.remember(
            &b,
            LogId::from_bytes([2; 16]),
            FailedFlush { end: Offset(i64::MAX), epoch: LeaderEpoch(i32::MAX) },
        );
        let next = open();
        assert_eq!(
            (next.of(&a, LogId::from_bytes([1; 16])), next.of(&a, LogId::from_bytes([9; 16]))),
            (Some(flush), None)
        );
        assert_eq!(next.of(&b, LogId::from_bytes([2; 16])), here.of(&b, LogId::from_bytes([2; 16])));
        here.forget(&b);
        assert_eq!(
            (open().of(&a, LogId::from_bytes([1; 16])), open().of(&b, LogId::from_bytes([2; 16]))),
            (Some(flush), None)
        );

        let bytes = read_whole(&*storage, BRIDGE_FILE, BYTES_MAX).unwrap();
        assert!(parse(&bytes, storage.boot_id()).is_some());
        assert_eq!(parse(&bytes, [7; 16]), None, "another boot");
        for at in 0..bytes.len() {
            assert_eq!(parse(&bytes[..at], storage.boot_id()), None, "cut at {at}");
        }
        here.forget(&a);
        assert_eq!(read_whole(&*storage, BRIDGE_FILE, BYTES_MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

//! What flushes in another process than the writer could not make durable, for the next bridge of the same boot.
//!
//! A flush that failed is shown by a lock of the bridge that made it, and dies with that bridge; the next one opens the
//! files again, and the kernel has reported the error already. So it is written down, in one small file in the store:
//!
//! ```text
//! edgelog-bridge 1 0 LENGTH CRC32       see `storage::framed`
//! BOOT                                  32 hexadecimal digits
//! LOG ID END EPOCH                      separated by tabs: see `FailedFlush`
//! ```
//!
//! It is replaced as a whole, and never flushed: it counts within one boot alone, in which the page cache shows it, and
//! asks little of a medium that has just failed. What a power cut makes of it is of another boot.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::error::{BridgeError, Result};
use crate::TopicPartition;
use crate::canary::{Bug, bug};
use crate::log::FailedFlush;
use crate::storage::framed::{frame, read_whole, unframe};
use crate::storage::small_file::{Lasting, replace};
use crate::storage::{Storage, remove_if_there};

const FILE: &str = "edgelog.bridge.failed";
/// A file beyond this is none.
const BYTES_MAX: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct FailedFlushes {
    storage: Arc<dyn Storage>,
    /// By log, each with the identity of the one that had the name.
    flushes: BTreeMap<TopicPartition, ([u8; 16], FailedFlush)>,
}

impl FailedFlushes {
    /// What bridges of this boot have left. Writes nothing.
    pub(super) fn open(storage: Arc<dyn Storage>) -> Result<FailedFlushes> {
        let flushes = match read_whole(&*storage, FILE, BYTES_MAX) {
            Ok(bytes) => parse(&bytes, storage.boot_id()).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(BridgeError::Note { operation: "read", file: FILE.to_owned(), source }),
        };
        Ok(FailedFlushes { storage, flushes })
    }

    /// What could not be flushed of this log, and the writer had not made good when it was looked at last.
    pub(super) fn of(&self, log: &TopicPartition, id: [u8; 16]) -> Option<FailedFlush> {
        self.flushes.get(log).filter(|(of, _)| *of == id).map(|(_, flush)| *flush)
    }

    pub(super) fn remember(&mut self, log: &TopicPartition, id: [u8; 16], flush: FailedFlush) {
        if bug(Bug::KeepFailedFlushesToOneself) || self.of(log, id) == Some(flush) {
            return;
        }
        self.flushes.insert(log.clone(), (id, flush));
        self.write();
    }

    pub(super) fn forget(&mut self, log: &TopicPartition) {
        if self.flushes.remove(log).is_some() {
            self.write();
        }
    }

    /// Where it cannot be written, this bridge knows, and goes on.
    fn write(&self) {
        let written = if self.flushes.is_empty() { remove_if_there(&*self.storage, FILE) } else { self.replace() };
        if let Err(error) = written {
            tracing::warn!(%error, file = FILE, "the next bridge will not know what could not be flushed");
        }
    }

    fn replace(&self) -> io::Result<()> {
        let mut body = format!("{}\n", Uuid::from_bytes(self.storage.boot_id()).simple());
        for (log, (id, flush)) in &self.flushes {
            let _ = writeln!(body, "{log}\t{}\t{}\t{}", Uuid::from_bytes(*id).simple(), flush.end, flush.epoch);
        }
        replace(&*self.storage, FILE, frame(0, &body).as_bytes(), Lasting::Process)
    }
}

/// `None` where it is of another boot, or none at all.
fn parse(bytes: &[u8], boot: [u8; 16]) -> Option<BTreeMap<TopicPartition, ([u8; 16], FailedFlush)>> {
    let (_, body) = unframe(bytes)?;
    let mut lines = body.lines();
    if Uuid::try_parse(lines.next()?).ok()?.into_bytes() != boot {
        return None;
    }
    lines.map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(TopicPartition, ([u8; 16], FailedFlush))> {
    let mut fields = line.split('\t');
    let log = fields.next()?.parse().ok()?;
    let id = Uuid::try_parse(fields.next()?).ok()?.into_bytes();
    let flush = FailedFlush { end: fields.next()?.parse().ok()?, epoch: fields.next()?.parse().ok()? };
    fields.next().is_none().then_some((log, (id, flush)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use edgelog_core::{LeaderEpoch, Offset};

    #[test]
    fn what_failed_is_known_to_the_next_bridge_of_the_boot_for_the_same_log_and_until_it_is_settled() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let open = || FailedFlushes::open(Arc::clone(&storage)).unwrap();
        let (a, b) = (TopicPartition::new("a-1", 0), TopicPartition::new("b", 12));
        let flush = FailedFlush { end: Offset(77), epoch: LeaderEpoch(3) };
        let mut here = open();
        here.remember(&a, [1; 16], flush);
        here.remember(&b, [2; 16], FailedFlush { end: Offset(i64::MAX), epoch: LeaderEpoch(i32::MAX) });
        let next = open();
        assert_eq!((next.of(&a, [1; 16]), next.of(&a, [9; 16])), (Some(flush), None));
        assert_eq!(next.of(&b, [2; 16]), here.of(&b, [2; 16]));
        here.forget(&b);
        assert_eq!((open().of(&a, [1; 16]), open().of(&b, [2; 16])), (Some(flush), None));

        let bytes = read_whole(&*storage, FILE, BYTES_MAX).unwrap();
        assert!(parse(&bytes, storage.boot_id()).is_some());
        assert_eq!(parse(&bytes, [7; 16]), None, "another boot");
        for at in 0..bytes.len() {
            assert_eq!(parse(&bytes[..at], storage.boot_id()), None, "cut at {at}");
        }
        here.forget(&a);
        assert_eq!(read_whole(&*storage, FILE, BYTES_MAX).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}

//! The dead letters of a share group: records that are set aside, each of them once.
//!
//! # In which order
//!
//! 1. That a record is set aside is written to the group's log, with the number that its dead letter will have, and
//!    flushed. From then on it is given out no more.
//! 2. The dead letter is appended under this number, and flushed.
//! 3. That the record is archived is written. It need not be flushed: a recovery finds the number in the log of the
//!    dead letters.
//!
//! A recovery does 2 and 3 for what it finds set aside, unless the log has the number. That comes before anything else
//! is numbered, so that a number that the log has says that everything below is there as well.

use edgelog_core::{Offset, Record};

use super::record::{Key, SetAside};
use super::table::Cause;
use crate::clients::dead_letter::{DeadLetterHeaders, Outlets, TIMESTAMP_HEADER};
use crate::clients::group::{ConsumerError, Group, Result};
use crate::error::Error;
use crate::log::{Log, NewRecord, OffsetSpec, TopicPartition};
use crate::store::Store;

/// What writes the dead letters of a group.
pub(super) struct Writer<'a> {
    pub(super) group: &'a Group,
    pub(super) store: &'a Store,
    pub(super) copies_records: bool,
}

/// A record that is set aside, and where it is.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) log: TopicPartition,
    pub(super) key: Key,
    /// `None` where the topic is another one by now, or is gone.
    pub(super) source: Option<Log>,
    pub(super) record: SetAside,
}

/// Under which name the dead letters of a group are numbered. No producer of a program can have it.
pub(super) fn producer_name(group: &str) -> String {
    format!("share/{group}")
}

impl Writer<'_> {
    /// Writes those that are not there yet. They have one target, and are in the order of their numbers.
    ///
    /// # Errors
    /// [`ConsumerError::DeadLetters`]: some may have been written.
    ///
    /// # Durability
    /// On return, all of them survive a power cut.
    pub(super) fn write(&self, outlets: &mut Outlets, due: &[Due]) -> Result<()> {
        let Some(target) = due.first().map(|due| &due.record.target) else { return Ok(()) };
        let name = producer_name(self.group.name());
        let outlet = outlets.outlet(self.group, self.store, target, &name)?;
        let mut write_all = || {
            for due in due {
                let number = due.record.number;
                if !outlet.has(number) {
                    self.make(due, |record| outlet.push(number, record))?;
                }
            }
            outlet.finish()
        };
        write_all().map_err(|error| {
            outlets.close(target, &name);
            ConsumerError::dead_letters(&target.topic)(error)
        })
    }

    /// Makes a dead letter. One that has no room with its record's bytes, or whose record cannot be read, goes without
    /// them and says so.
    fn make(&self, due: &Due, mut push: impl FnMut(NewRecord<'_>) -> crate::Result<()>) -> crate::Result<()> {
        let SetAside { offset, count, cause, .. } = &due.record;
        // The first two as Kafka says it.
        let reason = match cause {
            Cause::Rejected => "Offset rejected by client.",
            Cause::DeliveryCountExceeded => "Offset delivery count exceeded the threshold.",
            Cause::Expired => "Offset expired: its edgelog.deadline has passed.",
        };
        let group = self.group.name();
        let copied = if self.copies_records {
            with_record(due.source.as_ref(), *offset, |record| {
                let headers = DeadLetterHeaders::share(&due.log, *offset, group, *count, reason);
                let headers = headers.with(TIMESTAMP_HEADER, record.timestamp.0.to_string());
                push(NewRecord::new(record.key, record.value).with_headers(&headers.behind(Some(record))))
            })
        } else {
            Ok(None)
        };
        let why = match copied {
            Ok(Some(Ok(()))) => return Ok(()),
            Ok(Some(Err(Error::RecordTooLarge { given, max }))) => {
                format!("{reason} With its record the dead letter takes {given} bytes, and {max} are allowed.")
            }
            Ok(None) if self.copies_records => format!("{reason} The record is not there any more."),
            Ok(None) => reason.to_owned(),
            Err(error) if error.is_corrupt() || matches!(error, Error::Compression { .. }) => {
                format!("{reason} The record cannot be read: {error}")
            }
            Ok(Some(Err(error))) | Err(error) => return Err(error),
        };
        let headers = DeadLetterHeaders::share(&due.log, *offset, group, *count, &why);
        push(NewRecord::default().with_headers(&headers.behind(None)))
    }
}

/// Reads a record; `None` where the log has none at that offset.
fn with_record<T>(
    log: Option<&Log>,
    offset: Offset,
    use_it: impl FnOnce(&Record<'_>) -> T,
) -> crate::Result<Option<T>> {
    let Some(log) = log.filter(|log| (log.offsets().log_start_offset..log.offsets().log_end_offset).contains(&offset))
    else {
        return Ok(None);
    };
    let Some(batch) = log.reader(OffsetSpec::Offset(offset))?.next_batch()? else { return Ok(None) };
    for record in batch.records()? {
        let record = record?;
        if record.offset == offset {
            return Ok(Some(use_it(&record)));
        }
    }
    Ok(None)
}

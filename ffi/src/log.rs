//! The noun `edgelog_log`: one topic-partition.

use std::sync::Arc;

use edgelog::{AppendInfo, Durability, Log, Offset, TimestampMs};

use crate::abi::edgelog_bytes;
use crate::batch_builder::edgelog_batch_builder;
use crate::boundary::{ExclusiveHandle, Handle, Home, Out, OutStruct, borrow, free, with};
use crate::record::with_record;
use crate::result::{Failure, Outcome, edgelog_result};
use crate::types::{
    durability, edgelog_append_info, edgelog_log_stats, edgelog_new_record, edgelog_offsets, edgelog_position,
};

/// The log of one partition of a topic. Any thread may use it at any time: appends of several share one flush.
pub struct edgelog_log {
    home: Arc<Home>,
    log: Log,
}

impl edgelog_log {
    pub(crate) fn new(home: Arc<Home>, log: Log) -> edgelog_log {
        edgelog_log { home, log }
    }

    pub(crate) fn parts(&self) -> (&Arc<Home>, &Log) {
        (&self.home, &self.log)
    }
}

impl Handle for edgelog_log {
    #[inline]
    fn home(&self) -> Option<&Home> {
        Some(&self.home)
    }
}

/// Appends by `work` at the durability that `how` names, and says in `out` where that stands.
///
/// # Safety
/// boundary.rs, 1 and 3.
#[inline]
unsafe fn append(
    log: *const edgelog_log,
    how: i32,
    out: *mut edgelog_append_info,
    work: impl FnOnce(&Log, Durability) -> Outcome<AppendInfo>,
) -> edgelog_result {
    // SAFETY: 1 and 3.
    unsafe {
        with(log, |log| {
            let out = OutStruct::optional(out)?;
            let how = durability(how)?.unwrap_or_else(|| log.log.default_durability());
            let info = work(&log.log, how)?;
            if let Some(out) = out {
                out.write(&info.into());
            }
            Ok(())
        })
    }
}

/// Appends one record and says where it stands. `how` is EDGELOG_DURABILITY_DEFAULT, EDGELOG_OS, EDGELOG_INTERVAL or
/// EDGELOG_SYNC; at the default of a topic the record is on the disk on return. `out` may be NULL.
///
/// Answers EDGELOG_MESSAGE_TOO_LARGE, EDGELOG_INVALID_TIMESTAMP; EDGELOG_KAFKA_STORAGE_ERROR where there is no room
/// (nothing was appended, try again when there is) or a write or flush failed (open the store again);
/// EDGELOG_CLOSED, EDGELOG_READ_ONLY, EDGELOG_FORKED. After any error but those about the record, the record may still
/// be found when the log is reopened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_append(
    log: *const edgelog_log,
    record: *const edgelog_new_record,
    how: i32,
    out: *mut edgelog_append_info,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1, 3 and 4.
    unsafe { append(log, how, out, |log, how| with_record(record, |record| Ok(log.append_with(record, how)?))) }
}

/// Appends the records of `batch` as one record batch and empties it: all of them are in the log, or none. `how` and
/// the answers are those of edgelog_log_append; after an error the batch keeps its records. A batch without records
/// appends nothing and answers where the next record would go. `out` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_append_batch(
    log: *const edgelog_log,
    batch: *mut edgelog_batch_builder,
    how: i32,
    out: *mut edgelog_append_info,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        append(log, how, out, |log, how| {
            let batch = batch.as_ref().ok_or(Failure::NULL_ARGUMENT)?;
            batch.exclusive().lend(|batch| Ok(log.append_batch_with(batch, how)?))
        })
    }
}

/// Appends a record batch as Kafka's bytes, such as edgelog_batch_get_info lends: header fields, CRC and records are
/// checked first. The log gives it offsets and a leader epoch. `how` and the answers are those of edgelog_log_append,
/// and EDGELOG_INVALID_RECORD for what is no valid batch. `out` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_append_encoded(
    log: *const edgelog_log,
    batch: edgelog_bytes,
    how: i32,
    out: *mut edgelog_append_info,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1, 3 and 4.
    unsafe {
        append(log, how, out, |log, how| {
            let batch = borrow(batch)?.ok_or(Failure::NULL_ARGUMENT)?;
            Ok(log.append_encoded(batch, how)?)
        })
    }
}

/// Makes everything durable that was appended before this call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_flush(log: *const edgelog_log) -> edgelog_result {
    // SAFETY: boundary.rs, 1.
    unsafe { with(log, |log| Ok(log.log.flush()?)) }
}

/// The four offsets as they are now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_get_offsets(log: *const edgelog_log, out: *mut edgelog_offsets) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(log, |log| {
            let out = OutStruct::new(out)?;
            let offsets = log.log.offsets();
            out.write(&edgelog_offsets {
                size: 0,
                log_start_offset: offsets.log_start_offset.0,
                high_watermark: offsets.high_watermark.0,
                recovery_point: offsets.recovery_point.0,
                log_end_offset: offsets.log_end_offset.0,
            });
            Ok(())
        })
    }
}

/// The log in numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_get_stats(log: *const edgelog_log, out: *mut edgelog_log_stats) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(log, |log| {
            let out = OutStruct::new(out)?;
            let (segments, bytes) = log.log.size()?;
            out.write(&edgelog_log_stats {
                size: 0,
                segment_count: segments as u64,
                bytes,
                leader_epoch: log.log.leader_epoch().0,
                is_read_only: log.log.failure().is_some().into(),
                id: log.log.id().to_bytes(),
            });
            Ok(())
        })
    }
}

/// The position of the first record whose timestamp (milliseconds since 1970) is `timestamp_ms` or later, as Kafka's
/// offsetsForTimes; EDGELOG_END where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_offset_for_time(
    log: *const edgelog_log,
    timestamp_ms: i64,
    out: *mut edgelog_position,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(log, |log| {
            let out = Out::new(out)?;
            out.write(log.log.offset_for_time(TimestampMs(timestamp_ms))?.ok_or(Failure::End)?.into());
            Ok(())
        })
    }
}

/// Deletes all records before `offset` (at most the high watermark): they cannot be read any more, and whole segments
/// of them give their room back. On return that is on the disk. `out_log_start_offset` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_delete_records(
    log: *const edgelog_log,
    offset: i64,
    out_log_start_offset: *mut i64,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(log, |log| {
            let start = log.log.delete_records_before(Offset(offset))?;
            if let Ok(out) = Out::new(out_log_start_offset) {
                out.write(start.0);
            }
            Ok(())
        })
    }
}

/// Truncates the log: removes all records from `offset` on. A reader that saw them learns of it by the leader epoch.
/// On return the truncation is durable. `out_log_end_offset` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_truncate(
    log: *const edgelog_log,
    offset: i64,
    out_log_end_offset: *mut i64,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(log, |log| {
            let end = log.log.truncate_to(Offset(offset))?;
            if let Ok(out) = Out::new(out_log_end_offset) {
                out.write(end.0);
            }
            Ok(())
        })
    }
}

/// Frees the handle; the log stays. Readers and batches made from it may be freed before or after.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_log_free(log: *mut edgelog_log) {
    // SAFETY: boundary.rs, 1.
    unsafe { free(log, |_| {}) };
}

/// An empty batch with the limits of `log`; to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_builder_new(
    log: *const edgelog_log,
    out: *mut *mut edgelog_batch_builder,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(log, |log| {
            Out::new(out)?.give(edgelog_batch_builder::new(Arc::clone(&log.home), log.log.batch()));
            Ok(())
        })
    }
}

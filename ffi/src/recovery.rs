//! The noun `edgelog_recovery`: what opening a store found and did.

use edgelog::{Offset, RecoveryReport, TopicPartition};

use crate::abi::{edgelog_bytes, grows};
use crate::boundary::{Handle, Home, Out, OutStruct, free, with};
use crate::result::{Failure, Outcome, edgelog_result};
use crate::types::{edgelog_lost_range, unknown};

/// What opening a store found and did: a copy, for as long as it is not freed. Any thread may use it at any time.
pub struct edgelog_recovery {
    report: RecoveryReport,
    text: String,
}

impl edgelog_recovery {
    pub(crate) fn of(report: RecoveryReport) -> edgelog_recovery {
        edgelog_recovery { text: report.to_string(), report }
    }
}

impl Handle for edgelog_recovery {
    fn home(&self) -> Option<&Home> {
        None
    }
}

/// The report in numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_recovery_summary {
    /// sizeof(edgelog_recovery_summary).
    pub size: usize,
    /// Not 0: the store had been closed cleanly, or is new; nothing had to be looked at.
    pub is_clean: i32,
    /// Not 0: no valid checkpoint was there although the store has logs; all was recovered from the segments alone.
    pub checkpoint_lost: i32,
    /// Records found above the last recovery points, accepted and made durable.
    pub recovered_records: u64,
    /// Bytes of unfinished appends, which are no part of any log any more.
    pub cut_bytes: u64,
    /// Offsets that were durable once and are lost to damage.
    pub lost_offsets: u64,
    /// How many logs were opened: edgelog_recovery_log has each.
    pub log_count: u64,
    /// How many partitions' directories are gone: EDGELOG_PARTITION_MISSING.
    pub missing_count: u64,
    /// How many leftovers of unfinished creations and deletions were removed: EDGELOG_PARTITION_REMOVED.
    pub removed_count: u64,
    /// How many logs could not be opened: EDGELOG_PARTITION_UNOPENED.
    pub unopened_count: u64,
    /// Not 0: the store could not be marked as in use (a full disk). It can be read, and appends try again.
    pub is_not_writable: i32,
    /// Zero.
    pub reserved: i32,
}

/// What opening one log found and did. Its bytes live as long as the report.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_recovery_of_log {
    /// sizeof(edgelog_recovery_of_log).
    pub size: usize,
    /// The topic.
    pub topic: edgelog_bytes,
    /// The partition.
    pub partition: u32,
    /// Not 0: it had been closed cleanly.
    pub is_clean: i32,
    /// First offset that it holds now.
    pub log_start_offset: i64,
    /// The offset that the next record gets.
    pub log_end_offset: i64,
    /// Everything below was durable before the stop.
    pub recovery_point: i64,
    /// Records found above that recovery point, accepted and made durable.
    pub recovered_records: u64,
    /// How many tails were cut: edgelog_recovery_cut has each.
    pub cut_count: u64,
    /// How many ranges of offsets are lost to damage: edgelog_recovery_lost has each.
    pub lost_count: u64,
    /// Why the log opened read-only; NULL where it did not.
    pub failure: edgelog_bytes,
    /// The leader epoch from now on.
    pub leader_epoch: i32,
    /// Zero.
    pub reserved: i32,
}

/// A tail that recovery took out of a log. Its bytes live as long as the report.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_cut_tail {
    /// sizeof(edgelog_cut_tail).
    pub size: usize,
    /// The segment file that it stood in, relative to the data directory.
    pub file: edgelog_bytes,
    /// Where in it the log ends now.
    pub position: i64,
    /// How many bytes it has, without zeros at its end.
    pub bytes: u64,
    /// The file that keeps it; NULL where there was no room: it then stays behind the end, fenced by the new epoch.
    pub kept_in: edgelog_bytes,
    /// First offset of batches in it that are valid in themselves, or -1.
    pub first_valid_offset: i64,
    /// And their last offset, or -1.
    pub last_valid_offset: i64,
}

/// A partition that a report names. Its bytes live as long as the report.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_recovery_partition {
    /// sizeof(edgelog_recovery_partition).
    pub size: usize,
    /// The topic.
    pub topic: edgelog_bytes,
    /// Why it could not be opened; NULL for the other lists.
    pub reason: edgelog_bytes,
    /// The partition.
    pub partition: u32,
    /// Zero.
    pub reserved: i32,
}

grows!(edgelog_recovery_summary, edgelog_recovery_of_log, edgelog_cut_tail, edgelog_recovery_partition);

/// The report's partitions whose directories are gone, with all of their records.
pub const EDGELOG_PARTITION_MISSING: i32 = 0;
/// The report's partitions that an unfinished creation or deletion had left behind, and that are gone now.
pub const EDGELOG_PARTITION_REMOVED: i32 = 1;
/// The report's partitions that are there and could not be opened; the next open tries again.
pub const EDGELOG_PARTITION_UNOPENED: i32 = 2;

/// The element of an index that C counts with.
fn element<T>(list: &[T], index: u64) -> Outcome<&T> {
    usize::try_from(index).ok().and_then(|index| list.get(index)).ok_or(Failure::End)
}

/// The report in numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_recovery_get_summary(
    recovery: *const edgelog_recovery,
    out: *mut edgelog_recovery_summary,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(recovery, |recovery| {
            let report = &recovery.report;
            OutStruct::new(out)?.write(&edgelog_recovery_summary {
                size: 0,
                is_clean: report.clean.into(),
                checkpoint_lost: report.checkpoint_lost.into(),
                recovered_records: report.recovered_records(),
                cut_bytes: report.cut_bytes(),
                lost_offsets: report.lost_offsets(),
                log_count: report.logs.len() as u64,
                missing_count: report.missing.len() as u64,
                removed_count: report.removed.len() as u64,
                unopened_count: report.unopened.len() as u64,
                is_not_writable: report.not_writable.is_some().into(),
                reserved: 0,
            });
            Ok(())
        })
    }
}

/// The report in words, for a person or a log; one line each for what needs attention. Lives as long as the report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_recovery_get_text(
    recovery: *const edgelog_recovery,
    out: *mut edgelog_bytes,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(recovery, |recovery| {
            Out::new(out)?.write(edgelog_bytes::of(recovery.text.as_bytes()));
            Ok(())
        })
    }
}

/// What opening the log of this index found and did; EDGELOG_END behind the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_recovery_get_log(
    recovery: *const edgelog_recovery,
    index: u64,
    out: *mut edgelog_recovery_of_log,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(recovery, |recovery| {
            let out = OutStruct::new(out)?;
            let log = element(&recovery.report.logs, index)?;
            out.write(&edgelog_recovery_of_log {
                size: 0,
                topic: edgelog_bytes::of(log.name.topic.as_bytes()),
                partition: log.name.partition,
                is_clean: log.clean.into(),
                log_start_offset: log.log_start_offset.0,
                log_end_offset: log.log_end_offset.0,
                recovery_point: log.recovery_point.0,
                recovered_records: log.recovered_records,
                cut_count: log.cut.len() as u64,
                lost_count: log.lost.len() as u64,
                failure: edgelog_bytes::of_option(log.failure.as_deref().map(str::as_bytes)),
                leader_epoch: log.leader_epoch.0,
                reserved: 0,
            });
            Ok(())
        })
    }
}

/// A tail that was cut from the log of this index; EDGELOG_END behind the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_recovery_get_cut(
    recovery: *const edgelog_recovery,
    log_index: u64,
    index: u64,
    out: *mut edgelog_cut_tail,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(recovery, |recovery| {
            let out = OutStruct::new(out)?;
            let cut = element(&element(&recovery.report.logs, log_index)?.cut, index)?;
            let (first, last) = cut.valid_offsets.unwrap_or((Offset(-1), Offset(-1)));
            out.write(&edgelog_cut_tail {
                size: 0,
                file: edgelog_bytes::of(cut.file.as_bytes()),
                position: i64::from(cut.position),
                bytes: cut.bytes,
                kept_in: edgelog_bytes::of_option(cut.kept_in.as_deref().map(str::as_bytes)),
                first_valid_offset: first.0,
                last_valid_offset: last.0,
            });
            Ok(())
        })
    }
}

/// Offsets that damage has taken from the log of this index; EDGELOG_END behind the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_recovery_get_lost(
    recovery: *const edgelog_recovery,
    log_index: u64,
    index: u64,
    out: *mut edgelog_lost_range,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(recovery, |recovery| {
            let out = OutStruct::new(out)?;
            let lost = element(&element(&recovery.report.logs, log_index)?.lost, index)?;
            out.write(&edgelog_lost_range::of(lost));
            Ok(())
        })
    }
}

/// A partition of one of the lists EDGELOG_PARTITION_MISSING, _REMOVED or _UNOPENED; EDGELOG_END behind the last.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_recovery_get_partition(
    recovery: *const edgelog_recovery,
    list: i32,
    index: u64,
    out: *mut edgelog_recovery_partition,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(recovery, |recovery| {
            let out = OutStruct::new(out)?;
            let report = &recovery.report;
            let (name, reason): (&TopicPartition, Option<&str>) = match list {
                EDGELOG_PARTITION_MISSING => (element(&report.missing, index)?, None),
                EDGELOG_PARTITION_REMOVED => (element(&report.removed, index)?, None),
                EDGELOG_PARTITION_UNOPENED => {
                    let (name, reason) = element(&report.unopened, index)?;
                    (name, Some(reason))
                }
                _ => return Err(unknown("list", list)),
            };
            out.write(&edgelog_recovery_partition {
                size: 0,
                topic: edgelog_bytes::of(name.topic.as_bytes()),
                reason: edgelog_bytes::of_option(reason.map(str::as_bytes)),
                partition: name.partition,
                reserved: 0,
            });
            Ok(())
        })
    }
}

/// Frees the report, and with it the bytes that it lent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_recovery_free(recovery: *mut edgelog_recovery) {
    // SAFETY: boundary.rs, 1.
    unsafe { free(recovery, |_| {}) };
}

//! The noun `edgelog_reader`: a place in a log, and what follows it.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use edgelog::{Batch, LeaderEpoch, LostRange, Offset, OffsetAndEpoch, OffsetSpec, Reader, TimestampMs};

use crate::abi::grows;
use crate::batch::edgelog_batch;
use crate::boundary::{
    Exclusive, ExclusiveHandle, Handle, Home, Out, OutStruct, free_exclusive, read_struct, with, with_exclusive,
};
use crate::log::edgelog_log;
use crate::result::{Failure, Outcome, edgelog_result};
use crate::types::{edgelog_lost_range, edgelog_position, unknown, up_to};

/// Reads a log from one place on, batch by batch, without copying where the storage maps files. Belongs to one thread
/// at a time; any number of readers may read one log.
pub struct edgelog_reader {
    home: Arc<Home>,
    reader: Exclusive<ReaderInner>,
}

pub(crate) struct ReaderInner {
    reader: Reader,
    /// What `edgelog_reader_skip_damage` lends the file name of.
    lost: Option<LostRange>,
}

impl Handle for edgelog_reader {
    fn home(&self) -> Option<&Home> {
        Some(&self.home)
    }
}

impl ExclusiveHandle for edgelog_reader {
    type Inner = ReaderInner;

    fn exclusive(&self) -> &Exclusive<ReaderInner> {
        &self.reader
    }
}

/// How a reader reads. All but `size` may stay zero.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_reader_options {
    /// sizeof(edgelog_reader_options).
    pub size: usize,
    /// EDGELOG_UP_TO_HIGH_WATERMARK, EDGELOG_UP_TO_LOG_END or EDGELOG_UP_TO_DURABLE.
    pub up_to: i32,
    /// Not 0: batches' CRCs are not checked before they are handed out.
    pub skip_crc_check: i32,
}

grows!(edgelog_reader_options);

/// Start: at the first record that the log still holds; `value` does not count.
pub const EDGELOG_FROM_EARLIEST: i32 = 0;
/// Start: behind the last acknowledged record; `value` does not count.
pub const EDGELOG_FROM_LATEST: i32 = 1;
/// Start: at the offset `value`.
pub const EDGELOG_FROM_OFFSET: i32 = 2;
/// Start: at the first record with the timestamp `value` (milliseconds since 1970) or a later one; at the end where
/// there is none.
pub const EDGELOG_FROM_TIMESTAMP: i32 = 3;
/// Start: `value` records before the end, or at the first where there are fewer.
pub const EDGELOG_FROM_LAST: i32 = 4;

fn start(kind: i32, value: i64) -> Outcome<OffsetSpec> {
    Ok(match kind {
        EDGELOG_FROM_EARLIEST => OffsetSpec::Earliest,
        EDGELOG_FROM_LATEST => OffsetSpec::Latest,
        EDGELOG_FROM_OFFSET => OffsetSpec::Offset(Offset(value)),
        EDGELOG_FROM_TIMESTAMP => OffsetSpec::Timestamp(TimestampMs(value)),
        EDGELOG_FROM_LAST => OffsetSpec::Last(u64::try_from(value).unwrap_or(0)),
        _ => return Err(unknown("start", kind)),
    })
}

/// A reader that begins at `from` (EDGELOG_FROM_...) with its `value`; to be freed. `options` may be NULL: up to the
/// high watermark, CRCs checked as check.crcs says. Either way, isolation.level of the store says which records of
/// transactions are seen. Answers EDGELOG_OFFSET_OUT_OF_RANGE where the log does not hold that place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_new(
    log: *const edgelog_log,
    from: i32,
    value: i64,
    options: *const edgelog_reader_options,
    out: *mut *mut edgelog_reader,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(log, |log| {
            let out = Out::new(out)?;
            let (home, log) = log.parts();
            let from = start(from, value)?;
            let reader = if options.is_null() {
                log.reader(from)?
            } else {
                let mut place = MaybeUninit::uninit();
                let options = read_struct(options, &mut place)?;
                let check_crcs = options.skip_crc_check == 0;
                let up_to = up_to(options.up_to)?;
                log.reader_with(from, log.reader_options().up_to(up_to).check_crcs(check_crcs))?
            };
            let reader = Exclusive::new(ReaderInner { reader, lost: None });
            out.give(edgelog_reader { home: Arc::clone(home), reader });
            Ok(())
        })
    }
}

/// Goes to another place of the log, as edgelog_reader_new; after an error the reader stands where it stood.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_seek(reader: *mut edgelog_reader, from: i32, value: i64) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 2.
    unsafe { with_exclusive(reader, |_, inner| Ok(inner.reader.seek(start(from, value)?)?)) }
}

/// Goes to a position that was handed out before. Answers EDGELOG_FENCED_LEADER_EPOCH where its history was truncated,
/// EDGELOG_OFFSET_OUT_OF_RANGE where retention deleted it; the reader then stands where it stood.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_seek_position(
    reader: *mut edgelog_reader,
    position: *const edgelog_position,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(reader, |_, inner| {
            let at = position.as_ref().ok_or(Failure::NULL_ARGUMENT)?;
            let at = OffsetAndEpoch { offset: Offset(at.offset), leader_epoch: LeaderEpoch(at.leader_epoch) };
            Ok(inner.reader.seek(OffsetSpec::Position(at))?)
        })
    }
}

/// The next batch with records at or behind the reader's place; to be freed. Answers EDGELOG_END where there is none
/// now, EDGELOG_CORRUPT_MESSAGE where bytes are damaged (edgelog_reader_skip_damage goes on behind),
/// EDGELOG_OFFSET_OUT_OF_RANGE where retention has deleted that offset, EDGELOG_FENCED_LEADER_EPOCH where its history
/// was truncated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_next(
    reader: *mut edgelog_reader,
    out: *mut *mut edgelog_batch,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe { read(reader, out, Reader::next_batch) }
}

/// As edgelog_reader_next, but waits for a batch up to `timeout_ms`, or as long as it takes where that is negative.
/// Closing the store ends the wait with EDGELOG_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_wait(
    reader: *mut edgelog_reader,
    timeout_ms: i64,
    out: *mut *mut edgelog_batch,
) -> edgelog_result {
    let timeout = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
    // SAFETY: boundary.rs, 1 to 3.
    unsafe { read(reader, out, |reader| reader.next_batch_timeout(timeout)) }
}

/// # Safety
/// boundary.rs, 1 to 3.
unsafe fn read(
    reader: *mut edgelog_reader,
    out: *mut *mut edgelog_batch,
    next: impl FnOnce(&mut Reader) -> edgelog::Result<Option<Batch>>,
) -> edgelog_result {
    // SAFETY: 1 to 3.
    unsafe {
        with_exclusive(reader, |handle, inner| {
            let out = Out::new(out)?;
            let batch = next(&mut inner.reader)?.ok_or(Failure::End)?;
            out.give(edgelog_batch::new(Arc::clone(&handle.home), batch));
            Ok(())
        })
    }
}

/// A descriptor for poll, epoll and the like. It is the reader's: do not read, write or close it; it lives as long as
/// the reader. It is readable whenever edgelog_reader_next may have something to say (a batch, an error, a closed
/// log), until that answers EDGELOG_END: so call it until then, and poll again.
///
/// It is an eventfd that appends of this process make readable. For an attached store no append can do that. There it
/// is a timer that asks to look again after 1 to 50 ms.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_get_fd(reader: *mut edgelog_reader, out_fd: *mut c_int) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(reader, |_, inner| {
            let out = Out::new(out_fd)?;
            out.write(inner.reader.poll_descriptor()?.as_raw_fd());
            Ok(())
        })
    }
}

/// Where the reader stands: the next record's offset, with the epoch of the last record read. Safe to keep across
/// restarts: edgelog_reader_seek_position goes there again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_get_position(
    reader: *const edgelog_reader,
    out: *mut edgelog_position,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(reader, |_, inner| {
            Out::new(out)?.write(inner.reader.position().into());
            Ok(())
        })
    }
}

/// Records between the reader and the end of what it may read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_get_lag(
    reader: *const edgelog_reader,
    out_records: *mut u64,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(reader, |_, inner| {
            Out::new(out_records)?.write(inner.reader.lag());
            Ok(())
        })
    }
}

/// Goes on behind the damage that a read reported, and says what was lost. Without damage, a range of no offsets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_skip_damage(
    reader: *mut edgelog_reader,
    out: *mut edgelog_lost_range,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(reader, |_, inner| {
            let out = OutStruct::new(out)?;
            let lost = inner.reader.skip_damage()?;
            out.write(&edgelog_lost_range::of(inner.lost.insert(lost)));
            Ok(())
        })
    }
}

/// Frees the reader and its descriptor. Batches that it gave out stay readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_reader_free(reader: *mut edgelog_reader) {
    // SAFETY: boundary.rs, 1 and 2.
    unsafe { free_exclusive(reader) };
}

//! The noun `edgelog_batch_builder`: many records as one batch.

use std::sync::Arc;

use edgelog::{BatchBuilder, NewRecord, TimestampMs};

use crate::boundary::{Exclusive, ExclusiveHandle, Handle, Home, Out, free_exclusive, structs, with_exclusive};
use crate::record::{plain_record, with_record};
use crate::result::{Outcome, edgelog_result};
use crate::types::edgelog_new_record;

/// Collects records that are appended together, as one record batch. Its memory is kept from one append to the next.
/// Belongs to one thread at a time.
pub struct edgelog_batch_builder {
    home: Arc<Home>,
    builder: Exclusive<BatchBuilder>,
}

impl edgelog_batch_builder {
    pub(crate) fn new(home: Arc<Home>, builder: BatchBuilder) -> edgelog_batch_builder {
        edgelog_batch_builder { home, builder: Exclusive::new(builder) }
    }
}

impl Handle for edgelog_batch_builder {
    #[inline]
    fn home(&self) -> Option<&Home> {
        Some(&self.home)
    }
}

impl ExclusiveHandle for edgelog_batch_builder {
    type Inner = BatchBuilder;

    #[inline]
    fn exclusive(&self) -> &Exclusive<BatchBuilder> {
        &self.builder
    }
}

/// Adds a record; its bytes are copied. One without a timestamp gets the time of this call. Answers
/// EDGELOG_MESSAGE_TOO_LARGE where the batch would exceed max.message.bytes: it is as it was, to be appended first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_builder_push(
    builder: *mut edgelog_batch_builder,
    record: *const edgelog_new_record,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 4.
    unsafe { with_exclusive(builder, |_, builder| push(builder, record, None)) }
}

/// Adds the record that C describes. If it has no time of its own, and the caller has read the clock, its time is
/// `now`.
///
/// # Safety
/// boundary.rs, 3 and 4.
#[inline(always)]
#[allow(clippy::inline_always)] // As `BatchBuilder::push`, which it is around.
unsafe fn push(builder: &mut BatchBuilder, record: *const edgelog_new_record, now: Option<i64>) -> Outcome<()> {
    // SAFETY: 3 and 4.
    match unsafe { plain_record(record) } {
        Some(record) => push_at(builder, record, now),
        // SAFETY: 3 and 4.
        None => unsafe { push_any(builder, record, now) },
    }
}

/// # Safety
/// boundary.rs, 3 and 4.
#[inline(never)]
unsafe fn push_any(builder: &mut BatchBuilder, record: *const edgelog_new_record, now: Option<i64>) -> Outcome<()> {
    // SAFETY: 3 and 4.
    unsafe { with_record(record, |record| push_at(builder, record, now)) }
}

#[inline(always)]
#[allow(clippy::inline_always)] // As `push`.
fn push_at(builder: &mut BatchBuilder, mut record: NewRecord<'_>, now: Option<i64>) -> Outcome<()> {
    record.timestamp = record.timestamp.or(now.map(TimestampMs));
    Ok(builder.push(record)?)
}

/// Adds `count` records from the first on, until the batch is full, and says in `out_pushed` how many those are: where
/// it is less than `count`, append the batch and go on with the rest. Their bytes are copied. Records without a
/// timestamp get the time of this call. Each says its own size, and all the same one. An error is answered where the
/// first record cannot be added; the batch is then as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_builder_push_many(
    builder: *mut edgelog_batch_builder,
    records: *const edgelog_new_record,
    count: usize,
    out_pushed: *mut u64,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 4.
    unsafe {
        with_exclusive(builder, |_, builder| {
            let out = Out::new(out_pushed)?;
            let now = builder.now();
            let mut pushed = 0;
            for record in structs(records, count)? {
                match push(builder, record, Some(now.0)) {
                    Ok(()) => pushed += 1,
                    Err(failure) if pushed == 0 => return Err(failure),
                    Err(_) => break,
                }
            }
            out.write(pushed);
            Ok(())
        })
    }
}

/// How many records it holds, and how many bytes the batch would have now, before compression. Either output may be
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_builder_get_size(
    builder: *const edgelog_batch_builder,
    out_records: *mut u64,
    out_bytes: *mut u64,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(builder, |_, builder| {
            if let Ok(out) = Out::new(out_records) {
                out.write(builder.len() as u64);
            }
            if let Ok(out) = Out::new(out_bytes) {
                out.write(builder.size() as u64);
            }
            Ok(())
        })
    }
}

/// Forgets the records and keeps the memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_builder_clear(builder: *mut edgelog_batch_builder) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 2.
    unsafe {
        with_exclusive(builder, |_, builder| {
            builder.clear();
            Ok(())
        })
    }
}

/// Frees the builder with the records that it holds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_builder_free(builder: *mut edgelog_batch_builder) {
    // SAFETY: boundary.rs, 1 and 2.
    unsafe { free_exclusive(builder) };
}

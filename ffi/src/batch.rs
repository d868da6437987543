//! The noun `edgelog_batch`: a record batch that was read, and its records one by one.

use std::sync::Arc;

use edgelog::edgelog_core::Headers;
use edgelog::{Batch, Records};

use crate::abi::edgelog_bytes;
use crate::boundary::{Exclusive, ExclusiveHandle, Handle, Home, OutStruct, free_exclusive, with_exclusive};
use crate::result::{Failure, Outcome, edgelog_result};
use crate::types::{edgelog_batch_info, edgelog_header, edgelog_record};

/// A record batch that was read, borrowed from its segment, with a place among its records. Belongs to one thread at a
/// time. All that it lent lives until it is freed.
pub struct edgelog_batch {
    home: Arc<Home>,
    batch: Exclusive<BatchInner>,
}

/// Fields are dropped from the top: what borrows, before what it borrows from.
pub(crate) struct BatchInner {
    headers: Option<Headers<'static>>,
    records: Option<Records<'static>>,
    batch: Box<Batch>,
}

impl Handle for edgelog_batch {
    #[inline]
    fn home(&self) -> Option<&Home> {
        Some(&self.home)
    }
}

impl ExclusiveHandle for edgelog_batch {
    type Inner = BatchInner;

    #[inline]
    fn exclusive(&self) -> &Exclusive<BatchInner> {
        &self.batch
    }
}

impl edgelog_batch {
    pub(crate) fn new(home: Arc<Home>, batch: Batch) -> edgelog_batch {
        let inner = BatchInner { headers: None, records: None, batch: Box::new(batch) };
        edgelog_batch { home, batch: Exclusive::new(inner) }
    }
}

impl BatchInner {
    /// The records that are still to be given out.
    #[inline]
    fn records(&mut self) -> Outcome<&mut Records<'static>> {
        if self.records.is_none() {
            let records = self.batch.records()?;
            // SAFETY: the records lie in the batch's lease or in its decompressed payload, and they point at its
            // segment: on the heap each, behind a counted pointer or in a buffer of the batch's. The batch is never
            // replaced or lent exclusively while this value lives, and is dropped after `records` and `headers`.
            // Neither leaves this struct with its lifetime.
            self.records = Some(unsafe { std::mem::transmute::<Records<'_>, Records<'static>>(records) });
        }
        Ok(self.records.as_mut().expect("set above"))
    }
}

/// The batch's header, and its bytes: those of the log itself where it is mapped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_get_info(
    batch: *const edgelog_batch,
    out: *mut edgelog_batch_info,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(batch, |_, inner| {
            let out = OutStruct::new(out)?;
            let view = inner.batch.view();
            out.write(&edgelog_batch_info {
                size: 0,
                base_offset: view.base_offset().0,
                last_offset: view.last_offset().0,
                max_timestamp_ms: view.max_timestamp().0,
                bytes: edgelog_bytes::of(inner.batch.bytes()),
                leader_epoch: inner.batch.leader_epoch().0,
                compression: view.compression().id().into(),
            });
            Ok(())
        })
    }
}

/// The next record of the batch, from where the reader was asked to start; EDGELOG_END behind the last. Its bytes live
/// until the batch is freed. A compressed batch is decompressed at the first call.
/// EDGELOG_UNSUPPORTED_COMPRESSION_TYPE: its codec is not built in. EDGELOG_MESSAGE_TOO_LARGE: it comes to more than
/// edgelog.decompressed.bytes.max. Neither is damage. EDGELOG_CORRUPT_MESSAGE: its records do not decode. The reader
/// stands behind the batch already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_next(batch: *mut edgelog_batch, out: *mut edgelog_record) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(batch, |_, inner| {
            let out = OutStruct::new(out)?;
            inner.headers = None;
            let record = inner.records()?.next().ok_or(Failure::End)??;
            let headers = record.headers();
            out.write(&edgelog_record {
                size: 0,
                offset: record.offset.0,
                timestamp_ms: record.timestamp.0,
                key: edgelog_bytes::of_option(record.key),
                value: edgelog_bytes::of_option(record.value),
                header_count: headers.len(),
            });
            inner.headers = Some(headers);
            Ok(())
        })
    }
}

/// The next header of the record that edgelog_batch_next gave last; EDGELOG_END behind its last. The bytes live until
/// the batch is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_next_header(
    batch: *mut edgelog_batch,
    out: *mut edgelog_header,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 3.
    unsafe {
        with_exclusive(batch, |_, inner| {
            let out = crate::boundary::Out::new(out)?;
            let header = inner.headers.as_mut().and_then(Iterator::next).ok_or(Failure::End)?;
            out.write(edgelog_header {
                key: edgelog_bytes::of(header.key),
                value: edgelog_bytes::of_option(header.value),
            });
            Ok(())
        })
    }
}

/// Goes back to the first of the batch's records.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_rewind(batch: *mut edgelog_batch) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 2.
    unsafe {
        with_exclusive(batch, |_, inner| {
            (inner.headers, inner.records) = (None, None);
            Ok(())
        })
    }
}

/// Frees the batch, and with it the bytes that it lent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_batch_free(batch: *mut edgelog_batch) {
    // SAFETY: boundary.rs, 1 and 2.
    unsafe { free_exclusive(batch) };
}

//! Records as C describes them, made into the engine's.

use std::mem::MaybeUninit;

use edgelog::{Header, NewRecord, TimestampMs};

use crate::boundary::{borrow, borrow_array, read_struct};
use crate::result::{Failure, Outcome};
use crate::types::{edgelog_header, edgelog_new_record};

/// Hands `work` the record that C describes.
///
/// # Safety
/// boundary.rs, 3 and 4.
#[inline]
pub(crate) unsafe fn with_record<R>(
    record: *const edgelog_new_record,
    work: impl FnOnce(NewRecord<'_>) -> Outcome<R>,
) -> Outcome<R> {
    let mut place = MaybeUninit::uninit();
    // SAFETY: 3 and 4.
    let (record, key, value) = unsafe {
        let record = read_struct(record, &mut place)?;
        (record, borrow(record.key)?, borrow(record.value)?)
    };
    let timestamp = (record.has_timestamp != 0).then_some(record.timestamp_ms);
    let (mut few, mut many) = (MaybeUninit::uninit(), Vec::new());
    let headers: &[Header<'_>] = if record.header_count == 0 {
        &[]
    } else {
        // SAFETY: 4.
        unsafe { headers(record, &mut few, &mut many) }?
    };
    let mut record = NewRecord::new(key, value).with_headers(headers);
    record.timestamp = timestamp.map(TimestampMs);
    work(record)
}

/// The record that C describes, where it is as nearly all are: of this version, without headers, and nothing to object
/// to. `None` for any other, which is [`with_record`]'s.
///
/// # Safety
/// boundary.rs, 3 and 4.
#[inline]
pub(crate) unsafe fn plain_record<'a>(record: *const edgelog_new_record) -> Option<NewRecord<'a>> {
    // SAFETY: the size is the first field of any struct that grows, and the memory is there (3).
    if record.is_null() || unsafe { (*record).size } != size_of::<edgelog_new_record>() {
        return None;
    }
    // SAFETY: 3 and 4.
    let record = unsafe { &*record };
    if record.header_count != 0 {
        return None;
    }
    // SAFETY: 4.
    let (key, value) = unsafe { (borrow(record.key).ok()?, borrow(record.value).ok()?) };
    let timestamp = (record.has_timestamp != 0).then_some(record.timestamp_ms);
    let mut record = NewRecord::new(key, value);
    record.timestamp = timestamp.map(TimestampMs);
    Some(record)
}

/// So many headers need no memory but the stack's.
const ON_STACK: usize = 16;

/// Lists the headers of a record in one of two places.
///
/// # Safety
/// boundary.rs, 4.
#[inline(never)]
unsafe fn headers<'a>(
    record: &edgelog_new_record,
    few: &'a mut MaybeUninit<[Header<'a>; ON_STACK]>,
    many: &'a mut Vec<Header<'a>>,
) -> Outcome<&'a [Header<'a>]> {
    // SAFETY: 4.
    let given = unsafe { borrow_array(record.headers, record.header_count) }?;
    let headers: &mut [Header<'_>] = if given.len() <= ON_STACK {
        &mut few.write([Header { key: &[], value: None }; ON_STACK])[..given.len()]
    } else {
        many.try_reserve_exact(given.len()).map_err(|_| Failure::TOO_LONG)?;
        many.resize(given.len(), Header { key: &[], value: None });
        many
    };
    for (place, given) in headers.iter_mut().zip(given) {
        // SAFETY: 4.
        *place = unsafe { header(given) }?;
    }
    Ok(headers)
}

/// # Safety
/// boundary.rs, 4.
unsafe fn header<'a>(given: &edgelog_header) -> Outcome<Header<'a>> {
    // SAFETY: 4.
    let (key, value) = unsafe { (borrow(given.key)?, borrow(given.value)?) };
    let key = key.ok_or(Failure::NULL_ARGUMENT)?;
    std::str::from_utf8(key).map_err(|_| Failure::NOT_UTF8)?;
    Ok(Header { key, value })
}

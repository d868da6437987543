//! A log callback that calls the library: on each event, at every level, with the handles that its thread has lent.

#![allow(dead_code)] // each test binary uses some of it

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use edgelog_ffi::edgelog_result::EDGELOG_OK;
use edgelog_ffi::*;

#[derive(Default)]
struct Lent {
    stores: Vec<*mut edgelog_store>,
    logs: Vec<*mut edgelog_log>,
    /// Whether the callback may take records away, and close the store.
    destroys: bool,
}

thread_local! {
    static LENT: RefCell<Lent> = const { RefCell::new(Lent { stores: Vec::new(), logs: Vec::new(), destroys: false }) };
}

/// How many events the callback has answered with calls.
static CALLED: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn called() -> usize {
    CALLED.load(Ordering::Relaxed)
}

/// Has the callback called from here on, for the whole process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    // SAFETY: the callback is a function of this program, and needs no user data.
    ONCE.call_once(|| unsafe {
        assert_eq!(edgelog_set_log_callback(Some(call_back), ptr::null_mut(), EDGELOG_LOG_DEBUG), EDGELOG_OK);
    });
}

/// The callback of this thread uses these handles, until [`forget`].
pub(crate) fn lend(stores: &[*mut edgelog_store], logs: &[*mut edgelog_log], destroys: bool) {
    LENT.with_borrow_mut(|lent| *lent = Lent { stores: stores.to_vec(), logs: logs.to_vec(), destroys });
}

/// Before a handle is freed, its events are no reason to use it any more.
pub(crate) fn forget<T>(handle: *mut T) {
    let handle: *mut c_void = handle.cast();
    LENT.with_borrow_mut(|lent| {
        lent.stores.retain(|store| store.cast() != handle);
        lent.logs.retain(|log| log.cast() != handle);
    });
}

/// Makes every call that there is, and ignores the results.
unsafe extern "C" fn call_back(_: *mut c_void, level: i32, text: edgelog_bytes) {
    assert!((EDGELOG_LOG_ERROR..=EDGELOG_LOG_DEBUG).contains(&level) && text.len > 0);
    let (stores, logs, destroys) = LENT.with_borrow(|lent| (lent.stores.clone(), lent.logs.clone(), lent.destroys));
    if stores.is_empty() && logs.is_empty() {
        return;
    }
    let turn = CALLED.fetch_add(1, Ordering::Relaxed);
    for log in logs {
        // SAFETY: lent handles live; structs are locals, whole, with their sizes.
        unsafe { call_log(log, destroys && turn % 3 == 0) };
    }
    for store in stores {
        // SAFETY: as above.
        unsafe { call_store(store, destroys && turn % 61 == 0) };
    }
}

unsafe fn call_log(log: *mut edgelog_log, destroys: bool) {
    let value = [b'c'; 400];
    let nothing = edgelog_bytes { data: ptr::null(), len: 0 };
    let record = edgelog_new_record {
        size: size_of::<edgelog_new_record>(),
        key: nothing,
        value: edgelog_bytes { data: value.as_ptr(), len: value.len() },
        headers: ptr::null(),
        header_count: 0,
        timestamp_ms: 0,
        has_timestamp: 0,
        reserved: 0,
    };
    // SAFETY: as the caller says. What is made here is freed here.
    unsafe {
        for how in [EDGELOG_OS, EDGELOG_INTERVAL, EDGELOG_SYNC] {
            edgelog_log_append(log, &raw const record, how, ptr::null_mut());
        }
        edgelog_log_flush(log);
        let mut offsets = edgelog_offsets { size: size_of::<edgelog_offsets>(), ..std::mem::zeroed() };
        edgelog_log_get_offsets(log, &raw mut offsets);
        let mut stats = edgelog_log_stats { size: size_of::<edgelog_log_stats>(), ..std::mem::zeroed() };
        edgelog_log_get_stats(log, &raw mut stats);
        let mut position = edgelog_position { offset: 0, leader_epoch: 0, reserved: 0 };
        edgelog_log_offset_for_time(log, 1_700_000_000_000, &raw mut position);
        let mut reader = ptr::null_mut();
        if edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, ptr::null(), &raw mut reader) == EDGELOG_OK {
            for _ in 0..3 {
                let mut batch = ptr::null_mut();
                if edgelog_reader_next(reader, &raw mut batch) == EDGELOG_OK {
                    edgelog_batch_free(batch);
                }
            }
            edgelog_reader_free(reader);
        }
        let mut builder = ptr::null_mut();
        if edgelog_batch_builder_new(log, &raw mut builder) == EDGELOG_OK {
            edgelog_batch_builder_push(builder, &raw const record);
            edgelog_log_append_batch(log, builder, EDGELOG_OS, ptr::null_mut());
            edgelog_batch_builder_free(builder);
        }
        if destroys {
            edgelog_log_delete_records(log, offsets.log_start_offset + 1, ptr::null_mut());
            edgelog_log_truncate(log, offsets.log_end_offset - 1, ptr::null_mut());
        }
    }
}

unsafe fn call_store(store: *mut edgelog_store, closes: bool) {
    // SAFETY: as the caller says. What is made here is freed here.
    unsafe {
        let mut topics = ptr::null_mut();
        if edgelog_store_topics(store, &raw mut topics) == EDGELOG_OK {
            edgelog_topics_free(topics);
        }
        let mut recovery = ptr::null_mut();
        if edgelog_store_recovery(store, &raw mut recovery) == EDGELOG_OK {
            edgelog_recovery_free(recovery);
        }
        edgelog_store_create_topic(store, c"of-a-callback".as_ptr(), 1, ptr::null(), 0);
        edgelog_store_delete_topic(store, c"of-a-callback".as_ptr());
        edgelog_store_flush(store);
        edgelog_store_tick(store, 1_700_000_000_000);
        if closes {
            edgelog_store_close(store);
        }
    }
}

//! The noun `edgelog_store`: a data directory.

use std::ffi::{OsStr, c_char};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use edgelog::{NewTopic, Store, StoreOptions, TimestampMs};

use crate::boundary::{Handle, Home, Out, OutStruct, answer, borrow_array, c_string, free, text, with};
use crate::log::edgelog_log;
use crate::options::{edgelog_options, options_or_default};
use crate::recovery::edgelog_recovery;
use crate::result::{Failure, Outcome, edgelog_result};
use crate::topics::edgelog_topics;
use crate::types::{edgelog_key_value, edgelog_store_stats};

/// A data directory of topics, opened for writing or attached read-only. Any thread may use it at any time.
pub struct edgelog_store {
    home: Arc<Home>,
    store: Store,
}

impl fmt::Debug for edgelog_store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

impl Handle for edgelog_store {
    fn home(&self) -> Option<&Home> {
        Some(&self.home)
    }
}

impl edgelog_store {
    /// For a program of Rust and C: a store that Rust has opened, on any storage, as the handle that its C parts
    /// use and [`edgelog_store_free`] ends. Not in the header.
    pub fn from_store(store: Store) -> Box<edgelog_store> {
        Box::new(edgelog_store { home: Arc::default(), store })
    }
}

/// Opens the store in the directory `path` for writing, no matter how it was stopped, and creates it where there is
/// none. What was found is in edgelog_store_recovery. `options` may be NULL: defaults.
///
/// Answers EDGELOG_DATA_DIR_LOCKED where another process writes it, EDGELOG_UNSUPPORTED_VERSION where a newer edgelog
/// wrote it, EDGELOG_KAFKA_STORAGE_ERROR where the directory cannot be used at all. Damage and a full disk are no
/// errors: see the report. All records that can be read afterwards are on the disk.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_open(
    path: *const c_char,
    options: *const edgelog_options,
    out: *mut *mut edgelog_store,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 4.
    unsafe { make(path, options, out, |options, path| options.open(path)) }
}

/// Attaches read-only to the store in the directory `path`, while another process writes it, or none does. The writer
/// does not notice. Records are seen when they reach the page cache; a reader with EDGELOG_UP_TO_DURABLE sees what the
/// writer's last checkpoint names. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_attach(
    path: *const c_char,
    options: *const edgelog_options,
    out: *mut *mut edgelog_store,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 to 4.
    unsafe { make(path, options, out, |options, path| options.attach(path)) }
}

/// # Safety
/// boundary.rs, 1 to 4.
unsafe fn make(
    path: *const c_char,
    options: *const edgelog_options,
    out: *mut *mut edgelog_store,
    open: impl FnOnce(StoreOptions, &Path) -> edgelog::Result<Store>,
) -> edgelog_result {
    answer(|| {
        // SAFETY: 1 to 4.
        let (path, options, out) = unsafe { (c_string(path)?, options_or_default(options)?, Out::new(out)?) };
        let store = open(options, Path::new(OsStr::from_bytes(path.to_bytes())))?;
        out.give(edgelog_store { home: Arc::default(), store });
        Ok(())
    })
}

/// Closes the store: flushes all logs, trims their files, writes the clean mark. All handles that were made from it
/// answer EDGELOG_CLOSED from then on; batches stay readable. After an error it is closed all the same, and the next
/// open recovers. The handle is still to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_close(store: *const edgelog_store) -> edgelog_result {
    // SAFETY: boundary.rs, 1.
    let result = unsafe { with(store, |store| Ok(store.store.close()?)) };
    // SAFETY: boundary.rs, 1.
    if let Some(store) = unsafe { store.as_ref() }.filter(|store| store.home.has_panicked()) {
        let _ = answer(|| {
            store.store.abandon();
            Ok(())
        });
    }
    result
}

/// Frees the store, and closes it first as far as it can where it is open. Logs, readers and batches made from it may
/// be freed before or after.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_free(store: *mut edgelog_store) {
    // SAFETY: boundary.rs, 1.
    unsafe {
        free(store, |store| {
            if store.home.has_panicked() {
                store.store.abandon();
            }
        });
    }
}

/// What opening the store found and did; to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_recovery(
    store: *const edgelog_store,
    out: *mut *mut edgelog_recovery,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(store, |store| {
            Out::new(out)?.give(edgelog_recovery::of(store.store.recovery_report()));
            Ok(())
        })
    }
}

/// # Safety
/// boundary.rs, 4.
unsafe fn pairs<'a>(config: *const edgelog_key_value, count: usize) -> Outcome<Vec<(&'a str, Option<&'a str>)>> {
    /// Far more than there are keys.
    const PAIRS_MAX: usize = 1024;
    if count > PAIRS_MAX {
        let text = format!("{count} keys of a topic; there are not {PAIRS_MAX}");
        return Err(Failure::text(edgelog_result::EDGELOG_INVALID_ARGUMENT, text));
    }
    // SAFETY: 4.
    let config: &[edgelog_key_value] = unsafe { borrow_array(config, count) }?;
    let pair = |entry: &edgelog_key_value| {
        // SAFETY: 4.
        let value = if entry.value.is_null() { None } else { Some(unsafe { text(entry.value) }?) };
        // SAFETY: 4.
        Ok((unsafe { text(entry.key) }?, value))
    };
    config.iter().map(pair).collect()
}

/// Creates a topic with `partitions` partitions, empty, and `config_count` keys of configuration (`config` may be NULL
/// where that is 0). On return it is on the disk. Answers EDGELOG_TOPIC_ALREADY_EXISTS where it exists.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_create_topic(
    store: *const edgelog_store,
    name: *const c_char,
    partitions: u32,
    config: *const edgelog_key_value,
    config_count: usize,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 4.
    unsafe {
        with(store, |store| {
            let mut topic = NewTopic::new(text(name)?).partitions(partitions);
            for (key, value) in pairs(config, config_count)? {
                topic = topic.config(key, value.ok_or(Failure::NULL_ARGUMENT)?);
            }
            Ok(store.store.create_topic(&topic)?)
        })
    }
}

/// Sets keys of a topic's configuration, or with a NULL value sets them back to their defaults; in force from the next
/// append. Answers EDGELOG_INVALID_CONFIG for what cannot be, and then changes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_alter_topic(
    store: *const edgelog_store,
    name: *const c_char,
    changes: *const edgelog_key_value,
    change_count: usize,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 4.
    unsafe { with(store, |store| Ok(store.store.alter_topic(text(name)?, &pairs(changes, change_count)?)?)) }
}

/// Deletes a topic with all of its records; on return it is gone also after a power cut. Handles of its logs answer
/// EDGELOG_CLOSED; batches stay readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_delete_topic(
    store: *const edgelog_store,
    name: *const c_char,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 4.
    unsafe { with(store, |store| Ok(store.store.delete_topic(text(name)?)?)) }
}

/// The topics as they are now, by name; to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_topics(
    store: *const edgelog_store,
    out: *mut *mut edgelog_topics,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(store, |store| {
            let out = Out::new(out)?;
            out.give(edgelog_topics::of(store.store.topics()?));
            Ok(())
        })
    }
}

/// The log of one partition; to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_log(
    store: *const edgelog_store,
    topic: *const c_char,
    partition: u32,
    out: *mut *mut edgelog_log,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1, 3 and 4.
    unsafe {
        with(store, |store| {
            let out = Out::new(out)?;
            let log = store.store.log(text(topic)?, partition)?;
            out.give(edgelog_log::new(Arc::clone(&store.home), log));
            Ok(())
        })
    }
}

/// Makes everything in every log durable that was appended before this call. Answers the first log's error; the others
/// are flushed all the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_flush(store: *const edgelog_store) -> edgelog_result {
    // SAFETY: boundary.rs, 1.
    unsafe { with(store, |store| Ok(store.store.flush()?)) }
}

/// Does what is due at `now_ms` (milliseconds since 1970): interval flushes, room ahead of writers, retention, the
/// checkpoint. For programs without threads (edgelog.housekeeping=tick); call it as often as the shortest flush.ms
/// asks for. Answers the first error; the rest is done all the same and tried again by the next call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_tick(store: *const edgelog_store, now_ms: i64) -> edgelog_result {
    // SAFETY: boundary.rs, 1.
    unsafe { with(store, |store| Ok(store.store.tick(TimestampMs(now_ms))?)) }
}

/// The store in numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_store_get_stats(
    store: *const edgelog_store,
    out: *mut edgelog_store_stats,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1 and 3.
    unsafe {
        with(store, |store| {
            let out = OutStruct::new(out)?;
            let topics = store.store.topics()?;
            let mut stats = edgelog_store_stats {
                size: 0,
                topic_count: topics.len() as u64,
                log_count: 0,
                segment_count: 0,
                bytes: 0,
            };
            for topic in &topics {
                for &partition in &topic.partition_ids {
                    // One that cannot be opened stands in the recovery report.
                    let Ok(log) = store.store.log(&topic.name, partition) else { continue };
                    let (segments, bytes) = log.size()?;
                    stats.log_count += 1;
                    stats.segment_count += segments as u64;
                    stats.bytes += bytes;
                }
            }
            out.write(&stats);
            Ok(())
        })
    }
}

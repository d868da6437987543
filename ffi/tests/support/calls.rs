//! C functions in random order with random arguments, as far as the conventions answer for them: NULL, wrong sizes,
//! unknown choices, closed stores, a storage that fails or panics, a log callback that makes calls of its own. Bytes
//! decide everything, so a fuzzer may as well.

use std::ffi::{CString, c_char};
use std::ptr;

use edgelog::Store;
use edgelog::storage::MemoryStorage;
use edgelog_ffi::edgelog_result::{EDGELOG_OK, EDGELOG_PANIC};
use edgelog_ffi::*;

use super::callback;
use edgelog_testkit::faults::{Fault, FaultyStorage, quiet_injected_panics};

/// The decisions; zeros when they are used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// Mostly small, sometimes at an edge.
    fn number(&mut self) -> i64 {
        match self.byte() {
            0 => i64::MIN,
            1 => i64::MAX,
            2 => -1,
            3 => 1_700_000_000_000 + i64::from(self.byte()),
            4 => i64::from(i32::MAX) + i64::from(self.byte()),
            small => i64::from(small % 64),
        }
    }

    fn choice(&mut self) -> i32 {
        match self.byte() {
            250.. => i32::MIN,
            240.. => 99,
            n => i32::from(n % 5),
        }
    }

    /// The size of a struct, mostly right.
    fn size(&mut self, right: usize) -> usize {
        match self.byte() {
            255 => 0,
            254 => usize::MAX,
            253 => right - 1,
            252 => right + 8,
            _ => right,
        }
    }
}

/// Handles of one kind. A pick may be NULL.
struct Pool<T>(Vec<*mut T>);

impl<T> Pool<T> {
    const MAX: usize = 4;

    fn pick(&self, choices: &mut Choices<'_>) -> *mut T {
        let n = choices.below(self.0.len() + 1);
        // The last slot is NULL, as is the first of an empty pool.
        self.0.get(n).copied().unwrap_or(ptr::null_mut())
    }

    fn keep(&mut self, handle: *mut T, result: edgelog_result, free: unsafe extern "C" fn(*mut T)) {
        assert_eq!(handle.is_null(), result != EDGELOG_OK, "a handle is given on success only");
        if handle.is_null() {
            return;
        }
        if self.0.len() == Self::MAX {
            let oldest = self.0.remove(0);
            callback::forget(oldest);
            // SAFETY: made by the library, in the pool and so not freed.
            unsafe { free(oldest) };
        }
        self.0.push(handle);
    }

    fn free(&mut self, choices: &mut Choices<'_>, free: unsafe extern "C" fn(*mut T)) {
        let n = choices.below(self.0.len() + 1);
        let handle = if n < self.0.len() { self.0.remove(n) } else { ptr::null_mut() };
        callback::forget(handle);
        // SAFETY: NULL, or as above.
        unsafe { free(handle) };
    }

    fn free_all(&mut self, free: unsafe extern "C" fn(*mut T)) {
        for handle in self.0.drain(..) {
            callback::forget(handle);
            // SAFETY: as above.
            unsafe { free(handle) };
        }
    }
}

/// How far a program came: one that reaches nothing tests nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Reached {
    pub(crate) appended: usize,
    pub(crate) read: usize,
    pub(crate) refused: usize,
    pub(crate) panicked: usize,
}

struct World<'a> {
    choices: Choices<'a>,
    reached: Reached,
    disk: MemoryStorage,
    panics_injected: bool,
    stores: Pool<edgelog_store>,
    logs: Pool<edgelog_log>,
    builders: Pool<edgelog_batch_builder>,
    readers: Pool<edgelog_reader>,
    batches: Pool<edgelog_batch>,
    recoveries: Pool<edgelog_recovery>,
    topics: Pool<edgelog_topics>,
    options: Pool<edgelog_options>,
}

/// Makes the calls that `bytes` name, then frees what is left in any order, then opens the store once more.
pub(crate) fn drive(bytes: &[u8]) -> Reached {
    quiet_injected_panics();
    callback::install();
    let mut world = World {
        choices: Choices(bytes),
        reached: Reached::default(),
        disk: MemoryStorage::new(),
        panics_injected: false,
        stores: Pool(Vec::new()),
        logs: Pool(Vec::new()),
        builders: Pool(Vec::new()),
        readers: Pool(Vec::new()),
        batches: Pool(Vec::new()),
        recoveries: Pool(Vec::new()),
        topics: Pool(Vec::new()),
        options: Pool(Vec::new()),
    };
    while !world.choices.0.is_empty() {
        callback::lend(&world.stores.0, &world.logs.0, true);
        let result = world.step();
        assert!(result != Some(EDGELOG_PANIC) || world.panics_injected, "a panic of our own");
        world.reached.panicked += usize::from(result == Some(EDGELOG_PANIC));
        world.reached.refused += usize::from(result.is_some_and(|result| result != EDGELOG_OK));
    }
    // Stores first: what was made from them outlives them.
    world.stores.free_all(edgelog_store_free);
    world.logs.free_all(edgelog_log_free);
    world.builders.free_all(edgelog_batch_builder_free);
    world.readers.free_all(edgelog_reader_free);
    world.batches.free_all(edgelog_batch_free);
    world.recoveries.free_all(edgelog_recovery_free);
    world.topics.free_all(edgelog_topics_free);
    world.options.free_all(edgelog_options_free);
    let options = Store::options().set("edgelog.housekeeping", "tick").expect("a known key");
    options.open_on(world.disk).expect("a store opens after anything");
    world.reached
}

const NAMES: &[&[u8]] = &[b"t", b"u", b"a topic", b"", b"..", b"\xff\xfe"];
const KEYS: &[&[u8]] =
    &[b"segment.bytes", b"retention.ms", b"flush.messages", b"compression.type", b"nonsense", b"\xff"];
const VALUES: &[&[u8]] = &[b"4096", b"1", b"-1", b"snappy", b"", b"\xc0", b"99999999999999999999"];

impl World<'_> {
    /// A NUL-terminated string that lives as long as the program, or NULL.
    fn text(&mut self, list: &[&[u8]]) -> Option<CString> {
        let n = self.choices.below(list.len() + 1);
        list.get(n).map(|text| CString::new(*text).expect("no NUL in it"))
    }

    /// One call. `None` for what answers no result.
    fn step(&mut self) -> Option<edgelog_result> {
        match self.choices.below(10) {
            0 | 1 => self.store_call(),
            2..=5 => self.log_call(),
            6 | 7 => self.reader_call(),
            8 => self.batch_call(),
            _ => self.other_call(),
        }
    }

    /// A new store on the one disk, perhaps with a fault ahead; refused where another has the lock.
    fn open(&mut self) -> Option<edgelog_result> {
        let calls_left = if self.choices.byte() < 128 { -1 } else { i64::from(self.choices.byte()) };
        let fault = [Fault::Io, Fault::Full, Fault::Panic][self.choices.below(3)];
        let stays = self.choices.byte() < 64;
        let storage = FaultyStorage::new(self.disk.clone(), calls_left, fault, stays);
        self.panics_injected |= fault == Fault::Panic && calls_left >= 0;
        let options = Store::options().set("edgelog.housekeeping", "tick").ok()?.set("segment.bytes", "4096").ok()?;
        let open = std::panic::AssertUnwindSafe(|| options.open_on(storage));
        let store = std::panic::catch_unwind(open).ok()?.ok()?;
        let store = Box::into_raw(edgelog_store::from_store(store));
        self.stores.keep(store, EDGELOG_OK, edgelog_store_free);
        // Mostly what every program begins with, so that the rest has something to work on.
        if self.choices.byte() < 200 {
            let mut log = ptr::null_mut();
            // SAFETY: the store was just made.
            unsafe {
                edgelog_store_create_topic(store, c"t".as_ptr(), 1, ptr::null(), 0);
                let result = edgelog_store_log(store, c"t".as_ptr(), 0, &raw mut log);
                self.logs.keep(log, result, edgelog_log_free);
            }
        }
        None
    }

    fn store_call(&mut self) -> Option<edgelog_result> {
        if self.choices.byte() < 48 {
            return self.open();
        }
        let store = self.stores.pick(&mut self.choices);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let (name, key) = (self.text(NAMES), self.text(KEYS));
        let value = self.text(VALUES);
        let pair = edgelog_key_value { key: pointer(&key), value: pointer(&value) };
        let count = self.choices.below(2);
        // SAFETY: handles come from the pools, so they live; strings, structs and arrays are locals, whole and of the
        // lengths given.
        Some(unsafe {
            match self.choices.below(11) {
                0 => edgelog_store_close(store),
                1 => edgelog_store_flush(store),
                2 => edgelog_store_tick(store, self.choices.number()),
                3 | 4 => {
                    let partitions = self.choices.below(4) as u32;
                    edgelog_store_create_topic(store, pointer(&name), partitions, &raw const pair, count)
                }
                5 => edgelog_store_alter_topic(store, pointer(&name), &raw const pair, count),
                6 if self.choices.byte() < 64 => edgelog_store_delete_topic(store, pointer(&name)),
                7 => {
                    let mut out = ptr::null_mut();
                    let result = edgelog_store_topics(store, &raw mut out);
                    self.topics.keep(out, result, edgelog_topics_free);
                    result
                }
                8 => {
                    let mut out = ptr::null_mut();
                    let result = edgelog_store_recovery(store, &raw mut out);
                    self.recoveries.keep(out, result, edgelog_recovery_free);
                    result
                }
                9 => {
                    self.stores.free(&mut self.choices, edgelog_store_free);
                    return None;
                }
                _ => {
                    let mut out = ptr::null_mut();
                    let name = c"t";
                    let result = edgelog_store_log(store, name.as_ptr(), self.choices.below(2) as u32, &raw mut out);
                    self.logs.keep(out, result, edgelog_log_free);
                    result
                }
            }
        })
    }

    /// Appends, or pushes to a builder, a record that C might describe.
    unsafe fn with_record<R>(&mut self, call: impl FnOnce(*const edgelog_new_record) -> R) -> R {
        let data = vec![self.choices.byte(); self.choices.below(200) * 8];
        let bytes = |choices: &mut Choices<'_>| match choices.byte() {
            0 => edgelog_bytes { data: ptr::null(), len: 3 },
            1 => edgelog_bytes { data: data.as_ptr(), len: usize::MAX - choices.below(3) },
            2 => edgelog_bytes { data: data.as_ptr(), len: i32::MAX as usize + 1 },
            3..=60 => edgelog_bytes { data: ptr::null(), len: 0 },
            n => edgelog_bytes { data: data.as_ptr(), len: usize::from(n) * data.len() / 255 },
        };
        let headers: Vec<edgelog_header> = (0..self.choices.below(40).saturating_sub(20))
            .map(|_| edgelog_header { key: bytes(&mut self.choices), value: bytes(&mut self.choices) })
            .collect();
        let record = edgelog_new_record {
            size: self.choices.size(size_of::<edgelog_new_record>()),
            key: bytes(&mut self.choices),
            value: bytes(&mut self.choices),
            headers: if headers.is_empty() { ptr::null() } else { headers.as_ptr() },
            header_count: headers.len(),
            timestamp_ms: self.choices.number(),
            has_timestamp: i32::from(self.choices.byte() > 200),
            reserved: 0,
        };
        if self.choices.byte() == 255 { call(ptr::null()) } else { call(&raw const record) }
    }

    fn log_call(&mut self) -> Option<edgelog_result> {
        let log = self.logs.pick(&mut self.choices);
        let builder = self.builders.pick(&mut self.choices);
        let how = self.choices.choice();
        let mut info = zeroed::<edgelog_append_info>(&mut self.choices);
        let info: *mut edgelog_append_info = if self.choices.byte() < 200 { &raw mut info } else { ptr::null_mut() };
        let (mut number, mut count) = (0_i64, 0_u64);
        // SAFETY: as in `store_call`.
        Some(unsafe {
            match self.choices.below(14) {
                0..=3 => {
                    let result = self.with_record(|record| edgelog_log_append(log, record, how, info));
                    self.reached.appended += usize::from(result == EDGELOG_OK);
                    result
                }
                4 => {
                    let mut out = ptr::null_mut();
                    let result = edgelog_batch_builder_new(log, &raw mut out);
                    self.builders.keep(out, result, edgelog_batch_builder_free);
                    result
                }
                5 => self.with_record(|record| edgelog_batch_builder_push(builder, record)),
                6 => self.with_record(|record| edgelog_batch_builder_push_many(builder, record, 1, &raw mut count)),
                7 => edgelog_log_append_batch(log, builder, how, info),
                8 => edgelog_log_flush(log),
                9 => edgelog_log_delete_records(log, self.choices.number(), &raw mut number),
                10 if self.choices.byte() < 64 => edgelog_log_truncate(log, self.choices.number(), &raw mut number),
                11 => {
                    let mut offsets = zeroed::<edgelog_offsets>(&mut self.choices);
                    edgelog_log_get_offsets(log, &raw mut offsets)
                }
                12 => {
                    let mut stats = zeroed::<edgelog_log_stats>(&mut self.choices);
                    edgelog_log_get_stats(log, &raw mut stats)
                }
                13 if self.choices.byte() < 64 => {
                    self.logs.free(&mut self.choices, edgelog_log_free);
                    self.builders.free(&mut self.choices, edgelog_batch_builder_free);
                    return None;
                }
                _ => edgelog_batch_builder_get_size(builder, &raw mut count, ptr::null_mut()),
            }
        })
    }

    fn reader_call(&mut self) -> Option<edgelog_result> {
        let reader = self.readers.pick(&mut self.choices);
        let mut position = edgelog_position { offset: 0, leader_epoch: 0, reserved: 0 };
        // SAFETY: as in `store_call`.
        Some(unsafe {
            match self.choices.below(10) {
                0 | 1 => {
                    let log = self.logs.pick(&mut self.choices);
                    let mut options = zeroed::<edgelog_reader_options>(&mut self.choices);
                    options.up_to = self.choices.choice();
                    let options = if self.choices.byte() < 128 { ptr::null() } else { &raw const options };
                    let (from, value) = (self.choices.choice(), self.choices.number());
                    let mut out = ptr::null_mut();
                    let result = edgelog_reader_new(log, from, value, options, &raw mut out);
                    self.readers.keep(out, result, edgelog_reader_free);
                    result
                }
                2 => edgelog_reader_seek(reader, self.choices.choice(), self.choices.number()),
                3 => {
                    position.offset = self.choices.number();
                    position.leader_epoch = self.choices.choice();
                    edgelog_reader_seek_position(reader, &raw const position)
                }
                4 => edgelog_reader_get_position(reader, &raw mut position),
                5 => {
                    let mut lost = zeroed::<edgelog_lost_range>(&mut self.choices);
                    edgelog_reader_skip_damage(reader, &raw mut lost)
                }
                6 => {
                    let mut fd = 0;
                    edgelog_reader_get_fd(reader, &raw mut fd)
                }
                7 => {
                    self.readers.free(&mut self.choices, edgelog_reader_free);
                    return None;
                }
                n => {
                    let mut out = ptr::null_mut();
                    let result = if n == 8 {
                        edgelog_reader_next(reader, &raw mut out)
                    } else {
                        edgelog_reader_wait(reader, 0, &raw mut out)
                    };
                    self.batches.keep(out, result, edgelog_batch_free);
                    result
                }
            }
        })
    }

    fn batch_call(&mut self) -> Option<edgelog_result> {
        let batch = self.batches.pick(&mut self.choices);
        let mut record = zeroed::<edgelog_record>(&mut self.choices);
        let mut header = edgelog_header { key: NOTHING, value: NOTHING };
        // SAFETY: as in `store_call`.
        Some(unsafe {
            match self.choices.below(7) {
                0..=2 => {
                    let result = edgelog_batch_next(batch, &raw mut record);
                    if result == EDGELOG_OK {
                        self.reached.read += 1;
                        touch(record.key);
                        touch(record.value);
                    }
                    result
                }
                3 => {
                    let result = edgelog_batch_next_header(batch, &raw mut header);
                    if result == EDGELOG_OK {
                        touch(header.key);
                        touch(header.value);
                    }
                    result
                }
                4 => edgelog_batch_rewind(batch),
                5 => {
                    let mut info = zeroed::<edgelog_batch_info>(&mut self.choices);
                    let result = edgelog_batch_get_info(batch, &raw mut info);
                    if result == EDGELOG_OK {
                        touch(info.bytes);
                        // And back in, whole or damaged.
                        let mut encoded = std::slice::from_raw_parts(info.bytes.data, info.bytes.len).to_vec();
                        if self.choices.byte() < 128 {
                            let at = self.choices.below(encoded.len());
                            encoded[at] ^= self.choices.byte();
                        }
                        let log = self.logs.pick(&mut self.choices);
                        let bytes = edgelog_bytes { data: encoded.as_ptr(), len: encoded.len() };
                        return Some(edgelog_log_append_encoded(log, bytes, EDGELOG_OS, ptr::null_mut()));
                    }
                    result
                }
                _ => {
                    self.batches.free(&mut self.choices, edgelog_batch_free);
                    return None;
                }
            }
        })
    }

    fn other_call(&mut self) -> Option<edgelog_result> {
        let (recovery, topics) = (self.recoveries.pick(&mut self.choices), self.topics.pick(&mut self.choices));
        let options = self.options.pick(&mut self.choices);
        let index = self.choices.number() as u64;
        // SAFETY: as in `store_call`.
        Some(unsafe {
            match self.choices.below(10) {
                0 => {
                    let mut summary = zeroed::<edgelog_recovery_summary>(&mut self.choices);
                    edgelog_recovery_get_summary(recovery, &raw mut summary)
                }
                1 => {
                    let mut log = zeroed::<edgelog_recovery_of_log>(&mut self.choices);
                    let result = edgelog_recovery_get_log(recovery, index, &raw mut log);
                    if result == EDGELOG_OK {
                        touch(log.topic);
                        touch(log.failure);
                    }
                    result
                }
                2 => {
                    let mut cut = zeroed::<edgelog_cut_tail>(&mut self.choices);
                    edgelog_recovery_get_cut(recovery, 0, index, &raw mut cut)
                }
                3 => {
                    let mut partition = zeroed::<edgelog_recovery_partition>(&mut self.choices);
                    edgelog_recovery_get_partition(recovery, self.choices.choice(), index, &raw mut partition)
                }
                4 => {
                    let mut topic = zeroed::<edgelog_topic>(&mut self.choices);
                    edgelog_topics_get(topics, index, &raw mut topic)
                }
                5 => {
                    let mut entry = zeroed::<edgelog_topic_config>(&mut self.choices);
                    let result = edgelog_topics_get_config(topics, 0, index, &raw mut entry);
                    if result == EDGELOG_OK {
                        touch(entry.key);
                        touch(entry.value);
                    }
                    result
                }
                6 => {
                    let mut out = ptr::null_mut();
                    let result = edgelog_options_new(&raw mut out);
                    self.options.keep(out, result, edgelog_options_free);
                    result
                }
                7 => {
                    let (key, value) = (self.text(KEYS), self.text(VALUES));
                    let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null::<c_char>(), |t| t.as_ptr());
                    edgelog_options_set(options, pointer(&key), pointer(&value))
                }
                8 => {
                    let mut info = zeroed::<edgelog_error_info>(&mut self.choices);
                    std::hint::black_box(std::ffi::CStr::from_ptr(edgelog_last_error()).to_bytes().len());
                    edgelog_last_error_info(&raw mut info)
                }
                _ => {
                    self.recoveries.free(&mut self.choices, edgelog_recovery_free);
                    self.topics.free(&mut self.choices, edgelog_topics_free);
                    self.options.free(&mut self.choices, edgelog_options_free);
                    return None;
                }
            }
        })
    }
}

const NOTHING: edgelog_bytes = edgelog_bytes { data: ptr::null(), len: 0 };

/// A struct of the header, zero but for its size, which is mostly right.
fn zeroed<T: Copy>(choices: &mut Choices<'_>) -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: every struct that grows is numbers and raw pointers, of which zeros are values, behind a `usize`.
    unsafe {
        value.as_mut_ptr().cast::<usize>().write(choices.size(size_of::<T>()));
        value.assume_init()
    }
}

/// Reads all that was lent: a sanitizer sees what is not there.
fn touch(bytes: edgelog_bytes) {
    if !bytes.data.is_null() {
        // SAFETY: what the library lends is there for as long as its handle, which the pool has.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.data, bytes.len) };
        std::hint::black_box(bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)));
    }
}

//! The contract of the two traits, sentence by sentence, held against every storage of this package; then
//! what only a real directory has.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::mapped_file::WINDOW_BYTES_MAX;
use super::{Access, DirectoryStorage, DirectoryStorageOptions, Lease, MemoryStorage, Storage, StorageFile, StoreMode};

/// Damages one byte. A fixed byte written over one that is random is no damage once in 256 times.
pub(crate) fn flip_a_byte(file: &dyn StorageFile, offset: u64) {
    let mut byte = [0];
    file.read_at(&mut byte, offset).unwrap();
    file.write_at(&[!byte[0]], offset).unwrap();
}

/// A directory of its own below the host's temporary one, removed on drop.
pub(super) struct TestDir(pub(super) PathBuf);

impl TestDir {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("edgelog-storage-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    pub(super) fn open(&self, options: DirectoryStorageOptions) -> DirectoryStorage {
        DirectoryStorage::open(&self.0, options).unwrap()
    }

    /// Descriptors that this process has below the directory.
    fn descriptors(&self) -> Vec<PathBuf> {
        let links = fs::read_dir("/proc/self/fd").unwrap();
        links
            .filter_map(|link| fs::read_link(link.ok()?.path()).ok())
            .filter(|path| path.starts_with(&self.0))
            .collect()
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs `check` on each kind of storage, each freshly made and empty, with a name for the messages.
/// Directories are also tried with room for a single descriptor, so that every call finds its file closed.
fn on_each(check: impl Fn(&dyn Storage, &str)) {
    check(&MemoryStorage::new(), "memory");
    for store_mode in [StoreMode::Auto, StoreMode::Map, StoreMode::File] {
        for open_files_max in [48, 1] {
            let directory = TestDir::new();
            let storage = directory.open(DirectoryStorageOptions { store_mode, open_files_max, ..Default::default() });
            check(&storage, &format!("{store_mode:?}, {open_files_max} files"));
        }
    }
}

fn create(storage: &dyn Storage, path: &str, bytes: &[u8]) -> Arc<dyn StorageFile> {
    let file = storage.open(path, Access::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    file
}

fn read(file: &dyn StorageFile, position: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    let filled = file.read_at(&mut bytes, position).unwrap();
    bytes.truncate(filled);
    bytes
}

/// Reserves, where the file system under the test can.
fn reserve(file: &dyn StorageFile, len: u64) {
    match file.reserve(len) {
        Err(error) if error.kind() == ErrorKind::Unsupported => file.truncate(len).unwrap(),
        result => result.unwrap(),
    }
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn sorted_names(storage: &dyn Storage, dir: &str) -> Vec<(String, bool)> {
    let mut names: Vec<_> =
        storage.read_dir(dir).unwrap().into_iter().map(|entry| (entry.name, entry.is_dir)).collect();
    names.retain(|(name, _)| name != ".lock");
    names.sort();
    names
}

#[test]
fn one_lock_at_a_time_and_the_error_names_its_holder() {
    on_each(|storage, name| {
        let lock = storage.lock().unwrap();
        let error = storage.lock().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{name}");
        assert!(error.to_string().contains(&process::id().to_string()), "{name}: {error}");
        drop(lock);
        drop(storage.lock().unwrap());
        drop(storage.lock().unwrap());
    });
}

#[test]
fn directories_are_created_listed_and_removed() {
    on_each(|storage, name| {
        assert_eq!(sorted_names(storage, ""), [], "{name}");
        storage.create_dir("cpu-0").unwrap();
        assert_eq!(kind(storage.create_dir("cpu-0")), Some(ErrorKind::AlreadyExists), "{name}");
        assert_eq!(kind(storage.create_dir("mem-0/deeper")), Some(ErrorKind::NotFound), "{name}");
        create(storage, "cpu-0/a.log", b"x");
        create(storage, "top", b"x");
        assert_eq!(sorted_names(storage, ""), [("cpu-0".to_owned(), true), ("top".to_owned(), false)], "{name}");
        assert_eq!(sorted_names(storage, "cpu-0"), [("a.log".to_owned(), false)], "{name}");
        storage.sync_dir("").unwrap();
        storage.sync_dir("cpu-0").unwrap();
        assert_eq!(kind(storage.remove_dir("cpu-0")), Some(ErrorKind::DirectoryNotEmpty), "{name}");
        storage.remove_file("cpu-0/a.log").unwrap();
        storage.remove_dir("cpu-0").unwrap();
        assert_eq!(kind(storage.remove_dir("cpu-0")), Some(ErrorKind::NotFound), "{name}");
        assert_eq!(kind(storage.read_dir("cpu-0")), Some(ErrorKind::NotFound), "{name}");
        assert_eq!(kind(storage.sync_dir("cpu-0")), Some(ErrorKind::NotFound), "{name}");
        assert_eq!(kind(storage.read_dir("top")), Some(ErrorKind::NotADirectory), "{name}");
    });
}

#[test]
fn opening_creates_only_what_is_new_and_finds_only_what_is_there() {
    on_each(|storage, name| {
        storage.create_dir("cpu-0").unwrap();
        for access in [Access::Read, Access::Write] {
            assert_eq!(kind(storage.open("cpu-0/a.log", access)), Some(ErrorKind::NotFound), "{name}");
            assert_eq!(kind(storage.open("cpu-0", access)), Some(ErrorKind::IsADirectory), "{name}");
        }
        assert_eq!(kind(storage.open("mem-0/a.log", Access::CreateNew)), Some(ErrorKind::NotFound), "{name}");
        let file = storage.open("cpu-0/a.log", Access::CreateNew).unwrap();
        assert!(file.is_empty().unwrap(), "{name}");
        assert_eq!(kind(storage.open("cpu-0/a.log", Access::CreateNew)), Some(ErrorKind::AlreadyExists), "{name}");
        assert!(storage.open("cpu-0/a.log", Access::Write).is_ok(), "{name}");
        for path in ["../a", "/etc/passwd", "a//b", "./a", "a/.."] {
            assert_eq!(kind(storage.open(path, Access::CreateNew)), Some(ErrorKind::InvalidInput), "{name}: {path}");
        }
    });
}

#[test]
fn a_handle_for_reading_only_reads() {
    on_each(|storage, name| {
        create(storage, "a", b"hello");
        let file = storage.open("a", Access::Read).unwrap();
        for result in [file.write_at(b"x", 0), file.store_at(b"x", 0), file.reserve(10), file.truncate(0)] {
            assert_eq!(kind(result), Some(ErrorKind::PermissionDenied), "{name}");
        }
        file.prepare(0..5);
        assert_eq!(read(&*file, 0, 5), b"hello", "{name}");
        // A second handle, for writing, makes no writer of the first; and the first does not hold it back.
        let writer = storage.open("a", Access::Write).unwrap();
        reserve(&*writer, 100);
        writer.store_at(b"HE", 0).unwrap();
        assert_eq!(read(&*file, 0, 5), b"HEllo", "{name}");
        assert_eq!(kind(file.write_at(b"x", 0)), Some(ErrorKind::PermissionDenied), "{name}");
    });
}

#[test]
fn reading_stops_where_the_file_does() {
    on_each(|storage, name| {
        let file = create(storage, "a", b"hello");
        assert_eq!(file.len().unwrap(), 5, "{name}");
        assert_eq!(read(&*file, 0, 3), b"hel", "{name}");
        assert_eq!(read(&*file, 3, 10), b"lo", "{name}");
        assert_eq!(read(&*file, 5, 10), b"", "{name}");
        assert_eq!(read(&*file, 1 << 40, 10), b"", "{name}");
        file.write_at(b"!", 7).unwrap();
        assert_eq!(read(&*file, 0, 10), b"hello\0\0!", "{name}: the gap reads as zeros");
    });
}

#[test]
fn all_ways_of_writing_and_of_reading_see_one_file() {
    on_each(|storage, name| {
        let file = storage.open("a", Access::CreateNew).unwrap();
        reserve(&*file, 3 * 4096);
        file.prepare(0..3 * 4096);
        let mut expected = vec![0; 3 * 4096];
        for (turn, position) in (0..expected.len() - 200).step_by(97).enumerate() {
            let bytes: Vec<u8> = (0..97).map(|i| (turn * 31 + i) as u8).collect();
            match turn % 2 {
                0 => file.store_at(&bytes, position as u64).unwrap(),
                _ => file.write_at(&bytes, position as u64).unwrap(),
            }
            expected[position..position + 97].copy_from_slice(&bytes);
            let lease = file.lend(position as u64, 97).unwrap();
            assert_eq!(lease.as_deref().unwrap_or(&bytes), bytes, "{name}");
            assert_eq!(read(&*file, position as u64, 97), bytes, "{name}");
        }
        assert_eq!(read(&*file, 0, expected.len()), expected, "{name}");
        if let Some(lease) = file.lend(0, expected.len()).unwrap() {
            assert_eq!(*lease, *expected, "{name}");
            let slice = lease.slice(100..200).slice(10..20);
            drop(lease);
            assert_eq!(*slice, expected[110..120], "{name}");
        }
    });
}

#[test]
fn stores_behind_the_reserved_room_and_across_windows_arrive_whole() {
    on_each(|storage, name| {
        let file = storage.open("a", Access::CreateNew).unwrap();
        let border = WINDOW_BYTES_MAX;
        reserve(&*file, border + 4096);
        let bytes: Vec<u8> = (0..5000_u32).map(|i| (i % 251) as u8).collect();
        for position in [0, border - 2500, border + 4096 - 100, border + 50_000] {
            file.store_at(&bytes, position).unwrap();
            assert_eq!(read(&*file, position, bytes.len()), bytes, "{name}: at {position}");
        }
        file.store_at(&[], border).unwrap();
        assert_eq!(file.len().unwrap(), border + 55_000, "{name}");
        file.store_at(&bytes, border - 5000).unwrap();
        let lease = file.lend(border - 5000, 5000).unwrap();
        assert_eq!(lease.as_deref().unwrap_or(&bytes), bytes, "{name}");
        file.flush().unwrap();
    });
}

#[test]
fn nothing_is_lent_that_the_file_does_not_have() {
    on_each(|storage, name| {
        let file = create(storage, "a", b"hello");
        assert!(file.lend(0, 6).unwrap().is_none(), "{name}");
        assert!(file.lend(6, 1).unwrap().is_none(), "{name}");
        assert!(file.lend(u64::MAX, 2).unwrap().is_none(), "{name}");
        if let Some(lease) = file.lend(5, 0).unwrap() {
            assert!(lease.is_empty(), "{name}");
        }
    });
}

type Leases = std::cell::RefCell<Vec<(Lease, String)>>;

#[test]
fn leases_outlive_names_handles_and_storages() {
    let mut leases: Vec<(Lease, String)> = Vec::new();
    on_each(|storage, name| {
        let file = create(storage, "a", &[7; 10_000]);
        file.flush().unwrap();
        let lease = file.lend(1000, 8000).unwrap();
        assert_eq!(lease.is_some(), !name.starts_with("File"), "{name}");
        storage.remove_file("a").unwrap();
        drop(file);
        assert_eq!(kind(storage.open("a", Access::Read)), Some(ErrorKind::NotFound), "{name}");
        let replacement = create(storage, "a", &[9; 10_000]);
        if let Some(lease) = lease {
            assert_eq!(*lease, [7; 8000], "{name}");
            LEASES.with_borrow_mut(|leases| leases.push((lease.clone(), name.to_owned())));
        }
        assert_eq!(read(&*replacement, 0, 10_000), [9; 10_000], "{name}");
    });
    thread_local!(static LEASES: Leases = const { Leases::new(Vec::new()) });
    LEASES.with_borrow_mut(|kept| leases.append(kept));
    assert_eq!(leases.len(), 5);
    for (lease, name) in leases {
        assert_eq!(*lease, [7; 8000], "{name}");
    }
}

#[test]
fn reserving_makes_the_file_longer_with_zeros_and_never_shorter() {
    on_each(|storage, name| {
        let file = create(storage, "a", b"hello");
        if kind(file.reserve(100_000)) == Some(ErrorKind::Unsupported) {
            assert_eq!(file.len().unwrap(), 5, "{name}");
            return;
        }
        assert_eq!(file.len().unwrap(), 100_000, "{name}");
        assert_eq!(storage.metadata("a").unwrap().len, 100_000, "{name}");
        file.reserve(10).unwrap();
        file.reserve(0).unwrap();
        assert_eq!(file.len().unwrap(), 100_000, "{name}");
        let bytes = read(&*file, 0, 200_000);
        assert!(bytes.starts_with(b"hello") && bytes[5..].iter().all(|byte| *byte == 0), "{name}");
    });
}

#[test]
fn truncating_cuts_and_extends_with_zeros() {
    on_each(|storage, name| {
        let file = storage.open("a", Access::CreateNew).unwrap();
        reserve(&*file, 100_000);
        file.store_at(&vec![1; 50_000], 0).unwrap();
        let kept = file.lend(0, 4000).unwrap();
        file.truncate(5000).unwrap();
        assert_eq!(file.len().unwrap(), 5000, "{name}");
        assert!(file.lend(4000, 1001).unwrap().is_none(), "{name}");
        assert_eq!(kept.as_deref().unwrap_or(&[1; 4000]), [1; 4000], "{name}");
        // No room is reserved any more, so this must not go through the map.
        file.store_at(&[2; 100], 9000).unwrap();
        let mut expected = vec![1; 5000];
        expected.resize(9000, 0);
        expected.resize(9100, 2);
        assert_eq!(read(&*file, 0, 100_000), expected, "{name}");
        file.truncate(20_000).unwrap();
        file.store_at(&[3; 100], 15_000).unwrap();
        expected.resize(15_000, 0);
        expected.resize(15_100, 3);
        expected.resize(20_000, 0);
        assert_eq!(read(&*file, 0, 100_000), expected, "{name}");
        let lease = file.lend(0, 20_000).unwrap();
        assert_eq!(lease.as_deref().unwrap_or(&expected), expected, "{name}");
        reserve(&*file, 30_000);
        file.store_at(&[4; 100], 29_900).unwrap();
        assert_eq!(read(&*file, 29_900, 200), [4; 100], "{name}");
    });
}

#[test]
fn a_name_that_is_replaced_changes_its_identity() {
    on_each(|storage, name| {
        create(storage, "a", b"old");
        let old = storage.metadata("a").unwrap();
        assert_eq!(old, storage.metadata("a").unwrap(), "{name}");
        let new = create(storage, "a.swap", b"newer");
        let swapped = storage.metadata("a.swap").unwrap();
        new.flush().unwrap();
        storage.rename("a.swap", "a").unwrap();
        storage.sync_dir("").unwrap();
        assert_eq!(storage.metadata("a").unwrap(), swapped, "{name}");
        assert_ne!(storage.metadata("a").unwrap().identity, old.identity, "{name}");
        assert_eq!(kind(storage.metadata("a.swap")), Some(ErrorKind::NotFound), "{name}");
        assert_eq!(kind(storage.rename("a.swap", "a")), Some(ErrorKind::NotFound), "{name}");
        assert_eq!(read(&*storage.open("a", Access::Read).unwrap(), 0, 10), b"newer", "{name}");
    });
}

#[test]
fn open_files_go_on_under_their_new_names() {
    on_each(|storage, name| {
        storage.create_dir("cpu-0").unwrap();
        storage.create_dir("cpu-00").unwrap();
        let inside = create(storage, "cpu-0/a.log", b"inside");
        let sibling = create(storage, "cpu-00/a.log", b"sibling");
        let file = create(storage, "a", b"hello");
        storage.rename("a", "b").unwrap();
        storage.rename("cpu-0", "cpu-0.deleted").unwrap();
        create(storage, "c", b"takes the only descriptor");
        file.write_at(b"J", 0).unwrap();
        assert_eq!(read(&*file, 0, 10), b"Jello", "{name}");
        assert_eq!(read(&*inside, 0, 10), b"inside", "{name}");
        assert_eq!(read(&*sibling, 0, 10), b"sibling", "{name}");
        assert_eq!(read(&*storage.open("b", Access::Read).unwrap(), 0, 10), b"Jello", "{name}");
        assert_eq!(kind(storage.open("a", Access::Read)), Some(ErrorKind::NotFound), "{name}");
        assert_eq!(kind(storage.open("cpu-0/a.log", Access::Read)), Some(ErrorKind::NotFound), "{name}");
        assert_eq!(sorted_names(storage, "cpu-0.deleted"), [("a.log".to_owned(), false)], "{name}");
        storage.remove_file("cpu-0.deleted/a.log").unwrap();
        storage.remove_dir("cpu-0.deleted").unwrap();
        // The old names can be used again, by other files.
        let again = create(storage, "a", b"again");
        assert_eq!(read(&*file, 0, 10), b"Jello", "{name}");
        assert_eq!(read(&*again, 0, 10), b"again", "{name}");
    });
}

#[test]
fn one_boot_has_one_id() {
    on_each(|storage, name| {
        assert_eq!(storage.boot_id(), storage.boot_id(), "{name}");
        assert_ne!(storage.boot_id(), [0; 16], "{name}");
    });
    assert_ne!(MemoryStorage::new().boot_id(), MemoryStorage::new().boot_id());
}

#[test]
fn clones_of_a_memory_storage_are_one_disk() {
    let storage = MemoryStorage::new();
    create(&storage, "a", b"hello");
    let clone = storage.clone();
    drop(storage);
    assert_eq!(read(&*clone.open("a", Access::Read).unwrap(), 0, 10), b"hello");
}

#[test]
fn a_full_memory_disk_refuses_what_needs_room_and_nothing_else() {
    let storage = MemoryStorage::with_capacity(1000);
    let file = create(&storage, "a", &[1; 600]);
    assert_eq!(kind(file.reserve(1001)), Some(ErrorKind::StorageFull));
    assert_eq!(file.len().unwrap(), 600);
    file.reserve(1000).unwrap();
    file.write_at(&[2; 400], 600).unwrap();
    let other = storage.open("b", Access::CreateNew).unwrap();
    assert_eq!(kind(other.write_at(b"x", 0)), Some(ErrorKind::StorageFull));
    assert_eq!(kind(other.reserve(u64::MAX)), Some(ErrorKind::StorageFull));
    assert!(other.is_empty().unwrap());
    storage.remove_file("a").unwrap();
    assert_eq!(kind(other.write_at(b"x", 0)), Some(ErrorKind::StorageFull), "the removed file is still open");
    drop(file);
    other.write_at(b"x", 0).unwrap();
    assert_eq!(storage.bytes_used(), 1);
    other.truncate(0).unwrap();
    assert_eq!(storage.bytes_used(), 0);
}

#[test]
fn five_hundred_files_share_a_few_descriptors_that_are_closed_on_exec() {
    let directory = TestDir::new();
    let storage = directory.open(DirectoryStorageOptions { open_files_max: 16, ..Default::default() });
    // Made behind its back: what it wrote itself it would have to flush before it closes it.
    for i in 0..500 {
        fs::write(directory.0.join(i.to_string()), format!("file {i}")).unwrap();
    }
    let files: Vec<_> = (0..500).map(|i| storage.open(&i.to_string(), Access::Write).unwrap()).collect();
    let again: Vec<_> = (0..500).map(|i| storage.open(&format!("{i}"), Access::Read).unwrap()).collect();
    assert!(directory.descriptors().len() <= 16);
    for (i, (file, again)) in files.iter().zip(&again).enumerate() {
        assert_eq!(read(&**file, 0, 100), format!("file {i}").as_bytes());
        assert_eq!(&*again.lend(0, 5).unwrap().unwrap(), b"file ");
        if i % 20 == 0 {
            file.write_at(b"FILE", 0).unwrap();
        }
        assert!(directory.descriptors().len() <= 16);
    }
    assert_eq!(read(&*again[0], 0, 100), b"FILE 0");
    for link in fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok) {
        if fs::read_link(link.path()).is_ok_and(|path| path.starts_with(&directory.0)) {
            let info = fs::read_to_string(PathBuf::from("/proc/self/fdinfo").join(link.file_name())).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            assert_ne!(u32::from_str_radix(flags, 8).unwrap() & 0o2_000_000, 0, "O_CLOEXEC");
        }
    }
    drop((files, again));
    assert!(directory.descriptors().is_empty());
}

#[test]
fn a_file_with_unflushed_bytes_keeps_its_descriptor_and_no_call_flushes_it_to_open_another() {
    let directory = TestDir::new();
    let storage =
        directory.open(DirectoryStorageOptions { open_files_max: 50, clean_files_max: 4, ..Default::default() });
    let files: Vec<_> = (0..30).map(|n| create(&storage, &format!("d{n}"), b"x")).collect();
    assert_eq!((directory.descriptors().len(), storage.unflushed()), (30, 30));
    for file in &files {
        file.flush().unwrap();
    }
    assert_eq!(storage.unflushed(), 0);
    let more: Vec<_> = (0..9).map(|n| create(&storage, &format!("e{n}"), b"x")).collect();
    // The nine, and about as many of the others as there may be without a reason.
    assert!((9..=9 + 5).contains(&directory.descriptors().len()), "{}", directory.descriptors().len());
    assert_eq!(storage.unflushed(), 9);
    for file in &files {
        assert_eq!(read(&**file, 0, 10), b"x");
    }
    drop((files, more));
}

#[test]
fn files_are_flushed_ahead_where_descriptors_get_scarce() {
    let directory = TestDir::new();
    let storage =
        directory.open(DirectoryStorageOptions { open_files_max: 16, clean_files_max: 2, ..Default::default() });
    let mut files: Vec<_> = (0..11).map(|n| create(&storage, &n.to_string(), b"x")).collect();
    storage.flush_ahead();
    assert_eq!(storage.unflushed(), 11, "a third of the descriptors is free");
    files.extend((11..16).map(|n| create(&storage, &n.to_string(), b"x")));
    storage.flush_ahead();
    assert_eq!(storage.unflushed(), 8);
    files.push(create(&storage, "16", b"x"));
    assert_eq!(storage.unflushed(), 9, "to open one more flushed nothing");
    assert!(directory.descriptors().len() <= 16);
}

#[test]
fn a_removed_file_is_not_found_once_its_descriptor_is_needed_elsewhere() {
    let directory = TestDir::new();
    let storage = directory.open(DirectoryStorageOptions { open_files_max: 1, ..Default::default() });
    let file = create(&storage, "a", &[7; 1000]);
    assert!(file.lend(0, 1000).unwrap().is_some());
    storage.remove_file("a").unwrap();
    create(&storage, "a", &[9; 1000]);
    assert_eq!(*file.lend(10, 100).unwrap().unwrap(), [7; 100], "what is mapped stays readable");
    assert_eq!(kind(file.read_at(&mut [0; 10], 0)), Some(ErrorKind::NotFound));
    assert_eq!(kind(file.len()), Some(ErrorKind::NotFound));
}

#[test]
fn a_file_swapped_by_another_process_is_not_taken_for_the_old_one() {
    let directory = TestDir::new();
    let storage = directory.open(DirectoryStorageOptions { open_files_max: 1, ..Default::default() });
    let file = create(&storage, "a", b"old");
    fs::write(directory.0.join("a.swap"), b"new").unwrap();
    fs::rename(directory.0.join("a.swap"), directory.0.join("a")).unwrap();
    let swapped = storage.open("a", Access::Read).unwrap();
    assert_eq!(read(&*swapped, 0, 10), b"new");
    assert_eq!(kind(file.read_at(&mut [0; 10], 0)), Some(ErrorKind::NotFound));
}

#[test]
fn a_read_only_storage_changes_nothing_and_sees_the_writer() {
    let directory = TestDir::new();
    let writer = directory.open(DirectoryStorageOptions::default());
    let written = create(&writer, "a", b"hello");
    let reader = directory.open(DirectoryStorageOptions { read_only: true, ..Default::default() });
    assert_eq!(kind(reader.lock()), Some(ErrorKind::PermissionDenied));
    assert_eq!(kind(reader.open("a", Access::Write)), Some(ErrorKind::PermissionDenied));
    assert_eq!(kind(reader.open("b", Access::CreateNew)), Some(ErrorKind::PermissionDenied));
    for result in [reader.create_dir("d"), reader.remove_dir("d"), reader.remove_file("a"), reader.rename("a", "b")] {
        assert_eq!(kind(result), Some(ErrorKind::PermissionDenied));
    }
    let file = reader.open("a", Access::Read).unwrap();
    assert_eq!(&*file.lend(0, 5).unwrap().unwrap(), b"hello");
    // The file grows, past the window that was mapped too: the reader follows.
    for round in 1..40_u64 {
        let bytes = vec![round as u8; 10_000];
        written.write_at(&bytes, round * 10_000).unwrap();
        assert_eq!(*file.lend(round * 10_000, 10_000).unwrap().unwrap(), *bytes);
    }
    let missing = DirectoryStorageOptions { read_only: true, ..Default::default() };
    assert_eq!(kind(DirectoryStorage::open(directory.0.join("none"), missing)), Some(ErrorKind::NotFound));
}

#[test]
fn a_reader_goes_on_lending_from_a_file_that_its_writer_trimmed() {
    let directory = TestDir::new();
    let writer = directory.open(DirectoryStorageOptions::default());
    let written = create(&writer, "a", &vec![7; 70_000]);
    reserve(&*written, 1 << 20);
    let reader = directory.open(DirectoryStorageOptions { read_only: true, ..Default::default() });
    let file = reader.open("a", Access::Read).unwrap();
    assert!(file.lend(0, 100).unwrap().is_some());
    written.truncate(70_000).unwrap();
    assert_eq!(*file.lend(66_000, 4000).unwrap().unwrap(), [7; 4000]);
    assert_eq!(*file.lend(10, 100).unwrap().unwrap(), [7; 100]);
}

#[test]
fn the_root_is_created_with_its_parents() {
    let directory = TestDir::new();
    let root = directory.0.join("a/b/c");
    drop(DirectoryStorage::open(&root, DirectoryStorageOptions::default()).unwrap());
    drop(DirectoryStorage::open(&root, DirectoryStorageOptions::default()).unwrap());
    fs::write(root.join("file"), b"").unwrap();
    let result = DirectoryStorage::open(root.join("file"), DirectoryStorageOptions::default());
    assert_eq!(kind(result), Some(ErrorKind::NotADirectory));
}

#[test]
fn windows_beyond_the_budget_are_dropped_and_only_leased_ones_make_it_refuse() {
    const FILE_BYTES: usize = 64 << 10;
    let directory = TestDir::new();
    let storage =
        directory.open(DirectoryStorageOptions { map_bytes_max: 4 * FILE_BYTES as u64, ..Default::default() });
    let files: Vec<_> = (0..20_u8).map(|i| create(&storage, &i.to_string(), &vec![i; FILE_BYTES])).collect();
    let budget = storage.budget();
    for _ in 0..3 {
        for (i, file) in files.iter().enumerate() {
            assert_eq!(*file.lend(100, 100).unwrap().unwrap(), [i as u8; 100]);
            assert!(budget.bytes_mapped() <= 4 * FILE_BYTES as u64);
        }
    }
    let mut leases: Vec<_> = files[..4].iter().map(|file| file.lend(0, 10).unwrap().unwrap()).collect();
    assert!(files[4].lend(0, 10).unwrap().is_none());
    assert!(files[0].lend(50, 10).unwrap().is_some(), "what is mapped anyhow is lent on");
    assert_eq!(read(&*files[4], 0, 10), [4; 10]);
    drop(leases.remove(1));
    assert!(files[4].lend(0, 10).unwrap().is_some());
    assert_eq!(*leases[0], [0; 10]);
    drop(leases);
    drop(files);
    assert_eq!(budget.bytes_mapped(), 0);
}

#[test]
fn stores_go_on_by_system_calls_when_the_budget_has_no_room() {
    const FILE_BYTES: u64 = 64 << 10;
    let directory = TestDir::new();
    let options =
        DirectoryStorageOptions { map_bytes_max: FILE_BYTES, store_mode: StoreMode::Map, ..Default::default() };
    let storage = directory.open(options);
    let leased = create(&storage, "leased", &vec![1; FILE_BYTES as usize]);
    let lease = leased.lend(0, 10).unwrap().unwrap();
    let file = storage.open("a", Access::CreateNew).unwrap();
    reserve(&*file, FILE_BYTES);
    file.store_at(b"copied", 0).unwrap();
    drop(lease);
    file.store_at(b"stored", 6).unwrap();
    assert_eq!(read(&*file, 0, 12), b"copiedstored");
    // The writer's own window is a cache like any other, and the next store gets another one.
    assert!(leased.lend(0, 10).unwrap().is_some());
    file.store_at(b"again", 12).unwrap();
    assert_eq!(read(&*file, 0, 17), b"copiedstoredagain");
    assert!(storage.budget().bytes_mapped() <= FILE_BYTES);
}

#[test]
fn a_file_that_another_process_cut_is_copied_from_then_on_and_no_process_dies() {
    let directory = TestDir::new();
    let storage = directory.open(DirectoryStorageOptions::default());
    let file = create(&storage, "a", &vec![7; 200_000]);
    fs::OpenOptions::new().write(true).open(directory.0.join("a")).unwrap().set_len(1000).unwrap();
    if rustix_populates() {
        assert!(file.lend(150_000, 100).unwrap().is_none());
        assert!(file.lend(0, 100).unwrap().is_none(), "from then on");
    }
    assert_eq!(read(&*file, 0, 200_000), [7; 1000]);
}

/// Whether the kernel of this test reports whether a page is there.
fn rustix_populates() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // A user-mode emulator passes only some of the advice on.
    version >= (5, 14) && cfg!(target_arch = "x86_64")
}

#[test]
fn what_is_rewritten_is_what_was_there_and_no_longer() {
    on_each(|storage, name| {
        let bytes: Vec<u8> = (0..600_000_u32).map(|n| (n / 7) as u8).collect();
        let file = create(storage, "a", &bytes);
        for range in [0..0, 0..1, 599_999..600_000, 4095..4097, 5000..300_000, 0..600_000] {
            file.rewrite(range.clone()).unwrap();
            assert_eq!(file.len().unwrap(), 600_000, "{name}: {range:?}");
            assert_eq!(read(&*file, 0, 600_001), bytes, "{name}: {range:?}");
        }
        file.flush().unwrap();
        let reader = storage.open("a", Access::Read).unwrap();
        assert_eq!(reader.rewrite(0..1).unwrap_err().kind(), ErrorKind::PermissionDenied, "{name}");
    });
}

#[test]
fn a_failed_flush_sticks_to_the_file_until_its_last_handle_goes() {
    let directory = TestDir::new();
    let storage = directory.open(DirectoryStorageOptions { open_files_max: 1, ..Default::default() });
    let file = create(&storage, "a", b"hello");
    let again = storage.open("a", Access::Write).unwrap();
    storage.fail_flushes("a", 5);
    storage.rename("a", "b").unwrap();
    create(&storage, "c", b"takes the only descriptor");
    let third = storage.open("b", Access::Write).unwrap();
    for handle in [&file, &again, &third] {
        assert_eq!(handle.flush().unwrap_err().raw_os_error(), Some(5));
        assert_eq!(read(&**handle, 0, 10), b"hello", "reading goes on");
    }
    drop((file, again, third));
    storage.open("b", Access::Write).unwrap().flush().unwrap();
}

#[test]
fn threads_that_write_more_files_than_may_be_open_lose_nothing() {
    const THREADS: usize = 4;
    const FILES: usize = 6;
    let directory = TestDir::new();
    let storage = directory.open(DirectoryStorageOptions { open_files_max: 3, ..Default::default() });
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let storage = &storage;
            scope.spawn(move || {
                let files: Vec<_> = (0..FILES)
                    .map(|i| {
                        let file = storage.open(&format!("{thread}-{i}"), Access::CreateNew).unwrap();
                        reserve(&*file, 100_000);
                        file
                    })
                    .collect();
                for position in (0..50_000).step_by(1000) {
                    for (i, file) in files.iter().enumerate() {
                        let bytes = [(thread * 16 + i + position) as u8; 1000];
                        file.store_at(&bytes, position as u64).unwrap();
                        file.write_at(&bytes, 50_000 + position as u64).unwrap();
                        assert_eq!(*file.lend(position as u64, 1000).unwrap().unwrap(), bytes);
                        if position % 7000 == 0 {
                            file.flush().unwrap();
                        }
                    }
                }
                for (i, file) in files.iter().enumerate() {
                    for position in (0..50_000).step_by(1000) {
                        let bytes = [(thread * 16 + i + position) as u8; 1000];
                        assert_eq!(read(&**file, position as u64, 1000), bytes);
                        assert_eq!(read(&**file, 50_000 + position as u64, 1000), bytes);
                    }
                }
            });
        }
    });
    assert!(directory.descriptors().len() <= 3);
}

#[test]
fn stores_never_touch_what_is_being_cut_away() {
    let directory = TestDir::new();
    let storage = directory.open(DirectoryStorageOptions { store_mode: StoreMode::Map, ..Default::default() });
    let file = storage.open("a", Access::CreateNew).unwrap();
    reserve(&*file, 1 << 20);
    thread::scope(|scope| {
        let cutter = scope.spawn(|| {
            for _ in 0..50 {
                file.truncate(4096).unwrap();
                reserve(&*file, 1 << 20);
            }
        });
        // A store through the map behind the end would be a SIGBUS.
        while !cutter.is_finished() {
            for position in (4096..1 << 20).step_by(8192) {
                file.store_at(&[1; 100], position).unwrap();
            }
        }
    });
}

#[test]
fn a_flag_is_seen_by_everybody_until_it_is_lowered() {
    let directory = TestDir::new();
    let writing = directory.open(DirectoryStorageOptions::default());
    let reading = directory.open(DirectoryStorageOptions { read_only: true, ..Default::default() });
    let memory = MemoryStorage::new();
    let pairs: [(&dyn Storage, &dyn Storage); 2] = [(&writing, &reading), (&memory, &memory.clone())];
    for (writer, reader) in pairs {
        writer.create_dir("t-0").unwrap();
        assert!(!reader.sees_flag("").unwrap() && !reader.sees_flag("t-0").unwrap());
        let raised = writer.raise_flag("t-0").unwrap();
        assert!(!reader.sees_flag("").unwrap() && reader.sees_flag("t-0").unwrap() && writer.sees_flag("t-0").unwrap());
        assert_eq!(reader.raise_flag("t-0").unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(raised);
        assert!(!reader.sees_flag("t-0").unwrap());
        drop(reader.raise_flag("t-0").unwrap());
        assert_eq!(reader.sees_flag("u-0").unwrap_err().kind(), ErrorKind::NotFound);
        // A file has one of its own.
        writer.open("t-0/a", Access::CreateNew).unwrap();
        let of_file = reader.raise_flag("t-0/a").unwrap();
        assert!(writer.sees_flag("t-0/a").unwrap() && !writer.sees_flag("t-0").unwrap());
        drop((writer.raise_flag("t-0").unwrap(), of_file));
        assert!(!writer.sees_flag("t-0/a").unwrap());
    }
}

#[test]
fn a_store_is_not_written_on_a_file_system_that_loses_flushed_files() {
    for (kind, name) in [(0x4D44, "vfat"), (0x2011_BAB0, "exfat")] {
        let directory = TestDir::new();
        let storage = directory.open(DirectoryStorageOptions::default());
        storage.pretend(kind);
        let refused = storage.lock().unwrap_err();
        assert!(refused.kind() == io::ErrorKind::Unsupported && refused.to_string().contains(name), "{refused}");
        assert!(!directory.0.exists(), "a refused store leaves a directory");
        let storage = directory.open(DirectoryStorageOptions::default());
        // An export may be written there.
        storage.create_dir(name).unwrap();
        storage.open(&format!("{name}/file"), Access::CreateNew).unwrap();
    }
}

//! A data directory on a real file system.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{self, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{Advice, FallocateFlags, OFlags};
use rustix::io::Errno;

use super::calls::{
    boot_id, create_durably, descriptors_max, directory_mode, open_regular, read_at, retry, sync_directory,
    write_all_at,
};
use super::device::Device;
use super::lock::{self, DirectoryLock, HeldDirectory, HeldLock, PlainLock, WriterLock};
use super::map_budget::MapBudget;
use super::mapped_file::MappedFile;
use super::open_files::{Closable, OpenFiles};
use super::status::Status;
use super::{Access, DirEntry, FileMeta, LOCK_FILE, Lease, Storage, StorageFile, StorageLock, write_again};
use crate::error::WHILE_IN_USE;

/// How the files of a [`DirectoryStorage`] are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreMode {
    /// Reads through maps; writes through maps where that is known to be safe: in room that the file system
    /// allocated beforehand, on ext4, f2fs and tmpfs, and on xfs where files cannot share blocks. All
    /// other writing is by system calls.
    #[default]
    Auto,
    /// Reads through maps, and writes through maps on every file system that can allocate room beforehand. On
    /// a file system that copies on write this invites SIGBUS when the disk is full.
    Map,
    /// Reads and writes by system calls alone: a bad disk is then always an error and never a signal.
    File,
}

impl StoreMode {
    /// Whether to write through maps, where that is decided.
    fn stores(self) -> Option<bool> {
        match self {
            StoreMode::Auto => None,
            StoreMode::Map => Some(true),
            StoreMode::File => Some(false),
        }
    }
}

/// How a data directory is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryStorageOptions {
    /// How files are read and written.
    pub store_mode: StoreMode,
    /// The most bytes that may be mapped at a time (address space, not memory). By default 1 GiB on 64-bit
    /// machines, 64 MiB on 32-bit ones.
    pub map_bytes_max: u64,
    /// The most files that are kept open at a time, however many are in use, and never more than half of what the
    /// process may open (`RLIMIT_NOFILE`). By default 48; at least 1.
    pub open_files_max: usize,
    /// About so many of them stay open although nothing in them waits to be flushed. By default 48; at least 1, and
    /// never more than `open_files_max`.
    pub clean_files_max: usize,
    /// Whether nothing may be changed: for reading what another process writes.
    pub read_only: bool,
    /// The permissions that new files get, less what the process's umask forbids. New directories get the same, and
    /// leave to enter them for those who may read. By default 0640.
    pub file_mode: u32,
}

impl Default for DirectoryStorageOptions {
    fn default() -> Self {
        Self {
            store_mode: StoreMode::Auto,
            map_bytes_max: if cfg!(target_pointer_width = "64") { 1 << 30 } else { 64 << 20 },
            open_files_max: 48,
            clean_files_max: 48,
            read_only: false,
            file_mode: 0o640,
        }
    }
}

/// The files of one directory of the host, below a path that is fixed when it is opened.
///
/// Files are opened when they are needed and closed again when too many are, the least recently used first,
/// so that the number of descriptors is bounded however many segments a log has. All descriptors are
/// close-on-exec.
#[derive(Debug)]
pub struct DirectoryStorage {
    shared: Arc<Shared>,
}

impl DirectoryStorage {
    /// Opens the data directory `root`, and creates it first where it is missing and may be created.
    ///
    /// # Errors
    /// Those of the file system; `NotADirectory` where `root` is something else.
    ///
    /// # Durability
    /// A root that was created survives a power cut from here on.
    pub fn open(root: impl Into<PathBuf>, options: DirectoryStorageOptions) -> io::Result<Self> {
        // The process may change its working directory later.
        let root = path::absolute(root.into())?;
        let mut created = Vec::new();
        if !options.read_only {
            create_durably(&root, Some(directory_mode(options.file_mode)), &mut created)?;
        }
        // Where a pipe has that name, opening it as a directory does not wait.
        let directory = OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits() as i32).open(&root)?;
        let device = Status::of(&directory)?.device;
        let home = Arc::new(Device::look(&directory, &root, options.store_mode.stores(), options.read_only)?);
        Ok(Self {
            shared: Arc::new(Shared {
                root,
                created,
                read_only: options.read_only,
                lends: options.store_mode != StoreMode::File,
                file_mode: options.file_mode,
                store_mode: options.store_mode,
                devices: Mutex::new(HashMap::from([(device, home)])),
                writer: Mutex::new(Weak::new()),
                linked: Mutex::default(),
                budget: MapBudget::new(options.map_bytes_max),
                clock: AtomicU64::new(1),
                open: OpenFiles::new(options.open_files_max.min(descriptors_max()), options.clean_files_max),
                files: Mutex::new(Files { by_path: HashMap::new(), sweep_at: 64 }),
            }),
        })
    }
}

#[cfg(test)]
impl DirectoryStorage {
    /// Lets the data directory's file system be as one of this kind, by its number in `statfs`.
    pub(super) fn pretend(&self, kind: u32) {
        for device in self.shared.devices.lock().values_mut() {
            *device = Arc::new(Device::of_kind(kind));
        }
    }

    pub(super) fn budget(&self) -> Arc<MapBudget<MappedFile>> {
        Arc::clone(&self.shared.budget)
    }

    /// How many files have unflushed bytes.
    pub(super) fn unflushed(&self) -> usize {
        let files = self.shared.files.lock();
        files.by_path.values().filter_map(Weak::upgrade).filter(|file| file.is_dirty()).count()
    }

    /// Lets the file at `path`, which is open, be as after a flush that failed with `errno`.
    pub(super) fn fail_flushes(&self, path: &str, errno: i32) {
        let file = self.shared.files.lock().by_path[path].upgrade().unwrap();
        file.failed.store(errno, Ordering::Release);
    }
}

/// What all handles of one storage share.
///
/// Lock order: `open`, then `files`, then what belongs to one file.
struct Shared {
    root: PathBuf,
    /// The directories that were made for it, the outermost first.
    created: Vec<PathBuf>,
    read_only: bool,
    lends: bool,
    file_mode: u32,
    store_mode: StoreMode,
    /// The file systems that files were opened on, by device number.
    devices: Mutex<HashMap<u64, Arc<Device>>>,
    /// The lock that was taken here.
    writer: Mutex<Weak<WriterLock>>,
    /// The locks on directories that links lead to, by the links' names.
    linked: Mutex<HashMap<String, Weak<DirectoryLock>>>,
    budget: Arc<MapBudget<MappedFile>>,
    /// Advances with each descriptor that is opened: the time by which descriptors are old or young.
    clock: AtomicU64,
    open: OpenFiles<DataFile>,
    files: Mutex<Files>,
}

/// Every file that has a handle, so that all handles of one file share one descriptor and one
/// fate.
struct Files {
    by_path: HashMap<String, Weak<DataFile>>,
    sweep_at: usize,
}

impl Files {
    fn insert(&mut self, path: &str, file: &Arc<DataFile>) {
        if self.by_path.len() >= self.sweep_at {
            self.by_path.retain(|_, file| file.strong_count() > 0);
            self.sweep_at = 64.max(2 * self.by_path.len());
        }
        self.by_path.insert(path.to_owned(), Arc::downgrade(file));
    }

    /// Forgets the file at `path`, whose name is gone: its handles go on with what they have.
    fn remove(&mut self, path: &str) {
        if let Some(file) = self.by_path.remove(path).and_then(|file| file.upgrade()) {
            *file.path.lock() = None;
        }
    }

    /// Gives the file at `from`, or all files below it, their new names.
    fn rename(&mut self, from: &str, to: &str) {
        self.remove(to);
        let moved: Vec<_> = self
            .by_path
            .keys()
            .filter_map(|path| {
                let rest = path.strip_prefix(from)?;
                (rest.is_empty() || rest.starts_with('/')).then(|| (path.clone(), format!("{to}{rest}")))
            })
            .collect();
        for (old, new) in moved {
            let Some(file) = self.by_path.remove(&old) else { continue };
            if let Some(file) = file.upgrade() {
                *file.path.lock() = Some(Name { full: file.shared.root.join(&new), path: new.clone() });
            }
            self.by_path.insert(new, file);
        }
    }
}

impl Shared {
    /// Where `path` is on the host. The engine makes all names itself; one that leads out of the data
    /// directory is refused all the same.
    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) || path.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("not a name in a data directory: {path:?}"),
            ));
        }
        Ok(self.root.join(path))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }

    /// Whether `directory` is the data directory, by any name.
    fn is_root(&self, directory: &Path) -> bool {
        let id = |path: &Path| Status::of_target(path).map(|there| (there.device, there.inode)).ok();
        id(directory).is_some_and(|there| Some(there) == id(&self.root))
    }

    fn check_lock(&self) -> io::Result<()> {
        let writer = self.writer.lock().upgrade();
        writer.map_or(Ok(()), |writer| writer.check())
    }

    /// The file system of `file`, which was opened at `path`.
    fn device_of(&self, file: &File, path: &Path, device: u64) -> io::Result<Arc<Device>> {
        let mut devices = self.devices.lock();
        if let Some(known) = devices.get(&device) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(Device::look(
            file,
            path.parent().unwrap_or(&self.root),
            self.store_mode.stores(),
            self.read_only,
        )?);
        devices.insert(device, Arc::clone(&found));
        Ok(found)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("root", &self.root)
            .field("read_only", &self.read_only)
            .field("lends", &self.lends)
            .field("devices", &self.devices)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "bridge")]
impl DirectoryStorage {
    /// Takes the lock that a file of this name stands for.
    pub(crate) fn lock_file(&self, name: &str) -> io::Result<Box<dyn StorageLock>> {
        self.shared.check_writable()?;
        Ok(Box::new(PlainLock::take(&self.shared.root.join(name), self.shared.file_mode)?))
    }
}

impl Storage for DirectoryStorage {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        self.shared.check_writable()?;
        let root = File::open(&self.shared.root)?;
        let device = self.shared.device_of(&root, &self.shared.root, Status::of(&root)?.device)?;
        if let Err(unsafe_there) = device.check_safe() {
            // A store that is refused leaves nothing. What has something in it by now stays.
            self.shared.created.iter().rev().for_each(|directory| drop(fs::remove_dir(directory)));
            return Err(unsafe_there);
        }
        let lock = WriterLock::take(&self.shared.root, LOCK_FILE, self.shared.file_mode)?;
        *self.shared.writer.lock() = Arc::downgrade(&lock);
        Ok(Box::new(HeldLock(lock)))
    }

    fn check_lock(&self) -> io::Result<()> {
        self.shared.check_lock()
    }

    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.shared.resolve(dir)?)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type()?;
            // A partition's directory may have been moved to another disk, and a link left in its place.
            let is_dir = if dir.is_empty() && kind.is_symlink() { entry.path().is_dir() } else { kind.is_dir() };
            entries.push(DirEntry { name, is_dir });
        }
        Ok(entries)
    }

    fn is_link(&self, dir: &str) -> bool {
        Status::of_name(&self.shared.root.join(dir)).is_ok_and(|there| there.is_link())
    }

    fn leads_nowhere(&self, dir: &str) -> bool {
        let path = self.shared.root.join(dir);
        Status::of_name(&path).is_ok() && !path.is_dir()
    }

    fn directory_id(&self, dir: &str) -> Option<(u64, u64)> {
        let there = Status::of_target(&self.shared.resolve(dir).ok()?).ok().filter(Status::is_dir)?;
        Some((there.device, there.inode))
    }

    fn lock_linked(&self, dir: &str, store_file: &str) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.shared.check_writable()?;
        if !self.is_link(dir) {
            return Ok(None);
        }
        let target = fs::canonicalize(self.shared.resolve(dir)?)?;
        let Some(lock) = DirectoryLock::take(&target)? else { return Ok(None) };
        // Behind the lock: one who opens that store meanwhile finds it, or is found here.
        if let Some(other) = target.parent().filter(|&parent| !self.shared.is_root(parent)) {
            if other.join(store_file).exists() || lock::is_held(&other.join(LOCK_FILE)) {
                let other = other.display();
                return Err(io::Error::other(format!(
                    "it is a link into the data directory {other}, whose writer alone may write it"
                )));
            }
        }
        let mut linked = self.shared.linked.lock();
        linked.retain(|_, lock| lock.strong_count() > 0);
        linked.insert(dir.to_owned(), Arc::downgrade(&lock));
        Ok(Some(Box::new(HeldDirectory(lock))))
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.shared.check_writable()?;
        fs::DirBuilder::new().mode(directory_mode(self.shared.file_mode)).create(self.shared.resolve(dir)?)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.shared.check_writable()?;
        let path = self.shared.resolve(dir)?;
        if !Status::of_name(&path)?.is_link() {
            return fs::remove_dir(path);
        }
        fs::remove_dir(fs::canonicalize(&path)?)?;
        fs::remove_file(path)
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        let shared = &self.shared;
        let writes = access != Access::Read;
        if writes {
            shared.check_writable()?;
        }
        let full_path = shared.resolve(path)?;
        let mut open = shared.open.room_for_one();
        let mut options = OpenOptions::new();
        options.read(true).write(writes).create_new(access == Access::CreateNew).mode(shared.file_mode);
        let (descriptor, status) = open_regular(options, &full_path, OFlags::empty())?;
        let device = shared.device_of(&descriptor, &full_path, status.device)?;
        if writes && shared.writer.lock().strong_count() > 0 {
            device.check_safe()?;
        }
        let identity = status.identity;
        let mut files = shared.files.lock();
        let known = files.by_path.get(path).and_then(Weak::upgrade).filter(|file| file.identity == identity);
        let file = if let Some(file) = known {
            let mut kept = file.descriptor.lock();
            if kept.is_none() {
                open.push(&file);
            }
            if kept.is_none() || (writes && !file.writable.load(Ordering::Acquire)) {
                *kept = Some(Arc::new(descriptor));
            }
            if writes {
                file.writable.store(true, Ordering::Release);
                file.map.make_writable();
            }
            drop(kept);
            file
        } else {
            let file = Arc::new(DataFile {
                shared: Arc::clone(shared),
                device,
                path: Mutex::new(Some(Name { path: path.to_owned(), full: full_path.clone() })),
                identity,
                device_number: status.device,
                writable: AtomicBool::new(writes),
                descriptor: Mutex::new(Some(Arc::new(descriptor))),
                last_used: AtomicU64::new(0),
                dirty: AtomicBool::new(false),
                failed: AtomicI32::new(0),
                flushing: Mutex::new(()),
                map: MappedFile::new(Arc::clone(&shared.budget), status.len, writes, shared.lends),
            });
            open.push(&file);
            files.insert(path, &file);
            file
        };
        file.last_used.store(shared.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Ok(Arc::new(DirectoryFile { file, writes }))
    }

    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        let full_path = self.shared.resolve(path)?;
        let mut status = Status::of_name(&full_path)?;
        if status.is_link() && !path.contains('/') {
            status = Status::of_target(&full_path).ok().filter(Status::is_dir).unwrap_or(status);
        }
        status.check_kind()?;
        Ok(FileMeta { len: status.len, identity: status.identity })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.shared.check_writable()?;
        let (from_path, to_path) = (self.shared.resolve(from)?, self.shared.resolve(to)?);
        let mut files = self.shared.files.lock();
        fs::rename(from_path, to_path)?;
        if from != to {
            files.rename(from, to);
        }
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.shared.check_writable()?;
        let full_path = self.shared.resolve(path)?;
        let mut files = self.shared.files.lock();
        fs::remove_file(full_path)?;
        files.remove(path);
        Ok(())
    }

    fn flush_ahead(&self) {
        self.shared.open.flush_ahead();
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        sync_directory(&self.shared.resolve(dir)?)
    }

    /// A flag is a lock on the file or directory itself: the kernel keeps it in memory, and gives it back when the
    /// process ends.
    fn raise_flag(&self, path: &str) -> io::Result<Box<dyn StorageLock>> {
        if let Some(linked) = self.shared.linked.lock().get(path).and_then(Weak::upgrade) {
            return Ok(Box::new(linked.raise_flag()?));
        }
        let writer = self.shared.writer.lock().upgrade().filter(|_| path.is_empty());
        match writer {
            Some(writer) if writer.locks_directory() => Ok(Box::new(writer.raise_flag()?)),
            _ => Ok(Box::new(PlainLock::raise(&self.shared.resolve(path)?)?)),
        }
    }

    fn sees_flag(&self, path: &str) -> io::Result<bool> {
        // Both kinds are locked, for a moment, by a writer that opens the store.
        let is_locked = path.is_empty() || (!path.contains('/') && self.is_link(path));
        let lock_file = is_locked.then(|| self.shared.root.join(LOCK_FILE));
        lock::sees_flag(&self.shared.resolve(path)?, lock_file.as_deref())
    }

    fn nested(&self, dir: &str) -> io::Result<Arc<dyn Storage>> {
        let options = DirectoryStorageOptions::nested(self.shared.store_mode, self.shared.file_mode);
        Ok(Arc::new(DirectoryStorage::open(self.shared.resolve(dir)?, options)?))
    }

    fn boot_id(&self) -> [u8; 16] {
        boot_id()
    }
}

/// A file's name inside the data directory, and the whole of it: a flush looks it up, and allocates nothing.
struct Name {
    path: String,
    full: PathBuf,
}

/// One file of the directory, under any name that it has by now, with any number of handles.
struct DataFile {
    shared: Arc<Shared>,
    device: Arc<Device>,
    /// Its name inside the data directory; `None` once it has none.
    path: Mutex<Option<Name>>,
    identity: u64,
    /// The number of the file system that it is on.
    device_number: u64,
    /// Whether the descriptor is for writing too.
    writable: AtomicBool,
    /// Closed (`None`) when others needed the room. A dirty file's is flushed first, so that the kernel
    /// cannot lose an error of writing back between two descriptors.
    descriptor: Mutex<Option<Arc<File>>>,
    last_used: AtomicU64,
    /// Whether something was written since the last flush began.
    dirty: AtomicBool,
    /// The error number of the flush that failed, or 0.
    failed: AtomicI32,
    /// Held while flushing: of two flushes at once the kernel would report the error to one only.
    flushing: Mutex<()>,
    map: Arc<MappedFile>,
}

impl DataFile {
    /// The descriptor, opened again if it was closed.
    fn descriptor(self: &Arc<Self>) -> io::Result<Arc<File>> {
        let now = self.shared.clock.load(Ordering::Relaxed);
        if self.last_used.load(Ordering::Relaxed) != now {
            self.last_used.store(now, Ordering::Relaxed);
        }
        if let Some(file) = &*self.descriptor.lock() {
            return Ok(Arc::clone(file));
        }
        self.reopen()
    }

    #[cold]
    fn reopen(self: &Arc<Self>) -> io::Result<Arc<File>> {
        let mut open = self.shared.open.room_for_one();
        let mut kept = self.descriptor.lock();
        if let Some(file) = &*kept {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(self.open_by_name(OFlags::empty())?);
        *kept = Some(Arc::clone(&file));
        open.push(self);
        self.shared.clock.fetch_add(1, Ordering::Relaxed);
        Ok(file)
    }

    fn open_by_name(&self, flags: OFlags) -> io::Result<File> {
        loop {
            let path = self.path.lock().as_ref().map(|name| name.path.clone());
            let Some(path) = path else { return Err(io::ErrorKind::NotFound.into()) };
            let writes = self.writable.load(Ordering::Acquire);
            let mut options = OpenOptions::new();
            options.read(true).write(writes);
            let opened = open_regular(options, &self.shared.resolve(&path)?, flags);
            let error = match opened {
                Ok((file, status)) if status.identity == self.identity => return Ok(file),
                Ok(_) => io::ErrorKind::NotFound.into(), // another file took the name
                Err(error) => error,
            };
            if self.path.lock().as_ref().is_some_and(|name| name.path == path) {
                return Err(error);
            } // else it was renamed meanwhile
        }
    }

    fn flush(self: &Arc<Self>) -> io::Result<()> {
        self.check_flushes()?;
        let file = self.descriptor()?;
        let _flushing = self.flushing.lock();
        self.check_flushes()?;
        // Before the call: what is written meanwhile may be missing from it.
        self.dirty.store(false, Ordering::SeqCst);
        retry(|| rustix::fs::fdatasync(&file)).map_err(|error| {
            self.failed.store(error.raw_os_error(), Ordering::Release);
            io::Error::from(error)
        })?;
        if self.writable.load(Ordering::Acquire) { self.check_place() } else { Ok(()) }
    }

    /// Returns where what was flushed is found again: the file's name, through the directory that it leads to, still
    /// stands for this file, in a data directory that is still this process's. That the file has some name is not
    /// enough: it may have been moved away with its directory, or be a copy that is kept.
    fn check_place(&self) -> io::Result<()> {
        self.shared.check_lock()?;
        if self.has_its_name() {
            return Ok(());
        }
        // A call that renames or removes the file here has the lock until the new name is known.
        let _no_rename = self.shared.files.lock();
        if self.has_its_name() {
            return Ok(());
        }
        Err(io::Error::other(format!("the file or its directory was moved or removed {WHILE_IN_USE}")))
    }

    /// Whether the name leads to the file; also where the file has none any more, by a call that was made here.
    fn has_its_name(&self) -> bool {
        let name = self.path.lock();
        let Some(name) = &*name else { return true };
        match Status::of_name(&name.full) {
            Ok(there) => there.device == self.device_number && there.identity == self.identity,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
            // A disk that answers for neither: what is written next learns that by itself.
            Err(_) => true,
        }
    }

    fn check_flushes(&self) -> io::Result<()> {
        match self.failed.load(Ordering::Acquire) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn write_at(self: &Arc<Self>, bytes: &[u8], position: u64) -> io::Result<()> {
        let Some(end) = position.checked_add(bytes.len() as u64) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        let file = self.descriptor()?;
        let grows = end > self.map.known_len();
        // A reservation that fails gives back what it took by cutting the file: not while another call makes it
        // longer.
        let _size = grows.then(|| self.map.lock_size());
        let result = write_all_at(&file, bytes, position);
        self.dirty.store(true, Ordering::SeqCst);
        result?;
        if grows {
            self.map.grew_to(end);
        }
        Ok(())
    }

    #[inline]
    fn store_at(self: &Arc<Self>, bytes: &[u8], position: u64) -> io::Result<()> {
        // A dirty file keeps its descriptor; a clean one may be without, and must have it before it becomes dirty.
        let held = if self.dirty.load(Ordering::Relaxed) { None } else { Some(self.descriptor()?) };
        let stored = self.map.store(bytes, position, &|| self.descriptor())?;
        if !self.dirty.load(Ordering::Relaxed) {
            self.dirty.store(true, Ordering::SeqCst);
            // A flush that ran meanwhile may have let the descriptor go.
            if held.is_none() {
                self.descriptor()?;
            }
        }
        if stored < bytes.len() {
            self.write_at(&bytes[stored..], position + stored as u64)?;
        }
        Ok(())
    }

    fn reserve(self: &Arc<Self>, len: u64) -> io::Result<()> {
        if self.device.cannot_reserve.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if len <= self.map.reserved() {
            return Ok(());
        }
        let file = self.descriptor()?;
        let _size = self.map.lock_size();
        let old_len = Status::of(&file)?.len;
        // The raw call: where the file system cannot do it, nothing else is an allocation.
        match retry(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len)) {
            Ok(()) => {
                self.dirty.store(true, Ordering::SeqCst);
                self.map.reserved_to(len);
                Ok(())
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.device.cannot_reserve.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::Unsupported.into())
            }
            Err(error) => {
                // Some file systems keep the part that they could allocate, as part of the file. (Where this fails
                // too, the file is longer, with zeros; that does no harm.)
                let _ = retry(|| rustix::fs::ftruncate(&file, old_len));
                Err(error.into())
            }
        }
    }

    /// Writes zeros, by system calls of many pages: that brings them into the page cache in large folios, which the
    /// stores then fault in a few at a time. (On ext4 a page costs the writer a sixteenth of what it costs to fault in
    /// one that is not there, and all together a fifth of `MADV_POPULATE_WRITE`.)
    fn prepare(self: &Arc<Self>, range: Range<u64>) {
        // Made here, and no page of the library's file.
        let zeros = vec![0; 4 << 10];
        let Ok(file) = self.descriptor() else { return };
        let mut at = range.start;
        let end = range.end.min(self.map.reserved());
        while at < end {
            let mut slices = [io::IoSlice::new(&[]); 64];
            let mut left = end - at;
            for slice in &mut slices {
                let len = left.min(zeros.len() as u64);
                *slice = io::IoSlice::new(&zeros[..len as usize]);
                left -= len;
            }
            let written = rustix::io::pwritev(&file, &slices, at);
            self.dirty.store(true, Ordering::SeqCst);
            match written {
                Ok(written) if written > 0 => at += written as u64,
                Err(Errno::INTR) => {}
                _ => return, // a hint: the store there gets the error
            }
        }
    }

    /// Writes whole blocks around `range` again, the same bytes, past the page cache: the kernel drops its pages of
    /// them, also where a process maps them.
    ///
    /// Through the cache it is not the same. Where the first write to reserved room has failed, ext4 keeps the extent
    /// as unwritten and the page as written (Linux 6.18): what is written to that page then, and flushed without an
    /// error, reads as zeros after the next mount.
    fn write_past_cache(self: &Arc<Self>, range: Range<u64>) -> io::Result<()> {
        // What devices and file systems ask of places, lengths and memory, or more.
        const BLOCK_BYTES: usize = 4 << 10;
        const PIECE_BYTES: usize = 256 << 10;
        let cached = self.descriptor()?;
        let direct = self.open_by_name(OFlags::DIRECT)?;
        let len = Status::of(&cached)?.len;
        let mut memory = vec![0; PIECE_BYTES + BLOCK_BYTES];
        let aligned = memory.as_ptr().align_offset(BLOCK_BYTES);
        let piece = memory.get_mut(aligned..aligned + PIECE_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut at = range.start - range.start % BLOCK_BYTES as u64;
        while at < range.end {
            let blocks = (range.end - at).next_multiple_of(BLOCK_BYTES as u64).min(PIECE_BYTES as u64);
            let piece = &mut piece[..blocks as usize];
            let read = read_at(&cached, piece, at)?;
            piece[read..].fill(0);
            self.dirty.store(true, Ordering::SeqCst);
            direct.write_all_at(piece, at)?;
            at += blocks;
        }
        if at > len { self.truncate(len) } else { Ok(()) }
    }

    fn truncate(self: &Arc<Self>, len: u64) -> io::Result<()> {
        let file = self.descriptor()?;
        let _size = self.map.lock_size();
        self.map.about_to_cut(len);
        let result = retry(|| rustix::fs::ftruncate(&file, len));
        self.dirty.store(true, Ordering::SeqCst);
        match result {
            Ok(()) => self.map.grew_to(len),
            Err(_) => self.map.forget_len(),
        }
        Ok(result?)
    }
}

impl Closable for DataFile {
    fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        let Some(kept) = self.descriptor.try_lock() else { return false };
        kept.as_ref().is_some_and(|file| Arc::strong_count(file) == 1)
    }

    fn close_if_clean(&self) -> bool {
        let Some(mut kept) = self.descriptor.try_lock() else { return false };
        let idle = kept.as_ref().is_some_and(|file| Arc::strong_count(file) == 1);
        if !idle || self.is_dirty() {
            return false;
        }
        *kept = None;
        true
    }

    fn flush(self: &Arc<Self>) -> io::Result<()> {
        DataFile::flush(self)
    }
}

impl fmt::Debug for DataFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataFile")
            .field("path", &self.path.lock().as_ref().map(|name| &name.path))
            .field("map", &self.map)
            .finish_non_exhaustive()
    }
}

/// A handle of a file: the file, and what the holder may do with it.
#[derive(Debug)]
struct DirectoryFile {
    file: Arc<DataFile>,
    writes: bool,
}

impl DirectoryFile {
    #[inline]
    fn check_writable(&self) -> io::Result<()> {
        if self.writes { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl StorageFile for DirectoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(Status::of(&*self.file.descriptor()?)?.len)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        read_at(&*self.file.descriptor()?, buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file.write_at(bytes, position)
    }

    fn rewrite(&self, range: Range<u64>) -> io::Result<()> {
        self.check_writable()?;
        match self.file.write_past_cache(range.clone()) {
            Ok(()) => Ok(()),
            // Not every file system has such a way, and this one may report the error of an earlier write.
            Err(_) => write_again(self, range),
        }
    }

    fn forget_failed_flush(&self) {
        if !self.file.writable.load(Ordering::Acquire) {
            self.file.failed.store(0, Ordering::Release);
        }
    }

    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_writable()?;
        if self.file.device.stores_through_maps {
            self.file.store_at(bytes, position)
        } else {
            self.file.write_at(bytes, position)
        }
    }

    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>> {
        self.file.map.lend(position, len, &|| self.file.descriptor())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file.reserve(len)
    }

    fn prepare(&self, range: Range<u64>) {
        if self.writes && self.file.device.stores_through_maps {
            self.file.prepare(range);
        }
    }

    fn start_write_back(&self, range: Range<u64>) {
        // What is dirty there is written. The call would drop clean pages from the cache, but for mapped ones: so it is
        // for what was stored through the map. An error of the disk is for the flush.
        if let (Ok(file), Some(len)) = (self.file.descriptor(), NonZeroU64::new(range.end.saturating_sub(range.start)))
        {
            let _ = rustix::fs::fadvise(&file, range.start, Some(len), Advice::DontNeed);
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file.truncate(len)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }

    fn check_place(&self) -> io::Result<()> {
        self.file.check_place()
    }
}

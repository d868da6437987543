//! A storage whose calls fail or panic where a test says so. The engine, and the C ABI above it, meet errors that a
//! real disk does not show twice.

#![allow(dead_code)] // each test binary uses some of it

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use edgelog::storage::{Access, DirEntry, FileMeta, Lease, MemoryStorage, Storage, StorageFile, StorageLock};

/// What a storage's call does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Io,
    Full,
    Panic,
}

/// What an injected panic says, so that a test can see that a panic is not a real one.
pub const INJECTED: &str = "injected";

const EIO: i32 = 5;

#[derive(Debug)]
pub struct Plan {
    /// Calls until the fault; below zero there is none (any more).
    calls_left: AtomicI64,
    calls: AtomicI64,
    fault: Fault,
    /// Whether every call from there on fails.
    stays: bool,
    /// The thread by this name alone meets the fault, and its calls are those that count.
    thread: Option<&'static str>,
    /// Each flush of a file answers EIO.
    flushes_fail: AtomicBool,
    /// Each write to a file answers EIO.
    writes_fail: AtomicBool,
}

/// What is done before a directory's names are made durable: what another thread might do then.
#[derive(Clone)]
struct Meanwhile(Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Debug, Clone)]
pub struct FaultyStorage {
    inner: MemoryStorage,
    plan: Arc<Plan>,
    before_sync_dir: Option<Meanwhile>,
    has_flags: bool,
}

impl FaultyStorage {
    /// `calls_left` below zero: without any fault.
    pub fn new(inner: MemoryStorage, calls_left: i64, fault: Fault, stays: bool) -> FaultyStorage {
        let plan = Plan::new(calls_left, fault, stays, None);
        FaultyStorage { inner, plan: Arc::new(plan), before_sync_dir: None, has_flags: false }
    }

    /// A storage without any fault, whose processes see each other's flags.
    pub fn with_flags(inner: MemoryStorage) -> FaultyStorage {
        FaultyStorage { has_flags: true, ..FaultyStorage::new(inner, -1, Fault::Io, false) }
    }

    /// A storage whose call number `at` out of the store's own thread panics.
    pub fn panics_in_housekeeping(inner: MemoryStorage, at: i64) -> FaultyStorage {
        let plan = Plan::new(at, Fault::Panic, false, Some("edgelog"));
        FaultyStorage { inner, plan: Arc::new(plan), before_sync_dir: None, has_flags: false }
    }

    /// A storage without any fault, which does this before it makes a directory's names durable.
    pub fn before_sync_dir(inner: MemoryStorage, meanwhile: impl Fn() + Send + Sync + 'static) -> FaultyStorage {
        let storage = FaultyStorage::new(inner, -1, Fault::Io, false);
        FaultyStorage { before_sync_dir: Some(Meanwhile(Arc::new(meanwhile))), ..storage }
    }

    /// From now on, each flush of a file answers EIO, or none does.
    pub fn fail_flushes(&self, fail: bool) {
        self.plan.flushes_fail.store(fail, Ordering::SeqCst);
    }

    /// From now on, each write to a file answers EIO, or none does.
    pub fn fail_writes(&self, fail: bool) {
        self.plan.writes_fail.store(fail, Ordering::SeqCst);
    }

    /// After so many further calls one meets the fault; below zero, none does.
    pub fn fail_after(&self, calls: i64) {
        self.plan.calls_left.store(calls, Ordering::Relaxed);
    }

    /// How many calls there were.
    pub fn calls(&self) -> i64 {
        self.plan.calls.load(Ordering::Relaxed)
    }
}

impl Plan {
    fn new(calls_left: i64, fault: Fault, stays: bool, thread: Option<&'static str>) -> Plan {
        Plan {
            calls_left: AtomicI64::new(calls_left),
            calls: AtomicI64::new(0),
            fault,
            stays,
            thread,
            flushes_fail: AtomicBool::new(false),
            writes_fail: AtomicBool::new(false),
        }
    }

    fn meet(&self) -> io::Result<()> {
        if self.thread.is_some() && self.thread != std::thread::current().name() {
            return Ok(());
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let left = self.calls_left.load(Ordering::Relaxed);
        if left < 0 {
            return Ok(());
        }
        if left > 0 || !self.stays {
            self.calls_left.store(left - 1, Ordering::Relaxed);
        }
        if left > 0 {
            return Ok(());
        }
        match self.fault {
            Fault::Io => Err(io::Error::from_raw_os_error(EIO)),
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::Panic => panic!("{INJECTED}"),
        }
    }
}

impl Plan {
    fn meet_write(&self) -> io::Result<()> {
        self.meet()?;
        if self.writes_fail.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn StorageFile>,
    plan: Arc<Plan>,
}

impl Storage for FaultyStorage {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        self.plan.meet()?;
        self.inner.lock()
    }

    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.plan.meet()?;
        self.inner.read_dir(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.plan.meet()?;
        self.inner.create_dir(dir)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.plan.meet()?;
        self.inner.remove_dir(dir)
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.plan.meet()?;
        Ok(Arc::new(FaultyFile { inner: self.inner.open(path, access)?, plan: Arc::clone(&self.plan) }))
    }

    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        self.plan.meet()?;
        self.inner.metadata(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.plan.meet()?;
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.plan.meet()?;
        self.inner.remove_file(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.plan.meet()?;
        if let Some(Meanwhile(work)) = &self.before_sync_dir {
            work();
        }
        self.inner.sync_dir(dir)
    }

    fn raise_flag(&self, path: &str) -> io::Result<Box<dyn StorageLock>> {
        if self.has_flags { self.inner.raise_flag(path) } else { Err(io::ErrorKind::Unsupported.into()) }
    }

    fn sees_flag(&self, path: &str) -> io::Result<bool> {
        if self.has_flags { self.inner.sees_flag(path) } else { Ok(false) }
    }

    fn boot_id(&self) -> [u8; 16] {
        self.inner.boot_id()
    }
}

impl StorageFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.plan.meet()?;
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.plan.meet()?;
        self.inner.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if let Err(error) = self.plan.meet_write() {
            // Any part of the range may hold any part of the bytes.
            let _ = self.inner.write_at(&bytes[..bytes.len() / 2], position);
            return Err(error);
        }
        self.inner.write_at(bytes, position)
    }

    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.plan.meet_write()?;
        self.inner.store_at(bytes, position)
    }

    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>> {
        self.plan.meet()?;
        self.inner.lend(position, len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.plan.meet()?;
        self.inner.reserve(len)
    }

    fn prepare(&self, range: Range<u64>) {
        self.inner.prepare(range);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.plan.meet()?;
        self.inner.truncate(len)
    }

    fn flush(&self) -> io::Result<()> {
        self.plan.meet()?;
        if self.plan.flushes_fail.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.inner.flush()
    }
}

/// Keeps the injected panics' own lines off the screen; real ones are shown.
pub fn quiet_injected_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload();
            let injected = text.downcast_ref::<&str>().is_some_and(|text| *text == INJECTED)
                || text.downcast_ref::<String>().is_some_and(|text| text == INJECTED);
            if !injected {
                before(info);
            }
        }));
    });
}

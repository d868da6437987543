//! Locks on a data directory: the writer's, and flags that processes of this machine see.
//!
//! # Invariants
//!
//! 1. The writer holds two locks by `flock`: on the file `.lock`, which every version of edgelog takes, and on the data
//!    directory itself, which cannot be removed from under it without notice. A second writer needs both.
//! 2. The directory's lock is exclusive while a writer is let in, shared while that one recovers, and exclusive again
//!    while the directory's flag is up. To lower it never fails: the kernel exchanges the kinds in one step. Raising it
//!    may meet a process that looks for the flag, and loses the shared lock meanwhile; so `.lock` is looked at again.
//! 3. A process that gets past `.lock` with a lock on another file than the writer's has made that file, so the name
//!    does not stand for the writer's file any more. [`WriterLock::check`] sees that.
//! 4. While a writer recovers, `.lock` says so behind its process id: the exclusive lock of 2 is then no flag.
//! 5. A partition's directory that a link leads to stands outside of the data directory: it has a lock of its own, as
//!    the data directory has ([`DirectoryLock`]).
//!
//! Where a directory cannot be locked (some network file systems), the lock on `.lock` is all there is, and 3 is what a
//! writer learns of another one by.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use super::calls::{open_regular, retry};
use super::status::Status;
use super::{ForkGuard, StorageLock};
use crate::canary::{Bug, bug};
use crate::error::WHILE_IN_USE;
use crate::events;

/// So often a lock is tried to be taken while other processes look for a moment whether it is held.
const TRIES: u32 = 1000;
/// So often, and so far apart, `.lock` is tried to be taken again after its name was removed: a second writer that is
/// about to be refused holds the new file for a moment.
const RETAKE_TRIES: u32 = 50;
const RETAKE_PAUSE: Duration = Duration::from_millis(2);
/// What `.lock` says behind the process id while its holder recovers.
const RECOVERING: &str = "recovering";
/// A lock file is read up to here.
const HOLDER_BYTES_MAX: u64 = 64;

/// The lock that makes a process the one writer of a data directory.
#[derive(Debug)]
pub(super) struct WriterLock {
    root: PathBuf,
    path: PathBuf,
    mode: u32,
    process: ForkGuard,
    /// The data directory, locked; `None` where directories cannot be locked.
    directory: Option<Locked>,
    state: Mutex<State>,
}

/// A file or directory that is locked.
#[derive(Debug)]
struct Locked {
    file: File,
    device: u64,
    inode: u64,
}

impl Locked {
    fn new(file: File) -> io::Result<Locked> {
        let Status { device, inode, .. } = Status::of(&file)?;
        Ok(Locked { file, device, inode })
    }

    fn is(&self, there: &Status) -> bool {
        (self.device, self.inode) == (there.device, there.inode)
    }

    /// Whether the file at `path` is this one.
    fn has_name(&self, path: &Path) -> bool {
        Status::of_name(path).is_ok_and(|there| self.is(&there))
    }
}

#[derive(Debug)]
struct State {
    /// `.lock`, locked; `None` once it is given up.
    file: Option<Locked>,
    /// The data directory's flag is up.
    raised: bool,
    /// Why this process is not the writer any more.
    lost: Option<String>,
}

/// The holder's part of a [`WriterLock`]: dropping it gives the lock up.
#[derive(Debug)]
pub(super) struct HeldLock(pub(super) Arc<WriterLock>);

impl StorageLock for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// A flag of the data directory that its writer has raised.
#[derive(Debug)]
pub(super) struct WriterFlag(Arc<WriterLock>);

impl StorageLock for WriterFlag {}

impl Drop for WriterFlag {
    fn drop(&mut self) {
        self.0.lower_flag();
    }
}

impl WriterLock {
    /// Takes the lock of the data directory `root`, whose lock file is called `name` and is created with `mode`.
    pub(super) fn take(root: &Path, name: &str, mode: u32) -> io::Result<Arc<WriterLock>> {
        let path = root.join(name);
        let file = lock_file(&path, mode)?;
        // For others alone: a full disk must not keep the store from opening.
        let _ = write_holder(&file.file, RECOVERING);
        let directory = if bug(Bug::LockOnlyTheName) { None } else { lock_directory(root, &file)? };
        let state = Mutex::new(State { file: Some(file), raised: false, lost: None });
        let lock = WriterLock { root: root.to_owned(), path, mode, process: ForkGuard::here(), directory, state };
        if let Some(directory) = &lock.directory {
            flock(&directory.file, FlockOperation::NonBlockingLockShared)?;
        }
        lock.check()?;
        Ok(Arc::new(lock))
    }

    /// Returns where this process is the one writer of the directory that has the data directory's name.
    ///
    /// Where the name of `.lock` is gone, it is made and locked again.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.process.forked() || bug(Bug::LockOnlyTheName) {
            return Ok(());
        }
        let mut state = self.state.lock();
        if let Some(reason) = &state.lost {
            return Err(io::Error::other(reason.clone()));
        }
        let checked = self.look(&mut state);
        if let Err(error) = &checked {
            state.lost = Some(error.to_string());
        }
        checked
    }

    fn look(&self, state: &mut State) -> io::Result<()> {
        let Some(file) = &state.file else { return Ok(()) };
        if let Some(directory) = &self.directory {
            match Status::of_target(&self.root) {
                Ok(there) if directory.is(&there) => {}
                Ok(_) => {
                    let text = format!("another directory has taken the data directory's name {WHILE_IN_USE}");
                    return Err(io::Error::other(text));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(io::Error::other(format!("the data directory was moved or removed {WHILE_IN_USE}")));
                }
                // A disk that answers for neither: what is written next learns that by itself.
                Err(_) => return Ok(()),
            }
        }
        if file.has_name(&self.path) {
            return Ok(());
        }
        let other = format!("the lock file was removed {WHILE_IN_USE}, and another process has locked a new one");
        for _ in 0..RETAKE_TRIES {
            match lock_file(&self.path, self.mode) {
                Ok(file) => {
                    let _ = write_holder(&file.file, "");
                    let path = self.path.display().to_string();
                    events::emit(move || tracing::warn!(path, "the lock file was removed; made and locked again"));
                    state.file = Some(file);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETAKE_PAUSE),
                // No room for a name, or no permission to make one: the directory's own lock still keeps others out.
                Err(_) if self.directory.is_some() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(other))
    }

    /// Whether the data directory itself is locked.
    pub(super) fn locks_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Raises the data directory's flag.
    pub(super) fn raise_flag(self: &Arc<Self>) -> io::Result<WriterFlag> {
        let Some(directory) = &self.directory else { return Err(io::ErrorKind::Unsupported.into()) };
        if std::mem::replace(&mut self.state.lock().raised, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let flag = WriterFlag(Arc::clone(self));
        let raised = try_often(&directory.file, FlockOperation::NonBlockingLockExclusive);
        if raised.is_err() {
            // The attempts have cost the shared lock.
            let _ = flock(&directory.file, FlockOperation::NonBlockingLockShared);
        }
        // Meanwhile another process may have come in: it has a `.lock` of its own then.
        self.check()?;
        raised?;
        let state = self.state.lock();
        let file = state.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // Where this cannot be written, the flag is not believed: attached processes go by the checkpoint.
        let _ = write_holder(&file.file, "");
        drop(state);
        Ok(flag)
    }

    fn lower_flag(&self) {
        let Some(directory) = self.directory.as_ref().filter(|_| !self.process.forked()) else { return };
        let mut state = self.state.lock();
        state.raised = false;
        if state.file.is_none() {
            return;
        }
        if let Err(error) = flock(&directory.file, FlockOperation::NonBlockingLockShared) {
            state.lost.get_or_insert(format!("the data directory cannot be locked any more: {error}"));
        }
    }

    /// A forked child shares the locks: they are one open file for the kernel. So they are given up in so many words by
    /// the process that took them, also where children have copies; and a child gives up nothing.
    fn give_up(&self) {
        if self.process.forked() {
            return;
        }
        if let Some(directory) = &self.directory {
            let _ = flock(&directory.file, FlockOperation::Unlock);
        }
        if let Some(file) = self.state.lock().file.take() {
            let _ = flock(&file.file, FlockOperation::Unlock);
        }
    }
}

/// The lock on a directory outside of the data directory, to which a link in it leads. As the data directory's own (2):
/// exclusive while it is taken, shared from then on, exclusive again while the directory's flag is up.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    file: File,
    process: ForkGuard,
}

impl DirectoryLock {
    /// Locks the directory at `path`; `None` where directories cannot be locked.
    pub(super) fn take(path: &Path) -> io::Result<Option<Arc<DirectoryLock>>> {
        let file = open_to_lock(path)?;
        match try_often(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(error) if is_unsupported(&error) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let text = format!("another store is writing the directory that it leads to, {}", path.display());
                return Err(io::Error::new(error.kind(), text));
            }
            Err(error) => return Err(error),
        }
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        Ok(Some(Arc::new(DirectoryLock { file, process: ForkGuard::here() })))
    }

    /// Raises the directory's flag. Where that fails, the lock may be another writer's now: a log whose flag is raised
    /// is not written here any more.
    pub(super) fn raise_flag(self: &Arc<Self>) -> io::Result<DirectoryFlag> {
        try_often(&self.file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(DirectoryFlag(Arc::clone(self)))
    }

    fn change(&self, operation: FlockOperation) {
        if !self.process.forked() {
            let _ = flock(&self.file, operation);
        }
    }
}

/// The holder's part of a [`DirectoryLock`]: dropping it gives the lock up.
#[derive(Debug)]
pub(super) struct HeldDirectory(pub(super) Arc<DirectoryLock>);

impl StorageLock for HeldDirectory {}

impl Drop for HeldDirectory {
    fn drop(&mut self) {
        self.0.change(FlockOperation::Unlock);
    }
}

/// The flag of a locked directory. Dropped before the lock.
#[derive(Debug)]
pub(super) struct DirectoryFlag(Arc<DirectoryLock>);

impl StorageLock for DirectoryFlag {}

impl Drop for DirectoryFlag {
    fn drop(&mut self) {
        self.0.change(FlockOperation::NonBlockingLockShared);
    }
}

/// A file or directory of ours, locked as a flag or by a name of its own.
#[derive(Debug)]
pub(super) struct PlainLock {
    file: File,
    process: ForkGuard,
}

impl PlainLock {
    /// Takes the lock that the file at `path` stands for, which is created with `mode` where it is missing.
    #[cfg(feature = "bridge")]
    pub(super) fn take(path: &Path, mode: u32) -> io::Result<PlainLock> {
        let file = lock_file(path, mode)?.file;
        let _ = write_holder(&file, "");
        Ok(PlainLock { file, process: ForkGuard::here() })
    }

    /// Raises the flag of the file or directory at `path`.
    pub(super) fn raise(path: &Path) -> io::Result<PlainLock> {
        let file = open_to_lock(path)?;
        try_often(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(PlainLock { file, process: ForkGuard::here() })
    }
}

impl StorageLock for PlainLock {}

impl Drop for PlainLock {
    fn drop(&mut self) {
        if !self.process.forked() {
            // Closing the file comes next and says the same, unless a child has a copy.
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

/// Whether the flag of the file or directory at `path` is up; `lock_file` is that of the data directory, where it is
/// this one.
pub(super) fn sees_flag(path: &Path, lock_file: Option<&Path>) -> io::Result<bool> {
    let file = open_to_lock(path)?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(!lock_file.is_some_and(is_recovering)),
        Err(error) => Err(error),
    }
}

/// Whether the lock file at `path` is held.
pub(super) fn is_held(path: &Path) -> bool {
    let file = open_lock_file(path, false, 0);
    file.is_ok_and(|file| {
        let locked = flock(&file, FlockOperation::NonBlockingLockShared);
        locked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    })
}

/// Opens a file or directory for its lock alone: where a pipe has that name, opening it does not wait.
fn open_to_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

fn is_recovering(lock_file: &Path) -> bool {
    let holder = open_lock_file(lock_file, false, 0).map(|file| holder_of(&file));
    holder.is_ok_and(|holder| holder.contains(RECOVERING))
}

/// Opens the lock file at `path`, creates it where it is missing, and locks it; its name stands for it on return.
fn lock_file(path: &Path, mode: u32) -> io::Result<Locked> {
    loop {
        let file = open_lock_file(path, true, mode)?;
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Err(if error.kind() == io::ErrorKind::WouldBlock { held_by(&file) } else { error });
        }
        // A lock file that was removed by hand just now locks nothing.
        let locked = Locked::new(file)?;
        if locked.has_name(path) {
            return Ok(locked);
        }
    }
}

fn open_lock_file(path: &Path, writes: bool, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(writes).create(writes).truncate(false).mode(mode);
    Ok(open_regular(options, path, OFlags::empty())?.0)
}

/// Locks the data directory, where directories can be locked. `lock_file` is its lock file, which this process holds.
fn lock_directory(root: &Path, lock_file: &Locked) -> io::Result<Option<Locked>> {
    let directory = File::open(root)?;
    match try_often(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Locked::new(directory)?)),
        Err(error) if is_unsupported(&error) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let _ = lock_file.file.set_len(0);
            let text = "the data directory is locked by another process, whose lock file was removed";
            Err(io::Error::new(error.kind(), text))
        }
        Err(error) => Err(error),
    }
}

fn try_often(file: &File, operation: FlockOperation) -> io::Result<()> {
    for _ in 0..TRIES {
        match flock(file, operation) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            result => return result,
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn flock(file: &File, operation: FlockOperation) -> io::Result<()> {
    Ok(retry(|| rustix::fs::flock(file, operation))?)
}

/// Whether the file system does not lock directories, or nothing at all.
fn is_unsupported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::BADF | Errno::INVAL))
}

fn write_holder(file: &File, doing: &str) -> io::Result<()> {
    let mut holder = process::id().to_string();
    if !doing.is_empty() {
        holder = format!("{holder} {doing}");
    }
    holder.push('\n');
    file.write_all_at(holder.as_bytes(), 0)?;
    file.set_len(holder.len() as u64)
}

fn holder_of(file: &File) -> String {
    let mut holder = String::new();
    let _ = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
    holder
}

fn held_by(file: &File) -> io::Error {
    let text = match holder_of(file).split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok()) {
        Some(pid) => format!("the data directory is locked by process {pid}"),
        None => "the data directory is locked by another process".to_owned(),
    };
    io::Error::new(io::ErrorKind::WouldBlock, text)
}

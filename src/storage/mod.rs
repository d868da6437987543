//! Floor 1, files: every effect that the engine has on a disk goes through the two traits of this module.
//!
//! The engine never names a file descriptor, a map or a path of the host. It asks a [`Storage`] for names and
//! a [`StorageFile`] for bytes, and that is what lets the same engine run on a directory
//! ([`DirectoryStorage`]), in memory ([`MemoryStorage`]) and on a simulated disk that loses power at every
//! call.
//!
//! # What is durable when
//!
//! Three things become durable separately, as on a POSIX file system, and the engine relies on no more than
//! this:
//!
//! * **bytes and size of a file** after [`StorageFile::flush`] returned `Ok` (writes that it raced with may
//!   be missing);
//! * **a name** (created, renamed, removed) after [`Storage::sync_dir`] of its directory returned `Ok`;
//! * nothing else, ever: a crash may keep any subset of what was not flushed, in units of 512-byte sectors.
//!
//! After a flush failed, the bytes it covered are in an unknown state for good, no matter what a later flush returns.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

mod calls;
mod device;
mod directory;
mod fork;
pub(crate) mod framed;
mod lock;
mod map_budget;
mod mapped_file;
mod memory;
mod nested;
mod open_files;
pub(crate) mod pairs;
pub(crate) mod small_file;
mod status;
#[cfg(test)]
pub(crate) mod tests;

pub use directory::{DirectoryStorage, DirectoryStorageOptions, StoreMode};
pub use memory::MemoryStorage;

pub(crate) use fork::ForkGuard;

/// The name of the lock file inside a data directory.
pub(crate) const LOCK_FILE: &str = ".lock";
/// What is said of a partition's name that [`Storage::leads_nowhere`].
pub(crate) const LEADS_NOWHERE: &str = "it is no directory, or a link that leads to none now; its disk may be away";

/// What [`Storage::read_dir`] returns for one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name inside its directory, without any path.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What [`Storage::metadata`] returns for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMeta {
    /// Length in bytes, reserved room included.
    pub len: u64,
    /// A number that changes when another file takes the name (made of inode number and time of birth, in a
    /// directory).
    pub identity: u64,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading only; writing calls answer `PermissionDenied`.
    Read,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; the file must not exist and is created empty.
    CreateNew,
}

/// A held lock on the whole data directory; dropping it releases the lock.
pub trait StorageLock: Send + Sync + fmt::Debug {}

/// The names of one data directory and the effects on them.
///
/// Paths are relative to the data directory, `/`-separated, at most two components
/// (`"cpu-0/00000000000000000000.log"`); the empty path is the data directory itself. The engine passes only
/// names that it made itself or read by [`read_dir`](Storage::read_dir).
///
/// # Concurrency
/// All calls may come from any thread. The engine never renames or removes a name while another of its
/// threads does so to the same name.
pub trait Storage: Send + Sync + fmt::Debug {
    /// Takes the one lock of the data directory, or says who holds it.
    ///
    /// # Errors
    /// `WouldBlock` where another store holds it; the error's text names the holder's process id where it is
    /// known.
    fn lock(&self) -> io::Result<Box<dyn StorageLock>>;

    /// Returns where the lock that was taken here ([`lock`](Storage::lock)) still keeps every other writer out of the
    /// directory that has the data directory's name; also where none was taken. By default it always does.
    ///
    /// # Errors
    /// What happened to the data directory or to its lock. The answer stays the same; what is written now may
    /// be lost.
    fn check_lock(&self) -> io::Result<()> {
        Ok(())
    }

    /// Lists the names in `dir`, in no particular order; names that are not UTF-8 are left out. In the data directory,
    /// a symbolic link to a directory is that directory; below it, no link is followed.
    ///
    /// # Errors
    /// `NotFound` where there is no such directory; the disk's own.
    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>>;

    /// Whether `dir`, at the top of the data directory, is a link that leads to a directory elsewhere. A storage
    /// without links answers `false`.
    fn is_link(&self, dir: &str) -> bool {
        let _ = dir;
        false
    }

    /// Whether what has the name `dir`, at the top of the data directory, is no directory: a link that leads to none,
    /// as where the disk is away that it leads to, or another file. A storage that holds no such thing answers `false`.
    fn leads_nowhere(&self, dir: &str) -> bool {
        let _ = dir;
        false
    }

    /// What distinguishes the directory `dir` from every other one: the same for two names of one
    /// directory. `None` where no directory has two names, as by default, and where it cannot be known.
    fn directory_id(&self, dir: &str) -> Option<(u64, u64)> {
        let _ = dir;
        None
    }

    /// Takes the lock of the directory to which the link `dir` leads: it stands outside of the data directory, whose
    /// lock does not cover it. `store_file` is the name of a file that stands in every data directory. `None`
    /// where `dir` is no link, and where directories cannot be locked.
    ///
    /// # Errors
    /// `WouldBlock` where another store is writing that directory; also where it stands in another data directory,
    /// whose writer alone may write it.
    fn lock_linked(&self, dir: &str, store_file: &str) -> io::Result<Option<Box<dyn StorageLock>>> {
        let _ = (dir, store_file);
        Ok(None)
    }

    /// Creates one directory. Durable after `sync_dir` of its parent.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken; `NotFound` where its parent is missing; the file system's
    /// own.
    fn create_dir(&self, dir: &str) -> io::Result<()>;

    /// Removes one empty directory. Durable after `sync_dir` of its parent.
    ///
    /// # Errors
    /// `DirectoryNotEmpty`, `NotFound`; the file system's own.
    fn remove_dir(&self, dir: &str) -> io::Result<()>;

    /// Opens or creates a file.
    ///
    /// # Errors
    /// Where the name stands for anything but a regular file (a symbolic link is not followed), what it stands for;
    /// `NotFound` where there is no such file (for [`CreateNew`](Access::CreateNew): no such directory);
    /// `AlreadyExists` where [`CreateNew`](Access::CreateNew) finds the name taken; `IsADirectory`; the
    /// file system's own.
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>>;

    /// Length and identity of the file that has this name now.
    ///
    /// # Errors
    /// `NotFound` where there is no such file.
    fn metadata(&self, path: &str) -> io::Result<FileMeta>;

    /// Gives a file or directory another name, replacing a file that has it. An open [`StorageFile`] goes on
    /// under its new name.
    ///
    /// # Errors
    /// `NotFound` where there is no `from`; the file system's own. Both names are then as they were.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes the name away. Leases of the file stay readable.
    ///
    /// # Errors
    /// `NotFound` where there is no such file; the file system's own.
    fn remove_file(&self, path: &str) -> io::Result<()>;

    /// Makes all names in `dir` durable as they are now.
    ///
    /// # Errors
    /// Those of the disk.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Does what a later call would have to wait for, as where it needed a descriptor that only a flush can free.
    /// Called by housekeeping, now and then; by default there is nothing of that kind.
    fn flush_ahead(&self) {}

    /// Raises the flag of the file or directory `path` (`""`: the data directory), which every process of this machine
    /// sees ([`sees_flag`](Storage::sees_flag)) until the answer is dropped or this process ends. Asks nothing of the
    /// disk, since a flag may say that the disk has failed.
    ///
    /// # Errors
    /// `WouldBlock` where it is up already; `Unsupported` where there are no flags, as by default.
    fn raise_flag(&self, path: &str) -> io::Result<Box<dyn StorageLock>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether the flag of the file or directory `path` is up. By default it never is.
    ///
    /// # Errors
    /// `NotFound` where there is neither; the file system's own.
    fn sees_flag(&self, path: &str) -> io::Result<bool> {
        let _ = path;
        Ok(false)
    }

    /// The directory `dir` below the data directory as a data directory of its own, with its own lock and open for
    /// writing, also where this storage only reads. It is created where it is missing; durable on return. By default
    /// there are none.
    ///
    /// # Errors
    /// `Unsupported`; the file system's own.
    fn nested(&self, dir: &str) -> io::Result<Arc<dyn Storage>> {
        let _ = dir;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sixteen bytes that are the same until the machine (or what stands for it) boots again. All zeros say
    /// that it cannot be known: that is never the same boot.
    fn boot_id(&self) -> [u8; 16];
}

/// One file of a data directory.
///
/// # Concurrency
/// All calls may come from any thread at any time, with two promises from the engine: no two writing calls
/// overlap in their byte ranges, and bytes that were lent are never written again while the lease lives
/// (recovery writes the *same* bytes in place, before anything is lent).
pub trait StorageFile: Send + Sync + fmt::Debug {
    /// Length in bytes, reserved room included.
    ///
    /// # Errors
    /// `NotFound` where the file lost its name and had to be opened again.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes at all.
    ///
    /// # Errors
    /// Those of [`len`](StorageFile::len).
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `position` as far as the file reaches and returns how many bytes that were.
    ///
    /// # Errors
    /// Those of the disk.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `position` by a positioned write (a system call), growing the file where
    /// needed.
    ///
    /// # Errors
    /// `StorageFull` and the disk's own. Any part of the range may then hold any part of the bytes.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `position` through the map where that is safe and the room is reserved, and
    /// by [`write_at`](StorageFile::write_at) where not. Coherent with both ways of reading.
    ///
    /// # Errors
    /// As [`write_at`](StorageFile::write_at).
    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Writes the bytes that are in `range` again, where they are, and past the system's cache where that can be: after
    /// a failed flush the cache may hold them, and take them for written. Not flushed yet.
    ///
    /// # Errors
    /// As [`write_at`](StorageFile::write_at).
    fn rewrite(&self, range: Range<u64>) -> io::Result<()> {
        write_again(self, range)
    }

    /// Lets a file that this process does not write be flushed again after [`flush`](StorageFile::flush) has failed,
    /// which the caller knows to be of the past: its writer has rewritten what that was to cover. Does nothing to a
    /// file that is written here.
    fn forget_failed_flush(&self) {}

    /// Lends `len` bytes at `position` without copying them, or `None` where this file is not read through a
    /// map (by choice, because the bound on mapped bytes is reached, or because the range crosses from
    /// one map window into the next): the caller then copies by [`read_at`](StorageFile::read_at).
    ///
    /// The caller vouches that `position + len` lies inside the file and that these bytes do not change any
    /// more.
    ///
    /// # Errors
    /// The disk's own error where it cannot read the range (found by populating it before it is lent, so
    /// that the host gets an error here and not a SIGBUS later). From then on the file answers `None`.
    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>>;

    /// Makes sure that the bytes `[0, len)` are really allocated, so that writing them cannot fail for lack
    /// of room, and that the file is at least `len` long. New bytes read as zeros.
    ///
    /// # Errors
    /// `StorageFull` (or the quota's error) with the file as it was. `Unsupported` where the file system
    /// cannot reserve.
    fn reserve(&self, len: u64) -> io::Result<()>;

    /// A hint that `range`, which is reserved, reads as zeros and is not written by another caller meanwhile, is about
    /// to be written through the map. May write zeros there, so that its pages are in memory when the writer comes; may
    /// do nothing.
    fn prepare(&self, range: Range<u64>);

    /// A hint that `range`, which is written and will not be written again, should go to the disk now: a flush has
    /// less to wait for then. Does not wait for it, and makes nothing durable; may do nothing, as by default.
    fn start_write_back(&self, range: Range<u64>) {
        let _ = range;
    }

    /// Cuts or extends the file to `len`; reserved room behind it is given back.
    ///
    /// The caller vouches that nothing at or behind `len` is lent.
    ///
    /// # Errors
    /// Those of the file system.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Returns once bytes and size, as they were when the call began, are durable, no matter which process wrote them:
    /// a handle for reading flushes what another process of this machine has written.
    ///
    /// # Errors
    /// Once it answered an error, every later flush of this handle, and of any other handle of the same file,
    /// answers that error too, until the last of them is dropped. Also an error, where the file was opened for writing:
    /// that its name does not lead to it any more ([`check_place`](StorageFile::check_place)).
    fn flush(&self) -> io::Result<()>;

    /// Returns where the name under which the file was opened, or that it was given since, leads to this file; also
    /// where a call of its storage has taken the name away. By default that is always so.
    ///
    /// # Errors
    /// What was written may be found by no reader: another program has moved, replaced or removed the file or its
    /// directory.
    fn check_place(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Removes a file, where there is one.
pub(crate) fn remove_if_there(storage: &dyn Storage, path: &str) -> io::Result<()> {
    match storage.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the bytes in `range` again by a file's own `read_at` and `write_at`.
fn write_again<F: StorageFile + ?Sized>(file: &F, range: Range<u64>) -> io::Result<()> {
    const PIECE_BYTES: u64 = 256 << 10;
    let mut piece = vec![0; PIECE_BYTES.min(range.end.saturating_sub(range.start)) as usize];
    let mut at = range.start;
    while at < range.end {
        let wanted = piece.len().min((range.end - at) as usize);
        let read = file.read_at(&mut piece[..wanted], at)?;
        if read == 0 {
            break;
        }
        file.write_at(&piece[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Where leased bytes live; implemented by each storage for its map windows.
pub trait Region: Send + Sync {
    /// The bytes of `range`, which lies inside what was lent.
    fn bytes(&self, range: Range<usize>) -> &[u8];
}

impl Region for Vec<u8> {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self[range]
    }
}

/// Counted, borrowed bytes: they stay valid and unchanged for as long as any clone lives, also after the file
/// was removed or its handle dropped.
#[derive(Clone)]
pub struct Lease {
    region: Arc<dyn Region>,
    range: Range<usize>,
}

impl Lease {
    /// A lease of `range` of `region`.
    pub fn new(region: Arc<dyn Region>, range: Range<usize>) -> Lease {
        Lease { region, range }
    }

    /// A lease of a part of this one.
    #[must_use]
    pub fn slice(&self, part: Range<usize>) -> Lease {
        assert!(part.start <= part.end && part.end <= self.range.len(), "a slice lies inside its lease");
        Lease { region: Arc::clone(&self.region), range: self.range.start + part.start..self.range.start + part.end }
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.region.bytes(self.range.clone())
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("len", &self.range.len()).finish_non_exhaustive()
    }
}

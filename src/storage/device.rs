//! What the file system is that a file lies on: how files are written there, and whether a store may be.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::calls::retry;

// What statfs answers on ext4 (and ext2 and ext3, which cannot reserve).
const EXT4_MAGIC: u32 = 0xEF53;
const XFS_MAGIC: u32 = 0x5846_5342;
const F2FS_MAGIC: u32 = 0xF2F5_2010;
const TMPFS_MAGIC: u32 = 0x0102_1994;
const MSDOS_MAGIC: u32 = 0x4D44;
const EXFAT_MAGIC: u32 = 0x2011_BAB0;

/// A file system that files of a data directory are on: its own, and those of partitions that are linked from it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) stores_through_maps: bool,
    pub(super) cannot_reserve: AtomicBool,
    /// Its name, where a store on it cannot keep what it promises.
    unsafe_name: Option<&'static str>,
}

impl Device {
    /// Looks at the file system of `file`, which lies in `directory` or is that.
    ///
    /// Files are written through maps where `stores` says so, or where it says nothing and that is safe here.
    pub(super) fn look(file: &File, directory: &Path, stores: Option<bool>, read_only: bool) -> io::Result<Device> {
        let kind = rustix::fs::fstatfs(file)?.f_type as u32;
        let stores_through_maps = stores.unwrap_or_else(|| match kind {
            EXT4_MAGIC | F2FS_MAGIC | TMPFS_MAGIC => true,
            XFS_MAGIC => !read_only && !shares_blocks(directory),
            _ => false,
        });
        let unsafe_name = unsafe_file_system(kind);
        Ok(Device { stores_through_maps, cannot_reserve: AtomicBool::new(false), unsafe_name })
    }

    #[cfg(test)]
    pub(super) fn of_kind(kind: u32) -> Device {
        let unsafe_name = unsafe_file_system(kind);
        Device { stores_through_maps: false, cannot_reserve: AtomicBool::new(true), unsafe_name }
    }

    /// Returns where a store may be written on this file system.
    pub(super) fn check_safe(&self) -> io::Result<()> {
        let Some(name) = self.unsafe_name else { return Ok(()) };
        let text = format!(
            "a store cannot be written on {name}: this file system has no journal, so a power cut in a rename or while \
             a file grows may lose files that were flushed before; ext4, xfs, btrfs and f2fs are safe"
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }
}

/// The name of a file system that keeps too little over a power cut. On FAT and exFAT a rename and the growth of a file
/// change several sectors, in any order and without a journal, a file has no inode that lasts, and to replace a file
/// is no single step.
fn unsafe_file_system(kind: u32) -> Option<&'static str> {
    match kind {
        MSDOS_MAGIC => Some("vfat"),
        EXFAT_MAGIC => Some("exfat"),
        _ => None,
    }
}

/// Whether files on this file system can be made to share blocks: a plain `cp` of a live file does that, and
/// from then on a store into room that was allocated needs new room, which a full disk answers with SIGBUS.
/// When in doubt, they can.
fn shares_blocks(root: &Path) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let Ok(nameless) = retry(|| rustix::fs::open(root, flags, Mode::RUSR | Mode::WUSR)) else { return true };
    // A file shares its blocks with itself already: where sharing is known, this changes nothing.
    !matches!(rustix::fs::ioctl_ficlone(&nameless, &nameless), Err(Errno::OPNOTSUPP | Errno::NOTTY))
}

//! System calls of this floor, with all that belongs to one call.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::status::{Status, not_regular};

/// Calls again what a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// How many descriptors one storage may keep: half of what the process may open (`RLIMIT_NOFILE`, which is not raised).
/// The other half is the host's.
pub(super) fn descriptors_max() -> usize {
    let limit =
        getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    (limit / 2).max(1)
}

/// Opens the regular file at `path`. A symbolic link there is not followed, and a FIFO or a device is not waited for:
/// each is an error that says what is there.
pub(super) fn open_regular(mut options: OpenOptions, path: &Path, flags: OFlags) -> io::Result<(File, Status)> {
    options.custom_flags((flags | OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    let file = match options.open(path) {
        Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
            return Err(not_regular("symbolic link"));
        }
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            return Err(not_regular("socket or a device"));
        }
        file => file?,
    };
    let status = Status::of(&file)?;
    if status.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    status.check_kind()?;
    Ok((file, status))
}

/// Makes the names in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = File::open(directory)?;
    match retry(|| rustix::fs::fsync(&directory)) {
        // A file system that does not sync directories has no better answer to give, now or later.
        Err(Errno::INVAL) => Ok(()),
        result => Ok(result?),
    }
}

/// The permissions of a directory whose files have `mode`: who may read may enter.
pub(super) fn directory_mode(mode: u32) -> u32 {
    mode | (mode & 0o444) >> 2
}

/// Creates `directory`, with these permissions, and those above it, each one durable before it returns, and adds those
/// that were not there to `created`.
pub(super) fn create_durably(directory: &Path, mode: Option<u32>, created: &mut Vec<PathBuf>) -> io::Result<()> {
    let create = || {
        let mut builder = fs::DirBuilder::new();
        if let Some(mode) = mode {
            builder.mode(mode);
        }
        builder.create(directory)
    };
    match create() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(parent) = directory.parent() else { return Err(error) };
            create_durably(parent, None, created)?;
            match create() {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        // A read-only file system says so before it says that the directory is there.
        Err(_) if directory.is_dir() => return Ok(()),
        Err(error) => return Err(error),
    }
    created.push(directory.to_owned());
    directory.parent().map_or(Ok(()), sync_directory)
}

/// As far as the file reaches.
pub(super) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(super) fn write_all_at(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write_at(&bytes[written..], position + written as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(wrote) => written += wrote,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The kernel's number of this boot; zeros where it has none.
pub(super) fn boot_id() -> [u8; 16] {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| parse_uuid(text.trim()))
        .unwrap_or_default()
}

/// The sixteen bytes of a UUID, with or without its dashes.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

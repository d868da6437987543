//! System calls that more than one file of this floor makes.

use std::fs::{File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Calls again what a signal interrupted.
pub(super) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens the regular file at `path`. A symbolic link there is not followed, and a FIFO or a device is not waited for:
/// each is an error that says what is there.
pub(super) fn open_regular(mut options: OpenOptions, path: &Path, flags: OFlags) -> io::Result<File> {
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
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    check_kind(kind)?;
    Ok(file)
}

/// Returns where a name stands for a regular file or a directory.
///
/// # Errors
/// What else it stands for.
pub(super) fn check_kind(kind: FileType) -> io::Result<()> {
    if kind.is_file() || kind.is_dir() {
        return Ok(());
    }
    let name = match () {
        () if kind.is_symlink() => "symbolic link",
        () if kind.is_fifo() => "FIFO",
        () if kind.is_socket() => "socket",
        () => "device",
    };
    Err(not_regular(name))
}

fn not_regular(what: &str) -> io::Error {
    io::Error::other(format!("it is a {what}, and not a regular file"))
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

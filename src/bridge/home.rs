//! The data directory as a bridge has it: the lock of the one bridge that works there, and whether the directory is
//! still the one that was locked.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{BridgeError, Result};
use crate::error::Error;
use crate::storage::{DirectoryStorage, DirectoryStorageOptions, Storage, StorageLock};

/// Held for as long as a bridge works for a store.
const LOCK_FILE: &str = ".bridge.lock";

#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    storage: Arc<dyn Storage>,
    /// Device and inode of the lock's file.
    locked: Option<(u64, u64)>,
    _lock: Box<dyn StorageLock>,
}

impl Home {
    /// Locks the data directory `dir` for one bridge.
    pub(super) fn open(dir: &Path) -> Result<Home> {
        let name = dir.display().to_string();
        let opened = DirectoryStorage::open(dir, DirectoryStorageOptions::default());
        let storage = opened.map_err(Error::storage("open data directory", &name))?;
        let lock = storage.lock_file(LOCK_FILE).map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => BridgeError::Locked(source),
            _ => BridgeError::Note { operation: "lock", file: LOCK_FILE.to_owned(), source },
        })?;
        let locked = identity_of(dir);
        Ok(Home { dir: dir.to_owned(), storage: Arc::new(storage), locked, _lock: lock })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files in it.
    pub(super) fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.storage)
    }

    /// Whether the files that are locked and written here do not stand in the directory of this name any more: it was
    /// removed and made again.
    pub(super) fn is_replaced(&self) -> bool {
        identity_of(&self.dir) != self.locked
    }
}

fn identity_of(dir: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(dir.join(LOCK_FILE)).ok().map(|there| (there.dev(), there.ino()))
}

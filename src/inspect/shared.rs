//! A storage that several owners share, as a storage.

use std::io;
use std::sync::Arc;

use crate::storage::{Access, DirEntry, FileMeta, Storage, StorageFile, StorageLock};

/// Hands every call on.
#[derive(Debug, Clone)]
pub(super) struct SharedStorage(pub(super) Arc<dyn Storage>);

impl Storage for SharedStorage {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        self.0.lock()
    }

    fn check_lock(&self) -> io::Result<()> {
        self.0.check_lock()
    }

    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(dir)
    }

    fn is_link(&self, dir: &str) -> bool {
        self.0.is_link(dir)
    }

    fn leads_nowhere(&self, dir: &str) -> bool {
        self.0.leads_nowhere(dir)
    }

    fn directory_id(&self, dir: &str) -> Option<(u64, u64)> {
        self.0.directory_id(dir)
    }

    fn lock_linked(&self, dir: &str, store_file: &str) -> io::Result<Option<Box<dyn StorageLock>>> {
        self.0.lock_linked(dir, store_file)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.0.remove_dir(dir)
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.0.open(path, access)
    }

    fn raise_flag(&self, path: &str) -> io::Result<Box<dyn StorageLock>> {
        self.0.raise_flag(path)
    }

    fn sees_flag(&self, path: &str) -> io::Result<bool> {
        self.0.sees_flag(path)
    }

    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        self.0.metadata(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn boot_id(&self) -> [u8; 16] {
        self.0.boot_id()
    }
}

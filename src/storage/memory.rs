//! A data directory in memory, for tests: of this package, and of the programs that use it.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Range;
use std::process;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Access, DirEntry, FileMeta, Lease, Storage, StorageFile, StorageLock};

/// A data directory in memory. Clones share it, so a store can be closed and opened again on what it left
/// behind.
///
/// Everything that is written is durable at once: this is a disk for testing what a program does, not what a
/// power cut does.
#[derive(Clone)]
pub struct MemoryStorage {
    disk: Arc<Disk>,
    /// The directory that is the data directory here, with its slash; empty: all of the disk.
    root: String,
}

struct Disk {
    boot_id: [u8; 16],
    room: Arc<Room>,
    names: Mutex<Names>,
}

struct Names {
    nodes: BTreeMap<String, Node>,
    next_identity: u64,
    /// The data directories that are locked.
    locked: BTreeSet<String>,
    /// The directories whose flags are up.
    flags: BTreeSet<String>,
}

#[derive(Clone)]
enum Node {
    Directory,
    File(Arc<Content>),
}

impl MemoryStorage {
    /// An empty disk without bounds.
    pub fn new() -> Self {
        Self::with_capacity(u64::MAX)
    }

    /// An empty disk that is full (`StorageFull`) when its files, those too that are removed but still open,
    /// have `bytes` in all.
    pub fn with_capacity(bytes: u64) -> Self {
        let mut boot_id = [0; 16];
        for half in boot_id.chunks_exact_mut(8) {
            half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
        }
        Self {
            root: String::new(),
            disk: Arc::new(Disk {
                boot_id,
                room: Arc::new(Room { bytes_max: bytes, bytes_used: Mutex::new(0) }),
                names: Mutex::new(Names {
                    nodes: BTreeMap::new(),
                    next_identity: 1,
                    locked: BTreeSet::new(),
                    flags: BTreeSet::new(),
                }),
            }),
        }
    }

    /// The name on the whole disk of a path in this data directory.
    fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match self.root.strip_suffix('/') {
            None => Cow::Borrowed(path),
            Some(root) if path.is_empty() => Cow::Owned(root.to_owned()),
            Some(_) => Cow::Owned(format!("{}{path}", self.root)),
        }
    }

    /// Bytes in all files, those too that are removed but still open.
    pub fn bytes_used(&self) -> u64 {
        *self.disk.room.bytes_used.lock()
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").field("bytes_used", &self.bytes_used()).finish_non_exhaustive()
    }
}

impl Names {
    fn node(&self, path: &str) -> io::Result<Node> {
        if path.is_empty() {
            return Ok(Node::Directory);
        }
        self.check_parent(path)?;
        self.nodes.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn check_parent(&self, path: &str) -> io::Result<()> {
        if path.split('/').any(|name| matches!(name, "" | "." | "..")) || path.contains('\0') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match path.rsplit_once('/') {
            None => Ok(()),
            Some((parent, _)) => match self.nodes.get(parent) {
                Some(Node::Directory) => Ok(()),
                Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }

    fn file(&self, path: &str) -> io::Result<Arc<Content>> {
        match self.node(path)? {
            Node::File(content) => Ok(content),
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn check_directory(&self, path: &str) -> io::Result<()> {
        match self.node(path)? {
            Node::Directory => Ok(()),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The paths below `dir`, each with what follows `dir` and its slash.
    fn below<'a>(&'a self, dir: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.nodes.keys().filter_map(move |path| {
            let rest = if dir.is_empty() { path } else { path.strip_prefix(dir)?.strip_prefix('/')? };
            Some((path.as_str(), rest))
        })
    }
}

impl Storage for MemoryStorage {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        let mut names = self.disk.names.lock();
        if names.locked.contains(&self.root) {
            let text = format!("the data directory is locked by process {}", process::id());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        names.locked.insert(self.root.clone());
        Ok(Box::new(MemoryLock { disk: Arc::clone(&self.disk), root: self.root.clone() }))
    }

    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        let dir = &*self.path(dir);
        let names = self.disk.names.lock();
        names.check_directory(dir)?;
        Ok(names
            .below(dir)
            .filter(|(_, name)| !name.contains('/'))
            .map(|(path, name)| DirEntry {
                name: name.to_owned(),
                is_dir: matches!(names.nodes[path], Node::Directory),
            })
            .collect())
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let dir = &*self.path(dir);
        let mut names = self.disk.names.lock();
        if names.node(dir).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.check_parent(dir)?;
        names.nodes.insert(dir.to_owned(), Node::Directory);
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let dir = &*self.path(dir);
        let mut names = self.disk.names.lock();
        names.check_directory(dir)?;
        if dir.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if names.below(dir).next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        names.nodes.remove(dir);
        Ok(())
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        let path = &*self.path(path);
        let mut names = self.disk.names.lock();
        let content = if access == Access::CreateNew {
            if names.node(path).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            names.check_parent(path)?;
            let identity = names.next_identity;
            names.next_identity += 1;
            let content =
                Arc::new(Content { identity, bytes: RwLock::new(Vec::new()), room: Arc::clone(&self.disk.room) });
            names.nodes.insert(path.to_owned(), Node::File(Arc::clone(&content)));
            content
        } else {
            names.file(path)?
        };
        Ok(Arc::new(MemoryFile { content, writes: access != Access::Read }))
    }

    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        match self.disk.names.lock().node(&self.path(path))? {
            Node::File(content) => Ok(FileMeta { len: content.len(), identity: content.identity }),
            Node::Directory => Ok(FileMeta { len: 0, identity: 0 }),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (&*self.path(from), &*self.path(to));
        let mut names = self.disk.names.lock();
        let node = names.node(from)?;
        names.check_parent(to)?;
        if from == to {
            return Ok(());
        }
        match (&node, names.nodes.get(to)) {
            (_, None) | (Node::File(_), Some(Node::File(_))) => {}
            (Node::File(_), Some(Node::Directory)) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Directory, Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (Node::Directory, Some(Node::Directory)) if names.below(to).next().is_none() => {}
            (Node::Directory, Some(Node::Directory)) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
        }
        if matches!(node, Node::Directory) && to.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let moved: Vec<_> = names.below(from).map(|(path, rest)| (path.to_owned(), format!("{to}/{rest}"))).collect();
        for (old, new) in moved {
            if let Some(node) = names.nodes.remove(&old) {
                names.nodes.insert(new, node);
            }
        }
        names.nodes.remove(from);
        names.nodes.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        let path = &*self.path(path);
        let mut names = self.disk.names.lock();
        names.file(path)?;
        names.nodes.remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.names.lock().check_directory(&self.path(dir))
    }

    fn raise_flag(&self, path: &str) -> io::Result<Box<dyn StorageLock>> {
        let path = &*self.path(path);
        let mut names = self.disk.names.lock();
        names.node(path)?;
        if !names.flags.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryFlag { disk: Arc::clone(&self.disk), path: path.to_owned() }))
    }

    fn sees_flag(&self, path: &str) -> io::Result<bool> {
        let path = &*self.path(path);
        let names = self.disk.names.lock();
        names.node(path)?;
        Ok(names.flags.contains(path))
    }

    fn nested(&self, dir: &str) -> io::Result<Arc<dyn Storage>> {
        let dir = self.path(dir);
        let mut names = self.disk.names.lock();
        for (at, _) in dir.match_indices('/').chain([(dir.len(), "")]) {
            let outer = &dir[..at];
            if names.node(outer).is_ok() {
                names.check_directory(outer)?;
            } else {
                names.check_parent(outer)?;
                names.nodes.insert(outer.to_owned(), Node::Directory);
            }
        }
        Ok(Arc::new(MemoryStorage { disk: Arc::clone(&self.disk), root: dir.into_owned() + "/" }))
    }

    fn boot_id(&self) -> [u8; 16] {
        self.disk.boot_id
    }
}

struct MemoryLock {
    disk: Arc<Disk>,
    root: String,
}

impl StorageLock for MemoryLock {}

impl fmt::Debug for MemoryLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryLock")
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.disk.names.lock().locked.remove(&self.root);
    }
}

struct MemoryFlag {
    disk: Arc<Disk>,
    path: String,
}

impl StorageLock for MemoryFlag {}

impl fmt::Debug for MemoryFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFlag").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Drop for MemoryFlag {
    fn drop(&mut self) {
        self.disk.names.lock().flags.remove(&self.path);
    }
}

/// How much of the disk is used.
struct Room {
    bytes_max: u64,
    bytes_used: Mutex<u64>,
}

/// The bytes of one file, under any name and with any number of handles.
struct Content {
    identity: u64,
    bytes: RwLock<Vec<u8>>,
    room: Arc<Room>,
}

impl Content {
    fn len(&self) -> u64 {
        self.bytes.read().len() as u64
    }

    /// Makes `bytes`, which are this file's, `len` long.
    fn resize(&self, bytes: &mut Vec<u8>, len: u64) -> io::Result<()> {
        {
            let mut used = self.room.bytes_used.lock();
            let wanted = (*used - bytes.len() as u64).saturating_add(len);
            if wanted > self.room.bytes_max && wanted > *used {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let Ok(len) = usize::try_from(len) else { return Err(io::ErrorKind::FileTooLarge.into()) };
            if len > bytes.len() && bytes.try_reserve(len - bytes.len()).is_err() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *used = wanted;
        }
        bytes.resize(len as usize, 0);
        Ok(())
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        *self.room.bytes_used.lock() -= self.bytes.get_mut().len() as u64;
    }
}

/// A handle of a file: the file, and what the holder may do with it.
struct MemoryFile {
    content: Arc<Content>,
    writes: bool,
}

impl MemoryFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writes { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile").field("identity", &self.content.identity).finish_non_exhaustive()
    }
}

impl StorageFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = self.content.bytes.read();
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
        let len = buffer.len().min(bytes.len() - start);
        buffer[..len].copy_from_slice(&bytes[start..start + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.check_writable()?;
        let Some(end) = position.checked_add(bytes.len() as u64) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let mut content = self.content.bytes.write();
        if end > content.len() as u64 {
            self.content.resize(&mut content, end)?;
        }
        content[position as usize..end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_at(bytes, position)
    }

    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>> {
        let bytes = self.content.bytes.read();
        let Ok(start) = usize::try_from(position) else { return Ok(None) };
        let Some(lent) = start.checked_add(len).and_then(|end| bytes.get(start..end)) else { return Ok(None) };
        Ok(Some(Lease::new(Arc::new(lent.to_vec()), 0..len)))
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut bytes = self.content.bytes.write();
        if len > bytes.len() as u64 { self.content.resize(&mut bytes, len) } else { Ok(()) }
    }

    /// Takes the caller's promise at its word, so that a caller that breaks it is seen.
    fn prepare(&self, range: Range<u64>) {
        let _ = self.write_at(&vec![0; (range.end - range.start) as usize], range.start);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.content.resize(&mut self.content.bytes.write(), len)
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

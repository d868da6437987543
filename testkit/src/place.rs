//! Where a test opens its stores, and with which options.

use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{Store, StoreOptions};

use super::temp_dir::TempDir;

/// Somewhere to open a store again and again.
pub enum Place {
    Directory(TempDir, &'static str),
    Memory(MemoryStorage),
}

impl Place {
    /// A directory in each way of storing, and memory.
    pub fn all() -> Vec<Place> {
        let directory = |mode| Place::Directory(TempDir::new(), mode);
        vec![directory("auto"), directory("map"), directory("file"), Place::Memory(MemoryStorage::new())]
    }

    /// How this place is named when a test fails.
    pub fn name(&self) -> &str {
        match self {
            Place::Directory(_, mode) => mode,
            Place::Memory(_) => "memory",
        }
    }

    pub fn open(&self, options: StoreOptions) -> Store {
        match self {
            Place::Directory(dir, mode) => options.set("edgelog.storage", mode).unwrap().open(dir.path()).unwrap(),
            Place::Memory(storage) => options.open_on(storage.clone()).unwrap(),
        }
    }

    /// As another process that only reads.
    pub fn attach(&self, options: StoreOptions) -> Store {
        match self {
            Place::Directory(dir, mode) => options.set("edgelog.storage", mode).unwrap().attach(dir.path()).unwrap(),
            Place::Memory(storage) => options.attach_on(storage.clone()).unwrap(),
        }
    }

    /// Names and bytes of the files in the partition directory `dir` that end in `ending`, by name.
    pub fn files(&self, dir: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = match self {
            Place::Directory(root, _) => std::fs::read_dir(root.path().join(dir))
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
                .collect(),
            Place::Memory(storage) => {
                let read = |name: String| {
                    let file = storage.open(&format!("{dir}/{name}"), Access::Read).unwrap();
                    let mut bytes = vec![0; file.len().unwrap() as usize];
                    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
                    (name, bytes)
                };
                storage.read_dir(dir).unwrap().into_iter().map(|entry| read(entry.name)).collect()
            }
        };
        files.retain(|(name, _)| name.ends_with(ending));
        files.sort();
        files
    }
}

/// The options of a store whose housekeeping is the test's own.
pub fn ticking() -> StoreOptions {
    Store::options().set("edgelog.housekeeping", "tick").unwrap()
}

//! What several integration tests share.

#![allow(dead_code)] // each test binary uses some of it

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edgelog::edgelog_core::RecordBatch;
use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{Store, StoreOptions};

/// A directory of one test's own, removed when the test ends well.
pub(crate) struct TempDir {
    path: PathBuf,
    removed_anyway: bool,
}

impl TempDir {
    pub(crate) fn new() -> TempDir {
        TempDir::make(&std::env::temp_dir(), false)
    }

    /// In another directory than the system's own, whose room others need: removed however the test ends.
    pub(crate) fn below(parent: &Path) -> TempDir {
        TempDir::make(parent, true)
    }

    fn make(parent: &Path, removed_anyway: bool) -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("edgelog-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir { path, removed_anyway }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if self.removed_anyway || !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Somewhere to open a store again and again.
pub(crate) enum Place {
    Directory(TempDir, &'static str),
    Memory(MemoryStorage),
}

impl Place {
    /// A directory in each way of storing, and memory.
    pub(crate) fn all() -> Vec<Place> {
        let directory = |mode| Place::Directory(TempDir::new(), mode);
        vec![directory("auto"), directory("map"), directory("file"), Place::Memory(MemoryStorage::new())]
    }

    /// How this place is named when a test fails.
    pub(crate) fn name(&self) -> &str {
        match self {
            Place::Directory(_, mode) => mode,
            Place::Memory(_) => "memory",
        }
    }

    pub(crate) fn open(&self, options: StoreOptions) -> Store {
        match self {
            Place::Directory(dir, mode) => options.set("edgelog.storage", mode).unwrap().open(dir.path()).unwrap(),
            Place::Memory(storage) => options.open_on(storage.clone()).unwrap(),
        }
    }

    /// As another process that only reads.
    pub(crate) fn attach(&self, options: StoreOptions) -> Store {
        match self {
            Place::Directory(dir, mode) => options.set("edgelog.storage", mode).unwrap().attach(dir.path()).unwrap(),
            Place::Memory(storage) => options.attach_on(storage.clone()).unwrap(),
        }
    }

    /// Names and bytes of the files in the partition directory `dir` that end in `ending`, by name.
    pub(crate) fn files(&self, dir: &str, ending: &str) -> Vec<(String, Vec<u8>)> {
        use edgelog::storage::{Access, Storage};
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
pub(crate) fn ticking() -> StoreOptions {
    Store::options().set("edgelog.housekeeping", "tick").unwrap()
}

/// How many bytes at the start of `bytes` are whole batches with good CRCs.
pub(crate) fn batches_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Ok(batch) = RecordBatch::parse(&bytes[at..]) {
        if batch.verify_crc().is_err() {
            break;
        }
        at += batch.size();
    }
    at
}

/// Copies a directory with everything in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Calls `done` until it answers true; fails after a minute with what it waited for.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "a minute has passed: {what}");
        std::thread::yield_now();
    }
}

/// `SplitMix64`: small, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A child process that is killed when it is dropped, or when it takes longer than two minutes.
pub(crate) struct Watched {
    child: Arc<Mutex<Child>>,
    _done: Sender<()>,
}

impl Watched {
    pub(crate) fn new(child: Child) -> Watched {
        let child = Arc::new(Mutex::new(child));
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let watched = Arc::clone(&child);
        std::thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("a child process is killed after two minutes");
                let _ = watched.lock().unwrap().kill();
            }
        });
        Watched { child, _done: done }
    }

    /// What the child prints, line by line.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + use<> {
        let stdout = self.child.lock().unwrap().stdout.take().expect("its standard output is a pipe");
        BufReader::new(stdout).lines().map_while(Result::ok)
    }

    /// Where the child reads from.
    pub(crate) fn stdin(&self) -> ChildStdin {
        self.child.lock().unwrap().stdin.take().expect("its standard input is a pipe")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) -> ExitStatus {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap()
    }

    /// Waits until the child has ended by itself, or by the two minutes.
    pub(crate) fn wait(&self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Runs the test `test` of this binary again, as a child that finds `environment`. Where this binary is another
/// machine's and runs emulated, `EDGELOG_TEST_EMULATOR` says by what.
pub(crate) fn run_again(test: &str, environment: &[(&str, &OsStr)]) -> Watched {
    let this = std::env::current_exe().unwrap();
    let mut command = match std::env::var("EDGELOG_TEST_EMULATOR") {
        Ok(emulator) => {
            let mut words = emulator.split_whitespace();
            let mut command = Command::new(words.next().expect("an emulator has a name"));
            command.args(words).arg(this);
            command
        }
        Err(_) => Command::new(this),
    };
    command.args(["--exact", test, "--include-ignored", "--nocapture", "--test-threads=1"]);
    command.envs(environment.iter().copied());
    Watched::new(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
}

/// A child's line to its parent: on a line of its own, whatever the test runner has begun to print.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").and_then(|()| out.flush()).expect("the parent listens");
}

/// All files of a store, by their paths.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// What a store in memory has.
pub(crate) fn files_of(storage: &MemoryStorage) -> Files {
    let mut files = Files::new();
    for entry in storage.read_dir("").unwrap() {
        let paths = if entry.is_dir {
            let names = storage.read_dir(&entry.name).unwrap();
            names.into_iter().map(|file| format!("{}/{}", entry.name, file.name)).collect()
        } else {
            vec![entry.name]
        };
        for path in paths {
            let file = storage.open(&path, Access::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            files.insert(path, bytes);
        }
    }
    files
}

/// A store in memory with these files.
pub(crate) fn storage_of(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    for (path, bytes) in files {
        if let Some((dir, _)) = path.split_once('/') {
            let _ = storage.create_dir(dir);
        }
        storage.open(path, Access::CreateNew).unwrap().write_at(bytes, 0).unwrap();
    }
    storage
}

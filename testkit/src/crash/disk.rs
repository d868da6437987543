//! A disk that loses power: every effect is recorded, and what a cut may leave behind is made from a snapshot.
//!
//! The rule: each 512-byte sector is, independently, in any state that it has had since its last successful flush. Size
//! changes of a file are kept or lost on their own until it is flushed; each creation, rename and removal of a name is
//! kept or lost on its own until its directory is synced. A sector that held nothing durable may hold garbage.
//!
//! Names, files and sectors are counted references, so a snapshot costs a few hundred counts and each cut is taken from
//! one and not from a replay.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{self, Write as _};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use edgelog::storage::{Access, DirEntry, FileMeta, Lease, Storage, StorageFile, StorageLock};

pub const SECTOR_BYTES: usize = 512;

/// What stands in one sector; `None` is zeros.
type State = Option<Arc<[u8; SECTOR_BYTES]>>;

/// Small, seeded, the same everywhere.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Clone, Default)]
struct Sector {
    cache: State,
    /// What the device may hold, oldest first; empty where that is the cache's state and no other.
    device: Vec<State>,
    /// The next flush writes it.
    dirty: bool,
    /// A flush has written it.
    held: bool,
}

impl Sector {
    fn set(&mut self, new: State) {
        self.dirty = true;
        if new == self.cache {
            return;
        }
        if self.device.is_empty() {
            self.device.push(self.cache.take());
        }
        self.device.push(new.clone());
        self.cache = new;
    }

    fn bytes(&self) -> [u8; SECTOR_BYTES] {
        self.cache.as_ref().map_or([0; SECTOR_BYTES], |bytes| **bytes)
    }
}

/// Names are compared as they are: the store writes them itself.
pub fn has_ending(path: &str, ending: &str) -> bool {
    path.ends_with(ending)
}

fn state_of(bytes: &[u8; SECTOR_BYTES]) -> State {
    if *bytes == [0; SECTOR_BYTES] { None } else { Some(Arc::new(*bytes)) }
}

/// One file, which may have several names or none.
#[derive(Debug, Clone, Default)]
struct Inode {
    len: u64,
    /// Sizes that the device may know, oldest first; empty where that is `len` alone.
    lens: Vec<u64>,
    sectors: Vec<Sector>,
    /// A flush failed, and these processes still have a handle from then.
    failed: BTreeSet<u32>,
}

impl Inode {
    fn set_len(&mut self, len: u64) {
        if len == self.len {
            return;
        }
        if self.lens.is_empty() {
            self.lens.push(self.len);
        }
        self.lens.push(len);
        if len < self.len {
            let keep = (len as usize).div_ceil(SECTOR_BYTES);
            let tail = len as usize % SECTOR_BYTES;
            for (at, sector) in self.sectors.iter_mut().enumerate().skip(keep.saturating_sub(1)) {
                if at >= keep {
                    sector.set(None);
                } else if tail != 0 {
                    let mut bytes = sector.bytes();
                    bytes[tail..].fill(0);
                    sector.set(state_of(&bytes));
                }
            }
        }
        self.len = len;
        let needed = (len as usize).div_ceil(SECTOR_BYTES);
        if self.sectors.len() < needed {
            self.sectors.resize(needed, Sector::default());
        }
    }

    /// `in_between`: each sector is also seen half written, as by a page that is written back between two stores.
    fn write(&mut self, bytes: &[u8], position: u64, in_between: bool) {
        let end = position + bytes.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        let mut at = position as usize;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (index, from) = (at / SECTOR_BYTES, at % SECTOR_BYTES);
            let len = rest.len().min(SECTOR_BYTES - from);
            let sector = &mut self.sectors[index];
            let mut whole = sector.bytes();
            if in_between && len > 1 {
                // Some place inside that depends on where it is, so that seeds replay.
                let half = 1 + (at * 31 + len * 7) % (len - 1);
                whole[from..from + half].copy_from_slice(&rest[..half]);
                sector.set(state_of(&whole));
            }
            whole[from..from + len].copy_from_slice(&rest[..len]);
            sector.set(state_of(&whole));
            rest = &rest[len..];
            at += len;
        }
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> usize {
        let start = position.min(self.len) as usize;
        let len = buffer.len().min(self.len as usize - start);
        let mut done = 0;
        while done < len {
            let (index, from) = ((start + done) / SECTOR_BYTES, (start + done) % SECTOR_BYTES);
            let piece = (len - done).min(SECTOR_BYTES - from);
            let target = &mut buffer[done..done + piece];
            match &self.sectors[index].cache {
                Some(bytes) => target.copy_from_slice(&bytes[from..from + piece]),
                None => target.fill(0),
            }
            done += piece;
        }
        len
    }

    /// Up to `len` bytes at `position`.
    fn bytes(&self, position: u64, len: usize) -> Vec<u8> {
        let start = position.min(self.len) as usize;
        let len = len.min(self.len as usize - start);
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let (index, from) = ((start + bytes.len()) / SECTOR_BYTES, (start + bytes.len()) % SECTOR_BYTES);
            let piece = (len - bytes.len()).min(SECTOR_BYTES - from);
            match &self.sectors[index].cache {
                Some(sector) => bytes.extend_from_slice(&sector[from..from + piece]),
                None => bytes.resize(bytes.len() + piece, 0),
            }
        }
        bytes
    }

    fn flush(&mut self, quirks: Quirks) {
        if quirks.flush_loses_size {
            // Sectors behind the size that the device knows stay ambiguous with it.
        } else {
            self.lens.clear();
            self.sectors.truncate((self.len as usize).div_ceil(SECTOR_BYTES));
        }
        for sector in self.sectors.iter_mut().filter(|sector| sector.dirty) {
            sector.device.clear();
            (sector.dirty, sector.held) = (false, true);
        }
    }

    /// A flush that fails: the cache is clean now and shows the new bytes; the device may have got none of them.
    fn flush_fails(&mut self, holders: BTreeSet<u32>) {
        for sector in &mut self.sectors {
            sector.dirty = false;
        }
        self.failed = holders;
    }

    /// What a flush that failed has left clean in the cache gives its memory back, and is read from the device.
    fn forget_lost(&mut self) {
        for sector in self.sectors.iter_mut().filter(|sector| !sector.dirty) {
            if let Some(oldest) = sector.device.first() {
                sector.cache = oldest.clone();
                sector.device.clear();
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir(u64),
    File(u64),
}

#[derive(Debug, Clone)]
enum NameOp {
    Set(String, Node),
    Remove(String),
    Rename(String, Node),
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            NameOp::Set(name, node) => drop(names.insert(name.clone(), *node)),
            NameOp::Remove(name) => drop(names.remove(name)),
            NameOp::Rename(to, node) => {
                // Wherever a lost rename before this one left it: a file has one name at most.
                names.retain(|_, other| other != node);
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Dir {
    names: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    pending: Vec<NameOp>,
}

/// Ways in which a disk breaks its word: with each of them a search has to find a violation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a lie of its own
pub struct Quirks {
    /// `sync_dir` of the data directory does nothing.
    pub sync_dir_lies: bool,
    /// `flush` does nothing for files whose name ends so.
    pub flush_lies: Option<&'static str>,
    /// A flush makes bytes durable and not the size.
    pub flush_loses_size: bool,
    /// A rewritten sector may be garbage although it held durable bytes.
    pub tears_sectors: bool,
    /// A power cut does not change the boot id, nor a kill keep it: it is always another.
    pub boot_id_always_new: bool,
    /// `truncate` answers and does nothing.
    pub truncate_lies: bool,
    /// `remove_file` answers, and the name is back after every cut.
    pub remove_lies: bool,
}

/// Which calls there are, for faults at every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    ReadDir,
    CreateDir,
    RemoveDir,
    Open,
    Create,
    Metadata,
    Rename,
    Remove,
    SyncDir,
    Len,
    Read,
    Write,
    Lend,
    Reserve,
    Truncate,
    Flush,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No room, once.
    Full,
    /// No room from here on.
    StaysFull,
    /// A reservation that ends half way: the file has grown by a part of what was asked for.
    Short,
    /// The disk refuses, once; a write may have left anything, a flush leaves its pages clean and not written.
    Io,
    /// The disk refuses a flush, once, and answers those of the next process: the cache shows what the device lost.
    Flush,
}

impl Fault {
    pub fn applies_to(self, call: Call) -> bool {
        match self {
            Fault::Full | Fault::StaysFull => {
                matches!(call, Call::CreateDir | Call::Create | Call::Rename | Call::Write | Call::Reserve)
            }
            Fault::Short => call == Call::Reserve,
            Fault::Io => true,
            Fault::Flush => matches!(call, Call::Flush | Call::SyncDir),
        }
    }
}

/// How the image of a cut is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// Nothing that was not flushed.
    AllLost,
    /// Everything, as if the cut had waited for the device.
    AllKept,
    /// Every other sector, size and name.
    Alternate,
    /// All but the newest state of each.
    NewestLost,
    /// The first change of each alone.
    OldestKept,
    /// Bytes and sizes kept, names lost.
    NamesLost,
    /// Names kept, bytes and sizes lost.
    DataLost,
    /// Bytes and names kept, sizes as they were.
    SizesLost,
    /// Sizes and names kept, sectors lost.
    SectorsLost,
    /// Garbage in every sector that held nothing durable.
    Garbage,
    /// By seed.
    Random(u64),
    /// The cache survives: the process was killed and the machine stays up.
    Kill,
}

impl Image {
    pub const CHOSEN: [Image; 10] = [
        Image::AllLost,
        Image::AllKept,
        Image::Alternate,
        Image::NewestLost,
        Image::OldestKept,
        Image::NamesLost,
        Image::DataLost,
        Image::SizesLost,
        Image::SectorsLost,
        Image::Garbage,
    ];
}

/// The disk's whole state; cloning it is a snapshot.
#[derive(Debug, Clone)]
pub struct Core {
    inodes: BTreeMap<u64, Arc<Inode>>,
    dirs: BTreeMap<u64, Arc<Dir>>,
    next_id: u64,
    boot: u64,
    pub quirks: Quirks,
    /// Where its user stands; recorded with each cut.
    pub mark: usize,
    /// Which effect this is.
    pub effect: u64,
    /// Sectors that held durable bytes and are garbage now, by file and number: where rewritten sectors may tear.
    torn: Vec<(u64, usize)>,
}

const ROOT: u64 = 0;

/// The disks that were held to what is known at one point of a run. Most effects leave most of the disks that the
/// effect before could leave: each is looked at once.
#[derive(Debug)]
pub struct LookedAt<K> {
    known: Option<Arc<K>>,
    disks: HashSet<u128>,
}

impl<K> LookedAt<K> {
    pub fn nothing() -> Self {
        Self { known: None, disks: HashSet::new() }
    }

    /// Whether `disk` was not held to `known` before. Of disks after a power cut.
    pub fn is_new(&mut self, known: &Arc<K>, disk: &Core) -> bool {
        if self.known.as_ref().is_none_or(|other| !Arc::ptr_eq(other, known)) {
            self.known = Some(Arc::clone(known));
            self.disks.clear();
        }
        self.disks.insert(disk.fingerprint())
    }
}

impl Core {
    fn new(quirks: Quirks) -> Core {
        Core {
            inodes: BTreeMap::new(),
            dirs: BTreeMap::from([(ROOT, Arc::default())]),
            next_id: 1,
            boot: 1,
            quirks,
            mark: 0,
            effect: 0,
            torn: Vec::new(),
        }
    }

    /// What the next process finds.
    pub fn image(&self, image: Image) -> Core {
        if image == Image::Kill {
            let mut core = self.clone();
            for inode in core.inodes.values_mut().filter(|inode| !inode.failed.is_empty()) {
                Arc::make_mut(inode).failed.clear();
            }
            if core.quirks.boot_id_always_new {
                core.boot += 1;
            }
            return core;
        }
        let mut chooser = Chooser::new(image);
        let mut core = Core::new(self.quirks);
        core.next_id = self.next_id;
        core.boot = self.boot + 1;
        core.mark = self.mark;
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            let dir = &self.dirs[&id];
            let mut names = dir.durable.clone();
            for (at, op) in dir.pending.iter().enumerate() {
                if chooser.keeps_name(at, dir.pending.len()) {
                    op.apply(&mut names);
                }
            }
            for node in names.values() {
                match *node {
                    Node::Dir(id) => todo.push(id),
                    Node::File(id) => {
                        core.inodes.entry(id).or_insert_with(|| chooser.inode(id, &self.inodes[&id], self.quirks));
                    }
                }
            }
            core.dirs.insert(id, Arc::new(Dir { durable: names.clone(), names, pending: Vec::new() }));
        }
        core.torn = chooser.torn;
        core
    }

    /// A hash of what the next process finds: names, bytes, boot, torn sectors. Of a disk after a power cut.
    fn fingerprint(&self) -> u128 {
        // Two sums of the same words, each multiplied by an odd number of its own after every word.
        let mut sums = [1_u64, 2];
        let mut add = |word: u64| {
            for (sum, factor) in sums.iter_mut().zip([0x9e37_79b9_7f4a_7c15_u64, 0xd6e8_feb8_6659_fd93]) {
                *sum = (*sum ^ word).wrapping_mul(factor).rotate_left(29);
            }
        };
        let words = [self.boot, self.mark as u64, self.dirs.len() as u64, self.inodes.len() as u64];
        words.into_iter().for_each(&mut add);
        for (id, dir) in &self.dirs {
            add(*id);
            for (name, node) in &dir.names {
                name.bytes().map(u64::from).for_each(&mut add);
                let (Node::Dir(at) | Node::File(at)) = node;
                add(*at << 1 | u64::from(matches!(node, Node::Dir(_))));
            }
        }
        for (id, inode) in &self.inodes {
            [*id, inode.len, inode.sectors.len() as u64].into_iter().for_each(&mut add);
            for sector in &inode.sectors {
                let words = sector.cache.iter().flat_map(|bytes| bytes.chunks_exact(8));
                add(u64::from(sector.cache.is_some()));
                words.map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).for_each(&mut add);
            }
        }
        self.torn.iter().flat_map(|&(id, sector)| [id, sector as u64]).for_each(&mut add);
        u128::from(sums[0]) << 64 | u128::from(sums[1])
    }

    /// All that the cache shows is on the device, as after a power cut.
    pub fn is_durable(&self) -> bool {
        let is_on_device = |inode: &Arc<Inode>| {
            inode.lens.is_empty() && inode.sectors.iter().all(|sector| sector.device.is_empty() && !sector.dirty)
        };
        self.dirs.values().all(|dir| dir.pending.is_empty()) && self.inodes.values().all(is_on_device)
    }

    /// Files with the numbers of their torn sectors.
    pub fn torn(&self) -> Vec<(String, usize)> {
        let named = self.files();
        let paths = |id: u64| named.iter().filter(move |(_, other)| *other == id).map(|(path, _)| path.clone());
        self.torn.iter().flat_map(|&(id, sector)| paths(id).map(move |path| (path, sector))).collect()
    }

    /// Every file's path and number.
    fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, dir)) = todo.pop() {
            for (name, node) in &self.dirs[&dir].names {
                match node {
                    Node::File(id) => files.push((format!("{path}{name}"), *id)),
                    Node::Dir(dir) => todo.push((format!("{path}{name}/"), *dir)),
                }
            }
        }
        files.sort();
        files
    }

    /// Paths and bytes of all files whose names end in one of `endings`, as the cache shows them.
    pub fn contents(&self, endings: &[&str]) -> Vec<(String, Vec<u8>)> {
        let wanted = |path: &str| endings.iter().any(|ending| has_ending(path, ending));
        let read = |id: u64| self.inodes[&id].bytes(0, self.inodes[&id].len as usize);
        self.files().into_iter().filter(|(path, _)| wanted(path)).map(|(path, id)| (path, read(id))).collect()
    }

    fn dir_id(&self, dir: &str) -> io::Result<u64> {
        let mut id = ROOT;
        for name in dir.split('/').filter(|name| !name.is_empty()) {
            id = match self.dirs[&id].names.get(name) {
                Some(Node::Dir(id)) => *id,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(io::ErrorKind::NotFound.into()),
            };
        }
        Ok(id)
    }

    fn place<'a>(&self, path: &'a str) -> io::Result<(u64, &'a str)> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.dir_id(dir)?, name))
    }

    fn node(&self, path: &str) -> io::Result<Node> {
        let (dir, name) = self.place(path)?;
        self.dirs[&dir].names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&self, path: &str) -> io::Result<u64> {
        match self.node(path)? {
            Node::File(id) => Ok(id),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn make_dir(&mut self, path: &str) -> io::Result<()> {
        let (outer, name) = self.place(path)?;
        let (id, name) = (self.next_id, name.to_owned());
        self.next_id += 1;
        self.dirs.insert(id, Arc::default());
        self.change_names(outer, NameOp::Set(name, Node::Dir(id)));
        Ok(())
    }

    fn change_names(&mut self, dir: u64, op: NameOp) {
        let dir = Arc::make_mut(self.dirs.get_mut(&dir).expect("a directory"));
        op.apply(&mut dir.names);
        dir.pending.push(op);
    }

    fn inode_mut(&mut self, id: u64) -> &mut Inode {
        Arc::make_mut(self.inodes.get_mut(&id).expect("an open file"))
    }

    /// Path and length of every file, for a person.
    pub fn listing(&self) -> String {
        let mut text = String::new();
        for (path, id) in self.files() {
            let _ = writeln!(text, "  {path} {}", self.inodes[&id].len);
        }
        text
    }
}

/// Chooses among the states that a cut may leave.
struct Chooser {
    image: Image,
    rng: Rng,
    /// Of a hundred changes so many are kept, in a random image.
    keep_names: usize,
    keep_sectors: usize,
    keep_sizes: usize,
    counter: usize,
    torn: Vec<(u64, usize)>,
}

impl Chooser {
    fn new(image: Image) -> Chooser {
        let seed = if let Image::Random(seed) = image { seed } else { 1 };
        let mut rng = Rng::new(seed);
        let mut part = || [0, 10, 50, 90, 100, 50][rng.below(6)];
        let (keep_names, keep_sectors, keep_sizes) = (part(), part(), part());
        Chooser { image, rng, keep_names, keep_sectors, keep_sizes, counter: 0, torn: Vec::new() }
    }

    fn keeps_name(&mut self, at: usize, count: usize) -> bool {
        match self.image {
            Image::AllLost | Image::NamesLost => false,
            Image::Alternate => {
                self.counter += 1;
                self.counter % 2 == 0
            }
            Image::NewestLost => at + 1 < count,
            Image::OldestKept => at == 0,
            Image::Random(_) => self.rng.chance(self.keep_names),
            _ => true,
        }
    }

    /// One of `count` states, oldest first.
    fn state(&mut self, count: usize, is_size: bool) -> usize {
        if count < 2 {
            return 0;
        }
        match self.image {
            Image::AllLost | Image::DataLost => 0,
            Image::SizesLost if is_size => 0,
            Image::SectorsLost if !is_size => 0,
            Image::Alternate => {
                self.counter += 1;
                if self.counter % 2 == 0 { count - 1 } else { 0 }
            }
            Image::NewestLost => count - 2,
            Image::OldestKept => 1,
            Image::Random(_) => {
                let keep = if is_size { self.keep_sizes } else { self.keep_sectors };
                match self.rng.below(100) {
                    n if n >= keep => 0,
                    n if n % 2 == 0 => count - 1,
                    _ => self.rng.below(count),
                }
            }
            _ => count - 1,
        }
    }

    fn inode(&mut self, id: u64, inode: &Inode, quirks: Quirks) -> Arc<Inode> {
        let len = if inode.lens.is_empty() { inode.len } else { inode.lens[self.state(inode.lens.len(), true)] };
        let count = (len as usize).div_ceil(SECTOR_BYTES);
        let mut sectors = Vec::with_capacity(count);
        for sector in &inode.sectors[..count.min(inode.sectors.len())] {
            let tears = quirks.tears_sectors && sector.dirty && sector.held;
            let cache = if sector.device.is_empty() && !tears {
                sector.cache.clone()
            } else if self.garbage(sector, quirks) {
                if sector.held {
                    self.torn.push((id, sectors.len()));
                }
                let mut bytes = [0; SECTOR_BYTES];
                bytes.fill_with(|| self.rng.next() as u8);
                state_of(&bytes)
            } else if sector.device.is_empty() {
                sector.cache.clone()
            } else {
                sector.device[self.state(sector.device.len(), false)].clone()
            };
            // Zeros that were written count: a batch may end in them.
            let held = sector.held || sector.dirty || !sector.device.is_empty();
            sectors.push(Sector { cache, held, ..Sector::default() });
        }
        sectors.resize(count, Sector::default());
        let tail = len as usize % SECTOR_BYTES;
        if let (1.., Some(last)) = (tail, sectors.last_mut()) {
            let mut bytes = last.bytes();
            bytes[tail..].fill(0);
            last.cache = state_of(&bytes);
        }
        Arc::new(Inode { len, sectors, ..Inode::default() })
    }

    fn garbage(&mut self, sector: &Sector, quirks: Quirks) -> bool {
        // Only where something was on its way to the device.
        let written = sector.device.iter().any(Option::is_some);
        let allowed = if sector.held { quirks.tears_sectors } else { written };
        allowed
            && match self.image {
                Image::Garbage => true,
                Image::Random(_) => self.rng.chance(8),
                _ => false,
            }
    }
}

/// When a concurrent call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A batch is stored half way.
    HalfStored,
    /// A segment is about to be flushed.
    Flushing,
    /// A segment was flushed, and the call that asked for it has not returned yet.
    Flushed,
}

/// What runs during another call. For the engine it is as if it ran on another thread. It may do anything but wait.
pub type Concurrent = Box<dyn FnMut(Moment, &str) + Send>;

#[allow(clippy::struct_excessive_bools)] // a machine is in several of these states at once
struct Machine {
    core: Core,
    /// The data directories that are locked, with the processes that hold the locks.
    locked: BTreeMap<String, u32>,
    /// Directories whose flags are up, with the processes that raised them.
    flags: BTreeMap<String, u32>,
    dead: bool,
    /// Processes that were killed.
    killed: BTreeSet<u32>,
    /// Whose call this is.
    caller: u32,
    recording: Option<Vec<Core>>,
    /// The power goes when so many effects have happened.
    cut_at: Option<u64>,
    calls: Vec<Call>,
    log_calls: bool,
    call: u64,
    faults: Vec<(u64, Fault)>,
    faults_hit: u32,
    /// One of them was a want of room.
    room_ended: bool,
    concurrent: Option<Concurrent>,
    /// Calls that fail: how many of those that can fail so come before each.
    fail_in: Vec<(u64, Fault)>,
    handles: BTreeMap<(u32, u64), Weak<()>>,
}

/// A storage on such a disk. Clones are the same disk, as one process sees it.
#[derive(Clone)]
pub struct SimDisk {
    machine: Arc<Mutex<Machine>>,
    process: u32,
    /// The directory that is the data directory here, with its slash; empty: all of the disk.
    root: String,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

impl SimDisk {
    pub fn new(quirks: Quirks) -> SimDisk {
        SimDisk::from_core(Core::new(quirks))
    }

    pub fn from_core(core: Core) -> SimDisk {
        let machine = Machine {
            core,
            locked: BTreeMap::new(),
            flags: BTreeMap::new(),
            dead: false,
            killed: BTreeSet::new(),
            caller: 0,
            recording: None,
            cut_at: None,
            calls: Vec::new(),
            log_calls: false,
            call: 0,
            faults: Vec::new(),
            faults_hit: 0,
            room_ended: false,
            concurrent: None,
            fail_in: Vec::new(),
            handles: BTreeMap::new(),
        };
        SimDisk { machine: Arc::new(Mutex::new(machine)), process: 0, root: String::new() }
    }

    /// The name on the whole disk of a path in this data directory.
    fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if self.root.is_empty() {
            return path.trim_end_matches('/').into();
        }
        let mut path = [&self.root, path].concat();
        path.truncate(path.trim_end_matches('/').len());
        path.into()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        let mut machine = self.machine.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        machine.caller = self.process;
        machine
    }

    /// The same disk, as another process of the machine sees it.
    pub fn process(&self, process: u32) -> SimDisk {
        SimDisk { machine: Arc::clone(&self.machine), process, root: self.root.clone() }
    }

    /// This process dies, and the machine stays up: its lock and its flags go, its handles as well. `forgets`: so does
    /// what the cache shows of writes that a failed flush has lost.
    pub fn kill_process(&self, forgets: bool) {
        let mut machine = self.machine();
        machine.killed.insert(self.process);
        machine.locked.retain(|_, holder| *holder != self.process);
        machine.flags.retain(|_, holder| *holder != self.process);
        for inode in machine.core.inodes.values_mut() {
            if inode.failed.contains(&self.process) || forgets {
                let inode = Arc::make_mut(inode);
                inode.failed.remove(&self.process);
                if forgets {
                    inode.forget_lost();
                }
            }
        }
    }

    /// From here on a snapshot is kept at every effect.
    pub fn record(&self) {
        self.machine().recording = Some(Vec::new());
    }

    pub fn take_cuts(&self) -> Vec<Core> {
        self.machine().recording.take().unwrap_or_default()
    }

    /// A cut may come here as well, where nothing happens to the disk.
    pub fn cut_here(&self) {
        let mut machine = self.machine();
        let core = machine.core.clone();
        machine.recording.iter_mut().for_each(|cuts| cuts.push(core.clone()));
    }

    pub fn snapshot(&self) -> Core {
        self.machine().core.clone()
    }

    pub fn set_mark(&self, mark: usize) {
        self.machine().core.mark = mark;
    }

    /// The power goes after `effects` more.
    pub fn cut_after(&self, effects: u64) {
        let mut machine = self.machine();
        machine.cut_at = Some(machine.core.effect + effects);
    }

    pub fn is_dead(&self) -> bool {
        self.machine().dead
    }

    /// No call answers any more; what a process does after its death does not count.
    pub fn kill(&self) {
        self.machine().dead = true;
    }

    pub fn log_calls(&self) {
        self.machine().log_calls = true;
    }

    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.machine().calls)
    }

    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.machine().faults.push((call, fault));
    }

    /// From now on `concurrent` runs while segments are stored to and flushed; `None` ends it.
    pub fn concurrent(&self, concurrent: Option<Concurrent>) {
        self.machine().concurrent = concurrent;
    }

    fn look_in(&self, moment: Moment, path: &str) {
        if !has_ending(path, ".log") || self.is_dead() {
            return;
        }
        let concurrent = self.machine().concurrent.take();
        if let Some(mut concurrent) = concurrent {
            concurrent(moment, path);
            self.machine().concurrent.get_or_insert(concurrent);
        }
    }

    pub fn boot(&self) -> u64 {
        self.machine().core.boot
    }

    /// Of the calls that can fail so, the one after `count` others does.
    pub fn fail_in(&self, count: u64, fault: Fault) {
        self.machine().fail_in.push((count, fault));
    }

    /// Faults are over; says whether one was met.
    pub fn heal(&self) -> bool {
        let mut machine = self.machine();
        machine.faults.clear();
        machine.faults_hit > 0
    }

    pub fn fault_hit(&self) -> bool {
        self.machine().faults_hit > 0
    }

    /// Faults that a deletion is not undone from: several, or a full disk, on which files go from where they stand.
    pub fn in_distress(&self) -> bool {
        let machine = self.machine();
        machine.faults_hit > 1 || machine.room_ended
    }

    fn handle(&self, id: u64, writes: bool, path: &str) -> Arc<dyn StorageFile> {
        let mut machine = self.machine();
        let key = (self.process, id);
        let guard = if let Some(guard) = machine.handles.get(&key).and_then(Weak::upgrade) {
            guard
        } else {
            let guard = Arc::new(());
            machine.handles.insert(key, Arc::downgrade(&guard));
            if machine.core.inodes[&id].failed.contains(&self.process) {
                machine.core.inode_mut(id).failed.remove(&self.process);
            }
            guard
        };
        drop(machine);
        Arc::new(SimFile { disk: self.clone(), id, writes, path: path.to_owned(), _guard: guard })
    }
}

impl Machine {
    /// Every call begins here: `Err` where it fails by fault, for a write after half of its effect.
    fn begin(&mut self, call: Call) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the power is off"));
        }
        if self.killed.contains(&self.caller) {
            return Err(io::Error::other("the process was killed"));
        }
        let index = self.call;
        self.call += 1;
        if self.log_calls {
            self.calls.push(call);
        }
        for (left, _) in self.fail_in.iter_mut().filter(|(_, fault)| fault.applies_to(call)) {
            *left = left.wrapping_sub(1);
        }
        // Those whose turn it is become faults of this very call.
        let due = self.fail_in.iter().filter(|(left, _)| *left == u64::MAX).map(|&(_, fault)| (index, fault));
        self.faults.extend(due);
        self.fail_in.retain(|(left, _)| *left != u64::MAX);
        let is_due = |(at, fault): &&(u64, Fault)| {
            let due = if *fault == Fault::StaysFull { index >= *at } else { index == *at };
            due && fault.applies_to(call)
        };
        let Some(&(_, fault)) = self.faults.iter().find(is_due) else { return Ok(()) };
        self.room_ended |= matches!(fault, Fault::Full | Fault::StaysFull | Fault::Short);
        // One that stays counts once.
        if fault != Fault::StaysFull || self.faults_hit == 0 {
            self.faults_hit += 1;
        }
        Err(match fault {
            Fault::Io | Fault::Flush => io::Error::other("the disk refuses"),
            _ => io::ErrorKind::StorageFull.into(),
        })
    }

    /// Every effect ends here.
    fn effect(&mut self) {
        self.core.effect += 1;
        if let Some(cuts) = &mut self.recording {
            cuts.push(self.core.clone());
        }
        if self.cut_at.is_some_and(|at| self.core.effect >= at) {
            self.dead = true;
        }
    }
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl StorageLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let (root, process) = (&self.0.root, self.0.process);
        self.0.machine().locked.retain(|dir, holder| dir != root || *holder != process);
    }
}

#[derive(Debug)]
struct SimFlag(SimDisk, String);

impl StorageLock for SimFlag {}

impl Drop for SimFlag {
    fn drop(&mut self) {
        let process = self.0.process;
        self.0.machine().flags.retain(|dir, holder| *dir != self.1 || *holder != process);
    }
}

impl Storage for SimDisk {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        let mut machine = self.machine();
        if machine.locked.contains_key(&self.root) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        machine.locked.insert(self.root.clone(), self.process);
        drop(machine);
        Ok(Box::new(SimLock(self.clone())))
    }

    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        let dir = &*self.path(dir);
        let mut machine = self.machine();
        machine.begin(Call::ReadDir)?;
        let id = machine.core.dir_id(dir)?;
        let names = machine.core.dirs[&id].names.iter();
        Ok(names.map(|(name, node)| DirEntry { name: name.clone(), is_dir: matches!(node, Node::Dir(_)) }).collect())
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let dir = &*self.path(dir);
        let mut machine = self.machine();
        machine.begin(Call::CreateDir)?;
        if machine.core.node(dir).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.core.make_dir(dir)?;
        machine.effect();
        Ok(())
    }

    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        let dir = &*self.path(dir);
        let mut machine = self.machine();
        machine.begin(Call::RemoveDir)?;
        let id = machine.core.dir_id(dir)?;
        if !machine.core.dirs[&id].names.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (outer, name) = machine.core.place(dir)?;
        machine.core.change_names(outer, NameOp::Remove(name.to_owned()));
        machine.effect();
        Ok(())
    }

    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        let path = &*self.path(path);
        let mut machine = self.machine();
        let id = if access == Access::CreateNew {
            machine.begin(Call::Create)?;
            if machine.core.node(path).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let (dir, name) = machine.core.place(path)?;
            let id = machine.core.next_id;
            machine.core.next_id += 1;
            machine.core.inodes.insert(id, Arc::default());
            machine.core.change_names(dir, NameOp::Set(name.to_owned(), Node::File(id)));
            machine.effect();
            id
        } else {
            machine.begin(Call::Open)?;
            machine.core.file(path)?
        };
        drop(machine);
        Ok(self.handle(id, access != Access::Read, path))
    }

    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        let path = &*self.path(path);
        let mut machine = self.machine();
        machine.begin(Call::Metadata)?;
        match machine.core.node(path)? {
            Node::File(id) => Ok(FileMeta { len: machine.core.inodes[&id].len, identity: id }),
            Node::Dir(id) => Ok(FileMeta { len: 0, identity: id }),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (&*self.path(from), &*self.path(to));
        let mut machine = self.machine();
        machine.begin(Call::Rename)?;
        let node = machine.core.node(from)?;
        let ((dir, _), (to_dir, to)) = (machine.core.place(from)?, machine.core.place(to)?);
        assert_eq!(dir, to_dir, "the engine renames inside one directory");
        if let Some(Node::Dir(_)) = machine.core.dirs[&dir].names.get(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        machine.core.change_names(dir, NameOp::Rename(to.to_owned(), node));
        machine.effect();
        Ok(())
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        let path = &*self.path(path);
        let mut machine = self.machine();
        machine.begin(Call::Remove)?;
        machine.core.file(path)?;
        let (dir, name) = machine.core.place(path)?;
        machine.core.change_names(dir, NameOp::Remove(name.to_owned()));
        if machine.core.quirks.remove_lies {
            let dir = Arc::make_mut(machine.core.dirs.get_mut(&dir).expect("a directory"));
            dir.pending.pop();
        }
        machine.effect();
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let dir = &*self.path(dir);
        let mut machine = self.machine();
        machine.begin(Call::SyncDir)?;
        let id = machine.core.dir_id(dir)?;
        if id != ROOT || !machine.core.quirks.sync_dir_lies {
            let dir = Arc::make_mut(machine.core.dirs.get_mut(&id).expect("a directory"));
            let pending = std::mem::take(&mut dir.pending);
            // What a quirk hid stays hidden.
            for op in pending {
                op.apply(&mut dir.durable);
            }
        }
        machine.effect();
        Ok(())
    }

    /// As the kernel's locks, flags ask nothing of the disk, and never fail for it.
    fn raise_flag(&self, dir: &str) -> io::Result<Box<dyn StorageLock>> {
        let dir = &*self.path(dir);
        let mut machine = self.machine();
        if machine.flags.contains_key(dir) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        machine.flags.insert(dir.to_owned(), self.process);
        Ok(Box::new(SimFlag(self.clone(), dir.to_owned())))
    }

    fn sees_flag(&self, dir: &str) -> io::Result<bool> {
        let dir = &*self.path(dir);
        Ok(self.machine().flags.contains_key(dir))
    }

    fn nested(&self, dir: &str) -> io::Result<Arc<dyn Storage>> {
        let path = self.path(dir).into_owned();
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let outer = &path[..at];
            let mut machine = self.machine();
            if machine.core.node(outer).is_err() {
                machine.begin(Call::CreateDir)?;
                machine.core.make_dir(outer)?;
                machine.effect();
            }
            let dir = outer.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
            drop(machine);
            SimDisk { root: String::new(), ..self.clone() }.sync_dir(&dir)?;
        }
        Ok(Arc::new(SimDisk { root: path + "/", ..self.clone() }))
    }

    fn boot_id(&self) -> [u8; 16] {
        u128::from(self.machine().core.boot).to_be_bytes()
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
    writes: bool,
    path: String,
    _guard: Arc<()>,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SimFile {
    fn change(&self, call: Call) -> io::Result<MutexGuard<'_, Machine>> {
        if !self.writes {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut machine = self.disk.machine();
        machine.begin(call)?;
        Ok(machine)
    }

    fn put(&self, bytes: &[u8], position: u64, in_between: bool) -> io::Result<()> {
        if !self.writes {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut machine = self.disk.machine();
        // On a disk that stays full, room that was reserved is still there.
        let grows = position + bytes.len() as u64 > machine.core.inodes[&self.id].len;
        let all = machine.faults.clone();
        if !grows {
            machine.faults.retain(|(_, fault)| *fault != Fault::StaysFull);
        }
        let begun = machine.begin(Call::Write);
        machine.faults = all;
        if begun.is_err() && (machine.dead || machine.killed.contains(&self.disk.process)) {
            return begun;
        }
        // Any part of a failed write may be there.
        let parts = [bytes.len() / 2, bytes.len(), 0, bytes.len().saturating_sub(1)];
        let done = if begun.is_ok() { bytes.len() } else { parts[machine.call as usize % parts.len()] };
        if in_between && begun.is_ok() && machine.concurrent.is_some() {
            machine.core.inode_mut(self.id).write(&bytes[..done / 2], position, true);
            drop(machine);
            self.disk.look_in(Moment::HalfStored, &self.path);
            machine = self.disk.machine();
        }
        if done > 0 {
            machine.core.inode_mut(self.id).write(&bytes[..done], position, in_between);
        }
        machine.effect();
        begun
    }
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut machine = self.disk.machine();
        machine.begin(Call::Len)?;
        Ok(machine.core.inodes[&self.id].len)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut machine = self.disk.machine();
        machine.begin(Call::Read)?;
        Ok(machine.core.inodes[&self.id].read(buffer, position))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.put(bytes, position, false)
    }

    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.put(bytes, position, true)
    }

    fn forget_failed_flush(&self) {
        if !self.writes {
            self.disk.machine().core.inode_mut(self.id).failed.remove(&self.disk.process);
        }
    }

    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>> {
        let mut machine = self.disk.machine();
        machine.begin(Call::Lend)?;
        let bytes = machine.core.inodes[&self.id].bytes(position, len);
        let read = bytes.len();
        if !self.writes && read < len {
            // Who is attached may not know yet what a recovery in the writing process has cut: as the directory says.
            return Ok(None);
        }
        assert_eq!(read, len, "the engine vouches that what it borrows lies inside {}", self.path);
        Ok(Some(Lease::new(Arc::new(bytes), 0..len)))
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut machine = match self.change(Call::Reserve) {
            Err(error) => {
                // What was reserved before the room ended is there.
                let mut machine = self.disk.machine();
                let short = machine.faults.iter().any(|&(at, fault)| at + 1 == machine.call && fault == Fault::Short);
                let now = machine.core.inodes[&self.id].len;
                if short && len > now && !machine.dead {
                    machine.core.inode_mut(self.id).set_len(now + (len - now) / 2);
                    machine.effect();
                }
                return Err(error);
            }
            Ok(machine) => machine,
        };
        if len > machine.core.inodes[&self.id].len {
            machine.core.inode_mut(self.id).set_len(len);
            machine.effect();
        }
        Ok(())
    }

    fn prepare(&self, _range: Range<u64>) {}

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut machine = self.change(Call::Truncate)?;
        if !machine.core.quirks.truncate_lies {
            machine.core.inode_mut(self.id).set_len(len);
        }
        machine.effect();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.disk.look_in(Moment::Flushing, &self.path);
        let mut machine = self.disk.machine();
        if machine.core.inodes[&self.id].failed.contains(&self.disk.process) {
            return Err(io::Error::other("an earlier flush failed"));
        }
        if let Err(error) = machine.begin(Call::Flush) {
            if !machine.dead && !machine.killed.contains(&self.disk.process) {
                // Each process that has the file open learns of it: its own next flush fails.
                let open = machine.handles.iter().filter(|((_, id), guard)| *id == self.id && guard.strong_count() > 0);
                let holders = open.map(|((process, _), _)| *process).collect();
                machine.core.inode_mut(self.id).flush_fails(holders);
            }
            return Err(error);
        }
        let quirks = machine.core.quirks;
        let lies = quirks.flush_lies.is_some_and(|ending| self.path.ends_with(ending));
        if !lies {
            machine.core.inode_mut(self.id).flush(quirks);
        }
        machine.effect();
        drop(machine);
        self.disk.look_in(Moment::Flushed, &self.path);
        Ok(())
    }
}

//! Files read and written through shared maps: the one room of this package with `unsafe` in it.
//!
//! A file is mapped in *windows*: each lies inside one granule of [`WINDOW_BYTES_MAX`] bytes, begins where
//! the granule begins, and reaches at least as far as was needed. A window may reach beyond the present
//! end of its file; what must never happen is that such a byte is *touched*, for the kernel answers that with
//! SIGBUS.
//!
//! # Invariants
//!
//! 1. **A map lives as long as its [`Window`]**, at one address: it is made in [`Window::map`], never moved,
//!    remapped or shortened, and unmapped by the drop of the window alone. All pointers are made from it
//!    while the window is borrowed.
//! 2. **A byte is written only below `reserved`**, the length for which the file system allocated room.
//!    `reserved` is read, raised and lowered only under the writer's lock, which is held until the last byte
//!    is written; cutting the file lowers it first. So a store meets a page that exists and has its room,
//!    no matter what happens at the same time.
//! 3. **A byte is read only where it was lent**, and lent only below the file's known length. Cutting the
//!    file lowers the known length first, and the engine cuts nothing that is lent. (Another process that
//!    cuts a file below what it published, against the format's rules, is outside of what maps can be
//!    defended from; `StoreMode::File` is the defence.)
//! 4. **Lent bytes do not change** while the lease lives: the promise of [`StorageFile`](super::StorageFile),
//!    so a `&[u8]` over them is sound. Over any other byte of a map there is no reference at all, shared or
//!    exclusive: stores go through raw pointers.
//! 5. **Stores go only through windows mapped writable**; a file opened for reading gets windows mapped
//!    read-only.
//! 6. **What runs in the child of a fork is async-signal-safe**: the handler adds one to an atomic and
//!    returns.

use std::ffi::c_int;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::sync::{Arc, OnceLock, Weak};

use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::map_budget::{Charge, Evict, MapBudget};
use super::status::Status;
use super::{Lease, Region};

/// The greatest length of a window, and the granule that no window crosses.
pub(super) const WINDOW_BYTES_MAX: u64 = if cfg!(target_pointer_width = "64") { 16 << 20 } else { 4 << 20 };

/// The unit of window lengths, and of populating; a multiple of every page size that Linux has for us (4, 16,
/// 64 KiB).
const GRANULE_BYTES: usize = 64 << 10;

/// How many more granules are populated at a time for a reader that goes from front to back: the call itself
/// costs as much as the pages of a granule.
const GRANULES_AHEAD: usize = 3;

/// The unit of the record of what is populated. Where pages are larger, one page is many of these.
const PAGE_BYTES: usize = 4 << 10;

/// So many bytes of what is stored go last: those in which a batch has its base offset and its length.
const HEAD_BYTES: usize = 16;

/// How a mapped file gets at the descriptor behind it, which may have to be opened again.
pub(super) type Opener<'a> = &'a dyn Fn() -> io::Result<Arc<File>>;

/// The maps of one file, and what is known of its length.
pub(super) struct MappedFile {
    budget: Arc<MapBudget<MappedFile>>,
    this: Weak<MappedFile>,
    /// Set where this file is not read through maps: by choice, or since a map of it failed.
    copy_only: AtomicBool,
    /// Whether the descriptor can be mapped for writing.
    writable: AtomicBool,
    /// A length that the file is known to have, at least (invariant 3).
    len: AtomicU64,
    /// Held by every call that changes the file's length.
    size: Mutex<()>,
    writer: Mutex<Writer>,
    /// At most one window a granule, by position.
    windows: Mutex<Vec<Arc<Window>>>,
}

/// Where the last store went, and how far stores may go.
#[derive(Default)]
#[repr(align(64))] // off the cache line that readers write when they lend
struct Writer {
    window: Option<Arc<Window>>,
    /// Stores from `start` to `end` go to `window`: `end` lies neither behind the window nor behind
    /// `reserved`.
    start: u64,
    end: u64,
    /// The file has allocated room for all bytes below (invariant 2).
    reserved: u64,
}

impl MappedFile {
    pub(super) fn new(budget: Arc<MapBudget<MappedFile>>, len: u64, writable: bool, lend: bool) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            budget,
            this: Weak::clone(this),
            copy_only: AtomicBool::new(!lend),
            writable: AtomicBool::new(writable),
            len: AtomicU64::new(len),
            size: Mutex::new(()),
            writer: Mutex::new(Writer::default()),
            windows: Mutex::new(Vec::new()),
        })
    }

    /// From now on the descriptor can be mapped for writing.
    pub(super) fn make_writable(&self) {
        self.writable.store(true, Ordering::Release);
    }

    /// A length that the file is known to have, at least.
    pub(super) fn known_len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Keeps all others from changing the file's length.
    pub(super) fn lock_size(&self) -> MutexGuard<'_, ()> {
        self.size.lock()
    }

    /// The file was written up to `len`.
    pub(super) fn grew_to(&self, len: u64) {
        self.len.fetch_max(len, Ordering::AcqRel);
    }

    /// How much room stores may rely on.
    pub(super) fn reserved(&self) -> u64 {
        self.writer.lock().reserved
    }

    /// The file system allocated room for `[0, len)`. The caller holds the size lock.
    pub(super) fn reserved_to(&self, len: u64) {
        self.grew_to(len);
        let mut writer = self.writer.lock();
        writer.reserved = writer.reserved.max(len);
        writer.reach();
    }

    /// The file is about to be cut or extended to `len`: afterwards nothing behind is stored to or lent. The
    /// caller holds the size lock.
    pub(super) fn about_to_cut(&self, len: u64) {
        {
            let mut writer = self.writer.lock();
            writer.reserved = writer.reserved.min(len);
            writer.reach();
        }
        self.len.fetch_min(len, Ordering::AcqRel);
        for window in &*self.windows.lock() {
            window.forget_populated_behind(len);
        }
    }

    /// Forgets the known length; it is measured again when next needed.
    pub(super) fn forget_len(&self) {
        self.len.store(0, Ordering::Release);
    }

    /// Writes as much of `bytes` at `position` as can be written through the map, and returns how much that
    /// was.
    #[inline]
    pub(super) fn store(&self, bytes: &[u8], position: u64, open: Opener<'_>) -> io::Result<usize> {
        let mut writer = self.writer.lock();
        if writer.store(bytes, position) {
            return Ok(bytes.len());
        }
        self.store_piecewise(&mut writer, bytes, position, open)
    }

    /// The rest of [`store`](Self::store): the first byte needs another window, or the last one does.
    #[cold]
    fn store_piecewise(&self, writer: &mut Writer, bytes: &[u8], position: u64, open: Opener<'_>) -> io::Result<usize> {
        let Some(end) = position.checked_add(bytes.len() as u64) else { return Ok(0) };
        if end > writer.reserved || self.copy_only.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let mut at = position;
        while at < end {
            let piece_end = end.min(granule_end(at));
            // Only a descriptor that cannot be had is an error: without a window the bytes still go by system calls.
            match self.window(at, piece_end, true, open)? {
                Some(window) => writer.turn_to(window),
                None => break,
            }
            let piece = &bytes[(at - position) as usize..(piece_end - position) as usize];
            assert!(writer.store(piece, at), "the window was made for this piece");
            at = piece_end;
        }
        Ok((at - position) as usize)
    }

    /// Lends `len` bytes at `position`; see [`StorageFile::lend`](super::StorageFile::lend).
    #[inline]
    pub(super) fn lend(&self, position: u64, len: usize, open: Opener<'_>) -> io::Result<Option<Lease>> {
        if self.copy_only.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(end) = position.checked_add(len as u64) else { return Ok(None) };
        if end > self.known_len() && end > self.measure(open)? {
            return Ok(None);
        }
        if len == 0 {
            return Ok(Some(Lease::new(Arc::new(Vec::new()), 0..0)));
        }
        if end > granule_end(position) {
            return Ok(None);
        }
        let window = match self.find(position, end) {
            Some(window) => window,
            None => match self.window(position, end, false, open)? {
                Some(window) => window,
                None => return Ok(None),
            },
        };
        window.touch(self.budget.now());
        let range = window.range(position, end);
        if !window.is_populated(&range) && !self.populate(&window, &range, open)? {
            return Ok(None);
        }
        Ok(Some(Lease::new(window, range)))
    }

    /// Populates `range`, rounded outward, and says whether it may be lent.
    #[cold]
    fn populate(&self, window: &Window, range: &Range<usize>, open: Opener<'_>) -> io::Result<bool> {
        if !kernel_populates() {
            return Ok(true);
        }
        let mut file_end = window.offset_of_end(self.known_len());
        loop {
            let missing = window.missing(range, file_end);
            let end = missing.end;
            let Err(error) = window.populate(missing) else { return Ok(true) };
            match Errno::from_io_error(&error) {
                // What the disk could not read comes back as one of these; which, depends on how it failed.
                Some(Errno::FAULT | Errno::HWPOISON | Errno::IO) => {
                    // Or another process, the writer, has trimmed the file meanwhile, and only what was to be populated
                    // next to the range is gone.
                    file_end = window.offset_of_end(self.measure(open)?);
                    if range.end <= file_end && file_end < end {
                        continue;
                    }
                    self.copy_only.store(true, Ordering::Relaxed);
                    read_through(&*open()?, window.position + range.start as u64, range.len())?;
                }
                // Not a map that this kernel populates: nothing can be promised of it.
                Some(Errno::INVAL) => self.copy_only.store(true, Ordering::Relaxed),
                // No memory just now.
                _ => {}
            }
            return Ok(false);
        }
    }

    /// Asks the file system for the file's length.
    #[cold]
    fn measure(&self, open: Opener<'_>) -> io::Result<u64> {
        let file = open()?;
        let _size = self.lock_size();
        let len = Status::of(&file)?.len;
        self.len.store(len, Ordering::Release);
        Ok(len)
    }

    #[inline]
    fn find(&self, position: u64, end: u64) -> Option<Arc<Window>> {
        let windows = self.windows.lock();
        let window = match &windows[..] {
            [only] => only,
            many => &many[many.partition_point(|window| window.position <= position).checked_sub(1)?],
        };
        window.covers(position, end).then(|| Arc::clone(window))
    }

    /// The window with `[position, end)`, which lies inside one granule and below the known length; `None`
    /// where it cannot be had.
    #[cold]
    fn window(&self, position: u64, end: u64, to_write: bool, open: Opener<'_>) -> io::Result<Option<Arc<Window>>> {
        let found = {
            let windows = self.windows.lock();
            let start = granule_start(position);
            windows.iter().find(|window| window.position == start).cloned()
        };
        if let Some(window) = &found {
            if window.covers(position, end) && (window.writable || !to_write) {
                return Ok(found);
            }
        }
        // Asked before the descriptor: it is made writable first, and then said to be.
        let writable = self.writable.load(Ordering::Acquire);
        if to_write && !writable {
            return Ok(None);
        }
        let file = open()?;
        let start = granule_start(position);
        let needed = self.known_len().max(end) - start;
        // A window that its file outgrew is likely to be outgrown again: four times as much, so that a segment is
        // remapped a few times only.
        let outgrown =
            found.as_ref().map_or(0, |window| if window.covers(position, end) { 0 } else { 4 * window.len as u64 });
        let bytes = needed.max(outgrown).next_multiple_of(GRANULE_BYTES as u64).min(WINDOW_BYTES_MAX);
        drop(found);
        let mapped =
            self.budget.window(&self.this, bytes, |charge| Window::map(&file, start, bytes as usize, writable, charge));
        let window = match mapped {
            Ok(Some(window)) => window,
            Ok(None) => return Ok(None),
            Err(error) => {
                // A file system without shared maps will not learn them; memory may come back.
                if !matches!(Errno::from_io_error(&error), Some(Errno::NOMEM | Errno::AGAIN)) {
                    self.copy_only.store(true, Ordering::Relaxed);
                }
                return Ok(None);
            }
        };
        window.touch(self.budget.now());
        let replaced = {
            let mut windows = self.windows.lock();
            match windows.binary_search_by_key(&start, |window| window.position) {
                Ok(index) => Some(std::mem::replace(&mut windows[index], Arc::clone(&window))),
                Err(index) => {
                    windows.insert(index, Arc::clone(&window));
                    None
                }
            }
        };
        drop(replaced); // unmapped outside of the lock
        Ok(Some(window))
    }
}

impl Evict for MappedFile {
    type Window = Window;

    fn last_used(window: &Window) -> u64 {
        window.last_used()
    }

    fn seems_idle(window: &Arc<Window>) -> bool {
        window.seems_idle()
    }

    /// Drops `window` from the caches unless it is leased. The caller holds one count of it.
    fn release(&self, window: &Arc<Window>) -> bool {
        // Never wait for a writer here: it may be waiting for the budget, whose lock the caller holds.
        let Some(mut writer) = self.writer.try_lock() else { return false };
        let mut windows = self.windows.lock();
        let Some(index) = windows.iter().position(|kept| Arc::ptr_eq(kept, window)) else { return false };
        let written = writer.window.as_ref().is_some_and(|written| Arc::ptr_eq(written, window));
        // New counts come only from these two caches, whose locks are held, and from leases, of which there is none
        // if the sum is right.
        if Arc::strong_count(window) != 2 + usize::from(written) {
            return false;
        }
        if written {
            writer.window = None;
            writer.reach();
        }
        windows.remove(index);
        true
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile").field("len", &self.known_len()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes `bytes` if all of them go into the window at hand, and says so.
    ///
    /// The first ones go last: a process that is killed in between leaves no length of a batch without the rest of it.
    #[inline]
    fn store(&mut self, bytes: &[u8], position: u64) -> bool {
        let Some(window) = &self.window else { return false };
        if position < self.start || position > self.end || bytes.len() as u64 > self.end - position {
            return false;
        }
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES));
        let at = (position - self.start) as usize;
        window.store(rest, at + head.len());
        // Within one process the order in which the instructions stand is enough: what was stored is in the page cache.
        compiler_fence(Ordering::Release);
        window.store(head, at);
        true
    }

    fn turn_to(&mut self, window: Arc<Window>) {
        self.window = Some(window);
        self.reach();
    }

    /// Computes again how far stores go.
    fn reach(&mut self) {
        (self.start, self.end) = match &self.window {
            Some(window) => {
                (window.position, self.reserved.min(window.position + window.len as u64).max(window.position))
            }
            None => (0, 0),
        };
    }
}

/// One map of a part of a file.
pub(super) struct Window {
    map: MmapRaw,
    len: usize,
    /// Where in the file the first byte lies.
    position: u64,
    writable: bool,
    last_used: AtomicU64,
    /// One bit for each [`PAGE_BYTES`]: this was populated since it was mapped.
    populated: Box<[AtomicU64]>,
    _charge: Charge<MappedFile>,
}

impl Window {
    fn map(file: &File, position: u64, len: usize, writable: bool, charge: Charge<MappedFile>) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(position).len(len);
        let map = if writable { options.map_raw(file)? } else { options.map_raw_read_only(file)? };
        let words = len.div_ceil(PAGE_BYTES).div_ceil(64);
        Ok(Self {
            map,
            len,
            position,
            writable,
            last_used: AtomicU64::new(0),
            populated: (0..words).map(|_| AtomicU64::new(0)).collect(),
            _charge: charge,
        })
    }

    #[inline]
    fn covers(&self, position: u64, end: u64) -> bool {
        position >= self.position && end <= self.position + self.len as u64
    }

    /// Where in this window `[position, end)` lies, which it covers.
    #[inline]
    fn range(&self, position: u64, end: u64) -> Range<usize> {
        (position - self.position) as usize..(end - self.position) as usize
    }

    /// Where in this window a file of `len` bytes ends.
    fn offset_of_end(&self, len: u64) -> usize {
        len.saturating_sub(self.position).min(self.len as u64) as usize
    }

    /// Whether only the two caches of its file seem to hold it, and the caller, once.
    fn seems_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) <= 3
    }

    fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    #[inline]
    fn touch(&self, now: u64) {
        if self.last_used() != now {
            self.last_used.store(now, Ordering::Relaxed);
        }
    }

    /// Copies `bytes` to `at`. Only [`Writer::store`] calls this, which is how invariant 2 is kept.
    #[inline]
    fn store(&self, bytes: &[u8], at: usize) {
        assert!(self.writable && at <= self.len && bytes.len() <= self.len - at, "a store lies inside its window");
        // SAFETY: the sum lies inside the map (asserted), which is mapped (1).
        let target = unsafe { self.map.as_mut_ptr().add(at) };
        // SAFETY: the source is a live slice; the target is `bytes.len()` mapped (1), writable (5) bytes whose pages
        // exist (2). No reference to them exists (4), so the source is not among them, and no other store
        // overlaps, as they hold one lock (2).
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }

    /// Whether all of `range`, which is not empty, was populated.
    #[inline]
    fn is_populated(&self, range: &Range<usize>) -> bool {
        let (first, last) = (range.start / PAGE_BYTES, (range.end - 1) / PAGE_BYTES);
        if first / 64 == last / 64 {
            let mask = mask(first % 64, last % 64);
            return self.populated[first / 64].load(Ordering::Relaxed) & mask == mask;
        }
        words(first, last).all(|(word, mask)| self.populated[word].load(Ordering::Relaxed) & mask == mask)
    }

    /// What has to be populated so that all of `range` is: whole granules, as far as the file goes, and some
    /// more where a reader seems to go through the file from front to back.
    fn missing(&self, range: &Range<usize>, file_end: usize) -> Range<usize> {
        let is_missing = |granule: &usize| {
            let start = granule * GRANULE_BYTES;
            !self.is_populated(&(start.max(range.start)..(start + GRANULE_BYTES).min(range.end)))
        };
        let mut granules = range.start / GRANULE_BYTES..range.end.div_ceil(GRANULE_BYTES);
        let first = granules.find(is_missing).unwrap_or(range.start / GRANULE_BYTES);
        let last = granules.rfind(is_missing).unwrap_or(first);
        let start = first * GRANULE_BYTES;
        let sequential = start > 0 && self.is_populated(&(start - 1..start));
        let granules_ahead = if sequential { GRANULES_AHEAD } else { 0 };
        start..((last + 1 + granules_ahead) * GRANULE_BYTES).min(file_end).max(range.end)
    }

    /// Has the kernel fault in the pages of `range`, and remembers that.
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        loop {
            match self.map.advise_range(Advice::PopulateRead, range.start, range.len()) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for (word, mask) in words(range.start / PAGE_BYTES, (range.end - 1) / PAGE_BYTES) {
            self.populated[word].fetch_or(mask, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The file was cut to `len`: what lay behind has to be populated again if it ever comes back.
    fn forget_populated_behind(&self, len: u64) {
        let first = self.offset_of_end(len) / PAGE_BYTES;
        let pages = self.len.div_ceil(PAGE_BYTES);
        if first < pages {
            for (word, mask) in words(first, pages - 1) {
                self.populated[word].fetch_and(!mask, Ordering::Relaxed);
            }
        }
    }
}

impl Region for Window {
    #[inline]
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len, "a lease lies inside its window");
        // SAFETY: the start lies inside the map (asserted), which is mapped (1).
        let start = unsafe { self.map.as_ptr().add(range.start) };
        // SAFETY: so many bytes are mapped (asserted, 1); they lie inside the file, as only leases get here and
        // `lend` made those (3); they do not change while the lease lives, which the borrow of `self` does
        // not outlive (4); a window is shorter than `isize::MAX`.
        unsafe { slice::from_raw_parts(start, range.len()) }
    }
}

fn granule_start(position: u64) -> u64 {
    position - position % WINDOW_BYTES_MAX
}

#[inline]
fn granule_end(position: u64) -> u64 {
    (position - position % WINDOW_BYTES_MAX).saturating_add(WINDOW_BYTES_MAX)
}

/// The bits `first..=last` of one word.
#[inline]
fn mask(first: usize, last: usize) -> u64 {
    (u64::MAX >> (63 - (last - first))) << first
}

/// The words that hold the bits `first..=last`, each with the mask of those in it.
fn words(first: usize, last: usize) -> impl Iterator<Item = (usize, u64)> {
    (first / 64..=last / 64).map(move |word| {
        let from = first.max(word * 64) - word * 64;
        let to = last.min(word * 64 + 63) - word * 64;
        (word, mask(from, to))
    })
}

/// Reads `len` bytes at `position` and throws them away: so the error is the disk's own, and not the map's.
fn read_through(file: &File, mut position: u64, len: usize) -> io::Result<()> {
    let end = position + len as u64;
    let mut buffer = [0; 4096];
    while position < end {
        let piece = (end - position).min(buffer.len() as u64) as usize;
        match file.read_at(&mut buffer[..piece], position) {
            Ok(0) => return Ok(()),
            Ok(read) => position += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether this kernel knows `MADV_POPULATE_READ` (Linux 5.14), asked once, of a page of our own.
fn kernel_populates() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let page = MmapOptions::new().len(PAGE_BYTES).map_anon();
        page.is_ok_and(|page| page.advise(Advice::PopulateRead).is_ok())
    })
}

unsafe extern "C" {
    // In POSIX and in every libc for Linux since long before us.
    fn pthread_atfork(
        prepare: Option<unsafe extern "C" fn()>,
        parent: Option<unsafe extern "C" fn()>,
        child: Option<unsafe extern "C" fn()>,
    ) -> c_int;
}

/// How many forks lie between the first process and this one, as far as [`count_forks`] saw them.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks were seen by now. One load.
#[inline]
pub(super) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Sees to it that [`forks`] counts in each forked child from now on; `false` where the C library has no room
/// for the handler.
pub(super) fn count_forks() -> bool {
    static COUNTING: OnceLock<bool> = OnceLock::new();
    unsafe extern "C" fn in_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    *COUNTING.get_or_init(|| {
        // SAFETY: the handler lives as long as this code is loaded (the C library forgets the handlers of what is
        // unloaded), has the right type, and does only what is allowed in a child of a process with threads
        // (6).
        unsafe { pthread_atfork(None, None, Some(in_child)) == 0 }
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::super::ForkGuard;
    use super::*;

    #[test]
    fn a_forked_child_knows_that_it_is_one() {
        const SEEN: i32 = 77;
        let guard = ForkGuard::here();
        assert!(!guard.forked());
        // The closure runs in a forked child; its error comes back as that of the spawn, and nothing is executed.
        let in_child = move || {
            let seen = guard.forked() && !ForkGuard::here().forked();
            Err(io::Error::from_raw_os_error(if seen { SEEN } else { 1 }))
        };
        let mut command = Command::new("true");
        // SAFETY: all that the closure does is to load and compare atomics, and its error takes no memory.
        unsafe { command.pre_exec(in_child) };
        assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(SEEN));
        assert!(!guard.forked(), "the parent goes on being itself");
    }

    #[test]
    fn masks_cover_their_bits_in_every_word() {
        for first in 0..200 {
            for last in first..200 {
                let mut bits = [0_u64; 4];
                for (word, mask) in words(first, last) {
                    bits[word] |= mask;
                }
                for bit in 0..256 {
                    let set = bits[bit / 64] >> (bit % 64) & 1 == 1;
                    assert_eq!(set, (first..=last).contains(&bit), "{first}..={last}: {bit}");
                }
            }
        }
    }
}

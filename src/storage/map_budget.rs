//! The bound on mapped bytes, shared by all files of one storage.
//!
//! Windows that are not leased are only a cache: where a new window would pass the bound they go first,
//! least recently used before others. What is leased stays, and where that alone reaches the bound the new
//! window is refused: its reader copies instead. Nothing ever waits here.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// A file that keeps windows, and gives up those that are not leased.
pub(super) trait Evict {
    type Window;

    /// When the window was last used, in the budget's own time.
    fn last_used(window: &Self::Window) -> u64;

    /// Whether it seems not to be leased: a hint, for [`release`](Evict::release) looks again.
    fn seems_idle(window: &Arc<Self::Window>) -> bool;

    /// Drops the window from the file's own, unless it is leased or in use.
    fn release(&self, window: &Arc<Self::Window>) -> bool;
}

/// How many bytes may be mapped at a time, and which windows could be given up.
pub(super) struct MapBudget<F: Evict> {
    bytes_max: u64,
    bytes_mapped: AtomicU64,
    /// Advances with each window that is mapped: the time by which windows are old or young.
    clock: AtomicU64,
    /// Every window that some file keeps. Lock order: a file's writer, then this, then a file's windows.
    windows: Mutex<Vec<Kept<F>>>,
}

struct Kept<F: Evict> {
    window: Weak<F::Window>,
    file: Weak<F>,
}

/// Bytes counted against the budget for as long as this lives.
pub(super) struct Charge<F: Evict> {
    budget: Arc<MapBudget<F>>,
    bytes: u64,
}

impl<F: Evict> MapBudget<F> {
    pub(super) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            bytes_mapped: AtomicU64::new(0),
            clock: AtomicU64::new(1),
            windows: Mutex::new(Vec::new()),
        })
    }

    /// The present, in mapped windows.
    pub(super) fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn bytes_mapped(&self) -> u64 {
        self.bytes_mapped.load(Ordering::Relaxed)
    }

    /// Makes a window of `bytes` for `file` by `map`, or answers `None` where leased windows leave no room
    /// for it.
    pub(super) fn window(
        self: &Arc<Self>,
        file: &Weak<F>,
        bytes: u64,
        map: impl FnOnce(Charge<F>) -> io::Result<F::Window>,
    ) -> io::Result<Option<Arc<F::Window>>> {
        let charge = {
            let mut windows = self.windows.lock();
            if !self.make_room(&mut windows, bytes) {
                return Ok(None);
            }
            self.bytes_mapped.fetch_add(bytes, Ordering::Relaxed);
            Charge { budget: Arc::clone(self), bytes }
        };
        self.clock.fetch_add(1, Ordering::Relaxed);
        let window = Arc::new(map(charge)?);
        self.windows.lock().push(Kept { window: Arc::downgrade(&window), file: Weak::clone(file) });
        Ok(Some(window))
    }

    fn make_room(&self, windows: &mut Vec<Kept<F>>, bytes: u64) -> bool {
        if bytes > self.bytes_max {
            return false;
        }
        // A charge is taken only under the lock that the caller holds, so what fits now still fits when it is taken.
        let fits = || self.bytes_mapped.load(Ordering::Relaxed) + bytes <= self.bytes_max;
        if windows.len() == windows.capacity() || !fits() {
            windows.retain(|kept| kept.window.strong_count() > 0);
        }
        if fits() {
            return true;
        }
        let mut idle: Vec<_> = windows
            .iter()
            .filter_map(|kept| Some((kept.window.upgrade()?, kept.file.upgrade()?)))
            .filter(|(window, _)| F::seems_idle(window))
            // Readers go on using them meanwhile: a key that changed while it is sorted by would be a panic.
            .map(|(window, file)| (F::last_used(&window), window, file))
            .collect();
        idle.sort_unstable_by_key(|&(last_used, ..)| last_used);
        for (_, window, file) in idle {
            if file.release(&window) {
                drop(window);
                if fits() {
                    return true;
                }
            }
        }
        false
    }
}

impl<F: Evict> fmt::Debug for MapBudget<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapBudget")
            .field("bytes_max", &self.bytes_max)
            .field("bytes_mapped", &self.bytes_mapped.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl<F: Evict> Drop for Charge<F> {
    fn drop(&mut self) {
        self.budget.bytes_mapped.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

//! Which files of a directory keep a descriptor, and which are closed until they are needed again.
//!
//! 1. A file with unflushed bytes keeps its descriptor: the kernel reports an error of writing back to the descriptors
//!    that are open then, and one that is opened later does not learn of it. So it is flushed before it is closed.
//! 2. At most `max` files have one. A call that needs one more than that flushes a file first; housekeeping
//!    ([`flush_ahead`](OpenFiles::flush_ahead)) does so before it comes to that.
//! 3. Of the files without unflushed bytes at most `clean_max` keep theirs, the last used ones; a few more while others
//!    have unflushed bytes.

use std::io;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

/// A file that can be closed and opened again.
pub(super) trait Closable {
    /// Grows with each use, roughly.
    fn last_used(&self) -> u64;
    /// Whether something was written since the last flush began.
    fn is_dirty(&self) -> bool;
    /// Whether it has a descriptor that no call is using right now.
    fn is_idle(&self) -> bool;
    /// Closes the descriptor if no call is using it and nothing waits to be flushed; whether it did.
    fn close_if_clean(&self) -> bool;
    fn flush(self: &Arc<Self>) -> io::Result<()>;
}

/// The files that have a descriptor.
pub(super) struct OpenFiles<F> {
    max: usize,
    clean_max: usize,
    kept: Mutex<Kept<F>>,
}

/// The files that have a descriptor, and some that had one: those are found when their number reaches `look_at`.
pub(super) struct Kept<F> {
    files: Vec<Weak<F>>,
    look_at: usize,
}

impl<F> Kept<F> {
    pub(super) fn push(&mut self, file: &Arc<F>) {
        self.files.push(Arc::downgrade(file));
    }
}

impl<F: Closable> OpenFiles<F> {
    pub(super) fn new(max: usize, clean_max: usize) -> OpenFiles<F> {
        let max = max.max(1);
        let clean_max = clean_max.clamp(1, max);
        OpenFiles { max, clean_max, kept: Mutex::new(Kept { files: Vec::new(), look_at: clean_max }) }
    }

    /// Closes descriptors until there is room for one more, and keeps the room while the guard lives.
    pub(super) fn room_for_one(&self) -> MutexGuard<'_, Kept<F>> {
        // Each round flushes one file at most, and files may be dirtied meanwhile: give up at some point, and pass
        // the bound by one.
        for _ in 0..=self.max {
            let mut kept = self.kept.lock();
            if kept.files.len() < kept.look_at {
                return kept;
            }
            kept.files.retain(|file| file.strong_count() > 0);
            while kept.files.len() >= self.clean_max && kept.close_oldest_clean() {}
            let left = kept.files.len();
            // Where most are dirty, not each call looks at them all.
            kept.look_at = if left < self.clean_max { self.clean_max } else { (left + left / 4).min(self.max) };
            if left < self.max {
                return kept;
            }
            let Some(dirty) = kept.oldest(F::is_idle) else { return kept };
            drop(kept);
            // What a failed flush leaves behind is reported to the next one who flushes this file.
            let _ = dirty.flush();
        }
        self.kept.lock()
    }

    /// Where three quarters of the descriptors are in use, flushes those that were opened first, until half of them
    /// have nothing to flush: no call has to wait for a flush then that only needs a descriptor.
    pub(super) fn flush_ahead(&self) {
        let dirty: Vec<Arc<F>> = {
            let kept = self.kept.lock();
            if kept.files.len() < self.max - self.max / 4 {
                return;
            }
            kept.files.iter().filter_map(Weak::upgrade).filter(|file| file.is_dirty()).collect()
        };
        let many = dirty.len().saturating_sub(self.max / 2);
        for file in dirty.iter().take(many) {
            // As above.
            let _ = file.flush();
        }
    }
}

impl<F: Closable> Kept<F> {
    /// Of the files that `which` is true of, the one that was used longest ago.
    fn oldest(&self, which: impl Fn(&F) -> bool) -> Option<Arc<F>> {
        let files = self.files.iter().filter_map(Weak::upgrade).filter(|file| which(file));
        files.map(|file| (file.last_used(), file)).min_by_key(|(used, _)| *used).map(|(_, file)| file)
    }

    /// Closes idle files without unflushed bytes: the one that was used longest ago, and those that were used not much
    /// later, so that not each file that is opened looks at them all. Whether it closed any.
    fn close_oldest_clean(&mut self) -> bool {
        let is_closable = |file: &F| file.is_idle() && !file.is_dirty();
        let files = self.files.iter().filter_map(Weak::upgrade).filter(|file| is_closable(file));
        let (first, last) = files.fold((u64::MAX, 0), |(first, last), file| {
            let used = file.last_used();
            (first.min(used), last.max(used))
        });
        let until = first.saturating_add(last.saturating_sub(first) / 8);
        let before = self.files.len();
        self.files.retain(|file| {
            let old = file.upgrade().filter(|file| is_closable(file) && file.last_used() <= until);
            !old.is_some_and(|file| file.close_if_clean())
        });
        self.files.len() < before
    }
}

//! An offset that one thread publishes and others read.

use edgelog_core::Offset;

use crate::sync::{AtomicI64, Ordering};

/// As the atomic number of the standard library, for an [`Offset`].
#[derive(Debug)]
pub(crate) struct AtomicOffset(AtomicI64);

impl AtomicOffset {
    pub(crate) fn new(offset: Offset) -> Self {
        Self(AtomicI64::new(offset.0))
    }

    #[inline]
    pub(crate) fn load(&self, ordering: Ordering) -> Offset {
        Offset(self.0.load(ordering))
    }

    #[inline]
    pub(crate) fn store(&self, offset: Offset, ordering: Ordering) {
        self.0.store(offset.0, ordering);
    }

    pub(crate) fn swap(&self, offset: Offset, ordering: Ordering) -> Offset {
        Offset(self.0.swap(offset.0, ordering))
    }

    /// The greater of both stays; returns the one before.
    pub(crate) fn fetch_max(&self, offset: Offset, ordering: Ordering) -> Offset {
        Offset(self.0.fetch_max(offset.0, ordering))
    }

    /// The lesser of both stays; returns the one before.
    pub(crate) fn fetch_min(&self, offset: Offset, ordering: Ordering) -> Offset {
        Offset(self.0.fetch_min(offset.0, ordering))
    }
}

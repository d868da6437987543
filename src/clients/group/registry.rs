//! What this process has open of each group, once for all of its consumers.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::error::Result;
use crate::store::Store;

/// Values by store and group, found without holding on to any: one ends, and lets go of its store, when its last handle
/// is dropped. A thread that looks for one holds no other meanwhile.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    entries: Mutex<Vec<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    store: Weak<Store>,
    name: String,
    value: Weak<T>,
}

impl<T> Registry<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Mutex::new(Vec::new()) }
    }

    /// The group's value, or the one that `open` makes. Two threads open one group one after the other.
    ///
    /// # Errors
    /// Those of `open`.
    pub(crate) fn find_or_open(
        &self,
        store: &Arc<Store>,
        name: &str,
        open: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let mut entries = self.entries.lock();
        entries.retain(|entry| entry.value.strong_count() > 0);
        let ours = |entry: &&Entry<T>| entry.name == name && entry.store.as_ptr() == Arc::as_ptr(store);
        if let Some(value) = entries.iter().find(ours).and_then(|entry| entry.value.upgrade()) {
            return Ok(value);
        }
        let value = Arc::new(open()?);
        entries.push(Entry { store: Arc::downgrade(store), name: name.to_owned(), value: Arc::downgrade(&value) });
        Ok(value)
    }
}

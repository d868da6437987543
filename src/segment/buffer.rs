//! Buffers that are used again: for bytes that a map cannot lend, and for decompressed records.

use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;

use crate::storage::Region;
use crate::sync::Mutex;

/// Unused buffers are kept up to this many.
const FREE_BUFFERS_MAX: usize = 4;
/// A buffer that grew beyond this is not kept.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// Where buffers come from and return to when they are dropped.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Mutex<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// An empty buffer, used before where one is free.
    pub(crate) fn take(self: &Arc<Self>) -> PooledBuffer {
        let bytes = self.free.lock().pop().unwrap_or_default();
        PooledBuffer { bytes, pool: Arc::clone(self) }
    }
}

/// A buffer that returns to its pool when it is dropped.
#[derive(Debug)]
pub(crate) struct PooledBuffer {
    bytes: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl Deref for PooledBuffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Region for PooledBuffer {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() == 0 || bytes.capacity() > KEPT_BYTES_MAX {
            return;
        }
        bytes.clear();
        let mut free = self.pool.free.lock();
        if free.len() < FREE_BUFFERS_MAX {
            free.push(bytes);
        }
    }
}

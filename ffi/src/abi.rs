//! The shapes that cross the boundary: lent bytes, and structs that begin with their size.

use std::ptr;

/// Bytes that are borrowed: a pointer and a length. `data` NULL is Kafka's null; `len` 0 with any other pointer
/// is empty. Never NUL-terminated.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_bytes {
    /// The first byte, or NULL.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
}

impl edgelog_bytes {
    pub(crate) const NULL: edgelog_bytes = edgelog_bytes { data: ptr::null(), len: 0 };

    #[inline]
    pub(crate) fn of(bytes: &[u8]) -> edgelog_bytes {
        edgelog_bytes { data: bytes.as_ptr(), len: bytes.len() }
    }

    #[inline]
    pub(crate) fn of_option(bytes: Option<&[u8]>) -> edgelog_bytes {
        bytes.map_or(edgelog_bytes::NULL, edgelog_bytes::of)
    }
}

/// A struct of the header that begins with its size and may grow.
///
/// # Safety
/// `repr(C)`, a `usize` first; valid with any bytes behind it, where it is read by `boundary::read_struct`.
pub(crate) unsafe trait Grows: Copy {
    /// The sizes that it had in any release, and has now.
    const SIZES: &'static [usize];
}

macro_rules! grows {
    ($($name:ident),+) => { $(
        // SAFETY: `repr(C)`, `size` first, and nothing but numbers and raw pointers behind it.
        unsafe impl $crate::abi::Grows for $name {
            const SIZES: &'static [usize] = &[size_of::<$name>()];
        }
    )+ };
}
pub(crate) use grows;

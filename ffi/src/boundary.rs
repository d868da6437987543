//! Where C's pointers become Rust's references, and panics become results.
//!
//! # What C vouches for (README.md, convention 16), cited by number
//!
//! 1. A handle that is not NULL was made by this library and is not freed; it is freed once, and not while a call uses
//!    it.
//! 2. A handle that belongs to one thread at a time is used by one thread at a time. (A second use by the *same*
//!    thread, out of a callback, is noticed here.)
//! 3. A pointer to a struct or an output that is not NULL is aligned and has the memory that its type, or its `size`
//!    field, says; no other thread writes there during the call.
//! 4. A pointer with a length that is not NULL has so many bytes or elements, which do not change during the call; a
//!    string ends in NUL.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi::{Grows, edgelog_bytes};
use crate::result::{Failure, Outcome, edgelog_result};

/// What all handles of one store share: whether a call through one of them panicked.
#[derive(Debug, Default)]
pub(crate) struct Home {
    panicked: AtomicBool,
}

impl Home {
    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }
}

/// An opaque type of the header that any thread may use at any time.
pub(crate) trait Handle {
    /// The store's, or `None` for what belongs to no store.
    fn home(&self) -> Option<&Home>;
}

/// An opaque type of the header that belongs to one thread at a time.
pub(crate) trait ExclusiveHandle: Handle {
    type Inner;

    fn exclusive(&self) -> &Exclusive<Self::Inner>;
}

/// A value that is lent to one call at a time.
pub(crate) struct Exclusive<T> {
    in_use: Cell<bool>,
    value: UnsafeCell<T>,
}

impl<T> Exclusive<T> {
    pub(crate) fn new(value: T) -> Exclusive<T> {
        Exclusive { in_use: Cell::new(false), value: UnsafeCell::new(value) }
    }

    /// Lends the value, unless a call that has not returned yet has it.
    #[inline]
    pub(crate) fn lend<R>(&self, work: impl FnOnce(&mut T) -> Outcome<R>) -> Outcome<R> {
        struct Returned<'a>(&'a Cell<bool>);
        impl Drop for Returned<'_> {
            fn drop(&mut self) {
                self.0.set(false);
            }
        }
        if self.in_use.replace(true) {
            return Err(Failure::IN_USE);
        }
        let _returned = Returned(&self.in_use);
        // SAFETY: the flag was down, so no other call of this thread has the value; other threads have none (2).
        work(unsafe { &mut *self.value.get() })
    }
}

impl<T: Clone> Exclusive<T> {
    pub(crate) fn copy(&self) -> Outcome<T> {
        self.lend(|value| Ok(value.clone()))
    }
}

#[cold]
fn panicked(payload: Box<dyn Any + Send>, home: Option<&Home>) -> edgelog_result {
    if let Some(home) = home {
        home.panicked.store(true, Ordering::Release);
    }
    let text = match payload.downcast::<&'static str>() {
        Ok(text) => (*text).to_owned(),
        Err(payload) => payload.downcast::<String>().map_or_else(
            |payload| {
                // Dropping the payload of a panic may panic again.
                std::mem::forget(payload);
                String::new()
            },
            |text| *text,
        ),
    };
    Failure::text(edgelog_result::EDGELOG_PANIC, format!("a bug in edgelog: {text}")).report()
}

#[inline]
fn run(home: Option<&Home>, work: impl FnOnce() -> Outcome<()>) -> edgelog_result {
    let caught = catch_unwind(AssertUnwindSafe(|| match work() {
        Ok(()) => edgelog_result::EDGELOG_OK,
        Err(failure) => failure.report(),
    }));
    caught.unwrap_or_else(|payload| panicked(payload, home))
}

/// Runs what belongs to no handle.
pub(crate) fn answer(work: impl FnOnce() -> Outcome<()>) -> edgelog_result {
    run(None, work)
}

/// Runs `work` on a handle. Answers for NULL, for a store in which a call panicked before, and for a panic now.
///
/// # Safety
/// 1.
#[inline]
pub(crate) unsafe fn with<H: Handle>(handle: *const H, work: impl FnOnce(&H) -> Outcome<()>) -> edgelog_result {
    // SAFETY: 1.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return Failure::NULL_HANDLE.report() };
    let home = handle.home();
    if home.is_some_and(Home::has_panicked) {
        return Failure::AFTER_PANIC.report();
    }
    run(home, || work(handle))
}

/// As [`with`], for a handle that belongs to one thread at a time.
///
/// # Safety
/// 1 and 2.
#[inline]
pub(crate) unsafe fn with_exclusive<H: ExclusiveHandle>(
    handle: *const H,
    work: impl FnOnce(&H, &mut H::Inner) -> Outcome<()>,
) -> edgelog_result {
    // SAFETY: 1.
    unsafe { with(handle, |handle| handle.exclusive().lend(|inner| work(handle, inner))) }
}

/// Ends a handle. A panic in its drop is kept from the host like any other.
///
/// # Safety
/// 1.
pub(crate) unsafe fn free<H>(handle: *mut H, last: impl FnOnce(&H)) {
    if handle.is_null() {
        return;
    }
    // SAFETY: made by `give` from a box, and freed once (1).
    let handle = unsafe { Box::from_raw(handle) };
    let _ = run(None, || {
        last(&handle);
        drop(handle);
        Ok(())
    });
}

/// As [`free`]; does nothing where a call that has not returned uses the handle: it is leaked then, which harms less.
///
/// # Safety
/// 1 and 2.
pub(crate) unsafe fn free_exclusive<H: ExclusiveHandle>(handle: *mut H) {
    // SAFETY: 1.
    if unsafe { handle.as_ref() }.is_some_and(|handle| handle.exclusive().in_use.get()) {
        return;
    }
    // SAFETY: 1 and 2.
    unsafe { free(handle, |_| {}) };
}

/// An output that is known to be there.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// 3, until it is written.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T) -> Outcome<Out<T>> {
        if pointer.is_null() { Err(Failure::NULL_ARGUMENT) } else { Ok(Out(pointer)) }
    }

    #[inline]
    pub(crate) fn write(self, value: T) {
        // SAFETY: not NULL, and 3.
        unsafe { self.0.write(value) };
    }
}

impl<H> Out<*mut H> {
    /// Hands a new handle to C, which frees it.
    pub(crate) fn give(self, handle: H) {
        self.write(Box::into_raw(Box::new(handle)));
    }
}

#[inline]
fn check_size<T: Grows>(size: usize) -> Outcome<()> {
    if size == size_of::<T>() || T::SIZES.contains(&size) {
        return Ok(());
    }
    Err(Failure::size(size, size_of::<T>()))
}

/// An input struct, where it lies; one of an older version is copied to `place`, and the fields that it lacks are
/// zero. (The usual one is not copied: what the caller has just written is quick to read field by field, and slow to
/// copy.)
///
/// # Safety
/// 3, for as long as the answer is used: the call.
#[inline]
pub(crate) unsafe fn read_struct<T: Grows>(pointer: *const T, place: &mut MaybeUninit<T>) -> Outcome<&T> {
    if pointer.is_null() {
        return Err(Failure::NULL_ARGUMENT);
    }
    // SAFETY: the size is the first field of any struct that grows, and the memory is there (3).
    let size = unsafe { pointer.cast::<usize>().read() };
    if size == size_of::<T>() {
        // SAFETY: its whole size is there (3), and any bytes are valid.
        return Ok(unsafe { &*pointer });
    }
    check_size::<T>(size)?;
    *place = MaybeUninit::zeroed();
    // SAFETY: `size` bytes are there (3), and are less than the type's; all of the rest is zero, which is valid.
    unsafe {
        ptr::copy_nonoverlapping(pointer.cast::<u8>(), place.as_mut_ptr().cast::<u8>(), size);
        Ok(place.assume_init_ref())
    }
}

/// The places of an array of input structs, which lie as far apart as the first one says that it is long.
///
/// # Safety
/// 4, for as long as the answer is used: the call.
#[inline]
pub(crate) unsafe fn structs<T: Grows>(first: *const T, count: usize) -> Outcome<impl Iterator<Item = *const T>> {
    let mut stride = 0;
    if count > 0 {
        if first.is_null() {
            return Err(Failure::NULL_ARGUMENT);
        }
        // SAFETY: the size is the first field of any struct that grows, and the memory is there (4).
        stride = unsafe { first.cast::<usize>().read() };
        check_size::<T>(stride)?;
        if count > i32::MAX as usize / stride {
            return Err(Failure::TOO_LONG);
        }
    }
    Ok((0..count).map(move |n| first.wrapping_byte_add(n * stride)))
}

/// An output struct whose size is one that this library knows.
pub(crate) struct OutStruct<T> {
    pointer: *mut T,
    size: usize,
}

impl<T: Grows> OutStruct<T> {
    /// # Safety
    /// 3, until it is written.
    #[inline]
    pub(crate) unsafe fn new(pointer: *mut T) -> Outcome<OutStruct<T>> {
        if pointer.is_null() {
            return Err(Failure::NULL_ARGUMENT);
        }
        // SAFETY: as in `read_struct`.
        let size = unsafe { pointer.cast::<usize>().read() };
        check_size::<T>(size)?;
        Ok(OutStruct { pointer, size })
    }

    /// For an output that may be NULL.
    ///
    /// # Safety
    /// As [`new`](OutStruct::new).
    #[inline]
    pub(crate) unsafe fn optional(pointer: *mut T) -> Outcome<Option<OutStruct<T>>> {
        // SAFETY: 3.
        if pointer.is_null() { Ok(None) } else { unsafe { OutStruct::new(pointer) }.map(Some) }
    }

    /// Writes every field but the size, as far as the caller's struct reaches.
    #[inline]
    pub(crate) fn write(self, value: &T) {
        let first = size_of::<usize>();
        // SAFETY: the caller has `self.size` bytes (3), which are no more than the type has.
        unsafe {
            let from = ptr::from_ref(value).cast::<u8>().add(first);
            let to = self.pointer.cast::<u8>().add(first);
            // A length that the compiler knows is a few moves, another one a call.
            if self.size == size_of::<T>() {
                ptr::copy_nonoverlapping(from, to, size_of::<T>() - first);
            } else {
                ptr::copy_nonoverlapping(from, to, self.size - first);
            }
        }
    }
}

/// Bytes that the caller lends for the call; `None` where the pointer is NULL.
///
/// # Safety
/// 4, for as long as `'a`: the call.
#[inline]
pub(crate) unsafe fn borrow<'a>(bytes: edgelog_bytes) -> Outcome<Option<&'a [u8]>> {
    if bytes.len > i32::MAX as usize {
        return Err(Failure::TOO_LONG);
    }
    if bytes.data.is_null() {
        return if bytes.len == 0 { Ok(None) } else { Err(Failure::NULL_ARGUMENT) };
    }
    // SAFETY: not NULL, so many bytes (4), and less than `isize::MAX`.
    Ok(Some(unsafe { slice::from_raw_parts(bytes.data, bytes.len) }))
}

/// An array that the caller lends for the call.
///
/// # Safety
/// 4, for as long as `'a`: the call.
pub(crate) unsafe fn borrow_array<'a, T>(first: *const T, count: usize) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > i32::MAX as usize / size_of::<T>() {
        return Err(Failure::TOO_LONG);
    }
    if first.is_null() {
        return Err(Failure::NULL_ARGUMENT);
    }
    // SAFETY: not NULL, so many elements (4), and less than `isize::MAX` bytes.
    Ok(unsafe { slice::from_raw_parts(first, count) })
}

/// A string that the caller lends for the call.
///
/// # Safety
/// 4, for as long as `'a`: the call.
pub(crate) unsafe fn c_string<'a>(text: *const c_char) -> Outcome<&'a CStr> {
    if text.is_null() {
        return Err(Failure::NULL_ARGUMENT);
    }
    // SAFETY: not NULL, and it ends in NUL (4).
    Ok(unsafe { CStr::from_ptr(text) })
}

/// As [`c_string`], in UTF-8.
///
/// # Safety
/// As [`c_string`].
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Outcome<&'a str> {
    // SAFETY: 4.
    unsafe { c_string(text) }?.to_str().map_err(|_| Failure::NOT_UTF8)
}

//! The noun `edgelog_options`: how a store is opened.

use std::ffi::c_char;

use edgelog::StoreOptions;

use crate::boundary::{Exclusive, ExclusiveHandle, Handle, Home, Out, answer, free_exclusive, text, with_exclusive};
use crate::result::edgelog_result;

/// How a store is opened or attached. Belongs to one thread at a time.
pub struct edgelog_options(Exclusive<StoreOptions>);

impl Handle for edgelog_options {
    fn home(&self) -> Option<&Home> {
        None
    }
}

impl ExclusiveHandle for edgelog_options {
    type Inner = StoreOptions;

    fn exclusive(&self) -> &Exclusive<StoreOptions> {
        &self.0
    }
}

/// Options with their defaults; to be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_options_new(out: *mut *mut edgelog_options) -> edgelog_result {
    answer(|| {
        // SAFETY: boundary.rs, 3.
        unsafe { Out::new(out) }?.give(edgelog_options(Exclusive::new(StoreOptions::default())));
        Ok(())
    })
}

/// Sets a key of the store, or a topic's key as the default for topics that do not set it themselves. Kafka's names;
/// docs/configuration.md has them. Answers EDGELOG_INVALID_CONFIG for what cannot be, and then changes nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_options_set(
    options: *mut edgelog_options,
    key: *const c_char,
    value: *const c_char,
) -> edgelog_result {
    // SAFETY: boundary.rs, 1, 2 and 4.
    unsafe {
        with_exclusive(options, |_, options| {
            *options = options.clone().set(text(key)?, text(value)?)?;
            Ok(())
        })
    }
}

/// Frees options. Stores that were opened with them do not need them any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_options_free(options: *mut edgelog_options) {
    // SAFETY: boundary.rs, 1 and 2.
    unsafe { free_exclusive(options) };
}

/// A copy of what the handle holds, or the defaults for NULL.
///
/// # Safety
/// boundary.rs, 1 and 2.
pub(crate) unsafe fn options_or_default(options: *const edgelog_options) -> crate::result::Outcome<StoreOptions> {
    // SAFETY: 1.
    match unsafe { options.as_ref() } {
        None => Ok(StoreOptions::default()),
        Some(options) => options.0.copy(),
    }
}

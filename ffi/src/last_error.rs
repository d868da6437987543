//! What C asks after a failure: the thread's last error, and the name of a result.

use std::ffi::c_char;

use crate::boundary::{OutStruct, answer};
use crate::result::{Failure, LAST, NO_INFO, edgelog_error_info, edgelog_result};

/// What this thread's last failed call has to say, NUL-terminated; empty where none failed. Valid until the next call
/// of this thread that fails. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn edgelog_last_error() -> *const c_char {
    let text = LAST.try_with(|last| {
        let Ok(last) = last.try_borrow() else { return c"".as_ptr() };
        if last.text.is_empty() { c"".as_ptr() } else { last.text.as_ptr().cast() }
    });
    text.unwrap_or(c"".as_ptr())
}

/// The evidence of this thread's last failed call. Answers EDGELOG_END where none failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edgelog_last_error_info(out: *mut edgelog_error_info) -> edgelog_result {
    answer(|| {
        // SAFETY: boundary.rs, 3.
        let out = unsafe { OutStruct::new(out) }?;
        let info = LAST.try_with(|last| last.try_borrow().map_or(NO_INFO, |last| last.info)).unwrap_or(NO_INFO);
        if info.result == 0 {
            return Err(Failure::End);
        }
        out.write(&info);
        Ok(())
    })
}

/// The name of a result, as in this header but for "EDGELOG_"; for a number that is none, "UNKNOWN_SERVER_ERROR". Lives
/// as long as the library.
#[unsafe(no_mangle)]
pub extern "C" fn edgelog_result_name(result: i32) -> *const c_char {
    let found = edgelog_result::ALL.iter().find(|(known, _)| *known as i32 == result);
    found.map_or(c"UNKNOWN_SERVER_ERROR", |(_, name)| name).as_ptr()
}

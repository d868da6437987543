#![no_main]
//! The C ABI: its functions in random order with random arguments, over a storage that may fail or panic, with a log
//! callback that calls back on each event. Nothing panics but the storage, each call returns, what is lent can be
//! read, and a store opens after anything.

use libfuzzer_sys::fuzz_target;

// What `ffi/tests/random_calls.rs` does for a bounded number of programs.
#[path = "../../ffi/tests/support/callback.rs"]
mod callback;
#[path = "../../ffi/tests/support/calls.rs"]
mod calls;

fuzz_target!(|bytes: &[u8]| {
    calls::drive(bytes);
});

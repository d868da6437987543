//! The C functions in random order with random arguments: what the fuzz target `c_calls` does, for a bounded number of
//! programs that are the same in every run.

#[path = "support/callback.rs"]
mod callback;
#[path = "support/calls.rs"]
mod calls;

use std::sync::mpsc;
use std::time::Duration;

/// A program that has not ended by then never will: each takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(120);

/// What the calls of `bytes` reached. A call that never returns fails the test, with the program's number.
fn drive(seed: u64, bytes: Vec<u8>) -> calls::Reached {
    let (done, reached) = mpsc::channel();
    let thread = std::thread::spawn(move || done.send(calls::drive(&bytes)).expect("the test waits"));
    match reached.recv_timeout(DEADLINE) {
        Ok(reached) => reached,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("program {seed}: a call never returns"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().expect_err("it panicked")),
    }
}

/// Small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn calls_in_any_order_with_any_arguments_are_answered() {
    let mut total = calls::Reached::default();
    for seed in 0..1500 {
        let mut random = Random(seed);
        let len = 500 + (random.next() % 4000) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        // Without a store nothing is reached: the first call opens one, without faults in every other program.
        bytes[..3].copy_from_slice(&[0, 0, if seed % 2 == 0 { 0 } else { 200 }]);
        let reached = drive(seed, bytes);
        total.appended += reached.appended;
        total.read += reached.read;
        total.refused += reached.refused;
        total.panicked += reached.panicked;
    }
    let few = total.appended < 1000 || total.read < 300 || total.refused < 10_000 || total.panicked < 100;
    assert!(!few, "the programs hardly reach anything: {total:?}");
    assert!(callback::called() > 3000, "{} events", callback::called());
}

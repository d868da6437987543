#![no_main]
//! Answers of a broker, as the bridge reads them. With any bytes, an answer is decoded or refused: no panic,
//! and no memory for what is not there. (libFuzzer ends at an allocation above 512 MiB; an answer of 4 KiB takes far
//! less.)

use edgelog::bridge::decode_answer;
use libfuzzer_sys::fuzz_target;

/// The keys of the requests that the bridge makes.
const KEYS: [i16; 15] = [0, 1, 3, 8, 9, 10, 16, 17, 18, 19, 22, 26, 28, 32, 36];

fuzz_target!(|input: &[u8]| {
    // Which one, and in which of the versions that are spoken: one byte.
    let Some((which, answer)) = input.split_first() else { return };
    decode_answer(KEYS[usize::from(which % 15)], i16::from(which / 15), answer);
});

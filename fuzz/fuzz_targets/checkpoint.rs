#![no_main]
//! The checkpoint file. With anything in it, sums put right or not, the store opens (or says that the version is not
//! known), is read, appended to and closed; where no slot is changed, nothing is lost.

use edgelog_fuzz::{Files, RECORDS, goes_on, value};
use libfuzzer_sys::{arbitrary, fuzz_target};

const FILE: &str = "edgelog.checkpoint";

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    /// Which slot is written into: 0, 1, or both.
    slot: u8,
    edits: Vec<(u8, Vec<u8>)>,
    /// The slots' sums are put right.
    sealed: bool,
    /// Bytes that the file is cut to, where that is fewer.
    len: Option<u16>,
}

fuzz_target!(|input: Input| {
    let mut files = Files::sound().clone();
    let bytes = files.0.get_mut(FILE).expect("it was closed");
    let slot_len = bytes.len() / 2;
    for slot in 0..2 {
        if input.slot < 2 && slot != usize::from(input.slot) {
            continue;
        }
        let slot = &mut bytes[slot * slot_len..(slot + 1) * slot_len];
        for (at, edit) in input.edits.iter().take(16) {
            let at = usize::from(*at);
            let end = (at + edit.len()).min(slot_len);
            slot[at..end].copy_from_slice(&edit[..end - at]);
        }
        if input.sealed {
            let payload = u32::from_be_bytes(slot[12..16].try_into().expect("four bytes")) as usize;
            if let Some(summed) = payload.checked_add(64).and_then(|end| slot.get(12..end)) {
                let sum = crc32fast::hash(summed);
                slot[8..12].copy_from_slice(&sum.to_be_bytes());
            }
        }
    }
    if let Some(len) = input.len {
        bytes.truncate(usize::from(len));
    }
    let changed = *bytes != Files::sound().0[FILE];
    let Some(read) = goes_on(&files.storage()) else { return };
    if !changed || (!input.sealed && input.len.is_none() && input.slot < 2) {
        // One slot of two holds still: nothing is lost.
        let expected: Vec<_> = (0..RECORDS).map(|offset| (offset, value(offset))).collect();
        assert_eq!((read.records, read.lost), (expected, Vec::new()));
    }
});

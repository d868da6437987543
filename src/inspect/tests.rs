//! The walk that all tools go by, over bytes of every kind: it ends, leaves no byte out, and never takes what is no
//! batch for one.

use std::sync::Arc;

use edgelog_core::{LeaderEpoch, Offset, TimestampMs, encode_one, stamp_base};
use proptest::prelude::*;

use crate::segment::walk::{Step, WalkRules, Walker};
use crate::storage::{Access, MemoryStorage, Storage};

/// Batches of one record each, from offset 0 on.
fn log(records: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for n in 0..records {
        let mut batch = [0; 256];
        let value = vec![b'v'; n % 90];
        let size = encode_one(&mut batch, TimestampMs(1000), Some(b"k"), Some(&value), &[]).unwrap();
        stamp_base(&mut batch, Offset(n as i64), LeaderEpoch(0));
        bytes.extend_from_slice(&batch[..size]);
    }
    bytes
}

/// Walks `bytes`; each step begins where the one before ended.
fn walk(bytes: &[u8], rules: WalkRules) -> Vec<(u64, Step)> {
    let storage = MemoryStorage::new();
    let file = storage.open("x.log", Access::CreateNew).unwrap();
    file.write_at(bytes, 0).unwrap();
    let mut walker = Walker::new(Arc::clone(&file), bytes.len() as u64, rules);
    let mut steps = Vec::new();
    loop {
        let begins = walker.position();
        let step = walker.next();
        match &step {
            Step::Batch { position } | Step::Zeros { position } => assert_eq!(*position, begins),
            Step::Damage(damage) => {
                assert_eq!(damage.position, begins);
                assert!(damage.resumes_at.is_none_or(|at| at > begins));
            }
            Step::End => {
                assert_eq!(begins, bytes.len() as u64);
                return steps;
            }
        }
        if let Step::Batch { .. } = &step {
            let batch = walker.batch();
            assert_eq!(batch.verify_crc(), Ok(()));
            assert!(rules.first_offset.is_none() || walker.next_offset() == walker.expected());
        }
        assert!(walker.position() > begins);
        steps.push((begins, step));
    }
}

const OWN: WalkRules = WalkRules { first_offset: Some(Offset(0)), contiguous: true, ..WalkRules::ANY };

/// Where batches were found, and the offset that each begins with.
fn found(bytes: &[u8], rules: WalkRules) -> Vec<(u64, Offset)> {
    let base_offset = |at: u64| Offset(i64::from_be_bytes(*bytes[at as usize..].first_chunk().unwrap()));
    let batches = |(position, step)| matches!(step, Step::Batch { .. }).then(|| (position, base_offset(position)));
    walk(bytes, rules).into_iter().filter_map(batches).collect()
}

/// No CRC covers a base offset. One that damage has raised, between batches that are damaged as well, or lowered to
/// zero, at the log's start, is not believed: it would hide all that follows, or what stands right behind.
#[test]
fn a_base_offset_that_damage_has_changed_hides_nothing() {
    let whole = log(20);
    let all = found(&whole, OWN);
    let place = |n: usize| all[n].0 as usize;
    for rules in [OWN, WalkRules { contiguous: false, ..OWN }] {
        for raised in [0x01, 0x7f] {
            let mut bytes = whole.clone();
            // Batch 4 to the first bytes of 6, and then 7: 6 holds, and says an offset beyond all others.
            bytes[place(4)..place(6) + 3].fill(raised);
            bytes[place(7) + 30..place(8)].fill(0);
            assert_eq!(found(&bytes, rules), [&all[..4], &all[8..]].concat(), "{raised}");
        }
    }
    let mut bytes = whole.clone();
    bytes[20..place(3) + 8].fill(0);
    assert_eq!(found(&bytes, OWN), all[4..]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_walked_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        walk(&bytes, WalkRules::ANY);
        walk(&bytes, OWN);
    }

    #[test]
    fn what_damage_leaves_is_found(
        edits in proptest::collection::vec((0_usize..6000, 1_usize..300, any::<u8>()), 0..4),
        zeros in 0_usize..200,
    ) {
        let whole = log(60);
        let mut bytes = whole.clone();
        for &(at, len, fill) in &edits {
            let end = (at + len).min(bytes.len());
            bytes.get_mut(at..end).unwrap_or_default().fill(fill);
        }
        bytes.resize(bytes.len() + zeros, 0);
        let found: Vec<u64> = walk(&bytes, OWN)
            .into_iter()
            .filter_map(|(position, step)| matches!(step, Step::Batch { .. }).then_some(position))
            .collect();
        // Every batch whose bytes are as they were.
        let untouched: Vec<u64> = walk(&whole, OWN)
            .into_iter()
            .map(|(position, _)| position)
            .filter(|&position| {
                let size = edgelog_core::RecordBatch::peek_size(&whole[position as usize..]).unwrap();
                let range = position as usize..position as usize + size;
                whole[range.clone()] == bytes[range]
            })
            .collect();
        prop_assert!(untouched.iter().all(|position| found.contains(position)), "{found:?} {untouched:?}");
    }
}

#![no_main]
//! A segment's bytes, damaged anywhere: the scan gives out the batches up to the damage and no other, asks for what it
//! lacks and never for more than there can be, and the search behind damage misses no batch that was left whole. A
//! walk that judges each batch with what stands behind it, and searches behind damage, comes to an end, and its offsets
//! rise.

use edgelog::edgelog_core::{
    CRC_START, Candidate, Continuation, Effort, HEADER_LEN, LeaderEpoch, Offset, Plausible, RecordBatch, Resync,
    ScanRules, ScanStep, Standing, TimestampMs, crc32c, encode_one, find_batch, resync, scan_step, stamp_base,
};
use libfuzzer_sys::{arbitrary, fuzz_target};

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    /// The value's length of each batch.
    lens: Vec<u8>,
    /// Where bytes are overwritten, and with what.
    edits: Vec<(u16, Vec<u8>)>,
    /// Bytes behind the last batch.
    tail: Vec<u8>,
    contiguous: bool,
    search_from: u16,
    budget: u16,
    /// Batches that say another last offset, with a checksum that holds; and other base offsets.
    last_offset_deltas: Vec<(u8, u32)>,
    base_offsets: Vec<(u8, i64)>,
}

fuzz_target!(|input: Input| {
    let lens = &input.lens[..input.lens.len().min(40)];
    let mut whole = Vec::new();
    let mut starts = Vec::new();
    for (n, &len) in lens.iter().enumerate() {
        let mut batch = [0; 512];
        let value = vec![len ^ 0x5a; usize::from(len)];
        let size = encode_one(&mut batch, TimestampMs(1000), Some(b"k"), Some(&value), &[]).expect("it fits");
        stamp_base(&mut batch, Offset(n as i64), LeaderEpoch(0));
        starts.push(whole.len());
        whole.extend_from_slice(&batch[..size]);
    }
    starts.push(whole.len());
    let mut bytes = whole.clone();
    bytes.extend_from_slice(&input.tail);
    for (at, edit) in &input.edits {
        let at = usize::from(*at).min(bytes.len());
        let len = edit.len().min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&edit[..len]);
    }
    scan(&bytes, &whole, &starts, input.contiguous);
    let from = usize::from(input.search_from).min(bytes.len());
    search(&bytes, &whole, &starts, from, input.contiguous, u64::from(input.budget));
    let start_of = |n: &u8| starts[usize::from(*n) % starts.len()];
    for (n, delta) in &input.last_offset_deltas {
        if let Some(batch) = bytes.get_mut(start_of(n)..).filter(|batch| RecordBatch::parse(batch).is_ok()) {
            let size = RecordBatch::parse(batch).expect("it was parsed").size();
            batch[23..27].copy_from_slice(&(delta & i32::MAX as u32).to_be_bytes());
            let crc = crc32c(&batch[CRC_START..size]);
            batch[17..21].copy_from_slice(&crc.to_be_bytes());
        }
    }
    for (n, base_offset) in &input.base_offsets {
        if let Some(field) = bytes.get_mut(start_of(n)..).and_then(|batch| batch.get_mut(..8)) {
            field.copy_from_slice(&base_offset.to_be_bytes());
        }
    }
    judge(&bytes, input.contiguous);
});

fn judge(bytes: &[u8], contiguous: bool) {
    let mut due = Continuation {
        next_offset: Offset(0),
        contiguous,
        offset_end: Offset(i64::MAX),
        durable_below: Offset(0),
        durable_position: 0,
        unbroken_from: Offset::MAX,
        epochs: None,
        epoch_before: None,
        check_crc: true,
    };
    let mut effort = Effort::for_segment(bytes.len() as u64);
    let mut position = 0;
    while position < bytes.len() as u64 {
        match due.judge_at(&mut &*bytes, position, &mut effort) {
            Standing::Batch { batch, .. } => {
                assert!(batch.position == position && batch.end > position && batch.end <= bytes.len() as u64);
                assert!(batch.base_offset >= due.next_offset && batch.next_offset > batch.base_offset);
                (position, due.next_offset) = (batch.end, batch.next_offset);
            }
            Standing::Damage(_) => {
                let found = resync(&mut &*bytes, position, position + 1, &due.plausible(), &mut effort);
                let Resync::Found(batch) = found else { break };
                assert!(batch.position > position && batch.base_offset >= due.next_offset);
                (position, due.next_offset) = (batch.position, batch.base_offset);
            }
            Standing::Stale => unreachable!("no epochs were given"),
            Standing::End | Standing::Cut { .. } => break,
        }
    }
}

fn scan(bytes: &[u8], whole: &[u8], starts: &[usize], contiguous: bool) {
    let mut rules = ScanRules {
        expected_offset: Some(Offset(0)),
        contiguous,
        epochs: None,
        batch_bytes_max: 1 << 16,
        check_crc: true,
    };
    let mut position = 0;
    loop {
        let rest = &bytes[position..];
        // With fewer bytes the verdict is the same, or one that asks for more.
        let mut given = 0;
        let step = loop {
            match scan_step(&rest[..given], &rules) {
                ScanStep::NeedMore { needed } => {
                    assert!(needed > given && needed <= 1 << 16, "asks for {needed} with {given}");
                    if needed > rest.len() {
                        break ScanStep::NeedMore { needed };
                    }
                    given = needed;
                }
                ScanStep::End if given < rest.len().min(HEADER_LEN) => given = rest.len().min(HEADER_LEN),
                step => break step,
            }
        };
        match step {
            ScanStep::Batch(batch) => {
                assert_eq!(batch.verify_crc(), Ok(()));
                assert!(batch.size() <= rest.len());
                position += batch.size();
                rules = rules.after(&batch);
            }
            ScanStep::WrongEpoch { .. } => unreachable!("no epochs were given"),
            ScanStep::End | ScanStep::NeedMore { .. } | ScanStep::Invalid(_) => break,
        }
    }
    // It went at least as far as the bytes are as they were.
    let same = bytes.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let untouched = starts.iter().copied().filter(|&start| start <= same).max().unwrap_or(0);
    assert!(position >= untouched, "the scan ends at {position}, whole up to {untouched}");
}

fn search(bytes: &[u8], whole: &[u8], starts: &[usize], from: usize, contiguous: bool, budget: u64) {
    let plausible = Plausible {
        offset_min: Offset(0),
        offset_end: Offset(i64::MAX),
        durable_below: Offset(0),
        durable_position: 0,
        contiguous,
        epochs: None,
    };
    let first_whole = starts
        .windows(2)
        .map(|pair| (pair[0], pair[1]))
        .find(|&(start, end)| start >= from && bytes.get(start..end).is_some_and(|found| found == &whole[start..end]));
    let all = find_batch(&mut &*bytes, from as u64, &plausible, &mut u64::MAX.clone());
    match all {
        Resync::Found(Candidate { position, .. }) => {
            let position = position as usize;
            let batch = RecordBatch::parse(&bytes[position..]).expect("what was found is a batch");
            assert_eq!(batch.verify_crc(), Ok(()));
            assert!(position >= from && first_whole.is_none_or(|(start, _)| position <= start));
        }
        Resync::Nothing => assert_eq!(first_whole, None, "a whole batch was missed"),
        Resync::OutOfEffort { .. } => unreachable!("the budget has no end"),
    }
    // In many searches with little effort each, the answer is the same.
    let mut at = from as u64;
    let piecewise = loop {
        let before = at;
        match find_batch(&mut &*bytes, at, &plausible, &mut budget.max(1 << 16).clone()) {
            Resync::OutOfEffort { unread_from } => at = unread_from,
            other => break other,
        }
        assert!(at > before, "a budget of one batch at least decides one place at least");
    };
    assert_eq!(piecewise, all);
}

//! Gaps: batches without records, as Kafka's own compaction leaves them: 61 bytes, valid in every rule, that say "the
//! offsets from here to there hold nothing". So a repaired log stays contiguous, and keeps the rule by which a stale
//! batch can never continue it.

use edgelog_core::{
    CRC_START, EpochTableView, HEADER_LEN, LeaderEpoch, MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, Offset, crc32c,
};

/// The batch that says that the offsets `first..next` hold no records.
fn gap_batch(first: Offset, next: Offset, epoch: LeaderEpoch) -> [u8; HEADER_LEN] {
    debug_assert!(first < next && next - first <= i64::from(i32::MAX), "a batch's offsets fit 31 bits");
    let mut bytes = [0; HEADER_LEN];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &first.0.to_be_bytes());
    put(8, &edgelog_core::BATCH_LENGTH_MIN.to_be_bytes());
    put(12, &epoch.0.to_be_bytes());
    put(16, &MAGIC.to_be_bytes());
    put(23, &((next - first - 1) as i32).to_be_bytes());
    put(27, &NO_TIMESTAMP.0.to_be_bytes());
    put(35, &NO_TIMESTAMP.0.to_be_bytes());
    put(43, &NO_PRODUCER_ID.to_be_bytes());
    put(51, &NO_PRODUCER_EPOCH.to_be_bytes());
    put(53, &NO_SEQUENCE.to_be_bytes());
    let crc = crc32c(&bytes[CRC_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The gap `first..next` as batches, each within one epoch.
pub(crate) fn gap_batches(first: Offset, next: Offset, epochs: EpochTableView<'_>) -> Vec<[u8; HEADER_LEN]> {
    let mut batches = Vec::new();
    let mut from = first;
    while from < next {
        let starts = epochs.entries().iter().map(|entry| entry.start_offset);
        let epoch_end = starts.filter(|&start| start > from).min().unwrap_or(Offset::MAX);
        let to = next.min(epoch_end).min(from.saturating_add(i64::from(i32::MAX)));
        batches.push(gap_batch(from, to, epochs.epoch_for(from).unwrap_or(NO_LEADER_EPOCH)));
        from = to;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgelog_core::{EpochEntry, EpochTableView, ScanRules, ScanStep, scan_step};

    /// Gaps are valid batches by every rule of a log, never cross an epoch, and cover exactly what was lost.
    #[test]
    fn gaps_are_valid_batches_without_records() {
        let entries = [
            EpochEntry { epoch: LeaderEpoch(0), start_offset: Offset(10) },
            EpochEntry { epoch: LeaderEpoch(4), start_offset: Offset(100) },
        ];
        let epochs = EpochTableView(&entries);
        for (first, next) in [(10, 11), (50, 100), (50, 150), (5, 200), (0, 5_000_000_000)] {
            let mut rules = ScanRules {
                expected_offset: Some(Offset(first)),
                contiguous: true,
                epochs: Some(epochs),
                batch_bytes_max: 1000,
                check_crc: true,
            };
            for bytes in gap_batches(Offset(first), Offset(next), epochs) {
                let ScanStep::Batch(batch) = scan_step(&bytes, &rules) else { panic!("{first} to {next}") };
                assert_eq!((batch.record_count(), batch.records().unwrap().count()), (0, 0));
                rules = rules.after(&batch);
            }
            assert_eq!(rules.expected_offset, Some(Offset(next)));
        }
    }
}

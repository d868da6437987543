//! Gaps: batches without records, as Kafka's own compaction leaves them: 61 bytes, valid in every rule, that say "the
//! offsets from here to there hold nothing". So a repaired log stays contiguous, and keeps the rule by which a stale
//! batch can never continue it.

use edgelog_core::{EpochTableView, HEADER_LEN, NO_LEADER_EPOCH, Offset, empty_batch};

/// The gap `first..next` as batches, each within one epoch.
pub(crate) fn gap_batches(first: Offset, next: Offset, epochs: EpochTableView<'_>) -> Vec<[u8; HEADER_LEN]> {
    let mut batches = Vec::new();
    let mut from = first;
    while from < next {
        let starts = epochs.entries().iter().map(|entry| entry.start_offset);
        let epoch_end = starts.filter(|&start| start > from).min().unwrap_or(Offset::MAX);
        let to = next.min(epoch_end).min(from.saturating_add(i64::from(i32::MAX)));
        batches.push(empty_batch(from, to, epochs.epoch_for(from).unwrap_or(NO_LEADER_EPOCH)));
        from = to;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgelog_core::{EpochEntry, EpochTableView, LeaderEpoch, ScanRules, ScanStep, scan_step};

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

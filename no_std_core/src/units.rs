//! The numbers that everything else is counted in, and Kafka's words for "none".

use core::fmt;

/// The number of a record in its log, from 0; in files and on the wire eight bytes, never negative in a
/// stored batch.
pub type Offset = i64;

/// Milliseconds since 1970-01-01 UTC; [`NO_TIMESTAMP`] where a record has none.
pub type TimestampMs = i64;

/// Which history of the log an offset belongs to: rises whenever bytes were taken back. [`NO_LEADER_EPOCH`]
/// for none.
pub type LeaderEpoch = i32;

/// A byte's place in its segment file. Segments stay below 2 GiB, since Kafka keeps positions in an `i32`.
pub type Position = u32;

/// The greatest offset at which a log ends: its last record has the one before. A batch's offsets reach at most 2^31
/// beyond its base offset, so nothing that is computed from an offset up to here overflows.
pub const OFFSET_MAX: Offset = Offset::MAX - (1 << 32);
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: TimestampMs = -1;
/// The leader epoch of a batch that no leader has taken yet.
pub const NO_LEADER_EPOCH: LeaderEpoch = -1;
/// The producer id of a batch whose producer is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// The producer epoch that goes with [`NO_PRODUCER_ID`].
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// The base sequence that goes with [`NO_PRODUCER_ID`].
pub const NO_SEQUENCE: i32 = -1;

/// A place in a log that stays meaningful after a crash took history back: the offset, and the epoch it was
/// seen in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetAndEpoch {
    /// The offset.
    pub offset: Offset,
    /// The leader epoch of the batch that holds it.
    pub leader_epoch: LeaderEpoch,
}

impl fmt::Display for OffsetAndEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of epoch {}", self.offset, self.leader_epoch)
    }
}

/// Where `bytes` first hold something other than zero, or `None` where they are all zeros.
///
/// Room that was reserved and not yet written reads as zeros, and nothing valid is ever all zeros: this is
/// how the end of a log is told from damage.
pub fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    // Whole blocks are or-ed together without a branch per byte, so that megabytes of zeros pass at memory speed.
    const BLOCK: usize = 64;
    let mut blocks = bytes.chunks_exact(BLOCK);
    let mut at = 0;
    for block in blocks.by_ref() {
        if block.iter().fold(0, |all, byte| all | byte) != 0 {
            return block.iter().position(|&byte| byte != 0).map(|inside| at + inside);
        }
        at += BLOCK;
    }
    blocks.remainder().iter().position(|&byte| byte != 0).map(|inside| at + inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn first_nonzero_agrees_with_the_plain_search() {
        for len in 0..200 {
            let mut bytes = std::vec![0_u8; len];
            assert_eq!(first_nonzero(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = 1;
                assert_eq!(first_nonzero(&bytes), bytes.iter().position(|&byte| byte != 0));
            }
        }
    }

    #[test]
    fn places_are_ordered_by_offset_first_and_read_well() {
        let low = OffsetAndEpoch { offset: 4, leader_epoch: 7 };
        let high = OffsetAndEpoch { offset: 5, leader_epoch: 1 };
        assert!(low < high);
        assert_eq!(format!("{low}"), "offset 4 of epoch 7");
    }
}

//! The numbers that everything else is counted in, and Kafka's words for "none".

use core::fmt;
use core::ops::{Add, AddAssign, Sub, SubAssign};

/// A number that is never another kind of number: an offset does not pass for a timestamp, nor the other way round.
/// It counts on by plain numbers, two of a kind have a plain number between them, and it prints as its number.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(
            /// The number itself. Any is allowed: what bytes say becomes one of these before it is judged.
            pub $number,
        );

        impl $name {
            /// The least that fits the number.
            pub const MIN: Self = Self(<$number>::MIN);
            /// The greatest that fits the number.
            pub const MAX: Self = Self(<$number>::MAX);

            /// This many further on; `None` where the number does not reach that far.
            pub const fn checked_add(self, count: $number) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// This many further on, at most [`MAX`](Self::MAX).
            #[must_use]
            pub const fn saturating_add(self, count: $number) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// This many further back, at least [`MIN`](Self::MIN).
            #[must_use]
            pub const fn saturating_sub(self, count: $number) -> Self {
                Self(self.0.saturating_sub(count))
            }

            /// This many further on, round the end of the number where it overflows.
            #[must_use]
            pub const fn wrapping_add(self, count: $number) -> Self {
                Self(self.0.wrapping_add(count))
            }

            /// How many lie between the other and this; `None` where that does not fit the number.
            pub const fn checked_since(self, other: Self) -> Option<$number> {
                self.0.checked_sub(other.0)
            }

            /// How many lie between the other and this, at most what fits the number.
            pub const fn saturating_since(self, other: Self) -> $number {
                self.0.saturating_sub(other.0)
            }
        }

        impl Add<$number> for $name {
            type Output = Self;

            fn add(self, count: $number) -> Self {
                Self(self.0 + count)
            }
        }

        impl AddAssign<$number> for $name {
            fn add_assign(&mut self, count: $number) {
                self.0 += count;
            }
        }

        impl Sub<$number> for $name {
            type Output = Self;

            fn sub(self, count: $number) -> Self {
                Self(self.0 - count)
            }
        }

        impl SubAssign<$number> for $name {
            fn sub_assign(&mut self, count: $number) {
                self.0 -= count;
            }
        }

        impl Sub for $name {
            type Output = $number;

            fn sub(self, other: Self) -> $number {
                self.0 - other.0
            }
        }

        impl PartialEq<$number> for $name {
            fn eq(&self, number: &$number) -> bool {
                self.0 == *number
            }
        }

        impl PartialOrd<$number> for $name {
            fn partial_cmp(&self, number: &$number) -> Option<core::cmp::Ordering> {
                self.0.partial_cmp(number)
            }
        }

        impl From<$number> for $name {
            fn from(number: $number) -> Self {
                Self(number)
            }
        }

        impl From<$name> for $number {
            fn from(quantity: $name) -> Self {
                quantity.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl core::str::FromStr for $name {
            type Err = core::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

quantity! {
    /// The number of a record in its log, from 0; in files and on the wire eight bytes, never negative in a
    /// stored batch.
    Offset(i64)
}

quantity! {
    /// Milliseconds since 1970-01-01 UTC; [`NO_TIMESTAMP`] where a record has none.
    TimestampMs(i64)
}

quantity! {
    /// Which history of the log an offset belongs to: rises whenever the log was truncated. [`NO_LEADER_EPOCH`]
    /// for none.
    LeaderEpoch(i32)
}

quantity! {
    /// A byte's place in its segment file. Segments stay below 2 GiB, since Kafka keeps positions in an `i32`.
    Position(u32)
}

impl From<Position> for u64 {
    fn from(position: Position) -> Self {
        Self::from(position.0)
    }
}

impl From<Position> for i64 {
    fn from(position: Position) -> Self {
        Self::from(position.0)
    }
}

/// The greatest offset at which a log ends: its last record has the one before. A batch's offsets reach at most 2^31
/// beyond its base offset, so nothing that is computed from an offset up to here overflows.
pub const OFFSET_MAX: Offset = Offset(i64::MAX - (1 << 32));
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: TimestampMs = TimestampMs(-1);
/// The leader epoch of a batch that no leader has taken yet.
pub const NO_LEADER_EPOCH: LeaderEpoch = LeaderEpoch(-1);
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
/// Room that was reserved and not yet written reads as zeros, and nothing valid is ever all zeros: this distinguishes
/// the end of a log from damage.
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
        let low = OffsetAndEpoch { offset: Offset(4), leader_epoch: LeaderEpoch(7) };
        let high = OffsetAndEpoch { offset: Offset(5), leader_epoch: LeaderEpoch(1) };
        assert!(low < high);
        assert_eq!(format!("{low}"), "offset 4 of epoch 7");
    }
}

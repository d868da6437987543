//! The time index of a segment: from which offset on to look for a timestamp.
//!
//! | byte | type | field |
//! |---|---|---|
//! | 0 | i64 | timestamp: the greatest in the segment so far |
//! | 8 | i32 | offset less the segment's base offset |
//!
//! Big-endian, strictly ascending in both columns, no header, no padding. The offset is the last one of the
//! batch that first reached the timestamp. Source: Kafka's `TimeIndex`. Never evidence about the log: what
//! does not hold is rebuilt.

use zerocopy::byteorder::big_endian::{I32, I64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::IndexError;
use crate::units::{NO_TIMESTAMP, Offset, TimestampMs};

/// Bytes of one entry.
pub const TIME_INDEX_ENTRY_LEN: usize = 12;

/// A greatest timestamp, and the last offset of the batch that first reached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeIndexEntry {
    /// In ms since 1970.
    pub timestamp: TimestampMs,
    /// The last offset of the batch.
    pub offset: Offset,
}

impl TimeIndexEntry {
    /// Its bytes in the index of the segment with this base offset, which is at most `i32::MAX` below the
    /// entry's.
    #[inline]
    pub fn encode(self, base_offset: Offset) -> [u8; TIME_INDEX_ENTRY_LEN] {
        let relative = self.offset.0.wrapping_sub(base_offset.0);
        debug_assert!((0..=i64::from(i32::MAX)).contains(&relative), "the segment rolls before offsets outgrow it");
        zerocopy::transmute!(Raw { timestamp: self.timestamp.0.into(), relative: (relative as i32).into() })
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    timestamp: I64,
    relative: I32,
}

impl Raw {
    #[inline]
    fn entry(self, base_offset: Offset) -> TimeIndexEntry {
        TimeIndexEntry {
            timestamp: TimestampMs(self.timestamp.get()),
            // Saturates only where a hostile base offset stands near the end of all numbers.
            offset: base_offset.saturating_add(i64::from(self.relative.get())),
        }
    }
}

/// The bytes of a time index, as a sorted table.
///
/// The lookup trusts the order that [`check`](Self::check) establishes; over damaged bytes it still ends and
/// answers *some* entry.
#[derive(Debug, Clone, Copy)]
pub struct TimeIndex<'a> {
    bytes: &'a [u8],
    base_offset: Offset,
}

impl<'a> TimeIndex<'a> {
    /// The index in `bytes` of the segment with this base offset. An incomplete entry at the end is ignored.
    #[inline]
    pub const fn new(bytes: &'a [u8], base_offset: Offset) -> Self {
        Self { bytes, base_offset }
    }

    /// How many entries there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.bytes.len() / TIME_INDEX_ENTRY_LEN
    }

    /// Whether there is no entry.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry with this number, from 0.
    #[inline]
    pub fn entry(&self, n: usize) -> Option<TimeIndexEntry> {
        self.table().get(n).map(|raw| raw.entry(self.base_offset))
    }

    /// All entries in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = TimeIndexEntry> + DoubleEndedIterator + use<'a> {
        let base_offset = self.base_offset;
        self.table().iter().map(move |raw| raw.entry(base_offset))
    }

    /// The last entry.
    #[inline]
    pub fn last(&self) -> Option<TimeIndexEntry> {
        self.table().last().map(|raw| raw.entry(self.base_offset))
    }

    /// The greatest entry at or below `target`, or `(NO_TIMESTAMP, base offset)`: no record before its offset
    /// is later than its timestamp.
    #[inline]
    pub fn lookup(&self, target: TimestampMs) -> TimeIndexEntry {
        let n = self.table().partition_point(|raw| raw.timestamp.get() <= target.0);
        let start = TimeIndexEntry { timestamp: NO_TIMESTAMP, offset: self.base_offset };
        n.checked_sub(1).and_then(|n| self.entry(n)).unwrap_or(start)
    }

    /// Checks everything that an index can be held to without its log.
    ///
    /// One true entry fails: all records at timestamp 0 and the first batch a single record. It costs a
    /// rebuild, and nothing else is ever all zeros.
    ///
    /// # Errors
    /// `PartialEntry`, `ZeroEntry`, `NotAscending`.
    pub fn check(&self) -> Result<(), IndexError> {
        if self.bytes.len() % TIME_INDEX_ENTRY_LEN != 0 {
            return Err(IndexError::PartialEntry { len: self.bytes.len(), entry_len: TIME_INDEX_ENTRY_LEN });
        }
        let (mut timestamp_before, mut offset_before) = (NO_TIMESTAMP.0, -1);
        for (entry, raw) in self.table().iter().enumerate() {
            let (timestamp, relative) = (raw.timestamp.get(), i64::from(raw.relative.get()));
            if timestamp == 0 && relative == 0 {
                return Err(IndexError::ZeroEntry { entry });
            }
            if timestamp <= timestamp_before {
                return Err(IndexError::NotAscending { entry, previous: timestamp_before, found: timestamp });
            }
            if relative <= offset_before {
                return Err(IndexError::NotAscending { entry, previous: offset_before, found: relative });
            }
            (timestamp_before, offset_before) = (timestamp, relative);
        }
        Ok(())
    }

    #[inline]
    fn table(&self) -> &'a [Raw] {
        let whole = self.len() * TIME_INDEX_ENTRY_LEN;
        self.bytes.get(..whole).and_then(|bytes| <[Raw]>::ref_from_bytes(bytes).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn an_entry_is_these_twelve_bytes() {
        let entry = TimeIndexEntry { timestamp: TimestampMs(0x0102_0304_0506_0708), offset: Offset(100 + 0x1122_3344) };
        let bytes = entry.encode(Offset(100));
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x22, 0x33, 0x44]);
        assert_eq!(TimeIndex::new(&bytes, Offset(100)).last(), Some(entry));
        assert_eq!(TimeIndex::new(&bytes, Offset(100)).check(), Ok(()));
    }

    #[test]
    fn what_does_not_hold_is_reported() {
        let entry = |timestamp, offset| TimeIndexEntry { timestamp, offset }.encode(Offset(0));
        let check = |bytes: &[u8]| TimeIndex::new(bytes, Offset(0)).check();
        assert_eq!(check(&[0; 13]), Err(IndexError::PartialEntry { len: 13, entry_len: 12 }));
        assert_eq!(check(&[0; 12]), Err(IndexError::ZeroEntry { entry: 0 }));
        assert_eq!(
            check(&[entry(TimestampMs(5), Offset(0)), entry(TimestampMs(6), Offset(1)), [0; 12]].concat()),
            Err(IndexError::ZeroEntry { entry: 2 })
        );
        let same_time = IndexError::NotAscending { entry: 1, previous: 5, found: 5 };
        assert_eq!(
            check(&[entry(TimestampMs(5), Offset(0)), entry(TimestampMs(5), Offset(1))].concat()),
            Err(same_time)
        );
        let same_offset = IndexError::NotAscending { entry: 1, previous: 3, found: 3 };
        assert_eq!(
            check(&[entry(TimestampMs(5), Offset(3)), entry(TimestampMs(6), Offset(3))].concat()),
            Err(same_offset)
        );
    }

    proptest! {
        #[test]
        fn lookup_is_the_linear_scan(
            steps in proptest::collection::vec((1_i64..50, 1_i64..50), 0..200),
            base in 0_i64..1_000_000,
            target in -10_i64..12_000,
        ) {
            let (mut bytes, mut entries) = (Vec::new(), Vec::new());
            let mut entry = TimeIndexEntry { timestamp: NO_TIMESTAMP, offset: Offset(base) };
            for (time, offsets) in steps {
                entry = TimeIndexEntry { timestamp: entry.timestamp + time, offset: entry.offset + offsets };
                entries.push(entry);
                bytes.extend_from_slice(&entry.encode(Offset(base)));
            }
            let index = TimeIndex::new(&bytes, Offset(base));
            prop_assert_eq!(index.check(), Ok(()));
            prop_assert_eq!(index.entries().collect::<Vec<_>>(), entries.clone());
            let start = TimeIndexEntry { timestamp: NO_TIMESTAMP, offset: Offset(base) };
            let expected = entries.iter().rfind(|entry| entry.timestamp <= target).copied().unwrap_or(start);
            prop_assert_eq!(index.lookup(TimestampMs(target)), expected);
        }

        #[test]
        fn any_bytes_are_looked_up_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            base: i64,
            target: i64,
        ) {
            let index = TimeIndex::new(&bytes, Offset(base));
            let _ = (index.lookup(TimestampMs(target)), index.check(), index.last());
        }
    }
}

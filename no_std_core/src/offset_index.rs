//! The offset index of a segment: where in the file to start looking for an offset.
//!
//! | byte | type | field |
//! |---|---|---|
//! | 0 | i32 | offset less the segment's base offset |
//! | 4 | i32 | position in the `.log` file |
//!
//! Big-endian, strictly ascending in both columns, no header, no padding. An entry names the *last* offset of
//! a batch and where that batch starts. Source: Kafka's `OffsetIndex`. Never evidence about the log: what
//! does not hold is rebuilt.

use zerocopy::byteorder::big_endian::{I32, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::error::IndexError;
use crate::units::{Offset, Position};

/// Bytes of one entry.
pub const OFFSET_INDEX_ENTRY_LEN: usize = 8;

/// The last offset of a batch, and where the batch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetIndexEntry {
    /// The batch's last offset.
    pub offset: Offset,
    /// Where the batch starts in the segment's file.
    pub position: Position,
}

impl OffsetIndexEntry {
    /// Its bytes in the index of the segment with this base offset, which is at most `i32::MAX` below the
    /// entry's.
    #[inline]
    pub fn encode(self, base_offset: Offset) -> [u8; OFFSET_INDEX_ENTRY_LEN] {
        let relative = self.offset.0.wrapping_sub(base_offset.0);
        debug_assert!((0..=i64::from(i32::MAX)).contains(&relative), "the segment rolls before offsets outgrow it");
        zerocopy::transmute!(Raw { relative: (relative as i32).into(), position: self.position.0.into() })
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct Raw {
    relative: I32,
    position: U32,
}

impl Raw {
    #[inline]
    fn entry(self, base_offset: Offset) -> OffsetIndexEntry {
        OffsetIndexEntry {
            // Saturates only where a hostile base offset stands near the end of all numbers.
            offset: base_offset.saturating_add(i64::from(self.relative.get())),
            position: Position(self.position.get()),
        }
    }
}

/// The bytes of an offset index, as a sorted table.
///
/// The lookups trust the order that [`check`](Self::check) establishes; over damaged bytes they still end and
/// answer *some* entry.
#[derive(Debug, Clone, Copy)]
pub struct OffsetIndex<'a> {
    bytes: &'a [u8],
    base_offset: Offset,
}

impl<'a> OffsetIndex<'a> {
    /// The index in `bytes` of the segment with this base offset. An incomplete entry at the end is ignored.
    #[inline]
    pub const fn new(bytes: &'a [u8], base_offset: Offset) -> Self {
        Self { bytes, base_offset }
    }

    /// How many entries there are.
    #[inline]
    pub const fn len(&self) -> usize {
        self.bytes.len() / OFFSET_INDEX_ENTRY_LEN
    }

    /// Whether there is no entry.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry with this number, from 0.
    #[inline]
    pub fn entry(&self, n: usize) -> Option<OffsetIndexEntry> {
        self.table().get(n).map(|raw| raw.entry(self.base_offset))
    }

    /// All entries in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = OffsetIndexEntry> + DoubleEndedIterator + use<'a> {
        let base_offset = self.base_offset;
        self.table().iter().map(move |raw| raw.entry(base_offset))
    }

    /// The last entry.
    #[inline]
    pub fn last(&self) -> Option<OffsetIndexEntry> {
        self.table().last().map(|raw| raw.entry(self.base_offset))
    }

    /// Where to start looking for `target`: the greatest entry at or below it, or the segment's start.
    #[inline]
    pub fn lookup(&self, target: Offset) -> OffsetIndexEntry {
        let relative = target.saturating_since(self.base_offset);
        let table = self.table();
        self.before(table.partition_point(|raw| i64::from(raw.relative.get()) <= relative))
    }

    /// The greatest entry whose batch starts at or before `position`, or the segment's start.
    #[inline]
    pub fn lookup_position(&self, position: Position) -> OffsetIndexEntry {
        let table = self.table();
        self.before(table.partition_point(|raw| raw.position.get() <= position.0))
    }

    /// Checks everything that an index can be held to without its log.
    ///
    /// # Errors
    /// `PartialEntry`, `ZeroEntry`, `NotAscending`.
    pub fn check(&self) -> Result<(), IndexError> {
        if self.bytes.len() % OFFSET_INDEX_ENTRY_LEN != 0 {
            return Err(IndexError::PartialEntry { len: self.bytes.len(), entry_len: OFFSET_INDEX_ENTRY_LEN });
        }
        // The first batch of a segment is never indexed: relative offsets and positions both start above 0, and a
        // position with its top bit set passes what the format's i32 holds.
        let (mut offset_before, mut position_before) = (0, 0);
        for (entry, raw) in self.table().iter().enumerate() {
            let (relative, position) = (i64::from(raw.relative.get()), i64::from(raw.position.get() as i32));
            if relative == 0 && position == 0 {
                return Err(IndexError::ZeroEntry { entry });
            }
            if relative <= offset_before {
                return Err(IndexError::NotAscending { entry, previous: offset_before, found: relative });
            }
            if position <= position_before {
                return Err(IndexError::NotAscending { entry, previous: position_before, found: position });
            }
            (offset_before, position_before) = (relative, position);
        }
        Ok(())
    }

    #[inline]
    fn table(&self) -> &'a [Raw] {
        let whole = self.len() * OFFSET_INDEX_ENTRY_LEN;
        self.bytes.get(..whole).and_then(|bytes| <[Raw]>::ref_from_bytes(bytes).ok()).unwrap_or_default()
    }

    #[inline]
    fn before(&self, n: usize) -> OffsetIndexEntry {
        let start = OffsetIndexEntry { offset: self.base_offset, position: Position(0) };
        n.checked_sub(1).and_then(|n| self.entry(n)).unwrap_or(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn an_entry_is_these_eight_bytes() {
        let entry = OffsetIndexEntry { offset: Offset(1244 + 0x0102_0304), position: Position(0x1122_3344) };
        let bytes = entry.encode(Offset(1244));
        assert_eq!(bytes, [1, 2, 3, 4, 0x11, 0x22, 0x33, 0x44]);
        assert_eq!(OffsetIndex::new(&bytes, Offset(1244)).entry(0), Some(entry));
    }

    #[test]
    fn a_part_entry_is_ignored_and_reported() {
        let bytes = [0, 0, 0, 9, 0, 0, 0, 5, 0, 0];
        let index = OffsetIndex::new(&bytes, Offset(0));
        assert_eq!(index.len(), 1);
        assert_eq!(index.last(), Some(OffsetIndexEntry { offset: Offset(9), position: Position(5) }));
        assert_eq!(index.check(), Err(IndexError::PartialEntry { len: 10, entry_len: 8 }));
    }

    #[test]
    fn an_entry_of_zeros_is_reported() {
        assert_eq!(OffsetIndex::new(&[0; 8], Offset(5)).check(), Err(IndexError::ZeroEntry { entry: 0 }));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&OffsetIndexEntry { offset: Offset(9), position: Position(5) }.encode(Offset(0)));
        assert_eq!(OffsetIndex::new(&bytes, Offset(0)).check(), Err(IndexError::ZeroEntry { entry: 1 }));
    }

    #[test]
    fn columns_that_do_not_rise_are_reported() {
        let first = OffsetIndexEntry { offset: Offset(9), position: Position(5) }.encode(Offset(0));
        for (second, error) in [
            ((9, 6), IndexError::NotAscending { entry: 1, previous: 9, found: 9 }),
            ((10, 5), IndexError::NotAscending { entry: 1, previous: 5, found: 5 }),
            ((10, 0x8000_0000), IndexError::NotAscending { entry: 1, previous: 5, found: i64::from(i32::MIN) }),
        ] {
            let second = OffsetIndexEntry { offset: Offset(second.0), position: Position(second.1) }.encode(Offset(0));
            assert_eq!(OffsetIndex::new(&[first, second].concat(), Offset(0)).check(), Err(error));
        }
    }

    #[test]
    fn hostile_bases_do_not_overflow() {
        let bytes = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1];
        assert_eq!(OffsetIndex::new(&bytes, Offset(i64::MAX)).lookup(Offset(i64::MIN)).offset, i64::MAX);
        assert_eq!(OffsetIndex::new(&bytes, Offset(i64::MAX)).last().unwrap().offset, i64::MAX);
        assert_eq!(OffsetIndex::new(&bytes, Offset(i64::MIN)).lookup(Offset(i64::MAX)).position, 1);
    }

    proptest! {
        #[test]
        fn lookups_are_the_linear_scan(
            steps in proptest::collection::vec((1_i64..50, 1_u32..5000), 0..200),
            base in 0_i64..1_000_000,
            target in -10_i64..12_000,
            position in 0_u32..1_200_000,
        ) {
            let (mut bytes, mut entries) = (Vec::new(), Vec::new());
            let mut entry = OffsetIndexEntry { offset: Offset(base), position: Position(0) };
            for (offsets, length) in steps {
                entry = OffsetIndexEntry { offset: entry.offset + offsets, position: entry.position + length };
                entries.push(entry);
                bytes.extend_from_slice(&entry.encode(Offset(base)));
            }
            let index = OffsetIndex::new(&bytes, Offset(base));
            prop_assert_eq!(index.check(), Ok(()));
            prop_assert_eq!(index.entries().collect::<Vec<_>>(), entries.clone());
            let start = OffsetIndexEntry { offset: Offset(base), position: Position(0) };
            let by_offset = entries.iter().rfind(|entry| entry.offset <= base + target).copied().unwrap_or(start);
            prop_assert_eq!(index.lookup(Offset(base + target)), by_offset);
            let by_position = entries.iter().rfind(|entry| entry.position <= position).copied().unwrap_or(start);
            prop_assert_eq!(index.lookup_position(Position(position)), by_position);
        }

        #[test]
        fn any_bytes_are_looked_up_without_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            base: i64,
            target: i64,
            position: u32,
        ) {
            let index = OffsetIndex::new(&bytes, Offset(base));
            let _ = (index.lookup(Offset(target)), index.lookup_position(Position(position)));
            let _ = (index.check(), index.last());
        }
    }
}

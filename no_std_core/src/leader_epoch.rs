//! Which leader epoch began at which offset.
//!
//! Epochs and start offsets both rise strictly. As text, Kafka's `leader-epoch-checkpoint`:
//!
//! ```text
//! 0                  version
//! 2                  number of entries
//! 0 0                epoch, start offset
//! 3 1244
//! ```
//!
//! Source: Kafka's `LeaderEpochFileCache` and `CheckpointFile`.

use crate::error::EpochError;
use crate::units::{LeaderEpoch, Offset, OffsetAndEpoch};

/// The highest leader epoch that a log comes to. A log that raised its epoch every second would need 34 years for it; a
/// higher one in a batch or in a file is damage, since no checksum covers a batch's epoch field.
pub const LEADER_EPOCH_MAX: LeaderEpoch = LeaderEpoch(i32::MAX / 2);
/// Between two batches of one log the leader epoch rises by at most this, unless more than one batch says so.
pub const LEADER_EPOCH_RISE_MAX: LeaderEpoch = LeaderEpoch((1 << 20) - 1);

/// An epoch, and the first offset that was written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EpochEntry {
    /// The epoch, 0 or more.
    pub epoch: LeaderEpoch,
    /// Its first offset.
    pub start_offset: Offset,
}

/// The epochs of a log, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EpochTableView<'a>(pub &'a [EpochEntry]);

impl<'a> EpochTableView<'a> {
    /// The entries, oldest first.
    #[inline]
    pub const fn entries(&self) -> &'a [EpochEntry] {
        self.0
    }

    /// The epoch that `offset` was (or, at the log's end, would be) written in; `None` before the first
    /// entry.
    #[inline]
    pub fn epoch_for(&self, offset: Offset) -> Option<LeaderEpoch> {
        // Nearly every question is about the newest epoch.
        match self.0.last() {
            Some(last) if last.start_offset <= offset => Some(last.epoch),
            _ => {
                let n = self.0.partition_point(|entry| entry.start_offset <= offset);
                n.checked_sub(1).and_then(|n| self.0.get(n)).map(|entry| entry.epoch)
            }
        }
    }

    /// The newest entry.
    #[inline]
    pub fn latest(&self) -> Option<EpochEntry> {
        self.0.last().copied()
    }

    /// Where the history of `epoch` ends: the answer to Kafka's `OffsetForLeaderEpoch`.
    ///
    /// The newest epoch ends at `log_end_offset`. An older one, or one that this log never had, ends where
    /// the next higher one starts, and is returned with the greatest epoch at or below it that the log does have
    /// (itself where there is none). `None` for an epoch above the newest, or below 0.
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> Option<OffsetAndEpoch> {
        let latest = self.latest()?;
        if epoch < 0 {
            return None;
        }
        if epoch == latest.epoch {
            return Some(OffsetAndEpoch { offset: log_end_offset, leader_epoch: epoch });
        }
        let n = self.0.partition_point(|entry| entry.epoch <= epoch);
        let higher = self.0.get(n)?;
        let leader_epoch = n.checked_sub(1).and_then(|n| self.0.get(n)).map_or(epoch, |floor| floor.epoch);
        Some(OffsetAndEpoch { offset: higher.start_offset, leader_epoch })
    }

    /// Checks that nothing is negative and both columns rise strictly.
    ///
    /// # Errors
    /// `Negative`, `NotAscending`.
    pub fn check(&self) -> Result<(), EpochError> {
        let mut before: Option<&EpochEntry> = None;
        for (n, entry) in self.0.iter().enumerate() {
            if entry.epoch < 0 || entry.start_offset < 0 {
                return Err(EpochError::Negative { entry: n });
            }
            if before.is_some_and(|b| b.epoch >= entry.epoch || b.start_offset >= entry.start_offset) {
                return Err(EpochError::NotAscending { entry: n });
            }
            before = Some(entry);
        }
        Ok(())
    }
}

/// What a batch's leader epoch field says about the table of a log whose epochs are learned from its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LearnedEpoch {
    /// Nothing new: the log is in this epoch or in a later one.
    Known,
    /// An epoch began here.
    Begins(EpochEntry),
    /// The epoch rises by more than [`LEADER_EPOCH_RISE_MAX`], and no other batch confirms it. It counts once the next
    /// batch does.
    Doubted(EpochEntry),
    /// A log comes to no such epoch: negative, or above [`LEADER_EPOCH_MAX`]. The field is damaged.
    Impossible,
}

/// Judges the epoch field of one batch, where nothing but the batches says which epochs a log had.
///
/// `latest` is the newest epoch learned so far, `doubted` what the batch before this one was answered as
/// [`Doubted`](LearnedEpoch::Doubted), `seen` this batch's epoch and base offset. One flipped bit in one batch must not
/// decide the epoch of the whole log: a far jump needs two batches.
pub fn judge_learned_epoch(latest: Option<LeaderEpoch>, doubted: Option<EpochEntry>, seen: EpochEntry) -> LearnedEpoch {
    let rises_little = |from: LeaderEpoch| (0..=LEADER_EPOCH_RISE_MAX.0).contains(&seen.epoch.saturating_since(from));
    if !(LeaderEpoch(0)..=LEADER_EPOCH_MAX).contains(&seen.epoch) || seen.start_offset < 0 {
        return LearnedEpoch::Impossible;
    }
    match (latest, doubted) {
        (Some(latest), _) if seen.epoch <= latest => LearnedEpoch::Known,
        (Some(latest), _) if rises_little(latest) => LearnedEpoch::Begins(seen),
        (_, Some(doubted)) if rises_little(doubted.epoch) => {
            LearnedEpoch::Begins(EpochEntry { epoch: doubted.epoch, start_offset: doubted.start_offset })
        }
        // The batches before this one belong to some epoch: to the first that is believed.
        (None, doubted) if rises_little(LeaderEpoch(0)) => {
            let start_offset = doubted.map_or(seen.start_offset, |doubted| doubted.start_offset.min(seen.start_offset));
            LearnedEpoch::Begins(EpochEntry { epoch: seen.epoch, start_offset })
        }
        _ => LearnedEpoch::Doubted(seen),
    }
}

#[cfg(feature = "alloc")]
pub use table::{EpochLearner, EpochTable};

#[cfg(feature = "alloc")]
mod table {
    use alloc::vec::Vec;
    use core::fmt;
    use core::str::FromStr;

    use super::{EpochEntry, EpochTableView, LEADER_EPOCH_MAX, LearnedEpoch, judge_learned_epoch};
    use crate::error::EpochError;
    use crate::units::{LeaderEpoch, Offset};

    /// The epochs of a log, oldest first, owned. [`Display`](fmt::Display) and [`FromStr`] are the
    /// checkpoint's text.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct EpochTable(Vec<EpochEntry>);

    impl EpochTable {
        /// A table without entries.
        pub const fn new() -> Self {
            Self(Vec::new())
        }

        /// A table of these entries.
        ///
        /// # Errors
        /// As [`EpochTableView::check`].
        pub fn from_entries(entries: Vec<EpochEntry>) -> Result<Self, EpochError> {
            EpochTableView(&entries).check()?;
            Ok(Self(entries))
        }

        /// A table of those of `entries` that a log can have, and how many were left out: negative ones, epochs above
        /// [`LEADER_EPOCH_MAX`], and what does not rise over the entry before it.
        pub fn from_possible_entries(entries: &[EpochEntry]) -> (Self, usize) {
            let mut kept: Vec<EpochEntry> = Vec::new();
            for entry in entries {
                let rises =
                    kept.last().is_none_or(|last| last.epoch < entry.epoch && last.start_offset < entry.start_offset);
                if rises && (LeaderEpoch(0)..=LEADER_EPOCH_MAX).contains(&entry.epoch) && entry.start_offset >= 0 {
                    kept.push(*entry);
                }
            }
            let left_out = entries.len() - kept.len();
            (Self(kept), left_out)
        }

        /// The table to ask questions of.
        #[inline]
        pub fn view(&self) -> EpochTableView<'_> {
            EpochTableView(&self.0)
        }

        /// Begins `epoch` at `start_offset`; entries that start there or later, or whose epoch is not lower,
        /// are replaced. Says whether anything changed: it does not where `epoch` is the newest
        /// already and starts no later. Negative ones are refused.
        pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
            if epoch < 0 || start_offset < 0 {
                return false;
            }
            if self.0.last().is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset) {
                return false;
            }
            while self.0.last().is_some_and(|last| last.epoch >= epoch || last.start_offset >= start_offset) {
                self.0.pop();
            }
            self.0.push(EpochEntry { epoch, start_offset });
            true
        }

        /// The log now ends at `end_offset`: entries that start there or later go. Says whether any did.
        pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
            let before = self.0.len();
            let kept = self.0.partition_point(|entry| entry.start_offset < end_offset);
            self.0.truncate(kept);
            kept != before
        }

        /// The log now starts at `start_offset`: entries before it go, and the epoch that it lies in starts
        /// there. Says whether anything changed.
        pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
            let through = self.0.partition_point(|entry| entry.start_offset <= start_offset);
            let Some(holds) = through.checked_sub(1) else { return false };
            let Some(entry) = self.0.get_mut(holds) else { return false };
            let moved = entry.start_offset != start_offset;
            entry.start_offset = start_offset;
            self.0.drain(..holds);
            moved || holds > 0
        }
    }

    /// Learns a table of epochs from a log's batches, in their order. See [`judge_learned_epoch`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct EpochLearner {
        doubted: Option<EpochEntry>,
    }

    impl EpochLearner {
        /// Takes one batch's epoch and base offset into account. Says whether the table changed.
        pub fn learn(&mut self, table: &mut EpochTable, epoch: LeaderEpoch, base_offset: Offset) -> bool {
            let seen = EpochEntry { epoch, start_offset: base_offset };
            let latest = table.view().latest().map(|entry| entry.epoch);
            match judge_learned_epoch(latest, self.doubted, seen) {
                LearnedEpoch::Begins(entry) => {
                    self.doubted = None;
                    let changed = table.assign(entry.epoch, entry.start_offset);
                    // What confirmed a far epoch may have begun a later one.
                    (seen.epoch > entry.epoch && table.assign(seen.epoch, seen.start_offset)) || changed
                }
                LearnedEpoch::Doubted(entry) => {
                    self.doubted = Some(entry);
                    false
                }
                LearnedEpoch::Known => {
                    self.doubted = None;
                    false
                }
                LearnedEpoch::Impossible => false,
            }
        }
    }

    impl fmt::Display for EpochTable {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            writeln!(f, "0\n{}", self.0.len())?;
            self.0.iter().try_for_each(|entry| writeln!(f, "{} {}", entry.epoch, entry.start_offset))
        }
    }

    impl FromStr for EpochTable {
        type Err = EpochError;

        fn from_str(text: &str) -> Result<Self, EpochError> {
            let mut lines = text.lines();
            if lines.next().map(str::trim) != Some("0") {
                return Err(EpochError::BadVersion);
            }
            let count = lines.next().and_then(|line| line.trim().parse::<usize>().ok());
            let declared = count.ok_or(EpochError::BadLine { line: 2 })?;
            // Not reserved from `declared`: the text's own length bounds what is allocated.
            let mut entries = Vec::new();
            for (n, line) in lines.enumerate() {
                let mut words = line.split_ascii_whitespace();
                let entry = match (words.next(), words.next(), words.next()) {
                    (Some(epoch), Some(start_offset), None) => epoch.parse().ok().zip(start_offset.parse().ok()),
                    _ => None,
                };
                let (epoch, start_offset) = entry.ok_or(EpochError::BadLine { line: n + 3 })?;
                entries.push(EpochEntry { epoch, start_offset });
            }
            if entries.len() != declared {
                return Err(EpochError::BadCount { declared, found: entries.len() });
            }
            Self::from_entries(entries)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [EpochEntry; 3] = [
        EpochEntry { epoch: LeaderEpoch(0), start_offset: Offset(10) },
        EpochEntry { epoch: LeaderEpoch(2), start_offset: Offset(20) },
        EpochEntry { epoch: LeaderEpoch(5), start_offset: Offset(30) },
    ];

    #[test]
    fn every_offset_has_the_epoch_of_the_entry_before_it() {
        let view = EpochTableView(&TABLE);
        for (offset, epoch) in [
            (-5, None),
            (9, None),
            (10, Some(0)),
            (19, Some(0)),
            (20, Some(2)),
            (29, Some(2)),
            (30, Some(5)),
            (99, Some(5)),
        ] {
            assert_eq!(view.epoch_for(Offset(offset)), epoch.map(LeaderEpoch), "{offset}");
        }
        assert_eq!(EpochTableView(&[]).epoch_for(Offset(0)), None);
    }

    #[test]
    fn histories_end_where_kafka_says() {
        let view = EpochTableView(&TABLE);
        let end = |epoch| view.end_offset_for(epoch, Offset(40)).map(|end| (end.leader_epoch, end.offset));
        assert_eq!(end(LeaderEpoch(-1)), None);
        assert_eq!(end(LeaderEpoch(0)), Some((LeaderEpoch(0), Offset(20))));
        assert_eq!(end(LeaderEpoch(1)), Some((LeaderEpoch(0), Offset(20))));
        assert_eq!(end(LeaderEpoch(2)), Some((LeaderEpoch(2), Offset(30))));
        assert_eq!(end(LeaderEpoch(4)), Some((LeaderEpoch(2), Offset(30))));
        assert_eq!(end(LeaderEpoch(5)), Some((LeaderEpoch(5), Offset(40))));
        assert_eq!(end(LeaderEpoch(6)), None);
        // Below all that the log still has: the asked epoch itself, up to the first entry.
        let later = EpochTableView(&TABLE[1..]);
        assert_eq!(
            later.end_offset_for(LeaderEpoch(1), Offset(40)),
            Some(OffsetAndEpoch { offset: Offset(20), leader_epoch: LeaderEpoch(1) })
        );
        assert_eq!(EpochTableView(&[]).end_offset_for(LeaderEpoch(0), Offset(40)), None);
    }

    #[test]
    fn tables_that_do_not_rise_are_refused() {
        assert_eq!(EpochTableView(&TABLE).check(), Ok(()));
        let mut table = TABLE;
        table[2].start_offset = Offset(20);
        assert_eq!(EpochTableView(&table).check(), Err(EpochError::NotAscending { entry: 2 }));
        table[2] = EpochEntry { epoch: LeaderEpoch(2), start_offset: Offset(30) };
        assert_eq!(EpochTableView(&table).check(), Err(EpochError::NotAscending { entry: 2 }));
        table[0].epoch = LeaderEpoch(-1);
        assert_eq!(EpochTableView(&table).check(), Err(EpochError::Negative { entry: 0 }));
    }

    fn at(epoch: i32, start_offset: i64) -> EpochEntry {
        EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(start_offset) }
    }

    #[test]
    fn one_batch_alone_makes_no_far_jump() {
        use LearnedEpoch::{Begins, Doubted, Impossible, Known};
        let far = 1 << 29;
        for (latest, doubted, seen, expected) in [
            (None, None, at(0, 5), Begins(at(0, 5))),
            (None, None, at(7000, 5), Begins(at(7000, 5))),
            (Some(3), None, at(3, 9), Known),
            (Some(3), None, at(2, 9), Known),
            (Some(3), None, at(4, 9), Begins(at(4, 9))),
            (Some(3), None, at(3 + LEADER_EPOCH_RISE_MAX.0, 9), Begins(at(3 + LEADER_EPOCH_RISE_MAX.0, 9))),
            (Some(3), None, at(far, 9), Doubted(at(far, 9))),
            (None, None, at(far, 0), Doubted(at(far, 0))),
            // Two batches say the same, or nearly.
            (Some(3), Some(at(far, 9)), at(far, 10), Begins(at(far, 9))),
            (None, Some(at(far, 0)), at(far + 2, 10), Begins(at(far, 0))),
            // The second one does not.
            (Some(3), Some(at(far, 9)), at(3, 10), Known),
            (Some(3), Some(at(far, 9)), at(4, 10), Begins(at(4, 10))),
            (None, Some(at(far, 0)), at(0, 1), Begins(at(0, 0))),
            (Some(3), Some(at(far, 9)), at(1 << 28, 10), Doubted(at(1 << 28, 10))),
            (Some(3), None, at(-1, 9), Impossible),
            (None, None, at(LEADER_EPOCH_MAX.0, 9), Doubted(at(LEADER_EPOCH_MAX.0, 9))),
            (None, None, at(LEADER_EPOCH_MAX.0 + 1, 9), Impossible),
            (None, Some(at(i32::MAX, 8)), at(i32::MAX, 9), Impossible),
            (Some(i32::MAX), None, at(0, 9), Known),
            (Some(0), None, at(1, -9), Impossible),
        ] {
            assert_eq!(
                judge_learned_epoch(latest.map(LeaderEpoch), doubted, seen),
                expected,
                "{latest:?} {doubted:?} {seen:?}"
            );
        }
    }

    #[cfg(feature = "alloc")]
    mod owned {
        use super::*;
        use std::string::ToString;

        fn table() -> EpochTable {
            EpochTable::from_entries(TABLE.to_vec()).unwrap()
        }

        fn entries(table: &EpochTable) -> std::vec::Vec<(i32, i64)> {
            table.view().entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect()
        }

        #[test]
        fn assigning_replaces_what_starts_at_or_after() {
            let mut t = table();
            assert!(t.assign(LeaderEpoch(6), Offset(40)));
            assert_eq!(entries(&t), [(0, 10), (2, 20), (5, 30), (6, 40)]);
            assert!(!t.assign(LeaderEpoch(6), Offset(50)));
            assert!(t.assign(LeaderEpoch(7), Offset(25)));
            assert_eq!(entries(&t), [(0, 10), (2, 20), (7, 25)]);
            assert!(t.assign(LeaderEpoch(7), Offset(22)));
            assert_eq!(entries(&t), [(0, 10), (2, 20), (7, 22)]);
            assert!(t.assign(LeaderEpoch(1), Offset(60)));
            assert_eq!(entries(&t), [(0, 10), (1, 60)]);
            assert!(!t.assign(LeaderEpoch(-1), Offset(70)));
            assert_eq!(t.view().check(), Ok(()));
        }

        #[test]
        fn truncating_keeps_what_the_log_still_holds() {
            let mut t = table();
            assert!(t.truncate_from_end(Offset(30)));
            assert!(!t.truncate_from_end(Offset(30)));
            assert_eq!(entries(&t), [(0, 10), (2, 20)]);
            assert!(t.truncate_from_start(Offset(25)));
            assert!(!t.truncate_from_start(Offset(25)));
            assert_eq!(entries(&t), [(2, 25)]);
            assert!(!t.truncate_from_start(Offset(3)));
            assert!(t.truncate_from_end(Offset(0)));
            assert!(entries(&t).is_empty());
        }

        /// Every bit of every batch's epoch field is flipped: the table is at most wrong about that batch, or about
        /// where
        /// an epoch begins, and never goes above what one flipped low bit makes of it.
        #[test]
        fn a_flipped_bit_of_one_batch_does_not_decide_the_epoch_of_the_log() {
            let epochs = [0, 0, 0, 1, 1, 4, 4, 4, 4];
            let learn = |epochs: &[i32]| {
                let (mut table, mut learner) = (EpochTable::new(), EpochLearner::default());
                for (offset, &epoch) in epochs.iter().enumerate() {
                    learner.learn(&mut table, LeaderEpoch(epoch), Offset(offset as i64));
                    assert_eq!(table.view().check(), Ok(()));
                }
                table
            };
            assert_eq!(entries(&learn(&epochs)), [(0, 0), (1, 3), (4, 5)]);
            for at in 0..epochs.len() {
                for bit in 0..32 {
                    let mut damaged = epochs;
                    damaged[at] ^= 1 << bit;
                    let latest = learn(&damaged).view().latest().expect("eight batches are sound").epoch;
                    assert!(latest < 2 * LEADER_EPOCH_RISE_MAX.0, "batch {at} bit {bit}: {latest}");
                    assert!(bit < 20 || latest <= 4, "batch {at} bit {bit}: {latest}");
                }
            }
        }

        #[test]
        fn a_log_far_up_is_learned_from_two_batches() {
            let (mut table, mut learner) = (EpochTable::new(), EpochLearner::default());
            assert!(!learner.learn(&mut table, LeaderEpoch(1 << 24), Offset(10)));
            assert!(learner.learn(&mut table, LeaderEpoch((1 << 24) + 1), Offset(20)));
            assert_eq!(entries(&table), [(1 << 24, 10), ((1 << 24) + 1, 20)]);
        }

        #[test]
        fn of_a_table_no_log_has_the_possible_entries_stay() {
            let made = EpochTable::from_possible_entries;
            assert_eq!(made(&TABLE), (table(), 0));
            let odd = [at(0, 10), at(i32::MAX, 15), at(2, 20), at(1, 25), at(5, 30), at(6, 30), at(-1, 40)];
            assert_eq!(made(&odd), (table(), 4));
        }

        #[test]
        fn the_text_is_kafkas() {
            let text = "0\n3\n0 10\n2 20\n5 30\n";
            assert_eq!(table().to_string(), text);
            assert_eq!(text.parse(), Ok(table()));
            assert_eq!("0\n0\n".parse(), Ok(EpochTable::new()));
            assert_eq!(EpochTable::new().to_string(), "0\n0\n");
        }

        #[test]
        fn texts_that_are_not_are_refused() {
            let parse = |text: &str| text.parse::<EpochTable>().unwrap_err();
            assert_eq!(parse(""), EpochError::BadVersion);
            assert_eq!(parse("1\n0\n"), EpochError::BadVersion);
            assert_eq!(parse("0\nx\n"), EpochError::BadLine { line: 2 });
            assert_eq!(parse("0\n1\n0\n"), EpochError::BadLine { line: 3 });
            assert_eq!(parse("0\n1\n0 0 0\n"), EpochError::BadLine { line: 3 });
            assert_eq!(parse("0\n4000000000\n0 0\n"), EpochError::BadCount { declared: 4_000_000_000, found: 1 });
            assert_eq!(parse("0\n2\n1 0\n0 5\n"), EpochError::NotAscending { entry: 1 });
            assert_eq!(parse("0\n1\n-1 0\n"), EpochError::Negative { entry: 0 });
        }
    }
}

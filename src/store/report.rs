//! What opening a store found and did, for a person or a log to read.

use std::fmt;

use crate::log::{CutTail, LogRecovery, TopicPartition, offsets_in_words};

/// The outcome of [`Store::open`](crate::Store::open).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The store had been closed cleanly (or is new): nothing had to be looked at.
    pub clean: bool,
    /// No valid checkpoint was there although the store has logs: everything was recovered from the segments
    /// alone.
    pub checkpoint_lost: bool,
    /// Each log's own outcome.
    pub logs: Vec<LogRecovery>,
    /// What the checkpoint said of single logs and no log comes to, by the log: it was not believed, and all else that
    /// the checkpoint said was.
    pub odd: Vec<(String, String)>,
    /// Topics whose deletion a stop had cut short, and of which nothing is left now.
    pub finished_deletions: Vec<String>,
    /// Topic-partitions that the checkpoint knew and whose directories are gone.
    pub missing: Vec<TopicPartition>,
    /// Topic-partitions that an unfinished creation or deletion had left behind, and that are gone now; but for those
    /// of [`finished_deletions`](RecoveryReport::finished_deletions).
    pub removed: Vec<TopicPartition>,
    /// Directories that have a name like a log's and are not known to be this store's, each with the reason; they stay
    /// as they are.
    pub left: Vec<(String, String)>,
    /// Files of topics' settings that were lost or damaged, each with what had happened to it; they were written again
    /// from the second copy.
    pub healed: Vec<(String, String)>,
    /// Files of topics' settings that were lost or damaged and could not be written again, each with the reason; the
    /// second copy counts.
    pub unhealed: Vec<(String, String)>,
    /// Topics whose settings are not known for certain, each with the reason; retention deletes nothing of them until
    /// they are altered.
    pub suspended: Vec<(String, String)>,
    /// Logs that are there and could not be opened, each with the reason; the next open tries again.
    pub unopened: Vec<(TopicPartition, String)>,
    /// Why the store could not be marked as in use, where it could not (a full disk): logs can be read, and
    /// appends try again.
    pub not_writable: Option<String>,
}

impl RecoveryReport {
    /// Records found above the last recovery points, accepted and made durable.
    pub fn recovered_records(&self) -> u64 {
        self.logs.iter().map(|log| log.recovered_records).sum()
    }

    /// Bytes that are no part of any log any more.
    pub fn cut_bytes(&self) -> u64 {
        self.logs.iter().flat_map(|log| &log.cut).map(|cut| cut.bytes).sum()
    }

    /// Offsets of valid batches that stood behind the end of a log and are kept in `.cut` files now:
    /// [`salvage`](crate::inspect::salvage) appends them again.
    pub fn set_aside_offsets(&self) -> u64 {
        let ranges = self.logs.iter().flat_map(|log| &log.cut).filter_map(|cut| cut.valid_offsets);
        ranges.map(|(first, last)| u64::try_from(last.saturating_since(first)).unwrap_or(0).saturating_add(1)).sum()
    }

    /// Offsets that were there once and are lost to damage.
    pub fn lost_offsets(&self) -> u64 {
        let ranges = self.logs.iter().flat_map(|log| &log.lost);
        ranges.map(|range| u64::try_from(range.next_offset - range.first_offset).unwrap_or(0)).sum()
    }

    /// What was cut, in words. Torn bytes are an unfinished append, or damage to the last batch, which look alike.
    /// Whole batches are neither, nor is one that was written whole and is lost.
    pub fn cut_in_words(&self) -> &'static str {
        let is_lost = |log: &LogRecovery, cut: &CutTail| {
            log.lost.iter().any(|lost| lost.file == cut.file && lost.position == cut.position)
        };
        if self.set_aside_offsets() > 0 {
            "behind the ends of logs"
        } else if self.logs.iter().all(|log| log.cut.iter().all(|cut| is_lost(log, cut))) {
            "of damaged last batches"
        } else {
            "of unfinished appends, or of damaged last batches,"
        }
    }

    /// Whether there is anything to say also of a store that was closed cleanly.
    pub fn has_notes(&self) -> bool {
        let pairs = [&self.odd, &self.left, &self.healed, &self.unhealed, &self.suspended];
        let names = [self.finished_deletions.is_empty(), self.removed.is_empty(), self.unopened.is_empty()];
        !(pairs.iter().all(|pairs| pairs.is_empty()) && names.iter().all(|&is_empty| is_empty))
    }

    /// What could not be opened; and what the open put right, or left, that costs no record.
    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, reason) in &self.unopened {
            write!(f, "\n  {name}: could not be opened, {reason}")?;
        }
        for (log, what) in &self.odd {
            write!(f, "\n  {log}: the checkpoint said what no log comes to, and was not believed: {what}")?;
        }
        for topic in &self.finished_deletions {
            write!(f, "\n  {topic}: the deletion of topic {topic}, which a stop had cut short, is finished")?;
        }
        for name in &self.removed {
            write!(f, "\n  {name}: leftovers of an unfinished creation or deletion removed")?;
        }
        for (file, reason) in &self.healed {
            write!(f, "\n  {file}: written again from the topic's second copy, {reason}")?;
        }
        for (file, reason) in &self.unhealed {
            write!(f, "\n  {file}: could not be written again, {reason}")?;
        }
        for (topic, reason) in &self.suspended {
            write!(f, "\n  {topic}: RETENTION IS SUSPENDED, {reason}; nothing is deleted until the topic is altered")?;
        }
        for (dir, reason) in &self.left {
            write!(f, "\n  {dir}: left as it is, {reason}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.clean {
            write!(f, "closed cleanly; nothing to recover in {} logs", self.logs.len())?;
            return self.write_notes(f);
        }
        write!(f, "not closed cleanly: {} records above the recovery points found intact", self.recovered_records())?;
        if self.checkpoint_lost {
            f.write_str("; the checkpoint was lost and rebuilt from the segments")?;
        }
        if self.cut_bytes() > 0 {
            write!(f, "; {} bytes {} cut and kept aside", self.cut_bytes(), self.cut_in_words())?;
        }
        match self.set_aside_offsets() {
            0 => {}
            1 => f.write_str(", with 1 VALID OFFSET")?,
            offsets => write!(f, ", with {offsets} VALID OFFSETS")?,
        }
        if self.lost_offsets() > 0 {
            write!(f, "; {} OFFSETS LOST to damage", self.lost_offsets())?;
        }
        for log in &self.logs {
            for cut in &log.cut {
                write!(
                    f,
                    "\n  {}: {} bytes behind offset {} cut from {}",
                    log.name, cut.bytes, log.log_end_offset, cut.file
                )?;
                if let Some(kept_in) = &cut.kept_in {
                    write!(f, ", kept in {kept_in}")?;
                }
                if let Some((first, last)) = cut.valid_offsets {
                    write!(f, ": valid batches are in them, {}", offsets_in_words(first, last.saturating_add(1)))?;
                    if let Some(kept_in) = &cut.kept_in {
                        write!(f, "; `edgelog repair --salvage {kept_in}` appends them again")?;
                    }
                }
            }
            for lost in &log.lost {
                let offsets = offsets_in_words(lost.first_offset, lost.next_offset);
                write!(f, "\n  {} at {}: {offsets} lost", lost.file, lost.position)?;
            }
            for batch in &log.put_right {
                let offsets = offsets_in_words(batch.first_offset, batch.next_offset);
                write!(
                    f,
                    "\n  {} at {}: the base offset was damaged, and is put right: {offsets}",
                    batch.file, batch.position
                )?;
            }
            for (from, to) in &log.renamed {
                write!(f, "\n  {from} holds the segment that is called {to}, and has that name again")?;
            }
            for swap in &log.placed {
                let segment = swap.trim_end_matches(".swap");
                write!(
                    f,
                    "\n  {swap}, which Kafka's log cleaner left and no other segment overlaps, is {segment} now"
                )?;
            }
            for swap in &log.swap_files {
                write!(
                    f,
                    "\n  {swap} was left by Kafka's log cleaner and is no part of the log; `edgelog fsck` says whether \
                     it holds the only copy of records; if the log was copied here, their offsets are not given out"
                )?;
            }
            for doubt in &log.doubts {
                write!(f, "\n  {}: not believed: {doubt}", log.name)?;
            }
            if let Some(failure) = &log.failure {
                write!(f, "\n  {}: read-only, {failure}", log.name)?;
            }
        }
        for name in &self.missing {
            write!(f, "\n  {name}: THE DIRECTORY IS GONE, with all of its records")?;
        }
        self.write_notes(f)?;
        if let Some(reason) = &self.not_writable {
            write!(f, "\n  not writable yet: {reason}")?;
        }
        Ok(())
    }
}

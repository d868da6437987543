//! What opening one log found and did.

use edgelog_core::{LeaderEpoch, Offset, Position};

use crate::log::lost_range::LostRange;
use crate::log::types::TopicPartition;

/// What opening one log found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogRecovery {
    /// The log.
    pub name: TopicPartition,
    /// It had been closed cleanly: nothing had to be looked at.
    pub clean: bool,
    /// First offset that it holds now.
    pub log_start_offset: Offset,
    /// The offset that the next record gets.
    pub log_end_offset: Offset,
    /// The recovery point that the checkpoint named: everything below was durable before the stop.
    pub recovery_point: Offset,
    /// Records found above that recovery point, accepted and made durable.
    pub recovered_records: u64,
    /// The leader epoch from now on.
    pub leader_epoch: LeaderEpoch,
    /// Bytes behind the end that are no part of the log any more, and where they are kept.
    pub cut: Vec<CutTail>,
    /// Offsets that are lost to damage: those below the recovery point, and, where the machine has not booted since,
    /// those of a batch that was written whole and does not hold now, at the end of the log.
    pub lost: Vec<LostRange>,
    /// What the checkpoint says of the log and its segments do not bear out: it was not believed.
    pub doubts: Vec<String>,
    /// Segments that Kafka's log cleaner left under a `.swap` name: no part of the log, and perhaps the only copy of
    /// records, which [`check`](crate::inspect::check()) says.
    pub swap_files: Vec<String>,
    /// Segments that stood under a `.swap` name, were the only copy of their records, and are in their places now: what
    /// Kafka's log cleaner had begun is finished.
    pub placed: Vec<String>,
    /// Segments whose files had another name than theirs, by what the batches say: the name before, and the right one,
    /// which they have again.
    pub renamed: Vec<(String, String)>,
    /// Offsets of batches of which only the base offset was damaged, and that have the right one again.
    pub put_right: Vec<LostRange>,
    /// Why the log opened read-only, where it did: what it holds could not be made durable.
    pub failure: Option<String>,
}

/// A tail that recovery took out of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutTail {
    /// The segment file that it stood in.
    pub file: String,
    /// Where in it the log ends now.
    pub position: Position,
    /// How many bytes it has, without zeros at its end.
    pub bytes: u64,
    /// The file that keeps it; `None` where there was no room: it then stays behind the end, fenced by the
    /// new epoch.
    pub kept_in: Option<String>,
    /// First and last offset of batches in it that are valid in themselves, if there are any: never
    /// acknowledged, or lost to a disk that lied.
    pub valid_offsets: Option<(Offset, Offset)>,
}

//! What is found out about a sender by those that do not change it: the accumulator and the transaction.

use super::committed_offset::CommittedOffset;
use super::dead_letter::Refusal;
use super::pause_reason::PauseReason;
use super::refused_records::Refused;
use crate::kafka::Backoff;

#[derive(Debug)]
pub(super) enum SenderChange {
    /// The cluster has committed its range, up to there.
    Committed(CommittedOffset),
    Paused(PauseReason),
    /// Nothing is sent until the target takes this record, or another rule is set.
    WaitsFor(Refusal),
    /// Its partition failed and others did not: it is left out for a while, longer each time.
    BackOff(Backoff),
    /// The target refused a batch, and named these records. Where it named none that was not known, less of the batch
    /// is tried next.
    Refused {
        named: Vec<Refusal>,
        batch: Refused,
    },
}

//! What happens while a bridge runs, as its observer gets it.

use edgelog_core::Offset;

use super::pause_reason::PauseReason;
use crate::TopicPartition;

/// What hears of what happens.
pub(super) type Observer = Box<dyn FnMut(&BridgeEvent) + Send>;

/// What happens while a bridge runs; see [`Bridge::observe`](super::Bridge::observe).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BridgeEvent {
    /// The cluster has committed a transaction.
    Committed {
        /// Records in it.
        records: u64,
        /// Bytes of its batches.
        bytes: u64,
        /// The logs in it, each with the offset that is sent next.
        positions: Vec<(TopicPartition, Offset)>,
    },
    /// Everything that is durable here is in the cluster. Not reported while a log waits.
    CaughtUp,
    /// A record that the target refused is in the topic for dead letters, and the log goes on behind it.
    DeadLetter {
        /// The log.
        log: TopicPartition,
        /// The record's offset there.
        offset: Offset,
        /// The topic that the dead letter is in.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// Records were taken here before they were sent; that is reported in the topic for losses, and the log goes on.
    Lost {
        /// The log.
        log: TopicPartition,
        /// The first offset that was not sent.
        first_offset: Offset,
        /// The first one behind that is sent again.
        next_offset: Offset,
        /// What took them.
        reason: String,
    },
    /// A transaction was aborted; its records will be sent again.
    Aborted {
        /// Why.
        reason: String,
    },
    /// Something failed and is tried again.
    Retrying {
        /// What, and why.
        reason: String,
    },
    /// Nothing of this log is sent until a person does something; it is looked at again every minute.
    Waiting {
        /// The log.
        log: TopicPartition,
        /// What is in the way.
        reason: PauseReason,
    },
    /// Another log has the name of one that was sent: its topic was deleted and created again, or the store removed and
    /// made again. What becomes of it, `edgelog.bridge.on.new.log` says.
    LogReplaced {
        /// The log.
        log: TopicPartition,
        /// How many offsets of the one before had not been sent, of those that the bridge had seen; `None` where that
        /// is not known.
        not_sent: Option<u64>,
        /// How long before it was seen to be gone the bridge had looked at it, in milliseconds; 0 where what its last
        /// file held could still be read then.
        looked_ms_before: u64,
    },
    /// The target topic's rules change what is sent to it, or refuse some of it; reported once.
    Rewrites {
        /// The target topic.
        topic: String,
        /// The rule, and what it does.
        reason: String,
    },
    /// The target topic's configuration may not be read: Kafka's defaults are taken, and its retention is not looked
    /// at.
    RulesUnknown {
        /// The target topic.
        topic: String,
        /// The broker's answer.
        reason: String,
    },
}

//! Why nothing of a log is sent, and the words for it.

use std::fmt;

use edgelog_core::Offset;

use crate::error::Error;

/// Why nothing of a log is sent until a person does something; shown in words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PauseReason {
    /// The bridge stands back as a whole: another copy of the device goes on, or its offsets are of another history.
    DecisionNeeded {
        /// What was found.
        reason: String,
    },
    /// The log cannot be read or flushed here.
    LocalLog {
        /// The error.
        reason: String,
    },
    /// The rest of the log may not be durable: the program that appended it did not close the store, and no program has
    /// it open for writing. The next one recovers it.
    NotRecovered {
        /// The first offset that may not be durable.
        from: Offset,
    },
    /// The log was deleted here.
    Deleted {
        /// How many of its offsets had not been sent, of those that the bridge had seen; `None` where that is not
        /// known.
        not_sent: Option<u64>,
        /// How long before it was seen to be gone the bridge had looked at it, in milliseconds; 0 where what its last
        /// file held could still be read then.
        looked_ms_before: u64,
    },
    /// The log's directory is gone, and the store's checkpoint names the log.
    DirectoryMissing,
    /// The log's directory has no segment files: its topic is being created or deleted.
    NoSegmentFiles,
    /// The store's checkpoint does not name the log yet.
    NoIdentity,
    /// The target topic does not exist, may not be used, or has no partition for the log.
    TargetUnusable {
        /// The target topic.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster refuses what is asked of it for this log's target topic or group.
    ClusterRefuses {
        /// The broker's answer.
        reason: String,
    },
    /// A transaction keeps the committed offset open.
    OffsetKeptOpen {
        /// The group that keeps the offset.
        group: String,
        /// For how many milliseconds it was waited for.
        waited_ms: u64,
    },
    /// The log's group has committed offsets for several partitions of the target topic.
    SeveralPartitions {
        /// The target topic.
        topic: String,
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// The committed offset is for a partition that the target topic does not have.
    PartitionMissing {
        /// The target topic.
        topic: String,
        /// The partition that the offset is for.
        partition: i32,
        /// How many partitions the topic has.
        count: usize,
    },
    /// The metadata of the committed offset was not written by a bridge, or this version cannot read it.
    OffsetNotUsable {
        /// What is wrong with it.
        reason: String,
    },
    /// The metadata of the committed offset is a decision that this version does not know.
    DecisionNotUnderstood {
        /// What stands there.
        reason: String,
    },
    /// The committed offset is behind one that the cluster had acknowledged.
    SetBack {
        /// What the cluster has now.
        committed: Offset,
        /// What it had acknowledged.
        acknowledged: Offset,
    },
    /// The committed offset is for a topic that was deleted and created again since, or of another cluster.
    TargetRecreated {
        /// The target topic.
        topic: String,
        /// The committed offset.
        offset: Offset,
        /// Where it is another cluster: the id of the one before and the one now.
        clusters: Option<(String, String)>,
    },
    /// The log was deleted and created again here while the bridge ran.
    LogRecreated,
    /// The committed offset is of another log than the one here.
    AnotherLog {
        /// How that is known.
        reason: String,
    },
    /// The cluster has no offset of the log, and the progress file is damaged.
    ProgressDamaged,
    /// Whether the last transaction was committed cannot be seen any more.
    InDoubt {
        /// What was found in place of its first batch.
        reason: String,
    },
    /// The target refuses a record.
    RecordRefused {
        /// The record, and the broker's answer.
        reason: String,
    },
    /// A record cannot be sent as it is.
    RecordNotSendable {
        /// The record, and what is wrong with it.
        reason: String,
    },
    /// Records were lost before they were sent, and `edgelog.bridge.on.lost` is `stop`, or the loss cannot be reported.
    Lost {
        /// The offsets, and what took them.
        reason: String,
    },
    /// The target would delete records on arrival.
    Expired {
        /// The first of them.
        offset: Offset,
        /// The target's `retention.ms`.
        retention_ms: i64,
    },
}

impl PauseReason {
    /// What reading or flushing the log has answered. Where that is not the log of its name any more, the bridge looks
    /// itself at what is.
    pub(super) fn of_local_log(error: &Error) -> PauseReason {
        let reason = match error {
            Error::LogReplaced { .. } => "it was deleted here; what has its name now is looked at next".to_owned(),
            error => error.to_string(),
        };
        PauseReason::LocalLog { reason }
    }
}

impl PauseReason {
    /// Whether the log's committed offset may be another one than was known, or of another log or topic: what was sent
    /// is then not known.
    pub(super) fn questions_position(&self) -> bool {
        matches!(
            self,
            PauseReason::DecisionNeeded { .. }
                // With a topic that is deleted, a cluster forgets the positions under it.
                | PauseReason::TargetUnusable { .. }
                | PauseReason::SeveralPartitions { .. }
                | PauseReason::PartitionMissing { .. }
                | PauseReason::OffsetNotUsable { .. }
                | PauseReason::DecisionNotUnderstood { .. }
                | PauseReason::SetBack { .. }
                | PauseReason::TargetRecreated { .. }
                | PauseReason::LogRecreated
                | PauseReason::AnotherLog { .. }
                | PauseReason::ProgressDamaged
                | PauseReason::InDoubt { .. }
        )
    }
}

/// When a log that is gone was looked at last, where that was some time before.
pub(super) fn looked_in_words(ms_before: u64) -> String {
    match ms_before {
        0 => String::new(),
        1..=999 => format!(" when it looked last, {ms_before} ms before"),
        _ => format!(" when it looked last, {} s before", ms_before / 1000),
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PauseReason::DecisionNeeded { reason }
            | PauseReason::LocalLog { reason }
            | PauseReason::ClusterRefuses { reason }
            | PauseReason::DecisionNotUnderstood { reason }
            | PauseReason::AnotherLog { reason }
            | PauseReason::InDoubt { reason }
            | PauseReason::RecordRefused { reason }
            | PauseReason::RecordNotSendable { reason }
            | PauseReason::Lost { reason } => f.write_str(reason),
            PauseReason::Deleted { not_sent, looked_ms_before } => {
                let looked = looked_in_words(*looked_ms_before);
                match not_sent {
                    Some(0) => write!(f, "it was deleted here; all of it that the bridge had seen{looked} was sent"),
                    Some(lag) => write!(f, "it was deleted here, and at least {lag} of its records had not been sent"),
                    None => write!(f, "it was deleted here, and what of it had been sent is not known"),
                }
            }
            PauseReason::NotRecovered { from } => write!(
                f,
                "what it has from offset {from} on may not be durable, since the program that appended it did not \
                 close the store; it is sent once a program has opened the store for writing, which recovers it"
            ),
            PauseReason::DirectoryMissing => write!(f, "its directory is gone, and the store's checkpoint names it"),
            PauseReason::NoSegmentFiles => {
                write!(f, "it has no segment files now: its topic is being created or deleted")
            }
            PauseReason::NoIdentity => {
                write!(f, "the store's checkpoint has no identity for it: open the store for writing once")
            }
            PauseReason::TargetUnusable { topic, reason } => {
                write!(f, "its target topic {topic} cannot be used: {reason}")
            }
            PauseReason::OffsetKeptOpen { group, waited_ms } => write!(
                f,
                "the cluster keeps its position (group {group}) in an open transaction for more than \
                 request.timeout.ms={waited_ms}; where that stays, kafka-transactions.sh finds and aborts it in \
                 __consumer_offsets"
            ),
            PauseReason::SeveralPartitions { topic, partitions } => {
                write!(f, "its group has positions for several partitions of {topic}: {partitions:?}")
            }
            PauseReason::PartitionMissing { topic, partition, count } => {
                write!(f, "its position is for partition {partition}, and {topic} has {count}")
            }
            PauseReason::OffsetNotUsable { reason } => write!(f, "the cluster's position cannot be used: {reason}"),
            PauseReason::SetBack { committed, acknowledged } => write!(
                f,
                "the cluster's position is {committed}, and it had acknowledged {acknowledged}: it was set back; \
                 edgelog.bridge.on.set.back=follow sends what it lost again, and resume goes on at {acknowledged}"
            ),
            PauseReason::TargetRecreated { topic, offset, clusters } => {
                match clusters {
                    Some((before, now)) => write!(
                        f,
                        "this is another cluster (id {now}) than the one that has acknowledged its records (id \
                         {before}): that one was wiped, or bootstrap.servers names another"
                    )?,
                    None => write!(
                        f,
                        "the target topic {topic} is another one than the position was committed for: it was deleted \
                         and re-created"
                    )?,
                }
                write!(
                    f,
                    "; edgelog.bridge.on.recreated=restart sends all that is here again, and resume goes on at {offset}"
                )
            }
            PauseReason::LogRecreated => write!(
                f,
                "it was deleted and created again here, and the cluster's position is of the log that it was before; \
                 edgelog.bridge.on.new.log=restart sends this one from its beginning"
            ),
            PauseReason::ProgressDamaged => {
                write!(f, "the cluster has no position of it, and the note in the data directory is damaged")
            }
            PauseReason::Expired { offset, retention_ms } => write!(
                f,
                "records at offset {offset} are older than the target's retention.ms={retention_ms}, which would \
                 delete them on arrival; raise it there, or set edgelog.bridge.expired"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_person_is_asked_to_open_a_log_again_that_the_bridge_opens() {
        let said = |error| PauseReason::of_local_log(&error).to_string();
        let replaced = said(Error::LogReplaced { name: "t-0".to_owned() });
        assert_eq!(replaced, "it was deleted here; what has its name now is looked at next");
        assert_eq!(said(Error::Closed), Error::Closed.to_string());
    }
}

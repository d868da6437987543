//! The offset that the cluster keeps of a log, and its metadata, which says of which log and history it is.
//!
//! It is an offset of a local log, committed for the target partition in a group of that log's own. Its metadata is one
//! line of text:
//!
//! ```text
//! edgelog/1 log=<32 hex> epoch=<decimal> crc=<8 hex> topic=<32 hex>
//! ```
//!
//! `log` is the log's identity, `epoch` and `crc` are the leader epoch and the CRC-32C field of the stored batch that
//! holds the record before the offset (`crc` is 0 where that record was lost), `topic` is the target topic's id.
//! Another copy of the log that went its own way has another batch there; a log that was lost and created again has
//! another identity.
//!
//! An operator's decision stands in the same place, until a bridge has applied it:
//!
//! ```text
//! edgelog/1 decided=adopt|restart
//! edgelog/1 decided=adopt|restart log=<32 hex> epoch=<decimal> crc=<8 hex> end=<decimal>
//! ```
//!
//! The second form is for one copy of a log alone: the one that has, ending at the offset `end`, a batch with this
//! epoch and CRC.

use std::fmt::Write as _;

use edgelog_core::{LeaderEpoch, LogId, Offset};
use uuid::Uuid;

use crate::escape::shown_sentence;

/// What the metadata of a version that this one reads begins with.
const VERSION: &str = "edgelog/1";

/// What a person decides about a device's logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// The store that reads it is the right one, no matter which log the cluster's positions were of. It goes on where
    /// its own note says that the cluster has acknowledged it, else at its first record: nothing that it holds is left
    /// out, and what another copy has sent of the same is there twice.
    Adopt,
    /// Everything that the store holds is sent from the beginning, what was delivered as well.
    Restart,
}

/// The stored batch that ends at an offset, or that holds the record before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchMark {
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) crc: u32,
}

impl BatchMark {
    /// For an offset with nothing before it that could be compared: what was there is lost.
    pub(super) fn behind_a_gap(leader_epoch: LeaderEpoch) -> BatchMark {
        BatchMark { leader_epoch, crc: 0 }
    }

    pub(super) fn is_behind_a_gap(self) -> bool {
        self.crc == 0
    }
}

/// An offset with its metadata: Kafka's `OffsetAndMetadata`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CommittedOffset {
    /// The offset that is to be sent next.
    pub(super) offset: Offset,
    pub(super) log_id: LogId,
    pub(super) mark: BatchMark,
    pub(super) topic_id: Uuid,
}

impl CommittedOffset {
    /// Reads what [`metadata`](CommittedOffset::metadata) has written, or says what is wrong with it.
    pub(super) fn parse(offset: Offset, metadata: &str) -> Result<CommittedOffset, String> {
        let mut words = metadata.split(' ');
        match words.next() {
            Some(VERSION) => {}
            Some(other) if other.starts_with("edgelog/") => {
                return Err(format!("its metadata is of the form {other}, which a newer edgelog writes"));
            }
            _ => return Err("it has no metadata of edgelog's: another program committed or reset it".to_owned()),
        }
        let mut field = |name: &str| {
            let word = words.next().and_then(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.ok_or_else(|| format!("its metadata lacks {name}"))
        };
        let (log, epoch, crc, topic) = (field("log")?, field("epoch")?, field("crc")?, field("topic")?);
        let bad = |name: &str| format!("its metadata has no valid {name}");
        Ok(CommittedOffset {
            offset,
            log_id: LogId::from_hex(log).ok_or_else(|| bad("log"))?,
            mark: BatchMark {
                leader_epoch: epoch.parse().map_err(|_| bad("epoch"))?,
                crc: u32::from_str_radix(crc, 16).map_err(|_| bad("crc"))?,
            },
            topic_id: Uuid::try_parse(topic).map_err(|_| bad("topic"))?,
        })
    }

    /// The line that is committed with the offset.
    pub(super) fn metadata(&self) -> String {
        format!(
            "{VERSION} log={:x} epoch={} crc={:08x} topic={:032x}",
            self.log_id,
            self.mark.leader_epoch,
            self.mark.crc,
            self.topic_id.as_u128()
        )
    }
}

/// What an operator decided about a log, in place of its committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OperatorDecision {
    pub(super) decision: Decision,
    /// Where the one copy of the log ends, or ended, that it is meant for; no topic's id. `None`: for any.
    pub(super) end: Option<CommittedOffset>,
}

impl OperatorDecision {
    /// Reads what [`metadata`](OperatorDecision::metadata) has written; `None` where there is no decision.
    pub(super) fn parse(metadata: &str) -> Option<Result<OperatorDecision, String>> {
        let said = metadata.strip_prefix(VERSION)?.strip_prefix(" decided=")?;
        Some(
            OperatorDecision::parse_words(said)
                .ok_or_else(|| format!("it holds a decision that is not understood: {}", shown_sentence(said))),
        )
    }

    fn parse_words(said: &str) -> Option<OperatorDecision> {
        let mut words = said.split(' ');
        let decision = match words.next()? {
            "adopt" => Decision::Adopt,
            "restart" => Decision::Restart,
            _ => return None,
        };
        let mut field = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let Some(log) = field("log") else {
            return (!said.contains(' ')).then_some(OperatorDecision { decision, end: None });
        };
        let mark = BatchMark {
            leader_epoch: field("epoch")?.parse().ok()?,
            crc: u32::from_str_radix(field("crc")?, 16).ok()?,
        };
        let (log_id, offset) = (LogId::from_hex(log)?, field("end")?.parse().ok()?);
        Some(OperatorDecision { decision, end: Some(CommittedOffset { offset, log_id, mark, topic_id: Uuid::nil() }) })
    }

    /// The line that is committed.
    pub(super) fn metadata(&self) -> String {
        let word = match self.decision {
            Decision::Adopt => "adopt",
            Decision::Restart => "restart",
        };
        let mut line = format!("{VERSION} decided={word}");
        if let Some(CommittedOffset { offset, log_id, mark, .. }) = &self.end {
            let (epoch, crc) = (mark.leader_epoch, mark.crc);
            let _ = write!(line, " log={log_id:x} epoch={epoch} crc={crc:08x} end={offset}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_read_back_and_foreign_metadata_is_not_obeyed() {
        let mark = BatchMark { leader_epoch: LeaderEpoch(3), crc: 0x0000_beef };
        let position = CommittedOffset {
            offset: Offset(7),
            log_id: LogId::from_bytes([0xab; 16]),
            mark,
            topic_id: Uuid::from_u128(5),
        };
        let line = position.metadata();
        assert_eq!(
            line,
            "edgelog/1 log=abababababababababababababababab epoch=3 crc=0000beef \
             topic=00000000000000000000000000000005"
        );
        assert_eq!(CommittedOffset::parse(Offset(7), &line), Ok(position));
        for end in 0..line.len() - 31 {
            assert!(CommittedOffset::parse(Offset(7), &line[..end]).is_err(), "{}", &line[..end]);
        }
        assert_eq!(OperatorDecision::parse(&line), None);
        assert!(CommittedOffset::parse(Offset(7), "").unwrap_err().contains("no metadata"));
        assert!(CommittedOffset::parse(Offset(7), "edgelog/2 x").unwrap_err().contains("newer"));
    }

    #[test]
    fn a_decision_is_read_back_and_half_of_one_is_not_obeyed() {
        let mark = BatchMark { leader_epoch: LeaderEpoch(3), crc: 0x0000_beef };
        let end =
            CommittedOffset { offset: Offset(12), log_id: LogId::from_bytes([0xab; 16]), mark, topic_id: Uuid::nil() };
        for ruling in [
            OperatorDecision { decision: Decision::Restart, end: None },
            OperatorDecision { decision: Decision::Adopt, end: Some(end) },
        ] {
            let line = ruling.metadata();
            assert_eq!(OperatorDecision::parse(&line), Some(Ok(ruling)), "{line}");
            assert!(CommittedOffset::parse(Offset(7), &line).is_err());
            for cut in "edgelog/1 decided=".len()..line.len() {
                let found = OperatorDecision::parse(&line[..cut]).unwrap();
                let is_whole = found == Ok(OperatorDecision { end: None, ..ruling });
                assert!(
                    found.is_err() || is_whole && &line[..cut] == "edgelog/1 decided=adopt" || cut + 1 == line.len()
                );
            }
        }
        assert!(OperatorDecision::parse("edgelog/1 decided=sell").unwrap().is_err());
    }
}

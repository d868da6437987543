//! What a dead letter says of its record: headers behind the record's own.
//!
//! Share groups name them as KIP-1191 does, plain consumers and the bridge as Kafka Connect. Both kinds add the
//! record's own time: a dead letter's timestamp is when it was written.

use std::borrow::Cow;

use edgelog_core::{Header, Offset, Record, TimestampMs};

use crate::log::TopicPartition;

/// The header in which a record keeps the timestamp that it was appended with, where it got another one.
pub(crate) const TIMESTAMP_HEADER: &str = "edgelog.timestamp";

const SHARE_PREFIX: &str = "__dlq.errors.";
const CONNECT_PREFIX: &str = "__connect.errors.";
const SHARE: [&str; 6] = [
    "__dlq.errors.topic",
    "__dlq.errors.partition",
    "__dlq.errors.offset",
    "__dlq.errors.group",
    "__dlq.errors.delivery.count",
    "__dlq.errors.message",
];
const CONNECT: [&str; 5] = [
    "__connect.errors.topic",
    "__connect.errors.partition",
    "__connect.errors.offset",
    "__connect.errors.connector.name",
    "__connect.errors.exception.message",
];
/// What the bridge adds.
const OURS: [&str; 4] = ["edgelog.error.code", "edgelog.device", "edgelog.target", TIMESTAMP_HEADER];

/// The headers of a dead letter that is made.
#[derive(Debug)]
pub(crate) struct DeadLetterHeaders<'a> {
    added: Vec<(&'static str, Cow<'a, str>)>,
}

impl<'a> DeadLetterHeaders<'a> {
    /// As Kafka Connect names them: where the record was, and why it is a dead letter.
    pub(crate) fn connect(log: &'a TopicPartition, offset: Offset, group: Option<&'a str>, reason: &'a str) -> Self {
        let [topic, partition, at, connector, message] = CONNECT;
        let group = group.map(|group| (connector, Cow::Borrowed(group)));
        let mut added = vec![(topic, log.topic.as_str().into()), (partition, log.partition.to_string().into())];
        added.push((at, offset.to_string().into()));
        added.extend(group);
        added.push((message, reason.into()));
        Self { added }
    }

    /// As share groups name them.
    pub(crate) fn share(
        log: &'a TopicPartition,
        offset: Offset,
        group: &'a str,
        deliveries: u16,
        reason: &'a str,
    ) -> Self {
        let values = [
            Cow::Borrowed(log.topic.as_str()),
            log.partition.to_string().into(),
            offset.to_string().into(),
            group.into(),
            deliveries.to_string().into(),
            reason.into(),
        ];
        Self { added: SHARE.into_iter().zip(values).collect() }
    }

    /// One more.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        self.added.push((name, value.into()));
        self
    }

    /// The record's own headers, and these behind them.
    pub(crate) fn behind<'b>(&'b self, record: Option<&Record<'b>>) -> Vec<Header<'b>> {
        let mut all: Vec<Header<'b>> = record.into_iter().flat_map(Record::headers).collect();
        all.extend(self.added.iter().map(|(name, value)| Header::new(name, value.as_bytes())));
        all
    }
}

/// What a dead letter says of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter<'a> {
    /// Where the record was.
    pub log: TopicPartition,
    /// Its offset there.
    pub offset: Offset,
    /// The group whose consumers could not process it; of a bridge's dead letter, none.
    pub group: Option<&'a str>,
    /// How often a share group has delivered it.
    pub delivery_count: Option<u16>,
    /// Why it was set aside.
    pub reason: &'a str,
    /// The record's own timestamp, where the dead letter has it.
    pub timestamp: Option<TimestampMs>,
    /// The record's own headers.
    pub headers: Vec<Header<'a>>,
}

impl<'a> DeadLetter<'a> {
    /// What the headers of a record say, where it is a dead letter: of a share group, here or of Kafka's, of Kafka
    /// Connect, of a plain consumer or of a bridge. Of a record that was set aside twice, they say the last time.
    pub fn parse(record: &Record<'a>) -> Option<DeadLetter<'a>> {
        let mut headers: Vec<Header<'a>> = record.headers().collect();
        let mut found: Vec<(&'a str, &'a str)> = Vec::new();
        // Those at the end, each name once and of one kind: before them may stand those of an earlier time.
        while let Some((name, value)) = headers.last().and_then(known) {
            let is_other = |(seen, _): &(&str, &str)| *seen == name || kind(seen).zip(kind(name)).is_some_and(differ);
            if found.iter().any(is_other) {
                break;
            }
            found.push((name, value));
            headers.pop();
        }
        let prefix = found.iter().find_map(|(name, _)| kind(name))?;
        let of = |name: &str| {
            let is_it = |(found, _): &&(&str, &str)| found.strip_prefix(prefix) == Some(name);
            found.iter().find(is_it).map(|(_, value)| *value)
        };
        let timestamp = found.iter().find(|(name, _)| *name == TIMESTAMP_HEADER).and_then(|(_, ms)| ms.parse().ok());
        Some(DeadLetter {
            log: TopicPartition::new(of("topic")?, of("partition")?.parse().ok()?),
            offset: Offset(of("offset")?.parse().ok()?),
            group: of("group").or_else(|| of("connector.name")),
            delivery_count: of("delivery.count").and_then(|count| count.parse().ok()),
            reason: of("message").or_else(|| of("exception.message")).unwrap_or_default(),
            timestamp: timestamp.map(TimestampMs),
            headers,
        })
    }
}

fn differ((a, b): (&str, &str)) -> bool {
    a != b
}

fn kind(name: &str) -> Option<&'static str> {
    [SHARE_PREFIX, CONNECT_PREFIX].into_iter().find(|prefix| name.starts_with(prefix))
}

/// A header of a dead letter's: its name and value. Kafka Connect has more names than are used here.
fn known<'a>(header: &Header<'a>) -> Option<(&'a str, &'a str)> {
    let (name, value) = (header.key_str()?, std::str::from_utf8(header.value?).ok()?);
    (kind(name).is_some() || OURS.contains(&name)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use edgelog_core::{HEADER_LEN, RecordBatch, RecordBatchBuilder};

    use super::*;

    /// The bytes of a batch with one record that has these headers.
    fn batch_of(headers: &[Header<'_>]) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(vec![0; HEADER_LEN + 4096]);
        builder.append(TimestampMs(5), Some(b"k"), Some(b"v"), headers).unwrap();
        builder.finish().to_vec()
    }

    fn only(batch: &[u8]) -> Record<'_> {
        let batch = RecordBatch::parse(batch).unwrap();
        batch.records().unwrap().next().unwrap().unwrap()
    }

    #[test]
    fn a_dead_letter_is_read_as_it_was_made_and_its_record_keeps_its_headers() {
        let log = TopicPartition::new("jobs", 3);
        let own = batch_of(&[Header::new("a", b"1"), Header::new("edgelog.timestamp", b"9")]);
        let made = DeadLetterHeaders::share(&log, Offset(7), "g", 5, "why").with(TIMESTAMP_HEADER, "4");
        let first = batch_of(&made.behind(Some(&only(&own))));
        let record = only(&first);
        let found = DeadLetter::parse(&record).unwrap();
        assert_eq!((&found.log, found.offset, found.group), (&log, Offset(7), Some("g")));
        assert_eq!((found.delivery_count, found.reason, found.timestamp), (Some(5), "why", Some(TimestampMs(4))));
        assert_eq!(found.headers, only(&own).headers().collect::<Vec<_>>());
        // Set aside once more, by a plain consumer.
        let log = TopicPartition::new("dlq.jobs", 0);
        let made = DeadLetterHeaders::connect(&log, Offset(1), Some("h"), "again").with(TIMESTAMP_HEADER, "6");
        let second = batch_of(&made.behind(Some(&record)));
        let found = DeadLetter::parse(&only(&second)).unwrap();
        assert_eq!((found.log, found.group, found.reason), (log, Some("h"), "again"));
        assert_eq!(found.headers, record.headers().collect::<Vec<_>>());
        let name = "__dlq.errors.delivery.count";
        assert_eq!(record.headers().last_value(name), Some(Some(&b"5"[..])));
    }

    #[test]
    fn a_record_that_is_none_is_not_taken_for_a_dead_letter() {
        for headers in [
            &[][..],
            &[Header::new("edgelog.timestamp", b"4")],
            &[Header::new("__dlq.errors.topic", b"t"), Header::new("__dlq.errors.partition", b"x")],
            &[Header::new("__dlq.errors.topic", b"t"), Header { key: b"\xff", value: None }],
        ] {
            assert_eq!(DeadLetter::parse(&only(&batch_of(headers))), None, "{headers:?}");
        }
    }
}

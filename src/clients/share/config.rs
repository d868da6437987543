//! The keys of a share consumer: Kafka's of the client and of the group, and those of redelivery.

use super::table::Limits;
use crate::clients::consumer::{Given, OffsetReset, find_key};
use crate::clients::group::Result;
use crate::clients::key::{ClientKey, key};
use crate::log::check_topic_name;

/// What the name of a dead letter topic begins with: Kafka's `errors.deadletterqueue.topic.name.prefix`.
const DEAD_LETTER_PREFIX: &str = "dlq.";

/// Every key, in the order of the documentation.
pub const SHARE_CONSUMER_KEYS: &[ClientKey] = &[
    key("group.id", "", "The share group. It has to be set."),
    key(
        "share.acknowledgement.mode",
        "implicit",
        "implicit: a poll or a commit accepts what was polled before. explicit: the program acknowledges every record.",
    ),
    key("max.poll.records", "500", "The most records that a poll returns."),
    key(
        "share.auto.offset.reset",
        "earliest",
        "Where a new group begins: earliest, latest, or by_duration: and a time. Kafka's default is latest.",
    ),
    key("share.record.lock.duration.ms", "30000", "A record that is not acknowledged for so long comes again."),
    key(
        "share.delivery.count.limit",
        "5",
        "A record that was given back after so many deliveries is archived: it does not come again.",
    ),
    key(
        "errors.deadletterqueue.topic.name",
        "",
        "Where records go that are rejected, or given back after share.delivery.count.limit deliveries, before they \
         are archived. The name begins with dlq. The topic is created where there is none.",
    ),
    key(
        "errors.deadletterqueue.copy.record.enable",
        "true",
        "Whether a dead letter has its record's key, value and headers. With false it says where the record was, as \
         Kafka's does by default.",
    ),
    key(
        "share.partition.max.record.locks",
        "2000",
        "So many offsets of a partition are in flight at most, from the first one on that is not done.",
    ),
    key(
        "edgelog.share.retry.backoff.ms",
        "0",
        "A record that was given back comes again after so long, in milliseconds, and after twice as long each time. \
         0, as Kafka has it: at once.",
    ),
    key("edgelog.share.retry.backoff.max.ms", "60000", "The longest such wait."),
];

const REFUSED: &[(&str, &str)] = &[
    ("auto.offset.reset", "share consumers do not have it: use share.auto.offset.reset"),
    ("enable.auto.commit", "share consumers do not have it: use share.acknowledgement.mode"),
    ("group.instance.id", "share consumers do not have it: every member may get every record"),
    ("isolation.level", "share consumers do not have it"),
    ("partition.assignment.strategy", "share consumers do not have it: every member may get every record"),
];

#[derive(Debug, Clone)]
pub(super) struct ShareConfig {
    pub(super) group_id: Option<String>,
    pub(super) is_explicit: bool,
    pub(super) poll_records_max: usize,
    pub(super) reset: OffsetReset,
    pub(super) dead_letters: Option<String>,
    pub(super) copies_records: bool,
    pub(super) limits: Limits,
}

impl Default for ShareConfig {
    fn default() -> ShareConfig {
        let limits = Limits {
            lock_ms: 1,
            deliveries: 1,
            in_flight: 1,
            backoff_ms: 0,
            backoff_ms_max: 0,
            has_dead_letters: false,
        };
        let empty = ShareConfig {
            group_id: None,
            is_explicit: false,
            poll_records_max: 1,
            reset: OffsetReset::Earliest,
            dead_letters: None,
            copies_records: true,
            limits,
        };
        let set = |mut config: ShareConfig, row: &ClientKey| {
            config.set(row.key, row.default).expect("a key takes its own default");
            config
        };
        SHARE_CONSUMER_KEYS.iter().filter(|row| !row.default.is_empty()).fold(empty, set)
    }
}

impl ShareConfig {
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(row) = find_key(SHARE_CONSUMER_KEYS, REFUSED, "share consumers", key)? else { return Ok(()) };
        let given = Given { key: row.key, value };
        match row.key {
            "group.id" => self.group_id = Some(given.text()?),
            "share.acknowledgement.mode" => {
                self.is_explicit = given.one_of(&[("implicit", false), ("explicit", true)])?;
            }
            "max.poll.records" => self.poll_records_max = given.number(1)? as usize,
            "share.auto.offset.reset" => self.reset = reset(&given)?,
            "share.record.lock.duration.ms" => self.limits.lock_ms = within(&given, 1, i32::MAX)?.into(),
            "share.delivery.count.limit" => self.limits.deliveries = within(&given, 1, 1000)? as u16,
            "share.partition.max.record.locks" => self.limits.in_flight = within(&given, 1, 4000)? as usize,
            "errors.deadletterqueue.topic.name" => {
                self.dead_letters = dead_letter_topic(&given)?;
                self.limits.has_dead_letters = self.dead_letters.is_some();
            }
            "errors.deadletterqueue.copy.record.enable" => {
                self.copies_records = given.one_of(&[("true", true), ("false", false)])?;
            }
            "edgelog.share.retry.backoff.ms" => self.limits.backoff_ms = given.number(0)?.into(),
            "edgelog.share.retry.backoff.max.ms" => self.limits.backoff_ms_max = given.number(0)?.into(),
            _ => unreachable!("every key of the table is set here"),
        }
        Ok(())
    }
}

fn reset(given: &Given<'_>) -> Result<OffsetReset> {
    match given.reset()? {
        OffsetReset::None => Err(given.refuse("earliest, latest, or by_duration: and a time is allowed".to_owned())),
        reset => Ok(reset),
    }
}

/// The topic's name; none where it is empty.
fn dead_letter_topic(given: &Given<'_>) -> Result<Option<String>> {
    if given.value.is_empty() {
        return Ok(None);
    }
    if !given.value.starts_with(DEAD_LETTER_PREFIX) {
        return Err(given.refuse(format!("a name that begins with {DEAD_LETTER_PREFIX} is allowed")));
    }
    check_topic_name(given.value).map_err(|error| given.refuse(error.to_string()))?;
    Ok(Some(given.value.to_owned()))
}

fn within(given: &Given<'_>, min: i32, max: i32) -> Result<i32> {
    let number = given.value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| given.refuse(format!("a number from {min} to {max} is allowed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_taken_and_wrong_ones_are_refused_with_a_reason() {
        let error = |key, value| ShareConfig::default().set(key, value).unwrap_err().to_string();
        for row in SHARE_CONSUMER_KEYS {
            let value = if row.default.is_empty() { "dlq.x" } else { row.default };
            ShareConfig::default().set(row.key, value).unwrap();
        }
        for (key, reason) in REFUSED {
            assert_eq!(error(key, "x"), format!("{key}: {reason}"));
        }
        let near = "max.poll.record: share consumers have no such key; did you mean max.poll.records?";
        assert_eq!(error("max.poll.record", "1"), near);
        assert_eq!(
            error("share.auto.offset.reset", "none"),
            "share.auto.offset.reset=none: earliest, latest, or by_duration: and a time is allowed"
        );
        for (name, reason) in [("jobs", "a name that begins with dlq. is allowed"), ("dlq.a b", "only ASCII letters")] {
            let found = error("errors.deadletterqueue.topic.name", name);
            assert!(found.starts_with("errors.deadletterqueue.topic.name=") && found.contains(reason), "{found}");
        }
        let limit = "share.partition.max.record.locks=4001: a number from 1 to 4000 is allowed";
        assert_eq!(error("share.partition.max.record.locks", "4001"), limit);
    }
}

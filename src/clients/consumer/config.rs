//! The keys of a consumer: Kafka's, and what becomes of those that have no meaning in a process.

use std::time::Duration;

use edgelog_core::config::{IsolationLevel, nearest};

use crate::clients::group::{Assignor, ConsumerError, Result};
use crate::clients::key::{ClientKey, key};

/// Every key, in the order of the documentation.
pub const CONSUMER_KEYS: &[ClientKey] = &[
    key("group.id", "", "The group whose positions the consumer commits. subscribe and commits need one."),
    key(
        "group.instance.id",
        "",
        "A name of its own for this member of the group: one that leaves and comes back under it gets the same \
         partitions, and no other member is interrupted.",
    ),
    key(
        "group.remote.assignor",
        "uniform",
        "How the group's partitions are shared among its members: uniform or range.",
    ),
    key("group.protocol", "consumer", "consumer: the group protocol of Kafka 4. There is no other one."),
    key("client.id", "edgelog", "What the consumer is called in what the library reports."),
    key(
        "auto.offset.reset",
        "latest",
        "Where reading begins where there is no position, or the log does not hold it any more: earliest, latest, none \
         (an error), or by_duration: and a time as in by_duration:PT5S (at the first record of the last five seconds).",
    ),
    key(
        "enable.auto.commit",
        "false",
        "Whether poll commits what the polls before it have returned. Kafka's default is true. With false, the program \
         commits when it has processed what it got.",
    ),
    key("auto.commit.interval.ms", "5000", "With enable.auto.commit: so often at most, in milliseconds."),
    key("max.poll.records", "500", "The most records that a poll returns."),
    key(
        "max.poll.interval.ms",
        "300000",
        "A member of a group that does not poll for so long leaves it, in milliseconds: the others get its partitions.",
    ),
    key(
        "fetch.max.bytes",
        "52428800",
        "A poll takes no further batch once it holds so many bytes. The first batch is returned however large it is.",
    ),
    key(
        "max.partition.fetch.bytes",
        "1048576",
        "A poll takes no further batch of one partition once it holds so many bytes of it.",
    ),
    key("isolation.level", "read_uncommitted", "read_committed leaves out the records of aborted transactions."),
    key("check.crcs", "true", "Whether each batch's checksum is checked before its records are returned."),
    key(
        "metadata.max.age.ms",
        "1000",
        "So often a subscription looks for new topics and partitions, in milliseconds. Kafka's default is 300000; here \
         it costs no request.",
    ),
];

/// Keys that Kafka refuses where `group.protocol=consumer`, with its reasons.
const REFUSED: &[(&str, &str)] = &[
    ("session.timeout.ms", "it cannot be set when group.protocol=consumer: the coordinator defines it"),
    ("heartbeat.interval.ms", "it cannot be set when group.protocol=consumer: the coordinator defines it"),
    ("partition.assignment.strategy", "it cannot be set when group.protocol=consumer: use group.remote.assignor"),
    ("key.deserializer", "records are bytes here: decode them where they are used"),
    ("value.deserializer", "records are bytes here: decode them where they are used"),
    ("interceptor.classes", "there are no interceptors: change records where they are used"),
];

/// Keys of what lies between a client and its brokers. They are taken, and do nothing: a program can keep one
/// configuration for both.
const WITHOUT_EFFECT: &[&str] = &[
    "allow.auto.create.topics",
    "bootstrap.servers",
    "client.dns.lookup",
    "client.rack",
    "connections.max.idle.ms",
    "default.api.timeout.ms",
    "exclude.internal.topics",
    "fetch.max.wait.ms",
    "fetch.min.bytes",
    "receive.buffer.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "send.buffer.bytes",
    "socket.connection.setup.timeout.max.ms",
    "socket.connection.setup.timeout.ms",
];
const PREFIXES_WITHOUT_EFFECT: &[&str] = &["ssl.", "sasl.", "security.", "metrics.", "metric."];

/// Where reading begins without a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetReset {
    Earliest,
    Latest,
    None,
    ByDuration(Duration),
}

/// What a consumer's keys say.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerConfig {
    pub(crate) group_id: Option<String>,
    pub(crate) instance_id: Option<String>,
    pub(crate) assignor: Assignor,
    pub(crate) client_id: String,
    pub(crate) reset: OffsetReset,
    /// `None`: the program commits.
    pub(crate) auto_commit: bool,
    pub(crate) auto_commit_interval: Duration,
    pub(crate) poll_records_max: usize,
    pub(crate) poll_interval_max: Duration,
    pub(crate) fetch_bytes_max: usize,
    pub(crate) partition_bytes_max: usize,
    pub(crate) isolation: IsolationLevel,
    pub(crate) check_crcs: bool,
    pub(crate) metadata_age_max: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        let empty = ConsumerConfig {
            group_id: None,
            instance_id: None,
            assignor: Assignor::Uniform,
            client_id: String::new(),
            reset: OffsetReset::Latest,
            auto_commit: false,
            auto_commit_interval: Duration::ZERO,
            poll_records_max: 1,
            poll_interval_max: Duration::ZERO,
            fetch_bytes_max: 1,
            partition_bytes_max: 1,
            isolation: IsolationLevel::ReadUncommitted,
            check_crcs: true,
            metadata_age_max: Duration::ZERO,
        };
        let set = |mut config: ConsumerConfig, row: &ClientKey| {
            config.set(row.key, row.default).expect("a key takes its own default");
            config
        };
        CONSUMER_KEYS.iter().filter(|row| !row.default.is_empty()).fold(empty, set)
    }
}

impl ConsumerConfig {
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(row) = find_key(CONSUMER_KEYS, REFUSED, "consumers", key)? else { return Ok(()) };
        let given = Given { key: row.key, value };
        match row.key {
            "group.id" => self.group_id = Some(given.text()?),
            "group.instance.id" => self.instance_id = Some(given.text()?),
            "group.remote.assignor" => {
                self.assignor = given.one_of(&[("uniform", Assignor::Uniform), ("range", Assignor::Range)])?;
            }
            "group.protocol" => given.one_of(&[("consumer", ())])?,
            "client.id" => value.clone_into(&mut self.client_id),
            "auto.offset.reset" => self.reset = given.reset()?,
            "enable.auto.commit" => self.auto_commit = given.flag()?,
            "auto.commit.interval.ms" => self.auto_commit_interval = given.ms(1)?,
            "max.poll.records" => self.poll_records_max = given.number(1)? as usize,
            "max.poll.interval.ms" => self.poll_interval_max = given.ms(1)?,
            "fetch.max.bytes" => self.fetch_bytes_max = given.number(1)? as usize,
            "max.partition.fetch.bytes" => self.partition_bytes_max = given.number(1)? as usize,
            "isolation.level" => {
                self.isolation = given.one_of(&[
                    ("read_uncommitted", IsolationLevel::ReadUncommitted),
                    ("read_committed", IsolationLevel::ReadCommitted),
                ])?;
            }
            "check.crcs" => self.check_crcs = given.flag()?,
            "metadata.max.age.ms" => self.metadata_age_max = given.ms(0)?,
            _ => unreachable!("every key of the table is set here"),
        }
        Ok(())
    }
}

/// The row of a key, in the table of the `consumers` that it is said to; `None` for one that is taken and does nothing.
///
/// # Errors
/// [`ConsumerError::InvalidKey`], with the reason where it is refused, and with the nearest key where there is none.
pub(in crate::clients) fn find_key(
    rows: &'static [ClientKey],
    refused: &[(&str, &str)],
    consumers: &str,
    key: &str,
) -> Result<Option<&'static ClientKey>> {
    let invalid = |reason| ConsumerError::InvalidKey { key: key.to_owned(), reason };
    if let Some((_, reason)) = refused.iter().find(|(refused, _)| *refused == key) {
        return Err(invalid((*reason).to_owned()));
    }
    if WITHOUT_EFFECT.contains(&key) || PREFIXES_WITHOUT_EFFECT.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(None);
    }
    if let Some(row) = rows.iter().find(|row| row.key == key) {
        return Ok(Some(row));
    }
    let known = rows.iter().map(|row| row.key).chain(WITHOUT_EFFECT.iter().copied());
    Err(invalid(match nearest(key, known) {
        Some(near) => format!("{consumers} have no such key; did you mean {near}?"),
        None => format!("{consumers} have no such key"),
    }))
}

/// A key with the value that it is given.
pub(in crate::clients) struct Given<'a> {
    pub(in crate::clients) key: &'static str,
    pub(in crate::clients) value: &'a str,
}

impl Given<'_> {
    pub(in crate::clients) fn refuse(&self, allowed: String) -> ConsumerError {
        ConsumerError::InvalidValue { key: self.key, value: self.value.to_owned(), allowed }
    }

    pub(in crate::clients) fn text(&self) -> Result<String> {
        if self.value.is_empty() {
            return Err(self.refuse("it may not be empty".to_owned()));
        }
        Ok(self.value.to_owned())
    }

    pub(in crate::clients) fn number(&self, min: i32) -> Result<i32> {
        let number = self.value.parse().ok().filter(|number| *number >= min);
        number.ok_or_else(|| self.refuse(format!("a number from {min} to {} is allowed", i32::MAX)))
    }

    pub(in crate::clients) fn ms(&self, min: i32) -> Result<Duration> {
        Ok(Duration::from_millis(u64::from(self.number(min)?.unsigned_abs())))
    }

    pub(in crate::clients) fn flag(&self) -> Result<bool> {
        self.one_of(&[("true", true), ("false", false)])
    }

    pub(in crate::clients) fn one_of<T: Copy>(&self, values: &[(&str, T)]) -> Result<T> {
        let found = values.iter().find(|(name, _)| *name == self.value);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            self.refuse(format!("{} is allowed", names.join(" or ")))
        })
    }

    pub(in crate::clients) fn reset(&self) -> Result<OffsetReset> {
        if let Some(duration) = self.value.strip_prefix("by_duration:") {
            let allowed = "a time as in by_duration:P1DT2H3M4.5S is allowed";
            let duration = parse_duration(duration).ok_or_else(|| self.refuse(allowed.to_owned()))?;
            return Ok(OffsetReset::ByDuration(duration));
        }
        match self.value {
            "earliest" => Ok(OffsetReset::Earliest),
            "latest" => Ok(OffsetReset::Latest),
            "none" => Ok(OffsetReset::None),
            _ => Err(self.refuse("earliest, latest, none, or by_duration: and a time is allowed".to_owned())),
        }
    }
}

/// Days, hours, minutes and seconds in the form of ISO 8601: `P1DT2H3M4.5S`.
fn parse_duration(text: &str) -> Option<Duration> {
    let (days, clock) = match text.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text.strip_prefix('P')?, ""),
    };
    let mut total = Duration::ZERO;
    let mut any = false;
    for (mut rest, units) in [(days, &[('D', 86_400)][..]), (clock, &[('H', 3600), ('M', 60), ('S', 1)][..])] {
        for &(unit, seconds) in units {
            let Some((number, behind)) = rest.split_once(unit) else { continue };
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit() || (byte == b'.' && unit == 'S'));
            let number: f64 = if is_plain { number.parse().ok()? } else { return None };
            total = total.checked_add(Duration::try_from_secs_f64(number * f64::from(seconds)).ok()?)?;
            (rest, any) = (behind, true);
        }
        if !rest.is_empty() {
            return None;
        }
    }
    any.then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Result<ConsumerConfig> {
        let mut config = ConsumerConfig::default();
        config.set(key, value).map(|()| config)
    }

    #[test]
    fn defaults_are_those_of_the_table_and_every_key_is_taken() {
        let config = ConsumerConfig::default();
        assert_eq!((config.poll_records_max, config.fetch_bytes_max), (500, 52_428_800));
        assert_eq!((config.reset, config.auto_commit), (OffsetReset::Latest, false));
        for row in CONSUMER_KEYS {
            let value = if row.default.is_empty() { "x" } else { row.default };
            set(row.key, value).unwrap();
        }
    }

    #[test]
    fn a_wrong_key_names_the_nearest_and_a_wrong_value_what_is_allowed() {
        let error = |key, value| set(key, value).unwrap_err().to_string();
        assert_eq!(
            error("max.poll.record", "1"),
            "max.poll.record: consumers have no such key; did you mean max.poll.records?"
        );
        assert_eq!(error("max.poll.records", "0"), "max.poll.records=0: a number from 1 to 2147483647 is allowed");
        assert_eq!(error("isolation.level", "x"), "isolation.level=x: read_uncommitted or read_committed is allowed");
        assert_eq!(error("group.protocol", "classic"), "group.protocol=classic: consumer is allowed");
        for (key, reason) in REFUSED {
            assert_eq!(error(key, "x"), format!("{key}: {reason}"));
        }
        for key in WITHOUT_EFFECT.iter().chain(&["ssl.ca.location", "sasl.mechanism", "security.protocol"]) {
            set(key, "x").unwrap();
        }
    }

    #[test]
    fn a_duration_is_read_in_iso_8601() {
        for (text, ms) in [("PT5S", 5000), ("P1D", 86_400_000), ("P1DT2H3M4.5S", 93_784_500), ("PT0.25S", 250)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "P", "PT", "5S", "PT5", "P5S", "PT-5S", "PT5S3M", "P1W", "PTS", "PT1e5S", "PT.S"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        let config = set("auto.offset.reset", "by_duration:PT5S").unwrap();
        assert_eq!(config.reset, OffsetReset::ByDuration(Duration::from_secs(5)));
    }
}

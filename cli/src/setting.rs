//! `KEY=VALUE` of a topic as people write it: times and sizes with units, and keys that belong elsewhere.
//!
//! Only the command line knows units. What a store keeps is Kafka's own form, a number of milliseconds or bytes.

use crate::append::parse_pair;
use crate::time;

/// Reads `key=value`. A value with a unit becomes the number that the key counts in: `retention.ms=7d`,
/// `segment.bytes=16MiB`. Everything else is left for the table of keys to judge.
pub(crate) fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = parse_pair(text)?;
    if let Some((owner, instead)) = elsewhere(&key) {
        return Err(format!("{key} is a key of {owner}, and not of a topic{instead}"));
    }
    let is_number = value.trim().parse::<i64>().is_ok();
    let number = match counts(&key) {
        Some(_) if is_number => None,
        Some(Counts::Ms) => Some(ms_of(&value)?),
        Some(Counts::Bytes) => Some(bytes_of(&value)?),
        None => None,
    };
    Ok((key, number.map_or(value, |number| number.to_string())))
}

/// What the numbers of a key count.
enum Counts {
    Ms,
    Bytes,
}

/// By the key's name, as Kafka ends them.
fn counts(key: &str) -> Option<Counts> {
    let name = key.strip_suffix(".max").unwrap_or(key);
    match name.rsplit('.').next() {
        Some("ms") => Some(Counts::Ms),
        Some("bytes") => Some(Counts::Bytes),
        _ => None,
    }
}

fn ms_of(value: &str) -> Result<i64, String> {
    let expected = || "expected milliseconds, or a time with its unit such as 500ms, 90s, 12h or 7d".to_owned();
    let duration = time::parse_duration(value).map_err(|_| expected())?;
    i64::try_from(duration.as_millis()).map_err(|_| expected())
}

/// Powers of 1024 end in `iB`, powers of 1000 in `B`: a bare `M` could be either.
fn bytes_of(value: &str) -> Result<i64, String> {
    let expected =
        || "expected bytes, or a size with its unit such as 64KiB, 16MiB or 1GiB (16MB is 16,000,000)".to_owned();
    let value = value.trim();
    let (digits, unit) = value.split_at(value.bytes().take_while(u8::is_ascii_digit).count());
    let scale: i64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(expected()),
    };
    digits.parse::<i64>().ok().and_then(|number| number.checked_mul(scale)).ok_or_else(expected)
}

/// Whose key it is, where it is a well-known one of another part of Kafka or of edgelog, and what there is instead.
fn elsewhere(key: &str) -> Option<(&'static str, &'static str)> {
    const NONE: &str = "";
    const BRIDGE: &str = ": `edgelog bridge keys` lists it";
    Some(match key {
        "linger.ms" | "batch.size" => {
            ("Kafka's producers", ": what is appended together is one batch (`edgelog append --batch`)")
        }
        "acks" => ("Kafka's producers", ": flush.messages and flush.ms decide here (`edgelog append --acks`)"),
        "buffer.memory"
        | "delivery.timeout.ms"
        | "enable.idempotence"
        | "max.block.ms"
        | "max.in.flight.requests.per.connection"
        | "max.request.size"
        | "partitioner.class"
        | "retries"
        | "transactional.id" => ("Kafka's producers", NONE),
        "auto.offset.reset" => ("Kafka's consumers", ": `edgelog tail --from-beginning` or `--last`"),
        "isolation.level" => ("the store's readers", ": `--isolation-level` of `tail` and `export`"),
        "enable.auto.commit"
        | "fetch.max.bytes"
        | "fetch.min.bytes"
        | "group.id"
        | "max.poll.interval.ms"
        | "max.poll.records"
        | "session.timeout.ms" => ("Kafka's consumers", NONE),
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            ("Kafka's brokers", ": a topic's is retention.ms")
        }
        "log.retention.bytes" => ("Kafka's brokers", ": a topic's is retention.bytes"),
        "log.segment.bytes" => ("Kafka's brokers", ": a topic's is segment.bytes"),
        "log.roll.ms" | "log.roll.hours" => ("Kafka's brokers", ": a topic's is segment.ms"),
        "message.max.bytes" => ("Kafka's brokers", ": a topic's is max.message.bytes"),
        "log.flush.interval.messages" => ("Kafka's brokers", ": a topic's is flush.messages"),
        "log.flush.interval.ms" => ("Kafka's brokers", ": a topic's is flush.ms"),
        "log.cleanup.policy" => ("Kafka's brokers", ": a topic's is cleanup.policy"),
        "log.dirs" | "log.dir" => ("Kafka's brokers", ": `--dir` names the data directory"),
        "default.replication.factor"
        | "broker.id"
        | "node.id"
        | "listeners"
        | "process.roles"
        | "min.insync.replicas" => ("Kafka's brokers", ": here a log has one copy, on this device"),
        "num.partitions" => ("Kafka's brokers", ": `--partitions` says how many a topic has"),
        "bootstrap.servers" | "client.id" | "edgelog.device.id" | "transaction.timeout.ms" => ("the bridge", BRIDGE),
        key if key.starts_with("edgelog.bridge.") => ("the bridge", BRIDGE),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use edgelog::edgelog_core::config::{KEYS, Scope};

    use super::*;

    fn value_of(text: &str) -> String {
        parse_setting(text).unwrap().1
    }

    #[test]
    fn units_become_the_numbers_that_keys_count_in() {
        for (text, value) in [
            ("retention.ms=7d", "604800000"),
            ("retention.ms=-1", "-1"),
            ("flush.ms=1.5s", "1500"),
            ("segment.ms=1h30m", "5400000"),
            ("segment.bytes=16MiB", "16777216"),
            ("segment.bytes= 16 mib", "16777216"),
            ("retention.bytes=2GB", "2000000000"),
            ("max.message.bytes=1048588", "1048588"),
            ("edgelog.decompressed.bytes.max=1KiB", "1024"),
            ("compression.type=snappy", "snappy"),
            ("flush.messages=7d", "7d"),
        ] {
            assert_eq!(value_of(text), value, "{text}");
        }
        for text in ["segment.bytes=16M", "segment.bytes=MiB", "segment.bytes=-1MiB", "segment.bytes=99999999TiB"] {
            assert!(parse_setting(text).unwrap_err().contains("16MiB"), "{text}");
        }
        for text in ["retention.ms=7", "retention.ms=7 parsecs", "retention.ms=-5s", "retention.ms=soon"] {
            assert_eq!(parse_setting(text).is_err(), text != "retention.ms=7", "{text}");
        }
    }

    #[test]
    fn every_key_with_a_unit_is_known_by_its_name() {
        for row in KEYS.iter().filter(|row| row.scope == Scope::Topic) {
            assert!(elsewhere(row.key).is_none(), "{}", row.key);
            let unit = match counts(row.key) {
                Some(Counts::Ms) => "ms",
                Some(Counts::Bytes) => "bytes",
                None => "",
            };
            assert_eq!(unit, if row.key == "flush.messages" { "" } else { row.unit }, "{}", row.key);
        }
    }
}

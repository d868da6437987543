//! The producer's keys: Kafka's names, as strings.

use std::time::Duration;

use edgelog_core::CompressionType;
use edgelog_core::config::{KEYS, Scope, nearest};

use super::key::{ClientKey, key};
use super::partitioner::Partitioner;
use super::producer_error::{InvalidKey, ProducerError};

/// Every key that has an effect, in the order of the documentation. Defaults are those of Kafka 4's Java client.
pub const PRODUCER_KEYS: &[ClientKey] = &[
    key(
        "acks",
        "all",
        "When a record is acknowledged: all (or -1), when it is durable on flash; 1, when it is appended, and then a \
         power cut may take what the topic's flush.ms or the kernel had not flushed; 0, at once, without an offset and \
         without the error of an append.",
    ),
    key("batch.size", "16384", "Bytes from which on an open batch takes no further record, before compression."),
    key(
        "linger.ms",
        "5",
        "How long an open batch waits for more records, in milliseconds. With 0 a record is appended at once: by the \
         caller with acks=0 and 1, by the sender thread with acks=all, in a batch with those that came during its last \
         flush.",
    ),
    key(
        "buffer.memory",
        "33554432",
        "Bytes of batches that may be open or wait for their flush; each open one counts with batch.size at least. At \
         least batch.size.",
    ),
    key(
        "max.block.ms",
        "60000",
        "How long send waits for buffer.memory, in milliseconds, before it answers an error and takes nothing.",
    ),
    key(
        "delivery.timeout.ms",
        "120000",
        "After so many milliseconds without an acknowledgement, who waits for it gets an error. At least linger.ms.",
    ),
    key(
        "compression.type",
        "",
        "none, gzip, snappy, lz4 or zstd, as far as this build writes it. Where it is not set, the topic's own \
         compression.type.",
    ),
    key(
        "max.request.size",
        "1048576",
        "The most bytes that a record may take in a batch of its own, before compression.",
    ),
    key(
        "partitioner",
        "murmur2",
        "Where a record with a key goes: murmur2, as Java's client (also murmur2_random), or consistent_random, as \
         librdkafka. Records without a key stay with a partition for about batch.size bytes.",
    ),
    key("partitioner.ignore.keys", "false", "Whether records with a key go where those without one go."),
    key(
        "allow.auto.create.topics",
        "true",
        "Whether a topic that does not exist is created at its first record, with one partition and the store's \
         defaults.",
    ),
    key(
        "edgelog.producer.name",
        "",
        "The producer's name: its records are numbered, what is sent again under its number is not appended again, and \
         a newer producer of the name fences the older. 1 to 249 letters, digits, '.', '_' and '-'.",
    ),
];

/// Keys of Kafka's producers that are accepted and change nothing, so that one configuration serves here and for a
/// cluster: what each is about is not there, or holds without it.
const WITHOUT_EFFECT: &[&str] = &[
    "bootstrap.servers",
    "client.dns.lookup",
    "client.id",
    "connections.max.idle.ms",
    "enable.idempotence", // nothing is sent twice: an append is not retried; edgelog.producer.name does more
    "max.in.flight.requests.per.connection",
    "metadata.max.age.ms",
    "metadata.max.idle.ms",
    "partitioner.adaptive.partitioning.enable", // there are no brokers, of which one could be slow
    "partitioner.availability.timeout.ms",
    "receive.buffer.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retries", // an append that failed says so: the disk is full, or the log is read-only
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "security.protocol",
    "send.buffer.bytes",
];

/// The same for whole families: how a connection is made.
const FAMILIES_WITHOUT_EFFECT: &[&str] = &["ssl.", "sasl."];

/// Keys that are refused with a reason.
const REFUSED: &[(&str, &str)] = &[
    ("transactional.id", "there are no transactions here: a batch of one partition is appended whole or not at all"),
    ("transaction.timeout.ms", "there are no transactions here"),
    ("key.serializer", "keys are bytes: serialize them before send"),
    ("value.serializer", "values are bytes: serialize them before send"),
    ("partitioner.class", "a class of Java's; set partitioner to murmur2 or consistent_random"),
    ("interceptor.classes", "a class of Java's"),
    ("metric.reporters", "a class of Java's; Producer::metrics has the figures"),
    ("queue.buffering.max.ms", "librdkafka's other name of linger.ms"),
    ("compression.codec", "librdkafka's other name of compression.type"),
    ("message.timeout.ms", "librdkafka's other name of delivery.timeout.ms"),
    ("request.required.acks", "librdkafka's other name of acks"),
    ("queue.buffering.max.kbytes", "set buffer.memory, in bytes"),
    ("queue.buffering.max.messages", "set buffer.memory, in bytes"),
    ("group.id", "it is a consumer's key"),
    ("auto.offset.reset", "it is a consumer's key"),
    ("enable.auto.commit", "it is a consumer's key"),
    ("max.poll.records", "it is a consumer's key"),
];

/// When a record is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acks {
    None,
    Appended,
    All,
}

/// How a producer works.
#[derive(Debug, Clone)]
pub(super) struct ProducerConfig {
    pub(super) acks: Acks,
    pub(super) batch_size: usize,
    pub(super) linger: Duration,
    pub(super) buffer_memory: u64,
    pub(super) max_block: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) compression: Option<CompressionType>,
    pub(super) max_request_size: usize,
    pub(super) partitioner: Partitioner,
    pub(super) ignore_keys: bool,
    pub(super) create_topics: bool,
    pub(super) name: Option<String>,
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: Acks::All,
            batch_size: 16 << 10,
            linger: Duration::from_millis(5),
            buffer_memory: 32 << 20,
            max_block: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            compression: None,
            max_request_size: 1 << 20,
            partitioner: Partitioner::Murmur2,
            ignore_keys: false,
            create_topics: true,
            name: None,
        }
    }
}

impl ProducerConfig {
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), ProducerError> {
        self.set_known(key, value.trim()).map_err(|reason| invalid(key, value, reason))
    }

    fn set_known(&mut self, key: &str, value: &str) -> Result<(), String> {
        const INT_MAX: u64 = i32::MAX as u64;
        match key {
            "acks" => {
                self.acks =
                    one_of(value, &[("all", Acks::All), ("-1", Acks::All), ("1", Acks::Appended), ("0", Acks::None)])?;
            }
            "batch.size" => self.batch_size = number(value, 0, INT_MAX)? as usize,
            "linger.ms" => self.linger = Duration::from_millis(number(value, 0, INT_MAX)?),
            "buffer.memory" => self.buffer_memory = number(value, 0, i64::MAX as u64)?,
            "max.block.ms" => self.max_block = Duration::from_millis(number(value, 0, INT_MAX)?),
            "delivery.timeout.ms" => self.delivery_timeout = Duration::from_millis(number(value, 0, INT_MAX)?),
            "compression.type" => {
                let codecs = CompressionType::ALL.map(|codec| (codec.name(), codec));
                let codec = one_of(value, &codecs)?;
                // The build's own answer, from an empty payload.
                crate::codec::compress(codec, b"", &mut Vec::new()).map_err(|error| error.to_string())?;
                self.compression = Some(codec);
            }
            "max.request.size" => self.max_request_size = number(value, 0, INT_MAX)? as usize,
            "partitioner" => {
                self.partitioner = one_of(
                    value,
                    &[
                        ("murmur2", Partitioner::Murmur2),
                        ("murmur2_random", Partitioner::Murmur2),
                        ("consistent_random", Partitioner::ConsistentRandom),
                    ],
                )?;
            }
            "partitioner.ignore.keys" => self.ignore_keys = one_of(value, &TRUTHS)?,
            "allow.auto.create.topics" => self.create_topics = one_of(value, &TRUTHS)?,
            "edgelog.producer.name" => self.name = Some(producer_name(value)?),
            _ => return without_effect(key),
        }
        Ok(())
    }

    /// Whether the keys agree with each other.
    pub(super) fn validate(&self) -> Result<(), ProducerError> {
        if self.buffer_memory < self.batch_size as u64 {
            let reason = format!("it is less than batch.size={}, and no batch could be opened", self.batch_size);
            return Err(invalid("buffer.memory", &self.buffer_memory.to_string(), reason));
        }
        if self.delivery_timeout < self.linger {
            let reason = format!("it is less than linger.ms={}", self.linger.as_millis());
            return Err(invalid("delivery.timeout.ms", &self.delivery_timeout.as_millis().to_string(), reason));
        }
        Ok(())
    }
}

const TRUTHS: [(&str, bool); 2] = [("true", true), ("false", false)];

fn invalid(key: &str, value: &str, reason: String) -> ProducerError {
    ProducerError::InvalidConfig(Box::new(InvalidKey { key: key.to_owned(), value: value.to_owned(), reason }))
}

/// Accepts the keys that change nothing, and says of all others why they are refused.
fn without_effect(key: &str) -> Result<(), String> {
    if WITHOUT_EFFECT.contains(&key) || FAMILIES_WITHOUT_EFFECT.iter().any(|family| key.starts_with(family)) {
        return Ok(());
    }
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
        return Err((*reason).to_owned());
    }
    if let Some(row) = KEYS.iter().find(|row| row.key == key) {
        return Err(match row.scope {
            Scope::Topic => "it is a topic's key: set it with NewTopic::config or Store::alter_topic".to_owned(),
            Scope::Store => "it is a store's key: set it with Store::options".to_owned(),
        });
    }
    let names = PRODUCER_KEYS.iter().map(|row| row.key);
    Err(match nearest(key, names.chain(WITHOUT_EFFECT.iter().copied())) {
        Some(nearest) => format!("there is no such key; did you mean {nearest}?"),
        None => "there is no such key".to_owned(),
    })
}

fn producer_name(value: &str) -> Result<String, String> {
    const LEN_MAX: usize = 249;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=LEN_MAX).contains(&value.len()) {
        return Err(format!("it has {} bytes; 1 to {LEN_MAX} are allowed", value.len()));
    }
    if !value.bytes().all(is_allowed) {
        return Err("a name has letters, digits, '.', '_' and '-'".to_owned());
    }
    Ok(value.to_owned())
}

fn number(value: &str, min: u64, max: u64) -> Result<u64, String> {
    let within = value.parse().ok().filter(|number| (min..=max).contains(number));
    within.ok_or_else(|| format!("it is not a number between {min} and {max}"))
}

fn one_of<T: Copy>(value: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
        return Ok(*meaning);
    }
    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    Err(format!("it is none of {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(key: &str, value: &str) -> String {
        ProducerConfig::default().set(key, value).unwrap_err().to_string()
    }

    #[test]
    fn the_table_is_what_is_set() {
        let mut config = ProducerConfig::default();
        let before = format!("{config:?}");
        for row in PRODUCER_KEYS {
            if !row.default.is_empty() {
                config.set(row.key, row.default).unwrap();
            }
            assert!(refusal(row.key, "no such value").contains(row.key), "{} has bounds", row.key);
            assert!(!WITHOUT_EFFECT.contains(&row.key) && !REFUSED.iter().any(|(key, _)| *key == row.key));
        }
        assert_eq!(format!("{config:?}"), before, "the defaults of the table are those of the struct");
        config.validate().unwrap();
    }

    /// A table written by hand, each row in one line.
    #[test]
    fn the_page_has_every_key() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/clients.md");
        let page = std::fs::read_to_string(page).unwrap();
        for ClientKey { key, default, doc } in PRODUCER_KEYS {
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let row = format!("| `{key}` | {default} | {doc} |\n");
            assert!(page.contains(&row), "docs/clients.md does not have\n{row}");
        }
        for key in WITHOUT_EFFECT.iter().chain(FAMILIES_WITHOUT_EFFECT) {
            assert!(page.contains(&format!("`{key}")), "docs/clients.md does not name {key}");
        }
        for (key, _) in REFUSED.iter().filter(|(_, reason)| !reason.contains("consumer")) {
            assert!(page.contains(&format!("`{key}`")), "docs/clients.md does not name {key}");
        }
    }

    #[test]
    fn keys_and_values_that_cannot_be_say_why() {
        assert_eq!(refusal("linger.mss", "5"), "linger.mss=5: there is no such key; did you mean linger.ms?");
        assert_eq!(refusal("linger.ms", "-1"), "linger.ms=-1: it is not a number between 0 and 2147483647");
        assert_eq!(refusal("acks", "2"), "acks=2: it is none of all, -1, 1, 0");
        assert!(refusal("group.id", "g").contains("a consumer's key"));
        assert!(refusal("retention.ms", "1").contains("a topic's key"));
        assert!(refusal("edgelog.storage", "map").contains("a store's key"));
        assert!(refusal("transactional.id", "t").contains("no transactions"));
        let mut config = ProducerConfig::default();
        for key in ["bootstrap.servers", "retries", "ssl.ca.location", "sasl.username"] {
            config.set(key, "anything").unwrap();
        }
        config.set("buffer.memory", "1000").unwrap();
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "buffer.memory=1000: it is less than batch.size=16384, and no batch could be opened");
        config.set("batch.size", "10").unwrap();
        config.set("delivery.timeout.ms", "4").unwrap();
        assert!(config.validate().unwrap_err().to_string().contains("less than linger.ms=5"));
    }
}

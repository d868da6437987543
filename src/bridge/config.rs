//! The bridge's keys: Kafka's and librdkafka's where they have one, `edgelog.` before those that are ours.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use edgelog_core::CompressionType;

use super::error::{BridgeError, Result};
use crate::clients::Partitioner;
use crate::codec::feature_missing_to_write;
use crate::kafka::{Protocol, Security, TlsClient, TokenCallback};
use crate::store::retention_holds::covers;

/// A key of the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeKey {
    /// Its name.
    pub key: &'static str,
    /// Its value where it is not set; empty where it has none.
    pub default: &'static str,
    /// What it does, in a sentence, with its unit.
    pub doc: &'static str,
}

const fn key(key: &'static str, default: &'static str, doc: &'static str) -> BridgeKey {
    BridgeKey { key, default, doc }
}

/// Every key, in the order of the documentation.
pub const BRIDGE_KEYS: &[BridgeKey] = &[
    key(
        "bootstrap.servers",
        "",
        "Brokers to begin with, as host:port,host:port. Each may name the value of security.protocol, as in \
         SSL://host:port. Required.",
    ),
    key(
        "edgelog.device.id",
        "",
        "Who this device is to the cluster: letters, digits, '.', '_' and '-', at most 200. Required, and another one \
         for each device.",
    ),
    key(
        "edgelog.bridge.topics",
        "",
        "Which topics are sent: names, and patterns with '*' for any characters and '?' for one, separated by commas. \
         Required.",
    ),
    key("edgelog.bridge.to", "{topic}", "The target topic's name; {topic} and {device} are filled in."),
    key(
        "edgelog.bridge.partition",
        "auto",
        "The target partition of a log that has no position yet: same (number), device (a hash of the device's id), a \
         number, or auto: same where the target's name has {device}, else device. Or one for each record: key (by its \
         key, as Java's clients choose: murmur2) or key:consistent_random (as librdkafka's do: CRC-32); then every \
         batch is made again.",
    ),
    key(
        "edgelog.bridge.interval.ms",
        "10000",
        "While there is less than edgelog.bridge.batch.bytes to send, one transaction in so many milliseconds. What \
         comes after silence is sent at once; up to five more that a silence has saved follow soon after.",
    ),
    key("edgelog.bridge.batch.bytes", "1048576", "So much is sent without waiting for the interval, in bytes."),
    key(
        "edgelog.bridge.transaction.bytes",
        "4194304",
        "A transaction takes no further batch once it holds so many bytes.",
    ),
    key(
        "edgelog.bridge.id.prefix",
        "edgelog",
        "What transactional.id and the groups' names begin with, before a colon and the device's id.",
    ),
    key(
        "edgelog.bridge.expired",
        "stop",
        "What becomes of records that the target topic's retention.ms would delete on arrival: stop (that log waits, \
         and says so), send, or restamp (they get the present time, and their own in the header edgelog.timestamp).",
    ),
    key(
        "edgelog.bridge.on.refused",
        "dead-letter",
        "What becomes of a record that the target refuses as too large or invalid (codes 10, 18 and 87): dead-letter \
         (it goes to edgelog.bridge.dead.letter.topic, and the log goes on) or stop (the log waits).",
    ),
    key(
        "edgelog.bridge.on.refused.timestamp",
        "stop",
        "What becomes of a record whose time the target refuses (code 32, a clock that is fast): stop or dead-letter.",
    ),
    key(
        "edgelog.bridge.dead.letter.topic",
        "edgelog.dead.letters",
        "Where dead letters go; {topic} and {device} are filled in.",
    ),
    key(
        "edgelog.bridge.on.lost",
        "report",
        "What becomes of a log of which local retention, or damage, has taken records before they were sent: report \
         (a record in edgelog.bridge.loss.topic names them, and the log goes on) or stop (the log waits).",
    ),
    key(
        "edgelog.bridge.loss.topic",
        "edgelog.losses",
        "Where losses are reported; {topic} and {device} are filled in.",
    ),
    key(
        "edgelog.bridge.on.recreated",
        "stop",
        "What becomes of a log whose target topic was deleted and created again: stop (the log waits), restart (all \
         that it holds is sent again) or resume (it goes on where it was).",
    ),
    key(
        "edgelog.bridge.on.set.back",
        "stop",
        "What becomes of a log of which the cluster has acknowledged more than it knows of now: stop, follow (what the \
         cluster lost is sent again) or resume (it goes on where it was).",
    ),
    key(
        "edgelog.bridge.on.new.log",
        "stop",
        "What becomes of a log that was deleted and created again under the same name, so that the \
         cluster's position is of another one: stop or restart (it is sent from its beginning).",
    ),
    key(
        "edgelog.bridge.on.fenced",
        "wait",
        "What becomes of a bridge where a person has to decide, since another copy of this device runs, or the \
         cluster's positions are another one's: wait (it sends nothing, reads the positions again every \
         edgelog.bridge.retry.ms, and goes on once a person has decided with `edgelog bridge adopt` or `reset`) or \
         exit (code 3). With --until-caught-up it exits.",
    ),
    key(
        "edgelog.bridge.create.topics",
        "false",
        "Whether topics that the cluster lacks are created, those for dead letters and losses as well.",
    ),
    key(
        "edgelog.bridge.create.partitions",
        "-1",
        "How many partitions a created target has; -1: as many as the local topic where numbers stay the same, else \
         what the cluster's num.partitions says.",
    ),
    key(
        "edgelog.bridge.create.replication.factor",
        "-1",
        "How many replicas a created topic has; -1: what the cluster's default.replication.factor says.",
    ),
    key(
        "edgelog.bridge.create.config",
        "",
        "The configuration of a created target: key=value, separated by semicolons.",
    ),
    key(
        "edgelog.bridge.retry.ms",
        "60000",
        "How often a log that waits is looked at again, with the cluster's position and the target's rules.",
    ),
    key(
        "edgelog.bridge.recommit.ms",
        "86400000",
        "The position of a log of which nothing was sent for so long is committed again, lest the cluster forget it.",
    ),
    key(
        "edgelog.bridge.delivery",
        "exactly-once",
        "exactly-once, or at-least-once for clusters without transactions of version 2: records may arrive twice after \
         a failure, and no copy of the device is fenced.",
    ),
    key(
        "compression.type",
        "stored",
        "How batches are compressed on their way: stored (as they are in the store, and what is joined as its topic \
         says), none, gzip, snappy, lz4 or zstd. With a codec, batches that are stored otherwise are compressed again, \
         where that makes them smaller.",
    ),
    key("client.id", "edgelog", "What brokers write into their logs and quotas."),
    key(
        "transaction.timeout.ms",
        "",
        "The cluster aborts a transaction that takes longer, in milliseconds (1000 to 900000). Where it is not set, it \
         follows the line: sixteen round trips and time for the offsets of all logs, at least 10000 and at most \
         60000.",
    ),
    key("request.timeout.ms", "30000", "How long an answer may take, in milliseconds."),
    key("socket.connection.setup.timeout.ms", "10000", "How long connecting to one address may take, in milliseconds."),
    key("reconnect.backoff.ms", "100", "The first pause after a failure, in milliseconds; the next ones double."),
    key("reconnect.backoff.max.ms", "10000", "The longest pause after a failure, in milliseconds."),
    key("security.protocol", "PLAINTEXT", "How brokers are spoken to: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."),
    key(
        "ssl.ca.location",
        "",
        "A PEM file with the certificates of the CAs that are trusted; without it the system's.",
    ),
    key(
        "ssl.certificate.location",
        "",
        "A PEM file with this device's certificate, and those between it and its CA: for mutual TLS.",
    ),
    key("ssl.key.location", "", "A PEM file with the certificate's private key, not encrypted."),
    key(
        "ssl.endpoint.identification.algorithm",
        "https",
        "https: a broker's certificate has to be for the host that was connected to; none: for any.",
    ),
    key("enable.ssl.certificate.verification", "true", "With false any certificate is accepted: for trying out."),
    key("sasl.mechanism", "", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER."),
    key("sasl.username", "", "The user's name, for PLAIN and SCRAM."),
    key("sasl.password", "", "The user's password."),
    key(
        "edgelog.sasl.password.file",
        "",
        "A file with the password, instead; read again for each connection, so that it can be rotated.",
    ),
    key(
        "edgelog.sasl.oauthbearer.token.file",
        "",
        "A file with the token for OAUTHBEARER; read again for each connection, and before its session ends.",
    ),
];

/// Which partition of the target a log goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartitionRule {
    Auto,
    Same,
    Device,
    Fixed(u32),
    /// Each record's key chooses.
    Key(Partitioner),
}

/// How batches are compressed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireCompression {
    Stored,
    Codec(CompressionType),
}

/// What becomes of records that the target would delete on arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpiredRule {
    Stop,
    Send,
    Restamp,
}

/// What becomes of a record that the target refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusedRule {
    Stop,
    DeadLetter,
}

/// What becomes of a log whose records were taken before they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LostRule {
    Stop,
    Report,
}

/// What becomes of a log whose target topic was deleted and created again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecreatedRule {
    Stop,
    Restart,
    Resume,
}

/// What becomes of a log of which the cluster knows less than it had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetBackRule {
    Stop,
    Follow,
    Resume,
}

/// What becomes of a log that was begun again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewLogRule {
    Stop,
    Restart,
}

/// What becomes of a bridge where a person has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FencedRule {
    Wait,
    Exit,
}

/// What a consumer may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

/// How topics are created that the cluster lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Creation {
    pub(super) wanted: bool,
    /// -1 where the cluster, or the local topic, decides.
    pub(super) partitions: i32,
    /// -1 where the cluster decides.
    pub(super) replication_factor: i16,
    pub(super) config: Vec<(String, String)>,
}

/// How a bridge is to work; see [`BRIDGE_KEYS`].
#[derive(Debug, Clone)]
pub struct BridgeConfig {
    pub(super) bootstrap: Vec<(String, u16)>,
    /// Those of `bootstrap.servers` that name a protocol, as they stand there.
    pub(super) with_protocol: Vec<(String, Protocol)>,
    pub(super) device: String,
    pub(super) topics: Vec<String>,
    pub(super) to: String,
    pub(super) partition: PartitionRule,
    pub(super) interval: Duration,
    pub(super) batch_bytes: usize,
    pub(super) transaction_bytes: usize,
    pub(super) id_prefix: String,
    pub(super) expired: ExpiredRule,
    pub(super) on_refused: RefusedRule,
    pub(super) on_refused_timestamp: RefusedRule,
    pub(super) dead_letters: String,
    pub(super) on_lost: LostRule,
    pub(super) losses: String,
    pub(super) on_recreated: RecreatedRule,
    pub(super) on_set_back: SetBackRule,
    pub(super) on_new_log: NewLogRule,
    pub(super) on_fenced: FencedRule,
    pub(super) creation: Creation,
    pub(super) retry: Duration,
    pub(super) recommit: Duration,
    pub(super) delivery: Delivery,
    pub(super) compression: WireCompression,
    pub(super) client_id: String,
    pub(super) transaction_timeout: Option<Duration>,
    pub(super) request_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) backoff: Duration,
    pub(super) backoff_max: Duration,
    pub(super) security: Security,
}

impl Default for BridgeConfig {
    fn default() -> BridgeConfig {
        let ms = Duration::from_millis;
        BridgeConfig {
            bootstrap: Vec::new(),
            with_protocol: Vec::new(),
            device: String::new(),
            topics: Vec::new(),
            to: "{topic}".to_owned(),
            partition: PartitionRule::Auto,
            interval: ms(10_000),
            batch_bytes: 1 << 20,
            transaction_bytes: 4 << 20,
            id_prefix: "edgelog".to_owned(),
            expired: ExpiredRule::Stop,
            on_refused: RefusedRule::DeadLetter,
            on_refused_timestamp: RefusedRule::Stop,
            dead_letters: "edgelog.dead.letters".to_owned(),
            on_lost: LostRule::Report,
            losses: "edgelog.losses".to_owned(),
            on_recreated: RecreatedRule::Stop,
            on_set_back: SetBackRule::Stop,
            on_new_log: NewLogRule::Stop,
            on_fenced: FencedRule::Wait,
            creation: Creation { wanted: false, partitions: -1, replication_factor: -1, config: Vec::new() },
            retry: ms(60_000),
            recommit: ms(86_400_000),
            delivery: Delivery::ExactlyOnce,
            compression: WireCompression::Stored,
            client_id: "edgelog".to_owned(),
            transaction_timeout: None,
            request_timeout: ms(30_000),
            connect_timeout: ms(10_000),
            backoff: ms(100),
            backoff_max: ms(10_000),
            security: Security::default(),
        }
    }
}

const REFUSED_RULES: [(&str, RefusedRule); 2] = [("dead-letter", RefusedRule::DeadLetter), ("stop", RefusedRule::Stop)];

/// What a device's id, or the prefix, may be: what a topic's name may be, so that it can stand in one, and no colon.
const ID_LEN_MAX: usize = 200;

fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= ID_LEN_MAX
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl BridgeConfig {
    /// Sets a key.
    ///
    /// # Errors
    /// [`BridgeError::InvalidConfig`] for a value that cannot be, and for a key that there is not, with the nearest one
    /// that there is. Errors never hold the value of a key.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let value = value.trim();
        self.set_known(key, value).map_err(|reason| BridgeError::InvalidConfig { key: key.to_owned(), reason })
    }

    fn set_known(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        match key {
            "bootstrap.servers" => (self.bootstrap, self.with_protocol) = parse_servers(value)?,
            "edgelog.device.id" => self.device = parse_id(value)?,
            "edgelog.bridge.topics" => {
                self.topics =
                    value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
                if self.topics.is_empty() {
                    return Err("no topic is named".to_owned());
                }
            }
            "edgelog.bridge.to" => self.to = parse_template(value)?,
            "edgelog.bridge.partition" => {
                self.partition = match value {
                    "auto" => PartitionRule::Auto,
                    "same" => PartitionRule::Same,
                    "device" => PartitionRule::Device,
                    "key" => PartitionRule::Key(Partitioner::Murmur2),
                    "key:consistent_random" => PartitionRule::Key(Partitioner::ConsistentRandom),
                    number => PartitionRule::Fixed(number.parse().map_err(|_| {
                        "it is auto, same, device, key, key:consistent_random, or a partition's number".to_owned()
                    })?),
                }
            }
            "edgelog.bridge.interval.ms" => self.interval = parse_ms(value, 0, 86_400_000)?,
            "edgelog.bridge.batch.bytes" => self.batch_bytes = parse_bytes(value)?,
            "edgelog.bridge.transaction.bytes" => self.transaction_bytes = parse_bytes(value)?,
            "edgelog.bridge.id.prefix" => self.id_prefix = parse_id(value)?,
            "edgelog.bridge.expired" => {
                let rules =
                    [("stop", ExpiredRule::Stop), ("send", ExpiredRule::Send), ("restamp", ExpiredRule::Restamp)];
                self.expired = parse_one_of(value, &rules)?;
            }
            "edgelog.bridge.on.refused" => self.on_refused = parse_one_of(value, &REFUSED_RULES)?,
            "edgelog.bridge.on.refused.timestamp" => self.on_refused_timestamp = parse_one_of(value, &REFUSED_RULES)?,
            "edgelog.bridge.dead.letter.topic" => self.dead_letters = parse_template(value)?,
            "edgelog.bridge.on.lost" => {
                self.on_lost = parse_one_of(value, &[("report", LostRule::Report), ("stop", LostRule::Stop)])?;
            }
            "edgelog.bridge.loss.topic" => self.losses = parse_template(value)?,
            "edgelog.bridge.on.recreated" => {
                let rules = [
                    ("stop", RecreatedRule::Stop),
                    ("restart", RecreatedRule::Restart),
                    ("resume", RecreatedRule::Resume),
                ];
                self.on_recreated = parse_one_of(value, &rules)?;
            }
            "edgelog.bridge.on.set.back" => {
                let rules =
                    [("stop", SetBackRule::Stop), ("follow", SetBackRule::Follow), ("resume", SetBackRule::Resume)];
                self.on_set_back = parse_one_of(value, &rules)?;
            }
            "edgelog.bridge.on.new.log" => {
                self.on_new_log = parse_one_of(value, &[("stop", NewLogRule::Stop), ("restart", NewLogRule::Restart)])?;
            }
            "edgelog.bridge.on.fenced" => {
                self.on_fenced = parse_one_of(value, &[("wait", FencedRule::Wait), ("exit", FencedRule::Exit)])?;
            }
            "edgelog.bridge.create.topics" => {
                self.creation.wanted = parse_one_of(value, &[("true", true), ("false", false)])?;
            }
            "edgelog.bridge.create.partitions" => self.creation.partitions = parse_count(value)?,
            "edgelog.bridge.create.replication.factor" => self.creation.replication_factor = parse_count(value)?,
            "edgelog.bridge.create.config" => self.creation.config = parse_pairs(value)?,
            "edgelog.bridge.retry.ms" => self.retry = parse_ms(value, 100, 86_400_000)?,
            "edgelog.bridge.recommit.ms" => self.recommit = parse_ms(value, 1_000, 604_800_000)?,
            "edgelog.bridge.delivery" => {
                let known = [("exactly-once", Delivery::ExactlyOnce), ("at-least-once", Delivery::AtLeastOnce)];
                self.delivery = parse_one_of(value, &known)?;
            }
            "compression.type" => self.compression = parse_compression(value)?,
            "client.id" => value.clone_into(&mut self.client_id),
            "transaction.timeout.ms" => self.transaction_timeout = Some(parse_ms(value, 1_000, 900_000)?),
            "request.timeout.ms" => self.request_timeout = parse_ms(value, 100, 600_000)?,
            "socket.connection.setup.timeout.ms" => self.connect_timeout = parse_ms(value, 100, 600_000)?,
            "reconnect.backoff.ms" => self.backoff = parse_ms(value, 1, 600_000)?,
            "reconnect.backoff.max.ms" => self.backoff_max = parse_ms(value, 1, 600_000)?,
            _ => {
                if let Some(set) = self.security.set(key, value) {
                    return set;
                }
                let names = BRIDGE_KEYS.iter().map(|row| row.key);
                return Err(match edgelog_core::config::nearest(key, names) {
                    Some(nearest) => format!("there is no such key; did you mean {nearest}?"),
                    None => "there is no such key".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Reads keys from text: `key=value` lines; empty ones and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// As [`set`](BridgeConfig::set), at the first line that cannot be.
    pub fn set_lines(&mut self, text: &str) -> Result<()> {
        for (n, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                // Not the line itself: it may be a secret that lost its key.
                let reason = "it is not of the form key=value".to_owned();
                return Err(BridgeError::InvalidConfig { key: format!("line {}", n + 1), reason });
            };
            self.set(key.trim(), value)?;
        }
        Ok(())
    }

    /// Sets keys from environment variables: `EDGELOG_BRIDGE_` and a key in capitals, with `_` for each dot, as in
    /// `EDGELOG_BRIDGE_SASL_PASSWORD`. All others of the `variables` are passed over.
    ///
    /// # Errors
    /// As [`set`](BridgeConfig::set), with the variable's name in place of the key's.
    pub fn set_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<()> {
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else { continue };
            let wrong = |reason: String| BridgeError::InvalidConfig { key: name.to_owned(), reason };
            let Some(row) = BRIDGE_KEYS.iter().find(|row| variable_of(row.key) == name) else {
                let names: Vec<String> = BRIDGE_KEYS.iter().map(|row| variable_of(row.key)).collect();
                return Err(wrong(match edgelog_core::config::nearest(name, names.iter().map(String::as_str)) {
                    Some(nearest) => format!("there is no such key; did you mean {nearest}?"),
                    None => "there is no such key".to_owned(),
                }));
            };
            let value = value.to_str().ok_or_else(|| wrong("it is not UTF-8".to_owned()))?;
            self.set_known(row.key, value.trim()).map_err(wrong)?;
        }
        Ok(())
    }

    /// Whether everything is set that has no default, and the certificates that are named can be read.
    ///
    /// # Errors
    /// [`BridgeError::InvalidConfig`] with the key that is missing or wrong.
    pub fn validate(&self) -> Result<()> {
        self.validate_device()?;
        if self.topics.is_empty() { Err(missing("edgelog.bridge.topics")) } else { Ok(()) }
    }

    /// As [`validate`](BridgeConfig::validate), for what concerns no topics.
    pub(super) fn validate_device(&self) -> Result<()> {
        if self.bootstrap.is_empty() {
            return Err(missing("bootstrap.servers"));
        }
        if self.device.is_empty() {
            return Err(missing("edgelog.device.id"));
        }
        let wrong =
            |key: &str, reason: &str| BridgeError::InvalidConfig { key: key.to_owned(), reason: reason.to_owned() };
        self.security.check().map_err(|(key, reason)| wrong(key, reason))?;
        let protocol = self.security.protocol;
        if let Some((server, _)) = self.with_protocol.iter().find(|(_, named)| *named != protocol) {
            let reason = format!("{server} contradicts security.protocol={}; one of them is wrong", protocol.name());
            return Err(wrong("bootstrap.servers", &reason));
        }
        if self.security.protocol.has_tls() {
            TlsClient::new(self.security.tls.clone()).load().map_err(|(key, reason)| wrong(key, &reason))?;
        }
        Ok(())
    }

    /// What of this configuration is less safe than it could be, each with what can be done about it: certificates that
    /// are not looked at, passwords and tokens without encryption, files of secrets that others may read. A bridge logs
    /// them once, when it is made.
    pub fn warnings(&self) -> Vec<String> {
        self.security.warnings().into_iter().map(|(key, what)| format!("{key}: {what}")).collect()
    }

    /// Lets `source` be asked for the token of `sasl.mechanism=OAUTHBEARER`: for each connection, and again before its
    /// session ends. What it fails with is reported, and it is asked again later; it must not hold a secret.
    ///
    /// # Concurrency
    /// Called on the thread that runs the bridge, which waits for it.
    pub fn set_oauthbearer_token_callback(
        &mut self,
        source: impl Fn() -> std::result::Result<String, String> + Send + Sync + 'static,
    ) {
        self.security.sasl.token_callback = Some(TokenCallback(Arc::new(source)));
    }

    /// Whether brokers are named.
    pub fn names_brokers(&self) -> bool {
        !self.bootstrap.is_empty()
    }

    /// `edgelog.device.id`, where it is set.
    pub fn device_id(&self) -> Option<&str> {
        Some(self.device.as_str()).filter(|device| !device.is_empty())
    }

    /// `edgelog.bridge.topics`: the names and patterns of what is to be sent.
    pub fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Whether a local topic is to be sent (`edgelog.bridge.topics`). Kafka's own, whose records mean nothing
    /// elsewhere, begin with `__`.
    pub fn sends(&self, topic: &str) -> bool {
        covers(&self.topics, topic)
    }

    /// The device and the log that a group is for, where it is one of a bridge with this prefix.
    pub(super) fn device_and_log_of<'a>(&self, group: &'a str) -> Option<(&'a str, &'a str)> {
        group.strip_prefix(&self.id_prefix)?.strip_prefix(':')?.split_once(':')
    }

    /// The transactional id: `PREFIX:DEVICE`.
    pub fn transactional_id(&self) -> String {
        format!("{}:{}", self.id_prefix, self.device)
    }

    /// The group that keeps the position of a local log: `PREFIX:DEVICE:TOPIC-PARTITION`. No two logs of any two
    /// devices have the same one, since neither prefix, device nor topic holds a colon.
    pub fn group_id(&self, log: &crate::TopicPartition) -> String {
        format!("{}:{log}", self.transactional_id())
    }
}

/// What the names of environment variables begin with that hold a key.
const VARIABLE_PREFIX: &str = "EDGELOG_BRIDGE_";

fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

fn missing(key: &str) -> BridgeError {
    BridgeError::InvalidConfig { key: key.to_owned(), reason: "it has to be set; there is no default".to_owned() }
}

/// Hosts and ports; and those of the servers that name a protocol, as Kafka's own listeners do.
type Servers = (Vec<(String, u16)>, Vec<(String, Protocol)>);

fn parse_servers(value: &str) -> std::result::Result<Servers, String> {
    let (mut servers, mut with_protocol) = (Vec::new(), Vec::new());
    for server in value.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let address = match server.split_once("://") {
            None => server,
            Some((name, address)) => {
                let protocol = Protocol::named(name).ok_or_else(|| {
                    format!("{server} names {name}, which is not PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
                })?;
                with_protocol.push((server.to_owned(), protocol));
                address
            }
        };
        let parsed = address.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            (!host.is_empty()).then_some(())?;
            Some((host.to_owned(), port.parse().ok()?))
        });
        servers.push(parsed.ok_or_else(|| format!("{server} is not host:port"))?);
    }
    if servers.is_empty() {
        return Err("no broker is named".to_owned());
    }
    Ok((servers, with_protocol))
}

fn parse_id(value: &str) -> std::result::Result<String, String> {
    if is_id(value) {
        return Ok(value.to_owned());
    }
    Err(format!("it is 1 to {ID_LEN_MAX} ASCII letters, digits, '.', '_' and '-'"))
}

fn parse_template(value: &str) -> std::result::Result<String, String> {
    let plain = value.replace("{device}", "").replace("{topic}", "");
    if value.is_empty() || !(plain.is_empty() || is_id(&plain)) {
        return Err("it is a topic's name in which {device} and {topic} may stand".to_owned());
    }
    Ok(value.to_owned())
}

fn parse_one_of<T: Copy>(value: &str, known: &[(&str, T)]) -> std::result::Result<T, String> {
    if let Some((_, parsed)) = known.iter().find(|(name, _)| *name == value) {
        return Ok(*parsed);
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    Err(format!("it is one of {}", names.join(", ")))
}

/// A codec that this build writes, or `stored`.
fn parse_compression(value: &str) -> std::result::Result<WireCompression, String> {
    if value == "stored" {
        return Ok(WireCompression::Stored);
    }
    let codec = CompressionType::ALL.into_iter().find(|codec| codec.name() == value);
    let codec = codec.ok_or_else(|| "it is stored, none, gzip, snappy, lz4 or zstd".to_owned())?;
    match feature_missing_to_write(codec) {
        Some(feature) => Err(format!("{codec} is not built in: enable the feature `{feature}`")),
        None => Ok(WireCompression::Codec(codec)),
    }
}

/// A count from 1, or -1.
fn parse_count<T: std::str::FromStr + PartialOrd + From<i8>>(value: &str) -> std::result::Result<T, String> {
    let parsed = value.parse().ok().filter(|count: &T| *count >= T::from(1) || *count == T::from(-1));
    parsed.ok_or_else(|| "it is a number from 1, or -1".to_owned())
}

fn parse_pairs(value: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let pairs = value.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair} is not key=value"))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        })
        .collect()
}

fn parse_ms(value: &str, min: u64, max: u64) -> std::result::Result<Duration, String> {
    let parsed = value.parse().ok().filter(|ms| (min..=max).contains(ms));
    parsed.map(Duration::from_millis).ok_or_else(|| format!("it is a number of milliseconds from {min} to {max}"))
}

fn parse_bytes(value: &str) -> std::result::Result<usize, String> {
    // A transaction is held in memory.
    const MAX: usize = 16 << 20;
    let parsed = value.parse().ok().filter(|bytes| (1..=MAX).contains(bytes));
    parsed.ok_or_else(|| format!("it is a number of bytes from 1 to {MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, value: &str) -> String {
        BridgeConfig::default().set(key, value).unwrap_err().to_string()
    }

    #[test]
    fn the_table_s_defaults_are_those_of_the_code() {
        let mut config = BridgeConfig::default();
        for row in BRIDGE_KEYS.iter().filter(|row| !row.default.is_empty()) {
            config.set(row.key, row.default).unwrap();
        }
        assert_eq!(format!("{config:?}"), format!("{:?}", BridgeConfig::default()));
    }

    #[test]
    fn what_is_not_built_is_refused_and_secrets_are_not_repeated() {
        let said = refused("ssl.key.password", "geheim");
        assert!(said.contains("openssl pkey") && !said.contains("geheim"), "{said}");
        assert!(refused("edgelog.bridge.delivery", "at-most-once").contains("exactly-once"));
        assert!(refused("edgelog.bridge.create.partitions", "0").contains("from 1"));
        assert!(refused("compression.type", "brotli").contains("lz4 or zstd"));
        assert!(refused("compression.type", "uncompressed").contains("none"));
        let mut config = BridgeConfig::default();
        for codec in CompressionType::ALL {
            match feature_missing_to_write(codec) {
                None => {
                    config.set("compression.type", codec.name()).unwrap();
                    assert_eq!(config.compression, WireCompression::Codec(codec));
                }
                Some(feature) => assert!(refused("compression.type", codec.name()).contains(feature)),
            }
        }
        assert!(refused("edgelog.bridge.create.config", "a").contains("key=value"));
        assert!(refused("bootstrap.server", "x:1").contains("did you mean bootstrap.servers"));
        assert!(refused("edgelog.device.id", "a:b").contains("letters"));
        assert!(refused("bootstrap.servers", "host").contains("host:port"));
    }

    #[test]
    fn the_environment_sets_every_key_and_names_its_variable_where_it_is_wrong() {
        let set = |config: &mut BridgeConfig, name: &str, value: &str| {
            config.set_environment([("PATH".into(), "/bin".into()), (name.into(), value.into())])
        };
        // Two keys would have one variable where they differ in a dot and an underscore alone.
        let names: std::collections::BTreeSet<String> = BRIDGE_KEYS.iter().map(|row| variable_of(row.key)).collect();
        assert_eq!(names.len(), BRIDGE_KEYS.len());
        let mut config = BridgeConfig::default();
        set(&mut config, "EDGELOG_BRIDGE_EDGELOG_DEVICE_ID", "d7").unwrap();
        set(&mut config, "EDGELOG_BRIDGE_BOOTSTRAP_SERVERS", " h:1,g:2 ").unwrap();
        set(&mut config, "EDGELOG_BRIDGE_EDGELOG_BRIDGE_TO", "x.{topic}").unwrap();
        assert_eq!((config.device.as_str(), config.to.as_str(), config.bootstrap.len()), ("d7", "x.{topic}", 2));
        for (name, value, words) in [
            ("EDGELOG_BRIDGE_BOOTSTRAP_SERVER", "h:1", "did you mean EDGELOG_BRIDGE_BOOTSTRAP_SERVERS?"),
            ("EDGELOG_BRIDGE_SECURITY_PROTOCOL", "geheim", "SASL_SSL"),
            ("EDGELOG_BRIDGE_SSL_KEY_PASSWORT", "geheim", "no such key"),
        ] {
            let said = set(&mut config, name, value).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{name}: ")) && said.contains(words), "{said}");
            assert!(!said.contains("geheim"), "{said}");
        }
        let unreadable = std::os::unix::ffi::OsStringExt::from_vec(b"d\xFF".to_vec());
        let said = config.set_environment([("EDGELOG_BRIDGE_CLIENT_ID".into(), unreadable)]).unwrap_err();
        assert!(said.to_string().contains("not UTF-8"), "{said}");
    }

    #[test]
    fn a_device_has_to_be_named() {
        let mut config = BridgeConfig::default();
        let lines = "# comment\n! one more\n\nbootstrap.servers = PLAINTEXT://[::1]:9092, b:1\n\
                     edgelog.bridge.topics=a,b*\n";
        config.set_lines(lines).unwrap();
        assert_eq!(config.bootstrap, [("::1".to_owned(), 9092), ("b".to_owned(), 1)]);
        assert!(config.validate().unwrap_err().to_string().starts_with("edgelog.device.id"));
        config.set("edgelog.device.id", "d1").unwrap();
        config.validate().unwrap();
        // What a server names is what is spoken.
        for (servers, protocol, contradicts) in [
            ("a:1,PLAINTEXT://b:1", "PLAINTEXT", None),
            ("plaintext://b:1", "PLAINTEXT", None),
            ("a:1,SSL://b:1", "PLAINTEXT", Some("SSL://b:1 contradicts security.protocol=PLAINTEXT")),
            ("PLAINTEXT://a:1", "SSL", Some("PLAINTEXT://a:1 contradicts security.protocol=SSL")),
        ] {
            let mut named = config.clone();
            named.set_lines(&format!("bootstrap.servers={servers}\nsecurity.protocol={protocol}")).unwrap();
            let said = named.validate().err().map(|error| error.to_string());
            assert_eq!(said.is_some(), contradicts.is_some(), "{servers} {protocol}: {said:?}");
            if let (Some(said), Some(contradicts)) = (said, contradicts) {
                assert!(said.starts_with("bootstrap.servers") && said.contains(contradicts), "{said}");
            }
        }
        assert!(refused("bootstrap.servers", "http://a:1").contains("SASL_SSL"));
        // A login that would not take place is no login.
        let mut unprotected = config.clone();
        unprotected.set("sasl.username", "me").unwrap();
        let said = unprotected.validate().unwrap_err().to_string();
        assert!(said.starts_with("sasl.username") && said.contains("security.protocol"), "{said}");
        assert_eq!(config.group_id(&crate::TopicPartition::new("cpu", 2)), "edgelog:d1:cpu-2");
    }
}

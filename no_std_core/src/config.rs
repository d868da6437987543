//! The one table of settings: what each is called, which values it may have, its default, and what it means.
//!
//! Names are Kafka's where Kafka has them; keys of our own begin with `edgelog.`. Parsing, bounds, defaults
//! and documentation all read [`KEYS`].

use core::fmt;

use crate::compression::CompressionType;
use crate::record_batch::HEADER_LEN;

/// The settings of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// `segment.bytes`
    pub segment_bytes: u32,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.index.bytes`
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `retention.bytes`
    pub retention_bytes: i64,
    /// `retention.ms`
    pub retention_ms: i64,
    /// `max.message.bytes`
    pub max_message_bytes: u32,
    /// `flush.messages`
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// `compression.type`
    pub compression_type: CompressionType,
    /// `message.timestamp.type`
    pub message_timestamp_type: MessageTimestampType,
    /// `cleanup.policy`
    pub cleanup_policy: CleanupPolicy,
}

/// The settings of a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreConfig {
    /// `edgelog.storage`
    pub storage: StorageKind,
    /// `edgelog.map.bytes.max`
    pub map_bytes_max: u64,
    /// `edgelog.decompressed.bytes.max`
    pub decompressed_bytes_max: u32,
    /// `edgelog.checkpoint.interval.ms`
    pub checkpoint_interval_ms: i64,
    /// `edgelog.unflushed.bytes.max`
    pub unflushed_bytes_max: u64,
    /// `edgelog.open.files.max`
    pub open_files_max: u32,
    /// `check.crcs`
    pub check_crcs: bool,
    /// `isolation.level`
    pub isolation_level: IsolationLevel,
    /// `log.retention.check.interval.ms`
    pub retention_check_interval_ms: i64,
    /// `edgelog.housekeeping`
    pub housekeeping: Housekeeping,
    /// `edgelog.file.mode`
    pub file_mode: u32,
}

/// Declares an enum whose values are words of a setting: the words stand next to the variants, once.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),+];
            const WORDS: &[&str] = &[$($word),+];

            /// The word that sets it.
            pub const fn name(self) -> &'static str {
                Self::WORDS[self as usize]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

words! {
    /// Whose clock stamps the records of a topic.
    MessageTimestampType {
        /// The producer's, kept as it is.
        CreateTime = "CreateTime",
    }
}

words! {
    /// How a topic forgets.
    CleanupPolicy {
        /// Whole segments, oldest first, by age and size.
        Delete = "delete",
    }
}

words! {
    /// How the engine reaches its files.
    StorageKind {
        /// Through the map where the file system is known to be safe for it, by system calls elsewhere.
        Auto = "auto",
        /// Through the map.
        Map = "map",
        /// By system calls alone.
        File = "file",
    }
}

words! {
    /// Which records of transactions a reader sees. Logs that a broker wrote may have transactions.
    IsolationLevel {
        /// All of them, those of aborted transactions too.
        ReadUncommitted = "read_uncommitted",
        /// None of an aborted transaction, and nothing from the first transaction on that has no end yet.
        ReadCommitted = "read_committed",
    }
}

words! {
    /// Who does the work that no append waits for.
    Housekeeping {
        /// A thread of the store's own.
        Thread = "thread",
        /// The host, by calling the store's tick.
        Tick = "tick",
    }
}

/// Where a setting belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// To each topic: [`LogConfig`].
    Topic,
    /// To the data directory: [`StoreConfig`].
    Store,
}

/// A setting that was refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No setting has this name.
    UnknownKey {
        /// The name that comes nearest, where one comes near.
        nearest: Option<&'static str>,
    },
    /// The setting exists, but belongs to the other table.
    WrongScope {
        /// The setting.
        key: &'static str,
        /// Where it belongs.
        scope: Scope,
    },
    /// The value cannot be read, or is one that edgelog refuses.
    InvalidValue {
        /// The setting.
        key: &'static str,
        /// One sentence on why.
        reason: &'static str,
    },
    /// The value is a number outside its bounds.
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// The value given.
        given: i64,
        /// The least allowed.
        min: i64,
        /// The most allowed.
        max: i64,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnknownKey { nearest: Some(nearest) } => write!(f, "no such key; did you mean {nearest}?"),
            Self::UnknownKey { nearest: None } => f.write_str("no such key"),
            Self::WrongScope { key, scope: Scope::Topic } => write!(f, "{key} is set per topic, not for the store"),
            Self::WrongScope { key, scope: Scope::Store } => write!(f, "{key} is set for the store, not per topic"),
            Self::InvalidValue { key, reason } => write!(f, "{key}: {reason}"),
            Self::OutOfRange { key, given, min, max } => {
                write!(f, "{key}: {given} is not between {min} and {max}")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// What the values of a setting are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueType {
    /// A whole number within these bounds, both included.
    Number {
        /// The least.
        min: i64,
        /// The most.
        max: i64,
    },
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Word {
        /// The words.
        words: &'static [&'static str],
    },
}

/// The value of a setting; [`Display`](fmt::Display) prints what [`LogConfig::set`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// A whole number.
    Number(i64),
    /// A truth.
    Bool(bool),
    /// A word.
    Word(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
            Self::Word(word) => f.pad(word),
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct ConfigKey {
    /// Its name.
    pub key: &'static str,
    /// Where it belongs.
    pub scope: Scope,
    /// What its values are.
    pub value_type: ValueType,
    /// What the numbers count: `bytes`, `ms`, `records`, `files`; empty for words.
    pub unit: &'static str,
    /// Our default, as text.
    pub default: &'static str,
    /// Kafka's default, as text; `None` where Kafka has no such key.
    pub kafka_default: Option<&'static str>,
    /// Why our default is not Kafka's; empty where it is.
    pub why: &'static str,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    access: Access,
}

/// How a row reaches its field. Setters get values that the row's type has admitted already.
#[derive(Debug)]
enum Access {
    Topic { get: fn(&LogConfig) -> Value, set: fn(&mut LogConfig, &Input<'_>) -> Result<(), &'static str> },
    Store { get: fn(&StoreConfig) -> Value, set: fn(&mut StoreConfig, &Input<'_>) -> Result<(), &'static str> },
}

/// A value that was read: the number (0 or 1 for a truth, the place in the list for a word), and the text it
/// came from.
struct Input<'a> {
    number: i64,
    text: &'a str,
}

macro_rules! number {
    ($scope:ident, $config:ident . $field:ident : $type:ty) => {
        Access::$scope {
            get: |$config| Value::Number($config.$field as i64),
            set: |$config, input| {
                $config.$field = input.number as $type;
                Ok(())
            },
        }
    };
}

macro_rules! word {
    ($scope:ident, $config:ident . $field:ident : $type:ty) => {
        Access::$scope {
            get: |$config| Value::Word($config.$field.name()),
            set: |$config, input| {
                $config.$field = <$type>::ALL[input.number as usize];
                Ok(())
            },
        }
    };
}

const INT_MAX: i64 = i32::MAX as i64;
const MAP_BYTES_DEFAULT: (u64, &str) = if usize::BITS >= 64 { (1 << 30, "1073741824") } else { (64 << 20, "67108864") };
const DECOMPRESSED_BYTES_DEFAULT: (u32, &str) =
    if usize::BITS >= 64 { (128 << 20, "134217728") } else { (16 << 20, "16777216") };

/// All settings there are: topics' first, then the store's.
pub static KEYS: &[ConfigKey] = &[
    ConfigKey {
        key: "segment.bytes",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: 4096, max: INT_MAX },
        unit: "bytes",
        default: "16777216",
        kafka_default: Some("1073741824"),
        why: "flash and quotas of devices are small, and retention frees whole segments",
        doc: "The size that a segment is rolled before it passes.",
        access: number!(Topic, c.segment_bytes: u32),
    },
    ConfigKey {
        key: "segment.ms",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: 1, max: i64::MAX },
        unit: "ms",
        default: "604800000",
        kafka_default: Some("604800000"),
        why: "",
        doc: "The time after which a segment is rolled though it is not full, by the records' timestamps.",
        access: number!(Topic, c.segment_ms: i64),
    },
    ConfigKey {
        key: "segment.index.bytes",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: 24, max: INT_MAX },
        unit: "bytes",
        default: "10485760",
        kafka_default: Some("10485760"),
        why: "",
        doc: "The most that each index of a segment may hold; a full index rolls the segment.",
        access: number!(Topic, c.segment_index_bytes: u32),
    },
    ConfigKey {
        key: "index.interval.bytes",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: 0, max: INT_MAX },
        unit: "bytes",
        default: "4096",
        kafka_default: Some("4096"),
        why: "",
        doc: "How many bytes of log lie between two index entries at least; a reader scans that far.",
        access: number!(Topic, c.index_interval_bytes: u32),
    },
    ConfigKey {
        key: "retention.bytes",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: -1, max: i64::MAX },
        unit: "bytes",
        default: "-1",
        kafka_default: Some("-1"),
        why: "",
        doc: "The size of a log from which on its oldest segments go; -1: no limit.",
        access: number!(Topic, c.retention_bytes: i64),
    },
    ConfigKey {
        key: "retention.ms",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: -1, max: i64::MAX },
        unit: "ms",
        default: "604800000",
        kafka_default: Some("604800000"),
        why: "",
        doc: "The age of a segment's newest record from which on the segment goes; -1: never.",
        access: number!(Topic, c.retention_ms: i64),
    },
    ConfigKey {
        key: "max.message.bytes",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: HEADER_LEN as i64, max: INT_MAX },
        unit: "bytes",
        default: "1048588",
        kafka_default: Some("1048588"),
        why: "",
        doc: "The most bytes that a record batch may have, header included, before compression and after.",
        access: number!(Topic, c.max_message_bytes: u32),
    },
    ConfigKey {
        key: "flush.messages",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: 1, max: i64::MAX },
        unit: "records",
        default: "1",
        kafka_default: Some("9223372036854775807"),
        why: "there are no replicas to be durable instead: acknowledged means on flash",
        doc: "1 makes every append durable before it is acknowledged (Sync); more lets that many records wait, \
              and leaves the rest to flush.ms.",
        access: number!(Topic, c.flush_messages: i64),
    },
    ConfigKey {
        key: "flush.ms",
        scope: Scope::Topic,
        value_type: ValueType::Number { min: 0, max: i64::MAX },
        unit: "ms",
        default: "9223372036854775807",
        kafka_default: Some("9223372036854775807"),
        why: "",
        doc: "With flush.messages above 1, the longest that an append stays in the page cache alone (Interval); \
              the greatest number leaves it to the system (Os).",
        access: number!(Topic, c.flush_ms: i64),
    },
    ConfigKey {
        key: "compression.type",
        scope: Scope::Topic,
        value_type: ValueType::Word { words: &["none", "snappy"] },
        unit: "",
        default: "none",
        kafka_default: Some("producer"),
        why: "producer and log are one here, and small batches rarely shrink",
        doc: "The codec that appended batches are written with.",
        access: Access::Topic {
            get: |c| Value::Word(c.compression_type.name()),
            set: |c, input| {
                c.compression_type = CompressionType::from_name(input.text).ok_or("expected none or snappy")?;
                Ok(())
            },
        },
    },
    ConfigKey {
        key: "message.timestamp.type",
        scope: Scope::Topic,
        value_type: ValueType::Word { words: MessageTimestampType::WORDS },
        unit: "",
        default: "CreateTime",
        kafka_default: Some("CreateTime"),
        why: "",
        doc: "Whose clock stamps the records.",
        access: word!(Topic, c.message_timestamp_type: MessageTimestampType),
    },
    ConfigKey {
        key: "cleanup.policy",
        scope: Scope::Topic,
        value_type: ValueType::Word { words: CleanupPolicy::WORDS },
        unit: "",
        default: "delete",
        kafka_default: Some("delete"),
        why: "",
        doc: "How the topic forgets: by deleting its oldest segments.",
        access: word!(Topic, c.cleanup_policy: CleanupPolicy),
    },
    ConfigKey {
        key: "edgelog.storage",
        scope: Scope::Store,
        value_type: ValueType::Word { words: StorageKind::WORDS },
        unit: "",
        default: "auto",
        kafka_default: None,
        why: "",
        doc: "How files are read and written: through memory maps, by system calls, or (auto) through maps on file \
              systems where that is safe.",
        access: word!(Store, c.storage: StorageKind),
    },
    ConfigKey {
        key: "edgelog.map.bytes.max",
        scope: Scope::Store,
        value_type: ValueType::Number { min: 0, max: i64::MAX },
        unit: "bytes",
        default: MAP_BYTES_DEFAULT.1,
        kafka_default: None,
        why: "",
        doc: "The most bytes mapped at a time; beyond it, reads copy.",
        access: number!(Store, c.map_bytes_max: u64),
    },
    ConfigKey {
        key: "edgelog.decompressed.bytes.max",
        scope: Scope::Store,
        value_type: ValueType::Number { min: 1, max: INT_MAX },
        unit: "bytes",
        default: DECOMPRESSED_BYTES_DEFAULT.1,
        kafka_default: None,
        why: "",
        doc: "The most bytes that the records of one batch may decompress to: a batch of more is not read, and is no \
              damage. Memory is taken as the bytes come out. Appends store a batch of more as it is.",
        access: number!(Store, c.decompressed_bytes_max: u32),
    },
    ConfigKey {
        key: "edgelog.checkpoint.interval.ms",
        scope: Scope::Store,
        value_type: ValueType::Number { min: 100, max: i64::MAX },
        unit: "ms",
        default: "10000",
        kafka_default: None,
        why: "",
        doc: "The longest that a recovery point which moved stays unwritten (six times as long if by less than 64 KiB \
              in all); it bounds what the next open checks.",
        access: number!(Store, c.checkpoint_interval_ms: i64),
    },
    ConfigKey {
        key: "edgelog.unflushed.bytes.max",
        scope: Scope::Store,
        value_type: ValueType::Number { min: 1 << 20, max: i64::MAX },
        unit: "bytes",
        default: "134217728",
        kafka_default: None,
        why: "",
        doc: "About the most bytes of a log that are appended at `Os` or `Interval` and not flushed yet: an append \
              that finds more waits for a flush, which housekeeping begins at half of it. It bounds what the next open \
              checks and writes again after a kill. At most 8 sealed segments wait, and always one may.",
        access: number!(Store, c.unflushed_bytes_max: u64),
    },
    ConfigKey {
        key: "edgelog.open.files.max",
        scope: Scope::Store,
        value_type: ValueType::Number { min: 8, max: INT_MAX },
        unit: "files",
        default: "4096",
        kafka_default: None,
        why: "",
        doc: "The most file descriptors open at a time, and never more than half of what the process may open \
              (`RLIMIT_NOFILE`). Beyond 64, only files with unflushed bytes stay open.",
        access: number!(Store, c.open_files_max: u32),
    },
    ConfigKey {
        key: "check.crcs",
        scope: Scope::Store,
        value_type: ValueType::Bool,
        unit: "",
        default: "true",
        kafka_default: Some("true"),
        why: "",
        doc: "Whether readers check each batch's CRC before they hand it out.",
        access: Access::Store {
            get: |c| Value::Bool(c.check_crcs),
            set: |c, input| {
                c.check_crcs = input.number != 0;
                Ok(())
            },
        },
    },
    ConfigKey {
        key: "isolation.level",
        scope: Scope::Store,
        value_type: ValueType::Word { words: IsolationLevel::WORDS },
        unit: "",
        default: "read_uncommitted",
        kafka_default: Some("read_uncommitted"),
        why: "",
        doc: "Whether readers see records of aborted transactions in logs that a broker wrote. read_committed leaves \
              them out and stops at the first transaction that has no end yet.",
        access: word!(Store, c.isolation_level: IsolationLevel),
    },
    ConfigKey {
        key: "log.retention.check.interval.ms",
        scope: Scope::Store,
        value_type: ValueType::Number { min: 1, max: i64::MAX },
        unit: "ms",
        default: "30000",
        kafka_default: Some("300000"),
        why: "a small quota fills sooner than in five minutes, and the check costs microseconds",
        doc: "How often retention looks for segments that may go.",
        access: number!(Store, c.retention_check_interval_ms: i64),
    },
    ConfigKey {
        key: "edgelog.housekeeping",
        scope: Scope::Store,
        value_type: ValueType::Word { words: Housekeeping::WORDS },
        unit: "",
        default: "thread",
        kafka_default: None,
        why: "",
        doc: "Who flushes by time, prepares room and applies retention: a thread of the store, or the host, \
              which calls tick.",
        access: word!(Store, c.housekeeping: Housekeeping),
    },
    ConfigKey {
        key: "edgelog.file.mode",
        scope: Scope::Store,
        value_type: ValueType::Number { min: 600, max: 666 },
        unit: "",
        default: "640",
        kafka_default: None,
        why: "",
        doc: "The permissions of new files, three octal digits; new directories get the same, and may be entered by \
              who may read them. The process's umask takes from both.",
        access: Access::Store {
            // The digits of the mode are written, and read, as they are.
            get: |c| {
                Value::Number(i64::from((c.file_mode >> 6) * 100 + (c.file_mode >> 3 & 7) * 10 + (c.file_mode & 7)))
            },
            set: |c, input| {
                let mode =
                    u32::from_str_radix(input.text, 8).ok().filter(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600);
                c.file_mode =
                    mode.ok_or("expected three octal digits that let the owner read and write, such as 640")?;
                Ok(())
            },
        },
    },
];

/// Values that Kafka knows and we refuse, each with its reason.
const REFUSED: &[(&str, &str, &str)] = &[
    ("compression.type", "lz4", "lz4 is read and not written: snappy is the codec for writing"),
    ("compression.type", "zstd", "zstd is read and not written: snappy is the codec for writing"),
    ("compression.type", "gzip", "gzip is read and not written: snappy is the codec for writing"),
    ("compression.type", "producer", "there is no producer behind the log to keep a codec of: say none or snappy"),
    (
        "message.timestamp.type",
        "LogAppendTime",
        "only CreateTime is stored: a broker takes batches of the other type from no client",
    ),
    ("cleanup.policy", "compact", "compaction is not built yet: only delete is"),
    ("cleanup.policy", "compact,delete", "compaction is not built yet: only delete is"),
    ("cleanup.policy", "delete,compact", "compaction is not built yet: only delete is"),
];

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_bytes: -1,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
            max_message_bytes: (1 << 20) + 12,
            flush_messages: 1,
            flush_ms: i64::MAX,
            compression_type: CompressionType::None,
            message_timestamp_type: MessageTimestampType::CreateTime,
            cleanup_policy: CleanupPolicy::Delete,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            storage: StorageKind::Auto,
            map_bytes_max: MAP_BYTES_DEFAULT.0,
            decompressed_bytes_max: DECOMPRESSED_BYTES_DEFAULT.0,
            checkpoint_interval_ms: 10_000,
            unflushed_bytes_max: 128 << 20,
            open_files_max: 4096,
            check_crcs: true,
            isolation_level: IsolationLevel::ReadUncommitted,
            retention_check_interval_ms: 30_000,
            housekeeping: Housekeeping::Thread,
            file_mode: 0o640,
        }
    }
}

impl LogConfig {
    /// Sets one key from text.
    ///
    /// # Errors
    /// `UnknownKey` with the nearest name, `WrongScope`, `InvalidValue`, `OutOfRange`; then nothing has
    /// changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let row = row(key, Scope::Topic)?;
        let input = row.read(value)?;
        match row.access {
            Access::Topic { set, .. } => set(self, &input).map_err(|reason| row.invalid(reason)),
            Access::Store { .. } => Err(ConfigError::WrongScope { key: row.key, scope: row.scope }),
        }
    }

    /// The value of one key, or `None` where topics have no such key.
    pub fn get(&self, key: &str) -> Option<Value> {
        match row(key, Scope::Topic).ok()?.access {
            Access::Topic { get, .. } => Some(get(self)),
            Access::Store { .. } => None,
        }
    }

    /// Holds every field, however it was set, against the table.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        KEYS.iter().try_for_each(|row| match row.access {
            Access::Topic { get, .. } => row.admit(get(self)),
            Access::Store { .. } => Ok(()),
        })
    }

    /// The most bytes that a batch may have here: `max.message.bytes`, and never more than a segment.
    pub fn batch_bytes_max(&self) -> u32 {
        self.max_message_bytes.min(self.segment_bytes)
    }
}

impl StoreConfig {
    /// Sets one key from text.
    ///
    /// # Errors
    /// `UnknownKey` with the nearest name, `WrongScope`, `InvalidValue`, `OutOfRange`; then nothing has
    /// changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigError> {
        let row = row(key, Scope::Store)?;
        let input = row.read(value)?;
        match row.access {
            Access::Store { set, .. } => set(self, &input).map_err(|reason| row.invalid(reason)),
            Access::Topic { .. } => Err(ConfigError::WrongScope { key: row.key, scope: row.scope }),
        }
    }

    /// The value of one key, or `None` where the store has no such key.
    pub fn get(&self, key: &str) -> Option<Value> {
        match row(key, Scope::Store).ok()?.access {
            Access::Store { get, .. } => Some(get(self)),
            Access::Topic { .. } => None,
        }
    }

    /// Holds every field, however it was set, against the table.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        KEYS.iter().try_for_each(|row| match row.access {
            Access::Store { get, .. } => row.admit(get(self)),
            Access::Topic { .. } => Ok(()),
        })
    }
}

impl ConfigKey {
    /// Reads a value of this row's type.
    fn read<'t>(&self, text: &'t str) -> Result<Input<'t>, ConfigError> {
        let text = text.trim();
        let number = match self.value_type {
            ValueType::Number { .. } => text.parse().map_err(|_| self.invalid("expected a whole number"))?,
            ValueType::Bool => match text {
                "true" => 1,
                "false" => 0,
                _ => return Err(self.invalid("expected true or false")),
            },
            ValueType::Word { words } => match words.iter().position(|&word| word == text) {
                Some(place) => place as i64,
                // Kafka's topics spell it so.
                None if self.key == "compression.type" && text == "uncompressed" => 0,
                None => return Err(self.refuse(text)),
            },
        };
        if let ValueType::Number { .. } = self.value_type {
            self.admit(Value::Number(number))?;
        }
        Ok(Input { number, text })
    }

    /// Whether a value is within this row's type.
    fn admit(&self, value: Value) -> Result<(), ConfigError> {
        match (self.value_type, value) {
            (ValueType::Number { min, max }, Value::Number(given)) if !(min..=max).contains(&given) => {
                Err(ConfigError::OutOfRange { key: self.key, given, min, max })
            }
            (ValueType::Word { words }, Value::Word(word)) if !words.contains(&word) => Err(self.refuse(word)),
            _ => Ok(()),
        }
    }

    fn refuse(&self, text: &str) -> ConfigError {
        let known = REFUSED.iter().find(|(key, word, _)| *key == self.key && *word == text);
        self.invalid(
            known.map_or("expected one of the words that the key's documentation lists", |(.., reason)| reason),
        )
    }

    const fn invalid(&self, reason: &'static str) -> ConfigError {
        ConfigError::InvalidValue { key: self.key, reason }
    }
}

/// The row of `key`, which has to be of this scope.
fn row(key: &str, scope: Scope) -> Result<&'static ConfigKey, ConfigError> {
    match KEYS.iter().find(|row| row.key == key) {
        Some(row) if row.scope == scope => Ok(row),
        Some(row) => Err(ConfigError::WrongScope { key: row.key, scope: row.scope }),
        None => Err(ConfigError::UnknownKey { nearest: nearest(key, KEYS.iter().map(|row| row.key)) }),
    }
}

/// The most bytes of a name that is compared letter by letter; no key comes near it.
const KEY_LEN_MAX: usize = 63;

/// The name that takes the fewest letters to put in, take out or change to get from `key`, where that is at
/// most a third of them.
///
/// Usable with any table of names: other parts of edgelog have keys of their own.
pub fn nearest<'n>(key: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let best =
        names.into_iter().filter_map(|name| Some((edit_distance(key, name)?, name))).min_by_key(|best| best.0)?;
    (best.0 <= key.len().max(best.1.len()) / 3).then_some(best.1)
}

/// Levenshtein's distance in bytes, one row at a time; `None` for names longer than any key.
fn edit_distance(a: &str, b: &str) -> Option<usize> {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() > KEY_LEN_MAX || b.len() > KEY_LEN_MAX {
        return None;
    }
    let mut row: [usize; KEY_LEN_MAX + 1] = core::array::from_fn(|n| n);
    for (n, a) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = n + 1;
        for (m, b) in b.iter().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[m + 1];
            row[m + 1] = change.min(diagonal + 1).min(row[m] + 1);
        }
    }
    Some(row[b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    #[test]
    fn the_table_and_the_defaults_agree() {
        let (mut log, mut store) = (LogConfig::default(), StoreConfig::default());
        assert_eq!((log.validate(), store.validate()), (Ok(()), Ok(())));
        for row in KEYS {
            let value = match row.scope {
                Scope::Topic => log.get(row.key),
                Scope::Store => store.get(row.key),
            };
            assert_eq!(value.unwrap().to_string(), row.default, "{}", row.key);
            let set = match row.scope {
                Scope::Topic => log.set(row.key, row.default),
                Scope::Store => store.set(row.key, row.default),
            };
            assert_eq!(set, Ok(()), "{}", row.key);
            assert!(row.key.len() <= KEY_LEN_MAX);
            assert_eq!(row.kafka_default.is_none(), row.key.starts_with("edgelog."), "{}", row.key);
            assert_eq!(row.why.is_empty(), row.kafka_default.is_none_or(|kafka| kafka == row.default), "{}", row.key);
            assert!(row.doc.ends_with('.'));
            assert_eq!(KEYS.iter().filter(|other| other.key == row.key).count(), 1);
        }
        assert_eq!((log, store), (LogConfig::default(), StoreConfig::default()));
    }

    #[test]
    fn each_key_sets_its_own_field_alone() {
        for row in KEYS {
            let other = match row.value_type {
                ValueType::Number { min, .. } if row.default == min.to_string() => (min + 1).to_string(),
                ValueType::Number { min, .. } => min.to_string(),
                ValueType::Bool => String::from("false"),
                ValueType::Word { words } => String::from(words[words.len() - 1]),
            };
            let (mut log, mut store) = (LogConfig::default(), StoreConfig::default());
            let (set, got) = match row.scope {
                Scope::Topic => (log.set(row.key, &other), log.get(row.key)),
                Scope::Store => (store.set(row.key, &other), store.get(row.key)),
            };
            // A second look, after setting.
            let got_now = got.and(match row.scope {
                Scope::Topic => log.get(row.key),
                Scope::Store => store.get(row.key),
            });
            assert_eq!(set, Ok(()));
            assert_eq!(got_now.unwrap().to_string(), other, "{}", row.key);
            let changed = KEYS
                .iter()
                .filter(|k| {
                    log.get(k.key) != LogConfig::default().get(k.key)
                        || store.get(k.key) != StoreConfig::default().get(k.key)
                })
                .count();
            assert_eq!(changed, usize::from(other != row.default), "{}", row.key);
        }
    }

    #[test]
    fn unknown_keys_name_their_neighbour() {
        let mut config = LogConfig::default();
        let mut unknown = |key: &str| config.set(key, "1").unwrap_err();
        assert_eq!(unknown("segment.byte"), ConfigError::UnknownKey { nearest: Some("segment.bytes") });
        assert_eq!(unknown("retention_ms"), ConfigError::UnknownKey { nearest: Some("retention.ms") });
        assert_eq!(
            unknown("edgelog.opn.files.max"),
            ConfigError::UnknownKey { nearest: Some("edgelog.open.files.max") }
        );
        assert_eq!(unknown("bootstrap.servers"), ConfigError::UnknownKey { nearest: None });
        assert_eq!(unknown(""), ConfigError::UnknownKey { nearest: None });
        assert_eq!(unknown(&"x".repeat(10_000)), ConfigError::UnknownKey { nearest: None });
        assert_eq!(unknown("check.crcs"), ConfigError::WrongScope { key: "check.crcs", scope: Scope::Store });
    }

    #[test]
    fn values_out_of_bounds_are_refused_and_change_nothing() {
        let mut config = LogConfig::default();
        assert_eq!(
            config.set("segment.bytes", "4095"),
            Err(ConfigError::OutOfRange { key: "segment.bytes", given: 4095, min: 4096, max: 2_147_483_647 })
        );
        assert!(config.set("segment.bytes", "2147483648").is_err());
        assert!(config.set("segment.bytes", "16M").is_err());
        assert!(config.set("retention.ms", "-2").is_err());
        assert!(config.set("retention.ms", "99999999999999999999").is_err());
        assert_eq!(config, LogConfig::default());
        config.segment_bytes = 1;
        assert!(config.validate().is_err());
    }

    #[test]
    fn what_kafka_has_and_we_have_not_says_why() {
        let mut config = LogConfig::default();
        for (key, value, reason) in REFUSED {
            assert_eq!(config.set(key, value), Err(ConfigError::InvalidValue { key, reason }));
        }
        config.compression_type = CompressionType::Zstd;
        assert!(matches!(config.validate(), Err(ConfigError::InvalidValue { .. })));
        assert_eq!(config.set("compression.type", "uncompressed"), Ok(()));
        assert_eq!(config.compression_type, CompressionType::None);
        assert_eq!(config.set("compression.type", " snappy "), Ok(()));
        assert_eq!(config.compression_type, CompressionType::Snappy);
    }

    #[test]
    fn edit_distance_is_the_textbooks() {
        for (a, b, distance) in
            [("", "", 0), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("abc", "", 3), ("", "ab", 2)]
        {
            assert_eq!(edit_distance(a, b), Some(distance));
        }
    }
}

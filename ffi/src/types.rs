//! What is passed by value: structs, and the numbers that stand for choices.

use std::ffi::c_char;

use edgelog::{AppendInfo, Durability, OffsetAndEpoch, ReadUpTo};

use crate::abi::{edgelog_bytes, grows};
use crate::result::{Failure, Outcome, edgelog_result};

/// A header of a record. The key is UTF-8 and not NULL; the value may be NULL.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_header {
    /// Its name.
    pub key: edgelog_bytes,
    /// Its value.
    pub value: edgelog_bytes,
}

/// A key of a topic's configuration with its value.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_key_value {
    /// Kafka's key, such as "retention.ms".
    pub key: *const c_char,
    /// Its value as text. For edgelog_store_alter_topic, NULL sets the key back to its default.
    pub value: *const c_char,
}

/// A place in a log that keeps its meaning: should a power cut take the record back, the position answers
/// EDGELOG_FENCED_LEADER_EPOCH and never other data.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_position {
    /// The offset.
    pub offset: i64,
    /// The leader epoch that it was seen with; -1 where it is not known.
    pub leader_epoch: i32,
    /// Zero.
    pub reserved: i32,
}

impl From<OffsetAndEpoch> for edgelog_position {
    fn from(at: OffsetAndEpoch) -> edgelog_position {
        edgelog_position { offset: at.offset.0, leader_epoch: at.leader_epoch.0, reserved: 0 }
    }
}

/// A record to append. All but `size` may stay zero.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_new_record {
    /// sizeof(edgelog_new_record).
    pub size: usize,
    /// The key; NULL for none.
    pub key: edgelog_bytes,
    /// The value; NULL for a tombstone.
    pub value: edgelog_bytes,
    /// The headers, in order.
    pub headers: *const edgelog_header,
    /// How many headers there are.
    pub header_count: usize,
    /// Milliseconds since 1970; counts where `has_timestamp` is not 0.
    pub timestamp_ms: i64,
    /// 0: the store's clock stamps the record.
    pub has_timestamp: i32,
    /// Zero.
    pub reserved: i32,
}

/// Where an append's records stand now.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_append_info {
    /// sizeof(edgelog_append_info).
    pub size: usize,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Largest timestamp among them, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// The leader epoch that they were written in.
    pub leader_epoch: i32,
    /// Zero.
    pub reserved: i32,
}

impl From<AppendInfo> for edgelog_append_info {
    #[inline]
    fn from(info: AppendInfo) -> edgelog_append_info {
        edgelog_append_info {
            size: 0,
            base_offset: info.base_offset.0,
            last_offset: info.last_offset.0,
            max_timestamp_ms: info.max_timestamp.0,
            leader_epoch: info.leader_epoch.0,
            reserved: 0,
        }
    }
}

/// The four offsets of a log: log_start_offset <= high_watermark <= log_end_offset, and recovery_point <=
/// log_end_offset.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_offsets {
    /// sizeof(edgelog_offsets).
    pub size: usize,
    /// First offset that the log holds.
    pub log_start_offset: i64,
    /// Readers stop here: everything below was acknowledged.
    pub high_watermark: i64,
    /// Everything below is durable.
    pub recovery_point: i64,
    /// The offset that the next record gets.
    pub log_end_offset: i64,
}

/// A log in numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_log_stats {
    /// sizeof(edgelog_log_stats).
    pub size: usize,
    /// How many segments it has.
    pub segment_count: u64,
    /// Their bytes: whole batches, without room reserved ahead.
    pub bytes: u64,
    /// The leader epoch that the next record gets.
    pub leader_epoch: i32,
    /// Not 0: a write or flush failed, and the log can only be read until the store is opened again.
    pub is_read_only: i32,
    /// The log's identity, made with it and never changed.
    pub id: [u8; 16],
}

/// A store in numbers.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_store_stats {
    /// sizeof(edgelog_store_stats).
    pub size: usize,
    /// How many topics it has.
    pub topic_count: u64,
    /// How many partitions of these, each a log, can be opened.
    pub log_count: u64,
    /// How many segments they have.
    pub segment_count: u64,
    /// Their bytes: whole batches, without room reserved ahead.
    pub bytes: u64,
}

/// A record that was read. Its bytes live until its batch is freed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_record {
    /// sizeof(edgelog_record).
    pub size: usize,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds since 1970, or -1.
    pub timestamp_ms: i64,
    /// Its key, or NULL.
    pub key: edgelog_bytes,
    /// Its value; NULL in a tombstone.
    pub value: edgelog_bytes,
    /// How many headers it has: edgelog_batch_next_header gives them.
    pub header_count: usize,
}

/// A record batch that was read.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_batch_info {
    /// sizeof(edgelog_batch_info).
    pub size: usize,
    /// Offset of its first record, which may lie before where the reader was asked to start.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Largest timestamp among its records, in milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// The whole batch, exactly Kafka's bytes, where the log has them; they live until the batch is freed.
    pub bytes: edgelog_bytes,
    /// The leader epoch that it was written in.
    pub leader_epoch: i32,
    /// Kafka's number of its codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub compression: i32,
}

/// Offsets that damage has taken, and where.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_lost_range {
    /// sizeof(edgelog_lost_range).
    pub size: usize,
    /// First offset that could not be read.
    pub first_offset: i64,
    /// First offset that can be read again.
    pub next_offset: i64,
    /// First damaged byte of the file.
    pub position: i64,
    /// First byte behind that is good again; -1 where that is in a later segment.
    pub resumes_at: i64,
    /// Bytes from here on were not looked at; -1 where all were.
    pub unread_from: i64,
    /// The segment file, relative to the data directory. It lives until the next call with the reader or, from a
    /// recovery report, as long as that.
    pub file: edgelog_bytes,
}

impl edgelog_lost_range {
    pub(crate) fn of(range: &edgelog::LostRange) -> edgelog_lost_range {
        edgelog_lost_range {
            size: 0,
            first_offset: range.first_offset.0,
            next_offset: range.next_offset.0,
            position: i64::from(range.position),
            resumes_at: range.resumes_at.map_or(-1, i64::from),
            unread_from: range.unread_from.map_or(-1, i64::from),
            file: edgelog_bytes::of(range.file.as_bytes()),
        }
    }
}

grows!(
    edgelog_new_record,
    edgelog_append_info,
    edgelog_offsets,
    edgelog_log_stats,
    edgelog_store_stats,
    edgelog_record,
    edgelog_batch_info,
    edgelog_lost_range
);

/// Durability: as the topic's keys say (flush.messages=1, the default, is EDGELOG_SYNC).
pub const EDGELOG_DURABILITY_DEFAULT: i32 = 0;
/// Durability: the append returns from the page cache. Survives a crash of the process; a power cut takes what the
/// kernel had not written yet.
pub const EDGELOG_OS: i32 = 1;
/// Durability: as EDGELOG_OS, and flushed within flush.ms (one second where the topic has none).
pub const EDGELOG_INTERVAL: i32 = 2;
/// Durability: the append returns when its records are on the disk. Concurrent appends share one flush.
pub const EDGELOG_SYNC: i32 = 3;

/// `None` for the log's own.
#[inline]
pub(crate) fn durability(number: i32) -> Outcome<Option<Durability>> {
    Ok(Some(match number {
        EDGELOG_DURABILITY_DEFAULT => return Ok(None),
        EDGELOG_OS => Durability::Os,
        EDGELOG_INTERVAL => Durability::Interval,
        EDGELOG_SYNC => Durability::Sync,
        _ => return Err(unknown("durability", number)),
    }))
}

/// A reader may read what was acknowledged: up to the high watermark.
pub const EDGELOG_UP_TO_HIGH_WATERMARK: i32 = 0;
/// A reader may read everything appended, acknowledged or not.
pub const EDGELOG_UP_TO_LOG_END: i32 = 1;
/// A reader may read what no power cut can remove.
pub const EDGELOG_UP_TO_DURABLE: i32 = 2;

pub(crate) fn up_to(number: i32) -> Outcome<ReadUpTo> {
    Ok(match number {
        EDGELOG_UP_TO_HIGH_WATERMARK => ReadUpTo::HighWatermark,
        EDGELOG_UP_TO_LOG_END => ReadUpTo::LogEnd,
        EDGELOG_UP_TO_DURABLE => ReadUpTo::Durable,
        _ => return Err(unknown("up_to", number)),
    })
}

#[cold]
pub(crate) fn unknown(what: &str, number: i32) -> Failure {
    Failure::text(edgelog_result::EDGELOG_INVALID_ARGUMENT, format!("{what} {number} is none that edgelog knows"))
}

//! What calls answer: stable numbers, and for each thread what went wrong last.

use std::cell::RefCell;
use std::ffi::CStr;
use std::io;

use edgelog::{CodecError, Error};

use crate::abi::grows;

/// What a call answers. 0 is success; 1 to 999 and -1 are Apache Kafka's error codes; ours begin at 1000. A number
/// never changes its meaning; treat one that you do not know as an error.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum edgelog_result {
    /// An error that this table has no number for yet.
    EDGELOG_UNKNOWN_SERVER_ERROR = -1,
    /// Done.
    EDGELOG_OK = 0,
    /// The log does not hold that offset (any more, or yet).
    EDGELOG_OFFSET_OUT_OF_RANGE = 1,
    /// Bytes of a file are damaged; edgelog_reader_skip_damage goes on behind. Where a batch's records answer it, the
    /// reader stands behind the batch already.
    EDGELOG_CORRUPT_MESSAGE = 2,
    /// No topic or partition has this name.
    EDGELOG_UNKNOWN_TOPIC_OR_PARTITION = 3,
    /// Kafka's number for a deadline that passed; no call of this version answers it.
    EDGELOG_REQUEST_TIMED_OUT = 7,
    /// A record or batch is larger than max.message.bytes, or a batch decompresses to more than
    /// edgelog.decompressed.bytes.max; the latter is no damage.
    EDGELOG_MESSAGE_TOO_LARGE = 10,
    /// A topic's name breaks Kafka's rules.
    EDGELOG_INVALID_TOPIC_EXCEPTION = 17,
    /// A batch is larger than segment.bytes.
    EDGELOG_RECORD_LIST_TOO_LARGE = 18,
    /// A timestamp cannot be stored together with the others of its batch.
    EDGELOG_INVALID_TIMESTAMP = 32,
    /// The data directory was written by a newer edgelog.
    EDGELOG_UNSUPPORTED_VERSION = 35,
    /// The topic exists already.
    EDGELOG_TOPIC_ALREADY_EXISTS = 36,
    /// A number of partitions that cannot be.
    EDGELOG_INVALID_PARTITIONS = 37,
    /// A configuration key or value that cannot be; the text names the nearest key or the bounds.
    EDGELOG_INVALID_CONFIG = 40,
    /// A log holds messages of format 0 or 1, which Kafka wrote before 0.11; its files stay as they are.
    EDGELOG_UNSUPPORTED_FOR_MESSAGE_FORMAT = 43,
    /// A file operation failed, now or before. edgelog_last_error_info says whether the disk is full or broken.
    EDGELOG_KAFKA_STORAGE_ERROR = 56,
    /// The position belongs to a history that was truncated: another epoch's data stands there now.
    EDGELOG_FENCED_LEADER_EPOCH = 74,
    /// The position's epoch is one that the log has not reached.
    EDGELOG_UNKNOWN_LEADER_EPOCH = 75,
    /// A batch is compressed in a way that this build cannot decode.
    EDGELOG_UNSUPPORTED_COMPRESSION_TYPE = 76,
    /// A batch to append is no valid record batch.
    EDGELOG_INVALID_RECORD = 87,
    /// A bug in edgelog, caught. The store it happened in answers nothing else from then on; free it and open it again.
    EDGELOG_PANIC = 1000,
    /// NULL where something has to be.
    EDGELOG_NULL_POINTER = 1001,
    /// A number that stands for no choice.
    EDGELOG_INVALID_ARGUMENT = 1002,
    /// Text that is not UTF-8.
    EDGELOG_INVALID_UTF8 = 1003,
    /// There is nothing (more): no batch now, no further record, no element of that index. Not a failure.
    EDGELOG_END = 1004,
    /// Another process, or another store of this one, has the data directory open for writing.
    EDGELOG_DATA_DIR_LOCKED = 1005,
    /// The store or log was closed.
    EDGELOG_CLOSED = 1006,
    /// The store is attached read-only.
    EDGELOG_READ_ONLY = 1007,
    /// The handle belongs to the parent process.
    EDGELOG_FORKED = 1008,
    /// The `size` of a struct is none that it has had.
    EDGELOG_INVALID_STRUCT_SIZE = 1009,
    /// The handle is in use by a call that has not returned: this one came out of a callback.
    EDGELOG_IN_USE = 1010,
    // The next new one: 1011.
}

#[allow(clippy::enum_glob_use)] // The variants are C's constants, which have no namespace there either.
use edgelog_result::*;

impl edgelog_result {
    pub(crate) const ALL: &'static [(edgelog_result, &'static CStr)] = &[
        (EDGELOG_UNKNOWN_SERVER_ERROR, c"UNKNOWN_SERVER_ERROR"),
        (EDGELOG_OK, c"OK"),
        (EDGELOG_OFFSET_OUT_OF_RANGE, c"OFFSET_OUT_OF_RANGE"),
        (EDGELOG_CORRUPT_MESSAGE, c"CORRUPT_MESSAGE"),
        (EDGELOG_UNKNOWN_TOPIC_OR_PARTITION, c"UNKNOWN_TOPIC_OR_PARTITION"),
        (EDGELOG_REQUEST_TIMED_OUT, c"REQUEST_TIMED_OUT"),
        (EDGELOG_MESSAGE_TOO_LARGE, c"MESSAGE_TOO_LARGE"),
        (EDGELOG_INVALID_TOPIC_EXCEPTION, c"INVALID_TOPIC_EXCEPTION"),
        (EDGELOG_RECORD_LIST_TOO_LARGE, c"RECORD_LIST_TOO_LARGE"),
        (EDGELOG_INVALID_TIMESTAMP, c"INVALID_TIMESTAMP"),
        (EDGELOG_UNSUPPORTED_VERSION, c"UNSUPPORTED_VERSION"),
        (EDGELOG_TOPIC_ALREADY_EXISTS, c"TOPIC_ALREADY_EXISTS"),
        (EDGELOG_INVALID_PARTITIONS, c"INVALID_PARTITIONS"),
        (EDGELOG_INVALID_CONFIG, c"INVALID_CONFIG"),
        (EDGELOG_UNSUPPORTED_FOR_MESSAGE_FORMAT, c"UNSUPPORTED_FOR_MESSAGE_FORMAT"),
        (EDGELOG_KAFKA_STORAGE_ERROR, c"KAFKA_STORAGE_ERROR"),
        (EDGELOG_FENCED_LEADER_EPOCH, c"FENCED_LEADER_EPOCH"),
        (EDGELOG_UNKNOWN_LEADER_EPOCH, c"UNKNOWN_LEADER_EPOCH"),
        (EDGELOG_UNSUPPORTED_COMPRESSION_TYPE, c"UNSUPPORTED_COMPRESSION_TYPE"),
        (EDGELOG_INVALID_RECORD, c"INVALID_RECORD"),
        (EDGELOG_PANIC, c"PANIC"),
        (EDGELOG_NULL_POINTER, c"NULL_POINTER"),
        (EDGELOG_INVALID_ARGUMENT, c"INVALID_ARGUMENT"),
        (EDGELOG_INVALID_UTF8, c"INVALID_UTF8"),
        (EDGELOG_END, c"END"),
        (EDGELOG_DATA_DIR_LOCKED, c"DATA_DIR_LOCKED"),
        (EDGELOG_CLOSED, c"CLOSED"),
        (EDGELOG_READ_ONLY, c"READ_ONLY"),
        (EDGELOG_FORKED, c"FORKED"),
        (EDGELOG_INVALID_STRUCT_SIZE, c"INVALID_STRUCT_SIZE"),
        (EDGELOG_IN_USE, c"IN_USE"),
    ];

    fn from_number(number: i32) -> edgelog_result {
        let found = Self::ALL.iter().find(|(result, _)| *result as i32 == number);
        found.map_or(EDGELOG_UNKNOWN_SERVER_ERROR, |(result, _)| *result)
    }

    fn of(error: &Error) -> edgelog_result {
        match error {
            Error::DataDirLocked(_) => EDGELOG_DATA_DIR_LOCKED,
            Error::Closed => EDGELOG_CLOSED,
            Error::ReadOnly => EDGELOG_READ_ONLY,
            Error::Forked => EDGELOG_FORKED,
            error => error.kafka_code().map_or(EDGELOG_UNKNOWN_SERVER_ERROR, |code| Self::from_number(code.into())),
        }
    }
}

pub(crate) type Outcome<T> = Result<T, Failure>;

/// Why a call does not answer EDGELOG_OK. Two words: what a call that succeeds hands up does not pass through memory.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No failure at all: there is nothing (more).
    End,
    Plain(&'static (edgelog_result, &'static str)),
    Text(Box<(edgelog_result, String)>),
    Engine(Box<Error>),
}

impl Failure {
    pub(crate) const NULL_HANDLE: Failure = Failure::Plain(&(EDGELOG_NULL_POINTER, "the handle is NULL"));
    pub(crate) const NULL_ARGUMENT: Failure =
        Failure::Plain(&(EDGELOG_NULL_POINTER, "an argument is NULL that must not be"));
    pub(crate) const NOT_UTF8: Failure = Failure::Plain(&(EDGELOG_INVALID_UTF8, "text that is not UTF-8"));
    pub(crate) const TOO_LONG: Failure =
        Failure::Plain(&(EDGELOG_MESSAGE_TOO_LARGE, "a length beyond INT32_MAX: no record holds that"));
    pub(crate) const IN_USE: Failure =
        Failure::Plain(&(EDGELOG_IN_USE, "the handle is in use by a call that has not returned"));
    pub(crate) const AFTER_PANIC: Failure =
        Failure::Plain(&(EDGELOG_PANIC, "an earlier call hit a bug in edgelog; free the store and open it again"));

    #[cold]
    pub(crate) fn text(result: edgelog_result, text: String) -> Failure {
        Failure::Text(Box::new((result, text)))
    }

    #[cold]
    pub(crate) fn size(given: usize, known: usize) -> Failure {
        let text = format!("a struct of size {given}; this edgelog knows it with {known}: set size to sizeof");
        Failure::text(EDGELOG_INVALID_STRUCT_SIZE, text)
    }

    /// The number for the caller; the words are kept for `edgelog_last_error`.
    #[cold]
    pub(crate) fn report(self) -> edgelog_result {
        let mut info = NO_INFO;
        let (result, text) = match self {
            Failure::End => return EDGELOG_END,
            Failure::Plain(&(result, text)) => (result, text.to_owned()),
            Failure::Text(words) => *words,
            Failure::Engine(error) => {
                info.describe(&error);
                (edgelog_result::of(&error), error.to_string())
            }
        };
        info.result = result as i32;
        let mut text: Vec<u8> = text.into_bytes();
        text.retain(|&byte| byte != 0);
        text.push(0);
        // A thread that ends has no such memory any more, and does not ask for it.
        let _ = LAST.try_with(|last| {
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Last { text, info };
            }
        });
        result
    }
}

impl From<Error> for Failure {
    #[cold]
    #[inline(never)]
    fn from(error: Error) -> Failure {
        Failure::Engine(Box::new(error))
    }
}

/// What is known of an error in addition to its text. A field that does not apply is -1.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct edgelog_error_info {
    /// sizeof(edgelog_error_info).
    pub size: usize,
    /// The edgelog_result that the call answered.
    pub result: i32,
    /// The system's errno, or 0.
    pub os_error: i32,
    /// Not 0: the same call may succeed later: a full disk, where the log is still writable.
    pub is_retriable: i32,
    /// Not 0: there is no room on the disk, or in its quota.
    pub is_storage_full: i32,
    /// Not 0: an earlier error made the log read-only; open the store again to go on.
    pub needs_reopen: i32,
    /// The leader epoch that is current, for EDGELOG_FENCED_LEADER_EPOCH and EDGELOG_UNKNOWN_LEADER_EPOCH.
    pub leader_epoch: i32,
    /// The offset asked for, or expected at the damage.
    pub offset: i64,
    /// First offset that the log holds.
    pub log_start_offset: i64,
    /// The offset after the last record; for EDGELOG_FENCED_LEADER_EPOCH, where the position's history ends.
    pub log_end_offset: i64,
    /// The damaged byte of the file.
    pub position: i64,
    /// Bytes that were given and are too many.
    pub given_bytes: i64,
    /// Bytes that are allowed.
    pub max_bytes: i64,
}

grows!(edgelog_error_info);

pub(crate) const NO_INFO: edgelog_error_info = edgelog_error_info {
    size: 0,
    result: 0,
    os_error: 0,
    is_retriable: 0,
    is_storage_full: 0,
    needs_reopen: 0,
    leader_epoch: -1,
    offset: -1,
    log_start_offset: -1,
    log_end_offset: -1,
    position: -1,
    given_bytes: -1,
    max_bytes: -1,
};

impl edgelog_error_info {
    fn describe(&mut self, error: &Error) {
        self.is_retriable = error.is_retriable().into();
        self.is_storage_full = error.is_storage_full().into();
        let errno = |source: &io::Error| source.raw_os_error().unwrap_or(0);
        let bounded = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        match error {
            Error::OffsetOutOfRange { requested, log_start_offset, log_end_offset } => {
                (self.offset, self.log_start_offset) = (requested.0, log_start_offset.0);
                self.log_end_offset = log_end_offset.0;
            }
            Error::CorruptRecord { position, offset, .. } => {
                (self.position, self.offset) = (i64::from(*position), offset.0);
            }
            Error::CorruptBatch { position, base_offset, .. } => {
                (self.position, self.offset) = (i64::from(*position), base_offset.0);
            }
            Error::NotDecompressed { position, base_offset, source, .. } => {
                (self.position, self.offset) = (i64::from(*position), base_offset.0);
                self.describe_codec(source);
            }
            Error::Compression(source) => self.describe_codec(source),
            Error::RecordTooLarge { given, max } | Error::RecordBatchTooLarge { given, max } => {
                (self.given_bytes, self.max_bytes) = (bounded(*given), bounded(*max));
            }
            Error::Storage { source, .. } | Error::DataDirLocked(source) => self.os_error = errno(source),
            Error::PreviousIo { .. } => self.needs_reopen = 1,
            Error::LogFailed { source, .. } => {
                self.describe(source);
                (self.is_retriable, self.needs_reopen) = (0, 1);
            }
            Error::NotOpened { source, .. } => {
                self.describe(source);
                (self.is_retriable, self.needs_reopen) = (0, 1);
            }
            Error::UnsupportedMessageFormat { position, .. } => self.position = i64::from(*position),
            Error::FencedLeaderEpoch { offset, end_offset, current, .. } => {
                (self.offset, self.log_end_offset, self.leader_epoch) = (offset.0, end_offset.0, current.0);
            }
            Error::UnknownLeaderEpoch { current, .. } => self.leader_epoch = current.0,
            _ => {}
        }
    }

    fn describe_codec(&mut self, error: &CodecError) {
        if let CodecError::TooLarge { claimed, limit, .. } = error {
            self.given_bytes = i64::try_from(*claimed).unwrap_or(i64::MAX);
            self.max_bytes = i64::try_from(*limit).unwrap_or(i64::MAX);
        }
    }
}

/// What a thread's last failed call left.
pub(crate) struct Last {
    pub(crate) text: Vec<u8>,
    pub(crate) info: edgelog_error_info,
}

thread_local! {
    pub(crate) static LAST: RefCell<Last> = const { RefCell::new(Last { text: Vec::new(), info: NO_INFO }) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_codes_are_kafkas_and_ours_begin_at_1000() {
        for &(result, _) in edgelog_result::ALL {
            assert_eq!(edgelog_result::from_number(result as i32), result);
        }
        let full =
            Error::Storage { operation: "write", path: String::new(), source: io::ErrorKind::StorageFull.into() };
        assert_eq!(edgelog_result::of(&full) as i32, 56);
        assert_eq!(edgelog_result::of(&Error::Closed) as i32, 1006);
        let mut info = NO_INFO;
        info.describe(&full);
        assert_eq!((info.is_storage_full, info.is_retriable, info.needs_reopen), (1, 1, 0));
    }

    /// An error that the engine learns must not fall through to -1 because this table was forgotten.
    #[test]
    fn every_code_of_the_engine_has_a_number_here() {
        for code in [1, 2, 3, 7, 10, 17, 18, 32, 35, 36, 37, 40, 56, 74, 75, 76, 87] {
            assert_eq!(edgelog_result::from_number(code) as i32, code);
        }
    }
}

/* edgelog: Kafka's log as a library, for C, C++ and every language that can call C.
 *
 * Made from the sources in ffi/src by cbindgen; do not edit. The contract is in ffi/README.md. In short:
 *
 * - A handle (edgelog_store, edgelog_log, ...) is opaque, made by one call and freed once by edgelog_<noun>_free, which
 *   takes NULL too. Handles may be freed in any order; a batch stays readable when its store is closed.
 * - What can fail returns edgelog_result: 0 is EDGELOG_OK, 1 to 999 and -1 are Kafka's codes, ours begin at 1000.
 *   EDGELOG_END is no failure: there is nothing (more). edgelog_last_error() has this thread's text.
 * - Outputs come last and are written on success only. NULL is answered where something has to be.
 * - Bytes are borrowed: what you pass is read during the call; what you get lives as long as its comment says.
 *   `data` NULL is Kafka's null, `len` 0 with any other pointer is empty.
 * - A struct with a `size` field grows in later versions: begin with EDGELOG_INIT(type), in which all else is zero, and
 *   zero is every field's default. Output structs too.
 * - Strings are NUL-terminated UTF-8; offsets, timestamps and timeouts (milliseconds) are int64_t.
 * - edgelog_store, edgelog_log, edgelog_recovery and edgelog_topics may be used from any thread at any time;
 *   edgelog_options, edgelog_batch_builder, edgelog_reader and edgelog_batch by one thread at a time.
 * - In the child of a fork, handles of the parent answer EDGELOG_FORKED: open or attach again there.
 */


#ifndef EDGELOG_H
#define EDGELOG_H

#include <stddef.h>
#include <stdint.h>

/* This header's version; edgelog_version() is the library's. */
#define EDGELOG_VERSION "0.1.0"

/* A struct of the given type whose `size` is set and whose other fields are zero. */
#ifdef __cplusplus
#define EDGELOG_INIT(type) ([] { type edgelog_init = type(); edgelog_init.size = sizeof(type); return edgelog_init; }())
#else
#define EDGELOG_INIT(type) ((type){.size = sizeof(type)})
#endif


// Durability: as the topic's keys say (flush.messages=1, the default, is EDGELOG_SYNC).
#define EDGELOG_DURABILITY_DEFAULT 0

// Durability: the append returns from the page cache. Survives a crash of the process; a power cut takes what the
// kernel had not written yet.
#define EDGELOG_OS 1

// Durability: as EDGELOG_OS, and flushed within flush.ms (one second where the topic has none).
#define EDGELOG_INTERVAL 2

// Durability: the append returns when its records are on the disk. Concurrent appends share one flush.
#define EDGELOG_SYNC 3

// A reader may read what was acknowledged: up to the high watermark.
#define EDGELOG_UP_TO_HIGH_WATERMARK 0

// A reader may read everything appended, acknowledged or not.
#define EDGELOG_UP_TO_LOG_END 1

// A reader may read what no power cut can remove.
#define EDGELOG_UP_TO_DURABLE 2

// The major number, which is the soname's: a program runs with every later library that has the same.
#define EDGELOG_VERSION_MAJOR 0

// The minor number.
#define EDGELOG_VERSION_MINOR 1

// The patch number.
#define EDGELOG_VERSION_PATCH 0

// All three as one number that can be compared: major * 1000000 + minor * 1000 + patch.
#define EDGELOG_VERSION_NUMBER 1000

// The report's partitions whose directories are gone, with all of their records.
#define EDGELOG_PARTITION_MISSING 0

// The report's partitions that an unfinished creation or deletion had left behind, and that are gone now.
#define EDGELOG_PARTITION_REMOVED 1

// The report's partitions that are there and could not be opened; the next open tries again.
#define EDGELOG_PARTITION_UNOPENED 2

// Start: at the first record that the log still holds; `value` does not count.
#define EDGELOG_FROM_EARLIEST 0

// Start: behind the last acknowledged record; `value` does not count.
#define EDGELOG_FROM_LATEST 1

// Start: at the offset `value`.
#define EDGELOG_FROM_OFFSET 2

// Start: at the first record with the timestamp `value` (milliseconds since 1970) or a later one; at the end where
// there is none.
#define EDGELOG_FROM_TIMESTAMP 3

// Start: `value` records before the end, or at the first where there are fewer.
#define EDGELOG_FROM_LAST 4

// Level: records or durability are at stake.
#define EDGELOG_LOG_ERROR 1

// Level: something was not as it should be, and was dealt with.
#define EDGELOG_LOG_WARN 2

// Level: what happens now and then, such as a segment deleted by retention.
#define EDGELOG_LOG_INFO 3

// Level: what helps to understand.
#define EDGELOG_LOG_DEBUG 4

// What a call answers. 0 is success; 1 to 999 and -1 are Apache Kafka's error codes; ours begin at 1000. A number
// never changes its meaning; treat one that you do not know as an error.
enum edgelog_result
#ifdef __cplusplus
  : int32_t
#endif // __cplusplus
 {
    // An error that this table has no number for yet.
    EDGELOG_UNKNOWN_SERVER_ERROR = -1,
    // Done.
    EDGELOG_OK = 0,
    // The log does not hold that offset (any more, or yet).
    EDGELOG_OFFSET_OUT_OF_RANGE = 1,
    // Bytes of a file are damaged; edgelog_reader_skip_damage goes on behind. Where a batch's records answer it, the
    // reader stands behind the batch already.
    EDGELOG_CORRUPT_MESSAGE = 2,
    // No topic or partition has this name.
    EDGELOG_UNKNOWN_TOPIC_OR_PARTITION = 3,
    // Kafka's number for a deadline that passed; no call of this version answers it.
    EDGELOG_REQUEST_TIMED_OUT = 7,
    // A record or batch is larger than max.message.bytes, or a batch decompresses to more than
    // edgelog.decompressed.bytes.max; the latter is no damage.
    EDGELOG_MESSAGE_TOO_LARGE = 10,
    // A topic's name breaks Kafka's rules.
    EDGELOG_INVALID_TOPIC_EXCEPTION = 17,
    // A batch is larger than segment.bytes.
    EDGELOG_RECORD_LIST_TOO_LARGE = 18,
    // A timestamp cannot be stored together with the others of its batch.
    EDGELOG_INVALID_TIMESTAMP = 32,
    // The data directory was written by a newer edgelog.
    EDGELOG_UNSUPPORTED_VERSION = 35,
    // The topic exists already.
    EDGELOG_TOPIC_ALREADY_EXISTS = 36,
    // A number of partitions that cannot be.
    EDGELOG_INVALID_PARTITIONS = 37,
    // A configuration key or value that cannot be; the text names the nearest key or the bounds.
    EDGELOG_INVALID_CONFIG = 40,
    // A log holds messages of format 0 or 1, which Kafka wrote before 0.11; its files stay as they are.
    EDGELOG_UNSUPPORTED_FOR_MESSAGE_FORMAT = 43,
    // A file operation failed, now or before. edgelog_last_error_info says whether the disk is full or broken.
    EDGELOG_KAFKA_STORAGE_ERROR = 56,
    // The position belongs to a history that was truncated: another epoch's data stands there now.
    EDGELOG_FENCED_LEADER_EPOCH = 74,
    // The position's epoch is one that the log has not reached.
    EDGELOG_UNKNOWN_LEADER_EPOCH = 75,
    // A batch is compressed in a way that this build cannot decode.
    EDGELOG_UNSUPPORTED_COMPRESSION_TYPE = 76,
    // A batch to append is no valid record batch.
    EDGELOG_INVALID_RECORD = 87,
    // A bug in edgelog, caught. The store it happened in answers nothing else from then on; free it and open it again.
    EDGELOG_PANIC = 1000,
    // NULL where something has to be.
    EDGELOG_NULL_POINTER = 1001,
    // A number that stands for no choice.
    EDGELOG_INVALID_ARGUMENT = 1002,
    // Text that is not UTF-8.
    EDGELOG_INVALID_UTF8 = 1003,
    // There is nothing (more): no batch now, no further record, no element of that index. Not a failure.
    EDGELOG_END = 1004,
    // Another process, or another store of this one, has the data directory open for writing.
    EDGELOG_DATA_DIR_LOCKED = 1005,
    // The store or log was closed.
    EDGELOG_CLOSED = 1006,
    // The store is attached read-only.
    EDGELOG_READ_ONLY = 1007,
    // The handle belongs to the parent process.
    EDGELOG_FORKED = 1008,
    // The `size` of a struct is none that it has had.
    EDGELOG_INVALID_STRUCT_SIZE = 1009,
    // The handle is in use by a call that has not returned: this one came out of a callback.
    EDGELOG_IN_USE = 1010,
};
#ifndef __cplusplus
typedef int32_t edgelog_result;
#endif // __cplusplus

// A record batch that was read, borrowed from its segment, with a place among its records. Belongs to one thread at a
// time. All that it lent lives until it is freed.
typedef struct edgelog_batch edgelog_batch;

// Collects records that are appended together, as one record batch. Its memory is kept from one append to the next.
// Belongs to one thread at a time.
typedef struct edgelog_batch_builder edgelog_batch_builder;

// The log of one partition of a topic. Any thread may use it at any time: appends of several share one flush.
typedef struct edgelog_log edgelog_log;

// How a store is opened or attached. Belongs to one thread at a time.
typedef struct edgelog_options edgelog_options;

// Reads a log from one place on, batch by batch, without copying where the storage maps files. Belongs to one thread
// at a time; any number of readers may read one log.
typedef struct edgelog_reader edgelog_reader;

// What opening a store found and did: a copy, for as long as it is not freed. Any thread may use it at any time.
typedef struct edgelog_recovery edgelog_recovery;

// A data directory of topics, opened for writing or attached read-only. Any thread may use it at any time.
typedef struct edgelog_store edgelog_store;

// The topics of a store at one moment. Any thread may use it at any time.
typedef struct edgelog_topics edgelog_topics;

// What is known of an error in addition to its text. A field that does not apply is -1.
typedef struct {
    // sizeof(edgelog_error_info).
    size_t size;
    // The edgelog_result that the call answered.
    int32_t result;
    // The system's errno, or 0.
    int32_t os_error;
    // Not 0: the same call may succeed later: a full disk, where the log is still writable.
    int32_t is_retriable;
    // Not 0: there is no room on the disk, or in its quota.
    int32_t is_storage_full;
    // Not 0: an earlier error made the log read-only; open the store again to go on.
    int32_t needs_reopen;
    // The leader epoch that is current, for EDGELOG_FENCED_LEADER_EPOCH and EDGELOG_UNKNOWN_LEADER_EPOCH.
    int32_t leader_epoch;
    // The offset asked for, or expected at the damage.
    int64_t offset;
    // First offset that the log holds.
    int64_t log_start_offset;
    // The offset after the last record; for EDGELOG_FENCED_LEADER_EPOCH, where the position's history ends.
    int64_t log_end_offset;
    // The damaged byte of the file.
    int64_t position;
    // Bytes that were given and are too many.
    int64_t given_bytes;
    // Bytes that are allowed.
    int64_t max_bytes;
} edgelog_error_info;

// A key of a topic's configuration with its value.
typedef struct {
    // Kafka's key, such as "retention.ms".
    const char *key;
    // Its value as text. For edgelog_store_alter_topic, NULL sets the key back to its default.
    const char *value;
} edgelog_key_value;

// A store in numbers.
typedef struct {
    // sizeof(edgelog_store_stats).
    size_t size;
    // How many topics it has.
    uint64_t topic_count;
    // How many partitions of these, each a log, can be opened.
    uint64_t log_count;
    // How many segments they have.
    uint64_t segment_count;
    // Their bytes: whole batches, without room reserved ahead.
    uint64_t bytes;
} edgelog_store_stats;

// The report in numbers.
typedef struct {
    // sizeof(edgelog_recovery_summary).
    size_t size;
    // Not 0: the store had been closed cleanly, or is new; nothing had to be looked at.
    int32_t is_clean;
    // Not 0: no valid checkpoint was there although the store has logs; all was recovered from the segments alone.
    int32_t checkpoint_lost;
    // Records found above the last recovery points, accepted and made durable.
    uint64_t recovered_records;
    // Bytes of unfinished appends, which are no part of any log any more.
    uint64_t cut_bytes;
    // Offsets that were durable once and are lost to damage.
    uint64_t lost_offsets;
    // How many logs were opened: edgelog_recovery_log has each.
    uint64_t log_count;
    // How many partitions' directories are gone: EDGELOG_PARTITION_MISSING.
    uint64_t missing_count;
    // How many leftovers of unfinished creations and deletions were removed: EDGELOG_PARTITION_REMOVED.
    uint64_t removed_count;
    // How many logs could not be opened: EDGELOG_PARTITION_UNOPENED.
    uint64_t unopened_count;
    // Not 0: the store could not be marked as in use (a full disk). It can be read, and appends try again.
    int32_t is_not_writable;
    // Zero.
    int32_t reserved;
} edgelog_recovery_summary;

// Bytes that are borrowed: a pointer and a length. `data` NULL is Kafka's null; `len` 0 with any other pointer
// is empty. Never NUL-terminated.
typedef struct {
    // The first byte, or NULL.
    const uint8_t *data;
    // How many there are.
    size_t len;
} edgelog_bytes;

// What opening one log found and did. Its bytes live as long as the report.
typedef struct {
    // sizeof(edgelog_recovery_of_log).
    size_t size;
    // The topic.
    edgelog_bytes topic;
    // The partition.
    uint32_t partition;
    // Not 0: it had been closed cleanly.
    int32_t is_clean;
    // First offset that it holds now.
    int64_t log_start_offset;
    // The offset that the next record gets.
    int64_t log_end_offset;
    // Everything below was durable before the stop.
    int64_t recovery_point;
    // Records found above that recovery point, accepted and made durable.
    uint64_t recovered_records;
    // How many tails were cut: edgelog_recovery_cut has each.
    uint64_t cut_count;
    // How many ranges of offsets are lost to damage: edgelog_recovery_lost has each.
    uint64_t lost_count;
    // Why the log opened read-only; NULL where it did not.
    edgelog_bytes failure;
    // The leader epoch from now on.
    int32_t leader_epoch;
    // Zero.
    int32_t reserved;
} edgelog_recovery_of_log;

// A tail that recovery took out of a log. Its bytes live as long as the report.
typedef struct {
    // sizeof(edgelog_cut_tail).
    size_t size;
    // The segment file that it stood in, relative to the data directory.
    edgelog_bytes file;
    // Where in it the log ends now.
    int64_t position;
    // How many bytes it has, without zeros at its end.
    uint64_t bytes;
    // The file that keeps it; NULL where there was no room: it then stays behind the end, fenced by the new epoch.
    edgelog_bytes kept_in;
    // First offset of batches in it that are valid in themselves, or -1.
    int64_t first_valid_offset;
    // And their last offset, or -1.
    int64_t last_valid_offset;
} edgelog_cut_tail;

// Offsets that damage has taken, and where.
typedef struct {
    // sizeof(edgelog_lost_range).
    size_t size;
    // First offset that could not be read.
    int64_t first_offset;
    // First offset that can be read again.
    int64_t next_offset;
    // First damaged byte of the file.
    int64_t position;
    // First byte behind that is good again; -1 where that is in a later segment.
    int64_t resumes_at;
    // Bytes from here on were not looked at; -1 where all were.
    int64_t unread_from;
    // The segment file, relative to the data directory. It lives until the next call with the reader or, from a
    // recovery report, as long as that.
    edgelog_bytes file;
} edgelog_lost_range;

// A partition that a report names. Its bytes live as long as the report.
typedef struct {
    // sizeof(edgelog_recovery_partition).
    size_t size;
    // The topic.
    edgelog_bytes topic;
    // Why it could not be opened; NULL for the other lists.
    edgelog_bytes reason;
    // The partition.
    uint32_t partition;
    // Zero.
    int32_t reserved;
} edgelog_recovery_partition;

// A topic. Its bytes live as long as the list.
typedef struct {
    // sizeof(edgelog_topic).
    size_t size;
    // Its name.
    edgelog_bytes name;
    // How many partitions it has.
    uint32_t partitions;
    // Zero.
    int32_t reserved;
} edgelog_topic;

// A key of a topic's configuration. Its bytes live as long as the list.
typedef struct {
    // sizeof(edgelog_topic_config).
    size_t size;
    // Kafka's key.
    edgelog_bytes key;
    // The value in force, as text.
    edgelog_bytes value;
    // Not 0: the topic sets it; 0: it comes from the store's options or the defaults.
    int32_t is_set;
    // Zero.
    int32_t reserved;
} edgelog_topic_config;

// A header of a record. The key is UTF-8 and not NULL; the value may be NULL.
typedef struct {
    // Its name.
    edgelog_bytes key;
    // Its value.
    edgelog_bytes value;
} edgelog_header;

// A record to append. All but `size` may stay zero.
typedef struct {
    // sizeof(edgelog_new_record).
    size_t size;
    // The key; NULL for none.
    edgelog_bytes key;
    // The value; NULL for a tombstone.
    edgelog_bytes value;
    // The headers, in order.
    const edgelog_header *headers;
    // How many headers there are.
    size_t header_count;
    // Milliseconds since 1970; counts where `has_timestamp` is not 0.
    int64_t timestamp_ms;
    // 0: the store's clock stamps the record.
    int32_t has_timestamp;
    // Zero.
    int32_t reserved;
} edgelog_new_record;

// Where an append's records stand now.
typedef struct {
    // sizeof(edgelog_append_info).
    size_t size;
    // Offset of the first record.
    int64_t base_offset;
    // Offset of the last record.
    int64_t last_offset;
    // Largest timestamp among them, in milliseconds since 1970.
    int64_t max_timestamp_ms;
    // The leader epoch that they were written in.
    int32_t leader_epoch;
    // Zero.
    int32_t reserved;
} edgelog_append_info;

// The four offsets of a log: log_start_offset <= high_watermark <= log_end_offset, and recovery_point <=
// log_end_offset.
typedef struct {
    // sizeof(edgelog_offsets).
    size_t size;
    // First offset that the log holds.
    int64_t log_start_offset;
    // Readers stop here: everything below was acknowledged.
    int64_t high_watermark;
    // Everything below is durable.
    int64_t recovery_point;
    // The offset that the next record gets.
    int64_t log_end_offset;
} edgelog_offsets;

// A log in numbers.
typedef struct {
    // sizeof(edgelog_log_stats).
    size_t size;
    // How many segments it has.
    uint64_t segment_count;
    // Their bytes: whole batches, without room reserved ahead.
    uint64_t bytes;
    // The leader epoch that the next record gets.
    int32_t leader_epoch;
    // Not 0: a write or flush failed, and the log can only be read until the store is opened again.
    int32_t is_read_only;
    // The log's identity, made with it and never changed.
    uint8_t id[16];
} edgelog_log_stats;

// A place in a log that keeps its meaning: should a power cut take the record back, the position answers
// EDGELOG_FENCED_LEADER_EPOCH and never other data.
typedef struct {
    // The offset.
    int64_t offset;
    // The leader epoch that it was seen with; -1 where it is not known.
    int32_t leader_epoch;
    // Zero.
    int32_t reserved;
} edgelog_position;

// How a reader reads. All but `size` may stay zero.
typedef struct {
    // sizeof(edgelog_reader_options).
    size_t size;
    // EDGELOG_UP_TO_HIGH_WATERMARK, EDGELOG_UP_TO_LOG_END or EDGELOG_UP_TO_DURABLE.
    int32_t up_to;
    // Not 0: batches' CRCs are not checked before they are handed out.
    int32_t skip_crc_check;
} edgelog_reader_options;

// A record batch that was read.
typedef struct {
    // sizeof(edgelog_batch_info).
    size_t size;
    // Offset of its first record, which may lie before where the reader was asked to start.
    int64_t base_offset;
    // Offset of its last record.
    int64_t last_offset;
    // Largest timestamp among its records, in milliseconds since 1970.
    int64_t max_timestamp_ms;
    // The whole batch, exactly Kafka's bytes, where the log has them; they live until the batch is freed.
    edgelog_bytes bytes;
    // The leader epoch that it was written in.
    int32_t leader_epoch;
    // Kafka's number of its codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    int32_t compression;
} edgelog_batch_info;

// A record that was read. Its bytes live until its batch is freed.
typedef struct {
    // sizeof(edgelog_record).
    size_t size;
    // Its offset.
    int64_t offset;
    // Its timestamp in milliseconds since 1970, or -1.
    int64_t timestamp_ms;
    // Its key, or NULL.
    edgelog_bytes key;
    // Its value; NULL in a tombstone.
    edgelog_bytes value;
    // How many headers it has: edgelog_batch_next_header gives them.
    size_t header_count;
} edgelog_record;

// Gets what the library noticed: the level and one line of text, which lives for the call. It may come from any
// thread, also out of a call that this program makes, and must return.
typedef void (*edgelog_log_callback)(void *user_data, int32_t level, edgelog_bytes text);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What this thread's last failed call has to say, NUL-terminated; empty where none failed. Valid until the next call
// of this thread that fails. Never NULL.
const char *edgelog_last_error(void);

// The evidence of this thread's last failed call. Answers EDGELOG_END where none failed.
edgelog_result edgelog_last_error_info(edgelog_error_info *out);

// The name of a result, as in this header but for "EDGELOG_"; for a number that is none, "UNKNOWN_SERVER_ERROR". Lives
// as long as the library.
const char *edgelog_result_name(int32_t result);

// The version of the library that runs, such as "0.1.0". Lives as long as the library.
const char *edgelog_version(void);

// The version of the library that runs, to compare with EDGELOG_VERSION_NUMBER.
uint32_t edgelog_version_number(void);

// Options with their defaults; to be freed.
edgelog_result edgelog_options_new(edgelog_options **out);

// Sets a key of the store, or a topic's key as the default for topics that do not set it themselves. Kafka's names;
// docs/configuration.md has them. Answers EDGELOG_INVALID_CONFIG for what cannot be, and then changes nothing.
edgelog_result edgelog_options_set(edgelog_options *options, const char *key, const char *value);

// Frees options. Stores that were opened with them do not need them any more.
void edgelog_options_free(edgelog_options *options);

// Opens the store in the directory `path` for writing, no matter how it was stopped, and creates it where there is
// none. What was found is in edgelog_store_recovery. `options` may be NULL: defaults.
//
// Answers EDGELOG_DATA_DIR_LOCKED where another process writes it, EDGELOG_UNSUPPORTED_VERSION where a newer edgelog
// wrote it, EDGELOG_KAFKA_STORAGE_ERROR where the directory cannot be used at all. Damage and a full disk are no
// errors: see the report. All records that can be read afterwards are on the disk.
edgelog_result edgelog_store_open(const char *path, const edgelog_options *options, edgelog_store **out);

// Attaches read-only to the store in the directory `path`, while another process writes it, or none does. The writer
// does not notice. Records are seen when they reach the page cache; a reader with EDGELOG_UP_TO_DURABLE sees what the
// writer's last checkpoint names. `options` may be NULL.
edgelog_result edgelog_store_attach(const char *path, const edgelog_options *options, edgelog_store **out);

// Closes the store: flushes all logs, trims their files, writes the clean mark. All handles that were made from it
// answer EDGELOG_CLOSED from then on; batches stay readable. After an error it is closed all the same, and the next
// open recovers. The handle is still to be freed.
edgelog_result edgelog_store_close(const edgelog_store *store);

// Frees the store, and closes it first as far as it can where it is open. Logs, readers and batches made from it may
// be freed before or after.
void edgelog_store_free(edgelog_store *store);

// What opening the store found and did; to be freed.
edgelog_result edgelog_store_recovery(const edgelog_store *store, edgelog_recovery **out);

// Creates a topic with `partitions` partitions, empty, and `config_count` keys of configuration (`config` may be NULL
// where that is 0). On return it is on the disk. Answers EDGELOG_TOPIC_ALREADY_EXISTS where it exists.
edgelog_result edgelog_store_create_topic(const edgelog_store *store,
                                          const char *name,
                                          uint32_t partitions,
                                          const edgelog_key_value *config,
                                          size_t config_count);

// Sets keys of a topic's configuration, or with a NULL value sets them back to their defaults; in force from the next
// append. Answers EDGELOG_INVALID_CONFIG for what cannot be, and then changes nothing.
edgelog_result edgelog_store_alter_topic(const edgelog_store *store,
                                         const char *name,
                                         const edgelog_key_value *changes,
                                         size_t change_count);

// Deletes a topic with all of its records; on return it is gone also after a power cut. Handles of its logs answer
// EDGELOG_CLOSED; batches stay readable.
edgelog_result edgelog_store_delete_topic(const edgelog_store *store, const char *name);

// The topics as they are now, by name; to be freed.
edgelog_result edgelog_store_topics(const edgelog_store *store, edgelog_topics **out);

// The log of one partition; to be freed.
edgelog_result edgelog_store_log(const edgelog_store *store,
                                 const char *topic,
                                 uint32_t partition,
                                 edgelog_log **out);

// Makes everything in every log durable that was appended before this call. Answers the first log's error; the others
// are flushed all the same.
edgelog_result edgelog_store_flush(const edgelog_store *store);

// Does what is due at `now_ms` (milliseconds since 1970): interval flushes, room ahead of writers, retention, the
// checkpoint. For programs without threads (edgelog.housekeeping=tick); call it as often as the shortest flush.ms
// asks for. Answers the first error; the rest is done all the same and tried again by the next call.
edgelog_result edgelog_store_tick(const edgelog_store *store, int64_t now_ms);

// The store in numbers.
edgelog_result edgelog_store_get_stats(const edgelog_store *store, edgelog_store_stats *out);

// The report in numbers.
edgelog_result edgelog_recovery_get_summary(const edgelog_recovery *recovery, edgelog_recovery_summary *out);

// The report in words, for a person or a log; one line each for what needs attention. Lives as long as the report.
edgelog_result edgelog_recovery_get_text(const edgelog_recovery *recovery, edgelog_bytes *out);

// What opening the log of this index found and did; EDGELOG_END behind the last.
edgelog_result edgelog_recovery_get_log(const edgelog_recovery *recovery,
                                        uint64_t index,
                                        edgelog_recovery_of_log *out);

// A tail that was cut from the log of this index; EDGELOG_END behind the last.
edgelog_result edgelog_recovery_get_cut(const edgelog_recovery *recovery,
                                        uint64_t log_index,
                                        uint64_t index,
                                        edgelog_cut_tail *out);

// Offsets that damage has taken from the log of this index; EDGELOG_END behind the last.
edgelog_result edgelog_recovery_get_lost(const edgelog_recovery *recovery,
                                         uint64_t log_index,
                                         uint64_t index,
                                         edgelog_lost_range *out);

// A partition of one of the lists EDGELOG_PARTITION_MISSING, _REMOVED or _UNOPENED; EDGELOG_END behind the last.
edgelog_result edgelog_recovery_get_partition(const edgelog_recovery *recovery,
                                              int32_t list,
                                              uint64_t index,
                                              edgelog_recovery_partition *out);

// Frees the report, and with it the bytes that it lent.
void edgelog_recovery_free(edgelog_recovery *recovery);

// The topic of this index; EDGELOG_END behind the last.
edgelog_result edgelog_topics_get(const edgelog_topics *topics, uint64_t index, edgelog_topic *out);

// A key of the configuration in force of the topic of this index; EDGELOG_END behind the last key or topic.
edgelog_result edgelog_topics_get_config(const edgelog_topics *topics,
                                         uint64_t topic_index,
                                         uint64_t index,
                                         edgelog_topic_config *out);

// Frees the list, and with it the bytes that it lent.
void edgelog_topics_free(edgelog_topics *topics);

// Appends one record and says where it stands. `how` is EDGELOG_DURABILITY_DEFAULT, EDGELOG_OS, EDGELOG_INTERVAL or
// EDGELOG_SYNC; at the default of a topic the record is on the disk on return. `out` may be NULL.
//
// Answers EDGELOG_MESSAGE_TOO_LARGE, EDGELOG_INVALID_TIMESTAMP; EDGELOG_KAFKA_STORAGE_ERROR where there is no room
// (nothing was appended, try again when there is) or a write or flush failed (open the store again);
// EDGELOG_CLOSED, EDGELOG_READ_ONLY, EDGELOG_FORKED. After any error but those about the record, the record may still
// be found when the log is reopened.
edgelog_result edgelog_log_append(const edgelog_log *log,
                                  const edgelog_new_record *record,
                                  int32_t how,
                                  edgelog_append_info *out);

// Appends the records of `batch` as one record batch and empties it: all of them are in the log, or none. `how` and
// the answers are those of edgelog_log_append; after an error the batch keeps its records. A batch without records
// appends nothing and answers where the next record would go. `out` may be NULL.
edgelog_result edgelog_log_append_batch(const edgelog_log *log,
                                        edgelog_batch_builder *batch,
                                        int32_t how,
                                        edgelog_append_info *out);

// Appends a record batch as Kafka's bytes, such as edgelog_batch_get_info lends: header fields, CRC and records are
// checked first. The log gives it offsets and a leader epoch. `how` and the answers are those of edgelog_log_append,
// and EDGELOG_INVALID_RECORD for what is no valid batch. `out` may be NULL.
edgelog_result edgelog_log_append_encoded(const edgelog_log *log,
                                          edgelog_bytes batch,
                                          int32_t how,
                                          edgelog_append_info *out);

// Makes everything durable that was appended before this call.
edgelog_result edgelog_log_flush(const edgelog_log *log);

// The four offsets as they are now.
edgelog_result edgelog_log_get_offsets(const edgelog_log *log, edgelog_offsets *out);

// The log in numbers.
edgelog_result edgelog_log_get_stats(const edgelog_log *log, edgelog_log_stats *out);

// The position of the first record whose timestamp (milliseconds since 1970) is `timestamp_ms` or later, as Kafka's
// offsetsForTimes; EDGELOG_END where there is none.
edgelog_result edgelog_log_offset_for_time(const edgelog_log *log, int64_t timestamp_ms, edgelog_position *out);

// Deletes all records before `offset` (at most the high watermark): they cannot be read any more, and whole segments
// of them give their room back. On return that is on the disk. `out_log_start_offset` may be NULL.
edgelog_result edgelog_log_delete_records(const edgelog_log *log, int64_t offset, int64_t *out_log_start_offset);

// Truncates the log: removes all records from `offset` on. A reader that saw them learns of it by the leader epoch.
// On return the truncation is durable. `out_log_end_offset` may be NULL.
edgelog_result edgelog_log_truncate(const edgelog_log *log, int64_t offset, int64_t *out_log_end_offset);

// Frees the handle; the log stays. Readers and batches made from it may be freed before or after.
void edgelog_log_free(edgelog_log *log);

// An empty batch with the limits of `log`; to be freed.
edgelog_result edgelog_batch_builder_new(const edgelog_log *log, edgelog_batch_builder **out);

// Adds a record; its bytes are copied. One without a timestamp gets the time of this call. Answers
// EDGELOG_MESSAGE_TOO_LARGE where the batch would exceed max.message.bytes: it is as it was, to be appended first.
edgelog_result edgelog_batch_builder_push(edgelog_batch_builder *builder, const edgelog_new_record *record);

// Adds `count` records from the first on, until the batch is full, and says in `out_pushed` how many those are: where
// it is less than `count`, append the batch and go on with the rest. Their bytes are copied. Records without a
// timestamp get the time of this call. Each says its own size, and all the same one. An error is answered where the
// first record cannot be added; the batch is then as it was.
edgelog_result edgelog_batch_builder_push_many(edgelog_batch_builder *builder,
                                               const edgelog_new_record *records,
                                               size_t count,
                                               uint64_t *out_pushed);

// How many records it holds, and how many bytes the batch would have now, before compression. Either output may be
// NULL.
edgelog_result edgelog_batch_builder_get_size(const edgelog_batch_builder *builder,
                                              uint64_t *out_records,
                                              uint64_t *out_bytes);

// Forgets the records and keeps the memory.
edgelog_result edgelog_batch_builder_clear(edgelog_batch_builder *builder);

// Frees the builder with the records that it holds.
void edgelog_batch_builder_free(edgelog_batch_builder *builder);

// A reader that begins at `from` (EDGELOG_FROM_...) with its `value`; to be freed. `options` may be NULL: up to the
// high watermark, CRCs checked as check.crcs says. Either way, isolation.level of the store says which records of
// transactions are seen. Answers EDGELOG_OFFSET_OUT_OF_RANGE where the log does not hold that place.
edgelog_result edgelog_reader_new(const edgelog_log *log,
                                  int32_t from,
                                  int64_t value,
                                  const edgelog_reader_options *options,
                                  edgelog_reader **out);

// Goes to another place of the log, as edgelog_reader_new; after an error the reader stands where it stood.
edgelog_result edgelog_reader_seek(edgelog_reader *reader, int32_t from, int64_t value);

// Goes to a position that was handed out before. Answers EDGELOG_FENCED_LEADER_EPOCH where its history was truncated,
// EDGELOG_OFFSET_OUT_OF_RANGE where retention deleted it; the reader then stands where it stood.
edgelog_result edgelog_reader_seek_position(edgelog_reader *reader, const edgelog_position *position);

// The next batch with records at or behind the reader's place; to be freed. Answers EDGELOG_END where there is none
// now, EDGELOG_CORRUPT_MESSAGE where bytes are damaged (edgelog_reader_skip_damage goes on behind),
// EDGELOG_OFFSET_OUT_OF_RANGE where retention has deleted that offset, EDGELOG_FENCED_LEADER_EPOCH where its history
// was truncated.
edgelog_result edgelog_reader_next(edgelog_reader *reader, edgelog_batch **out);

// As edgelog_reader_next, but waits for a batch up to `timeout_ms`, or as long as it takes where that is negative.
// Closing the store ends the wait with EDGELOG_CLOSED.
edgelog_result edgelog_reader_wait(edgelog_reader *reader, int64_t timeout_ms, edgelog_batch **out);

// A descriptor for poll, epoll and the like. It is the reader's: do not read, write or close it; it lives as long as
// the reader. It is readable whenever edgelog_reader_next may have something to say (a batch, an error, a closed
// log), until that answers EDGELOG_END: so call it until then, and poll again.
//
// It is an eventfd that appends of this process make readable. For an attached store no append can do that. There it
// is a timer that asks to look again after 1 to 50 ms.
edgelog_result edgelog_reader_get_fd(edgelog_reader *reader, int *out_fd);

// Where the reader stands: the next record's offset, with the epoch of the last record read. Safe to keep across
// restarts: edgelog_reader_seek_position goes there again.
edgelog_result edgelog_reader_get_position(const edgelog_reader *reader, edgelog_position *out);

// Records between the reader and the end of what it may read.
edgelog_result edgelog_reader_get_lag(const edgelog_reader *reader, uint64_t *out_records);

// Goes on behind the damage that a read reported, and says what was lost. Without damage, a range of no offsets.
edgelog_result edgelog_reader_skip_damage(edgelog_reader *reader, edgelog_lost_range *out);

// Frees the reader and its descriptor. Batches that it gave out stay readable.
void edgelog_reader_free(edgelog_reader *reader);

// The batch's header, and its bytes: those of the log itself where it is mapped.
edgelog_result edgelog_batch_get_info(const edgelog_batch *batch, edgelog_batch_info *out);

// The next record of the batch, from where the reader was asked to start; EDGELOG_END behind the last. Its bytes live
// until the batch is freed. A compressed batch is decompressed at the first call.
// EDGELOG_UNSUPPORTED_COMPRESSION_TYPE: its codec is not built in. EDGELOG_MESSAGE_TOO_LARGE: it comes to more than
// edgelog.decompressed.bytes.max. Neither is damage. EDGELOG_CORRUPT_MESSAGE: its records do not decode. The reader
// stands behind the batch already.
edgelog_result edgelog_batch_next(edgelog_batch *batch, edgelog_record *out);

// The next header of the record that edgelog_batch_next gave last; EDGELOG_END behind its last. The bytes live until
// the batch is freed.
edgelog_result edgelog_batch_next_header(edgelog_batch *batch, edgelog_header *out);

// Goes back to the first of the batch's records.
edgelog_result edgelog_batch_rewind(edgelog_batch *batch);

// Frees the batch, and with it the bytes that it lent.
void edgelog_batch_free(edgelog_batch *batch);

// From now on the library calls `callback` with what it notices, up to `level_max` (EDGELOG_LOG_...). It replaces the
// one before; NULL ends the calls. On return, the one before may still be running on another thread. One callback
// serves the whole process.
edgelog_result edgelog_set_log_callback(edgelog_log_callback callback, void *user_data, int32_t level_max);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* EDGELOG_H */

#ifndef EDGELOG_H_INLINE
#define EDGELOG_H_INLINE

/* So many bytes at `data`, lent for a call. */
static inline edgelog_bytes edgelog_bytes_of(const void *data, size_t len) {
    edgelog_bytes bytes = {(const uint8_t *)data, len};
    return bytes;
}

/* The bytes of a string without its NUL, lent for a call; Kafka's null for NULL. */
static inline edgelog_bytes edgelog_bytes_of_text(const char *text) {
    size_t len = 0;
    while (text != NULL && text[len] != 0) len++;
    return edgelog_bytes_of(text, len);
}

#endif

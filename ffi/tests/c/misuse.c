/* Misuse that the conventions answer: NULL everywhere, wrong sizes, unknown choices, lengths, bad UTF-8, closed
 * handles. With each of these errors, outputs stay as they were. */
#include "check.h"

#define NULL_ANSWERED(call) CHECK_RESULT(call, EDGELOG_NULL_POINTER)

/* An output that no failing call may touch. */
static char untouched[512];
static void forget(void) { memset(untouched, 0x5a, sizeof untouched); }
static int is_untouched(size_t from) {
    for (size_t i = from; i < sizeof untouched; i++) {
        if (untouched[i] != 0x5a) return 0;
    }
    return 1;
}

#define WITH_SIZE(bytes) (forget(), *(size_t *)(void *)untouched = (bytes), (void *)untouched)

/* Every size but the right one. */
#define SIZES_ANSWERED(type, call)                                                                    \
    do {                                                                                              \
        size_t sizes[] = {0, 1, 7, 8, sizeof(type) - 1, sizeof(type) + 1, sizeof(type) + 8, 4096, SIZE_MAX}; \
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {                                   \
            type *wrong = WITH_SIZE(sizes[i]);                                                        \
            CHECK_RESULT(call, EDGELOG_INVALID_STRUCT_SIZE);                                          \
            CHECK(is_untouched(sizeof(size_t)));                                                      \
        }                                                                                             \
    } while (0)

static void null_handles(void) {
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    void *out = NULL;
    int64_t number = 0;
    uint64_t count = 0;
    int fd = 0;
    edgelog_position position = {0, 0, 0};
    edgelog_bytes bytes = {NULL, 0};
    edgelog_header header;
    NULL_ANSWERED(edgelog_options_set(NULL, "a", "b"));
    NULL_ANSWERED(edgelog_store_close(NULL));
    NULL_ANSWERED(edgelog_store_recovery(NULL, (edgelog_recovery **)&out));
    NULL_ANSWERED(edgelog_store_create_topic(NULL, "t", 1, NULL, 0));
    NULL_ANSWERED(edgelog_store_alter_topic(NULL, "t", NULL, 0));
    NULL_ANSWERED(edgelog_store_delete_topic(NULL, "t"));
    NULL_ANSWERED(edgelog_store_topics(NULL, (edgelog_topics **)&out));
    NULL_ANSWERED(edgelog_store_log(NULL, "t", 0, (edgelog_log **)&out));
    NULL_ANSWERED(edgelog_store_flush(NULL));
    NULL_ANSWERED(edgelog_store_tick(NULL, 0));
    NULL_ANSWERED(edgelog_store_get_stats(NULL, WITH_SIZE(sizeof(edgelog_store_stats))));
    NULL_ANSWERED(edgelog_recovery_get_summary(NULL, WITH_SIZE(sizeof(edgelog_recovery_summary))));
    NULL_ANSWERED(edgelog_recovery_get_text(NULL, &bytes));
    NULL_ANSWERED(edgelog_recovery_get_log(NULL, 0, WITH_SIZE(sizeof(edgelog_recovery_of_log))));
    NULL_ANSWERED(edgelog_recovery_get_cut(NULL, 0, 0, WITH_SIZE(sizeof(edgelog_cut_tail))));
    NULL_ANSWERED(edgelog_recovery_get_lost(NULL, 0, 0, WITH_SIZE(sizeof(edgelog_lost_range))));
    NULL_ANSWERED(edgelog_recovery_get_partition(NULL, 0, 0, WITH_SIZE(sizeof(edgelog_recovery_partition))));
    NULL_ANSWERED(edgelog_topics_get(NULL, 0, WITH_SIZE(sizeof(edgelog_topic))));
    NULL_ANSWERED(edgelog_topics_get_config(NULL, 0, 0, WITH_SIZE(sizeof(edgelog_topic_config))));
    NULL_ANSWERED(edgelog_log_append(NULL, &record, EDGELOG_OS, NULL));
    NULL_ANSWERED(edgelog_log_append_batch(NULL, NULL, EDGELOG_OS, NULL));
    NULL_ANSWERED(edgelog_log_append_encoded(NULL, bytes, EDGELOG_OS, NULL));
    NULL_ANSWERED(edgelog_log_flush(NULL));
    NULL_ANSWERED(edgelog_log_get_offsets(NULL, WITH_SIZE(sizeof(edgelog_offsets))));
    NULL_ANSWERED(edgelog_log_get_stats(NULL, WITH_SIZE(sizeof(edgelog_log_stats))));
    NULL_ANSWERED(edgelog_log_offset_for_time(NULL, 0, &position));
    NULL_ANSWERED(edgelog_log_delete_records(NULL, 0, &number));
    NULL_ANSWERED(edgelog_log_truncate(NULL, 0, &number));
    NULL_ANSWERED(edgelog_batch_builder_new(NULL, (edgelog_batch_builder **)&out));
    NULL_ANSWERED(edgelog_batch_builder_push(NULL, &record));
    NULL_ANSWERED(edgelog_batch_builder_push_many(NULL, &record, 1, NULL));
    NULL_ANSWERED(edgelog_batch_builder_get_size(NULL, &count, &count));
    NULL_ANSWERED(edgelog_batch_builder_clear(NULL));
    NULL_ANSWERED(edgelog_reader_new(NULL, 0, 0, NULL, (edgelog_reader **)&out));
    NULL_ANSWERED(edgelog_reader_seek(NULL, 0, 0));
    NULL_ANSWERED(edgelog_reader_seek_position(NULL, &position));
    NULL_ANSWERED(edgelog_reader_next(NULL, (edgelog_batch **)&out));
    NULL_ANSWERED(edgelog_reader_wait(NULL, 0, (edgelog_batch **)&out));
    NULL_ANSWERED(edgelog_reader_get_fd(NULL, &fd));
    NULL_ANSWERED(edgelog_reader_get_position(NULL, &position));
    NULL_ANSWERED(edgelog_reader_get_lag(NULL, &count));
    NULL_ANSWERED(edgelog_reader_skip_damage(NULL, WITH_SIZE(sizeof(edgelog_lost_range))));
    NULL_ANSWERED(edgelog_batch_get_info(NULL, WITH_SIZE(sizeof(edgelog_batch_info))));
    NULL_ANSWERED(edgelog_batch_next(NULL, WITH_SIZE(sizeof(edgelog_record))));
    NULL_ANSWERED(edgelog_batch_next_header(NULL, &header));
    NULL_ANSWERED(edgelog_batch_rewind(NULL));
    CHECK(out == NULL);
    edgelog_options_free(NULL);
    edgelog_store_free(NULL);
    edgelog_recovery_free(NULL);
    edgelog_topics_free(NULL);
    edgelog_log_free(NULL);
    edgelog_batch_builder_free(NULL);
    edgelog_reader_free(NULL);
    edgelog_batch_free(NULL);
}

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    null_handles();

    /* NULL for the other arguments that have to be there. */
    edgelog_store *store = NULL;
    NULL_ANSWERED(edgelog_options_new(NULL));
    NULL_ANSWERED(edgelog_store_open(NULL, NULL, &store));
    NULL_ANSWERED(edgelog_store_open(dir, NULL, NULL));
    NULL_ANSWERED(edgelog_store_attach(NULL, NULL, &store));
    NULL_ANSWERED(edgelog_store_attach(dir, NULL, NULL));
    NULL_ANSWERED(edgelog_last_error_info(NULL));
    CHECK_RESULT(edgelog_store_open("", NULL, &store), EDGELOG_KAFKA_STORAGE_ERROR);
    CHECK(store == NULL);
    store = open_store(dir);
    edgelog_log *log = open_log(store, "t"), *no_log = NULL;
    NULL_ANSWERED(edgelog_store_recovery(store, NULL));
    NULL_ANSWERED(edgelog_store_topics(store, NULL));
    NULL_ANSWERED(edgelog_store_log(store, NULL, 0, &no_log));
    NULL_ANSWERED(edgelog_store_log(store, "t", 0, NULL));
    NULL_ANSWERED(edgelog_store_create_topic(store, NULL, 1, NULL, 0));
    NULL_ANSWERED(edgelog_store_create_topic(store, "n", 1, NULL, 1));
    NULL_ANSWERED(edgelog_store_alter_topic(store, NULL, NULL, 0));
    NULL_ANSWERED(edgelog_store_alter_topic(store, "t", NULL, 1));
    edgelog_key_value no_key[] = {{NULL, "1"}};
    NULL_ANSWERED(edgelog_store_alter_topic(store, "t", no_key, 1));
    NULL_ANSWERED(edgelog_store_delete_topic(store, NULL));
    NULL_ANSWERED(edgelog_store_get_stats(store, NULL));
    NULL_ANSWERED(edgelog_log_get_offsets(log, NULL));
    NULL_ANSWERED(edgelog_log_get_stats(log, NULL));
    NULL_ANSWERED(edgelog_log_offset_for_time(log, 0, NULL));
    NULL_ANSWERED(edgelog_log_append(log, NULL, EDGELOG_OS, NULL));
    NULL_ANSWERED(edgelog_log_append_batch(log, NULL, EDGELOG_OS, NULL));
    NULL_ANSWERED(edgelog_log_append_encoded(log, edgelog_bytes_of(NULL, 0), EDGELOG_OS, NULL));
    NULL_ANSWERED(edgelog_batch_builder_new(log, NULL));
    NULL_ANSWERED(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, NULL));

    /* Counts and lengths: nothing of these is looked at. */
    CHECK_RESULT(edgelog_store_create_topic(store, "n", 1, no_key, SIZE_MAX), EDGELOG_INVALID_ARGUMENT);
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    edgelog_header header = {edgelog_bytes_of_text("h"), edgelog_bytes_of_text("v")};
    char one = 'x';
    size_t huge[] = {(size_t)INT32_MAX + 1, SIZE_MAX - 7, SIZE_MAX};
    for (int i = 0; i < 3; i++) {
        record.value = edgelog_bytes_of(&one, huge[i]);
        CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_MESSAGE_TOO_LARGE);
        record.value = edgelog_bytes_of(NULL, 0);
        record.key = edgelog_bytes_of(&one, huge[i]);
        CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_MESSAGE_TOO_LARGE);
        record.key = edgelog_bytes_of(NULL, 0);
        record.headers = &header;
        record.header_count = huge[i];
        CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_MESSAGE_TOO_LARGE);
        record.header_count = 1;
        header.key.len = huge[i];
        CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_MESSAGE_TOO_LARGE);
        header.key.len = 1;
        record.header_count = 0;
        edgelog_bytes encoded = {(const uint8_t *)&one, huge[i]};
        CHECK_RESULT(edgelog_log_append_encoded(log, encoded, EDGELOG_OS, NULL), EDGELOG_MESSAGE_TOO_LARGE);
    }
    /* A length that is true, and more than a record may have. */
    size_t large = 64 << 20;
    char *bytes = calloc(1, large);
    CHECK(bytes != NULL);
    record.value = edgelog_bytes_of(bytes, large);
    CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_MESSAGE_TOO_LARGE);
    CHECK_RESULT(edgelog_log_append_encoded(log, record.value, EDGELOG_OS, NULL), EDGELOG_INVALID_RECORD);
    free(bytes);
    /* NULL with a length; a header without a key; text that is none. */
    record.value = edgelog_bytes_of(NULL, 1);
    NULL_ANSWERED(edgelog_log_append(log, &record, EDGELOG_OS, NULL));
    record.value = edgelog_bytes_of("", 0);
    record.header_count = 1;
    record.headers = NULL;
    NULL_ANSWERED(edgelog_log_append(log, &record, EDGELOG_OS, NULL));
    record.headers = &header;
    header.key = edgelog_bytes_of(NULL, 0);
    NULL_ANSWERED(edgelog_log_append(log, &record, EDGELOG_OS, NULL));
    header.key = edgelog_bytes_of("\xc3\x28", 2);
    CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_INVALID_UTF8);
    record.header_count = 0;
    CHECK_RESULT(edgelog_store_log(store, "\xff", 0, &no_log), EDGELOG_INVALID_UTF8);
    CHECK_RESULT(edgelog_store_create_topic(store, "\xff", 1, NULL, 0), EDGELOG_INVALID_UTF8);

    /* Choices that are none. */
    int32_t choices[] = {-1, 4, 5, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 5; i++) {
        edgelog_reader *no_reader = NULL;
        CHECK_RESULT(edgelog_log_append(log, &record, choices[i], NULL), EDGELOG_INVALID_ARGUMENT);
        if (choices[i] != 4) {
            CHECK_RESULT(edgelog_reader_new(log, choices[i], 0, NULL, &no_reader), EDGELOG_INVALID_ARGUMENT);
        }
        edgelog_reader_options options = EDGELOG_INIT(edgelog_reader_options);
        options.up_to = choices[i];
        CHECK_RESULT(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, &options, &no_reader), EDGELOG_INVALID_ARGUMENT);
        CHECK(no_reader == NULL);
    }
    CHECK_RESULT(edgelog_store_log(store, "t", UINT32_MAX, &no_log), EDGELOG_UNKNOWN_TOPIC_OR_PARTITION);
    CHECK_RESULT(edgelog_store_create_topic(store, "n", UINT32_MAX, NULL, 0), EDGELOG_INVALID_PARTITIONS);
    CHECK_OK(edgelog_store_tick(store, INT64_MIN));
    CHECK_OK(edgelog_store_tick(store, INT64_MAX));
    int64_t number = 0;
    CHECK_RESULT(edgelog_log_truncate(log, INT64_MAX, &number), EDGELOG_OFFSET_OUT_OF_RANGE);
    CHECK_RESULT(edgelog_log_truncate(log, INT64_MIN, &number), EDGELOG_OFFSET_OUT_OF_RANGE);
    record.has_timestamp = 1;
    int64_t times[] = {INT64_MIN, -1, INT64_MAX};
    for (int i = 0; i < 3; i++) {
        record.timestamp_ms = times[i];
        edgelog_result result = edgelog_log_append(log, &record, EDGELOG_OS, NULL);
        CHECK(result == EDGELOG_OK || result == EDGELOG_INVALID_TIMESTAMP);
    }
    record.has_timestamp = 0;

    /* Sizes. */
    append_text(log, "value", EDGELOG_SYNC);
    edgelog_reader *reader = NULL;
    edgelog_batch *batch = NULL;
    edgelog_recovery *recovery = NULL;
    edgelog_topics *topics = NULL;
    edgelog_batch_builder *builder = NULL;
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_LAST, 1, NULL, &reader));
    CHECK_OK(edgelog_reader_next(reader, &batch));
    CHECK_OK(edgelog_store_recovery(store, &recovery));
    CHECK_OK(edgelog_store_topics(store, &topics));
    CHECK_OK(edgelog_batch_builder_new(log, &builder));
    SIZES_ANSWERED(edgelog_error_info, edgelog_last_error_info(wrong));
    SIZES_ANSWERED(edgelog_store_stats, edgelog_store_get_stats(store, wrong));
    SIZES_ANSWERED(edgelog_recovery_summary, edgelog_recovery_get_summary(recovery, wrong));
    SIZES_ANSWERED(edgelog_recovery_of_log, edgelog_recovery_get_log(recovery, 0, wrong));
    SIZES_ANSWERED(edgelog_cut_tail, edgelog_recovery_get_cut(recovery, 0, 0, wrong));
    SIZES_ANSWERED(edgelog_lost_range, edgelog_recovery_get_lost(recovery, 0, 0, wrong));
    SIZES_ANSWERED(edgelog_recovery_partition, edgelog_recovery_get_partition(recovery, 0, 0, wrong));
    SIZES_ANSWERED(edgelog_topic, edgelog_topics_get(topics, 0, wrong));
    SIZES_ANSWERED(edgelog_topic_config, edgelog_topics_get_config(topics, 0, 0, wrong));
    SIZES_ANSWERED(edgelog_offsets, edgelog_log_get_offsets(log, wrong));
    SIZES_ANSWERED(edgelog_log_stats, edgelog_log_get_stats(log, wrong));
    SIZES_ANSWERED(edgelog_new_record, edgelog_log_append(log, wrong, EDGELOG_OS, NULL));
    SIZES_ANSWERED(edgelog_new_record, edgelog_batch_builder_push(builder, wrong));
    uint64_t pushed = 0;
    SIZES_ANSWERED(edgelog_new_record, edgelog_batch_builder_push_many(builder, wrong, 1, &pushed));
    SIZES_ANSWERED(edgelog_append_info, edgelog_log_append(log, &record, EDGELOG_OS, wrong));
    SIZES_ANSWERED(edgelog_append_info, edgelog_log_append_batch(log, builder, EDGELOG_OS, wrong));
    SIZES_ANSWERED(edgelog_append_info, edgelog_log_append_encoded(log, edgelog_bytes_of("", 0), EDGELOG_OS, wrong));
    SIZES_ANSWERED(edgelog_reader_options, edgelog_reader_new(log, 0, 0, wrong, &reader));
    SIZES_ANSWERED(edgelog_lost_range, edgelog_reader_skip_damage(reader, wrong));
    SIZES_ANSWERED(edgelog_batch_info, edgelog_batch_get_info(batch, wrong));
    SIZES_ANSWERED(edgelog_record, edgelog_batch_next(batch, wrong));
    NULL_ANSWERED(edgelog_reader_next(reader, NULL));
    NULL_ANSWERED(edgelog_reader_wait(reader, 0, NULL));
    NULL_ANSWERED(edgelog_reader_get_fd(reader, NULL));
    NULL_ANSWERED(edgelog_reader_get_position(reader, NULL));
    NULL_ANSWERED(edgelog_reader_get_lag(reader, NULL));
    NULL_ANSWERED(edgelog_reader_seek_position(reader, NULL));
    NULL_ANSWERED(edgelog_reader_skip_damage(reader, NULL));
    NULL_ANSWERED(edgelog_batch_next(batch, NULL));
    NULL_ANSWERED(edgelog_batch_next_header(batch, NULL));
    NULL_ANSWERED(edgelog_batch_get_info(batch, NULL));
    NULL_ANSWERED(edgelog_batch_builder_push(builder, NULL));
    NULL_ANSWERED(edgelog_batch_builder_push_many(builder, NULL, 1, &pushed));
    NULL_ANSWERED(edgelog_batch_builder_push_many(builder, &record, 1, NULL));
    NULL_ANSWERED(edgelog_recovery_get_text(recovery, NULL));
    edgelog_offsets offsets = EDGELOG_INIT(edgelog_offsets);
    CHECK_OK(edgelog_log_get_offsets(log, &offsets));

    /* Closed: all handles that were made from the store say so; what was read stays. */
    edgelog_error_info error = EDGELOG_INIT(edgelog_error_info);
    CHECK_OK(edgelog_store_close(store));
    CHECK_RESULT(edgelog_store_flush(store), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_store_tick(store, 0), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_store_topics(store, &topics), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_store_log(store, "t", 0, &no_log), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_store_delete_topic(store, "t"), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_SYNC, NULL), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_log_delete_records(log, 0, NULL), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_log_truncate(log, 0, NULL), EDGELOG_CLOSED);
    CHECK_OK(edgelog_batch_builder_push(builder, &record));
    CHECK_RESULT(edgelog_log_append_batch(log, builder, EDGELOG_OS, NULL), EDGELOG_CLOSED);
    edgelog_batch *none = NULL;
    CHECK_RESULT(edgelog_reader_next(reader, &none), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_reader_wait(reader, -1, &none), EDGELOG_CLOSED);
    CHECK_OK(edgelog_last_error_info(&error));
    CHECK(error.result == EDGELOG_CLOSED && none == NULL);
    edgelog_record seen = EDGELOG_INIT(edgelog_record);
    CHECK_OK(edgelog_batch_next(batch, &seen));
    CHECK(bytes_are(seen.value, "value"));
    edgelog_store_free(store);
    CHECK_RESULT(edgelog_log_flush(log), EDGELOG_CLOSED);
    edgelog_log_free(log);
    edgelog_batch_builder_free(builder);
    edgelog_topics_free(topics);
    edgelog_recovery_free(recovery);
    edgelog_batch_free(batch);
    edgelog_reader_free(reader);
    return all_passed();
}

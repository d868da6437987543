/* Appending at each durability, the four offsets, times, deleting records, truncating, retention by tick. */
#include "check.h"

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    edgelog_options *options = NULL;
    CHECK_OK(edgelog_options_new(&options));
    CHECK_OK(edgelog_options_set(options, "edgelog.housekeeping", "tick"));
    CHECK_OK(edgelog_options_set(options, "log.retention.check.interval.ms", "1"));
    edgelog_store *store = NULL;
    CHECK_OK(edgelog_store_open(dir, options, &store));
    edgelog_options_free(options);
    edgelog_key_value config[] = {{"segment.bytes", "4096"}, {"retention.ms", "-1"}};
    CHECK_OK(edgelog_store_create_topic(store, "t", 1, config, 2));
    edgelog_log *log = NULL;
    CHECK_OK(edgelog_store_log(store, "t", 0, &log));

    /* Key, value, headers, timestamp. */
    edgelog_header headers[] = {
        {edgelog_bytes_of_text("unit"), edgelog_bytes_of_text("celsius")},
        {edgelog_bytes_of_text("raw"), edgelog_bytes_of(NULL, 0)},
    };
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    record.key = edgelog_bytes_of_text("flow");
    record.value = edgelog_bytes_of_text("21.5");
    record.headers = headers;
    record.header_count = 2;
    record.timestamp_ms = 1700000001000;
    record.has_timestamp = 1;
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    CHECK_OK(edgelog_log_append(log, &record, EDGELOG_SYNC, &info));
    CHECK(info.base_offset == 0 && info.last_offset == 0 && info.max_timestamp_ms == 1700000001000);
    CHECK(info.leader_epoch == 0);
    CHECK(info.size == sizeof info);
    edgelog_offsets offsets = EDGELOG_INIT(edgelog_offsets);
    CHECK_OK(edgelog_log_get_offsets(log, &offsets));
    CHECK(offsets.recovery_point == 1 && offsets.high_watermark == 1 && offsets.log_end_offset == 1);

    record.timestamp_ms = 1700000002000;
    CHECK_OK(edgelog_log_append(log, &record, EDGELOG_OS, NULL));
    CHECK_OK(edgelog_log_append(log, &record, EDGELOG_INTERVAL, NULL));
    CHECK_OK(edgelog_log_get_offsets(log, &offsets));
    CHECK(offsets.recovery_point == 1 && offsets.high_watermark == 3 && offsets.log_start_offset == 0);
    CHECK_OK(edgelog_log_flush(log));
    CHECK_OK(edgelog_log_get_offsets(log, &offsets));
    CHECK(offsets.recovery_point == 3);

    edgelog_position position = {-7, -7, -7};
    CHECK_OK(edgelog_log_offset_for_time(log, 1700000001001, &position));
    CHECK(position.offset == 1 && position.leader_epoch == 0);
    position.offset = -7;
    CHECK_RESULT(edgelog_log_offset_for_time(log, 1700000003000, &position), EDGELOG_END);
    CHECK(position.offset == -7); /* Outputs are written on success only. */

    /* Sixteen headers fit the stack, more do not. */
    edgelog_header many[100];
    for (int i = 0; i < 100; i++) many[i] = headers[0];
    record.headers = many;
    record.header_count = 100;
    CHECK_OK(edgelog_log_append(log, &record, EDGELOG_OS, NULL));

    /* The store's clock; no key, no value. */
    edgelog_new_record tombstone = EDGELOG_INIT(edgelog_new_record);
    CHECK_OK(edgelog_log_append(log, &tombstone, EDGELOG_DURABILITY_DEFAULT, &info));
    CHECK(info.max_timestamp_ms > 1600000000000 && info.base_offset == 4);

    char large[5000];
    memset(large, 'x', sizeof large);
    record.header_count = 0;
    record.value = edgelog_bytes_of(large, 5000);
    CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_RECORD_LIST_TOO_LARGE);
    edgelog_error_info error = EDGELOG_INIT(edgelog_error_info);
    CHECK_OK(edgelog_last_error_info(&error));
    CHECK(error.given_bytes > 5000 && error.max_bytes == 4096 && !error.is_retriable);
    record.value = edgelog_bytes_of(large, 1000);
    for (int i = 0; i < 20; i++) CHECK_OK(edgelog_log_append(log, &record, EDGELOG_OS, NULL));

    edgelog_log_stats stats = EDGELOG_INIT(edgelog_log_stats);
    CHECK_OK(edgelog_log_get_stats(log, &stats));
    CHECK(stats.segment_count > 4 && stats.bytes > 20000 && stats.leader_epoch == 0 && !stats.is_read_only);

    int64_t offset = 0;
    CHECK_OK(edgelog_log_delete_records(log, 10, &offset));
    CHECK(offset == 10);
    CHECK_OK(edgelog_log_delete_records(log, 10, NULL));
    CHECK_RESULT(edgelog_log_delete_records(log, -1, &offset), EDGELOG_OFFSET_OUT_OF_RANGE);
    CHECK_OK(edgelog_log_truncate(log, 20, &offset));
    CHECK(offset == 20);
    CHECK_OK(edgelog_log_get_offsets(log, &offsets));
    CHECK(offsets.log_start_offset == 10 && offsets.log_end_offset == 20);
    CHECK(append_text(log, "after", EDGELOG_SYNC) == 20);
    CHECK_OK(edgelog_log_get_stats(log, &stats));
    CHECK(stats.leader_epoch == 1);

    /* Retention, at the host's own time. */
    uint64_t before = stats.segment_count;
    edgelog_key_value short_lived[] = {{"retention.ms", "1000"}};
    CHECK_OK(edgelog_store_alter_topic(store, "t", short_lived, 1));
    CHECK_OK(edgelog_store_tick(store, 4000000000000));
    CHECK_OK(edgelog_log_get_stats(log, &stats));
    CHECK(stats.segment_count == 1 && before > 1);
    edgelog_log_free(log);
    edgelog_store_free(store);
    return all_passed();
}

/* Opening, attaching, the lock, closing; stats and tick. */
#include "check.h"

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    edgelog_store *store = open_store(dir), *other = NULL;
    CHECK_RESULT(edgelog_store_open(dir, NULL, &other), EDGELOG_DATA_DIR_LOCKED);
    CHECK(other == NULL);
    CHECK(strlen(edgelog_last_error()) > 0);
    edgelog_error_info error = EDGELOG_INIT(edgelog_error_info);
    CHECK_OK(edgelog_last_error_info(&error));
    CHECK(error.result == EDGELOG_DATA_DIR_LOCKED);

    edgelog_log *log = open_log(store, "boiler");
    CHECK(append_text(log, "21.5 C", EDGELOG_DURABILITY_DEFAULT) == 0);
    CHECK(append_text(log, "21.6 C", EDGELOG_OS) == 1);
    CHECK_OK(edgelog_store_flush(store));
    CHECK_OK(edgelog_store_tick(store, 1700000000000));

    edgelog_store_stats stats = EDGELOG_INIT(edgelog_store_stats);
    CHECK_OK(edgelog_store_get_stats(store, &stats));
    CHECK(stats.topic_count == 1 && stats.log_count == 1 && stats.segment_count == 1 && stats.bytes > 100);

    /* Read-only, next to the writer. */
    CHECK_OK(edgelog_store_attach(dir, NULL, &other));
    edgelog_log *attached = NULL;
    CHECK_OK(edgelog_store_log(other, "boiler", 0, &attached));
    edgelog_offsets offsets = EDGELOG_INIT(edgelog_offsets);
    CHECK_OK(edgelog_log_get_offsets(attached, &offsets));
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    CHECK_RESULT(edgelog_log_append(attached, &record, EDGELOG_OS, NULL), EDGELOG_READ_ONLY);
    CHECK_RESULT(edgelog_store_create_topic(other, "x", 1, NULL, 0), EDGELOG_READ_ONLY);
    edgelog_log_free(attached);
    edgelog_store_free(other);

    CHECK_RESULT(edgelog_store_log(store, "boiler", 1, &attached), EDGELOG_UNKNOWN_TOPIC_OR_PARTITION);
    CHECK_OK(edgelog_store_close(store));
    CHECK_OK(edgelog_store_close(store));
    CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_CLOSED);
    CHECK_RESULT(edgelog_store_create_topic(store, "x", 1, NULL, 0), EDGELOG_CLOSED);
    /* Any order: the log after its store. */
    edgelog_store_free(store);
    CHECK_RESULT(edgelog_log_flush(log), EDGELOG_CLOSED);
    edgelog_log_free(log);

    CHECK_RESULT(edgelog_store_open("/proc/no/such", NULL, &store), EDGELOG_KAFKA_STORAGE_ERROR);
    CHECK_OK(edgelog_last_error_info(&error));
    CHECK(error.os_error != 0);

    /* A path may be any bytes. */
    char path[4096];
    snprintf(path, sizeof path, "%s/not-utf8-\xff", dir);
    store = open_store(path);
    edgelog_store_free(store);
    return all_passed();
}

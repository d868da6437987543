/* The log callback: what opening after a kill notices; calls out of it, also on the handle in use. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

struct seen {
    int calls, warnings, infos, inside;
    char text[512];
    edgelog_log *log;
    edgelog_reader *reader;
    edgelog_store *store;
};

static void noticed(void *user_data, int32_t level, edgelog_bytes text) {
    struct seen *seen = user_data;
    CHECK(text.data != NULL && text.len > 0 && seen->inside == 0);
    seen->inside = 1;
    seen->calls++;
    seen->warnings += level == EDGELOG_LOG_WARN;
    seen->infos += level == EDGELOG_LOG_INFO;
    snprintf(seen->text, sizeof seen->text, "%.*s", (int)text.len, (const char *)text.data);
    if (seen->reader != NULL) {
        /* Out of a call on this very reader: an error. On others: as ever, and not reported to the callback. */
        edgelog_batch *batch = NULL;
        CHECK_RESULT(edgelog_reader_next(seen->reader, &batch), EDGELOG_IN_USE);
        CHECK_RESULT(edgelog_reader_seek(seen->reader, EDGELOG_FROM_EARLIEST, 0), EDGELOG_IN_USE);
        edgelog_reader_free(seen->reader);
        append_text(seen->log, "out of a callback", EDGELOG_OS);
        CHECK_OK(edgelog_log_truncate(seen->log, 3, NULL));
    }
    seen->inside = 0;
}

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    pid_t child = fork();
    if (child == 0) {
        append_text(open_log(open_store(dir), "t"), "value", EDGELOG_OS);
        kill(getpid(), SIGKILL);
    }
    CHECK(child > 0 && waitpid(child, NULL, 0) == child);
    struct seen seen = {0};
    CHECK_RESULT(edgelog_set_log_callback(noticed, &seen, 0), EDGELOG_INVALID_ARGUMENT);
    CHECK_OK(edgelog_set_log_callback(noticed, &seen, EDGELOG_LOG_WARN));
    edgelog_store *store = open_store(dir);
    CHECK(seen.warnings > 0 && strstr(seen.text, "not closed cleanly") != NULL);
    edgelog_log *log = open_log(store, "t");
    int64_t offset = 0;
    while (offset < 4) offset = append_text(log, "value", EDGELOG_OS);
    CHECK_OK(edgelog_log_truncate(log, 4, NULL));
    CHECK(seen.infos == 0);
    CHECK_OK(edgelog_set_log_callback(noticed, &seen, EDGELOG_LOG_INFO));
    append_text(log, "value", EDGELOG_OS);
    CHECK_OK(edgelog_log_truncate(log, 4, NULL));
    CHECK(seen.infos == 1 && strstr(seen.text, "truncated") != NULL);
    CHECK_OK(edgelog_store_close(store));
    edgelog_log_free(log);
    edgelog_store_free(store);

    /* An index that lies is noticed by the read that meets it: a callback out of a call on a reader. */
    char index[4096];
    store = NULL;
    edgelog_key_value small[] = {
        {"segment.bytes", "4096"}, {"index.interval.bytes", "100"}, {"flush.messages", "1000"}};
    store = open_store(dir);
    CHECK_OK(edgelog_store_create_topic(store, "small", 1, small, 3));
    CHECK_OK(edgelog_store_log(store, "small", 0, &log));
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    record.value = edgelog_bytes_of_text("a value of some length");
    record.has_timestamp = 1;
    record.timestamp_ms = (int64_t)time(NULL) * 1000;
    for (int i = 0; i < 100; i++) {
        /* Later than all before: the newest time is the last record's, and opening has no use for the second entry. */
        record.timestamp_ms++;
        CHECK_OK(edgelog_log_append(log, &record, EDGELOG_DURABILITY_DEFAULT, NULL));
    }
    CHECK_OK(edgelog_store_close(store));
    edgelog_log_free(log);
    edgelog_store_free(store);
    snprintf(index, sizeof index, "%s/small-0/00000000000000000000.index", dir);
    int fd = open(index, O_RDWR);
    unsigned char entry[8] = {0};
    CHECK(fd >= 0 && pread(fd, entry, 8, 8) == 8);
    entry[7] ^= 1; /* One byte away from the batch that it names. */
    CHECK(pwrite(fd, entry, 8, 8) == 8);
    close(fd);
    store = open_store(dir);
    CHECK_OK(edgelog_store_log(store, "small", 0, &log));
    edgelog_reader *reader = NULL;
    int64_t named = (int64_t)entry[0] * 16777216 + entry[1] * 65536 + entry[2] * 256 + entry[3];
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_OFFSET, named, NULL, &reader));
    seen = (struct seen){.log = open_log(store, "t"), .reader = reader};
    edgelog_batch *batch = NULL;
    CHECK_OK(edgelog_reader_next(reader, &batch));
    CHECK(seen.calls == 1 && strstr(seen.text, "index") != NULL);
    edgelog_batch_free(batch);
    edgelog_log_free(seen.log);
    seen.reader = NULL;

    CHECK_OK(edgelog_set_log_callback(NULL, NULL, EDGELOG_LOG_ERROR));
    seen.calls = 0;
    CHECK_OK(edgelog_log_truncate(log, 50, NULL));
    CHECK(seen.calls == 0);
    edgelog_reader_free(reader);
    edgelog_log_free(log);
    edgelog_store_free(store);
    return all_passed();
}

/* Reading from offsets, times and positions, bounds, following with a timeout and with a descriptor to poll, damage. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>

static int readable(int fd, int timeout_ms) {
    struct pollfd polled = {fd, POLLIN, 0};
    return poll(&polled, 1, timeout_ms) == 1;
}

static int64_t next_offset(edgelog_reader *reader) {
    edgelog_batch *batch = NULL;
    edgelog_record record = EDGELOG_INIT(edgelog_record);
    if (edgelog_reader_next(reader, &batch) != EDGELOG_OK) return -1;
    CHECK_OK(edgelog_batch_next(batch, &record));
    edgelog_batch_free(batch);
    return record.offset;
}

static void *append_later(void *log) {
    struct timespec pause = {0, 20000000};
    nanosleep(&pause, NULL); /* So that the follower mostly waits; either order is right. */
    append_text(log, "later", EDGELOG_SYNC);
    return NULL;
}

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    edgelog_store *store = open_store(dir);
    edgelog_log *log = open_log(store, "t");
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    record.value = edgelog_bytes_of_text("value");
    record.has_timestamp = 1;
    for (int i = 0; i < 10; i++) {
        record.timestamp_ms = 1000 * i;
        CHECK_OK(edgelog_log_append(log, &record, EDGELOG_SYNC, NULL));
    }
    edgelog_reader *reader = NULL;
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));
    CHECK(next_offset(reader) == 0);
    uint64_t lag = 0;
    CHECK_OK(edgelog_reader_get_lag(reader, &lag));
    CHECK(lag == 9);
    edgelog_position position = {0, 0, 0};
    CHECK_OK(edgelog_reader_get_position(reader, &position));
    CHECK(position.offset == 1 && position.leader_epoch == 0);
    CHECK_OK(edgelog_reader_seek(reader, EDGELOG_FROM_OFFSET, 7));
    CHECK(next_offset(reader) == 7);
    CHECK_OK(edgelog_reader_seek(reader, EDGELOG_FROM_TIMESTAMP, 4500));
    CHECK(next_offset(reader) == 5);
    CHECK_OK(edgelog_reader_seek(reader, EDGELOG_FROM_LAST, 2));
    CHECK(next_offset(reader) == 8);
    CHECK_RESULT(edgelog_reader_seek(reader, EDGELOG_FROM_OFFSET, 11), EDGELOG_OFFSET_OUT_OF_RANGE);
    edgelog_error_info error = EDGELOG_INIT(edgelog_error_info);
    CHECK_OK(edgelog_last_error_info(&error));
    CHECK(error.offset == 11 && error.log_start_offset == 0 && error.log_end_offset == 10);
    CHECK_RESULT(edgelog_reader_seek(reader, EDGELOG_FROM_OFFSET, -1), EDGELOG_OFFSET_OUT_OF_RANGE);
    CHECK(next_offset(reader) == 9); /* It stands where it stood. */
    CHECK_OK(edgelog_reader_seek_position(reader, &position));
    CHECK(next_offset(reader) == 1);
    CHECK_OK(edgelog_reader_seek(reader, EDGELOG_FROM_LATEST, 0));
    CHECK(next_offset(reader) == -1);

    /* Following: within a timeout, by a descriptor. */
    edgelog_batch *batch = NULL;
    CHECK_RESULT(edgelog_reader_wait(reader, 1, &batch), EDGELOG_END);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, append_later, log) == 0);
    CHECK_OK(edgelog_reader_wait(reader, -1, &batch));
    edgelog_batch_free(batch);
    pthread_join(thread, NULL);
    int fd = -1;
    CHECK_OK(edgelog_reader_get_fd(reader, &fd));
    CHECK(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(readable(fd, 0));
    CHECK(next_offset(reader) == -1);
    CHECK(!readable(fd, 0));
    CHECK(append_text(log, "now", EDGELOG_OS) == 11);
    CHECK(readable(fd, 0));
    CHECK(next_offset(reader) == 11);
    CHECK(next_offset(reader) == -1);
    CHECK(pthread_create(&thread, NULL, append_later, log) == 0);
    CHECK(readable(fd, 60000));
    CHECK(next_offset(reader) == 12);
    pthread_join(thread, NULL);

    /* One that reads what is durable does not see what is not. */
    edgelog_reader_options options = EDGELOG_INIT(edgelog_reader_options);
    options.up_to = EDGELOG_UP_TO_DURABLE;
    edgelog_reader *durable = NULL;
    append_text(log, "not yet", EDGELOG_OS);
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_OFFSET, 13, &options, &durable));
    CHECK(next_offset(durable) == -1);
    CHECK_OK(edgelog_log_flush(log));
    CHECK(next_offset(durable) == 13);
    edgelog_reader_free(durable);

    /* A truncated history is noticed. */
    CHECK_OK(edgelog_reader_seek(reader, EDGELOG_FROM_LATEST, 0));
    CHECK_OK(edgelog_reader_get_position(reader, &position));
    CHECK_OK(edgelog_log_truncate(log, 10, NULL));
    append_text(log, "another history", EDGELOG_SYNC);
    CHECK_RESULT(edgelog_reader_seek_position(reader, &position), EDGELOG_FENCED_LEADER_EPOCH);
    edgelog_reader_free(reader);

    /* Damage is reported, and read around. */
    CHECK_OK(edgelog_store_close(store));
    edgelog_log_free(log);
    edgelog_store_free(store);
    char file[4096];
    snprintf(file, sizeof file, "%s/t-0/00000000000000000000.log", dir);
    int damaged = open(file, O_RDWR);
    CHECK(damaged >= 0 && pwrite(damaged, "\xff\xff\xff", 3, 3 * 73 + 65) == 3);
    close(damaged);
    store = open_store(dir);
    log = open_log(store, "t");
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_OFFSET, 2, NULL, &reader));
    int seen = 0;
    edgelog_lost_range lost = EDGELOG_INIT(edgelog_lost_range);
    for (;;) {
        edgelog_result result = edgelog_reader_next(reader, &batch);
        if (result == EDGELOG_END) break;
        if (result == EDGELOG_CORRUPT_MESSAGE) {
            CHECK_OK(edgelog_reader_skip_damage(reader, &lost));
            CHECK(bytes_are(lost.file, "t-0/00000000000000000000.log"));
            CHECK(lost.next_offset > lost.first_offset && lost.resumes_at > lost.position);
            continue;
        }
        CHECK_OK(result);
        edgelog_batch_free(batch);
        seen++;
    }
    CHECK(lost.next_offset > 0 && seen == 9 - (int)(lost.next_offset - lost.first_offset));
    CHECK_OK(edgelog_reader_get_fd(reader, &fd));
    CHECK_OK(edgelog_store_close(store));
    CHECK(readable(fd, 0));
    CHECK_RESULT(edgelog_reader_next(reader, &batch), EDGELOG_CLOSED);
    edgelog_reader_free(reader);
    edgelog_log_free(log);
    edgelog_store_free(store);
    return all_passed();
}

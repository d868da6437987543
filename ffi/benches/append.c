/* Appending from C: nanoseconds per record, the best and the middle of rounds. One of the two programs that
 * ffi/benches/run compares; benches/append.rs beside it does the same from Rust, step by step.
 *
 *   append DIRECTORY ROUNDS
 */
#define _POSIX_C_SOURCE 200809L
#include <edgelog.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RECORDS = 20000, BATCH = 100 };

static void check(edgelog_result result) {
    if (result == EDGELOG_OK) return;
    fprintf(stderr, "%s: %s\n", edgelog_result_name(result), edgelog_last_error());
    exit(1);
}

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static edgelog_new_record record_of(const char *value, size_t len) {
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    record.key = edgelog_bytes_of_text("boiler/flow");
    record.value = edgelog_bytes_of(value, len);
    return record;
}

static void single(edgelog_log *log, const char *value, size_t len, int32_t how, int records) {
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    for (int i = 0; i < records; i++) {
        edgelog_new_record record = record_of(value, len);
        check(edgelog_log_append(log, &record, how, &info));
    }
}

static void batches(edgelog_log *log, edgelog_batch_builder *builder, const char *value, size_t len) {
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    for (int i = 0; i < RECORDS / BATCH; i++) {
        for (int j = 0; j < BATCH; j++) {
            edgelog_new_record record = record_of(value, len);
            check(edgelog_batch_builder_push(builder, &record));
        }
        check(edgelog_log_append_batch(log, builder, EDGELOG_OS, &info));
    }
}

/* The same records, each batch's pushed by one call from an array that the program keeps. */
static void batches_at_once(edgelog_log *log, edgelog_batch_builder *builder, const char *value, size_t len) {
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    edgelog_new_record records[BATCH];
    for (int j = 0; j < BATCH; j++) records[j] = record_of(value, len);
    for (int i = 0; i < RECORDS / BATCH; i++) {
        for (int j = 0; j < BATCH; j++) records[j].value = edgelog_bytes_of(value, len);
        uint64_t pushed = 0;
        check(edgelog_batch_builder_push_many(builder, records, BATCH, &pushed));
        if (pushed != BATCH) exit(1);
        check(edgelog_log_append_batch(log, builder, EDGELOG_OS, &info));
    }
}

static int by_size(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int rounds = atoi(argv[2]);
    double *times = calloc((size_t)rounds, sizeof *times);
    static char value[16384];
    const size_t sizes[] = {16, 100, 1024, 16384};
    memset(value, 'v', sizeof value);
    edgelog_store *store = NULL;
    check(edgelog_store_open(argv[1], NULL, &store));
    enum { AT_ONCE = 8, SYNC = 12 };
    for (int figure = 0; figure <= SYNC; figure++) {
        size_t len = figure == SYNC ? 100 : sizes[figure % 4];
        int is_batch = figure >= 4 && figure < SYNC;
        int records = figure == SYNC ? 100 : len > 1024 ? RECORDS / 10 : RECORDS;
        const char *kind = figure == SYNC ? "sync" : figure < 4 ? "os" : figure < AT_ONCE ? "os_batch" : "os_batch_at_once";
        if (is_batch && len > 1024) continue; /* 16 KiB in batches of 100 is beyond max.message.bytes. */
        for (int round = 0; round < rounds; round++) {
            edgelog_log *log = NULL;
            edgelog_batch_builder *builder = NULL;
            edgelog_key_value config[] = {{"segment.bytes", "134217728"}};
            check(edgelog_store_create_topic(store, "bench", 1, config, 1));
            check(edgelog_store_log(store, "bench", 0, &log));
            check(edgelog_batch_builder_new(log, &builder));
            single(log, value, len, EDGELOG_OS, 1000); /* Room, maps, caches. */
            double begun = now_ns();
            if (is_batch && figure < AT_ONCE) {
                batches(log, builder, value, len);
            } else if (is_batch) {
                batches_at_once(log, builder, value, len);
            } else {
                single(log, value, len, figure == SYNC ? EDGELOG_SYNC : EDGELOG_OS, records);
            }
            times[round] = (now_ns() - begun) / records;
            edgelog_batch_builder_free(builder);
            edgelog_log_free(log);
            check(edgelog_store_delete_topic(store, "bench"));
        }
        qsort(times, (size_t)rounds, sizeof *times, by_size);
        printf("%s/%zuB %.1f %.1f\n", kind, len, times[0], times[rounds / 2]);
    }
    free(times);
    edgelog_store_free(store);
    return 0;
}

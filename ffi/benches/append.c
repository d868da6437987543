/* Appending from C: nanoseconds per record, the best and the middle of rounds. One of the two programs that
 * ffi/benches/run compares; benches/append.rs does the same from Rust, step by step.
 *
 *   append DIRECTORY ROUNDS [FIGURE]
 */
#define _POSIX_C_SOURCE 200809L
#include "bench.h"

#include <string.h>

enum { RECORDS = 20000, BATCH = 100 };

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

/* 16 KiB in batches of 100 is beyond max.message.bytes. */
static const struct {
    const char *kind;
    size_t len;
} figures[] = {
    {"os", 16},
    {"os", 100},
    {"os", 1024},
    {"os", 16384},
    {"os_snappy", 1024},
    {"os_batch", 16},
    {"os_batch", 100},
    {"os_batch", 1024},
    {"os_batch_at_once", 16},
    {"os_batch_at_once", 100},
    {"os_batch_at_once", 1024},
    {"os_batch_at_once_snappy", 100},
    {"sync", 100},
};

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int rounds = atoi(argv[2]);
    double *times = calloc((size_t)rounds, sizeof *times);
    static char value[16384];
    memset(value, 'v', sizeof value);
    edgelog_store *store = NULL;
    check(edgelog_store_open(argv[1], NULL, &store));
    for (size_t figure = 0; figure < sizeof figures / sizeof *figures; figure++) {
        const char *kind = figures[figure].kind;
        size_t len = figures[figure].len;
        int how = strcmp(kind, "sync") == 0 ? EDGELOG_SYNC : EDGELOG_OS;
        int records = how == EDGELOG_SYNC ? 100 : len > 1024 ? RECORDS / 10 : RECORDS;
        const char *compression = strstr(kind, "snappy") ? "snappy" : "none";
        char name[64];
        snprintf(name, sizeof name, "%s/%zuB", kind, len);
        if (argc > 3 && strcmp(argv[3], name) != 0) continue;
        for (int round = 0; round < rounds; round++) {
            edgelog_log *log = NULL;
            edgelog_batch_builder *builder = NULL;
            edgelog_key_value config[] = {{"segment.bytes", "134217728"}, {"compression.type", compression}};
            check(edgelog_store_create_topic(store, "bench", 1, config, 2));
            check(edgelog_store_log(store, "bench", 0, &log));
            check(edgelog_batch_builder_new(log, &builder));
            single(log, value, len, EDGELOG_OS, 1000); /* Room, maps, caches. */
            double begun = now_ns();
            if (strstr(kind, "at_once")) {
                batches_at_once(log, builder, value, len);
            } else if (strstr(kind, "batch")) {
                batches(log, builder, value, len);
            } else {
                single(log, value, len, how, records);
            }
            times[round] = (now_ns() - begun) / records;
            edgelog_batch_builder_free(builder);
            edgelog_log_free(log);
            check(edgelog_store_delete_topic(store, "bench"));
        }
        qsort(times, (size_t)rounds, sizeof *times, by_size);
        printf("%s %.1f %.1f\n", name, times[0], times[rounds / 2]);
    }
    free(times);
    edgelog_store_free(store);
    return 0;
}

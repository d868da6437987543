/* What benches/pair/run.py measures of two versions: one case, in nanoseconds a record.
 *
 *   pair DIRECTORY CASE
 */
#define _POSIX_C_SOURCE 200809L
#include "../../ffi/benches/bench.h"

#include <string.h>

enum { VALUE = 100, BATCH = 100, LOG_BYTES = 64 << 20, SYNCS = 300, SINGLES = 200000, LOOKUPS = 200000 };

/* 64 different values, made before anything is measured. */
static char values[64][VALUE + 1];

static void make_values(void) {
    for (unsigned i = 0; i < 64; i++) {
        snprintf(values[i], sizeof *values, "{\"sensor\":%u,\"flow\":%u,\"text\":\"%050u\"}", i, i * 7919u, i * i);
        for (size_t len = strlen(values[i]); len < VALUE; len++) values[i][len] = ' ';
    }
}

static edgelog_bytes value_of(unsigned i) { return edgelog_bytes_of(values[i % 64], VALUE); }

static void append_singles(edgelog_log *log, int how, unsigned records) {
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    for (unsigned i = 0; i < records; i++) {
        edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
        record.value = value_of(i);
        check(edgelog_log_append(log, &record, how, &info));
    }
}

static void append_batches(edgelog_log *log, unsigned batches) {
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    edgelog_batch_builder *builder = NULL;
    check(edgelog_batch_builder_new(log, &builder));
    for (unsigned i = 0; i < batches; i++) {
        for (unsigned j = 0; j < BATCH; j++) {
            edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
            record.value = value_of(i * BATCH + j);
            check(edgelog_batch_builder_push(builder, &record));
        }
        check(edgelog_log_append_batch(log, builder, EDGELOG_OS, &info));
    }
    edgelog_batch_builder_free(builder);
}

static uint64_t scan(edgelog_log *log) {
    edgelog_reader *reader = NULL;
    edgelog_batch *batch = NULL;
    uint64_t records = 0;
    check(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));
    for (;;) {
        edgelog_result result = edgelog_reader_next(reader, &batch);
        if (result == EDGELOG_END) break;
        check(result);
        edgelog_record record = EDGELOG_INIT(edgelog_record);
        while ((result = edgelog_batch_next(batch, &record)) == EDGELOG_OK) records++;
        if (result != EDGELOG_END) check(result);
        edgelog_batch_free(batch);
    }
    edgelog_reader_free(reader);
    return records;
}

static void look_up(edgelog_log *log, uint64_t records, unsigned lookups) {
    edgelog_reader *reader = NULL;
    edgelog_batch *batch = NULL;
    uint64_t random = 88172645463325252u;
    check(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));
    for (unsigned i = 0; i < lookups; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        int64_t offset = (int64_t)(random % records);
        check(edgelog_reader_seek(reader, EDGELOG_FROM_OFFSET, offset));
        check(edgelog_reader_next(reader, &batch));
        edgelog_record record = EDGELOG_INIT(edgelog_record);
        check(edgelog_batch_next(batch, &record));
        if (record.offset != offset) exit(1);
        edgelog_batch_free(batch);
    }
    edgelog_reader_free(reader);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    const char *name = argv[2];
    make_values();
    edgelog_store *store = NULL;
    edgelog_log *log = NULL;
    check(edgelog_store_open(argv[1], NULL, &store));
    /* One segment, as benches/append.rs: the engine is measured, and not the disk behind a roll. */
    edgelog_key_value config[] = {{"segment.bytes", "1073741824"}};
    check(edgelog_store_create_topic(store, "pair", 1, config, 1));
    check(edgelog_store_log(store, "pair", 0, &log));
    append_singles(log, EDGELOG_OS, 1000); /* Room, maps, caches. */
    uint64_t records = 0;
    double begun = now_ns(), ns = 0;
    if (strcmp(name, "sync") == 0) {
        append_singles(log, EDGELOG_SYNC, SYNCS);
        records = SYNCS;
    } else if (strcmp(name, "os") == 0) {
        append_singles(log, EDGELOG_OS, SINGLES);
        records = SINGLES;
    } else if (strcmp(name, "os_batch") == 0) {
        append_batches(log, SINGLES / BATCH);
        records = SINGLES;
    } else {
        int batched = strstr(name, "batches") != NULL;
        if (batched) append_batches(log, LOG_BYTES / VALUE / BATCH);
        else append_singles(log, EDGELOG_OS, LOG_BYTES / (VALUE + 70));
        records = scan(log);
        uint64_t all = records;
        begun = now_ns();
        if (strncmp(name, "scan", 4) == 0) {
            for (int i = 0; i < 3; i++) records += scan(log);
            records -= all;
        } else {
            records = batched ? LOOKUPS / 10 : LOOKUPS;
            look_up(log, all, (unsigned)records);
        }
    }
    ns = now_ns() - begun;
    printf("%.2f\n", ns / (double)records);
    edgelog_log_free(log);
    edgelog_store_free(store);
    return 0;
}

/* A batch's records and headers are the log's own bytes: nothing is copied, also if the log is closed or deleted
 * meanwhile. */
#include "check.h"

#include <stdint.h>

/* Whether the bytes lie in a map of a file with this ending: /proc/self/maps knows. */
static int is_mapped_from(edgelog_bytes bytes, const char *ending) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096];
    int found = 0;
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long long from = 0, to = 0;
        size_t length = strcspn(line, "\n");
        line[length] = 0;
        if (sscanf(line, "%llx-%llx", &from, &to) != 2 || length < strlen(ending)) continue;
        uintptr_t at = (uintptr_t)bytes.data;
        if (at >= from && at + bytes.len <= to) found = strcmp(line + length - strlen(ending), ending) == 0;
    }
    if (maps != NULL) fclose(maps);
    return found;
}

static int lies_in(edgelog_bytes part, edgelog_bytes whole) {
    return part.data >= whole.data && part.data + part.len <= whole.data + whole.len;
}

int main(int argc, char **argv) {
    edgelog_store *store = open_store(directory(argc, argv));
    edgelog_log *log = open_log(store, "t");
    edgelog_batch_builder *builder = NULL;
    CHECK_OK(edgelog_batch_builder_new(log, &builder));
    edgelog_header headers[] = {
        {edgelog_bytes_of_text("a"), edgelog_bytes_of_text("1")},
        {edgelog_bytes_of_text("b"), edgelog_bytes_of(NULL, 0)},
        {edgelog_bytes_of_text(""), edgelog_bytes_of("", 0)},
    };
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    for (int i = 0; i < 5; i++) {
        char value[16];
        snprintf(value, sizeof value, "value %d", i);
        record.key = i == 1 ? edgelog_bytes_of("", 0) : edgelog_bytes_of(NULL, 0);
        record.value = i == 4 ? edgelog_bytes_of(NULL, 0) : edgelog_bytes_of_text(value);
        record.headers = headers;
        record.header_count = i == 2 ? 3 : 0;
        CHECK_OK(edgelog_batch_builder_push(builder, &record));
    }
    CHECK_OK(edgelog_log_append_batch(log, builder, EDGELOG_SYNC, NULL));
    edgelog_batch_builder_free(builder);

    edgelog_reader *reader = NULL;
    edgelog_batch *batch = NULL, *again = NULL;
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_OFFSET, 1, NULL, &reader));
    CHECK_OK(edgelog_reader_next(reader, &batch));
    CHECK_OK(edgelog_reader_seek(reader, EDGELOG_FROM_EARLIEST, 0));
    CHECK_OK(edgelog_reader_next(reader, &again));
    edgelog_batch_info info = EDGELOG_INIT(edgelog_batch_info), info_again = EDGELOG_INIT(edgelog_batch_info);
    CHECK_OK(edgelog_batch_get_info(batch, &info));
    CHECK_OK(edgelog_batch_get_info(again, &info_again));
    CHECK(info.base_offset == 0 && info.last_offset == 4 && info.leader_epoch == 0 && info.compression == 0);
    CHECK(info.bytes.data == info_again.bytes.data && info.bytes.len == info_again.bytes.len);
    CHECK(is_mapped_from(info.bytes, "/t-0/00000000000000000000.log"));
    CHECK(!is_mapped_from(edgelog_bytes_of(headers, sizeof headers), ".log"));

    edgelog_record seen = EDGELOG_INIT(edgelog_record);
    edgelog_header header;
    CHECK_RESULT(edgelog_batch_next_header(batch, &header), EDGELOG_END);
    for (int round = 0; round < 2; round++) {
        CHECK_OK(edgelog_batch_next(batch, &seen)); /* From offset 1, as asked for. */
        CHECK(seen.offset == 1 && seen.key.data != NULL && seen.key.len == 0 && bytes_are(seen.value, "value 1"));
        CHECK(lies_in(seen.value, info.bytes) && seen.header_count == 0 && seen.timestamp_ms > 1600000000000);
        CHECK_OK(edgelog_batch_next(batch, &seen));
        CHECK(seen.offset == 2 && seen.key.data == NULL && seen.header_count == 3);
        CHECK_OK(edgelog_batch_next_header(batch, &header));
        CHECK(bytes_are(header.key, "a") && bytes_are(header.value, "1") && lies_in(header.value, info.bytes));
        CHECK_OK(edgelog_batch_next_header(batch, &header));
        CHECK(bytes_are(header.key, "b") && header.value.data == NULL);
        CHECK_OK(edgelog_batch_next_header(batch, &header));
        CHECK(header.key.data != NULL && header.key.len == 0 && header.value.data != NULL && header.value.len == 0);
        CHECK_RESULT(edgelog_batch_next_header(batch, &header), EDGELOG_END);
        CHECK_OK(edgelog_batch_next(batch, &seen));
        CHECK_OK(edgelog_batch_next(batch, &seen));
        CHECK(seen.offset == 4 && seen.value.data == NULL);
        CHECK_RESULT(edgelog_batch_next(batch, &seen), EDGELOG_END);
        CHECK_OK(edgelog_batch_rewind(batch));
    }

    /* Everything else is freed, the topic deleted: the bytes stay. */
    edgelog_reader_free(reader);
    edgelog_batch_free(again);
    CHECK_OK(edgelog_store_delete_topic(store, "t"));
    edgelog_log_free(log);
    edgelog_key_value snappy[] = {{"compression.type", "snappy"}};
    CHECK_OK(edgelog_store_create_topic(store, "snappy", 1, snappy, 1));
    CHECK_OK(edgelog_store_log(store, "snappy", 0, &log));
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    append_text(log, text, EDGELOG_OS);
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));
    edgelog_batch *compressed = NULL;
    CHECK_OK(edgelog_reader_next(reader, &compressed));
    edgelog_reader_free(reader);
    edgelog_log_free(log);
    CHECK_OK(edgelog_store_close(store));
    edgelog_store_free(store);
    CHECK_OK(edgelog_batch_next(batch, &seen));
    CHECK(bytes_are(seen.value, "value 1"));
    edgelog_batch_free(batch);
    CHECK_OK(edgelog_batch_get_info(compressed, &info));
    CHECK(info.compression == 2 && info.bytes.len < 500);
    CHECK_OK(edgelog_batch_next(compressed, &seen));
    CHECK(bytes_are(seen.value, text));
    edgelog_batch_free(compressed);
    return all_passed();
}

/* Many records as one batch, at a durability; a batch that was read, appended elsewhere as it is. */
#include "check.h"

int main(int argc, char **argv) {
    edgelog_store *store = open_store(directory(argc, argv));
    edgelog_key_value config[] = {{"max.message.bytes", "500"}};
    CHECK_OK(edgelog_store_create_topic(store, "t", 1, config, 1));
    edgelog_log *log = NULL;
    CHECK_OK(edgelog_store_log(store, "t", 0, &log));
    edgelog_batch_builder *builder = NULL;
    CHECK_OK(edgelog_batch_builder_new(log, &builder));
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    CHECK_OK(edgelog_log_append_batch(log, builder, EDGELOG_OS, &info));
    CHECK(info.base_offset == 0 && info.last_offset == -1); /* No records, nothing appended. */

    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    record.value = edgelog_bytes_of_text("0123456789");
    int pushed = 0;
    edgelog_result result;
    while ((result = edgelog_batch_builder_push(builder, &record)) == EDGELOG_OK) pushed++;
    CHECK_RESULT(result, EDGELOG_MESSAGE_TOO_LARGE);
    CHECK(pushed > 10 && pushed < 50);
    uint64_t records = 0, bytes = 0;
    CHECK_OK(edgelog_batch_builder_get_size(builder, &records, &bytes));
    CHECK(records == (uint64_t)pushed && bytes <= 500 && bytes > 400);
    CHECK_OK(edgelog_batch_builder_get_size(builder, NULL, NULL));
    CHECK_OK(edgelog_log_append_batch(log, builder, EDGELOG_SYNC, &info));
    CHECK(info.base_offset == 0 && info.last_offset == pushed - 1);
    CHECK_OK(edgelog_batch_builder_get_size(builder, &records, NULL));
    CHECK(records == 0);
    CHECK_OK(edgelog_batch_builder_push(builder, &record));
    CHECK_OK(edgelog_batch_builder_clear(builder));
    CHECK_OK(edgelog_log_append_batch(log, builder, EDGELOG_DURABILITY_DEFAULT, NULL));

    /* As many at once as there is room for, then the rest. */
    edgelog_new_record many[30];
    for (int i = 0; i < 30; i++) {
        many[i] = record;
        many[i].timestamp_ms = 1000 + i;
        many[i].has_timestamp = i % 2;
    }
    uint64_t taken = 0, rest = 0;
    CHECK_OK(edgelog_batch_builder_push_many(builder, many, 30, &taken));
    CHECK(taken > 10 && taken < 30);
    CHECK_RESULT(edgelog_batch_builder_push_many(builder, many + taken, 30 - taken, &rest), EDGELOG_MESSAGE_TOO_LARGE);
    CHECK(rest == 0);
    CHECK_OK(edgelog_log_append_batch(log, builder, EDGELOG_OS, &info));
    CHECK(info.last_offset - info.base_offset + 1 == (int64_t)taken);
    CHECK_OK(edgelog_batch_builder_push_many(builder, many + taken, 30 - taken, &rest));
    CHECK(rest == 30 - taken);
    CHECK_OK(edgelog_batch_builder_push_many(builder, NULL, 0, &rest));
    CHECK(rest == 0);
    edgelog_new_record bad[2] = {record, record};
    bad[1].size = 1;
    CHECK_OK(edgelog_batch_builder_push_many(builder, bad, 2, &rest)); /* Up to the one that is no record. */
    CHECK(rest == 1);
    CHECK_RESULT(edgelog_batch_builder_push_many(builder, bad + 1, 1, &rest), EDGELOG_INVALID_STRUCT_SIZE);
    CHECK_RESULT(edgelog_batch_builder_push_many(builder, many, SIZE_MAX, &rest), EDGELOG_MESSAGE_TOO_LARGE);
    CHECK_OK(edgelog_log_append_batch(log, builder, EDGELOG_OS, &info));
    CHECK(info.last_offset - info.base_offset + 1 == (int64_t)(31 - taken));
    edgelog_batch_builder_free(builder);

    /* Its bytes, as they are, to another log. */
    edgelog_reader *reader = NULL;
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));
    edgelog_batch *batch = NULL;
    CHECK_OK(edgelog_reader_next(reader, &batch));
    edgelog_batch_info of_batch = EDGELOG_INIT(edgelog_batch_info);
    CHECK_OK(edgelog_batch_get_info(batch, &of_batch));
    edgelog_log *copy = open_log(store, "copy");
    append_text(copy, "first", EDGELOG_OS);
    CHECK_OK(edgelog_log_append_encoded(copy, of_batch.bytes, EDGELOG_DURABILITY_DEFAULT, &info));
    CHECK(info.base_offset == 1 && info.last_offset == pushed);
    edgelog_bytes torn = {of_batch.bytes.data, of_batch.bytes.len - 1};
    CHECK_RESULT(edgelog_log_append_encoded(copy, torn, EDGELOG_OS, NULL), EDGELOG_INVALID_RECORD);
    CHECK_RESULT(edgelog_log_append_encoded(copy, edgelog_bytes_of("", 0), EDGELOG_OS, NULL), EDGELOG_INVALID_RECORD);
    edgelog_batch_free(batch);
    edgelog_reader_free(reader);
    edgelog_log_free(copy);
    edgelog_log_free(log);
    edgelog_store_free(store);
    return all_passed();
}

/* What the test programs share: checks that are counted, a directory of their own, and the shortest way to a store. */
#ifndef CHECK_H
#define CHECK_H

#include <edgelog.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int checks_passed;

/* Ends the program at the first that fails: what follows would be noise. */
#define CHECK(what)                                                                              \
    do {                                                                                         \
        if (!(what)) {                                                                           \
            printf("%s:%d: %s\n  last error: %s\n", __FILE__, __LINE__, #what, edgelog_last_error()); \
            printf("checks: %d passed, 1 failed\n", checks_passed);                              \
            exit(1);                                                                             \
        }                                                                                        \
        checks_passed++;                                                                         \
    } while (0)

#define CHECK_RESULT(call, expected)                                                             \
    do {                                                                                         \
        edgelog_result result_ = (call);                                                         \
        if (result_ != (expected)) {                                                             \
            printf("%s:%d: %s answered %s\n", __FILE__, __LINE__, #call, edgelog_result_name(result_)); \
        }                                                                                        \
        CHECK(result_ == (expected));                                                            \
    } while (0)

#define CHECK_OK(call) CHECK_RESULT(call, EDGELOG_OK)

static inline int all_passed(void) {
    printf("checks: %d passed, 0 failed\n", checks_passed);
    return 0;
}

/* The directory argv[1] of this program. */
static inline const char *directory(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        exit(2);
    }
    return argv[1];
}

static inline int bytes_are(edgelog_bytes bytes, const char *text) {
    return bytes.data != NULL && bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

static inline edgelog_store *open_store(const char *path) {
    edgelog_store *store = NULL;
    CHECK_OK(edgelog_store_open(path, NULL, &store));
    return store;
}

static inline edgelog_log *open_log(edgelog_store *store, const char *topic) {
    edgelog_log *log = NULL;
    edgelog_result created = edgelog_store_create_topic(store, topic, 1, NULL, 0);
    CHECK(created == EDGELOG_OK || created == EDGELOG_TOPIC_ALREADY_EXISTS);
    CHECK_OK(edgelog_store_log(store, topic, 0, &log));
    return log;
}

static inline int64_t append_text(edgelog_log *log, const char *value, int32_t how) {
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    record.value = edgelog_bytes_of_text(value);
    CHECK_OK(edgelog_log_append(log, &record, how, &info));
    return info.base_offset;
}

#endif

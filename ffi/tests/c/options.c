/* Configuration by Kafka's keys; what cannot be is refused with an error and changes nothing. */
#include "check.h"

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    edgelog_options *options = NULL;
    CHECK_OK(edgelog_options_new(&options));
    CHECK_OK(edgelog_options_set(options, "edgelog.housekeeping", "tick"));
    CHECK_OK(edgelog_options_set(options, "segment.bytes", "4096"));
    CHECK_RESULT(edgelog_options_set(options, "segment.byte", "1"), EDGELOG_INVALID_CONFIG);
    CHECK(strstr(edgelog_last_error(), "segment.bytes") != NULL);
    CHECK_RESULT(edgelog_options_set(options, "segment.bytes", "12"), EDGELOG_INVALID_CONFIG);
    CHECK_RESULT(edgelog_options_set(options, "segment.bytes", "\xff"), EDGELOG_INVALID_UTF8);
    CHECK_RESULT(edgelog_options_set(options, NULL, "1"), EDGELOG_NULL_POINTER);
    CHECK_RESULT(edgelog_options_set(options, "segment.bytes", NULL), EDGELOG_NULL_POINTER);

    edgelog_store *store = NULL;
    CHECK_OK(edgelog_store_open(dir, options, &store));
    edgelog_options_free(options);
    CHECK_OK(edgelog_store_create_topic(store, "t", 1, NULL, 0));
    edgelog_topics *topics = NULL;
    CHECK_OK(edgelog_store_topics(store, &topics));
    edgelog_topic_config entry = EDGELOG_INIT(edgelog_topic_config);
    int seen = 0;
    for (uint64_t i = 0; edgelog_topics_get_config(topics, 0, i, &entry) == EDGELOG_OK; i++) {
        if (bytes_are(entry.key, "segment.bytes")) {
            CHECK(bytes_are(entry.value, "4096"));
            CHECK(!entry.is_set);
            seen++;
        }
    }
    CHECK(seen == 1);
    edgelog_topics_free(topics);
    edgelog_store_free(store);
    return all_passed();
}

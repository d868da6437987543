/* Creating, listing, altering and deleting topics with their configuration. */
#include "check.h"

static edgelog_topic_config config_of(edgelog_topics *topics, const char *key) {
    edgelog_topic_config entry = EDGELOG_INIT(edgelog_topic_config);
    for (uint64_t i = 0; edgelog_topics_get_config(topics, 0, i, &entry) == EDGELOG_OK; i++) {
        if (bytes_are(entry.key, key)) return entry;
    }
    CHECK(!"the key is listed");
    return entry;
}

int main(int argc, char **argv) {
    edgelog_store *store = open_store(directory(argc, argv));
    edgelog_key_value config[] = {{"retention.ms", "60000"}, {"compression.type", "snappy"}};
    CHECK_OK(edgelog_store_create_topic(store, "telemetry", 3, config, 2));
    CHECK_RESULT(edgelog_store_create_topic(store, "telemetry", 3, NULL, 0), EDGELOG_TOPIC_ALREADY_EXISTS);
    CHECK_RESULT(edgelog_store_create_topic(store, "a/b", 1, NULL, 0), EDGELOG_INVALID_TOPIC_EXCEPTION);
    CHECK_RESULT(edgelog_store_create_topic(store, "none", 0, NULL, 0), EDGELOG_INVALID_PARTITIONS);
    edgelog_key_value bad[] = {{"retention.mss", "1"}};
    CHECK_RESULT(edgelog_store_create_topic(store, "bad", 1, bad, 1), EDGELOG_INVALID_CONFIG);
    edgelog_key_value no_value[] = {{"retention.ms", NULL}};
    CHECK_RESULT(edgelog_store_create_topic(store, "bad", 1, no_value, 1), EDGELOG_NULL_POINTER);

    edgelog_topics *topics = NULL;
    CHECK_OK(edgelog_store_topics(store, &topics));
    edgelog_topic topic = EDGELOG_INIT(edgelog_topic);
    CHECK_OK(edgelog_topics_get(topics, 0, &topic));
    CHECK(bytes_are(topic.name, "telemetry") && topic.partitions == 3);
    CHECK_RESULT(edgelog_topics_get(topics, 1, &topic), EDGELOG_END);
    edgelog_topic_config entry = config_of(topics, "retention.ms");
    CHECK(bytes_are(entry.value, "60000") && entry.is_set);
    entry = config_of(topics, "cleanup.policy");
    CHECK(bytes_are(entry.value, "delete") && !entry.is_set);
    edgelog_topics_free(topics);

    edgelog_key_value changes[] = {{"retention.ms", NULL}, {"flush.messages", "100"}};
    CHECK_OK(edgelog_store_alter_topic(store, "telemetry", changes, 2));
    CHECK_OK(edgelog_store_topics(store, &topics));
    entry = config_of(topics, "retention.ms");
    CHECK(bytes_are(entry.value, "604800000") && !entry.is_set);
    entry = config_of(topics, "flush.messages");
    CHECK(bytes_are(entry.value, "100") && entry.is_set);
    CHECK_OK(edgelog_store_delete_topic(store, "telemetry"));
    CHECK_RESULT(edgelog_store_delete_topic(store, "telemetry"), EDGELOG_UNKNOWN_TOPIC_OR_PARTITION);
    /* The list is a copy: what was deleted since stands in it. */
    CHECK_OK(edgelog_topics_get(topics, 0, &topic));
    edgelog_topics_free(topics);
    CHECK_OK(edgelog_store_topics(store, &topics));
    CHECK_RESULT(edgelog_topics_get(topics, 0, &topic), EDGELOG_END);
    edgelog_topics_free(topics);
    edgelog_store_free(store);
    return all_passed();
}

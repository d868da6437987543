/* Results, their names, the last error of each thread, versions. */
#include "check.h"

#include <pthread.h>

static void *other_thread(void *ignored) {
    (void)ignored;
    edgelog_error_info info = EDGELOG_INIT(edgelog_error_info);
    CHECK(edgelog_last_error()[0] == 0);
    CHECK_RESULT(edgelog_last_error_info(&info), EDGELOG_END);
    return NULL;
}

int main(void) {
    CHECK(strcmp(edgelog_version(), EDGELOG_VERSION) == 0);
    CHECK(edgelog_version_number() == EDGELOG_VERSION_NUMBER);
    CHECK(EDGELOG_VERSION_NUMBER ==
          EDGELOG_VERSION_MAJOR * 1000000 + EDGELOG_VERSION_MINOR * 1000 + EDGELOG_VERSION_PATCH);
    char text[64];
    snprintf(text, sizeof text, "%d.%d.%d", EDGELOG_VERSION_MAJOR, EDGELOG_VERSION_MINOR, EDGELOG_VERSION_PATCH);
    CHECK(strcmp(text, EDGELOG_VERSION) == 0);

    CHECK(EDGELOG_OK == 0 && EDGELOG_OFFSET_OUT_OF_RANGE == 1 && EDGELOG_KAFKA_STORAGE_ERROR == 56);
    CHECK(strcmp(edgelog_result_name(EDGELOG_FENCED_LEADER_EPOCH), "FENCED_LEADER_EPOCH") == 0);
    CHECK(strcmp(edgelog_result_name(EDGELOG_IN_USE), "IN_USE") == 0);
    CHECK(strcmp(edgelog_result_name(123456), "UNKNOWN_SERVER_ERROR") == 0);

    CHECK(edgelog_last_error()[0] == 0);
    edgelog_error_info info = EDGELOG_INIT(edgelog_error_info);
    CHECK_RESULT(edgelog_last_error_info(&info), EDGELOG_END);
    CHECK_RESULT(edgelog_options_new(NULL), EDGELOG_NULL_POINTER);
    CHECK(strstr(edgelog_last_error(), "NULL") != NULL);
    CHECK_OK(edgelog_last_error_info(&info));
    CHECK(info.result == EDGELOG_NULL_POINTER && info.os_error == 0 && info.offset == -1 && info.size == sizeof info);
    /* A call that succeeds leaves it. */
    edgelog_options *options = NULL;
    CHECK_OK(edgelog_options_new(&options));
    edgelog_options_free(options);
    CHECK(strstr(edgelog_last_error(), "NULL") != NULL);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
    pthread_join(thread, NULL);
    return all_passed();
}

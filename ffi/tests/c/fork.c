/* In the child of a fork every handle of the parent answers EDGELOG_FORKED, may be freed, and leaves the parent's
 * store alone; the child attaches again. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <sys/wait.h>

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    edgelog_store *store = open_store(dir);
    edgelog_log *log = open_log(store, "t");
    append_text(log, "parent", EDGELOG_SYNC);
    edgelog_reader *reader = NULL;
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
        edgelog_batch *batch = NULL;
        edgelog_topics *topics = NULL;
        CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_OS, NULL), EDGELOG_FORKED);
        CHECK_RESULT(edgelog_log_append(log, &record, EDGELOG_SYNC, NULL), EDGELOG_FORKED);
        CHECK_RESULT(edgelog_log_flush(log), EDGELOG_FORKED);
        CHECK_RESULT(edgelog_log_truncate(log, 0, NULL), EDGELOG_FORKED);
        CHECK_RESULT(edgelog_log_delete_records(log, 1, NULL), EDGELOG_FORKED);
        CHECK_RESULT(edgelog_store_close(store), EDGELOG_FORKED);
        CHECK_RESULT(edgelog_store_topics(store, &topics), EDGELOG_FORKED);
        CHECK_RESULT(edgelog_store_create_topic(store, "x", 1, NULL, 0), EDGELOG_FORKED);
        edgelog_result read = edgelog_reader_wait(reader, 0, &batch);
        CHECK(read == EDGELOG_FORKED || read == EDGELOG_OK); /* What is mapped already may still be lent. */
        edgelog_batch_free(batch);
        edgelog_reader_free(reader);
        edgelog_log_free(log);
        edgelog_store_free(store);
        /* The parent holds the lock, still. */
        CHECK_RESULT(edgelog_store_open(dir, NULL, &store), EDGELOG_DATA_DIR_LOCKED);
        CHECK_OK(edgelog_store_attach(dir, NULL, &store));
        CHECK_OK(edgelog_store_log(store, "t", 0, &log));
        CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));
        CHECK_OK(edgelog_reader_wait(reader, 60000, &batch));
        edgelog_batch_free(batch);
        edgelog_reader_free(reader);
        edgelog_log_free(log);
        edgelog_store_free(store);
        _exit(0);
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(append_text(log, "parent still", EDGELOG_SYNC) == 1);
    edgelog_reader_free(reader);
    edgelog_log_free(log);
    CHECK_OK(edgelog_store_close(store));
    edgelog_store_free(store);
    return all_passed();
}

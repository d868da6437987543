/* Handles that any thread may use, used by many; a wait that another thread's close ends. */
#define _DEFAULT_SOURCE
#include "check.h"

#include <pthread.h>

enum { THREADS = 4, RECORDS = 300 };

static edgelog_store *store;
static edgelog_log *log_handle;

static void *append_many(void *ignored) {
    (void)ignored;
    for (int i = 0; i < RECORDS; i++) {
        edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
        record.value = edgelog_bytes_of_text("value");
        if (edgelog_log_append(log_handle, &record, i % 50 ? EDGELOG_OS : EDGELOG_SYNC, NULL) != EDGELOG_OK) abort();
    }
    return NULL;
}

static void *follow_until_closed(void *seen) {
    edgelog_reader *reader = NULL;
    if (edgelog_reader_new(log_handle, EDGELOG_FROM_EARLIEST, 0, NULL, &reader) != EDGELOG_OK) abort();
    edgelog_batch *batch = NULL;
    edgelog_result result;
    while ((result = edgelog_reader_wait(reader, -1, &batch)) == EDGELOG_OK) {
        edgelog_record record = EDGELOG_INIT(edgelog_record);
        while (edgelog_batch_next(batch, &record) == EDGELOG_OK) {
            if (record.offset != __atomic_fetch_add((int64_t *)seen, 1, __ATOMIC_RELEASE)) abort();
        }
        edgelog_batch_free(batch);
    }
    if (result != EDGELOG_CLOSED) abort();
    edgelog_reader_free(reader);
    return NULL;
}

int main(int argc, char **argv) {
    store = open_store(directory(argc, argv));
    log_handle = open_log(store, "t");
    pthread_t appenders[THREADS], followers[2];
    int64_t seen[2] = {0, 0};
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&followers[i], NULL, follow_until_closed, &seen[i]) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&appenders[i], NULL, append_many, NULL) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(appenders[i], NULL) == 0);
    for (int i = 0; i < 2; i++) {
        while (__atomic_load_n(&seen[i], __ATOMIC_ACQUIRE) < THREADS * RECORDS) usleep(1000);
    }
    CHECK_OK(edgelog_store_close(store));
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(followers[i], NULL) == 0);
        CHECK(seen[i] == THREADS * RECORDS);
    }
    edgelog_log_free(log_handle);
    edgelog_store_free(store);
    return all_passed();
}

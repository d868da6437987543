/* Prints what sensor_loop appends, from another process, while it comes and goes.
 *
 *   follower DIRECTORY POSITION_FILE
 *
 * Goes on where it was when it is started again: the position is kept in POSITION_FILE, offset and leader epoch.
 */
#define _POSIX_C_SOURCE 200809L
#include <edgelog.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

/* The log of a store that may not be there yet: waits until it is created. */
static edgelog_log *wait_for_log(const char *directory, edgelog_store **store) {
    struct timespec pause = {0, 50000000};
    edgelog_log *log = NULL;
    while (!stop) {
        if (*store != NULL || edgelog_store_attach(directory, NULL, store) == EDGELOG_OK) {
            if (edgelog_store_log(*store, "temperature", 0, &log) == EDGELOG_OK) return log;
        }
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* Under another name first: a file that is cut half way through would be a lost position. */
static void keep_position(edgelog_reader *reader, const char *path) {
    char temporary[4096];
    edgelog_position position;
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "w");
    if (file == NULL || edgelog_reader_get_position(reader, &position) != EDGELOG_OK) return;
    fprintf(file, "%lld %d\n", (long long)position.offset, (int)position.leader_epoch);
    if (fclose(file) == 0) rename(temporary, path);
}

static edgelog_result go_on(edgelog_reader *reader, const char *path) {
    edgelog_position position = {0, -1, 0};
    long long offset = 0;
    int epoch = -1;
    FILE *file = fopen(path, "r");
    if (file == NULL) return EDGELOG_OK; /* The first start: from the beginning. */
    int found = fscanf(file, "%lld %d", &offset, &epoch);
    fclose(file);
    if (found != 2) return EDGELOG_OK;
    position.offset = offset;
    position.leader_epoch = epoch;
    return edgelog_reader_seek_position(reader, &position);
}

/* Prints all that is there. EDGELOG_OK: there is no more now. */
static edgelog_result print_new(edgelog_reader *reader) {
    edgelog_batch *batch = NULL;
    edgelog_result result;
    while ((result = edgelog_reader_next(reader, &batch)) == EDGELOG_OK) {
        edgelog_record record = EDGELOG_INIT(edgelog_record);
        while ((result = edgelog_batch_next(batch, &record)) == EDGELOG_OK) {
            printf("%lld %.*s\n", (long long)record.offset, (int)record.value.len, (const char *)record.value.data);
        }
        edgelog_batch_free(batch);
        if (result != EDGELOG_END) return result;
    }
    fflush(stdout);
    return result == EDGELOG_END ? EDGELOG_OK : result;
}

/* What a follower can do about an error: go on behind it, and say so. */
static int overcome(edgelog_reader *reader, edgelog_result result) {
    edgelog_lost_range lost = EDGELOG_INIT(edgelog_lost_range);
    fprintf(stderr, "%s: %s\n", edgelog_result_name(result), edgelog_last_error());
    switch (result) {
    case EDGELOG_CORRUPT_MESSAGE:
        return edgelog_reader_skip_damage(reader, &lost) == EDGELOG_OK;
    case EDGELOG_OFFSET_OUT_OF_RANGE: /* Retention was faster. */
    case EDGELOG_FENCED_LEADER_EPOCH: /* A power cut removed what had been printed. */
        return edgelog_reader_seek(reader, EDGELOG_FROM_EARLIEST, 0) == EDGELOG_OK;
    default:
        return 0;
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: %s DIRECTORY POSITION_FILE\n", argv[0]);
        return 2;
    }
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);

    int status = 0;
    edgelog_store *store = NULL;
    edgelog_reader *reader = NULL;
    edgelog_log *log = wait_for_log(argv[1], &store);
    if (log == NULL) goto done;
    if (edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader) != EDGELOG_OK) goto failed;
    struct pollfd polled = {-1, POLLIN, 0};
    if (edgelog_reader_get_fd(reader, &polled.fd) != EDGELOG_OK) goto failed;
    edgelog_result result = go_on(reader, argv[2]);
    while (!stop) {
        if (result == EDGELOG_OK) result = print_new(reader);
        keep_position(reader, argv[2]);
        if (result != EDGELOG_OK) {
            if (!overcome(reader, result)) goto failed;
            result = EDGELOG_OK;
            continue;
        }
        poll(&polled, 1, 1000); /* Other descriptors of this program would stand next to it. */
    }
    goto done;
failed:
    fprintf(stderr, "%s: %s\n", argv[1], edgelog_last_error());
    status = 1;
done:
    edgelog_reader_free(reader);
    edgelog_log_free(log);
    edgelog_store_free(store);
    return status;
}

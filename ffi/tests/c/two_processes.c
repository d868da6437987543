/* One process writes, this one attaches read-only and follows; the writer is killed at some point, and comes back:
 * every record is seen once and in order, and no acknowledged record is lost. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

/* Appends numbers from where the log ends, reports how far it is, until it is killed or `count` are there. */
static void write_numbers(const char *dir, int out, int64_t count) {
    edgelog_store *store = open_store(dir);
    edgelog_log *log = open_log(store, "numbers");
    edgelog_offsets offsets = EDGELOG_INIT(edgelog_offsets);
    CHECK_OK(edgelog_log_get_offsets(log, &offsets));
    for (int64_t n = offsets.log_end_offset; n < count; n++) {
        char value[32];
        snprintf(value, sizeof value, "%lld", (long long)n);
        CHECK(append_text(log, value, EDGELOG_SYNC) == n);
        /* Acknowledged: it has to be there after any kill. */
        CHECK(write(out, &n, sizeof n) == sizeof n);
    }
    edgelog_log_free(log);
    CHECK_OK(edgelog_store_close(store));
    edgelog_store_free(store);
    _exit(0);
}

/* Sees every number up to `until`, by the reader's descriptor. Returns the next one. */
static int64_t follow(edgelog_reader *reader, int64_t next, int64_t until) {
    int fd = -1;
    CHECK_OK(edgelog_reader_get_fd(reader, &fd));
    while (next < until) {
        struct pollfd polled = {fd, POLLIN, 0};
        CHECK(poll(&polled, 1, 60000) == 1);
        edgelog_batch *batch = NULL;
        edgelog_result result;
        while ((result = edgelog_reader_next(reader, &batch)) == EDGELOG_OK) {
            edgelog_record record = EDGELOG_INIT(edgelog_record);
            while (edgelog_batch_next(batch, &record) == EDGELOG_OK) {
                char value[32];
                snprintf(value, sizeof value, "%lld", (long long)next);
                CHECK(record.offset == next && bytes_are(record.value, value));
                next++;
            }
            edgelog_batch_free(batch);
        }
        CHECK_RESULT(result, EDGELOG_END);
    }
    return next;
}

int main(int argc, char **argv) {
    const char *dir = directory(argc, argv);
    edgelog_store *store = open_store(dir), *attached = NULL;
    edgelog_log_free(open_log(store, "numbers"));
    edgelog_store_free(store);
    CHECK_OK(edgelog_store_attach(dir, NULL, &attached));
    edgelog_log *log = NULL;
    edgelog_reader *reader = NULL;
    CHECK_OK(edgelog_store_log(attached, "numbers", 0, &log));
    CHECK_OK(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, NULL, &reader));

    const int64_t per_life = 40;
    const int lives = 4;
    int64_t next = 0, acknowledged = -1;
    for (int life = 0; life < lives; life++) {
        int pipes[2];
        CHECK(pipe(pipes) == 0);
        fflush(stdout);
        pid_t writer = fork();
        if (writer == 0) {
            close(pipes[0]);
            /* The one before may have written any number until it was killed. */
            write_numbers(dir, pipes[1], life == lives - 1 ? acknowledged + 1 + per_life : INT64_MAX);
        }
        CHECK(writer > 0);
        close(pipes[1]);
        while (acknowledged < per_life * (life + 1) - 1 && read(pipes[0], &acknowledged, sizeof acknowledged) > 0) {}
        int status = 0;
        if (life < lives - 1) kill(writer, SIGKILL);
        while (read(pipes[0], &acknowledged, sizeof acknowledged) > 0) {}
        close(pipes[0]);
        CHECK(waitpid(writer, &status, 0) == writer);
        CHECK(life < lives - 1 ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK(acknowledged >= per_life * (life + 1) - 1);
        next = follow(reader, next, acknowledged + 1);
    }
    edgelog_position position;
    CHECK_OK(edgelog_reader_get_position(reader, &position));
    CHECK(position.offset == next && position.leader_epoch == lives - 1);
    edgelog_reader_free(reader);
    edgelog_log_free(log);
    edgelog_store_free(attached);
    return all_passed();
}

/* A sensor that is read once a second (or every argv[2] milliseconds), and its readings in a log.
 *
 *   sensor_loop DIRECTORY [PERIOD_MS]
 *
 * Kill it whenever you like: what it printed as appended is on the disk, and the next start goes on behind it.
 * Ctrl-C and SIGTERM end it cleanly.
 */
#define _POSIX_C_SOURCE 200809L
#include <edgelog.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

/* The engine's own words, to where this program's log goes. */
static void on_log(void *user_data, int32_t level, edgelog_bytes text) {
    FILE *to = user_data;
    fprintf(to, "edgelog (%d): %.*s\n", (int)level, (int)text.len, (const char *)text.data);
}

static void print_recovery(edgelog_store *store) {
    edgelog_recovery *recovery = NULL;
    edgelog_bytes text;
    if (edgelog_store_recovery(store, &recovery) != EDGELOG_OK) return;
    if (edgelog_recovery_get_text(recovery, &text) == EDGELOG_OK) {
        fprintf(stderr, "%.*s\n", (int)text.len, (const char *)text.data);
    }
    edgelog_recovery_free(recovery);
}

static double read_sensor(void) {
    static double celsius = 21.5;
    return celsius += (double)(rand() % 11 - 5) / 100;
}

/* Appends one reading. Returns 0, or -1 where there is no going on. */
static int append_reading(edgelog_log *log) {
    char value[32];
    int len = snprintf(value, sizeof value, "%.2f", read_sensor());
    edgelog_new_record record = EDGELOG_INIT(edgelog_new_record);
    edgelog_append_info info = EDGELOG_INIT(edgelog_append_info);
    record.key = edgelog_bytes_of_text("boiler/flow");
    record.value = edgelog_bytes_of(value, (size_t)len);
    /* At the topic's default it is on the disk when this returns. */
    if (edgelog_log_append(log, &record, EDGELOG_DURABILITY_DEFAULT, &info) == EDGELOG_OK) {
        printf("%lld %s\n", (long long)info.base_offset, value);
        fflush(stdout);
        return 0;
    }
    edgelog_error_info error = EDGELOG_INIT(edgelog_error_info);
    fprintf(stderr, "not appended: %s\n", edgelog_last_error());
    /* A full disk may have room again later, and this reading is not worth stopping for; anything else is. */
    return edgelog_last_error_info(&error) == EDGELOG_OK && error.is_retriable ? 0 : -1;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIRECTORY [PERIOD_MS]\n", argv[0]);
        return 2;
    }
    long period_ms = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
    struct timespec period = {period_ms / 1000, period_ms % 1000 * 1000000};
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    edgelog_set_log_callback(on_log, stderr, EDGELOG_LOG_WARN);

    int status = 1;
    edgelog_store *store = NULL;
    edgelog_log *log = NULL;
    if (edgelog_store_open(argv[1], NULL, &store) != EDGELOG_OK) goto failed;
    print_recovery(store);
    /* A week of readings, and never more than 64 MiB. */
    edgelog_key_value config[] = {{"retention.ms", "604800000"}, {"retention.bytes", "67108864"}};
    edgelog_result created = edgelog_store_create_topic(store, "temperature", 1, config, 2);
    if (created != EDGELOG_OK && created != EDGELOG_TOPIC_ALREADY_EXISTS) goto failed;
    if (edgelog_store_log(store, "temperature", 0, &log) != EDGELOG_OK) goto failed;
    while (!stop) {
        if (append_reading(log) != 0) goto done;
        nanosleep(&period, NULL);
    }
    if (edgelog_store_close(store) != EDGELOG_OK) goto failed;
    status = 0;
    goto done;
failed:
    fprintf(stderr, "%s: %s\n", argv[1], edgelog_last_error());
done:
    edgelog_log_free(log);
    edgelog_store_free(store);
    return status;
}

/* librdkafka's producer, sending the lines of a file as records: what the bridge is compared with (run.py).
 *
 *   produce BOOTSTRAP TOPIC FILE [CODEC [TRANSACTIONAL_ID]]
 *
 * CODEC is snappy where it is not given. With a transactional id, so many bytes go in a transaction as with the bridge.
 * Prints the processor time, user and system, of all its threads from the first record to the last acknowledgement, in
 * seconds. The file is in memory before that, and nothing of it is copied.
 */
#define _GNU_SOURCE
#include <librdkafka/rdkafka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static long delivered, failed;

static void on_delivery(rd_kafka_t *producer, const rd_kafka_message_t *message, void *opaque) {
    (void)producer, (void)opaque;
    if (message->err) failed++;
    else delivered++;
}

static double processor_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* What a transaction of the bridge carries at most: edgelog.bridge.transaction.bytes. */
static const size_t TRANSACTION_BYTES = 4 << 20;

static void must(rd_kafka_error_t *error) {
    if (error == NULL) return;
    fprintf(stderr, "%s\n", rd_kafka_error_string(error));
    exit(1);
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char why[256];
    if (rd_kafka_conf_set(conf, key, value, why, sizeof why) == RD_KAFKA_CONF_OK) return;
    fprintf(stderr, "%s\n", why);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 4 || argc > 6) return 2;
    const char *transactional_id = argc > 5 ? argv[5] : NULL;
    FILE *file = fopen(argv[3], "rb");
    if (file == NULL) return perror(argv[3]), 1;
    fseek(file, 0, SEEK_END);
    size_t len = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(len + 1);
    if (bytes == NULL || fread(bytes, 1, len, file) != len) return perror(argv[3]), 1;
    fclose(file);

    /* What each delivery of a batch of the bridge has too, or costs librdkafka less: long batches, none done twice. */
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", argv[1]);
    set(conf, "acks", "all");
    set(conf, "enable.idempotence", "true");
    set(conf, "compression.type", argc > 4 ? argv[4] : "snappy");
    set(conf, "linger.ms", "100");
    set(conf, "queue.buffering.max.messages", "1000000");
    if (transactional_id != NULL) set(conf, "transactional.id", transactional_id);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    char why[256];
    rd_kafka_t *producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (producer == NULL) return fprintf(stderr, "%s\n", why), 1;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, argv[2], NULL);

    double begun = processor_seconds();
    if (transactional_id != NULL) {
        must(rd_kafka_init_transactions(producer, 60000));
        must(rd_kafka_begin_transaction(producer));
    }
    size_t in_transaction = 0;
    long sent = 0;
    for (char *line = bytes, *end; line < bytes + len; line = end + 1, sent++) {
        end = memchr(line, '\n', (size_t)(bytes + len - line));
        if (end == NULL) end = bytes + len;
        while (rd_kafka_produce(topic, 0, 0, line, (size_t)(end - line), NULL, 0, NULL) != 0) {
            if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL) return fprintf(stderr, "refused\n"), 1;
            rd_kafka_poll(producer, 100);
        }
        if (sent % 1000 == 0) rd_kafka_poll(producer, 0);
        in_transaction += (size_t)(end - line);
        if (transactional_id != NULL && in_transaction >= TRANSACTION_BYTES) {
            must(rd_kafka_commit_transaction(producer, 60000));
            must(rd_kafka_begin_transaction(producer));
            in_transaction = 0;
        }
    }
    if (transactional_id != NULL) must(rd_kafka_commit_transaction(producer, 60000));
    rd_kafka_flush(producer, 120000);
    double used = processor_seconds() - begun;
    if (failed != 0 || delivered != sent) return fprintf(stderr, "%ld of %ld arrived\n", delivered, sent), 1;
    printf("%.3f\n", used);
    rd_kafka_topic_destroy(topic);
    rd_kafka_destroy(producer);
    return 0;
}

// Writes what a broker's partition directory should hold for edgelog to read: every codec, every shape of record.
// Started by check.py as a single source file: java -cp 'lib/*' Produce.java BOOTSTRAP TOPIC
// Partition 0: all five codecs in turn, enough to roll segments of 1 MiB, with and without producer ids.
// Partition 1: the shapes: null and empty keys, values and header values, time going backwards, text beyond ASCII.

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Random;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Produce {
    static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    static final long BASE_TIMESTAMP_MS = 1_700_000_000_000L;
    static final int ROUNDS = 4;
    static final int RECORDS_PER_ROUND = 400;

    static byte[] utf8(String s) {
        return s == null ? null : s.getBytes(StandardCharsets.UTF_8);
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, String codec, boolean idempotent) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("compression.type", codec);
        p.put("enable.idempotence", Boolean.toString(idempotent));
        p.put("acks", "all");
        p.put("linger.ms", "50");
        p.put("batch.size", "8192");
        p.put("delivery.timeout.ms", "60000");
        p.put("request.timeout.ms", "20000");
        return new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
    }

    // Half of it compresses, half does not: batches differ in size between codecs and none is trivial.
    static String value(Random random, int i) {
        StringBuilder s = new StringBuilder("{\"n\":").append(i).append(",\"text\":\"");
        int length = random.nextInt(900);
        for (int k = 0; k < length; k++) {
            s.append(k % 2 == 0 ? 'a' : (char) ('a' + random.nextInt(26)));
        }
        return s.append("\"}").toString();
    }

    static void partition0(String bootstrap, String topic) throws Exception {
        Random random = new Random(42);
        int n = 0;
        for (int round = 0; round < ROUNDS; round++) {
            for (String codec : CODECS) {
                List<Future<RecordMetadata>> pending = new ArrayList<>();
                try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, codec, round % 2 == 0)) {
                    for (int i = 0; i < RECORDS_PER_ROUND; i++, n++) {
                        long timestamp = BASE_TIMESTAMP_MS + n * 10L - (i % 7 == 0 ? 5_000 : 0);
                        List<Header> headers = new ArrayList<>();
                        if (i % 5 == 0) {
                            headers.add(new RecordHeader("codec", utf8(codec)));
                        }
                        byte[] key = i % 3 == 0 ? null : utf8("key-" + i % 10);
                        pending.add(producer.send(
                                new ProducerRecord<>(topic, 0, timestamp, key, utf8(value(random, n)), headers)));
                    }
                }
                for (Future<RecordMetadata> f : pending) {
                    f.get();
                }
            }
        }
    }

    static void partition1(String bootstrap, String topic) throws Exception {
        String beyondAscii = "\u00e4\u00f6\u00fc \u4f60\u597d \ud83d\ude80";
        String[] texts = {null, "", "a", beyondAscii, "two\nlines", "quote\" back\\slash", "\t"};
        for (String codec : CODECS) {
            List<Future<RecordMetadata>> pending = new ArrayList<>();
            try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, codec, false)) {
                int n = 0;
                for (String key : texts) {
                    for (String value : texts) {
                        List<Header> headers = new ArrayList<>();
                        for (int h = 0; h < n % 4; h++) {
                            headers.add(new RecordHeader("h" + h, utf8(texts[(n + h) % texts.length])));
                        }
                        // The same header key twice is legal, and 0 is a legal timestamp.
                        if (n % 11 == 3) {
                            headers.add(new RecordHeader("h0", utf8("again")));
                        }
                        long timestamp = n % 13 == 0 ? 0 : BASE_TIMESTAMP_MS - n * 1000L;
                        pending.add(producer.send(
                                new ProducerRecord<>(topic, 1, timestamp, utf8(key), utf8(value), headers)));
                        n++;
                    }
                }
            }
            for (Future<RecordMetadata> f : pending) {
                f.get();
            }
        }
    }

    public static void main(String[] args) throws Exception {
        partition0(args[0], args[1]);
        partition1(args[0], args[1]);
    }
}

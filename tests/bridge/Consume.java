// Prints what a read_committed consumer finds in a topic, from the first record to the last, and ends there.
// Started by harness.py: java -cp 'lib/*:classes' Consume BOOTSTRAP TOPIC FIELD HEADER RECORD NULL
// It prints as the console consumer does, which knows no end but to wait in vain. The end is waited for: a commit is
// answered before its markers are in the partitions, and until then a read_committed consumer does not see it.

import java.io.ByteArrayOutputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Consume {
    // A transaction that stays open this long is one that a test has left open.
    static final long OPEN_MS_MAX = 8_000;

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, String isolation) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("isolation.level", isolation);
        p.put("auto.offset.reset", "earliest");
        p.put("enable.auto.commit", "false");
        p.put("allow.auto.create.topics", "false");
        return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    public static void main(String[] args) throws Exception {
        String topic = args[1], field = args[2], header = args[3], end = args[4], none = args[5];
        byte[] nothing = none.getBytes(StandardCharsets.UTF_8);
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (var committed = consumer(args[0], "read_committed"); var all = consumer(args[0], "read_uncommitted")) {
            List<TopicPartition> partitions = committed.partitionsFor(topic).stream()
                    .map(info -> new TopicPartition(topic, info.partition()))
                    .toList();
            long until = System.currentTimeMillis() + OPEN_MS_MAX;
            Map<TopicPartition, Long> ends = committed.endOffsets(partitions);
            while (!ends.equals(all.endOffsets(partitions)) && System.currentTimeMillis() < until) {
                Thread.sleep(50);
                ends = committed.endOffsets(partitions);
            }
            committed.assign(partitions);
            committed.seekToBeginning(partitions);
            for (TopicPartition partition : partitions) {
                while (committed.position(partition) < ends.get(partition)) {
                    for (ConsumerRecord<byte[], byte[]> record : committed.poll(Duration.ofMillis(500))) {
                        text(out, record.timestampType() + ":" + record.timestamp() + field);
                        text(out, "Partition:" + record.partition() + field + "Offset:" + record.offset() + field);
                        String between = "";
                        for (Header h : record.headers()) {
                            text(out, between + h.key() + ":");
                            out.write(h.value() == null ? nothing : h.value());
                            between = header;
                        }
                        text(out, between.isEmpty() ? "NO_HEADERS" + field : field);
                        out.write(record.key() == null ? nothing : record.key());
                        text(out, field);
                        out.write(record.value() == null ? nothing : record.value());
                        text(out, end);
                    }
                }
            }
        }
        out.writeTo(System.out);
        System.out.flush();
    }

    static void text(OutputStream out, String text) throws Exception {
        out.write(text.getBytes(StandardCharsets.UTF_8));
    }
}

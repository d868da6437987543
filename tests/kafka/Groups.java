// Runs the scripts of groups.txt on Kafka's own consumers, and prints what examples/group_script.rs prints.
// Started by groups.py: java -cp 'lib/*:classes' Groups BOOTSTRAP groups.txt

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Groups {
    static final int AT_ONCE = 3;
    static final long WAIT_MS_MAX = 60_000;
    static final Duration POLL = Duration.ofMillis(25);
    // A share group that has nothing for a member within so long has nothing: several fetches.
    static final int FETCH_MS_MAX = 100;
    static final Duration NONE = Duration.ofMillis(700);

    // A script that runs.
    interface Script {
        void step(String[] words) throws Exception;

        void end() throws Exception;
    }

    public static void main(String[] args) throws Exception {
        if (args.length == 5) {
            ShareMember.obey(args);
            return;
        }
        List<List<String>> scripts = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(args[1]))) {
            if (line.startsWith("consumers ") || line.startsWith("shares ")) {
                scripts.add(new ArrayList<>());
            }
            if (!line.isBlank() && !line.startsWith("#")) {
                scripts.get(scripts.size() - 1).add(line);
            }
        }
        // They wait most of their time.
        ExecutorService threads = Executors.newFixedThreadPool(AT_ONCE);
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            List<Future<Void>> running = new ArrayList<>();
            for (List<String> script : scripts) {
                running.add(threads.submit(() -> run(admin, args[0], script)));
            }
            for (Future<Void> one : running) {
                one.get();
            }
        } finally {
            threads.shutdownNow();
        }
    }

    static Void run(Admin admin, String bootstrap, List<String> lines) throws Exception {
        String[] first = lines.get(0).split(" ");
        Script script = first[0].equals("shares")
                ? new Shares(admin, bootstrap, first, lines)
                : new Consumers(admin, bootstrap, first);
        for (String line : lines.subList(1, lines.size())) {
            try {
                if (!line.startsWith("differs ")) {
                    script.step(line.split(" "));
                }
            } catch (Exception error) {
                throw new Exception(lines.get(0) + ": " + line, error);
            }
        }
        script.end();
        return null;
    }

    /** The names that a script has for partitions: those of the cluster without the script's own prefix. */
    static TreeSet<String> names(String prefix, Collection<TopicPartition> partitions) {
        return partitions.stream()
                .map(partition -> partition.toString().substring(prefix.length()))
                .collect(Collectors.toCollection(TreeSet::new));
    }

    static String json(Collection<String> texts) {
        return texts.stream().map(text -> '"' + text + '"').collect(Collectors.joining(", ", "[", "]"));
    }

    static class Member implements ConsumerRebalanceListener {
        final String prefix;
        final boolean isStatic;
        final KafkaConsumer<byte[], byte[]> consumer;
        Set<String> topics;
        // Lists, since what is said twice is to be seen.
        final Map<String, List<String>> events = new HashMap<>();

        Member(String prefix, boolean isStatic, Properties config) {
            this.prefix = prefix;
            this.isStatic = isStatic;
            this.consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            forget();
        }

        void forget() {
            for (String what : List.of("assigned", "revoked", "lost")) {
                events.put(what, new ArrayList<>());
            }
        }

        void subscribe(String topics) {
            this.topics = Set.of(topics.split(","));
            consumer.subscribe(this.topics.stream().map(topic -> prefix + topic).toList(), this);
        }

        TreeSet<String> owned() {
            return names(prefix, consumer.assignment());
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            events.get("assigned").addAll(names(prefix, partitions));
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            events.get("revoked").addAll(names(prefix, partitions));
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            events.get("lost").addAll(names(prefix, partitions));
        }
    }

    static class Consumers implements Script {
        final Admin admin;
        final String bootstrap;
        final String name;
        final String prefix;
        final String[] keys;
        final TreeMap<String, Integer> topics = new TreeMap<>();
        final TreeMap<String, Member> members = new TreeMap<>();
        // Static members that have left, and what waits for them.
        final Map<String, Member> away = new HashMap<>();
        final Map<String, Set<String>> kept = new HashMap<>();
        int point = 0;
        // The group's epoch at the last stable point, and whether a step since then raises it.
        int epoch = 0;
        boolean rises = false;

        Consumers(Admin admin, String bootstrap, String[] words) {
            this.admin = admin;
            this.bootstrap = bootstrap;
            this.name = words[1];
            this.prefix = words[1] + ".";
            this.keys = List.of(words).subList(2, words.length).toArray(new String[0]);
        }

        @Override
        public void step(String[] words) throws Exception {
            boolean raises = true;
            switch (words[0]) {
                case "topic" -> {
                    topics.put(words[1], Integer.parseInt(words[2]));
                    admin.createTopics(List.of(new NewTopic(prefix + words[1], topics.get(words[1]), (short) 1)))
                            .all().get();
                }
                case "partitions" -> {
                    topics.put(words[1], Integer.parseInt(words[2]));
                    admin.createPartitions(Map.of(prefix + words[1], NewPartitions.increaseTo(topics.get(words[1]))))
                            .all().get();
                }
                case "join" -> {
                    raises = away.remove(words[1]) == null;
                    kept.remove(words[1]);
                    join(words[1], words[2], words.length > 3);
                }
                case "leave" -> {
                    Member member = members.remove(words[1]);
                    raises = !member.isStatic;
                    if (member.isStatic) {
                        away.put(words[1], member);
                        kept.put(words[1], member.owned());
                    }
                    member.consumer.close();
                }
                case "crash" -> members.remove(words[1]).consumer.close(CloseOptions.groupMembershipOperation(
                        CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
                case "subscribe" -> members.get(words[1]).subscribe(words[2]);
                case "stable" -> {
                    stable();
                    raises = false;
                }
                default -> throw new IllegalArgumentException("no such step");
            }
            rises |= raises;
        }

        void join(String member, String topics, boolean isStatic) {
            Properties config = new Properties();
            config.put("bootstrap.servers", bootstrap);
            config.put("group.protocol", "consumer");
            config.put("group.id", name);
            config.put("client.id", member);
            config.put("enable.auto.commit", "false");
            config.put("auto.offset.reset", "earliest");
            for (String key : keys) {
                config.put(key.substring(0, key.indexOf('=')), key.substring(key.indexOf('=') + 1));
            }
            if (isStatic) {
                config.put("group.instance.id", member);
            }
            members.put(member, new Member(prefix, isStatic, config));
            members.get(member).subscribe(topics);
        }

        // Every partition has its owner, and the coordinator has nothing left to do: it knows these members alone, each
        // has what it is to have, and what was changed has raised the group's epoch.
        void stable() throws Exception {
            long until = System.currentTimeMillis() + WAIT_MS_MAX;
            ConsumerGroupDescription last = null;
            while (true) {
                for (Member member : members.values()) {
                    member.consumer.poll(POLL);
                }
                if (owned().equals(toOwn())) {
                    ConsumerGroupDescription group = admin.describeConsumerGroups(List.of(name)).all().get().get(name);
                    last = group;
                    // A static member that is away has epoch -2, with which the group itself is not called stable.
                    boolean isStable = (group.groupState() == GroupState.STABLE || !away.isEmpty())
                            && group.members().size() == members.size() + away.size()
                            && (!rises || group.groupEpoch().get() > epoch)
                            && group.members().stream().allMatch(member ->
                                    member.targetAssignment().get().equals(member.assignment())
                                    && (away.containsKey(member.clientId())
                                            || member.memberEpoch().equals(group.groupEpoch())
                                            && names(prefix, member.assignment().topicPartitions())
                                                    .equals(members.get(member.clientId()).owned())));
                    if (isStable) {
                        epoch = group.groupEpoch().get();
                        break;
                    }
                }
                if (System.currentTimeMillis() > until) {
                    throw new Exception("not stable after " + WAIT_MS_MAX + " ms: " + owned() + " of " + toOwn()
                            + ", " + last);
                }
            }
            rises = false;
            point++;
            System.out.println(line());
        }

        TreeSet<String> owned() {
            TreeSet<String> owned = new TreeSet<>();
            members.values().forEach(member -> owned.addAll(member.owned()));
            return owned;
        }

        TreeSet<String> toOwn() {
            TreeSet<String> wanted = new TreeSet<>();
            for (Map<String, Member> some : List.of(members, away)) {
                for (Member member : some.values()) {
                    for (String topic : member.topics) {
                        for (int n = 0; n < topics.get(topic); n++) {
                            wanted.add(topic + "-" + n);
                        }
                    }
                }
            }
            kept.values().forEach(wanted::removeAll);
            return wanted;
        }

        String line() {
            TreeMap<String, Collection<String>> owned = new TreeMap<>();
            members.forEach((member, it) -> owned.put(member, it.owned()));
            StringBuilder line = new StringBuilder("{\"script\": \"" + name + "\", \"point\": " + point);
            put(line, "owned", owned);
            for (String what : List.of("assigned", "revoked", "lost")) {
                TreeMap<String, Collection<String>> events = new TreeMap<>();
                members.forEach((member, it) -> events.put(member, it.events.get(what).stream().sorted().toList()));
                put(line, what, events);
            }
            members.values().forEach(Member::forget);
            return line.append("}").toString();
        }

        static void put(StringBuilder line, String what, TreeMap<String, Collection<String>> of) {
            line.append(", \"").append(what).append("\": {");
            line.append(of.entrySet().stream()
                    .map(entry -> '"' + entry.getKey() + "\": " + json(entry.getValue()))
                    .collect(Collectors.joining(", ")));
            line.append("}");
        }

        @Override
        public void end() {
            members.values().forEach(member -> member.consumer.close());
        }
    }

    // A member of a share group: obeys steps, and says what it has seen.
    static class ShareMember implements AutoCloseable {
        final String topic;
        final boolean isExplicit;
        final KafkaShareConsumer<byte[], byte[]> consumer;
        // The last one of each offset.
        final Map<Long, ConsumerRecord<byte[], byte[]>> had = new HashMap<>();

        ShareMember(String bootstrap, String group, String topic, String mode, String records) {
            this.topic = topic;
            this.isExplicit = mode.equals("explicit");
            Properties config = new Properties();
            config.put("bootstrap.servers", bootstrap);
            config.put("group.id", group);
            config.put("share.acknowledgement.mode", mode);
            // Never more than max.poll.records, and none that no poll has asked for: what edgelog has.
            config.put("share.acquire.mode", "record_limit");
            config.put("max.poll.records", records);
            config.put("fetch.max.wait.ms", String.valueOf(FETCH_MS_MAX));
            consumer = new KafkaShareConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            consumer.subscribe(List.of(topic));
        }

        // In a process of its own, which can be killed: steps on standard input, and a line for each.
        static void obey(String[] args) throws Exception {
            ShareMember member = new ShareMember(args[0], args[1], args[2], args[3], args[4]);
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
            System.out.println("ready");
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                System.out.println(member.step(line.split(" ")));
            }
        }

        String step(String[] words) throws Exception {
            return switch (words[0]) {
                case "take" -> take(Integer.parseInt(words[2]));
                case "work" -> work(AcknowledgeType.valueOf(words[2].toUpperCase()), Integer.parseInt(words[3]));
                case "none" -> text(poll(words.length < 3 ? NONE : Duration.ofMillis(Long.parseLong(words[2]))));
                case "answer" -> answer(AcknowledgeType.valueOf(words[2].toUpperCase()), words[3]);
                case "commit" -> commit();
                default -> throw new IllegalArgumentException("no such step");
            };
        }

        List<ConsumerRecord<byte[], byte[]>> poll(Duration timeout) {
            List<ConsumerRecord<byte[], byte[]>> polled = new ArrayList<>();
            consumer.poll(timeout).forEach(polled::add);
            polled.forEach(record -> had.put(record.offset(), record));
            return polled;
        }

        // A poll that ends with nothing may leave a fetch behind, which acquires records that no poll asks for. So a
        // poll waits until there is something.
        static Duration left(long until) {
            return Duration.ofMillis(Math.max(0, until - System.currentTimeMillis()));
        }

        String take(int count) {
            long until = System.currentTimeMillis() + WAIT_MS_MAX;
            List<ConsumerRecord<byte[], byte[]>> seen = new ArrayList<>();
            while (seen.size() < count && System.currentTimeMillis() < until) {
                try {
                    seen.addAll(poll(left(until)));
                } catch (IllegalStateException error) {
                    if (seen.isEmpty()) {
                        return "\"refused\"";
                    }
                    break;
                }
            }
            return text(seen);
        }

        String work(AcknowledgeType type, int count) {
            long until = System.currentTimeMillis() + WAIT_MS_MAX;
            List<ConsumerRecord<byte[], byte[]>> seen = new ArrayList<>();
            boolean isLast = false;
            while (!isLast && System.currentTimeMillis() < until) {
                isLast = seen.size() >= count;
                List<ConsumerRecord<byte[], byte[]>> polled = poll(isLast ? NONE : left(until));
                polled.forEach(record -> consumer.acknowledge(record, type));
                consumer.commitSync();
                seen.addAll(polled);
            }
            return text(seen);
        }

        String answer(AcknowledgeType type, String offsets) {
            for (String range : offsets.split(",")) {
                String[] ends = range.split("-");
                for (long at = Long.parseLong(ends[0]); at <= Long.parseLong(ends[ends.length - 1]); at++) {
                    try {
                        if (had.containsKey(at)) {
                            consumer.acknowledge(had.get(at), type);
                        } else {
                            consumer.acknowledge(topic, 0, at, type);
                        }
                    } catch (IllegalStateException error) {
                        return "\"refused\"";
                    }
                }
            }
            return "\"ok\"";
        }

        String commit() {
            for (Optional<KafkaException> outcome : consumer.commitSync().values()) {
                if (outcome.isPresent()) {
                    return '"' + outcome.get().getClass().getSimpleName().replace("Exception", "") + '"';
                }
            }
            return "\"ok\"";
        }

        static String text(List<ConsumerRecord<byte[], byte[]>> seen) {
            return seen.stream()
                    .sorted(Comparator.comparingLong((ConsumerRecord<byte[], byte[]> record) -> record.offset())
                            .thenComparingInt(record -> record.deliveryCount().get()))
                    .map(record -> "[" + record.offset() + ", " + record.deliveryCount().get() + "]")
                    .collect(Collectors.joining(", ", "[", "]"));
        }

        @Override
        public void close() {
            consumer.close();
        }
    }

    // A member that is to crash.
    static class OtherProcess {
        final Process process;
        final BufferedReader out;
        final PrintStream in;

        OtherProcess(String[] args) throws Exception {
            List<String> command = new ArrayList<>(List.of("java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", System.getProperty("java.class.path"),
                    "Groups"));
            command.addAll(List.of(args));
            process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
            out = new BufferedReader(new InputStreamReader(process.getInputStream()));
            in = new PrintStream(process.getOutputStream(), true);
            out.readLine();
        }

        String step(String[] words) throws Exception {
            in.println(String.join(" ", words));
            return out.readLine();
        }
    }

    static class Shares implements Script {
        final Admin admin;
        final String bootstrap;
        final String name;
        final List<String> lines;
        String topic;
        int point = 0;
        final Map<String, ShareMember> members = new HashMap<>();
        final Map<String, OtherProcess> others = new HashMap<>();

        Shares(Admin admin, String bootstrap, String[] words, List<String> lines) throws Exception {
            this.admin = admin;
            this.bootstrap = bootstrap;
            this.name = words[1];
            this.lines = lines;
            List<AlterConfigOp> keys = new ArrayList<>(List.of(key("share.auto.offset.reset=earliest")));
            for (int n = 2; n < words.length; n++) {
                keys.add(key(words[n]));
            }
            ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, name);
            admin.incrementalAlterConfigs(Map.of(group, keys)).all().get();
        }

        static AlterConfigOp key(String word) {
            String[] pair = word.split("=");
            return new AlterConfigOp(new ConfigEntry(pair[0], pair[1]), AlterConfigOp.OpType.SET);
        }

        @Override
        public void step(String[] words) throws Exception {
            String seen;
            switch (words[0]) {
                case "topic" -> {
                    topic = name + "." + words[1];
                    admin.createTopics(List.of(new NewTopic(topic, Integer.parseInt(words[2]), (short) 1))).all().get();
                    return;
                }
                case "produce" -> {
                    produce(Integer.parseInt(words[1]));
                    return;
                }
                case "open" -> {
                    if (lines.contains("crash " + words[1])) {
                        others.put(words[1], new OtherProcess(
                                new String[] {bootstrap, name, topic, words[2], words[3]}));
                    } else {
                        members.put(words[1], new ShareMember(bootstrap, name, topic, words[2], words[3]));
                    }
                    return;
                }
                case "crash" -> {
                    others.remove(words[1]).process.destroyForcibly().waitFor();
                    return;
                }
                case "close" -> {
                    members.remove(words[1]).close();
                    seen = "\"ok\"";
                }
                default -> seen = others.containsKey(words[1])
                        ? others.get(words[1]).step(words)
                        : members.get(words[1]).step(words);
            }
            point++;
            System.out.println("{\"script\": \"" + name + "\", \"point\": " + point + ", \"step\": \""
                    + String.join(" ", words) + "\", \"seen\": " + seen + "}");
        }

        // One batch.
        void produce(int count) throws Exception {
            Map<String, Object> config = Map.of(
                    "bootstrap.servers", bootstrap, "linger.ms", "60000", "batch.size", "65536");
            try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
                for (int n = 0; n < count; n++) {
                    producer.send(new ProducerRecord<>(topic, 0, null, "a job".getBytes()));
                }
                producer.flush();
            }
        }

        @Override
        public void end() {
            members.values().forEach(ShareMember::close);
        }
    }
}

// Runs the scripts of groups.txt on Kafka's own consumers, and prints what examples/group_script.rs prints.
// Started by groups.py as a single source file: java -cp 'lib/*' Groups.java BOOTSTRAP groups.txt

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class Groups {
    static final long WAIT_MS_MAX = 60_000;
    static final Duration POLL = Duration.ofMillis(25);

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            Consumers running = null;
            for (String line : Files.readAllLines(Path.of(args[1]))) {
                String[] words = line.replaceFirst("#.*", "").strip().split("\\s+");
                try {
                    if (words[0].equals("consumers")) {
                        if (running != null) {
                            running.end();
                        }
                        running = new Consumers(admin, args[0], words);
                    } else if (!words[0].isEmpty()) {
                        running.step(words);
                    }
                } catch (Exception error) {
                    throw new Exception(line, error);
                }
            }
            running.end();
        }
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

    static class Consumers {
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

        void step(String[] words) throws Exception {
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

        void end() {
            members.values().forEach(member -> member.consumer.close());
        }
    }
}

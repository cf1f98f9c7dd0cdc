// Apache Kafka's own client: idempotent produce with every codec, keys, nulls, headers; consume alone and in groups with
// each assignor, with a static member; offsets by time; the offsets of a group.
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class Check {
    static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        String topic = "java-" + UUID.randomUUID();
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, 4, (short) 1))).all().get();
            Map<String, String> wanted = new HashMap<>();
            for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) produce(topic, codec, wanted);
            readAlone(topic, wanted);
            for (String assignor : List.of("RangeAssignor", "RoundRobinAssignor", "StickyAssignor", "CooperativeStickyAssignor"))
                readInGroup(topic, assignor, wanted.keySet());
            Set<String> groups = new HashSet<>();
            for (GroupListing group : admin.listGroups().all().get()) groups.add(group.groupId());
            require(groups.contains(topic + "RangeAssignor"), "the group is not listed: " + groups);
            long committed = 0;
            for (OffsetAndMetadata offset : admin.listConsumerGroupOffsets(topic + "RangeAssignor").partitionsToOffsetAndMetadata().get().values())
                committed += offset.offset();
            require(committed == wanted.size(), "committed " + committed + " of " + wanted.size());
            admin.deleteTopics(List.of(topic)).all().get();
        }
        System.out.println("java: ok");
    }

    static void produce(String topic, String codec, Map<String, String> wanted) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "compression.type", codec, "linger.ms", 5);
        try (Producer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = 0; number < 1000; number++) {
                String key = codec + "-" + number, value = number % 10 == 0 ? null : "value of " + key;
                ProducerRecord<String, String> record = new ProducerRecord<>(topic, number % 4, key, value);
                record.headers().add("h", "1".getBytes()).add("h", null);
                sent.add(producer.send(record));
                wanted.put(key, value);
            }
            for (Future<RecordMetadata> one : sent) require(one.get().hasOffset(), "no offset");
        }
    }

    static Map<String, Object> consumer(Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest", "enable.auto.commit", "false"));
        config.putAll(more);
        return config;
    }

    static void readAlone(String topic, Map<String, String> wanted) {
        try (Consumer<String, String> consumer = new KafkaConsumer<>(consumer(Map.of()), new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (int index = 0; index < 4; index++) partitions.add(new TopicPartition(topic, index));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<String, String> found = new HashMap<>();
            long deadline = System.nanoTime() + 60_000_000_000L;
            while (found.size() < wanted.size() && System.nanoTime() < deadline)
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    require(record.headers().toArray().length == 2, "headers of " + record.key());
                    found.put(record.key(), record.value());
                }
            require(found.equals(wanted), "read " + found.size() + " of " + wanted.size());
            OffsetAndTimestamp first = consumer.offsetsForTimes(Map.of(partitions.get(0), 0L)).get(partitions.get(0));
            require(first.offset() == 0, "offset by time: " + first);
        }
    }

    static void readInGroup(String topic, String assignor, Set<String> wanted) throws Exception {
        Set<String> seen = ConcurrentHashMap.newKeySet();
        ExecutorService threads = Executors.newFixedThreadPool(2);
        List<Future<?>> members = new ArrayList<>();
        for (int index = 0; index < 2; index++) {
            Map<String, Object> config = consumer(Map.of("group.id", topic + assignor, "session.timeout.ms", 10000, "heartbeat.interval.ms", 500,
                    "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor));
            if (index == 0) config.put("group.instance.id", "static-member");
            members.add(threads.submit(() -> {
                try (Consumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
                    consumer.subscribe(List.of(topic));
                    long deadline = System.nanoTime() + 60_000_000_000L;
                    while (seen.size() < wanted.size() && System.nanoTime() < deadline) {
                        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) seen.add(record.key());
                        consumer.commitSync();
                    }
                    consumer.commitSync();
                }
                return null;
            }));
        }
        for (Future<?> member : members) member.get();
        threads.shutdown();
        require(seen.equals(wanted), assignor + " read " + seen.size() + " of " + wanted.size());
    }

    static void require(boolean condition, String message) {
        if (!condition) throw new AssertionError(message);
    }
}

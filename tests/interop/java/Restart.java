// Apache Kafka's own consumer in a group while the broker is killed and started again: every acknowledged record, each once and in
// order of its offset, and the member stays in its group throughout. Says "ready" when it reads, and ends when it is told on its
// standard input that the broker stays up and everything sent has been read.
import java.time.Duration;
import java.util.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

public class Restart {
    static final int PARTITIONS = 4;

    public static void main(String[] args) throws Exception {
        String bootstrap = args[0], topic = args[1], group = "group-of-" + topic;
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get();
        }
        AtomicBoolean stop = new AtomicBoolean();
        AtomicInteger acknowledged = new AtomicInteger();
        AtomicReference<Exception> refused = new AtomicReference<>();
        // By partition, the values in the order in which they were acknowledged.
        List<List<String>> wanted = new ArrayList<>();
        for (int index = 0; index < PARTITIONS; index++) wanted.add(Collections.synchronizedList(new ArrayList<>()));
        Thread sender = new Thread(() -> {
            Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "enable.idempotence", true, "linger.ms", 1, "reconnect.backoff.max.ms", 200);
            try (Producer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
                for (int number = 0; !stop.get(); number++) {
                    int partition = number % PARTITIONS;
                    String value = "value " + number;
                    producer.send(new ProducerRecord<>(topic, partition, null, value), (metadata, error) -> {
                        if (error != null) refused.set(error);
                        else {
                            wanted.get(partition).add(value);
                            acknowledged.incrementAndGet();
                        }
                    });
                    if (number % 20 == 0) Thread.sleep(1);
                }
            } catch (Exception error) {
                refused.set(error);
            }
        });
        Thread control = new Thread(() -> {
            new Scanner(System.in).nextLine();
            stop.set(true);
        });
        control.setDaemon(true);
        // A client that bootstraps anew forgets its topics, takes them for changed and joins its group again by itself.
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "group.id", group, "metadata.recovery.strategy", "none", "auto.offset.reset", "earliest",
                "enable.auto.commit", "false", "reconnect.backoff.max.ms", 200, "heartbeat.interval.ms", 300);
        List<List<String>> found = new ArrayList<>();
        for (int index = 0; index < PARTITIONS; index++) found.add(new ArrayList<>());
        AtomicInteger assigned = new AtomicInteger(), taken = new AtomicInteger();
        try (Consumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) { assigned.incrementAndGet(); }
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) { taken.incrementAndGet(); }
            });
            while (assigned.get() == 0) read(consumer, found);
            String member = consumer.groupMetadata().memberId();
            int generation = consumer.groupMetadata().generationId();
            sender.start();
            control.start();
            System.out.println("ready");
            long deadline = Long.MAX_VALUE;
            int count = 0;
            while (sender.isAlive() || (count < acknowledged.get() && System.nanoTime() < deadline)) {
                if (!sender.isAlive() && deadline == Long.MAX_VALUE) deadline = System.nanoTime() + 60_000_000_000L;
                count += read(consumer, found);
                consumer.commitAsync();
            }
            require(refused.get() == null, "the producer was refused: " + refused.get());
            require(acknowledged.get() > 1000, "only " + acknowledged.get() + " records were acknowledged");
            // Nothing comes behind what was acknowledged.
            count += read(consumer, found);
            for (int index = 0; index < PARTITIONS; index++)
                require(found.get(index).equals(wanted.get(index)), "partition " + index + ": read " + found.get(index).size() + " of " + wanted.get(index).size());
            require(assigned.get() == 1 && taken.get() == 0, "assigned " + assigned.get() + " times, revoked " + taken.get() + " times");
            require(consumer.groupMetadata().memberId().equals(member) && consumer.groupMetadata().generationId() == generation,
                    "another member or generation: " + consumer.groupMetadata());
            consumer.commitSync();
            long committed = 0;
            Set<TopicPartition> all = new HashSet<>(consumer.assignment());
            for (OffsetAndMetadata offset : consumer.committed(all).values()) committed += offset.offset();
            require(committed == count, "committed " + committed + " of " + count);
            System.out.println("read " + count + " records");
        }
    }

    // The offsets of a partition have no gap and none twice.
    static int read(Consumer<String, String> consumer, List<List<String>> found) {
        int count = 0;
        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
            List<String> values = found.get(record.partition());
            require(record.offset() == values.size(), "offset " + record.offset() + " of partition " + record.partition() + " after " + values.size() + " records");
            values.add(record.value());
            count++;
        }
        return count;
    }

    static void require(boolean condition, String message) {
        if (!condition) throw new AssertionError(message);
    }
}

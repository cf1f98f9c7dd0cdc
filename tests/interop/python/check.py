"""kafka-python: produce with keys, headers and nulls, every codec; consume alone and in a group that grows."""
import sys, threading, uuid
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

bootstrap = sys.argv[1]
topic = f"python-{uuid.uuid4().hex[:8]}"
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
admin.create_topics([NewTopic(topic, num_partitions=4, replication_factor=1)])

wanted = {}
for codec in (None, "gzip", "snappy", "lz4", "zstd"):
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", linger_ms=5)
    for number in range(200):
        key = f"{codec}-{number}".encode()
        value = None if number % 50 == 7 else b"value " * (number % 20) + key
        headers = [("h", b"1"), ("h", b"2")] if number % 3 == 0 else []
        producer.send(topic, key=key, value=value, headers=headers, partition=number % 4)
        wanted[key] = (value, headers)
    producer.flush()
    producer.close()

alone = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=5000,
                      enable_auto_commit=False)
partitions = [TopicPartition(topic, index) for index in range(4)]
alone.assign(partitions)
ends = alone.end_offsets(partitions)
assert sum(ends.values()) == len(wanted), ends
found = {}
for record in alone:
    found[record.key] = (record.value, [(k, v) for k, v in record.headers])
    if len(found) == len(wanted):
        break
assert found == wanted, "what was read is not what was written"
at_start = alone.offsets_for_times({partitions[0]: 0})
assert at_start[partitions[0]].offset == 0, at_start
alone.close()

group = f"group-{uuid.uuid4().hex[:8]}"
seen, lock, counts = set(), threading.Lock(), [0, 0]

def member(index):
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                             consumer_timeout_ms=15000, session_timeout_ms=10000, heartbeat_interval_ms=1000)
    for record in consumer:
        with lock:
            seen.add(record.key)
            counts[index] += 1
            if len(seen) == len(wanted):
                break
    consumer.commit()
    consumer.close()

threads = [threading.Thread(target=member, args=(index,)) for index in range(2)]
[thread.start() for thread in threads]
[thread.join(90) for thread in threads]
assert len(seen) == len(wanted), f"the group read {len(seen)} of {len(wanted)}"
assert group in [listed["group_id"] if isinstance(listed, dict) else getattr(listed, "group_id", listed[0])
                 for listed in admin.list_groups()], "the group is not listed"
admin.delete_topics([topic])
print("kafka-python: ok", counts)

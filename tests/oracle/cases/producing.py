"""Produce, InitProducerId, and the sequences of idempotent producers."""

import gzip
import struct
import time

import records
from cases import case
from wire import ZERO_UUID

SNAPPY, LZ4, ZSTD, GZIP = 2, 3, 4, 1
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL, DELETE_HORIZON = 8, 16, 32, 64


@case()
def produce(t):
    name = t.topic("one")
    topic_id = t.create(name, partitions=4)

    def ask(label, data, **more):
        return t.produce(label, name, topic_id, data, **more)

    good = t.batch(["a", "b"])
    ask("first", good)
    ask("acks 1", good, acks=1)
    for acks in (2, -2, 5):
        ask(f"acks {acks}", good, acks=acks)
    ask("base offset 7", t.batch(["a"], base_offset=7))
    for label, data in (
        ("wrong crc", t.batch(["a"], crc=1)), ("magic 0", t.batch(["a"], magic=0)), ("magic 1", t.batch(["a"], magic=1)), ("magic 3", t.batch(["a"], magic=3)),
        ("count too large", t.batch(["a"], count=2)), ("count too small", t.batch(["a", "b"], count=1)), ("count 0", t.batch(["a"], count=0)),
        ("count -1", t.batch(["a"], count=-1)), ("last delta too large", t.batch(["a"], last_offset_delta=4)),
        ("last delta -1", t.batch(["a"], last_offset_delta=-1)), ("no records", t.batch([])), ("count 2^31-1", t.batch(["a"], count=0x7FFFFFFF)),
        ("two batches", good + good), ("length too large", t.batch(["a"], length=5000)), ("length too small", t.batch(["a"], length=20)),
        ("length 0", t.batch(["a"], length=0)), ("bytes after the batch", good + b"xyz"), ("cut in the head", good[:40]), ("cut in the records", good[:-1]),
        ("empty", b""), ("null", None), ("zeros", bytes(80)), ("a few zeros", bytes(10)),
        ("control", t.batch(["a"], attributes=CONTROL)), ("delete horizon", t.batch(["a"], attributes=DELETE_HORIZON)),
        ("codec 5", t.batch(["a"], attributes=5)), ("codec 7", t.batch(["a"], attributes=7)), ("log append time", t.batch(["a"], attributes=LOG_APPEND_TIME)),
        ("gzip", t.batch(["a", "b"], attributes=GZIP, body=gzip.compress(records.record(0, b"a") + records.record(1, b"b"), mtime=0))),
        ("gzip of junk", t.batch(["a"], attributes=GZIP, body=gzip.compress(b"\xff" * 30, mtime=0))), ("junk for gzip", t.batch(["a"], attributes=GZIP, body=b"\xff" * 30)),
        ("junk for snappy", t.batch(["a"], attributes=SNAPPY, body=b"\xff" * 30)), ("junk for lz4", t.batch(["a"], attributes=LZ4, body=b"\xff" * 30)),
        ("junk for zstd", t.batch(["a"], attributes=ZSTD, body=b"\xff" * 30)),
        ("offsets from 3", t.batch(["a", "b"], body=records.record(3, b"a") + records.record(9, b"b"))),
        ("record longer than the batch", t.batch(["a"], body=records.varint(90) + b"\0" * 8)), ("record of -1", t.batch(["a"], body=records.varint(-1))),
        ("value longer than the record", t.batch(["a"], body=records.varint(6) + b"\0\0\0\x01" + records.varint(50) + b"\0")),
        ("2^27 headers", t.batch(["a"], body=records.varint(10) + b"\0\0\0\x01\x01" + records.varint((1 << 27) - 1)[:5])),
        ("bytes after the records", t.batch(["a"], body=records.record(0, b"a") + b"\0\0\0")),
        ("header without a key", t.batch(["a"], body=records.record(0, b"a", headers=[(None, b"x")]))),
        ("headers", t.batch(["a"], body=records.record(0, b"a", b"k", 0, [(b"h", b"x"), (b"h", None), (b"", b"")]))),
        ("null key and value", t.batch(["a"], body=records.record(0, None))),
        ("max timestamp too large", t.batch(["a"], max_timestamp=t.began_ms + 500)), ("max timestamp too small", t.batch(["a"], max_timestamp=5)),
        ("timestamp -1", t.batch(["a"], timestamp=-1)), ("timestamp 0", t.batch(["a"], timestamp=0)), ("timestamp -2", t.batch(["a"], timestamp=-2)),
        ("two hours ahead", t.batch(["a", "b"], timestamp=t.began_ms, deltas=[0, 7_200_000])),
        ("transactional, no id", t.batch(["a"], attributes=TRANSACTIONAL)), ("transactional, an id", t.batch(["a"], attributes=TRANSACTIONAL, producer=1, epoch=0, sequence=0)),
        ("an id, no sequence", t.batch(["a"], producer=4000, epoch=0, sequence=-1)), ("an id, epoch -1", t.batch(["a"], producer=4001, epoch=-1, sequence=0)),
        ("no id, a sequence", t.batch(["a"], producer=-1, epoch=-1, sequence=5)), ("too large", t.batch(["x" * 1_048_588])),
    ):
        # Kafka never answers a partition without records.
        ask(label, data, partition=1, seconds=1 if data is None else 12)
    # Partitions of their own for what one of them takes and the other does not.
    ask("gzip with inner offsets", t.batch(["a", "b"], attributes=GZIP, body=gzip.compress(
        records.record(3, b"a") + records.record(9, b"b"), mtime=0)), partition=2)
    ask("gzip and bytes behind it", t.batch(["a"], attributes=GZIP, body=gzip.compress(
        records.record(0, b"a"), mtime=0) + b"behind it" * 5), partition=3)
    ask("unknown partition", good, partition=4)
    ask("partition -1", good, partition=-1)
    unknown = t.topic("unknown")
    t.produce("unknown topic", unknown, b"\7" * 16, good)
    t.produce("bad name", "a b", ZERO_UUID, good)
    t.produce("with a transactional id", name, topic_id, good, TransactionalId="tx")
    t.ask("one good, one bad", "Produce", Acks=1, TimeoutMs=1000, TopicData=[{"Name": name, "TopicId": topic_id, "PartitionData": [
        {"Index": 0, "Records": good}, {"Index": 1, "Records": t.batch(["a"], crc=1)}, {"Index": 9, "Records": good}]}])
    t.ask("a partition twice", "Produce", Acks=1, TimeoutMs=1000, TopicData=[{"Name": name, "TopicId": topic_id, "PartitionData": [
        {"Index": 3, "Records": good}, {"Index": 3, "Records": t.batch(["c"])}]}])
    t.ask("no topics", "Produce", Acks=1, TimeoutMs=1000, TopicData=[])
    t.ask("internal topic", "Produce", 9, Acks=1, TimeoutMs=1000, TopicData=[
        {"Name": "__consumer_offsets", "PartitionData": [{"Index": 0, "Records": good}]}])
    # With acks=0 there is no answer: the next one comes, or the connection ends.
    for label, data, part in (("good", good, 0), ("bad", t.batch(["a"], crc=1), 0), ("unknown", good, 9)):
        on = f"zero {label}"
        t.send(label, "Produce", on=on, Acks=0, TimeoutMs=1000, TopicData=[
            {"Name": name, "TopicId": topic_id, "PartitionData": [{"Index": part, "Records": data}]}])
        t.ask(f"after acks 0: {label}", "ApiVersions", 0, on=on, drop=("ApiKeys",))
    for part in (0, 1):
        t.fetch("what is there", name, topic_id, 0, part)


@case()
def produce_settings(t):
    def topic(label, data, settings, **more):
        name = t.topic(label.replace(" ", "-"))
        topic_id = t.create(name, configs=settings)
        t.produce(label, name, topic_id, data, **more)
        t.fetch(label, name, topic_id, 0)

    topic("two replicas", t.batch(["a"]), {"min.insync.replicas": "2"})
    topic("two replicas acks 1", t.batch(["a"]), {"min.insync.replicas": "2"}, acks=1)
    topic("append time", t.batch(["a", "b"], deltas=[0, 5]), {"message.timestamp.type": "LogAppendTime"})
    topic("append time far ahead", t.batch(["a"], timestamp=t.began_ms + (1 << 40)), {"message.timestamp.type": "LogAppendTime"})
    topic("too old", t.batch(["a", "b", "c"], deltas=[0, -7_200_000, -7_300_000]), {"message.timestamp.before.max.ms": "3600000"})
    topic("not too old", t.batch(["a"], timestamp=-1), {"message.timestamp.before.max.ms": "3600000"})
    topic("compacted without key", t.batch(["a", "b"]), {"cleanup.policy": "compact"})
    topic("compacted with key", t.batch(["a", "b"], key=b"k"), {"cleanup.policy": "compact"})
    topic("limit", t.batch(["a" * 200]), {"max.message.bytes": "150"})
    topic("limit met", t.batch(["a"]), {"max.message.bytes": str(len(t.batch(["a"])))})
    topic("limit missed", t.batch(["a"]), {"max.message.bytes": str(len(t.batch(["a"])) - 1)})
    topic("segment", t.batch(["a" * 1_048_700]), {"segment.bytes": "1048576", "max.message.bytes": "2000000"})
    topic("uncompressed", t.batch(["a", "b"], attributes=GZIP, body=gzip.compress(records.record(0, b"a") + records.record(1, b"b"), mtime=0)),
          {"compression.type": "uncompressed"})


@case()
def producer_ids(t):
    t.ask("plain", "InitProducerId", TransactionalId=None, TransactionTimeoutMs=1000)
    first = t.ask("another", "InitProducerId", TransactionalId=None, TransactionTimeoutMs=1000)
    t.ask("no timeout", "InitProducerId", TransactionalId=None, TransactionTimeoutMs=0)
    t.ask("empty transactional id", "InitProducerId", TransactionalId="", TransactionTimeoutMs=1000)
    for label, producer, epoch in (("again", first["ProducerId"], 0), ("epoch 5", first["ProducerId"], 5), ("id without epoch", first["ProducerId"], -1),
                                   ("epoch without id", -1, 0), ("unknown", 123456, 3)):
        t.ask(label, "InitProducerId", max(3, t.version("InitProducerId")), TransactionalId=None, TransactionTimeoutMs=1000,
              ProducerId=producer, ProducerEpoch=epoch)


@case()
def sequences(t):
    name = t.topic("one")
    topic_id = t.create(name)
    producer = t.ask("id", "InitProducerId", TransactionalId=None, TransactionTimeoutMs=1000)["ProducerId"]

    def ask(label, values, sequence, epoch=0, of=producer):
        t.produce(label, name, topic_id, t.batch(values, producer=of, epoch=epoch, sequence=sequence))

    ask("first", ["a", "b"], 0)
    ask("second", ["c"], 2)
    ask("second again", ["c"], 2)
    ask("first again", ["a", "b"], 0)
    ask("half of the first", ["a"], 0)
    ask("a gap", ["x"], 9)
    ask("from the start", ["a", "b", "c"], 0)
    for index in range(3, 9):
        ask(f"sequence {index}", ["d"], index)
    ask("older than five", ["a", "b"], 0)
    ask("fifth", ["d"], 4)
    ask("fourth", ["d"], 3)
    ask("new epoch in the middle", ["x"], 9, 1)
    ask("new epoch", ["e"], 0, 1)
    ask("old epoch", ["x"], 9, 0)
    ask("new epoch again", ["e"], 0, 1)
    ask("new epoch, a gap", ["e"], 5, 1)
    ask("epoch after next", ["f"], 0, 7)
    ask("unknown producer in the middle", ["x"], 5, of=producer + 700)
    ask("unknown producer goes on", ["x"], 6, of=producer + 700)
    ask("largest sequence", ["x"], 0x7FFFFFFF, of=producer + 701)
    ask("and around", ["x"], 0, of=producer + 701)
    ask("over the edge", ["x", "y", "z"], 0x7FFFFFFE, of=producer + 702)
    ask("after the edge", ["x"], 1, of=producer + 702)
    ask("over the edge again", ["x", "y", "z"], 0x7FFFFFFE, of=producer + 702)
    t.fetch("all", name, topic_id, 0)


@case(levels=("high",), world="strict")
def narrow(t):
    name = t.topic("one")
    topic_id = t.create(name)
    t.produce("above message.max.bytes", name, topic_id, t.batch(["x" * 2000]))
    t.produce("at message.max.bytes", name, topic_id, t.batch(["x" * (2000 - len(t.batch([""])) - 2)]))
    t.produce("one more", name, topic_id, t.batch(["x" * (2000 - len(t.batch([""])) - 1)]))
    t.ask("raised", "IncrementalAlterConfigs", Resources=[{"ResourceType": 2, "ResourceName": name, "Configs": [
        {"Name": "max.message.bytes", "ConfigOperation": 0, "Value": "3000"}]}])
    time.sleep(1)  # Kafka's logs learn of their settings a moment after the answer.
    t.produce("raised", name, topic_id, t.batch(["x" * 2500]))
    t.fetch("fetch.max.bytes", name, topic_id, 0)
    t.fetch("fetch.max.bytes, further", name, topic_id, 1)
    t.send_frame("above socket.request.max.bytes", "ApiVersions", 0, struct.pack(">hhih", 18, 0, 1, -1) + bytes(4991), on="large")
    t.answer(("above socket.request.max.bytes", "ApiVersions", 0, "large", 1, ()), 3)
    # What is left over after an ApiVersions v0 body is not looked at, or closes the connection: either way alike.
    t.answer(t.send_frame("at socket.request.max.bytes", "ApiVersions", 0, struct.pack(">hhih", 18, 0, 2, -1) + bytes(4990), on="fits"), 3)

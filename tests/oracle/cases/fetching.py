"""Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords."""

import gzip

import records
from cases import case
from wire import ZERO_UUID


@case()
def fetch(t):
    name = t.topic("one")
    topic_id = t.create(name, partitions=3)
    for index in range(4):
        t.produce(f"batch {index}", name, topic_id, t.batch([f"{index}", "x" * 100], timestamp=t.began_ms + index))
    one = len(t.batch(["0", "x" * 100]))
    for offset in (0, 1, 3, 7, 8, 9, -1, -5, 1 << 40):
        t.fetch(f"from {offset}", name, topic_id, offset)
    for limit in (0, 1, one - 1, one, one + 1, 2 * one, 2 * one + 70, -1):
        t.fetch(f"partition limit {limit}", name, topic_id, 0, limit=limit)
        t.fetch(f"limit {limit}", name, topic_id, 0, MaxBytes=limit)
    t.fetch("read committed", name, topic_id, 0, IsolationLevel=1)
    t.fetch("isolation 2", name, topic_id, 0, IsolationLevel=2)
    t.fetch("unknown partition", name, topic_id, 0, 7)
    t.fetch("partition -1", name, topic_id, 0, -1)
    t.fetch("unknown topic", t.topic("unknown"), b"\7" * 16, 0)
    t.fetch("bad name", "a b", ZERO_UUID, 0)
    t.fetch("empty partition", name, topic_id, 0, 2)
    t.fetch("nothing new", name, topic_id, 8, wait_ms=50, min_bytes=1)
    t.fetch("more than there is", name, topic_id, 6, wait_ms=50, min_bytes=100_000)
    for epoch in (-1, 0, 1, 5, -2):
        t.fetch(f"epoch {epoch}", name, topic_id, 0, part={"CurrentLeaderEpoch": epoch})
        t.fetch(f"last epoch {epoch}", name, topic_id, 8, part={"LastFetchedEpoch": epoch})
        t.fetch(f"last epoch {epoch} too far", name, topic_id, 9, part={"LastFetchedEpoch": epoch})
    t.fetch("rack", name, topic_id, 0, RackId="rack-b")
    t.fetch("a follower", name, topic_id, 0, **({"ReplicaState": {"ReplicaId": 2, "ReplicaEpoch": 1}} if t.version("Fetch") >= 15 else {"ReplicaId": 2}))
    t.produce("second partition", name, topic_id, t.batch(["p1"]), partition=1)
    for limit in (1, one, 2 * one, 1 << 20):
        t.ask(f"three partitions, limit {limit}", "Fetch", MaxBytes=limit, Topics=[{"Topic": name, "TopicId": topic_id, "Partitions": [
            {"Partition": index, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20} for index in (2, 1, 0)]}])
    t.ask("a partition twice", "Fetch", Topics=[{"Topic": name, "TopicId": topic_id, "Partitions": [
        {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1000}, {"Partition": 0, "FetchOffset": 2, "PartitionMaxBytes": 1000}]}])
    for label, second, offset, wait in (("unknown waits", 7, 0, 500), ("out of range does not wait", 0, 99, 12_000)):
        t.ask(label, "Fetch", MaxWaitMs=wait, MinBytes=1, Topics=[{"Topic": name, "TopicId": topic_id, "Partitions": [
            {"Partition": 2, "FetchOffset": 0, "PartitionMaxBytes": 1000}, {"Partition": second, "FetchOffset": offset, "PartitionMaxBytes": 1000}]}],
            seconds=8)
    t.ask("no topics", "Fetch", MaxWaitMs=300, MinBytes=1, Topics=[])


@case(levels=(12,))
def tags(t):
    """Tagged fields that this version does not have: one that no version knows, one that a later version brought."""
    name = t.topic("one")
    t.create(name)
    body = t.messages["Fetch"][0].encode({"Topics": [{"Topic": name, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 9}]}]}, 12)
    assert body[-1:] == b"\0"
    for label, tagged in (("none", b"\0"), ("tag 99", b"\1\x63\1\7"), ("the replica state of v15", b"\1\1\x0d" + b"\xff" * 12 + b"\0")):
        t.answer(t.send_raw(label, "Fetch", 12, body[:-1] + tagged, on=label))


@case(levels=("high",))
def large_batch(t):
    """Two records of 40 MB in a batch of a few kilobytes."""
    name = t.topic("one")
    topic_id = t.create(name, configs={"max.message.bytes": "1000000"})
    body = gzip.compress(b"".join(records.record(index, b"\0" * 40_000_000, timestamp_delta=1000 * index) for index in (0, 1)), mtime=0)
    t.produce("both", name, topic_id, records.batch([b"", b""], t.began_ms, attributes=1, deltas=[0, 1000], body=body))
    for label, timestamp in (("before", 0), ("the first", t.began_ms), ("between", t.began_ms + 1), ("the second", t.began_ms + 1000),
                             ("behind", t.began_ms + 1001), ("the largest", -3)):
        t.ask(label, "ListOffsets", ReplicaId=-1, TimeoutMs=10_000, Topics=[
            {"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": timestamp, "CurrentLeaderEpoch": -1}]}])


@case(levels=(7, 12, 13, "high"))
def sessions(t):
    name, other = t.topic("one"), t.topic("two")
    topic_id, other_id = t.create(name, partitions=2), t.create(other)
    t.produce("data", name, topic_id, t.batch(["a"]))

    def part(index, offset):
        return {"Partition": index, "FetchOffset": offset, "PartitionMaxBytes": 1000}

    def ask(label, session, epoch, parts=(), forgotten=(), more=()):
        topics = [{"Topic": name, "TopicId": topic_id, "Partitions": [part(index, offset) for index, offset in parts]}] if parts else []
        topics += [{"Topic": other, "TopicId": other_id, "Partitions": [part(0, offset)]} for offset in more]
        return t.ask(label, "Fetch", SessionId=session, SessionEpoch=epoch, Topics=topics, ForgottenTopicsData=[
            {"Topic": name, "TopicId": topic_id, "Partitions": list(forgotten)}] if forgotten else [])

    session = ask("create", 0, 0, [(0, 0), (1, 0)])["SessionId"]
    ask("no change", session, 1)
    ask("moved on", session, 2, [(0, 1)])
    t.produce("new data", name, topic_id, t.batch(["b"]))
    ask("news", session, 3)
    ask("news again", session, 4)
    ask("moved on again", session, 5, [(0, 2)])
    ask("added", session, 6, more=[0])
    ask("forgotten", session, 7, forgotten=[1])
    t.produce("in what is forgotten", name, topic_id, t.batch(["c"]), partition=1)
    ask("forgotten says nothing", session, 8)
    ask("old epoch", session, 8)
    ask("epoch too far", session, 12)
    ask("unknown session", session + 12345, 1)
    ask("out of range", session, 9, [(0, 99)])
    ask("still out of range", session, 10)
    ask("back in range", session, 11, [(0, 2)])
    ask("unknown partition", session, 12, [(9, 0)])
    ask("still unknown", session, 13)
    ask("forget what is not there", session, 14, forgotten=[1, 5])
    ask("closed", session, -1, [(0, 0)])
    ask("after closing", session, 15)
    ask("none", 0, -1, [(0, 0)])
    ask("epoch without session", 0, 4, [(0, 0)])
    session = ask("create another", 0, 0, [(0, 0)])["SessionId"]
    ask("create again on it", session, 0, [(1, 0)])
    if t.version("Fetch") >= 13:
        session = ask("by ids", 0, 0, [(0, 0)])["SessionId"]
        t.ask("then by names", "Fetch", 12, SessionId=session, SessionEpoch=1, Topics=[{"Topic": other, "Partitions": [part(0, 0)]}])
        t.ask("unknown id in a session", "Fetch", SessionId=session, SessionEpoch=1, Topics=[{"TopicId": b"\7" * 16, "Partitions": [part(0, 0)]}])
    ask("empty", 0, 0)


@case()
def list_offsets(t):
    name = t.topic("one")
    topic_id = t.create(name, partitions=2)
    for index in range(5):
        t.produce(f"batch {index}", name, topic_id, t.batch(["a", "b"], timestamp=t.began_ms + 10 * index, deltas=[0, 5]))
    # The largest timestamp is not in the last batch.
    t.produce("an older one", name, topic_id, t.batch(["c"], timestamp=t.began_ms + 7))

    def ask(label, timestamp, partition=0, topic=name, epoch=-1, **more):
        part = {"PartitionIndex": partition, "Timestamp": timestamp, "CurrentLeaderEpoch": epoch}
        return t.ask(label, "ListOffsets", ReplicaId=-1, Topics=[{"Name": topic, "Partitions": [part]}], TimeoutMs=1000, **more)

    for timestamp in (-1, -2, -3, -4, -5, -6, -7, -100):
        ask(f"at {timestamp}", timestamp)
        ask(f"empty at {timestamp}", timestamp, 1)
        ask(f"committed at {timestamp}", timestamp, IsolationLevel=1)
    for delta in (-1000, 0, 1, 5, 6, 7, 12, 40, 45, 46, 999):
        ask(f"at +{delta}", t.began_ms + delta)
    ask("at 0", 0)
    ask("at the end of time", (1 << 63) - 1)
    ask("unknown partition", -1, 9)
    ask("unknown topic", -1, topic=t.topic("unknown"))
    ask("bad name", -1, topic="a b")
    for epoch in (-2, 0, 1, 9):
        ask(f"epoch {epoch}", -1, epoch=epoch)
    part = {"PartitionIndex": 0, "Timestamp": -1}
    t.ask("a partition twice", "ListOffsets", ReplicaId=-1, Topics=[{"Name": name, "Partitions": [part, part]}])
    t.ask("no topics", "ListOffsets", ReplicaId=-1, Topics=[])
    t.ask("replica -2", "ListOffsets", ReplicaId=-2, Topics=[{"Name": name, "Partitions": [part]}])
    t.ask("a follower", "ListOffsets", ReplicaId=2, Topics=[{"Name": name, "Partitions": [part]}])


@case()
def leader_epochs(t):
    name = t.topic("one")
    topic_id = t.create(name)
    t.ask("empty", "OffsetForLeaderEpoch", ReplicaId=-1, Topics=[{"Topic": name, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}])
    t.produce("data", name, topic_id, t.batch(["a", "b"]))
    for current in (-1, 0, 1):
        for epoch in (-1, 0, 1, 7):
            t.ask(f"current {current}, asked {epoch}", "OffsetForLeaderEpoch", ReplicaId=-1, Topics=[
                {"Topic": name, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch}]}])
    t.ask("unknown", "OffsetForLeaderEpoch", ReplicaId=-1, Topics=[
        {"Topic": name, "Partitions": [{"Partition": 5, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]},
        {"Topic": t.topic("unknown"), "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": -1, "LeaderEpoch": 0}]}])
    t.ask("a follower", "OffsetForLeaderEpoch", ReplicaId=2, Topics=[{"Topic": name, "Partitions": [{"Partition": 0, "CurrentLeaderEpoch": 0, "LeaderEpoch": 0}]}])
    t.ask("none", "OffsetForLeaderEpoch", ReplicaId=-1, Topics=[])


@case()
def delete_records(t):
    name, kept, both = t.topic("one"), t.topic("compacted"), t.topic("both")
    topic_id = t.create(name)
    t.create(kept, configs={"cleanup.policy": "compact"})
    t.create(both, configs={"cleanup.policy": "compact,delete"})
    for index in range(3):
        t.produce(f"batch {index}", name, topic_id, t.batch(["a", "b"]))

    def ask(label, offset, partition=0, topic=name):
        t.ask(label, "DeleteRecords", Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": partition, "Offset": offset}]}], TimeoutMs=5000)

    ask("to 0", 0)
    ask("to 3", 3)
    ask("to 2", 2)
    ask("beyond the end", 7)
    ask("to -2", -2)
    ask("unknown partition", 1, 4)
    ask("unknown topic", 1, topic=t.topic("unknown"))
    ask("bad name", 1, topic="a b")
    ask("compacted", 0, topic=kept)
    ask("compacted and deleted", 0, topic=both)
    ask("internal", 0, topic="__consumer_offsets")
    t.fetch("below the start", name, topic_id, 1)
    t.fetch("at the start", name, topic_id, 3)
    t.ask("start", "ListOffsets", ReplicaId=-1, Topics=[{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -2}]}])
    ask("all", -1)
    t.fetch("at the end", name, topic_id, 6)
    t.ask("by time", "ListOffsets", ReplicaId=-1, Topics=[{"Name": name, "Partitions": [{"PartitionIndex": 0, "Timestamp": 0}]}])
    t.ask("none", "DeleteRecords", Topics=[], TimeoutMs=1000)
    part = {"PartitionIndex": 0, "Offset": 6}
    t.ask("a partition twice", "DeleteRecords", Topics=[{"Name": name, "Partitions": [part, part]}], TimeoutMs=1000)

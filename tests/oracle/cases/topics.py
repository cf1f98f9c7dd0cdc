"""CreateTopics, DeleteTopics, CreatePartitions."""

from cases import case
from wire import ZERO_UUID


def new(name, partitions=1, factor=1, assignments=(), configs=None):
    return {
        "Name": name, "NumPartitions": partitions, "ReplicationFactor": factor,
        "Assignments": [{"PartitionIndex": index, "BrokerIds": ids} for index, ids in assignments],
        "Configs": [{"Name": key, "Value": value} for key, value in (configs or {}).items()],
    }


def gone(t, names, ids=()):
    """DeleteTopics in the form that the version has."""
    if t.version("DeleteTopics") < 6:
        return {"TopicNames": list(names), "TimeoutMs": 10_000}
    return {"Topics": [{"Name": name, "TopicId": ZERO_UUID} for name in names] + [{"Name": None, "TopicId": one} for one in ids],
            "TimeoutMs": 10_000}


@case()
def create_topics(t):
    def ask(label, *topics, version=None, **more):
        return t.ask(label, "CreateTopics", version, Topics=list(topics), timeoutMs=10_000, **more)

    name = t.topic("one")
    ask("validate only", new(name, 3), validateOnly=True)
    ask("one", new(name, 3))
    t.known(name, 3)
    ask("exists", new(name))
    ask("exists, validate only", new(name), validateOnly=True)
    for bad in ("a b", "", ".", "..", "x" * 250, "é", "a/b", "__consumer_offsets"):
        ask(f"name «{bad[:9]}» {len(bad)}", new(bad), validateOnly=True)
    ask("collides", new(name.replace("-", "_")), new(t.topic("a.b")), new(t.topic("a_b")))
    ask("the same twice", new(t.topic("twice")), new(t.topic("twice")), new(t.topic("fine"), 2))
    for count in (0, -2, -1):
        ask(f"{count} partitions", new(t.topic("count"), count), validateOnly=True, version=max(4, t.version("CreateTopics")))
    for factor in (0, -2, 2, 3, -1):
        ask(f"factor {factor}", new(t.topic("factor"), 1, factor), validateOnly=True, version=max(4, t.version("CreateTopics")))
    ask("defaults", new(t.topic("defaults"), -1, -1), version=max(4, t.version("CreateTopics")))
    for label, assignments in (
        ("two partitions", [(0, [1]), (1, [1])]), ("a gap", [(0, [1]), (2, [1])]), ("an unknown broker", [(0, [7])]), ("no replicas", [(0, [])]),
        ("one broker twice", [(0, [1, 1])]), ("a partition twice", [(0, [1]), (0, [1])]), ("from 1", [(1, [1])]), ("-1", [(-1, [1])]),
        ("different factors", [(0, [1]), (1, [1, 7])]), ("a negative broker", [(0, [-3])]),
    ):
        ask(f"assigned: {label}", new(t.topic("assigned"), -1, -1, assignments), validateOnly=True)
    ask("assigned and counted", new(t.topic("both"), 2, 1, [(0, [1])]), validateOnly=True)
    ask("assigned and factor", new(t.topic("both"), -1, 1, [(0, [1])]), validateOnly=True)
    ask("assigned for good", new(t.topic("assigned"), -1, -1, [(0, [1]), (1, [1])]))
    for label, configs in (
        ("unknown", {"no.such.key": "1"}), ("no number", {"retention.ms": "soon"}), ("too small", {"retention.ms": "-2"}),
        ("segment too small", {"segment.bytes": "10"}), ("policy", {"cleanup.policy": "shrink"}), ("policies", {"cleanup.policy": "compact,delete"}), ("a policy twice", {"cleanup.policy": "delete,delete"}),
        ("no policy", {"cleanup.policy": ""}), ("bool", {"preallocate": "maybe"}), ("null", {"retention.ms": None}), ("blanks", {"retention.ms": " 5 "}),
        ("codec", {"compression.type": "rar"}), ("min isr", {"min.insync.replicas": "0"}), ("dirty", {"min.cleanable.dirty.ratio": "1.5"}),
        ("timestamp type", {"message.timestamp.type": "Whatever"}), ("local above total", {"local.retention.ms": "20", "retention.ms": "10"}),
        ("lag", {"max.compaction.lag.ms": "1", "min.compaction.lag.ms": "2"}), ("gzip level", {"compression.gzip.level": "0"}),
        ("throttled", {"leader.replication.throttled.replicas": "x"}), ("broker key", {"log.retention.ms": "1"}),
        ("overflow", {"max.message.bytes": "3000000000"}), ("remote", {"remote.storage.enable": "true"}),
    ):
        ask(f"config: {label}", new(t.topic("config"), configs=configs), validateOnly=True)
    ask("config: kept", new(t.topic("kept"), configs={"retention.ms": "1000", "cleanup.policy": "compact"}))
    ask("none")


@case()
def delete_topics(t):
    name, second = t.topic("one"), t.topic("two")
    t.create(name)
    second_id = t.create(second)
    t.ask("unknown", "DeleteTopics", **gone(t, [t.topic("unknown")]))
    t.ask("bad names", "DeleteTopics", **gone(t, ["a b", ""]))
    t.ask("twice", "DeleteTopics", **gone(t, [second, second]))
    t.ask("one", "DeleteTopics", **gone(t, [name, t.topic("unknown")]))
    t.ask("again", "DeleteTopics", **gone(t, [name]))
    t.ask("none", "DeleteTopics", **gone(t, []))
    t.ask("metadata", "Metadata", 12, Topics=[{"TopicId": ZERO_UUID, "Name": name}], AllowAutoTopicCreation=False)
    if t.version("DeleteTopics") >= 6:
        t.ask("unknown id", "DeleteTopics", **gone(t, [], [b"\7" * 16]))
        t.ask("no id", "DeleteTopics", **gone(t, [], [ZERO_UUID]))
        t.ask("id and name", "DeleteTopics", Topics=[{"Name": second, "TopicId": second_id}], TimeoutMs=10_000)
        t.ask("by id", "DeleteTopics", **gone(t, [], [second_id]))
    again = t.create(name)
    t.note("a new id", again != second_id)


@case()
def create_partitions(t):
    name = t.topic("one")
    t.create(name, partitions=2)

    def ask(label, count, topic=name, assignments=None, only=True):
        return t.ask(label, "CreatePartitions", Topics=[{
            "Name": topic, "Count": count,
            "Assignments": None if assignments is None else [{"BrokerIds": ids} for ids in assignments],
        }], TimeoutMs=10_000, ValidateOnly=only)

    for count in (2, 1, 0, -1, 3):
        ask(f"{count}", count)
    ask("unknown", 3, t.topic("unknown"))
    ask("bad name", 3, "a b")
    ask("empty name", 3, "")
    for label, assignments in (("one", [[1]]), ("two", [[1], [1]]), ("none", []), ("an unknown broker", [[5]]), ("twice", [[1, 1]]),
                               ("no replicas", [[]]), ("two replicas", [[1, 2]])):
        ask(f"assigned: {label}", 3, assignments=assignments)
    ask("three", 3, only=False)
    t.known(name, 3)
    ask("three again", 3, only=False)
    ask("assigned for good", 4, assignments=[[1]], only=False)
    t.known(name, 4)
    t.ask("metadata", "Metadata", 12, Topics=[{"TopicId": ZERO_UUID, "Name": name}])
    t.ask("the same twice", "CreatePartitions", Topics=[{"Name": name, "Count": 8, "Assignments": None}] * 2, TimeoutMs=10_000)


@case(levels=("high",), world="strict")
def no_deletion(t):
    name = t.topic("kept")
    t.create(name)
    t.ask("delete", "DeleteTopics", **gone(t, [name]))
    t.ask("delete at 1", "DeleteTopics", 1, TopicNames=[name], TimeoutMs=1000)
    for version in (0, 3, 4, 12):
        t.ask(f"no automatic topic at {version}", "Metadata", version, Topics=[{"TopicId": ZERO_UUID, "Name": t.topic("absent")}],
              AllowAutoTopicCreation=True)

"""Metadata, DescribeCluster, DescribeTopicPartitions."""

from cases import case
from wire import ZERO_UUID


def topics(*names):
    return [{"TopicId": ZERO_UUID, "Name": name} for name in names]


def by_id(*ids):
    return [{"TopicId": one, "Name": None} for one in ids]


@case()
def metadata(t):
    name, three = t.topic("one"), t.topic("three")
    one_id = t.create(name)
    t.create(three, partitions=3)
    high = t.version("Metadata")
    t.ask("two", "Metadata", Topics=topics(name, three))
    t.ask("the same twice", "Metadata", Topics=topics(name, name))
    t.ask("none", "Metadata", Topics=[] if high else topics(name))
    for bad in ("a b", "", ".", "..", "x" * 249, "x" * 250, "é"):
        t.ask(f"name «{bad[:9]}» {len(bad)}", "Metadata", Topics=topics(bad), AllowAutoTopicCreation=False, version=max(high, 4))
    t.ask("unknown", "Metadata", max(high, 4), Topics=topics(name, t.topic("unknown")), AllowAutoTopicCreation=False)
    t.ask("operations", "Metadata", max(high, 8), Topics=topics(name), IncludeTopicAuthorizedOperations=True,
          **({"IncludeClusterAuthorizedOperations": True} if high <= 10 else {}))
    t.ask("internal", "Metadata", max(high, 4), Topics=topics("__transaction_state"), AllowAutoTopicCreation=False)
    if high >= 10:
        version = max(high, 12)
        t.ask("by id", "Metadata", version, Topics=by_id(one_id))
        t.ask("by unknown id", "Metadata", version, Topics=by_id(b"\7" * 16, one_id))
        t.ask("by id and by name", "Metadata", version, Topics=by_id(one_id) + topics(three))
        t.ask("neither id nor name", "Metadata", version, Topics=by_id(ZERO_UUID))
        t.ask("id before 12", "Metadata", 10, Topics=[{"TopicId": one_id, "Name": name}], on="ten")
    created = t.topic("created")
    t.ask("creates", "Metadata", Topics=topics(created), AllowAutoTopicCreation=True)
    t.known(created)
    t.ask("created", "Metadata", Topics=topics(created))
    t.ask("creates a bad name", "Metadata", Topics=topics("a b"), AllowAutoTopicCreation=True)
    # Names that differ in dots and underscores alone collide.
    t.create(t.topic("a.b"))
    t.ask("colliding", "Metadata", Topics=topics(t.topic("a_b")), AllowAutoTopicCreation=True)
    answer = t.ask("all", "Metadata", Topics=None if high else [], drop=("Topics",))
    mine = sorted(topic["Name"] for topic in answer["Topics"] if topic["Name"].startswith(t.name + "-"))
    t.note("all names", mine)


@case()
def describe_cluster(t):
    t.ask("plain", "DescribeCluster")
    t.ask("operations", "DescribeCluster", IncludeClusterAuthorizedOperations=True)
    t.ask("fenced", "DescribeCluster", 2, IncludeFencedBrokers=True)
    t.ask("controllers", "DescribeCluster", 1, EndpointType=2)
    t.ask("another kind", "DescribeCluster", 1, EndpointType=3)


@case(levels=(0,))
def describe_topic_partitions(t):
    many, other = t.topic("many"), t.topic("other")
    t.create(many, partitions=5)
    t.create(other)

    def ask(label, names, limit=2000, cursor=None, **more):
        return t.ask(label, "DescribeTopicPartitions", Topics=[{"Name": one} for one in names], ResponsePartitionLimit=limit,
                     Cursor=cursor, **more)

    def at(name, partition):
        return {"TopicName": name, "PartitionIndex": partition}

    ask("two", [many, other])
    ask("the same twice", [many, many])
    ask("unknown", [many, t.topic("unknown")])
    for bad in ("a b", "", "x" * 250):
        ask(f"name «{bad[:9]}» {len(bad)}", [bad])
    ask("limit", [many, other], limit=3)
    ask("limit at the end of a topic", [many, other], limit=5)
    ask("limit 0", [many, other], limit=0)
    ask("limit -1", [many, other], limit=-1)
    ask("on", [many, other], cursor=at(many, 3))
    ask("on and limit", [many, other], limit=1, cursor=at(many, 3))
    ask("second topic", [many, other], cursor=at(other, 0))
    ask("beyond the partitions", [many, other], cursor=at(many, 5))
    ask("far beyond the partitions", [many], cursor=at(many, 50))
    ask("cursor at a topic between", [many, other], cursor=at(t.topic("n"), 0))
    ask("cursor at an unknown topic", [many, t.topic("n")], cursor=at(t.topic("n"), 1))
    ask("cursor after all", [many, other], cursor=at("zzzz", 0))
    ask("cursor at -1", [many, other], cursor=at(many, -1))
    answer = ask("all", [], drop=("Topics",))
    t.note("all names", sorted(topic["Name"] for topic in answer["Topics"] if topic["Name"].startswith(t.name)))

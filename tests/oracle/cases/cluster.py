"""Log directories, elections, reassignments, and the quorum of one voter."""

from cases import case


@case()
def log_dirs(t):
    name, other = t.topic("one"), t.topic("two")
    topic_id = t.create(name, partitions=2)
    t.create(other)
    t.produce("produce", name, topic_id, t.batch(["a value", "another"]), version=9)
    t.produce("produce again", name, topic_id, t.batch(["x" * 1000]), version=9)

    def told(label, topics):
        answer = t.ask(label, "DescribeLogDirs", Topics=topics, drop=("Results",))
        for result in answer["Results"]:
            if topics is None:
                result["Topics"] = [topic for topic in result["Topics"] if topic["Name"] in (name, other)]
            sizes = [result.pop("TotalBytes", 1), result.pop("UsableBytes", 1)]
            result.pop("IsCordoned", None)
            t.note(f"{label}: its file system has a size", sizes[0] >= sizes[1] > 0)
            t.note(f"{label}: an absolute path", result.pop("LogDir").startswith("/"))
            t.note(f"{label}: directory", t.words.plain("", result))

    told("all", None)
    told("none", [])
    told("some", [{"Topic": name, "Partitions": [0, 7, 0]}, {"Topic": t.topic("unknown"), "Partitions": [0]}, {"Topic": other, "Partitions": []}])
    told("the metadata", [{"Topic": "__cluster_metadata", "Partitions": [0]}])


@case()
def elections(t):
    name = t.topic("one")
    t.create(name)
    asked = [{"Topic": name, "Partitions": [0, 5]}, {"Topic": t.topic("unknown"), "Partitions": [0]}]
    for kind in (0, 1, 2, -1):
        t.ask(f"type {kind}", "ElectLeaders", ElectionType=kind, TopicPartitions=asked, TimeoutMs=5000)
    t.ask("none", "ElectLeaders", TopicPartitions=[], TimeoutMs=5000)
    for kind in (0, 1):
        answer = t.ask(f"all, type {kind}", "ElectLeaders", ElectionType=kind, TopicPartitions=None, TimeoutMs=5000, drop=("ReplicaElectionResults",))
        t.note(f"all, type {kind}: nobody needed one", [one for one in answer["ReplicaElectionResults"] if one["PartitionResult"]])
        t.note(f"all, type {kind}: every topic is told", name in [one["Topic"] for one in answer["ReplicaElectionResults"]])


@case()
def reassignments(t):
    name = t.topic("one")
    t.create(name)

    def move(label, replicas, topic=name, partition=0, **more):
        t.ask(label, "AlterPartitionReassignments", TimeoutMs=5000, Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": partition, "Replicas": replicas}]}], **more)

    move("where it is", [1])
    move("as many replicas", [1], AllowReplicationFactorChange=False)
    move("end a move", None)
    for label, replicas in (("nowhere", []), ("an unknown broker", [2]), ("one more", [1, 2]), ("the same twice", [1, 1]), ("a negative id", [-1])):
        move(label, replicas)
    for label, replicas in (("move", [1]), ("end", None), ("nowhere", [])):
        move(f"unknown topic: {label}", replicas, topic=t.topic("unknown"))
        move(f"unknown partition: {label}", replicas, partition=7)
    t.ask("no topics", "AlterPartitionReassignments", TimeoutMs=5000, Topics=[])
    t.ask("list all", "ListPartitionReassignments", TimeoutMs=5000, Topics=None)
    t.ask("list some", "ListPartitionReassignments", TimeoutMs=5000, Topics=[{"Name": name, "PartitionIndexes": [0, 7]}, {"Name": t.topic("unknown"), "PartitionIndexes": [0]}])

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


METADATA = "__cluster_metadata"


@case()
def quorum(t):
    def ask(label, *topics, drop=()):
        return t.ask(label, "DescribeQuorum", Topics=[{"TopicName": name, "Partitions": [{"PartitionIndex": index} for index in indexes]}
                                                      for name, indexes in topics], drop=drop)

    answer = ask("status", (METADATA, [0]), drop=("Topics", "Nodes"))
    partition = answer["Topics"][0]["Partitions"][0]
    voters = partition.pop("CurrentVoters")
    end, epoch = partition.pop("HighWatermark"), partition.pop("LeaderEpoch")
    t.note("status: it goes on", end > 10 and epoch >= 0)
    t.note("status: the partition", t.words.plain("", partition))
    t.note("status: the voter is not behind", [voter.pop("LogEndOffset") >= end for voter in voters])
    times = [voter.pop(name) for voter in voters for name in ("LastFetchTimestamp", "LastCaughtUpTimestamp") if name in voter]
    t.note("status: and was just there", all(abs(time - t.began_ms) < 600_000 for time in times))
    t.note("status: voters", t.words.plain("", voters))
    t.note("status: nodes", [node["NodeId"] for node in answer.get("Nodes", [])])
    ask("another topic", ("x", [0]))
    ask("another partition", (METADATA, [1]))
    ask("two partitions", (METADATA, [0, 1]))
    ask("the same twice", (METADATA, [0]), (METADATA, [0]))
    ask("no partition", (METADATA, []))
    ask("no topic")


@case()
def features(t):
    def update(label, *updates, only=True):
        t.ask(label, "UpdateFeatures", timeoutMs=5000, ValidateOnly=only and t.version("UpdateFeatures") > 0, FeatureUpdates=[
            {"Feature": name, "MaxVersionLevel": level, "UpgradeType": kind, "AllowDowngrade": kind != 1} for name, level, kind in updates])

    update("nothing")
    update("an unknown feature", ("no.such", 1, 1))
    update("the level that it has", ("metadata.version", 30, 1), only=False)
    update("the level that it has, twice", ("metadata.version", 30, 1), ("metadata.version", 30, 1))
    update("one of two is unknown", ("no.such", 1, 1), ("metadata.version", 30, 1))
    for label, level, kind in (("lower", 7, 1), ("lower, safely", 7, 2), ("lower, unsafely", 25, 3), ("higher", 99, 1), ("level 0", 0, 2),
                               ("a negative level", -1, 2), ("type 9", 30, 9), ("type 0", 30, 0)):
        update(label, ("metadata.version", level, kind))


@case()
def voters(t):
    directory = bytes(15) + b"a"
    listener = [{"Name": "CONTROLLER", "Host": "localhost", "Port": 1}]
    for label, cluster, voter, where, listeners in (
        ("add", None, 2, directory, listener), ("add to another cluster", "x", 2, directory, listener), ("add without directory", None, 2, bytes(16), listener),
        ("add without listeners", None, 2, directory, []), ("add what is there", None, 1, directory, listener),
    ):
        t.ask(label, "AddRaftVoter", ClusterId=cluster, TimeoutMs=500, VoterId=voter, VoterDirectoryId=where, Listeners=listeners)
    for label, cluster, voter, where in (("remove", None, 2, directory), ("remove from another cluster", "x", 2, directory),
                                         ("remove without directory", None, 1, bytes(16))):
        t.ask(label, "RemoveRaftVoter", ClusterId=cluster, VoterId=voter, VoterDirectoryId=where)
    t.ask("unregister nobody", "UnregisterBroker", BrokerId=77)
    t.ask("unregister -1", "UnregisterBroker", BrokerId=-1)

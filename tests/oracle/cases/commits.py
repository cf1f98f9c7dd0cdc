"""OffsetCommit, OffsetFetch."""

from cases import case
from cases.groups import member_of, sync


@case()
def commits(t):
    group, name, other = t.topic("group"), t.topic("one"), t.topic("two")
    t.create(name, partitions=2)
    t.create(other)

    def commit(label, parts, topic=name, to=group, generation=-1, member="", **more):
        return t.ask(label, "OffsetCommit", GroupId=to, GenerationIdOrMemberEpoch=generation, MemberId=member, Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": index, "CommittedOffset": offset, "CommittedMetadata": text, "CommittedLeaderEpoch": epoch}
                                           for index, offset, text, epoch in parts]}], **more)

    def read(label, topics, of=group, version=None, **more):
        version = t.version("OffsetFetch") if version is None else version
        asked = None if topics is None else [{"Name": topic, "PartitionIndexes": parts} for topic, parts in topics]
        if version < 8:
            if asked is None and version < 2:
                return None
            return t.ask(label, "OffsetFetch", version, GroupId=of, Topics=asked, **more)
        return t.ask(label, "OffsetFetch", version, Groups=[{"GroupId": of, "Topics": asked, "MemberId": None, "MemberEpoch": -1}], **more)

    read("unknown group", [(name, [0, 1])])
    read("all of an unknown group", None)
    commit("first", [(0, 5, "text", 0), (1, 7, None, -1)])
    read("first", [(name, [0, 1])])
    read("some", [(name, [0]), (other, [0]), (t.topic("unknown"), [0])])
    read("unknown partition", [(name, [7])])
    read("all", None)
    read("none", [])
    read("no group", [(name, [0])], of="")
    read("stable", [(name, [0])], version=max(7, t.version("OffsetFetch")), RequireStable=True)
    for label, parts, topic in (("again", [(0, 6, "", 3)], name), ("negative", [(0, -1, "", -1)], name), ("smaller", [(0, 2, "", -1)], name),
                                ("unknown topic", [(0, 1, "", -1)], t.topic("unknown")), ("bad name", [(0, 1, "", -1)], "a b"),
                                ("unknown partition", [(1, 9, "", -1), (5, 1, "", -1)], name), ("long text", [(0, 3, "x" * 4097, -1)], name),
                                ("just so long", [(1, 3, "x" * 4096, -1)], name), ("no partitions", [], name), ("epoch 9", [(0, 4, "", 9)], name)):
        commit(label, parts, topic)
        read(f"after {label}", [(name, [0, 1])])
    commit("no group", [(0, 1, "", -1)], to="")
    commit("a generation, no group yet", [(0, 1, "", -1)], to=t.topic("absent"), generation=3, member="m")
    commit("a member, no generation", [(0, 1, "", -1)], to=t.topic("absent"), member="m")
    commit("a generation of an empty group", [(0, 1, "", -1)], generation=3, member="m")
    commit("generation -2", [(0, 1, "", -1)], to=t.topic("absent"), generation=-2)
    t.ask("no topics", "OffsetCommit", GroupId=group, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[])
    if t.version("OffsetFetch") >= 8:
        t.ask("several groups", "OffsetFetch", Groups=[{"GroupId": one, "Topics": [{"Name": name, "PartitionIndexes": [0]}], "MemberId": None, "MemberEpoch": -1}
                                                       for one in (group, t.topic("absent"), group, "")])
        t.ask("no groups", "OffsetFetch", Groups=[])
    if t.version("OffsetFetch") >= 9:
        t.ask("a member of an unknown group", "OffsetFetch", Groups=[{"GroupId": t.topic("absent"), "MemberId": "m", "MemberEpoch": 3, "Topics": None}])
        t.ask("a member of a classic group", "OffsetFetch", Groups=[{"GroupId": group, "MemberId": "m", "MemberEpoch": 3, "Topics": None}])
    t.ask("describe", "DescribeGroups", Groups=[group])
    live = t.topic("live")
    answer = member_of(t, "join", live)
    member, generation = answer["MemberId"], answer["GenerationId"]
    commit("before sync", [(0, 1, "", -1)], to=live, generation=generation, member=member)
    commit("before sync, no member", [(0, 1, "", -1)], to=live)
    sync(t, "sync", live, generation, member, [(member, b"")])
    commit("good", [(0, 1, "", -1)], to=live, generation=generation, member=member)
    commit("old generation", [(0, 1, "", -1)], to=live, generation=generation - 1, member=member)
    commit("later generation", [(0, 1, "", -1)], to=live, generation=generation + 1, member=member)
    commit("unknown member", [(0, 1, "", -1)], to=live, generation=generation, member="nobody")
    commit("no member", [(0, 1, "", -1)], to=live)
    commit("member without generation", [(0, 1, "", -1)], to=live, member=member)
    read("live", [(name, [0])], of=live)
    t.ask("leave", "LeaveGroup", 2, GroupId=live, MemberId=member)
    commit("after leaving", [(0, 8, "", -1)], to=live, generation=generation, member=member)
    commit("simple, after leaving", [(0, 9, "", -1)], to=live)
    read("at last", [(name, [0])], of=live)
    t.ask("delete", "DeleteGroups", GroupsNames=[live])
    read("deleted", [(name, [0])], of=live)
    # Offsets of a deleted topic go with it.
    t.ask("delete the topic", "DeleteTopics", 1, TopicNames=[name], TimeoutMs=10_000)
    t.until("offsets gone", lambda answer: not answer["Topics"], "OffsetFetch", 7, GroupId=group, Topics=None)
    read("offsets of a deleted topic", None, version=7)


@case()
def offset_deletes(t):
    name, other = t.topic("one"), t.topic("two")
    t.create(name, partitions=2)
    t.create(other)
    group = t.topic("group")

    def commit(to):
        t.ask(f"commit {to}", "OffsetCommit", 5, GroupId=to, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 3, "CommittedMetadata": ""}]} for topic in (name, other)])

    def delete(label, of, topics):
        t.ask(label, "OffsetDelete", GroupId=of, Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": index} for index in indexes]} for topic, indexes in topics])

    def left(label, of):
        t.ask(label, "OffsetFetch", 5, GroupId=of, Topics=None)

    delete("no group", t.topic("absent"), [(name, [0])])
    delete("no group and no topic", t.topic("absent"), [(t.topic("unknown"), [0])])
    delete("empty group id", "", [(name, [0])])
    commit(group)
    delete("nothing", group, [])
    delete("a topic without partitions", group, [(name, [])])
    delete("one, one that was not committed, one that is not there", group, [(name, [0, 1, 9]), (t.topic("unknown"), [0])])
    left("the other is left", group)
    delete("again", group, [(name, [0])])
    delete("the last", group, [(other, [0])])
    left("nothing is left", group)
    t.ask("the group afterwards", "DescribeGroups", 5, Groups=[group])
    live = t.topic("live")
    answer = member_of(t, "join", live)
    sync(t, "sync", live, answer["GenerationId"], answer["MemberId"], [(answer["MemberId"], b"")])
    t.ask("commit live", "OffsetCommit", 5, GroupId=live, GenerationIdOrMemberEpoch=answer["GenerationId"], MemberId=answer["MemberId"], Topics=[
        {"Name": name, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 3, "CommittedMetadata": ""}]}])
    delete("of members who tell no topics", live, [(name, [0]), (other, [0])])
    left("live", live)


@case(levels=("high",), world="strict")
def short_metadata(t):
    name = t.topic("one")
    t.create(name)
    for text in ("12345678", "123456789"):
        t.ask(f"{len(text)} bytes", "OffsetCommit", 5, GroupId=t.topic("group"), GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[
            {"Name": name, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": text}]}])

"""The life of a classic group: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups, DeleteGroups, FindCoordinator."""

from cases import case

PROTOCOLS = [{"Name": "range", "Metadata": b"\0\0r"}, {"Name": "roundrobin", "Metadata": b"\0\0rr"}]


def join_fields(group, member="", instance=None, protocols=None, kind="consumer", session=30_000, rebalance=5_000):
    return {"GroupId": group, "SessionTimeoutMs": session, "RebalanceTimeoutMs": rebalance, "MemberId": member, "GroupInstanceId": instance,
            "ProtocolType": kind, "Protocols": PROTOCOLS if protocols is None else protocols, "Reason": "oracle"}


def join(t, label, group, member="", **more):
    version = more.pop("version", None)
    return t.ask(label, "JoinGroup", version, on=more.pop("on", ""), **join_fields(group, member, **more))


def member_of(t, label, group, **more):
    """Joins, in two steps where the version wants them."""
    answer = join(t, label, group, **more)
    if answer["ErrorCode"] == 79:
        answer = join(t, f"{label}, with the id", group, answer["MemberId"], **more)
    return answer


def sync(t, label, group, generation, member, assignments=(), instance=None, on="", **more):
    return t.ask(label, "SyncGroup", on=on, GroupId=group, GenerationId=generation, MemberId=member, GroupInstanceId=instance, Assignments=[
        {"MemberId": one, "Assignment": data} for one, data in assignments], **{"ProtocolType": "consumer", "ProtocolName": "range", **more})


def beat(t, label, group, generation, member, instance=None, **more):
    return t.ask(label, "Heartbeat", GroupId=group, GenerationId=generation, MemberId=member, GroupInstanceId=instance, **more)


def leave(t, label, group, *members):
    if t.version("LeaveGroup") < 3:
        return [t.ask(f"{label} {index}", "LeaveGroup", GroupId=group, MemberId=member) for index, (member, _) in enumerate(members)]
    return t.ask(label, "LeaveGroup", GroupId=group, Members=[
        {"MemberId": member, "GroupInstanceId": instance, "Reason": "oracle"} for member, instance in members])


def describe(t, label, *groups, **more):
    return t.ask(label, "DescribeGroups", Groups=list(groups), **more)


@case()
def find_coordinator(t):
    version = t.version("FindCoordinator")
    # Not 1, transactions: Kafka would make a topic for them.
    for kind in (0, 2, 3, -1):
        for key in ("a group", "", "é"):
            t.ask(f"type {kind} «{key}»", "FindCoordinator", Key=key, KeyType=kind) if version < 4 else t.ask(
                f"type {kind} «{key}»", "FindCoordinator", CoordinatorKeys=[key], KeyType=kind)
    if version >= 4:
        t.ask("two", "FindCoordinator", CoordinatorKeys=["a", "b", "a"], KeyType=0)
        t.ask("none", "FindCoordinator", CoordinatorKeys=[], KeyType=0)


@case(world="fresh")
def without_coordinator(t):
    """Before the offsets topic exists."""
    for group in ("", "g"):
        join(t, f"join «{group}»", group)
        join(t, f"join «{group}» with an id", group, "m")
        join(t, f"join «{group}», session too short", group, session=1)
        join(t, f"join «{group}», session too long", group, session=1 << 30)
        join(t, f"join «{group}», no protocols", group, protocols=[])
        sync(t, f"sync «{group}»", group, 1, "m")
        sync(t, f"sync «{group}» without a protocol", group, 1, "m", ProtocolType=None, ProtocolName=None)
        beat(t, f"beat «{group}»", group, 1, "m")
        leave(t, f"leave «{group}»", group, ("m", None))
        t.ask(f"commit «{group}»", "OffsetCommit", GroupId=group, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[])
        describe(t, f"describe «{group}»", group)
        t.ask(f"delete «{group}»", "DeleteGroups", GroupsNames=[group])
    t.ask("list", "ListGroups")


@case()
def alone(t):
    group = t.topic("group")
    describe(t, "before", group)
    answer = member_of(t, "join", group)
    member, generation = answer["MemberId"], answer["GenerationId"]
    describe(t, "joined", group)
    beat(t, "before sync", group, generation, member)
    for label, gen, who in (("old generation", generation - 1, member), ("later generation", generation + 1, member), ("unknown member", generation, "nobody"),
                            ("no member", generation, "")):
        sync(t, f"sync: {label}", group, gen, who)
    if t.version("SyncGroup") >= 5:
        sync(t, "sync: other type", group, generation, member, ProtocolType="connect")
        sync(t, "sync: other protocol", group, generation, member, ProtocolName="roundrobin")
        sync(t, "sync: no names", group, generation, member, [(member, b"mine")], ProtocolType=None, ProtocolName=None)
    else:
        sync(t, "sync", group, generation, member, [(member, b"mine"), ("nobody", b"x")])
    sync(t, "sync again", group, generation, member, [(member, b"other")])
    describe(t, "stable", group)
    for label, gen, who in (("good", generation, member), ("old generation", generation - 1, member), ("later generation", generation + 9, member),
                            ("unknown member", generation, "nobody"), ("no member", generation, "")):
        beat(t, f"beat: {label}", group, gen, who)
    join(t, "the same again", group, member)
    describe(t, "after the same again", group)
    join(t, "unknown member", group, "nobody")
    t.ask("delete, not empty", "DeleteGroups", GroupsNames=[group])
    leave(t, "leave", group, (member, None))
    leave(t, "leave again", group, (member, None))
    beat(t, "after leaving", group, generation, member)
    sync(t, "sync after leaving", group, generation, member)
    describe(t, "empty", group)
    join(t, "vanished member", group, member)
    t.ask("delete", "DeleteGroups", GroupsNames=[group])
    t.ask("delete again", "DeleteGroups", GroupsNames=[group])
    describe(t, "deleted", group)
    beat(t, "deleted", group, generation, member)
    leave(t, "leave what is deleted", group, (member, None))


@case()
def wrong_joins(t):
    group = t.topic("group")
    for label, more in (
        ("session too short", {"session": 5_999}), ("session too long", {"session": 1_800_001}), ("session 0", {"session": 0}),
        ("no protocols", {"protocols": []}), ("no type", {"kind": ""}), ("unknown member", {"member": "nobody"}),
    ):
        join(t, label, t.topic("refused"), **more)
    describe(t, "after refused joins", t.topic("refused"))
    join(t, "no group", "")
    if t.version("JoinGroup") >= 5:
        join(t, "empty instance", t.topic("odd-1"), instance="")
        join(t, "instance with a blank", t.topic("odd-2"), instance="a b")
        join(t, "long instance", t.topic("odd-3"), instance="x" * 250)
        join(t, "unknown member of an instance", t.topic("refused"), member="nobody", instance="one")
    beat(t, "beat: unknown group", group, 0, "nobody")
    beat(t, "beat: no group", "", 0, "nobody")
    sync(t, "sync: unknown group", group, 0, "nobody")
    sync(t, "sync: no group", "", 0, "nobody")
    leave(t, "leave: unknown group", group, ("nobody", None))
    leave(t, "leave: no group", "", ("nobody", None))
    describe(t, "unknown", group)
    describe(t, "none")
    describe(t, "no name", "")
    t.ask("the same twice", "DescribeGroups", Groups=[group, group])
    t.ask("delete unknown", "DeleteGroups", GroupsNames=[group, ""])
    t.ask("delete none", "DeleteGroups", GroupsNames=[])
    one = member_of(t, "first", group)
    join(t, "other type", group, kind="connect", on="b")
    join(t, "no protocol in common", group, protocols=[{"Name": "sticky", "Metadata": b""}], on="b")
    sync(t, "first", group, one["GenerationId"], one["MemberId"], [(one["MemberId"], b"1")])
    join(t, "the first with another type", group, one["MemberId"], kind="connect")
    join(t, "the first with other protocols", group, one["MemberId"], protocols=[{"Name": "sticky", "Metadata": b"s"}])
    describe(t, "with other protocols", group)
    leave(t, "last", group, (one["MemberId"], None))


@case()
def pair(t):
    group = t.topic("group")
    first = member_of(t, "first", group)
    one, generation = first["MemberId"], first["GenerationId"]
    sync(t, "first", group, generation, one, [(one, b"all")])
    # The second waits until the first has joined again.
    if t.version("JoinGroup") >= 4:
        two = join(t, "second", group, on="b")["MemberId"]
        describe(t, "one is pending", group)
        waiting = t.send("second waits", "JoinGroup", on="b", **join_fields(group, two))
    else:
        two = None
        waiting = t.send("second waits", "JoinGroup", on="b", **join_fields(group))
    t.until("a rebalance", lambda answer: answer["ErrorCode"] == 27, "Heartbeat", GroupId=group, GenerationId=generation, MemberId=one)
    beat(t, "rebalance", group, generation, one)
    sync(t, "in a rebalance", group, generation, one)
    t.ask("state", "ListGroups", 4, StatesFilter=["preparingrebalance"], drop=("Groups",))
    describe(t, "preparing", group)
    again = join(t, "first again", group, one)
    second = t.answer(waiting)
    two, generation = two or second["MemberId"], again["GenerationId"]
    t.note("one leads", [again["Leader"] == one, second["Leader"] == one])
    waiting = t.send("second syncs", "SyncGroup", on="b", GroupId=group, GenerationId=generation, MemberId=two, ProtocolType="consumer", ProtocolName="range")
    describe(t, "completing", group)
    beat(t, "completing", group, generation, one)
    sync(t, "leader syncs", group, generation, one, [(one, b"for one"), (two, b"for two")])
    t.answer(waiting)
    describe(t, "stable", group)
    waiting = t.send("the leader again", "JoinGroup", **join_fields(group, one))
    t.until("a rebalance", lambda answer: answer["ErrorCode"] == 27, "Heartbeat", on="b", GroupId=group, GenerationId=generation, MemberId=two)
    join(t, "the follower again", group, two, on="b")
    t.answer(waiting)
    leave(t, "both", group, (one, None), (two, None), ("nobody", None))
    describe(t, "empty", group)


@case(levels=("middle", "high"))
def static_members(t):
    group = t.topic("group")
    version = max(5, t.version("JoinGroup"))
    first = join(t, "first", group, instance="i-1", version=version)
    one, generation = first["MemberId"], first["GenerationId"]
    sync(t, "first", group, generation, one, [(one, b"all")], instance="i-1")
    describe(t, "stable", group)
    again = join(t, "restarted", group, instance="i-1", version=version)
    new = again["MemberId"]
    t.note("what a restart keeps", [again["GenerationId"] == generation, new == one, again["Leader"] == new, again["Leader"] == one])
    join(t, "the old one", group, one, instance="i-1", version=version)
    beat(t, "the old one", group, generation, one, instance="i-1")
    beat(t, "the old one, no instance", group, generation, one)
    beat(t, "the new one", group, generation, new, instance="i-1")
    beat(t, "unknown instance", group, generation, new, instance="i-9")
    sync(t, "the old one", group, generation, one, instance="i-1")
    sync(t, "the new one", group, again["GenerationId"], new, [(new, b"all")], instance="i-1")
    join(t, "unknown id with the instance", group, "nobody", instance="i-1", version=version)
    changed = join(t, "restarted with other protocols", group, instance="i-1", version=version, protocols=[{"Name": "range", "Metadata": b"new"}])
    t.note("what a change makes", [changed["GenerationId"] - generation, changed["Leader"] == changed["MemberId"]])
    t.ask("commit of the old one", "OffsetCommit", 7, GroupId=group, GenerationIdOrMemberEpoch=generation, MemberId=one, GroupInstanceId="i-1", Topics=[])
    t.ask("leave, wrong id", "LeaveGroup", 3, GroupId=group, Members=[{"MemberId": "nobody", "GroupInstanceId": "i-1"}])
    t.ask("leave, unknown instance", "LeaveGroup", 3, GroupId=group, Members=[{"MemberId": "", "GroupInstanceId": "i-9"}])
    t.ask("leave by instance", "LeaveGroup", 3, GroupId=group, Members=[{"MemberId": "", "GroupInstanceId": "i-1"}])
    describe(t, "empty", group)


@case(levels=(0, 2, 3, 4, 5))
def list_groups(t):
    group, empty = t.topic("stable"), t.topic("empty")
    one = member_of(t, "member", group, version=4)
    t.ask("sync", "SyncGroup", 3, GroupId=group, GenerationId=one["GenerationId"], MemberId=one["MemberId"], Assignments=[])
    other = member_of(t, "another", empty, version=4)
    t.ask("leave", "LeaveGroup", 2, GroupId=empty, MemberId=other["MemberId"])
    committed = t.topic("offsets-only")
    topic = t.topic("topic")
    t.create(topic)
    t.ask("commit", "OffsetCommit", 5, GroupId=committed, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[
        {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}]}])
    for states in ([], ["Stable"], ["stable"], ["EMPTY", "Stable"], ["Dead"], ["Junk"], ["PreparingRebalance"], ["Assigning"], [""]):
        for types in ([], ["classic"], ["CLASSIC", "consumer"], ["consumer"], ["junk"]) if t.level >= 5 and not states else ([],):
            answer = t.ask(f"states {states} types {types}", "ListGroups", StatesFilter=states, TypesFilter=types, drop=("Groups",))
            if answer:
                t.note(f"groups: states {states} types {types}", [one for one in answer["Groups"] if one["GroupId"].startswith(t.name)])
    t.ask("leave", "LeaveGroup", 2, GroupId=group, MemberId=one["MemberId"])


@case(levels=("high",), world="strict")
def bounds(t):
    """group.max.size and the bounds of the session time-out."""
    for session in (6_999, 7_000, 9_000, 9_001):
        join(t, f"session {session}", t.topic("session"), session=session)
    # Whoever does not join again is waited for two seconds; connections that say nothing for five are closed.
    group = t.topic("group")
    first = member_of(t, "first", group, session=8_000, rebalance=2_000, version=3)
    sync(t, "first", group, first["GenerationId"], first["MemberId"], [(first["MemberId"], b"")])
    # Who leads when the first is gone is anybody's guess with Kafka.
    led = ("Leader", "MemberId", "Members")
    waiting = t.send("second", "JoinGroup", 3, on="b", drop=led, **join_fields(group, session=8_000, rebalance=2_000))
    t.until("a rebalance", lambda answer: answer["ErrorCode"] == 27, "Heartbeat", 0, GroupId=group, GenerationId=first["GenerationId"],
            MemberId=first["MemberId"])
    t.ask("third", "JoinGroup", 3, on="c", drop=led, **join_fields(group, session=8_000, rebalance=2_000))
    join(t, "third at the highest version", group, session=8_000, rebalance=2_000, on="c")
    join(t, "first again", group, first["MemberId"], session=8_000, rebalance=2_000)
    t.answer(waiting)
    join(t, "third, after the rebalance", group, session=8_000, rebalance=2_000, on="c")

"""DescribeClientQuotas, AlterClientQuotas, and what comes of quotas."""

from cases import case

RATE = "producer_byte_rate"


@case()
def client_quotas(t):
    user, client, other = t.topic("user"), t.topic("client"), t.topic("other")

    def alter(label, entity, *ops, only=False):
        t.ask(label, "AlterClientQuotas", ValidateOnly=only, Entries=[{
            "Entity": [{"EntityType": kind, "EntityName": name} for kind, name in entity],
            "Ops": [{"Key": key, "Value": value or 0.0, "Remove": value is None} for key, value in ops]}])

    def known(filter, count):
        """Kafka's broker learns of quotas a moment after a change of them was answered."""
        t.until("quotas", lambda answer: len(answer["Entries"]) == count, "DescribeClientQuotas", 1, Components=filter, Strict=False)

    def describe(label, *components, strict=False):
        t.ask(label, "DescribeClientQuotas", Strict=strict, Components=[
            {"EntityType": kind, "MatchType": match, "Match": name} for kind, match, name in components])

    alter("a user", [("user", user)], (RATE, 1000.0))
    alter("a user's client", [("client-id", client), ("user", user)], ("consumer_byte_rate", 1000.0), ("request_percentage", 12.5))
    alter("a user's default client", [("client-id", None), ("user", user)], ("controller_mutation_rate", 1.5))
    alter("a client", [("client-id", client)], (RATE, 5000.0))
    alter("validate only", [("user", other)], (RATE, 7.0), only=True)
    known([{"EntityType": "user", "MatchType": 0, "Match": user}], 3)
    for strict in (False, True):
        describe(f"the user, {strict}", ("user", 0, user), strict=strict)
        describe(f"the user and any client, {strict}", ("user", 0, user), ("client-id", 2, None), strict=strict)
        describe(f"the user and the default client, {strict}", ("user", 0, user), ("client-id", 1, None), strict=strict)
        describe(f"the client, {strict}", ("client-id", 0, client), strict=strict)
        describe(f"nobody, {strict}", ("user", 0, other), strict=strict)
    alter("set again", [("user", user)], (RATE, 1000.0))
    alter("removed", [("client-id", client)], (RATE, None))
    alter("removed again", [("client-id", client)], (RATE, None))
    alter("one set, one removed", [("client-id", client), ("user", user)], ("consumer_byte_rate", None), (RATE, 3.0))
    t.until("the last change", lambda answer: sorted(value["Key"] for value in answer["Entries"][0]["Values"]) == [RATE, "request_percentage"],
            "DescribeClientQuotas", 1, Components=[{"EntityType": "client-id", "MatchType": 0, "Match": client}], Strict=False)
    describe("what is left of the client", ("client-id", 0, client))
    for label, entity, op in (
        ("fraction", [("user", user)], (RATE, 10.5)), ("nearly none", [("user", user)], (RATE, 10.0000001)), ("zero", [("user", user)], (RATE, 0.0000)),
        ("negative", [("user", user)], (RATE, -1.0)), ("infinite", [("user", user)], (RATE, float("inf"))), ("too large", [("user", user)], (RATE, 1e30)),
        ("small percentage", [("user", user)], ("request_percentage", 0.01)), ("unknown key", [("user", user)], ("no.such.key", 1.0)),
        ("remove unknown key", [("user", user)], ("no.such.key", None)), ("empty key", [("user", user)], ("", 1.0)),
        ("unknown type", [("group", "x")], (RATE, 1.0)), ("empty type", [("", "x")], (RATE, 1.0)), ("empty name", [("user", "")], (RATE, 1.0)),
        ("no entity", [], (RATE, 1.0)), ("a type twice", [("user", other), ("user", user)], (RATE, 1000.0)),
        ("an address", [("ip", "10.1.2.3")], ("connection_creation_rate", 9.0)), ("no address", [("ip", "a b")], ("connection_creation_rate", 9.0)),
        ("an address's rate of bytes", [("ip", "10.1.2.3")], (RATE, 9.0)), ("fraction of an address", [("ip", "10.1.2.3")], ("connection_creation_rate", 9.5)),
        ("too large of an address", [("ip", "10.1.2.3")], ("connection_creation_rate", 3e9)), ("an address and a user", [("ip", "10.1.2.3"), ("user", user)], (RATE, 1.0)),
        ("a user's connections", [("user", user)], ("connection_creation_rate", 9.0)),
    ):
        alter(f"set {label}", entity, op, only=True)
    alter("nothing", [("user", user)])
    alter("a key twice", [("user", user)], (RATE, 7.0), (RATE, 8.0))
    alter("one of two is bad", [("user", other)], (RATE, 7.0), ("no.such.key", 8.0))
    twice = {"Entity": [{"EntityType": "user", "EntityName": other}], "Ops": [{"Key": RATE, "Value": 5.0, "Remove": False}]}
    t.ask("an entity twice", "AlterClientQuotas", Entries=[twice, twice])
    t.ask("no entries", "AlterClientQuotas", Entries=[])
    known([{"EntityType": "user", "MatchType": 0, "Match": other}], 1)
    describe("the first of two counts", ("user", 0, other))
    for label, components in (
        ("unknown type", [("group", 2, None)]), ("empty type", [("", 2, None)]), ("a type twice", [("user", 2, None), ("user", 0, "x")]),
        ("match 9", [("user", 9, None)]), ("match -1", [("user", -1, None)]), ("no name", [("user", 0, None)]), ("a default with a name", [("user", 1, "x")]),
        ("any with a name", [("user", 2, "x")]), ("user and address", [("user", 2, None), ("ip", 2, None)]), ("addresses", [("ip", 0, "10.9.9.9")]),
    ):
        describe(f"describe {label}", *components)
    for entity in ([("user", user)], [("client-id", client), ("user", user)], [("client-id", None), ("user", user)], [("user", other)]):
        alter("all gone", entity, *((key, None) for key in (RATE, "consumer_byte_rate", "request_percentage", "controller_mutation_rate")))
    known([{"EntityType": "user", "MatchType": 0, "Match": user}], 0)
    known([{"EntityType": "user", "MatchType": 0, "Match": other}], 0)
    describe("nothing is left", ("user", 2, None))


@case(levels=("high",))
def throttled(t):
    """Each on a connection of its own, which is not read from for a while then."""
    name = t.topic("one")
    topic_id = t.create(name)
    batch = t.batch(["x" * 20_000])

    def quota(key, value):
        entity = [{"EntityType": "client-id", "EntityName": "oracle"}]
        t.unheard("AlterClientQuotas", 1, Entries=[{"Entity": entity, "Ops": [{"Key": key, "Value": value or 0.0, "Remove": value is None}]}])
        t.until(key, lambda answer: [one["Value"] for entry in answer["Entries"] for one in entry["Values"] if one["Key"] == key] == [value] * (value is not None),
                "DescribeClientQuotas", 1, Components=[{"EntityType": "client-id", "MatchType": 0, "Match": "oracle"}], Strict=True)

    t.produce("under no quota", name, topic_id, batch, version=9, on="before")
    quota("producer_byte_rate", 1000.0)
    t.produce("the first", name, topic_id, batch, version=9, on="first")
    answer = t.produce("the second", name, topic_id, batch, version=9, on="second", drop=("ThrottleTimeMs",))
    t.note("the second counts together with the first", 29_000 < answer["ThrottleTimeMs"] < 31_000)
    quota("producer_byte_rate", None)
    quota("consumer_byte_rate", 1000.0)
    answer = t.fetch("fetch", name, topic_id, 0, version=11, on="fetch", drop=("ThrottleTimeMs", "Responses"))
    t.note("a fetch is held to its own", 9_000 < answer["ThrottleTimeMs"] < 11_000)
    quota("consumer_byte_rate", None)
    t.produce("under none again", name, topic_id, batch, version=9, on="after")

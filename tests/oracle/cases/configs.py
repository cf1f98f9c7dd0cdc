"""DescribeConfigs, IncrementalAlterConfigs, AlterConfigs, ListConfigResources."""

from cases import case

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
TOPIC_KEYS = ["retention.ms", "cleanup.policy", "max.message.bytes", "segment.ms", "min.insync.replicas", "no.such.key", "flush.ms", "compression.type"]
BROKER_KEYS = [
    "log.retention.hours", "log.retention.ms", "num.partitions", "log.dirs", "node.id", "message.max.bytes", "offsets.topic.num.partitions",
    "group.initial.rebalance.delay.ms", "auto.create.topics.enable", "broker.rack", "max.connections.per.ip", "ssl.keystore.password", "log.segment.bytes",
    "log.cleanup.policy", "min.insync.replicas", "unclean.leader.election.enable", "num.io.threads", "log.flush.interval.messages",
]


def alter(t, label, kind, name, *changes, only=False, **more):
    return t.ask(label, "IncrementalAlterConfigs", Resources=[{
        "ResourceType": kind, "ResourceName": name,
        "Configs": [{"Name": key, "ConfigOperation": operation, "Value": value} for key, operation, value in changes],
    }], ValidateOnly=only, **more)


def described(t, label, kind, name, keys=None, synonyms=True, documentation=False, **more):
    """Each setting is a line of its own: so it can be expected to differ alone."""
    answer = t.ask(label, "DescribeConfigs", Resources=[{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}],
                   IncludeSynonyms=synonyms, IncludeDocumentation=documentation, drop=("Results",), **more)
    if answer is None:
        return
    for result in answer["Results"]:
        configs = result.pop("Configs")
        t.note(f"{label}: resource", t.words.plain("", result))
        for config in configs:
            shown = t.words.plain("", config)
            if documentation:
                shown["Documentation"] = bool(shown.get("Documentation"))
            # The order of synonyms is the order in which they count.
            shown["Synonyms"] = [[one["Name"], one["Value"], one["Source"]] for one in config["Synonyms"]]
            t.note(f"{label}: {config['Name']}", shown)


def settled(t, kind, name, key, **wanted):
    """Kafka's brokers learn of settings a moment after a change of them was answered."""
    t.until(f"{key} of {name}", lambda answer: wanted.items() <= answer["Results"][0]["Configs"][0].items(), "DescribeConfigs", 4,
            Resources=[{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": [key]}])


@case()
def topic_configs(t):
    name = t.topic("one")
    t.create(name, configs={"retention.ms": "100000", "segment.bytes": "2000000"})
    described(t, "at first", TOPIC, name, TOPIC_KEYS)
    described(t, "without synonyms", TOPIC, name, TOPIC_KEYS, synonyms=False)
    described(t, "all", TOPIC, name)
    described(t, "documented", TOPIC, name, ["retention.ms"], documentation=True)
    answer = t.ask("no keys", "DescribeConfigs", Resources=[{"ResourceType": TOPIC, "ResourceName": name, "ConfigurationKeys": []}], drop=("Results",))
    t.note("no keys are all keys", len(answer["Results"][0]["Configs"]) > 20)
    alter(t, "set", TOPIC, name, ("max.message.bytes", SET, "5000"), ("retention.ms", DELETE, None))
    alter(t, "validate only", TOPIC, name, ("max.message.bytes", SET, "6000"), only=True)
    alter(t, "append", TOPIC, name, ("cleanup.policy", APPEND, "compact"))
    alter(t, "append again", TOPIC, name, ("cleanup.policy", APPEND, "compact"))
    settled(t, TOPIC, name, "cleanup.policy", Value="delete,compact")
    described(t, "after append", TOPIC, name, TOPIC_KEYS)
    # What is there twice counts once.
    twice = t.topic("twice")
    t.create(twice, configs={"cleanup.policy": "delete, compact,delete"})
    described(t, "a policy twice", TOPIC, twice, ["cleanup.policy"])
    alter(t, "subtract", TOPIC, name, ("cleanup.policy", SUBTRACT, "delete"))
    settled(t, TOPIC, name, "cleanup.policy", Value="compact")
    described(t, "after subtract", TOPIC, name, TOPIC_KEYS)
    alter(t, "subtract the rest", TOPIC, name, ("cleanup.policy", SUBTRACT, "compact"))
    alter(t, "delete what is not set", TOPIC, name, ("flush.ms", DELETE, None))
    for label, key, operation, value in (
        ("unknown key", "no.such.key", SET, "1"), ("delete unknown key", "no.such.key", DELETE, None), ("no number", "retention.ms", SET, "soon"),
        ("too small", "segment.bytes", SET, "1"), ("null", "retention.ms", SET, None), ("append to no list", "retention.ms", APPEND, "1"),
        ("operation 9", "retention.ms", 9, "1"), ("empty key", "", SET, "1"), ("empty value", "retention.ms", SET, ""),
        ("subtract from no list", "retention.ms", SUBTRACT, "1"), ("append null", "cleanup.policy", APPEND, None),
        ("append junk", "cleanup.policy", APPEND, "junk"), ("broker key", "log.retention.ms", SET, "1"),
        ("relation", "local.retention.ms", SET, "999999999999"),
    ):
        alter(t, label, TOPIC, name, (key, operation, value))
    alter(t, "the same key twice", TOPIC, name, ("retention.ms", SET, "1"), ("retention.ms", SET, "2"))
    alter(t, "one of two is bad", TOPIC, name, ("retention.ms", SET, "777"), ("segment.bytes", SET, "1"))
    described(t, "nothing of that", TOPIC, name, ["retention.ms", "segment.bytes"])
    alter(t, "unknown topic", TOPIC, t.topic("unknown"), ("retention.ms", SET, "1"))
    alter(t, "bad name", TOPIC, "a b", ("retention.ms", SET, "1"))
    alter(t, "empty name", TOPIC, "", ("retention.ms", SET, "1"))
    for label, kind, resource in (("unknown topic", TOPIC, t.topic("unknown")), ("bad name", TOPIC, "a b"), ("empty name", TOPIC, ""),
                                  ("kind 0", 0, "x"), ("kind 99", 99, "x")):
        described(t, f"describe {label}", kind, resource, [])
        alter(t, f"alter {label}", kind, resource, ("retention.ms", SET, "1"))
    t.ask("the same resource twice", "IncrementalAlterConfigs", Resources=[
        {"ResourceType": TOPIC, "ResourceName": name, "Configs": [{"Name": "retention.ms", "ConfigOperation": SET, "Value": "5"}]}] * 2)
    t.ask("no resource", "IncrementalAlterConfigs", Resources=[])
    t.ask("no change", "IncrementalAlterConfigs", Resources=[{"ResourceType": TOPIC, "ResourceName": name, "Configs": []}])


@case()
def broker_configs(t):
    described(t, "at first", BROKER, "1", BROKER_KEYS)
    described(t, "cluster", BROKER, "", BROKER_KEYS)
    described(t, "documented", BROKER, "1", ["log.retention.hours"], documentation=True)
    alter(t, "cluster-wide", BROKER, "", ("log.retention.ms", SET, "90000000"), ("message.max.bytes", SET, "900000"))
    settled(t, BROKER, "1", "log.retention.ms", ConfigSource=3)
    described(t, "after cluster-wide", BROKER, "1", BROKER_KEYS)
    described(t, "cluster after cluster-wide", BROKER, "", BROKER_KEYS)
    alter(t, "one broker", BROKER, "1", ("log.retention.ms", SET, "80000000"))
    settled(t, BROKER, "1", "log.retention.ms", ConfigSource=2)
    described(t, "after one broker", BROKER, "1", BROKER_KEYS)
    name = t.topic("synonyms")
    t.create(name, configs={"retention.ms": "5"})
    described(t, "topic's synonyms", TOPIC, name, ["retention.ms", "max.message.bytes"])
    alter(t, "back", BROKER, "", ("log.retention.ms", DELETE, None), ("message.max.bytes", DELETE, None))
    alter(t, "back again", BROKER, "1", ("log.retention.ms", DELETE, None))
    settled(t, BROKER, "1", "log.retention.ms", ConfigSource=5)
    described(t, "at last", BROKER, "1", BROKER_KEYS)
    for label, broker, key, value in (
        ("read-only key", "1", "log.dirs", "/tmp/x"), ("read-only key of all", "", "node.id", "3"), ("unknown key", "", "no.such.key", "3"),
        ("no number", "", "log.retention.ms", "soon"), ("topic key", "", "retention.ms", "3"), ("unknown broker", "77", "log.retention.ms", "3"),
        ("no broker", "x", "log.retention.ms", "3"), ("per broker of all", "", "max.connections.per.ip", "5000"), ("below the bound", "", "log.segment.bytes", "5"),
    ):
        alter(t, label, BROKER, broker, (key, SET, value), only=True)
    described(t, "describe unknown broker", BROKER, "77", [])
    described(t, "describe no broker", BROKER, "x", [])
    described(t, "describe group", GROUP, "a group", ["x"])
    described(t, "describe metrics", CLIENT_METRICS, "metrics", ["x"])


@case()
def old_alter_configs(t):
    """What is not given goes."""
    name = t.topic("one")
    t.create(name, configs={"retention.ms": "100000", "flush.ms": "7"})

    def replace(label, kind, resource, *configs, only=False):
        t.ask(label, "AlterConfigs", Resources=[{"ResourceType": kind, "ResourceName": resource, "Configs": [
            {"Name": key, "Value": value} for key, value in configs]}], ValidateOnly=only)

    replace("validate only", TOPIC, name, ("retention.ms", "5"), only=True)
    replace("one of two", TOPIC, name, ("retention.ms", "6"))
    settled(t, TOPIC, name, "retention.ms", Value="6")
    described(t, "the other is gone", TOPIC, name, TOPIC_KEYS)
    for label, kind, resource, key, value in (
        ("null", TOPIC, name, "retention.ms", None), ("unknown key", TOPIC, name, "no.such.key", "1"), ("no number", TOPIC, name, "retention.ms", "x"),
        ("unknown topic", TOPIC, t.topic("unknown"), "retention.ms", "1"), ("bad name", TOPIC, "a b", "retention.ms", "1"),
        ("empty name", TOPIC, "", "retention.ms", "1"), ("logger", LOGGER, "1", "root", "INFO"), ("kind 99", 99, "x", "k", "v"), ("kind 0", 0, "x", "k", "v"),
        ("read-only key", BROKER, "1", "log.dirs", "/x"), ("unknown broker", BROKER, "77", "log.retention.ms", "5"),
        ("no broker", BROKER, "x", "log.retention.ms", "5"), ("null of all brokers", BROKER, "", "log.retention.ms", None),
    ):
        replace(label, kind, resource, (key, value))
    replace("a key twice", TOPIC, name, ("retention.ms", "1"), ("retention.ms", "2"))
    replace("nothing given", TOPIC, name)
    settled(t, TOPIC, name, "retention.ms", ConfigSource=5)
    replace("a broker", BROKER, "1", ("log.flush.interval.ms", "60000"))
    settled(t, BROKER, "1", "log.flush.interval.ms", ConfigSource=2)
    replace("a broker's go", BROKER, "1")
    settled(t, BROKER, "1", "log.flush.interval.ms", ConfigSource=5)


@case(world="fresh")
def config_resources(t):
    t.create(t.topic("one"))
    for types in ([], [TOPIC], [BROKER], [LOGGER], [TOPIC, BROKER, TOPIC], [99], [CLIENT_METRICS], [GROUP], [0]):
        t.ask(f"types {types}", "ListConfigResources", ResourceTypes=types)


@case()
def loggers(t):
    """Their names are each broker's own; that of the root is not."""
    for name in ("", "x", "77"):
        described(t, f"describe «{name}»", LOGGER, name, [])
    described(t, "documented", LOGGER, "1", ["root", "no.such.logger"], documentation=True)
    described(t, "root", LOGGER, "1", ["root"])
    for label, name, key, operation, value in (
        ("unknown logger", "1", "no.such.logger", SET, "DEBUG"), ("delete unknown logger", "1", "no.such.logger", DELETE, None),
        ("unknown broker", "77", "root", SET, "DEBUG"), ("no broker", "x", "root", SET, "DEBUG"), ("all brokers", "", "root", SET, "DEBUG"),
        ("append", "1", "root", APPEND, "DEBUG"), ("subtract", "1", "root", SUBTRACT, "DEBUG"), ("delete root", "1", "root", DELETE, None),
        ("null", "1", "root", SET, None), ("set root", "1", "root", SET, "INFO"),
    ):
        alter(t, label, LOGGER, name, (key, operation, value), only=True)


@case(levels=("high",))
def every_broker_key(t):
    """Value, source, type, whether it can be changed, and its synonyms."""
    described(t, "key", BROKER, "1")

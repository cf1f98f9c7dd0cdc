"""ACLs without an authorizer, producers, and transactions where there are none."""

from cases import case


@case()
def acls(t):
    anything = {"ResourceTypeFilter": 1, "ResourceNameFilter": None, "PatternTypeFilter": 1, "PrincipalFilter": None, "HostFilter": None, "Operation": 1, "PermissionType": 1}
    rule = {"ResourceType": 2, "ResourceName": "x", "ResourcePatternType": 3, "Principal": "User:a", "Host": "*", "Operation": 3, "PermissionType": 3}
    t.ask("describe", "DescribeAcls", **anything)
    t.ask("create", "CreateAcls", Creations=[rule, rule])
    t.ask("create none", "CreateAcls", Creations=[])
    t.ask("delete", "DeleteAcls", Filters=[anything, anything])
    t.ask("delete none", "DeleteAcls", Filters=[])


@case()
def producers(t):
    name = t.topic("one")
    topic_id = t.create(name, partitions=2)

    def told(label, *topics):
        t.ask(label, "DescribeProducers", Topics=[{"Name": topic, "PartitionIndexes": indexes} for topic, indexes in topics])

    t.produce("nobody's", name, topic_id, t.batch(["a"]), version=9)
    told("nobody", (name, [0, 1]))
    for sequence in (0, 2):
        t.produce(f"sequence {sequence}", name, topic_id, t.batch(["a", "b"], producer=77, epoch=3, sequence=sequence), version=9)
    t.produce("another", name, topic_id, t.batch(["a"], producer=78, epoch=0, sequence=0), version=9)
    told("two", (name, [0, 1]))
    told("what is not there", (name, [7]), (t.topic("unknown"), [0]))
    told("no partition", (name, []))
    told("no topic")


@case()
def no_transactions(t):
    t.ask("list", "ListTransactions")
    t.ask("list some", "ListTransactions", StateFilters=["Ongoing", "no such state", "PrepareEpochFence", "ongoing"], ProducerIdFilters=[7])
    t.ask("describe", "DescribeTransactions", TransactionalIds=["an id", ""])
    t.ask("describe none", "DescribeTransactions", TransactionalIds=[])

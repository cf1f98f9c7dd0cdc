"""ACLs without an authorizer, SCRAM credentials, producers, and transactions where there are none."""

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


@case()
def scram(t):
    one, two, nobody = t.topic("one"), t.topic("two"), t.topic("nobody")

    def alter(label, *upserts, delete=()):
        t.ask(label, "AlterUserScramCredentials", Deletions=[{"Name": name, "Mechanism": kind} for name, kind in delete], Upsertions=[
            {"Name": name, "Mechanism": kind, "Iterations": iterations, "Salt": b"salt", "SaltedPassword": b"p" * 32} for name, kind, iterations in upserts])

    def known(user, count):
        t.until("credentials", lambda answer: len(answer["Results"][0]["CredentialInfos"]) == count, "DescribeUserScramCredentials", 0, Users=[{"Name": user}])

    def describe(label, *users):
        t.ask(label, "DescribeUserScramCredentials", Users=[{"Name": user} for user in users])

    alter("set", (one, 1, 4096), (two, 2, 16384))
    alter("another mechanism", (one, 2, 8192))
    known(one, 2)
    describe("both", one, two)
    describe("somebody and nobody", one, nobody)
    describe("one twice", one, two, one)
    describe("no name", "")
    answer = t.ask("all", "DescribeUserScramCredentials", Users=None, drop=("Results",))
    t.note("all: among them", t.words.plain("", [result for result in answer["Results"] if result["User"] in (one, two)]))
    alter("nothing")
    alter("delete nobody", delete=[(nobody, 1)])
    alter("delete another mechanism", delete=[(two, 1)])
    for label, name, kind, iterations in (("mechanism 3", one, 3, 4096), ("mechanism 0", one, 0, 4096), ("few iterations", one, 1, 4095),
                                          ("many iterations", one, 1, 16385), ("no name", "", 1, 4096)):
        alter(f"set {label}", (name, kind, iterations))
    alter("delete no name", delete=[("", 1)])
    alter("delete mechanism 9", delete=[(one, 9)])
    alter("a user twice", (one, 1, 4096), (one, 2, 4096))
    alter("set and delete", (one, 1, 4096), delete=[(one, 2)])
    alter("one of two is bad", (one, 1, 5000), (two, 2, 1))
    alter("delete", delete=[(one, 1), (two, 2)])
    known(one, 1)
    known(two, 0)
    describe("what is left", one, two)
    alter("delete the rest", delete=[(one, 2)])
    known(one, 0)

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

"""The first request of every connection, and requests that cannot be."""

from cases import case

# What Ringtail has; a key that leaves or joins this list changes the line "others".
IMPLEMENTED = [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 29, 30, 31, 32, 33, 35, 37, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 55, 57, 60, 61, 64, 65, 66, 74, 75, 80, 81]


@case(levels=(0, 1, 2, 3, 4))
def handshake(t):
    answer = t.ask("table", "ApiVersions", ClientSoftwareName="oracle", ClientSoftwareVersion="1.0",
                   drop=("ApiKeys", "SupportedFeatures", "FinalizedFeatures", "FinalizedFeaturesEpoch"))
    if t.level >= 3:
        t.note("the features' epoch is that of a record", answer.get("FinalizedFeaturesEpoch", -1) > 0)
    offered = {api["ApiKey"]: {"min": api["MinVersion"], "max": api["MaxVersion"]} for api in answer["ApiKeys"]}
    for key in IMPLEMENTED:
        t.note(f"api {key}", offered.pop(key, None))
    t.note("others", " ".join(map(str, sorted(offered))))
    for kind in ("SupportedFeatures", "FinalizedFeatures"):
        for feature in answer.get(kind, []):
            t.note(f"{kind} {feature['Name']}", {key: value for key, value in feature.items() if key != "Name"})
    if t.level >= 3:
        for name, version in (("a b", "1"), ("", "1"), ("a", ""), ("-a", "1"), ("a.b-c", "1-2.3"), ("a", "1.")):
            t.ask(f"software «{name}» «{version}»", "ApiVersions", ClientSoftwareName=name, ClientSoftwareVersion=version,
                  drop=("ApiKeys", "SupportedFeatures", "FinalizedFeatures", "FinalizedFeaturesEpoch"))


@case(levels=(0,))
def refusals(t):
    """Each on a connection of its own: Kafka closes it."""
    for version in (5, 99, -1, 32767):
        t.ask(f"version {version}", "ApiVersions", version, on="again")
    t.ask("afterwards", "ApiVersions", 0, on="again", drop=("ApiKeys",))
    for index, (api, version) in enumerate((("Produce", 0), ("Produce", 2), ("Produce", 99), ("Fetch", 3), ("Metadata", 99),
                                            ("ListOffsets", 0), ("OffsetCommit", 1), ("CreateTopics", 1), ("JoinGroup", -1))):
        t.answer(t.send_raw("unsupported", api, version, b"\0" * 20, on=f"unsupported {index}"), 5)
    for label, frame in (
        ("unknown key", b"\x03\xe7\0\0\0\0\0\x01\0\0"), ("empty", b""), ("two bytes", b"\0\x12"), ("no client id", b"\0\x12\0\0\0\0\0\x01"),
        ("controller's key", b"\0\x34\0\0\0\0\0\x01\0\0\0"), ("cut metadata", b"\0\x03\0\x01\0\0\0\x01\0\0\0\0\0\x05"),
        ("metadata with 2^31-1 topics", b"\0\x03\0\x01\0\0\0\x01\0\0\x7f\xff\xff\xff"),
        ("metadata with -2 topics", b"\0\x03\0\x01\0\0\0\x01\0\0\xff\xff\xff\xfe"),
        ("bytes after the request", b"\0\x12\0\0\0\0\0\x01\0\0abc"),
        ("client id of -2 bytes", b"\0\x12\0\0\0\0\0\x01\xff\xfe"),
        ("client id that is no text", b"\0\x12\0\0\0\0\0\x01\0\x02\xff\xfe"),
    ):
        t.correlation = 1
        sent = t.send_frame(label, "ApiVersions", 0, frame, on=label)
        t.answer((*sent[:5], ("ApiKeys",)), 5)
    for label, announced in (("negative length", -1), ("length above the limit", 104857601), ("zero length", 0)):
        t.answer(t.send_frame(label, "ApiVersions", 0, b"", on=label, announced=announced), 3)

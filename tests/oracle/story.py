"""One broker's side of the comparison: sends requests, and writes down every answer in words that do not depend on who gave it.

What must differ (ids, ports, the clock) is replaced by the order in which it was first seen, so that equal stories give equal
words. Arrays of structs are sorted: their order means nothing to a client, except where a case says otherwise.
"""

import json
import os
import re
import socket
import struct
import time

import records
from wire import ZERO_UUID, Malformed

UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIMES_TEXT = re.compile(r"-?\b\d{13,}\b")
CLOCK_SLACK_MS = 600_000
CLIENT = "oracle"
ANSWER_SECONDS = 12
POLL_SECONDS = 60  # a JVM on a busy machine takes its time
SUBJECTS = ("Name", "TopicName", "Topic", "GroupId", "ResourceName", "Key", "MemberId", "TopicId", "Index", "Partition", "PartitionIndex")
SLOW_SECONDS = 1


class Words:
    """Replaces what is a broker's own by names."""

    def __init__(self, began_ms, port):
        self.began_ms, self.port, self.seen = began_ms, port, {}

    def of(self, kind, value):
        known = self.seen.setdefault(kind, {})
        return known.setdefault(value, f"<{kind} {len(known) + 1}>")

    def call(self, kind, value, name):
        self.seen.setdefault(kind, {})[value] = name

    def time(self, value):
        now = time.time() * 1000
        if abs(value - self.began_ms) <= 1000:
            return f"<began{value - self.began_ms:+d}>"
        return "<now>" if self.began_ms - CLOCK_SLACK_MS < value < now + CLOCK_SLACK_MS else value

    def plain(self, name, value):
        if isinstance(value, dict):
            return {key: self.plain(key, inner) for key, inner in value.items()}
        if isinstance(value, list):
            items = [self.plain(name, inner) for inner in value]
            return sorted(items, key=canonical) if items and isinstance(items[0], dict) and name != "Records" else items
        if name in ("Records",) and isinstance(value, bytes):
            return self.plain("Records", records.read(value))
        if isinstance(value, bytes):
            if len(value) == 16 and name.endswith(("Id", "Ids")):
                return "<no id>" if value == ZERO_UUID else self.seen.get("uuid", {}).get(value, "<an id>")
            return value.hex()
        if isinstance(value, str):
            if name == "ClusterId":
                return "<cluster>"
            return TIMES_TEXT.sub("<time>", UUID_TEXT.sub(lambda found: self.of("text", found[0]), value))
        if isinstance(value, bool) or value is None:
            return value
        if name == "Port" or name == "port":
            return "<port>" if value == self.port else value
        if name == "ProducerId" and value >= 0:
            return self.of("producer", value)
        if name == "SessionId" and value != 0:
            return self.of("session", value)
        return self.time(value) if isinstance(value, int) and value > 1_000_000_000_000 else value


def subject(value):
    """What a struct is about: the first of the names that it has."""
    found = (value.get(name) for name in SUBJECTS) if isinstance(value, dict) else ()
    return next((str(one) for one in found if one not in (None, "<no id>")), "")


def canonical(value):
    """Orders structs by what they are about, so that two lists can be laid side by side."""
    return subject(value), json.dumps(value, sort_keys=True)


class Story:
    """A conversation with one broker. `level` chooses among the versions that both brokers have: a name, or the nearest to a number."""

    def __init__(self, name, address, level, common, messages, began_ms, words, lines):
        self.name, self.address, self.level, self.common, self.messages = name, address, level, common, messages
        self.began_ms, self.words, self.lines, self.connections, self.correlation = began_ms, words, lines, {}, 0
        for counted in ("session", "text", "producer"):
            words.seen.pop(counted, None)

    def topic(self, name):
        """A name that no other run of this case has."""
        return f"{self.name}-{name}-{self.level}"

    def version(self, api):
        low, high = self.common[self.messages[api][0].key]
        named = {"low": low, "middle": (low + high + 1) // 2, "high": high}
        return named[self.level] if self.level in named else max(low, min(high, self.level))

    def ask(self, label, api, version=None, on="", seconds=ANSWER_SECONDS, drop=(), **fields):
        """Asks, writes the answer down under a label, gives it back undisguised (None if there was none)."""
        return self.answer(self.send(label, api, version, on, drop, **fields), seconds)

    def send(self, label, api, version=None, on="", drop=(), **fields):
        version = self.version(api) if version is None else version
        request = self.messages[api][0]
        return self.send_raw(label, api, version, request.encode(fields, version), on, drop)

    def send_raw(self, label, api, version, body, on="", drop=()):
        request = self.messages[api][0]
        self.correlation += 1
        head = struct.pack(">hhih", request.key, version, self.correlation, len(CLIENT)) + CLIENT.encode()
        if version in request.flexible:
            head += b"\0"
        return self.send_frame(label, api, version, head + body, on, drop)

    def send_frame(self, label, api, version, frame, on="", drop=(), announced=None):
        connection = self.connections.get(on)
        if connection is None:
            connection = self.connections[on] = socket.create_connection(self.address, timeout=10)
        try:
            connection.sendall(struct.pack(">i", len(frame) if announced is None else announced) + frame)
        except OSError:
            pass  # closed meanwhile: the answer says so
        return label, api, version, on, self.correlation, drop

    def answer(self, sent, seconds=ANSWER_SECONDS):
        label, api, version, on, correlation, drop = sent
        values, began = None, time.time()
        try:
            self.connections[on].settimeout(seconds)
            size = struct.unpack(">i", self._take(on, 4))[0]
            data = self._take(on, size)
            if struct.unpack_from(">i", data)[0] != correlation:
                words = "another correlation id"
            else:
                values = self._decode(api, version, data[4:])
                words = self.words.plain("", {key: value for key, value in values.items() if key not in drop})
        except TimeoutError:
            words = "no answer"
            self.hang_up(on)  # What comes later would be taken for the answer to something else.
        except (ConnectionError, OSError):
            words = "connection closed"
            self.hang_up(on)
        except Malformed as why:
            words = f"malformed: {why}"
        self.note(f"{label} · {api} v{version}", words)
        if os.environ.get("SHOW") and time.time() - began > SLOW_SECONDS:
            print(f"  slow: {label} · {api} v{version} took {self.address} {time.time() - began:.1f}s", flush=True)
        return values

    def note(self, label, words):
        if isinstance(words, list) and words and isinstance(words[0], dict):
            words = sorted(words, key=canonical)
        self.lines.append((f"{self.name}/{self.level}", label, words))

    def hang_up(self, on=""):
        connection = self.connections.pop(on, None)
        if connection is not None:
            connection.close()

    def end(self):
        for on in list(self.connections):
            self.hang_up(on)

    def _decode(self, api, version, body):
        answer = self.messages[api][1]
        if api == "ApiVersions":
            # Its answers have the plain head at every version, and version 0 when they say that the version is unsupported.
            return answer.decode(body, 0 if body[:2] == b"\0\x23" else version)
        if version in answer.flexible:
            if body[:1] != b"\0":
                raise Malformed("tags in the answer's head")
            body = body[1:]
        return answer.decode(body, version)

    def _take(self, on, count):
        data = bytearray()
        while len(data) < count:
            more = self.connections[on].recv(count - len(data))
            if not more:
                raise ConnectionError
            data += more
        return bytes(data)

    # What several cases need.

    def create(self, name, partitions=1, configs=None, quiet=True):
        """Creates a topic, waits until it can be used, and gives its id back."""
        self.ask(f"create {name}", "CreateTopics", 5, Topics=[{
            "Name": name, "NumPartitions": partitions, "ReplicationFactor": 1,
            "Configs": [{"Name": key, "Value": value} for key, value in (configs or {}).items()],
        }], timeoutMs=10_000, drop=("Topics",) if quiet else ())
        return self.known(name, partitions)

    def unheard(self, api, version, **fields):
        """An answer that is not part of the story."""
        kept, self.lines = self.lines, []
        answer = self.ask("", api, version, **fields)
        self.lines = kept
        return answer

    def until(self, what, wanted, api, version=None, **fields):
        """Asks again and again, outside the story, until the answer is as wanted."""
        until = time.time() + POLL_SECONDS
        while time.time() < until:
            answer = self.unheard(api, version, **fields)
            if wanted(answer):
                return answer
            time.sleep(0.02)
        raise AssertionError(f"never: {what}")

    def coordinated(self):
        """Waits for the offsets topic, which comes into being with the first question for a coordinator."""
        for index in range(16):
            self.until("coordinator", lambda answer: answer["ErrorCode"] == 0, "FindCoordinator", 0, Key=f"{index}")
            self.until("coordinator loaded", lambda answer: answer["ErrorCode"] not in (14, 15, 16), "Heartbeat", 0,
                       GroupId=f"{index}", GenerationId=1, MemberId="m")
        self.until("producer ids", lambda answer: answer["ErrorCode"] == 0, "InitProducerId", 0, TransactionalId=None, TransactionTimeoutMs=1000)

    def known(self, name, partitions=1):
        """Waits for a topic's leaders; not part of the story."""
        def ready(answer):
            topic = answer["Topics"][0]
            led = [part for part in topic["Partitions"] if part["ErrorCode"] == 0 and part["LeaderId"] >= 0]
            return topic["ErrorCode"] == 0 and len(led) >= partitions

        asked = [{"TopicId": ZERO_UUID, "Name": name}]
        topic_id = self.until(f"leaders of {name}", ready, "Metadata", 12, Topics=asked)["Topics"][0]["TopicId"]
        self.words.call("uuid", topic_id, f"<id of {name}>")
        # Kafka's metadata knows the leader before the leader does.
        self.until(f"{name} is led", lambda answer: all(part["ErrorCode"] == 0 for part in answer["Topics"][0]["Partitions"]), "ListOffsets", 5,
                   ReplicaId=-1, Topics=[{"Name": name, "Partitions": [{"PartitionIndex": index, "Timestamp": -2} for index in range(partitions)]}])
        return topic_id

    def batch(self, values, **more):
        return records.batch([value.encode() for value in values], more.pop("timestamp", self.began_ms), **more)

    def produce(self, label, name, topic_id, data, partition=0, acks=-1, **more):
        return self.ask(label, "Produce", Acks=acks, TimeoutMs=5000, TopicData=[{
            "Name": name, "TopicId": topic_id, "PartitionData": [{"Index": partition, "Records": data}]}], **more)

    def fetch(self, label, name, topic_id, offset, partition=0, limit=1 << 20, wait_ms=0, min_bytes=0, **more):
        part = {"Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": limit, **more.pop("part", {})}
        return self.ask(label, "Fetch", MaxWaitMs=wait_ms, MinBytes=min_bytes,
                        Topics=[{"Topic": name, "TopicId": topic_id, "Partitions": [part]}], **more)

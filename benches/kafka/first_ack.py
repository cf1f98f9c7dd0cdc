"""first_ack.py ADDRESS: started before a broker is, says when its port was open and when a record to the topic `first`, made on the
way, was acknowledged, both in ms since 1970. Ends with 1 if that takes longer than two minutes."""

import os
import socket
import struct
import sys
import time

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/oracle"))

from records import batch  # noqa: E402

PATIENCE_S = 120
TOPIC = b"first"
RETRY_S = 0.002


def ask(connection, key, version, body):
    """The answer behind its correlation id."""
    frame = struct.pack(">hhih", key, version, 0, -1) + body
    connection.sendall(struct.pack(">i", len(frame)) + frame)
    reader = connection.makefile("rb")
    return reader.read(struct.unpack(">i", reader.read(4))[0])[4:]


def create(connection):
    """CreateTopics v2: one partition. There already is as good."""
    topic = struct.pack(f">h{len(TOPIC)}sihii", len(TOPIC), TOPIC, 1, 1, 0, 0)
    answer = ask(connection, 19, 2, struct.pack(">i", 1) + topic + struct.pack(">i?", 30_000, False))
    return struct.unpack_from(">h", answer, 4 + 4 + 2 + len(TOPIC))[0] in (0, 36)


def produce(connection):
    """Produce v3, acks=all."""
    records = batch([b"x"], time.time_ns() // 1_000_000)
    topic = struct.pack(f">h{len(TOPIC)}siii", len(TOPIC), TOPIC, 1, 0, len(records)) + records
    answer = ask(connection, 0, 3, struct.pack(">hhii", -1, -1, 30_000, 1) + topic)
    return struct.unpack_from(">h", answer, 4 + 2 + len(TOPIC) + 4 + 4)[0] == 0


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    until, opened, created = time.time() + PATIENCE_S, None, False
    while time.time() < until:
        try:
            with socket.create_connection((host, int(port))) as connection:
                opened = opened or time.time()
                created = created or create(connection)
                if created and produce(connection):
                    print(round(opened * 1000), round(time.time() * 1000))
                    return
        except (OSError, struct.error):
            pass
        time.sleep(RETRY_S)
    sys.exit(1)


main()

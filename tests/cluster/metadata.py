"""Metadata (version 1) of one node, from that node: a client library asks whomever it likes."""

import socket
import struct


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        values = struct.unpack_from(f">{layout}", self.data, self.at)
        self.at += struct.calcsize(f">{layout}")
        return values if len(values) > 1 else values[0]

    def text(self):
        length = self.take("h")
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def array(self, element):
        return [element() for _ in range(self.take("i"))]


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def ask(address, topic, seconds=2):
    """By partition: its leader, and who is in sync. Raises OSError if the node does not answer."""
    host, port = address.rsplit(":", 1)
    request = struct.pack(">hhi", 3, 1, 7) + text("faults") + struct.pack(">i", 1) + text(topic)
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack(">i", answer[:4])[0]:
            piece = connection.recv(65536)
            if not piece:
                raise OSError(f"{address} closed the connection")
            answer += piece
    read = Reader(answer[8:])
    read.array(lambda: (read.take("i"), read.text(), read.take("i"), read.text()))
    read.take("i")

    def partition():
        _, number, leader = read.take("hii")
        read.array(lambda: read.take("i"))
        return number, (leader, sorted(read.array(lambda: read.take("i"))))

    topics = read.array(lambda: (read.take("h"), read.text(), read.take("?"), read.array(partition)))
    return dict(topics[0][3])

"""Megabytes a second that a reader gets who looks at nothing: the sender's speed, and not that of a client that checks records.
Then the bytes that it got, and the CPU seconds of the bare loop (0 for a broker, whose own the caller counts).

    tail.py BROKER TOPIC     from partition 0 of a topic, over and over, some 1 MiB a Fetch
    tail.py bare             from a loop that answers requests as large with as many bytes out of memory, in pieces of 64 KiB
"""

import os
import socket
import struct
import sys
import time

SECONDS = 3.0
REPLY_BYTES = 1 << 20
PIECE_BYTES = 64 << 10
MEMORY_BYTES = 128 << 20


def connect(address):
    connection = socket.create_connection(address)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exactly(connection, memory, wanted):
    received = 0
    while received < wanted:
        count = connection.recv_into(memory[received:wanted])
        if not count:
            sys.exit("the other side hung up")
        received += count


def ask(connection, request, memory):
    """Sends a request; how many bytes the reply in memory has."""
    connection.sendall(request)
    exactly(connection, memory, 4)
    size = struct.unpack_from(">i", memory)[0]
    exactly(connection, memory, size)
    return size


def fetch(topic, offset):
    """Fetch v4 of partition 0."""
    body = struct.pack(">hhih4s", 1, 4, 0, 4, b"tail")
    body += struct.pack(">iiiib", -1, 500, 1, 50 << 20, 0)
    body += struct.pack(f">ih{len(topic)}siiqi", 1, len(topic), topic, 1, 0, offset, REPLY_BYTES)
    return struct.pack(">i", len(body)) + body


def next_offset(reply, topic):
    """The offset behind the last whole batch of a reply; None if it has none."""
    head = struct.calcsize(f">iiih{len(topic)}siihqqi")
    error = struct.unpack_from(">h", reply, head - 22)[0]
    if error:
        sys.exit(f"the broker answers with error {error}")
    end, found = head + 4 + struct.unpack_from(">i", reply, head)[0], None
    at = head + 4
    while at + 61 <= end:
        base, length = struct.unpack_from(">qi", reply, at)
        if at + 12 + length > end:
            break
        found = base + struct.unpack_from(">i", reply, at + 23)[0] + 1
        at += 12 + length
    return found


def requests(connection, topic, memory):
    """A round through the partition: the requests whose replies follow one another, and the bytes of these."""
    found, offset, received = [], 0, 0
    while True:
        request = fetch(topic, offset)
        received += ask(connection, request, memory)
        offset = next_offset(memory, topic)
        if offset is None:
            return found, received
        found.append(request)


def report(connection, asked, memory):
    """Megabytes a second, and bytes."""
    received, count, start = 0, 0, time.monotonic()
    while time.monotonic() < start + SECONDS:
        received += ask(connection, asked[count % len(asked)], memory)
        count += 1
    return received / (time.monotonic() - start) / 1e6, received


def serve(listener):
    """Answers one connection; the CPU seconds that this took."""
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    held, at = memoryview(os.urandom(REPLY_BYTES) * (MEMORY_BYTES // REPLY_BYTES)), 0
    start = time.process_time()
    while connection.recv(256):
        end = at + REPLY_BYTES
        pieces = [held[piece : piece + PIECE_BYTES] for piece in range(at, end, PIECE_BYTES)]
        sent = connection.sendmsg([struct.pack(">i", REPLY_BYTES), *pieces]) - 4
        if sent < REPLY_BYTES:
            connection.sendall(held[at + sent : end])
        at = end % MEMORY_BYTES
    return time.process_time() - start


def main():
    memory = memoryview(bytearray(2 * REPLY_BYTES))
    if sys.argv[1] == "bare":
        listener = socket.create_server(("127.0.0.1", 0))
        answer, told = os.pipe()
        if os.fork() == 0:
            os.write(told, str(serve(listener)).encode())
            os._exit(0)
        # So that a child that fails is seen as the end of the pipe.
        os.close(told)
        with connect(listener.getsockname()) as connection:
            found = report(connection, [b"x" * 70], memory)
        print(*found, os.read(answer, 64).decode())
        return
    host, port = sys.argv[1].rsplit(":", 1)
    topic = sys.argv[2].encode()
    connection = connect((host, int(port)))
    asked, first = requests(connection, topic, memory)
    if not asked:
        sys.exit(f"{sys.argv[2]} has nothing to read")
    rate, received = report(connection, asked, memory)
    print(rate, first + received, 0.0)


main()

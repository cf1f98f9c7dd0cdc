"""What the machine can do at most, as JSON: floors.py DIRECTORY. No broker in it, and no tool that has to be installed."""

import json
import mmap
import os
import socket
import sys
import threading
import time

SECONDS = 2.0
BLOCK = 4096
FILE = 64 << 20
CHUNK = 1 << 20
LANES = 4


def percentiles(samples):
    samples.sort()
    at = lambda share: samples[min(len(samples) - 1, int(share * len(samples)))]
    return {"samples": len(samples), "p50_us": at(0.5) * 1e6, "p99_us": at(0.99) * 1e6}


def aligned(size):
    """Page-aligned memory that does not compress away."""
    block = mmap.mmap(-1, size)
    block.write(os.urandom(size))
    return block


def filled(path, size):
    """A file whose blocks are allocated and written: overwriting it changes no metadata."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    block = aligned(CHUNK)
    for offset in range(0, size, CHUNK):
        os.pwrite(file, block, offset)
    os.fsync(file)
    os.close(file)


def overwrite(path, flags):
    file, block, samples = os.open(path, os.O_WRONLY | os.O_DIRECT | flags), aligned(BLOCK), []
    until, offset = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        start = time.perf_counter()
        os.pwrite(file, block, offset)
        samples.append(time.perf_counter() - start)
        offset = (offset + BLOCK) % FILE
    os.close(file)
    return percentiles(samples)


def sequential(path, size):
    """Megabytes a second of 1 MiB writes, LANES at a time, that end on the device."""
    filled(path, size)
    start = time.monotonic()

    def lane(number):
        file, block = os.open(path, os.O_WRONLY | os.O_DIRECT), aligned(CHUNK)
        for offset in range(number * CHUNK, size, LANES * CHUNK):
            os.pwrite(file, block, offset)
        os.fsync(file)
        os.close(file)

    lanes = [threading.Thread(target=lane, args=(number,)) for number in range(LANES)]
    [thread.start() for thread in lanes]
    [thread.join() for thread in lanes]
    return size / (time.monotonic() - start) / 1e6


def loopback():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def echo():
    client, server = loopback()

    def answer():
        while data := server.recv(256):
            server.sendall(data)

    threading.Thread(target=answer, daemon=True).start()
    samples, until = [], time.monotonic() + SECONDS
    while time.monotonic() < until:
        start = time.perf_counter()
        client.sendall(b"x" * 100)
        client.recv(256)
        samples.append(time.perf_counter() - start)
    client.close()
    return percentiles(samples)


def sendmsg():
    """Megabytes a second through one loopback connection, 1 MiB a call."""
    client, server = loopback()
    buffer, block, sent = bytearray(CHUNK), bytes(CHUNK), 0

    def drain():
        while server.recv_into(buffer):
            pass

    threading.Thread(target=drain, daemon=True).start()
    start = time.monotonic()
    while time.monotonic() < start + SECONDS:
        sent += client.sendmsg([block])
    rate = sent / (time.monotonic() - start) / 1e6
    client.close()
    return rate


path = os.path.join(sys.argv[1], "floor")
filled(path, FILE)
floors = {
    "o_dsync_overwrite_4k": overwrite(path, os.O_DSYNC),
    "o_direct_overwrite_4k": overwrite(path, 0),
    "sequential_o_direct_mb_per_s": sequential(path + "2", 1 << 30),
    "loopback_echo_100b": echo(),
    "loopback_sendmsg_mb_per_s": sendmsg(),
}
os.remove(path)
os.remove(path + "2")
json.dump(floors, sys.stdout, indent=1)

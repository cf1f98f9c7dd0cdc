#!/usr/bin/env python3
"""What one small request costs at Ringtail and at Apache Kafka, in turns in one run; and what reading from memory and 10,000
partitions cost Ringtail. The rows that compare-kafka.sh and figures.sh do not have.

    benches/requests.py [--rounds N] [--seconds N]       (default: 5 rounds of 4 s a cell, some 7 minutes)

One record of 1 KiB a request, one request in flight on each connection, acks=all, closed loop; every connection writes to
all partitions in turn. Medians of the rounds, whose order alternates. Prints a Markdown table and leaves it in
target/requests/REQUESTS.md. Needs Java 17, Maven (or KAFKA_LIB) and both binaries (RINGTAIL, LOADGEN; default: target/release).
"""

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = os.path.join(ROOT, "target", "requests")
WORK = os.path.join(OUT, "work")
RINGTAIL = os.environ.get("RINGTAIL", os.path.join(ROOT, "target/release/ringtail"))
LOADGEN = os.environ.get("LOADGEN", os.path.join(ROOT, "target/release/ringtail-loadgen"))
KAFKA_LIB = os.environ.setdefault("KAFKA_LIB", os.path.join(ROOT, "target/kafka-lib"))
os.environ.setdefault("HEAP", "1g")

# Requests that make Java's compiler do its work first.
KAFKA_WARM_UP_S = 25
PARTITIONS = 10_000
FIRST_TOUCH_RATE = 1_000
# The share of Ringtail's memory that is kept for readers is larger.
TAIL_BYTES = "128MB"
TAIL_READS = 5
FIRST_TOUCHES = 3


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A broker in a session of its own: the session's processes are what is measured and what is ended."""

    def __init__(self, name, mode):
        self.name, port = name, free_port()
        self.address = f"127.0.0.1:{port}"
        data = os.path.join(WORK, f"{name}-{mode}")
        os.makedirs(data)
        if name == "kafka":
            command = [os.path.join(ROOT, "benches/kafka/start.sh"), str(port), str(free_port()), data, mode]
        else:
            overrides = [f"listeners=PLAINTEXT://{self.address}", f"log.dirs={data}/data", f"durability={mode}"]
            command = [RINGTAIL, "start", *(word for override in overrides for word in ("--override", override))]
        log = open(data + ".log", "w")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return
            except OSError:
                if time.monotonic() > until or self.process.poll() is not None:
                    sys.exit(f"{name} does not start: see {data}.log")
                time.sleep(0.02)

    def cpu_s(self):
        usage = subprocess.check_output(["python3", os.path.join(ROOT, "benches/kafka/usage.py"), str(self.process.pid)])
        return float(usage.split()[0])

    def stop(self):
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def load(broker, *flags):
    """A run of the load generator: its report, and the CPU seconds that the broker took meanwhile."""
    place = os.path.join(WORK, "run")
    command = [LOADGEN, "run", "-b", broker.address, "-q", "--json", "-o", place, *flags]
    # The generator goes before the brokers where the system allows it: its own lateness is nobody's latency.
    if subprocess.run(["chrt", "-f", "10", "true"], capture_output=True).returncode == 0:
        command = ["chrt", "-f", "10", *command]
    before = broker.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True)
    after = broker.cpu_s()
    # 2 is a late generator, which a closed loop does not have.
    if done.returncode != 0:
        sys.exit(f"{broker.name}: {' '.join(command)} ended with {done.returncode}: {done.stderr}")
    with open(os.path.join(place, "report.json")) as report:
        return json.load(report), after - before


def small(broker, connections, seconds):
    """Requests a second, percentiles in µs (None without samples enough) and CPU µs a request."""
    report, cpu_s = load(
        broker, "--mode", "produce", "--rate", "max", "--producers", str(connections), "--partitions", str(connections),
        "--partitioner", "round-robin", "--record-bytes", "1024", "--batch-records", "1", "--in-flight", "1",
        "--acks", "all", "--warm-up", "1s", "--duration", f"{seconds}s",
    )  # fmt: skip
    found = report["columns"]["latency"]["percentiles"]
    micros = [found[name]["ns"] / 1e3 if name in found else None for name in ("p50", "p99", "p99.9")]
    acked = report["counters"]["acked_records"] + report["warm_up"]["counters"]["acked_records"]
    return [report["rate"]["achieved_records_per_s"], *micros, cpu_s / acked * 1e6]


def median(values):
    return None if None in values else statistics.median(values)


def shown(value):
    return "–" if value is None else f"{value:,.0f}"


def small_requests(mode, rounds, seconds):
    brokers = [Broker("ringtail", mode), Broker("kafka", mode)]
    small(brokers[1], 16, KAFKA_WARM_UP_S)
    cells = {}
    for number in range(rounds):
        for connections in (1, 16):
            for broker in brokers if number % 2 == 0 else brokers[::-1]:
                cells.setdefault((connections, broker.name), []).append(small(broker, connections, seconds))
    for broker in brokers:
        broker.stop()
    medians = {cell: [median(column) for column in zip(*measured)] for cell, measured in cells.items()}
    for (connections, name), values in sorted(medians.items()):
        yield f"| {mode} | {connections} | {name} | " + " | ".join(map(shown, values)) + " |"
    for connections in (1, 16):
        ours, theirs = medians[connections, "ringtail"], medians[connections, "kafka"]
        ratios = [None if None in pair else pair[0] / pair[1] for pair in zip(ours, theirs)]
        yield f"| {mode} | {connections} | ratio | " + " | ".join("–" if r is None else f"{r:.2f}" for r in ratios) + " |"


def tail(*arguments):
    """Megabytes a second of a reader who looks at nothing."""
    return float(subprocess.check_output(["python3", os.path.join(ROOT, "benches/kafka/tail.py"), *arguments]))


def tail_reads():
    """Megabytes a second from Ringtail, from Kafka and from a bare loop, in turns."""
    brokers = [Broker("ringtail", "write"), Broker("kafka", "write")]
    for broker in brokers:
        load(
            broker, "--mode", "fetch", "--topic", "tail", "--keep-topics", "--partitions", "1", "--consumers", "1", "--prefill",
            TAIL_BYTES, "--record-bytes", "1000", "--warm-up", "0s", "--duration", "1s",
        )  # fmt: skip
    rates = [[tail(broker.address, "tail") for broker in brokers] + [tail("bare")] for _ in range(TAIL_READS)]
    for broker in brokers:
        broker.stop()
    return [statistics.median(column) for column in zip(*rates)]


def first_touch(partitions):
    """p50 and p99 in µs at a fixed rate on a new broker, the first record of every partition included."""
    broker = Broker("ringtail", "flush")
    report, _ = load(
        broker, "--mode", "produce", "--rate", str(FIRST_TOUCH_RATE), "--producers", "16", "--partitions", str(partitions),
        "--partitioner", "round-robin", "--record-bytes", "1000", "--batch-records", "1", "--in-flight", "5",
        "--warm-up", "0s", "--duration", f"{PARTITIONS // FIRST_TOUCH_RATE}s",
    )  # fmt: skip
    broker.stop()
    shutil.rmtree(os.path.join(WORK, "ringtail-flush"))
    found = report["columns"]["latency"]["percentiles"]
    return [found[name]["ns"] / 1e3 for name in ("p50", "p99")]


def lines(options):
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "")
    yield f"Linux {platform.release()}, {os.cpu_count()} cores ({model}), which the load shares. Kafka with a heap of"
    yield f"{os.environ['HEAP']}. Medians of {options.rounds} rounds of {options.seconds} s.\n"
    yield "`flush`: both acknowledge from stable storage. `write`: Ringtail when the device has the record, Kafka when the page cache"
    yield "has it. Latencies and CPU in µs; – is a percentile with fewer than 100 samples beyond it.\n"
    yield "| durability | connections | | requests/s | p50 | p99 | p99.9 | CPU of the broker a request |"
    yield "|---|--:|---|--:|--:|--:|--:|--:|"
    for mode in ("flush", "write"):
        yield from small_requests(mode, options.rounds, options.seconds)
        for name in ("ringtail", "kafka"):
            shutil.rmtree(os.path.join(WORK, f"{name}-{mode}"))
    ours, kafkas, bare = tail_reads()
    yield f"\n| reading {TAIL_BYTES} just written, 1 MiB a fetch, by a reader who looks at nothing | MB/s |"
    yield "|---|--:|"
    yield f"| ringtail | {ours:,.0f} |\n| kafka | {kafkas:,.0f} |\n| a bare sendmsg loop that answers such requests | {bare:,.0f} |"
    floors = json.loads(subprocess.check_output(["python3", os.path.join(ROOT, "benches/kafka/floors.py"), WORK]))
    yield f"\n| Ringtail, {FIRST_TOUCH_RATE:,} records/s on 16 connections, durable, from the first record on | p50 | p99 |"
    yield "|---|--:|--:|"
    touches = [(first_touch(1), first_touch(PARTITIONS)) for _ in range(FIRST_TOUCHES)]
    for partitions, measured in zip((1, PARTITIONS), zip(*touches)):
        yield f"| {partitions:,} partitions | " + " | ".join(shown(median(column)) for column in zip(*measured)) + " |"
    disk, echo = floors["o_dsync_overwrite_4k"], floors["loopback_echo_100b"]
    yield f"\nThe machine's own: O_DSYNC overwrite of 4 KiB p50 {disk['p50_us']:.0f}, p99 {disk['p99_us']:.0f} µs;"
    yield f"loopback echo p50 {echo['p50_us']:.0f}, p99 {echo['p99_us']:.0f} µs."


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    os.makedirs(WORK)
    if not os.path.isdir(KAFKA_LIB):
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={KAFKA_LIB}"]
        subprocess.run(["mvn", "-q", "-B", "-f", os.path.join(ROOT, "benches/kafka/pom.xml"), *goal], check=True)
    with open(os.path.join(OUT, "REQUESTS.md"), "w") as out:
        for line in lines(options):
            print(line, file=out)
            print(line, flush=True)
    shutil.rmtree(WORK)


main()

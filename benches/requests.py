#!/usr/bin/env python3
"""What one small request costs at Ringtail, at Apache Kafka and at a bare loop that does the least a durable request needs
(benches/bare), in turns in one run; and what reading from memory and 10,000 partitions cost Ringtail. The rows that
compare-kafka.sh and figures.sh do not have.

    benches/requests.py [--rounds N] [--seconds N] [--only small,tail,touch] [--modes flush,write] [--connections 1,16,64]
                        [--override KEY=VALUE of Ringtail ...]
        (default: 3 rounds of 2 s a cell, some 9 minutes)

One record a request (1 KiB; 100 bytes on 64 connections), one request in flight on each connection, acks=all, closed loop; every
connection writes to all partitions in turn. Medians of the rounds, whose order alternates. Prints a Markdown table and leaves it
in target/requests/REQUESTS.md. Needs Java 17, Maven (or KAFKA_LIB) and three binaries: `cargo build --release` and
`cargo build --release -p ringtail-bare` (RINGTAIL, LOADGEN, BARE; default: target/release).
"""

import argparse
import atexit
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
BARE = os.environ.get("BARE", os.path.join(ROOT, "target/release/ringtail-bare"))
KAFKA_LIB = os.environ.setdefault("KAFKA_LIB", os.path.join(ROOT, "target/kafka-lib"))
os.environ.setdefault("HEAP", "1g")

# Requests that make Java's compiler do its work first.
KAFKA_WARM_UP_S = 25
# Connections, and the bytes of a record on them.
CONNECTIONS = {1: 1_024, 16: 1_024, 64: 100}
# In the order of a round. Ringtail once on one core and once on all that there are.
BROKERS = ("bare", "ringtail, 1 core", "ringtail", "kafka")
PARTS = ("small", "tail", "touch")
MODES = ("flush", "write")
PARTITIONS = 10_000
# The generator's word for having been late, and how often it may have been.
LATE = 2
TRIES = 3
# Given to every Ringtail, from the command line.
OVERRIDES = []
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
        data = self.directory = os.path.join(WORK, f"{name.replace(', ', '-').replace(' ', '-')}-{mode}")
        os.makedirs(data)
        if name == "bare":
            command = [BARE, str(port), os.path.join(data, "journal"), mode]
        elif name == "kafka":
            command = [os.path.join(ROOT, "benches/kafka/start.sh"), str(port), str(free_port()), data, mode]
        else:
            overrides = [f"listeners=PLAINTEXT://{self.address}", f"log.dirs={data}/data", f"durability={mode}", *OVERRIDES]
            cores = ["--cores", "1"] if name.endswith("1 core") else []
            command = [RINGTAIL, "start", *cores, *(word for override in overrides for word in ("--override", override))]
        log = open(data + ".log", "w")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        # Also when the script is ended in the middle.
        atexit.register(self.stop)
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
        if self.process.poll() is not None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def load(broker, *flags):
    """A run of the load generator: its report (None if the generator itself was late), and the CPU seconds that the broker took."""
    place = os.path.join(WORK, "run")
    command = [LOADGEN, "run", "-b", broker.address, "-q", "--json", "-o", place, *flags]
    # The generator goes before the brokers where the system allows it: its own lateness is nobody's latency.
    if subprocess.run(["chrt", "-f", "10", "true"], capture_output=True).returncode == 0:
        command = ["chrt", "-f", "10", *command]
    before = broker.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True)
    after = broker.cpu_s()
    # A closed loop has no schedule to be late for.
    if done.returncode == LATE:
        return None, after - before
    if done.returncode != 0:
        sys.exit(f"{broker.name}: {' '.join(command)} ended with {done.returncode}: {done.stderr}")
    with open(os.path.join(place, "report.json")) as report:
        return json.load(report), after - before


def small(broker, connections, seconds):
    """Requests a second, percentiles in µs (None without samples enough) and CPU µs a request."""
    report, cpu_s = load(
        broker, "--mode", "produce", "--rate", "max", "--producers", str(connections), "--partitions", str(connections),
        "--partitioner", "round-robin", "--record-bytes", str(CONNECTIONS[connections]), "--batch-records", "1",
        "--in-flight", "1", "--acks", "all", "--warm-up", "1s", "--duration", f"{seconds}s",
    )  # fmt: skip
    found = report["columns"]["latency"]["percentiles"]
    micros = [found[name]["ns"] / 1e3 if name in found else None for name in ("p50", "p99", "p99.9")]
    acked = report["counters"]["acked_records"] + report["warm_up"]["counters"]["acked_records"]
    return [report["rate"]["achieved_records_per_s"], *micros, cpu_s / acked * 1e6]


def median(values):
    return None if None in values else statistics.median(values)


def shown(value):
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def ratio(cell, other):
    values = [None if None in pair else pair[0] / pair[1] for pair in zip(cell, other)]
    return " | ".join("–" if value is None else f"{value:.2f}" for value in values)


def small_requests(mode, options):
    brokers = [Broker(name, mode) for name in BROKERS]
    small(brokers[-1], 16, KAFKA_WARM_UP_S)
    cells = {}
    for number in range(options.rounds):
        for connections in options.connections:
            for broker in brokers if number % 2 == 0 else brokers[::-1]:
                cells.setdefault((connections, broker.name), []).append(small(broker, connections, options.seconds))
    for broker in brokers:
        broker.stop()
        shutil.rmtree(broker.directory)
    medians = {cell: [median(column) for column in zip(*measured)] for cell, measured in cells.items()}
    for connections in options.connections:
        row = f"| {mode} | {connections} |"
        for name in BROKERS:
            yield f"{row} {name} | " + " | ".join(map(shown, medians[connections, name])) + " |"
        for name in BROKERS[1:3]:
            for other in ("bare", "kafka"):
                yield f"{row} {name} : {other} | {ratio(medians[connections, name], medians[connections, other])} |"


def tail(*arguments):
    """Megabytes a second of a reader who looks at nothing, the bytes that it got, and CPU seconds of a bare sender."""
    found = subprocess.check_output(["python3", os.path.join(ROOT, "benches/kafka/tail.py"), *arguments])
    return [float(word) for word in found.split()]


def tail_of(broker):
    """Megabytes a second, and CPU seconds of the broker a gigabyte."""
    before = broker.cpu_s()
    rate, received, _ = tail(broker.address, "tail")
    return [rate, (broker.cpu_s() - before) / received * 1e9]


def bare_tail():
    rate, received, cpu_s = tail("bare")
    return [rate, cpu_s / received * 1e9]


def tail_reads():
    """Megabytes a second and CPU seconds a gigabyte from Ringtail, from Kafka and from a bare loop, in turns."""
    brokers = [Broker(name, "write") for name in ("ringtail", "kafka")]
    for broker in brokers:
        load(
            broker, "--mode", "fetch", "--topic", "tail", "--keep-topics", "--partitions", "1", "--consumers", "1", "--prefill",
            TAIL_BYTES, "--record-bytes", "1000", "--warm-up", "0s", "--duration", "1s",
        )  # fmt: skip
    reads = [[*map(tail_of, brokers), bare_tail()] for _ in range(TAIL_READS)]
    for broker in brokers:
        broker.stop()
        shutil.rmtree(broker.directory)
    medians = [[statistics.median(column) for column in zip(*measured)] for measured in zip(*reads)]
    yield f"\n| reading {TAIL_BYTES} just written, 1 MiB a fetch, by a reader who looks at nothing | MB/s | CPU seconds a GB |"
    yield "|---|--:|--:|"
    for name, (rate, cpu_s) in zip(("ringtail", "kafka", "a bare sendmsg loop that answers such requests"), medians):
        yield f"| {name} | {rate:,.0f} | {cpu_s:.3f} |"
    yield f"| ringtail : bare | {ratio(medians[0], medians[2])} |\n| ringtail : kafka | {ratio(medians[0], medians[1])} |"


def first_touch(partitions):
    """p50 and p99 in µs at a fixed rate on a new broker, the first record of every partition included. Measured again, up to three
    times, while the generator is late; then there is no figure."""
    for _ in range(TRIES):
        found = first_touch_once(partitions)
        if found is not None:
            return found
    return [None, None]


def first_touch_once(partitions):
    broker = Broker("ringtail", "flush")
    report, _ = load(
        broker, "--mode", "produce", "--rate", str(FIRST_TOUCH_RATE), "--producers", "16", "--partitions", str(partitions),
        "--partitioner", "round-robin", "--record-bytes", "1000", "--batch-records", "1", "--in-flight", "5",
        "--warm-up", "0s", "--duration", f"{PARTITIONS // FIRST_TOUCH_RATE}s",
    )  # fmt: skip
    broker.stop()
    shutil.rmtree(broker.directory)
    if report is None:
        return None
    found = report["columns"]["latency"]["percentiles"]
    return [found[name]["ns"] / 1e3 for name in ("p50", "p99")]


def lines(options):
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "")
    yield f"Linux {platform.release()}, {os.cpu_count()} cores ({model}), which the load shares. Kafka with a heap of"
    yield f"{os.environ['HEAP']}. Medians of {options.rounds} rounds of {options.seconds} s.\n"
    yield "`flush`: both acknowledge from stable storage. `write`: Ringtail when the device has the record, Kafka when the page cache"
    yield "has it; the bare loop in either as Ringtail. Latencies and CPU in µs; – is a percentile with fewer than 100 samples beyond"
    yield "it.\n"
    if "small" in options.only:
        yield "| durability | connections | | requests/s | p50 | p99 | p99.9 | CPU of the broker a request |"
        yield "|---|--:|---|--:|--:|--:|--:|--:|"
        for mode in options.modes:
            yield from small_requests(mode, options)
    if "tail" in options.only:
        yield from tail_reads()
    if "touch" in options.only:
        yield f"\n| Ringtail, {FIRST_TOUCH_RATE:,} records/s on 16 connections, durable, from the first record on | p50 | p99 |"
        yield "|---|--:|--:|"
        touches = [(first_touch(1), first_touch(PARTITIONS)) for _ in range(FIRST_TOUCHES)]
        for partitions, measured in zip((1, PARTITIONS), zip(*touches)):
            yield f"| {partitions:,} partitions | " + " | ".join(shown(median(column)) for column in zip(*measured)) + " |"
    floors = json.loads(subprocess.check_output(["python3", os.path.join(ROOT, "benches/kafka/floors.py"), WORK]))
    disk, echo = floors["o_dsync_overwrite_4k"], floors["loopback_echo_100b"]
    yield f"\nThe machine's own: O_DSYNC overwrite of 4 KiB p50 {disk['p50_us']:.0f}, p99 {disk['p99_us']:.0f} µs;"
    yield f"loopback echo p50 {echo['p50_us']:.0f}, p99 {echo['p99_us']:.0f} µs."


def words(known):
    """A list with commas, of words that are known."""

    def parse(text):
        found = [type(next(iter(known)))(word) for word in text.split(",")]
        if not set(found) <= set(known):
            raise argparse.ArgumentTypeError(f"{text}: known are {', '.join(map(str, known))}")
        return found

    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", type=words(PARTS), default=list(PARTS))
    parser.add_argument("--modes", type=words(MODES), default=list(MODES))
    parser.add_argument("--override", action="append", default=[])
    parser.add_argument("--connections", type=words(CONNECTIONS), default=list(CONNECTIONS))
    options = parser.parse_args()
    OVERRIDES.extend(options.override)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
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

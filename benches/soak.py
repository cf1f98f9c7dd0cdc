#!/usr/bin/env python3
"""Mixed load on one Ringtail that is killed and started again and again.

    benches/soak.py [--minutes N] [--every SECONDS] [--rss-max MIB] [-- FLAGS OF ringtail start]   (default: 30, 20, 1024)

Three load generators run all the time: small idempotent produces with keys, read by a group that commits; 64 KiB records, read from
the tail; and 64 MB written as fast as they go, then read from the oldest offset by four consumers, on a new topic every time. The
first two run in rounds of half a minute, over one kill -9 or more. The generators check every record that they read: an
acknowledged one that is missing, one that is there twice, bytes that are not its own, an order that is not its producer's. The
script checks that the broker ends only when it is killed, that it answers within half a minute of every start, and that its
resident memory stays below the bound.

Prints a summary; 1 if anything of this was violated. Binaries: RINGTAIL, LOADGEN (default: target/release).
"""

import argparse
import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RINGTAIL = os.environ.get("RINGTAIL", os.path.join(ROOT, "target/release/ringtail"))
LOADGEN = os.environ.get("LOADGEN", os.path.join(ROOT, "target/release/ringtail-loadgen"))
ROUND_S = 30
START_S_MAX = 30
SAMPLE_S = 0.2
# What a round may take beyond its load: waiting for restarts, reading what is left.
ROUND_SLACK_S = 120
# Late for its own schedule, as a load is whose broker is away: its latencies mean nothing, what it has verified does.
INVALID = 2
# No run at all, as when the broker is killed while the generator makes its topics.
ERROR = 3
LOADS = {
    "small": ["--mode", "both", "--rate", "2000", "--producers", "6", "--consumers", "3", "--group", "--partitions", "6",
              "--record-bytes", "100", "--keys", "1000", "--linger", "2ms", "--idempotence", "true"],
    "large": ["--mode", "both", "--rate", "100", "--producers", "2", "--consumers", "1", "--partitions", "2",
              "--record-bytes", "65536", "--request-bytes", "2097152", "--idempotence", "true"],
    "back": ["--mode", "fetch", "--rate", "max", "--prefill", "64MB", "--consumers", "4", "--partitions", "4",
             "--record-bytes", "1000"],
}  # fmt: skip


class Broker:
    def __init__(self, work, flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        overrides = [f"listeners=PLAINTEXT://127.0.0.1:{self.port}", f"log.dirs={work}/data"]
        self.command = [RINGTAIL, "start", *flags, *(word for each in overrides for word in ("--override", each))]
        self.log = open(os.path.join(work, "broker.log"), "ab")
        self.rss_max, self.slowest_start_s = 0, 0.0
        # Also when the script is ended in the middle.
        atexit.register(self.kill)
        self.start()

    def start(self):
        """Returns when it listens; a violation when that takes too long."""
        begun = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        while time.monotonic() < begun + START_S_MAX and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - begun)
                return True
            except OSError:
                time.sleep(0.02)
        return False

    def sample(self):
        """False when it has ended by itself."""
        if self.process.poll() is not None:
            return False
        with open(f"/proc/{self.process.pid}/statm") as statm:
            self.rss_max = max(self.rss_max, int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        return True

    def kill(self):
        self.process.kill()
        self.process.wait()


class Load(threading.Thread):
    """One generator, round after round, until told to stop."""

    def __init__(self, name, broker, work, stop):
        super().__init__(daemon=True)
        self.name_of, self.broker, self.place, self.stop = name, broker, os.path.join(work, name), stop
        self.rounds, self.prevented, self.acked, self.consumed, self.violations = 0, 0, 0, 0, []

    def run(self):
        while not self.stop.is_set():
            try:
                self.round()
            except Exception as error:  # Whatever it is, a soak that checks nothing is not one that passed.
                self.violations.append(f"{self.name_of}, round {self.rounds}: {error!r}")
                return

    def round(self):
        self.rounds += 1
        command = [LOADGEN, "run", "-b", f"127.0.0.1:{self.broker.port}", "-q", "-o", self.place, *LOADS[self.name_of]]
        command += ["--acks", "all", "--timeout", "60s", "--warm-up", "0s", "--duration", f"{ROUND_S}s", "--seed", str(self.rounds)]
        pid = self.broker.process.pid
        done = subprocess.run(command, capture_output=True, text=True, timeout=ROUND_S + ROUND_SLACK_S)
        text = (done.stderr + done.stdout).strip()
        path = os.path.join(self.place, "report.json")
        if done.returncode == ERROR and pid != self.broker.process.pid:
            self.prevented += 1
            shutil.rmtree(self.place, ignore_errors=True)
            return
        if not os.path.exists(path):
            self.violations.append(f"{self.name_of}, round {self.rounds}: {done.returncode} and no report: {text[-500:]}")
            return
        with open(path) as file:
            report = json.load(file)
        shutil.rmtree(self.place)
        self.acked += report["counters"]["acked_records"]
        self.consumed += report["counters"]["consumed_records"]
        unchecked = (report["verification"] or {"unchecked_partitions": "all"})["unchecked_partitions"]
        if done.returncode not in (0, INVALID) or report["counters"]["failed_records"] or unchecked:
            found = json.dumps([report["verification"], report["errors"], report["invalid_because"]])
            self.violations.append(f"{self.name_of}, round {self.rounds}: {done.returncode}: {text[-300:]} {found[:2000]}")


def soak(options, work):
    rng = random.Random(options.seed)
    violations, kills = [], 0
    broker = Broker(work, options.flags)
    stop = threading.Event()
    loads = [Load(name, broker, work, stop) for name in LOADS]
    for load in loads:
        load.start()
    end = time.monotonic() + options.minutes * 60
    next_kill = time.monotonic() + options.every * rng.uniform(0.5, 1.5)
    # Rounds that have begun are brought to their end, with kills for as long as the time is not over.
    while time.monotonic() < end or any(load.is_alive() for load in loads):
        if time.monotonic() >= end:
            stop.set()
        if not broker.sample():
            violations.append(f"the broker ended by itself with {broker.process.returncode}")
            break
        if next_kill <= time.monotonic() < end:
            broker.kill()
            kills += 1
            if not broker.start():
                violations.append(f"start {kills + 1} does not answer within {START_S_MAX} s, or ended")
                break
            next_kill = time.monotonic() + options.every * rng.uniform(0.5, 1.5)
        time.sleep(SAMPLE_S)
    stop.set()
    broker.kill()
    if broker.rss_max > options.rss_max << 20:
        violations.append(f"{broker.rss_max >> 20} MiB resident, more than {options.rss_max}")
    if kills == 0:
        violations.append("nothing was killed: --minutes is too short for --every")
    for load in loads:
        violations += load.violations
        print(f"{load.name_of}: {load.rounds} rounds ({load.prevented} prevented by a kill),", end=" ")
        print(f"{load.acked:,} records acknowledged, {load.consumed:,} read and checked")
        if load.consumed == 0:
            violations.append(f"{load.name_of}: nothing was read")
    print(f"{kills} kills; slowest start {broker.slowest_start_s:.2f} s; at most {broker.rss_max / 2**20:.0f} MiB resident")
    return violations


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=20)
    parser.add_argument("--rss-max", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("flags", nargs="*")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    print(f"seed {options.seed}", flush=True)
    work = tempfile.mkdtemp(prefix="ringtail-soak-")
    violations = soak(options, work)
    for violation in violations:
        print(f"VIOLATION: {violation}")
    if violations:
        print(f"the broker's log and data are in {work}")
        sys.exit(1)
    shutil.rmtree(work)


main()

"""Nodes are killed, frozen and stopped while clients go on: faults.py <ringtail|kafka> <binary> <jars> <folder> <seconds>."""

import os
import random
import subprocess
import sys
import time

import metadata
import network
from clients import GroupReader, Writer, check, read_all
from nodes import Cluster

TOPIC, PARTITIONS, WRITERS, PER_SECOND = "accounted", 6, 2, 300
# So long a frozen node is away: longer than its session.
FROZEN_SECONDS = 5
# So long a node is cut off from the others at least.
CUT_SECONDS = 8
# Everything is in sync again so long after a fault is over.
HEAL_SECONDS = 60


def tool(jars, name, *arguments):
    log4j = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "interop", "kafka", "log4j2.properties")
    done = subprocess.run(["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={log4j}", "-cp",
                           f"{jars}/*", name, *arguments], capture_output=True, text=True, timeout=90, check=False)
    if done.returncode:
        raise SystemExit(f"{name} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Run:
    def __init__(self, which, binary, jars, folder):
        self.jars = jars
        why = network.missing()
        self.network = None if why else network.Network()
        if why:
            print(f"SKIP: no node is cut off: {why}", flush=True)
        self.cluster = Cluster(which, binary, jars, folder, self.network)
        self.bootstrap = self.cluster.bootstrap
        self.writers = []

    def topics(self, *arguments):
        return tool(self.jars, "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.bootstrap, *arguments)

    def wait_for(self, what, nodes, holds):
        """Until each of these nodes says so of every partition, with its leader and who is in sync."""
        until, said = time.monotonic() + HEAL_SECONDS, {}
        while time.monotonic() < until:
            for node in nodes:
                try:
                    said[node.number] = metadata.ask(node.address, TOPIC)
                except OSError as error:
                    said[node.number] = {"": error}
            known = [one for one in said.values() if len(one) == PARTITIONS]
            if len(known) == len(nodes) and all(holds(*one) for of_node in known for one in of_node.values()):
                return
            for node in self.cluster.nodes:
                if node.process.poll() not in (None, -9):
                    node.fail("ended by itself")
            time.sleep(0.1)
        raise SystemExit(f"{what}: not after {HEAL_SECONDS} s: {said}")

    def healed(self):
        self.wait_for("all in sync", self.cluster.nodes,
                      lambda leader, isr: leader in (1, 2, 3) and isr == [1, 2, 3])

    def without(self, gone):
        """The others lead everything, and know that this one is gone."""
        others = [node for node in self.cluster.nodes if node is not gone]
        self.wait_for(f"without node {gone.number}", others,
                      lambda leader, isr: leader not in (-1, gone.number) and gone.number not in isr)

    def fault(self, name, nodes, away, back):
        began = time.monotonic()
        for writer in self.writers:
            writer.longest_stall()
        away()
        back()
        self.healed()
        # Whoever still waits has been waiting since then.
        until = time.monotonic() + 30
        acknowledged = [len(writer.acknowledged) for writer in self.writers]
        while any(len(writer.acknowledged) == before for writer, before in zip(self.writers, acknowledged)):
            if time.monotonic() > until or any(writer.fatal for writer in self.writers):
                raise SystemExit(f"{name} {nodes}: producers do not go on: {[writer.fatal for writer in self.writers]}")
            time.sleep(0.05)
        stall = max(writer.longest_stall() for writer in self.writers)
        failed = sum(len(writer.failed) for writer in self.writers)
        print(f"{name:18} {str(nodes):10} healed in {time.monotonic() - began:5.1f} s, longest without an acknowledgement"
              f" {stall * 1000:6.0f} ms, {failed} records given up", flush=True)

    def killed(self, node):
        def back():
            self.without(node)
            node.start()
            node.wait()
        self.fault("kill -9", node.number, node.kill, back)

    def killed_and_started_at_once(self, node):
        def back():
            node.start()
            node.wait()
        self.fault("kill -9, start", node.number, node.kill, back)

    def frozen(self, node):
        def back():
            time.sleep(FROZEN_SECONDS)
            node.thaw()
        self.fault(f"frozen {FROZEN_SECONDS} s", node.number, node.freeze, back)

    def cut_off(self, node, way):
        """Clients still reach it: whatever it leads it must not acknowledge, and soon say that it does not lead."""
        def back():
            until = time.monotonic() + CUT_SECONDS
            self.without(node)
            time.sleep(max(0.0, until - time.monotonic()))
            self.network.heal(node.number)
        self.fault(f"cut off, {way}", node.number, lambda: self.network.cut(node.number, way), back)

    def restarted(self, node):
        def back():
            node.start()
            node.wait()
        self.fault("stop, start", node.number, node.stop, back)

    def majority_killed(self, first, second):
        def away():
            first.kill()
            second.kill()
            time.sleep(2)

        def back():
            for node in (first, second):
                node.start()
            for node in (first, second):
                node.wait()
        self.fault("kill -9 of two", f"{first.number}, {second.number}", away, back)

    def all_killed(self):
        def away():
            for node in self.cluster.nodes:
                node.kill()

        self.fault("kill -9 of all", "1, 2, 3", away, self.cluster.start)

    def described(self):
        """What the stock tools show while one is dead, and when it is back."""
        gone = self.cluster.nodes[1]
        whole = self.topics("--describe", "--topic", TOPIC)
        assert f"PartitionCount: {PARTITIONS}\tReplicationFactor: 3" in whole, whole
        rows = [row for row in whole.splitlines() if "\tPartition: " in row]
        assert len(rows) == PARTITIONS, whole
        for row in rows:
            fields = dict(field.split(": ", 1) for field in row.strip().split("\t") if ": " in field)
            assert sorted(fields["Isr"].split(",")) == sorted(fields["Replicas"].split(",")) == ["1", "2", "3"], row
            assert fields["Leader"] in fields["Isr"].split(","), row
        assert len({row.split("Leader: ")[1].split()[0] for row in rows}) == 3, f"one node leads everything:\n{whole}"

        def back():
            self.without(gone)
            under = self.topics("--describe", "--under-replicated-partitions", "--topic", TOPIC)
            assert under.count("\tPartition: ") == PARTITIONS, under
            assert self.topics("--describe", "--unavailable-partitions").strip() == ""
            assert f"Leader: {gone.number}" not in under, under
            gone.start()
            gone.wait()
        self.fault("kill -9, described", gone.number, gone.kill, back)
        assert self.topics("--describe", "--under-replicated-partitions", "--topic", TOPIC).strip() == ""
        listed = subprocess.run(["kcat", "-b", self.bootstrap, "-L", "-t", TOPIC], capture_output=True, text=True,
                                timeout=30, check=True).stdout
        assert " 3 brokers:" in listed, listed
        print("kafka-topics and kcat show what there is", flush=True)

    def go(self, seconds, seed):
        one, two, three = nodes = self.cluster.nodes
        began = time.monotonic()
        self.cluster.start()
        print(f"three nodes serve after {time.monotonic() - began:.1f} s: {self.bootstrap}", flush=True)
        self.topics("--create", "--topic", TOPIC, "--partitions", str(PARTITIONS), "--replication-factor", "3")
        self.healed()
        self.writers = [Writer(self.bootstrap, TOPIC, PARTITIONS, f"w{number}", PER_SECOND) for number in range(WRITERS)]
        reader = GroupReader(self.bootstrap, TOPIC, "readers")
        for thread in (*self.writers, reader):
            thread.start()
        time.sleep(2)
        self.described()
        for fault in (self.killed, self.frozen, self.restarted):
            for node in nodes:
                fault(node)
        self.killed_and_started_at_once(three)
        self.majority_killed(one, two)
        self.all_killed()
        if self.network is not None:
            for node, way in zip(nodes, ("both", "out", "in")):
                self.cut_off(node, way)
        choice = random.Random(seed)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            faults = [self.killed, self.killed_and_started_at_once, self.frozen, self.restarted]
            if self.network is not None:
                faults.append(lambda node: self.cut_off(node, choice.choice(("both", "out", "in"))))
            choice.choice(faults)(choice.choice(nodes))
        for writer in self.writers:
            writer.finish()
        acknowledged = {value for writer in self.writers for value in writer.acknowledged}
        found = read_all(self.bootstrap, TOPIC, PARTITIONS)
        check(found, self.writers)
        reader.finish(acknowledged, 60)
        failed = [failure for writer in self.writers for failure in writer.failed]
        if failed:
            raise SystemExit(f"{len(failed)} records were given up though a majority was there, such as {failed[:3]}")
        self.healed()
        self.cluster.stop()
        for partition in range(PARTITIONS):
            copies = self.cluster.stored(TOPIC, partition)
            if not copies[0] or any(copy != copies[0] for copy in copies):
                raise SystemExit(f"the copies of {TOPIC}-{partition} differ: {[len(copy) for copy in copies]} bytes")
        print(f"{len(acknowledged)} acknowledged records, each there once, and alike on all three", flush=True)


def main():
    which, binary, jars, folder, seconds = sys.argv[1:]
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"seed {seed}", flush=True)
    run = Run(which, binary, jars, folder)
    try:
        run.go(float(seconds), seed)
    finally:
        run.cluster.end()
        if run.network is not None:
            run.network.remove()


main()

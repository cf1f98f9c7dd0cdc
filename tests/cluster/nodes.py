"""Three nodes of one cluster, each a process of ours: Ringtail or Apache Kafka, from the same settings."""

import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import time

START_SECONDS = 60
STOP_SECONDS = 30
CLUSTER_ID = "ringtail-cluster-0000w"
SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    # Ringtail's defaults, so that both are asked for the same.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
    "replica.lag.time.max.ms": "10000",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
}
LOG4J = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "oracle", "log4j2.properties")


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Node:
    """One of them. Ended by its process id, whatever happens."""

    def __init__(self, number, folder, settings, address, format_command, start_command):
        self.address = address
        self.number, self.folder, self.process, self.lives = number, folder, None, 0
        self.data = settings["log.dirs"]
        os.makedirs(folder)
        self.properties = os.path.join(folder, "server.properties")
        with open(self.properties, "w") as out:
            out.writelines(f"{key}={value}\n" for key, value in settings.items())
        done = subprocess.run([*format_command, "format", "-t", CLUSTER_ID, "-c", self.properties],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"node {number} cannot be formatted: {done.stdout}{done.stderr}")
        self.command = [*start_command, self.properties]

    def start(self):
        self.lives += 1
        self.log = os.path.join(self.folder, f"log-{self.lives}")
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)

    def serves(self):
        """Whether this life has been unfenced."""
        if self.process.poll() is not None:
            self.fail(f"ended by itself with {self.process.returncode}")
        with open(self.log) as log:
            return re.search(r"Transitioning from RECOVERY to RUNNING", log.read()) is not None

    def wait(self):
        until = time.time() + START_SECONDS
        while not self.serves():
            if time.time() > until:
                self.fail(f"does not serve after {START_SECONDS} s")
            time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """In order: with its leaderships handed over, and a clean end."""
        self.process.terminate()
        self.stopped()

    def stopped(self):
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.fail(f"does not stop in {STOP_SECONDS} s")
        # A JVM that a signal ends says so.
        if code not in (0, 143):
            self.fail(f"did not stop in order: {code}")

    def fail(self, why):
        with open(self.log) as log:
            raise SystemExit(f"node {self.number} {why}:\n{log.read()[-4000:]}")

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


class Cluster:
    """On machines of a network, or on the loopback if there is none."""

    def __init__(self, which, binary, jars, folder, network):
        shutil.rmtree(folder, ignore_errors=True)
        self.which = which
        if network is None:
            ports = free_ports(6)
            clients = {number: f"127.0.0.1:{ports[number - 1]}" for number in (1, 2, 3)}
            controllers = {number: f"127.0.0.1:{ports[number + 2]}" for number in (1, 2, 3)}
        else:
            clients = {number: f"{network.address(number)}:9092" for number in (1, 2, 3)}
            controllers = {number: f"{network.address(number)}:9093" for number in (1, 2, 3)}
        voters = ",".join(f"{number}@{address}" for number, address in controllers.items())
        if which == "kafka":
            java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp",
                    f"{jars}/*", f"-Dlog4j2.configurationFile={LOG4J}"]
            formats, starts = [*java, "kafka.tools.StorageTool"], [*java, "kafka.Kafka"]
        else:
            arguments = os.environ.get("RINGTAIL_ARGUMENTS", "--cores 2 --memory 256M").split()
            formats, starts = [binary, "storage"], [binary, "start", *arguments]
        self.nodes = []
        for number in (1, 2, 3):
            home = os.path.join(folder, f"node-{number}")
            settings = {
                **SETTINGS,
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "listeners": f"PLAINTEXT://{clients[number]},CONTROLLER://{controllers[number]}",
                "advertised.listeners": f"PLAINTEXT://{clients[number]}",
                "log.dirs": os.path.join(home, "data"),
            }
            inside = [] if network is None else network.inside(number)
            self.nodes.append(Node(number, home, settings, clients[number], formats, [*inside, *starts]))
        self.bootstrap = ",".join(node.address for node in self.nodes)

    def start(self):
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait()

    def stop(self):
        """All at once. Whoever is last has nobody to hand over to; Kafka then waits five minutes for a controller."""
        for node in self.nodes:
            node.process.terminate()
        left = list(self.nodes)
        if self.which == "kafka":
            until = time.time() + STOP_SECONDS
            while time.time() < until and any(node.process.poll() is None for node in left):
                time.sleep(0.1)
            for node in [node for node in left if node.process.poll() is None]:
                node.kill()
                left.remove(node)
        for node in left:
            node.stopped()

    def end(self):
        for node in self.nodes:
            node.end()

    def stored(self, topic, partition):
        """What each node's segments of a partition hold, after a stop in order."""
        def of(node):
            segments = sorted(glob.glob(os.path.join(node.data, f"{topic}-{partition}", "*.log")))
            return b"".join(open(segment, "rb").read() for segment in segments)
        return [of(node) for node in self.nodes]

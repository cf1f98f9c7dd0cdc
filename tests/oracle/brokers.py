"""Starts Apache Kafka and Ringtail with the same settings, each in a fresh directory on ports of its own."""

import glob
import os
import re
import shutil
import socket
import subprocess
import time

# Kafka's coordinators wait three seconds for more members otherwise; few internal partitions start faster.
SETTINGS = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "num.partitions": "2",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "broker.rack": "rack-a",
}
START_SECONDS = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A process of ours: stopped by its id, whatever happens."""

    def __init__(self, name, folder, settings):
        self.name, self.folder = name, folder
        self.port, self.log = free_port(), os.path.join(folder, "log")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        controller = free_port()
        lines = {
            **SETTINGS,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": os.path.join(folder, "data"),
            **settings,
        }
        self.properties = os.path.join(folder, "server.properties")
        with open(self.properties, "w") as out:
            out.writelines(f"{key}={value}\n" for key, value in lines.items())

    def start(self, command, cwd=None):
        self.process = subprocess.Popen(command, stdout=open(self.log, "w"), stderr=subprocess.STDOUT, cwd=cwd)

    def wait(self):
        until = time.time() + START_SECONDS
        while time.time() < until and self.process.poll() is None:
            with open(self.log) as log:
                if re.search(r"Transitioning from RECOVERY to RUNNING", log.read()):
                    with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                        return
            time.sleep(0.05)
        with open(self.log) as log:
            raise SystemExit(f"{self.name} did not start:\n{log.read()[-3000:]}")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


class Kafka(Broker):
    def __init__(self, folder, settings, jars, log4j):
        super().__init__("kafka", folder, settings)
        java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", f"{jars}/*",
                f"-Dlog4j2.configurationFile={log4j}"]
        done = subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "ringtail-oracle-00000w", "-c", self.properties],
                              capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"kafka storage format: {done.stdout}{done.stderr}")
        self.start([*java, "kafka.Kafka", self.properties])


class Ringtail(Broker):
    def __init__(self, folder, settings, binary):
        super().__init__("ringtail", folder, settings)
        self.start([binary, "start", self.properties, *os.environ.get("RINGTAIL_ARGUMENTS", "").split()])


def client_jar(jars):
    return glob.glob(os.path.join(jars, "kafka-clients-*.jar"))[0]

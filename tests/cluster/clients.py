"""librdkafka's producers and consumers, and what they were told."""

import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

DELIVERY_SECONDS = 120
# That nodes are gone is the point, and no news.
QUIET = {"log_level": 2, "socket.connection.setup.timeout.ms": 3000, "reconnect.backoff.max.ms": 500}


class Writer(threading.Thread):
    """An idempotent producer with acks=all that goes on until it is told to stop. Every value is its own."""

    def __init__(self, bootstrap, topic, partitions, name, per_second):
        super().__init__(daemon=True)
        self.topic, self.partitions, self.name_of, self.per_second = topic, partitions, name, per_second
        self.stopping = threading.Event()
        # Value to where it is; what failed; the last acknowledgement and the longest time without one.
        self.acknowledged, self.failed, self.sent = {}, [], 0
        self.fatal = None
        self.last, self.stall = time.monotonic(), 0.0
        self.producer = Producer({
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": 2,
            "message.timeout.ms": DELIVERY_SECONDS * 1000,
            **QUIET,
            "error_cb": self._error,
        })

    def _error(self, error):
        if error.fatal():
            self.fatal = str(error)

    def _told(self, error, message):
        value = message.value().decode()
        now = time.monotonic()
        if error is not None:
            self.failed.append((value, str(error)))
            return
        self.acknowledged[value] = (message.partition(), message.offset())
        self.stall, self.last = max(self.stall, now - self.last), now

    def run(self):
        began = time.monotonic()
        self.last = began
        while not self.stopping.is_set():
            due = int((time.monotonic() - began) * self.per_second)
            while self.sent < due:
                value = f"{self.name_of}-{self.sent}"
                try:
                    self.producer.produce(self.topic, value.encode(), partition=self.sent % self.partitions,
                                          on_delivery=self._told)
                    self.sent += 1
                except BufferError:
                    break
                except KafkaException as error:
                    self.fatal = self.fatal or str(error)
                    return
            self.producer.poll(0.005)
        self.producer.flush(DELIVERY_SECONDS)

    def longest_stall(self):
        """Seconds without an acknowledgement since this was asked last."""
        stall = max(self.stall, time.monotonic() - self.last)
        self.stall = 0.0
        return stall

    def finish(self):
        self.stopping.set()
        self.join(DELIVERY_SECONDS + 10)
        if self.fatal:
            raise SystemExit(f"{self.name_of}: the producer gave up: {self.fatal}")
        if self.is_alive() or len(self.acknowledged) + len(self.failed) != self.sent:
            raise SystemExit(f"{self.name_of}: {self.sent} sent, {len(self.acknowledged)} acknowledged, {len(self.failed)} failed")


class GroupReader(threading.Thread):
    """A member of a group that reads along and commits."""

    def __init__(self, bootstrap, topic, group):
        super().__init__(daemon=True)
        self.stopping, self.seen, self.errors = threading.Event(), set(), []
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "auto.commit.interval.ms": 500,
            "session.timeout.ms": 10000,
            "heartbeat.interval.ms": 1000,
            **QUIET,
        })
        self.consumer.subscribe([topic])

    def run(self):
        while not self.stopping.is_set():
            for message in self.consumer.consume(500, 0.2):
                if message.error():
                    self.errors.append(str(message.error()))
                else:
                    self.seen.add(message.value().decode())
        self.consumer.close()

    def finish(self, wanted, seconds):
        until = time.monotonic() + seconds
        while not wanted <= self.seen and time.monotonic() < until:
            time.sleep(0.1)
        self.stopping.set()
        self.join(30)
        missing = wanted - self.seen
        if missing:
            raise SystemExit(f"the group never read {len(missing)} records, such as {sorted(missing)[:5]}; {self.errors[-3:]}")


def read_all(bootstrap, topic, partitions):
    """Everything that is there: (partition, offset, value) in order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False,
                         "auto.offset.reset": "error", **QUIET})
    found, ends = [], {}
    try:
        for partition in range(partitions):
            _, ends[partition] = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        left = {partition for partition, end in ends.items() if end > 0}
        consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
        until = time.monotonic() + 60
        while left:
            if time.monotonic() > until:
                raise SystemExit(f"partitions {sorted(left)} cannot be read to their end")
            for message in consumer.consume(1000, 1):
                if message.error():
                    raise SystemExit(f"cannot be read: {message.error()}")
                found.append((message.partition(), message.offset(), message.value().decode()))
                if message.offset() + 1 >= ends[message.partition()]:
                    left.discard(message.partition())
    finally:
        consumer.close()
    return found


def check(found, writers):
    """Every acknowledged record once, where the producer was told; nothing twice; each producer's records in order."""
    where = {}
    for partition, offset, value in found:
        if value in where:
            raise SystemExit(f"{value} is there twice: {where[value]} and {(partition, offset)}")
        where[value] = (partition, offset)
    for writer in writers:
        for value, told in writer.acknowledged.items():
            # Who hears that its batch is there already (DUPLICATE_SEQUENCE_NUMBER) is not told where.
            partition, offset = where.get(value, (None, None))
            if told not in ((partition, offset), (partition, None)):
                raise SystemExit(f"{value} was acknowledged as {told}, and is at {(partition, offset)}")
        last = {}
        mine = ((place, int(value.rsplit("-", 1)[1])) for value, place in where.items()
                if value.rsplit("-", 1)[0] == writer.name_of)
        for (partition, offset), number in sorted(mine):
            if last.get(partition, -1) > number:
                raise SystemExit(f"{writer.name_of}-{number} at {(partition, offset)} lies behind {last[partition]}")
            last[partition] = number

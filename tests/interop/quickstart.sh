#!/usr/bin/env bash
# Apache Kafka's quickstart with its own tools: create, describe, console producer, console consumer from the beginning.
source "$(dirname "$0")/lib.sh"
need_kafka
topic=$(topic_name quickstart-events)
says "Created topic $topic" kafka kafka-topics --create --topic "$topic" --bootstrap-server "$BOOTSTRAP" || fail "create"
kafka kafka-topics --describe --topic "$topic" --bootstrap-server "$BOOTSTRAP" | tee "$WORK/describe.out"
grep -q "Topic: $topic.*PartitionCount: 1.*ReplicationFactor: 1" "$WORK/describe.out" || fail "describe"
grep -q 'Leader: 1.*Replicas: 1.*Isr: 1' "$WORK/describe.out" || fail "describe: leader"
printf 'This is my first event\nThis is my second event\n' |
    kafka kafka-console-producer --topic "$topic" --bootstrap-server "$BOOTSTRAP"
read_back=$(kafka kafka-console-consumer --topic "$topic" --from-beginning --max-messages 2 --timeout-ms 20000 \
    --bootstrap-server "$BOOTSTRAP")
expect "what was written" $'This is my first event\nThis is my second event' "$read_back"
says "^$topic\$" kafka kafka-topics --list --bootstrap-server "$BOOTSTRAP" || fail "list"
kafka kafka-topics --delete --topic "$topic" --bootstrap-server "$BOOTSTRAP"
kafka kafka-topics --list --bootstrap-server "$BOOTSTRAP" >"$WORK/list.out"
grep -qx "$topic" "$WORK/list.out" && fail "still listed after --delete"
echo "quickstart: ok"

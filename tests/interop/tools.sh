#!/usr/bin/env bash
# Apache Kafka's tools for operators: log directories, single offsets of groups.
source "$(dirname "$0")/lib.sh"
need_kafka
topic=$(topic_name tools)
B=(--bootstrap-server "$BOOTSTRAP")
kafka kafka-topics "${B[@]}" --create --topic "$topic" --partitions 2
seq 1 100 | kafka kafka-console-producer "${B[@]}" --topic "$topic"

# Both partitions, with a size, and an absolute path.
kafka kafka-log-dirs "${B[@]}" --describe --topic-list "$topic" >"$WORK/log-dirs.out"
grep -qE "\"partition\":\"$topic-1\",\"size\":[1-9]" "$WORK/log-dirs.out" || grep -qE "\"partition\":\"$topic-0\",\"size\":[1-9]" "$WORK/log-dirs.out" ||
    { cat "$WORK/log-dirs.out"; fail "sizes of logs"; }
grep -qE '"logDir":"/' "$WORK/log-dirs.out" || { cat "$WORK/log-dirs.out"; fail "log directory"; }

group=$(topic_name group)
kafka kafka-console-consumer "${B[@]}" --topic "$topic" --group "$group" --from-beginning --max-messages 100 --timeout-ms 30000 >/dev/null
says "^$group +$topic +0 " kafka kafka-consumer-groups "${B[@]}" --describe --group "$group" || fail "committed offsets"
says "^$topic +0 +Successful" kafka kafka-consumer-groups "${B[@]}" --group "$group" --delete-offsets --topic "$topic:0" || fail "deleted offset"
says "^$group +$topic +1 " kafka kafka-consumer-groups "${B[@]}" --describe --group "$group" || fail "the other offset is gone as well"
! grep -qE "^$group +$topic +0 " "$WORK/says.out" || fail "the offset is still there"

#!/usr/bin/env bash
# Apache Kafka's tools for operators: log directories, single offsets of groups, elections, reassignments, quotas,
# the quorum, features, producers, transactions, ACLs, SCRAM credentials.
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

# Elections that nobody needs, and a reassignment to where everything is.
says "Valid replica already elected for partitions $topic-0" kafka kafka-leader-election "${B[@]}" --election-type preferred --topic "$topic" --partition 0 ||
    fail "preferred election"
kafka kafka-leader-election "${B[@]}" --election-type unclean --all-topic-partitions || fail "unclean election of all"
broker=$(kafka kafka-topics "${B[@]}" --describe --topic "$topic" | sed -n 's/.*Partition: 0.*Leader: \([0-9]*\).*/\1/p')
printf '{"version":1,"topics":[{"topic":"%s"}]}' "$topic" >"$WORK/move.json"
kafka kafka-reassign-partitions "${B[@]}" --generate --topics-to-move-json-file "$WORK/move.json" --broker-list "$broker" >"$WORK/generated.out"
tail -1 "$WORK/generated.out" >"$WORK/plan.json"
says 'Successfully started partition reassignments' kafka kafka-reassign-partitions "${B[@]}" --execute --reassignment-json-file "$WORK/plan.json" --throttle 1000000 ||
    fail "execute"
says "Reassignment of partition $topic-1 is completed" kafka kafka-reassign-partitions "${B[@]}" --verify --reassignment-json-file "$WORK/plan.json" ||
    fail "verify"
grep -q 'Clearing topic-level throttles' "$WORK/says.out" || { cat "$WORK/says.out"; fail "throttles are not cleared"; }
says 'No partition reassignments found' kafka kafka-reassign-partitions "${B[@]}" --list || fail "list"

# The quorum of one voter, and features.
kafka kafka-metadata-quorum "${B[@]}" describe --status >"$WORK/quorum.out"
grep -qE "^LeaderId: +$broker\$" "$WORK/quorum.out" && grep -qE '^MaxFollowerLag: +0$' "$WORK/quorum.out" || { cat "$WORK/quorum.out"; fail "quorum status"; }
says "^$broker[[:space:]].*[[:space:]]0[[:space:]].*Leader" kafka kafka-metadata-quorum "${B[@]}" describe --replication || fail "quorum replication"
says 'Feature: metadata.version.*FinalizedVersionLevel: 4.3-IV0' kafka kafka-features "${B[@]}" describe || fail "features"
says 'does not support this feature' kafka kafka-features "${B[@]}" upgrade --feature no.such.feature=1 || fail "an unknown feature was upgraded"
says 'not currently registered' kafka kafka-cluster unregister "${B[@]}" --id 77 || fail "an unknown broker was unregistered"

# Quotas: set, told, in force for who has the id, and gone again.
client=perf-producer-client # what the tool calls itself, whatever it is told
quotas() { kafka kafka-configs "${B[@]}" --entity-type clients --entity-name "$client" "$@"; }
quotas --alter --add-config 'producer_byte_rate=20000,request_percentage=200' >/dev/null
says "producer_byte_rate=20000.0" quotas --describe || fail "quotas are not told"
kafka kafka-producer-perf-test "${B[@]}" --topic "$topic" --num-records 260 --record-size 1000 --throughput -1 \
    --command-property linger.ms=0 --command-property batch.size=2000 >"$WORK/held.out" 2>&1 || { cat "$WORK/held.out"; fail "produce under a quota"; }
# Ten seconds' worth of 20 kB are free, the other 60 kB take three.
held=$(sed -n 's/.*, \([0-9]*\)\.[0-9]* ms max latency.*/\1/p' "$WORK/held.out" | tail -1)
[ "${held:-0}" -gt 1500 ] || { cat "$WORK/held.out"; fail "the quota held nobody: at most $held ms"; }
quotas --alter --delete-config 'producer_byte_rate,request_percentage' >/dev/null
! says 'producer_byte_rate' quotas --describe || fail "quotas are not gone"

# Producers of a partition, transactions where there are none, ACLs without an authorizer.
seq 1 10 | kafka kafka-console-producer "${B[@]}" --topic "$topic" --command-property enable.idempotence=true
both() { for partition in 0 1; do kafka kafka-transactions "${B[@]}" describe-producers --topic "$topic" --partition "$partition"; done; }
says '^[0-9]+[[:space:]]+0[[:space:]]+-1[[:space:]]+[0-9]+[[:space:]]' both || fail "active producers"
says 'TransactionalId' kafka kafka-transactions "${B[@]}" list || fail "list of transactions"
says 'No Authorizer is configured' kafka kafka-acls "${B[@]}" --list || fail "ACLs without an authorizer"

# SCRAM credentials: told without their secrets.
user=$(topic_name user)
users() { kafka kafka-configs "${B[@]}" --entity-type users --entity-name "$user" "$@"; }
users --alter --add-config 'SCRAM-SHA-256=[iterations=8192,password=secret]' >/dev/null
users --alter --add-config 'SCRAM-SHA-512=[password=secret]' >/dev/null
says 'SCRAM-SHA-256=iterations=8192' users --describe && grep -q 'SCRAM-SHA-512=iterations=4096' "$WORK/says.out" || fail "credentials are not told"
users --alter --delete-config SCRAM-SHA-256 >/dev/null
users --alter --delete-config SCRAM-SHA-512 >/dev/null
! says 'SCRAM-SHA' users --describe || fail "credentials are not gone"

#!/usr/bin/env bash
# Apache Kafka's admin tools: partitions, configurations, offsets, DeleteRecords, groups.
source "$(dirname "$0")/lib.sh"
need_kafka
topic=$(topic_name admin)
B=(--bootstrap-server "$BOOTSTRAP")
kafka kafka-topics "${B[@]}" --create --topic "$topic" --partitions 2 --config retention.ms=3600000
kafka kafka-topics "${B[@]}" --alter --topic "$topic" --partitions 4
says 'PartitionCount: 4' kafka kafka-topics "${B[@]}" --describe --topic "$topic" ||
    fail "partitions not added"
says 'already exists' kafka kafka-topics "${B[@]}" --create --topic "$topic" ||
    fail "a second topic of that name"
says 'retention.ms=3600000' kafka kafka-configs "${B[@]}" --describe --entity-type topics --entity-name "$topic" ||
    fail "configuration at creation"
kafka kafka-configs "${B[@]}" --alter --entity-type topics --entity-name "$topic" --add-config max.message.bytes=2000
says 'max.message.bytes=2000.*DYNAMIC_TOPIC_CONFIG' kafka kafka-configs "${B[@]}" --describe --entity-type topics --entity-name "$topic" ||
    fail "changed configuration"
kafka kafka-configs "${B[@]}" --alter --entity-type topics --entity-name "$topic" --delete-config retention.ms
says 'log.segment.bytes=' kafka kafka-configs "${B[@]}" --describe --entity-type brokers --entity-name 1 --all ||
    fail "broker configuration"
head -c 5000 /dev/zero | tr '\0' x >"$WORK/long.txt"
echo >>"$WORK/long.txt"
says 'RecordTooLarge|larger than' kafka kafka-console-producer "${B[@]}" --topic "$topic" --max-block-ms 5000 <"$WORK/long.txt" ||
    fail "a record above max.message.bytes was taken"

one=$(topic_name one)
kafka kafka-topics "${B[@]}" --create --topic "$one"
seq 1 1000 | kafka kafka-console-producer "${B[@]}" --topic "$one"
expect "end offset" "$one:0:1000" "$(kafka kafka-get-offsets "${B[@]}" --topic "$one")"
printf '{"version":1,"partitions":[{"topic":"%s","partition":0,"offset":400}]}' "$one" >"$WORK/delete.json"
says 'low_watermark: 400' kafka kafka-delete-records "${B[@]}" --offset-json-file "$WORK/delete.json" ||
    fail "delete records"
expect "start offset" "$one:0:400" "$(kafka kafka-get-offsets "${B[@]}" --topic "$one" --time earliest)"
group=$(topic_name group)
first=$(kafka kafka-console-consumer "${B[@]}" --topic "$one" --group "$group" --from-beginning --max-messages 600 \
    --timeout-ms 30000 | sed -n 1p)
expect "first record after delete records" 401 "$first"
says "^$group\$" kafka kafka-consumer-groups "${B[@]}" --list ||
    fail "group is not listed"
kafka kafka-consumer-groups "${B[@]}" --describe --group "$group" 2>&1 | tee "$WORK/group.out"
grep -qE "^$group +$one +0 +1000 +1000 +0" "$WORK/group.out" || fail "committed offset"
kafka kafka-consumer-groups "${B[@]}" --group "$group" --topic "$one" --reset-offsets --to-offset 700 --execute | grep -q 700 || fail "reset"
expect "first record after reset" 701 "$(kafka kafka-console-consumer "${B[@]}" --topic "$one" --group "$group" \
    --max-messages 300 --timeout-ms 30000 | sed -n 1p)"
says 'successful' kafka kafka-consumer-groups "${B[@]}" --delete --group "$group" ||
    fail "delete group"
says 'Produce\(0\)' kafka kafka-broker-api-versions "${B[@]}" ||
    fail "api versions"
says 'Cluster ID' kafka kafka-cluster cluster-id "${B[@]}" ||
    fail "cluster id"
kafka kafka-topics "${B[@]}" --delete --topic "$topic"
kafka kafka-topics "${B[@]}" --delete --topic "$one"
echo "admin: ok"

#!/usr/bin/env bash
# What a cleanly stopped Ringtail leaves behind, read by Apache Kafka's own kafka-dump-log: records of every codec, both indexes,
# producer snapshots, committed offsets, the metadata log. Any complaint of the tool fails the script.
# Starts and stops a broker of its own (RINGTAIL, default: the release build); the address of another is of no use here.
source "$(dirname "$0")/lib.sh"
need_kafka
need_command kcat kcat
binary=${RINGTAIL:-$ROOT/target/release/ringtail}
[ -x "$binary" ] || skip "no $binary"
data="$WORK/dump-log"
rm -rf "$data"
start_own "$binary" "$data" --override offsets.topic.num.partitions=3 --override group.initial.rebalance.delay.ms=0
B=(-b "$BOOTSTRAP" -X topic.request.timeout.ms=30000)

lines=3000
seq 1 "$lines" | sed 's/$/ some text to make a line of it/' >"$WORK/dump.txt"
for codec in none gzip snappy lz4 zstd; do
    kcat "${B[@]}" -P -t "dump-$codec" -p 0 -z "$codec" -X enable.idempotence=true -X linger.ms=5 -l "$WORK/dump.txt"
done
# Several segments, the first of which are partly deleted; keys, headers and nulls; the broker's clock.
kafka kafka-topics --bootstrap-server "$BOOTSTRAP" --create --topic dump-segments --config segment.bytes=1048576
for _ in 1 2 3; do
    head -c 1500000 /dev/urandom | base64 -w 900 >"$WORK/dump-large.txt"
    kcat "${B[@]}" -P -t dump-segments -p 0 -X batch.size=100000 -l "$WORK/dump-large.txt"
done
printf '{"version":1,"partitions":[{"topic":"dump-segments","partition":0,"offset":300}]}' >"$WORK/dump-delete.json"
says 'low_watermark: 300' kafka kafka-delete-records --bootstrap-server "$BOOTSTRAP" --offset-json-file "$WORK/dump-delete.json"
kafka kafka-topics --bootstrap-server "$BOOTSTRAP" --create --topic dump-clock --config message.timestamp.type=LogAppendTime
printf 'k1:v1\nk2:\n' | kcat "${B[@]}" -P -t dump-clock -p 0 -K: -Z -H a=1 -H a=2 -H b=
kafka kafka-configs --bootstrap-server "$BOOTSTRAP" --alter --entity-type topics --entity-name dump-clock --add-config retention.ms=90000000
expect "records read by a group" 10 "$(timeout 60 kcat "${B[@]}" -G dump-group -X auto.offset.reset=earliest -c 10 -q dump-none | wc -l)"
stop_own

dump() { # dump <what> <arguments…>: the tool's output in dump.out, its complaints are ours
    local what=$1
    shift
    kafka kafka-dump-log "$@" >"$WORK/dump.out" 2>"$WORK/dump.err" || { tail -5 "$WORK/dump.out" "$WORK/dump.err"; fail "$what: the tool failed"; }
    { own_oddity <"$WORK/dump.err"; sed 's/payload: .*//' "$WORK/dump.out" | own_oddity | grep -iE "$COMPLAINTS"; } >"$WORK/dump.complaints" || true
    [ ! -s "$WORK/dump.complaints" ] || { head -5 "$WORK/dump.complaints"; fail "$what: the tool complained"; }
}
COMPLAINTS='mismatch|non-consecutive|corrupt|invalid bytes|isvalid: false|exception|error|could not|not found|out of order'
# The tool takes the first record of every segment but a topic's first for a gap ("-1 is followed by ..."): that is its own.
own_oddity() {
    awk '/^Non-consecutive/ { held = $0; next } /^ *-1 is followed by [0-9]+$/ { next }
        / is followed by / && held { print held; held = "" } { print }'
}
files() { find "$@" -print | sort | paste -sd,; }

dump "records" --deep-iteration --print-data-log --files "$(files "$data"/dump-* -name '*.log')"
for codec in NONE GZIP SNAPPY LZ4 ZSTD; do
    grep -qi "compresscodec: $codec" "$WORK/dump.out" || fail "no batch with codec $codec"
done
expect "lines that the tool read back" $((5 * lines)) "$(grep -c 'payload: .* some text to make a line of it' "$WORK/dump.out")"
grep -q 'headerKeys: \[a,a,b\]' "$WORK/dump.out" || fail "headers"
[ "$(find "$data/dump-segments-0" -name '*.log' | wc -l)" -ge 3 ] || fail "fewer segments than were written"
indexes=$(files "$data"/dump-* "$data"/__consumer_offsets-* \( -name '*.index' -o -name '*.timeindex' \))
dump "index sanity" --index-sanity-check --files "$indexes"
dump "index entries" --verify-index-only --files "$indexes"
dump "indexes" --files "$indexes"
[ "$(grep -c '^offset: .* position: ' "$WORK/dump.out")" -ge 10 ] || fail "hardly any index entries"
[ "$(grep -c '^timestamp: .* offset: ' "$WORK/dump.out")" -ge 10 ] || fail "hardly any time index entries"
snapshots=$(files "$data"/dump-* -name '*.snapshot')
[ -z "$snapshots" ] || dump "producer snapshots" --files "$snapshots"
dump "committed offsets" --offsets-decoder --deep-iteration --print-data-log --files "$(files "$data"/__consumer_offsets-* -name '*.log')"
grep -q '"topic":"dump-none"' "$WORK/dump.out" || fail "no committed offset"
grep -q '"protocolType":"consumer"' "$WORK/dump.out" || fail "no group"
dump "metadata" --cluster-metadata-decoder --deep-iteration --print-data-log --files "$(files "$data"/__cluster_metadata-0 -name '*.log')"
grep -q '"type":"TOPIC_RECORD".*"name":"dump-clock"' "$WORK/dump.out" || fail "no topic record"
grep -q '"type":"CONFIG_RECORD"' "$WORK/dump.out" || fail "no config record"
checkpoints=$(files "$data"/__cluster_metadata-0 -name '*.checkpoint')
[ -z "$checkpoints" ] || dump "metadata snapshot" --cluster-metadata-decoder --files "$checkpoints"
rm -rf "$data"
echo "dump_log: ok"

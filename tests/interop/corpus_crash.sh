#!/usr/bin/env bash
# Real text through idempotent producers (librdkafka and the stock console producer) while the broker is killed with -9 and started
# again, more than once: what went in comes out, each line once and in order, by SHA-256. CORPUS_MIB says how much (default 96).
# Starts and kills a broker of its own (RINGTAIL, default: the release build); the address of another is of no use here.
source "$(dirname "$0")/lib.sh"
need_kafka
need_command kcat kcat
binary=${RINGTAIL:-$ROOT/target/release/ringtail}
[ -x "$binary" ] || skip "no $binary"
corpus=$(make_corpus $((${CORPUS_MIB:-96} * 1024 * 1024)))
wanted=$(sha256sum <"$corpus")
echo "$(stat -c %s "$corpus") bytes, $(wc -l <"$corpus") lines"
data="$WORK/crash"
rm -rf "$data"

# Kills the broker whenever its topic has grown for a while, and starts it again, until the producer is done.
kills() { # kills <producer's process> <how many>
    local producer=$1 killed=0
    while [ "$killed" -lt "$2" ] && sleep "${KILL_AFTER:-0.4}" && kill -0 "$producer" 2>/dev/null; do
        kill -9 "$own_broker"
        wait "$own_broker" 2>/dev/null || true
        killed=$((killed + 1))
        start_own "$binary" "$data"
    done
    echo "killed $killed times"
    [ "$killed" -gt 0 ] || fail "the producer was done before the broker could be killed: more CORPUS_MIB"
}

start_own "$binary" "$data"
OWN_PORT=${BOOTSTRAP##*:}
for codec in none zstd; do
    topic=$(topic_name "crash-$codec")
    kafka kafka-topics --create --topic "$topic" --bootstrap-server "$BOOTSTRAP"
    kcat -E -b "$BOOTSTRAP" -P -t "$topic" -p 0 -z "$codec" -X enable.idempotence=true -X queue.buffering.max.kbytes=65536 \
        -X message.timeout.ms=300000 -l "$corpus" 2>"$WORK/crash-kcat.log" &
    producer=$!
    kills "$producer" 3
    wait "$producer" || { tail -5 "$WORK/crash-kcat.log"; fail "librdkafka, $codec: gave up"; }
    found=$(kcat -b "$BOOTSTRAP" -C -t "$topic" -p 0 -o beginning -e -q | sha256sum)
    expect "librdkafka, $codec" "$wanted" "$found"
    echo "librdkafka, $codec: ok"
done
topic=$(topic_name crash-console)
kafka kafka-topics --create --topic "$topic" --bootstrap-server "$BOOTSTRAP"
kafka kafka-console-producer --topic "$topic" --bootstrap-server "$BOOTSTRAP" <"$corpus" >"$WORK/crash-console.log" 2>&1 &
producer=$!
sleep 2
kills "$producer" 2
wait "$producer" || { tail -5 "$WORK/crash-console.log"; fail "console producer: gave up"; }
found=$(kcat -b "$BOOTSTRAP" -C -t "$topic" -p 0 -o beginning -e -q | sha256sum)
expect "console producer" "$wanted" "$found"
stop_own
rm -rf "$data"
echo "corpus_crash: ok"

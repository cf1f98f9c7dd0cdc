#!/usr/bin/env bash
# Apache Kafka's Java consumer in a group, and an idempotent producer, while the broker is killed with -9 and started again: all
# records, each once and in order of its offset, and the member keeps its place in the group.
# Starts and kills a broker of its own (RINGTAIL, default: the release build); the address of another is of no use here.
source "$(dirname "$0")/lib.sh"
need_kafka
command -v javac >/dev/null || skip "no javac"
binary=${RINGTAIL:-$ROOT/target/release/ringtail}
[ -x "$binary" ] || skip "no $binary"
mkdir -p "$WORK/java"
javac -nowarn -cp "$WORK/kafka/*" -d "$WORK/java" "$INTEROP/java/Restart.java"
data="$WORK/java-crash" said="$WORK/java-crash.out" told="$WORK/java-crash.in"
rm -rf "$data" "$said" "$told"
mkfifo "$told"
start_own "$binary" "$data" --override group.initial.rebalance.delay.ms=0
OWN_PORT=${BOOTSTRAP##*:}
timeout 240 java -Xmx512m -Dlog4j2.configurationFile="$INTEROP/kafka/log4j2.properties" -cp "$WORK/java:$WORK/kafka/*" Restart \
    "$BOOTSTRAP" "$(topic_name restart)" <"$told" >"$said" 2>&1 &
client=$!
exec 5>"$told"
for _ in $(seq 600); do
    grep -qx ready "$said" && break
    kill -0 "$client" 2>/dev/null || break
    sleep 0.1
done
grep -qx ready "$said" || { tail -20 "$said"; fail "the client does not read"; }
for _ in 1 2 3; do
    sleep 2
    kill -9 "$own_broker"
    wait "$own_broker" 2>/dev/null || true
    start_own "$binary" "$data"
done
sleep 2
echo stop >&5
wait "$client" || { tail -20 "$said"; fail "the Java client"; }
tail -1 "$said"
stop_own
rm -rf "$data"
echo "java_crash: ok"

#!/usr/bin/env bash
# Figures that compare-kafka.sh does not have, of Ringtail and of Apache Kafka one after the other on this machine: a fresh start,
# the first record to each of many partitions, the restart after kill -9, and bulk through the Java client and librdkafka.
#
#   benches/figures.sh [ringtail|kafka]...      (default: both; some 4 minutes)
#
# Prints a Markdown table and leaves it in target/figures/FIGURES.md. Ringtail acknowledges from stable storage
# (durability=flush), Kafka from the page cache (its default): unequal, in Kafka's favour, and labelled so.
# PARTITIONS (3000), RECORDS (500000 of 1000 bytes), HEAP (1g, Kafka's), RINGTAIL and LOADGEN (other binaries).
# Needs Java 17, Maven (or KAFKA_LIB), python3 and kcat; both binaries are built first.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
PARTITIONS=${PARTITIONS:-3000} RECORDS=${RECORDS:-500000}
export HEAP=${HEAP:-1g} KAFKA_LIB=${KAFKA_LIB:-$root/target/interop/kafka}
out=$root/target/figures
work=$out/work
rm -rf "$work"
mkdir -p "$work"
[ -n "${RINGTAIL:-}" ] && [ -n "${LOADGEN:-}" ] || cargo build --release --locked
RINGTAIL=${RINGTAIL:-$root/target/release/ringtail} LOADGEN=${LOADGEN:-$root/target/release/ringtail-loadgen}
command -v kcat >/dev/null || apt-get install -y -q kcat >/dev/null 2>&1 || { echo "kcat is needed" >&2; exit 3; }
[ -d "$KAFKA_LIB" ] || mvn -q -B -f tests/interop/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$KAFKA_LIB"

broker=
# The brokers run in sessions of their own: the session's processes are what is measured, and what is ended.
stop() { [ -z "$broker" ] || { kill "-$1" -- "-$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; broker=; }; }
trap 'stop KILL; rm -rf "$work"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
now_ms() { date +%s%3N; }
java_tool() { java -Xmx512m -Dlog4j2.level=ERROR -cp "$KAFKA_LIB/*" "$@" 2>/dev/null; }
cpu() { python3 benches/kafka/usage.py "$broker" | cut -d' ' -f1; }
mib() { python3 benches/kafka/usage.py "$broker" | python3 -c 'print(round(float(input().split()[1]) / 2**20))'; }

# start NAME: the broker on a port of its own, its data kept between starts. Sets opened and took, ms until
# the port is open and until a record to the topic `first`, made on the way, is acknowledged.
start() {
    local began found probe
    python3 benches/kafka/first_ack.py "127.0.0.1:$port" >"$work/first" &
    probe=$!
    # The probe is to be there first.
    sleep 0.5
    began=$(now_ms)
    if [ "$1" = kafka ]; then
        setsid benches/kafka/start.sh "$port" "$port2" "$work/kafka" write >>"$work/kafka.log" 2>&1 &
    else
        setsid "$RINGTAIL" start --override "listeners=PLAINTEXT://127.0.0.1:$port" --override "log.dirs=$work/ringtail/data" \
            --override num.partitions=1 >>"$work/ringtail.log" 2>&1 &
    fi
    broker=$!
    # Whichever ends first: a broker that ends has not started.
    wait -n "$probe" "$broker" || true
    found=($(<"$work/first"))
    [ ${#found[@]} = 2 ] || { kill "$probe" 2>/dev/null; tail -5 "$work/$1.log" >&2; exit 3; }
    opened=$((found[0] - began)) took=$((found[1] - began))
}

# row NAME VALUE: one line of this broker's column.
row() { printf '%s\t%s\n' "$1" "$2" | tee -a "$work/$broker_name.tsv" >&2; }

# p50 and p90 of the latency in a report, in ms; a percentile without enough samples behind it is not stated.
percentiles() { python3 - "$1" <<'PY'
import json, sys
found = json.load(open(sys.argv[1]))["columns"]["latency"]["percentiles"]
print(" / ".join(f"{found[name]['ns'] / 1e6:.2f}" if name in found else "–" for name in ("p50", "p90")))
PY
}

# spread OUT RATE SECONDS: one record a request, to the partitions of the topic `many` in turn.
spread() {
    "$LOADGEN" run --mode produce -b "127.0.0.1:$port" -q --topic many --partitions "$PARTITIONS" --create false \
        --partitioner round-robin --producers 16 --rate "$2" --record-bytes 1000 --batch-records 1 --in-flight 1 --warm-up 0s \
        --duration "$3s" --timeout 60s --json -o "$1" >/dev/null || true
}

measure() {
    broker_name=$1 port=$(free_port) port2=$(free_port)
    mkdir -p "$work/$1"
    echo "== $1" >&2
    start "$1"
    row "fresh start to the open port / to the first acknowledged record, ms" "$opened / $took"
    sleep 2
    row "memory when idle, MiB" "$(mib)"
    row "fresh directory, MiB" "$(du -sm "$work/$1" | cut -f1)"

    java_tool org.apache.kafka.tools.TopicCommand --create --topic many --partitions "$PARTITIONS" --bootstrap-server "127.0.0.1:$port" >/dev/null
    spread "$work/touch-$1" 500 "$((PARTITIONS / 500))"
    row "first record to each of $PARTITIONS partitions at 500/s, p50 / p90 ms" "$(percentiles "$work/touch-$1/report.json")"
    stop KILL
    start "$1"
    row "kill -9, then restart with these partitions to the first acknowledged record, ms" "$took"
    # So fast that Ringtail's journal is not half full at the end: then a checkpoint would bring them into segments before.
    spread "$work/more-$1" 12000 "$((12 * PARTITIONS / 12000))"
    stop KILL
    start "$1"
    row "… with $((12 * PARTITIONS)) records more offered just before, ms" "$took"
    [ "$1" = kafka ] || grep -o 'recovered .*' "$work/$1.log" | tail -1 >&2

    local before after kind began
    java_tool org.apache.kafka.tools.TopicCommand --create --topic bulk --partitions 1 --bootstrap-server "127.0.0.1:$port" >/dev/null
    for kind in warm-up measured; do
        before=$(cpu)
        java_tool org.apache.kafka.tools.ProducerPerformance --topic bulk --num-records "$RECORDS" --record-size 1000 --throughput -1 \
            --producer-props "bootstrap.servers=127.0.0.1:$port" acks=all linger.ms=5 | tail -1 >"$work/perf"
        after=$(cpu)
    done
    row "Java producer, 1000-byte records, MB/s" "$(sed -n 's/.*(\([0-9.]*\) MB.sec).*/\1/p' "$work/perf")"
    row "… CPU of the broker, s for each 10^6 records" "$(python3 -c "print(round(($after - $before) / $RECORDS * 1e6, 2))")"
    before=$(cpu)
    java_tool org.apache.kafka.tools.ConsumerPerformance --topic bulk --messages "$((2 * RECORDS))" --bootstrap-server "127.0.0.1:$port" |
        tail -1 >"$work/perf"
    after=$(cpu)
    row "Java consumer, MB/s while fetching" "$(awk -F', ' '{ printf "%.1f", $9 }' "$work/perf")"
    row "… CPU of the broker, s for each 10^6 records" "$(python3 -c "print(round(($after - $before) / (2 * $RECORDS) * 1e6, 2))")"

    [ -f "$work/lines" ] || python3 -c "
import random, string
random.seed(1)
with open('$work/lines', 'w') as out:
    for _ in range($RECORDS): out.write(''.join(random.choices(string.ascii_letters, k=100)) * 10 + '\n')"
    before=$(cpu) began=$(now_ms)
    kcat -b "127.0.0.1:$port" -P -t cat -p 0 -X acks=all -X linger.ms=5 -X queue.buffering.max.messages=100000 -l "$work/lines"
    after=$(cpu)
    row "librdkafka (kcat) producer, MB/s" "$(python3 -c "print(round($RECORDS / ($(now_ms) - $began), 1))")"
    row "… CPU of the broker, s for each 10^6 records" "$(python3 -c "print(round(($after - $before) / $RECORDS * 1e6, 2))")"
    before=$(cpu) began=$(now_ms)
    kcat -b "127.0.0.1:$port" -C -t cat -p 0 -o beginning -e -q >/dev/null
    after=$(cpu)
    row "librdkafka (kcat) consumer, MB/s" "$(python3 -c "print(round($RECORDS / ($(now_ms) - $began), 1))")"
    row "… CPU of the broker, s for each 10^6 records" "$(python3 -c "print(round(($after - $before) / $RECORDS * 1e6, 2))")"
    row "memory after all this, MiB" "$(mib)"
    stop TERM
}

[ $# -gt 0 ] || set -- ringtail kafka
for name in "$@"; do measure "$name"; done

python3 - "$work" "$@" >"$out/FIGURES.md" <<'PY'
import os, platform, sys
work, names = sys.argv[1], sys.argv[2:]
columns = [[line.rstrip("\n").split("\t") for line in open(f"{work}/{name}.tsv")] for name in names]
model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "")
print(f"Linux {platform.release()}, {os.cpu_count()} cores ({model}), which the load shares. Ringtail acknowledges from stable storage")
print(f"(`durability=flush`), Kafka from its page cache; heap {os.environ['HEAP']}.\n")
print("| | " + " | ".join(names) + " |")
print("|---|" + "--:|" * len(names))
for rows in zip(*columns):
    print(f"| {rows[0][0]} | " + " | ".join(row[1] for row in rows) + " |")
PY
cat "$out/FIGURES.md"

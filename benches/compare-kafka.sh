#!/bin/bash
# Ringtail beside Apache Kafka on this machine. Writes RESULTS.md and the HTML reports of every run.
#   benches/compare-kafka.sh [--quick] [--out DIR]
# Without --quick each workload runs 10 minutes a broker, so that garbage collection, write-back and journal laps are in it.
# KAFKA_LIB   directory with Kafka's jars (else Maven brings 4.3.1 into target/)    HEAP  Kafka's fixed heap (default 1g, its script's)
# CORES       list for both brokers (taskset), as 0,1; the load shares the machine   RINGTAIL  another command that starts the other broker, with {port} and {dir}
# Needs Java 17, Maven (or KAFKA_LIB) and python3; fio for the disk's floors.
set -euo pipefail
cd "$(dirname "$0")/.."
quick=; out=target/compare-kafka
while [ $# -gt 0 ]; do case $1 in --quick) quick=1;; --out) out=$2; shift;; *) echo "unknown: $1" >&2; exit 3;; esac; shift; done
HEAP=${HEAP:-1g}; measured=600s; [ -n "$quick" ] && measured=20s
mkdir -p "$out"; out=$(cd "$out" && pwd); work=$out/work; rm -rf "$work"; mkdir -p "$work"

if [ -z "${LOADGEN:-}" ]; then cargo build --release --locked -p ringtail-loadgen; LOADGEN=$PWD/target/release/ringtail-loadgen; fi
if [ -z "${RINGTAIL:-}" ]; then
  cargo build --release --locked --bin ringtail
  RINGTAIL="$PWD/target/release/ringtail start --override listeners=PLAINTEXT://127.0.0.1:{port} --override log.dirs={dir}/data --override durability=MODE"
fi
if [ -z "${KAFKA_LIB:-}" ]; then
  KAFKA_LIB=$PWD/target/kafka-lib
  [ -d "$KAFKA_LIB" ] || mvn -q -B -f benches/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$KAFKA_LIB"
fi

# Kafka: the JVM flags of its own start script, a fixed heap, one node.
cat > "$work/kafka.sh" <<SH
#!/bin/bash
# kafka.sh PORT PORT2 DIR MODE
cat > \$3/server.properties <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:\$2
listeners=PLAINTEXT://127.0.0.1:\$1,CONTROLLER://127.0.0.1:\$2
advertised.listeners=PLAINTEXT://127.0.0.1:\$1
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=\$3/data
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
P
[ "\$4" = flush ] && echo log.flush.interval.messages=1 >> \$3/server.properties
java -Xmx256m -cp "$KAFKA_LIB/*" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg -c \$3/server.properties >/dev/null 2>&1
exec java -Xms$HEAP -Xmx$HEAP -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true -cp "$KAFKA_LIB/*" kafka.Kafka \$3/server.properties
SH
chmod +x "$work/kafka.sh"
on_cores() { if [ -n "${CORES:-}" ]; then echo "taskset -c $CORES $1"; else echo "$1"; fi; }

pids=()
stop_all() { for pid in "${pids[@]:-}"; do [ -n "$pid" ] && kill -TERM -- "-$pid" 2>/dev/null || true; done; pids=(); }
trap stop_all EXIT
free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])'; }
# start NAME MODE: sets addr_NAME and pid_NAME
start() {
  local port port2 dir command; port=$(free_port); port2=$(free_port); dir=$work/$1-$2; mkdir -p "$dir"
  case $1 in
    kafka) command="$work/kafka.sh $port $port2 $dir $2";;
    ringtail) command=${RINGTAIL//\{port\}/$port}; command=${command//\{dir\}/$dir}; command=${command//MODE/$2};;
  esac
  setsid bash -c "exec $(on_cores "$command")" > "$dir.log" 2>&1 & local pid=$!; pids+=("$pid")
  printf -v "addr_$1" %s "127.0.0.1:$port"; printf -v "pid_$1" %s "$pid"
  for _ in $(seq 300); do (echo > "/dev/tcp/127.0.0.1/$port") 2>/dev/null && return; sleep 0.2; done
  echo "$1 does not start:" >&2; tail -5 "$dir.log" >&2; exit 3
}
group_cpu() { python3 - "$1" <<'PY'
import os, sys
group, ticks, rss = sys.argv[1], 0, 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try: fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    except OSError: continue
    if fields[2] == group: ticks += sum(map(int, fields[11:15])); rss += int(fields[21])
print(ticks / os.sysconf("SC_CLK_TCK"), rss * 4096)
PY
}
# load NAME MODE WORKLOAD ARGS...: one run, its report, and the broker's CPU and memory beside it.
load() {
  local name=$1 mode=$2 workload=$3; shift 3
  local addr=addr_$name pid=pid_$name dir=$out/$mode-$workload-$name before after status=0
  before=$(group_cpu "${!pid}")
  "$LOADGEN" run "$workload" -b "${!addr}" -q --json -o "$dir" "$@" > /dev/null || status=$?
  after=$(group_cpu "${!pid}")
  if [ "$status" = 1 ] || [ "$status" = 3 ]; then echo "$name failed under $workload ($mode)" >&2; exit 3; fi
  echo "$before $after $status" > "$dir/broker.txt"
}
rate_of() { python3 -c 'import json,sys; r=json.load(open(sys.argv[1]))["rate"]; print(r["achieved_records_per_s"])' "$1"; }
# Warm until three windows agree within 3 %, at most 20; prints the last window's rate.
warm() {
  local rates=() window
  for window in $(seq 20); do
    load "$1" "$2" ceiling "--seed" "$window"
    rates+=("$(rate_of "$out/$2-ceiling-$1/report.json")")
    python3 -c 'import sys; r=[float(x) for x in sys.argv[1:]][-3:]; sys.exit(not (len(r)==3 and max(r)<=1.03*min(r)))' "${rates[@]}" && { echo "$1 $2 steady after $window windows: ${rates[-1]} records/s" >&2; echo "steady" > "$out/$2-ceiling-$1/steady.txt"; break; }
  done
  [ -f "$out/$2-ceiling-$1/steady.txt" ] || echo "$1 $2: windows never agreed within 3 %" >&2
}
cat > "$work/ceiling.toml" <<'T'
name = "ceiling"
mode = "produce"
rate = "max"
record-bytes = 1024
producers = 16
partitions = 16
batch-records = 1
in-flight = 1
duration = "5s"
warm-up = "0s"
T
cp "$work/ceiling.toml" "$work/ceiling"  # a workload is found by name or by path
cd "$work"

for mode in flush write; do
  start kafka $mode; start ringtail $mode
  for name in kafka ringtail; do warm $name $mode; done
  slower=$(python3 -c 'import sys; print(int(0.6*min(map(float, sys.argv[1:]))))' "$(rate_of "$out/$mode-ceiling-kafka/report.json")" "$(rate_of "$out/$mode-ceiling-ringtail/report.json")")
  echo "$mode: offered $slower records/s, 60 % of the slower one's ceiling" >&2; echo "$slower" > "$out/$mode-offered.txt"
  for workload in trickle tail-read; do
    for name in kafka ringtail; do
      if [ $workload = trickle ]; then load $name $mode trickle --duration $measured
      else load $name $mode tail-read --producers 16 --partitions 16 --record-bytes 1024 --rate "$slower" --duration $measured; fi
    done
  done
  if [ -z "$quick" ] || [ $mode = write ]; then for name in kafka ringtail; do load $name $mode streaming --rate max --duration "$([ -n "$quick" ] && echo 10s || echo 60s)"; done; fi
  stop_all; sleep 2
done

# Floors of the machine, in the same run.
if command -v fio >/dev/null; then
  fio --name=overwrite --filename="$work/fio" --size=64m --bs=4k --rw=write --ioengine=psync --direct=1 --overwrite=1 --output-format=json >/dev/null
  fio --name=dsync --filename="$work/fio" --size=64m --bs=4k --rw=write --ioengine=psync --direct=1 --sync=dsync --overwrite=1 --runtime=5 --time_based --output-format=json > "$out/dsync.json"
  fio --name=sequential --filename="$work/fio2" --size=1g --bs=1m --rw=write --ioengine=libaio --iodepth=8 --direct=1 --output-format=json > "$out/sequential.json"
else echo "fio is not installed: no disk floors" >&2; fi
"$LOADGEN" self-test --json > "$out/self-test.json"
python3 - > "$out/sendmsg.txt" <<'PY'
import socket, threading, time
a, b = socket.socketpair(); buffer, block = bytearray(1 << 20), bytes(1 << 20)
threading.Thread(target=lambda: [None for _ in iter(lambda: b.recv_into(buffer), 0)], daemon=True).start()
start, sent = time.time(), 0
while time.time() < start + 2: a.sendmsg([block]); sent += 1
print(sent * (1 << 20) / (time.time() - start) / 1e6)
PY
# Cold start, fresh processes in pairs.
"$LOADGEN" compare "$work/kafka.sh {port} {port2} {dir} flush" "${RINGTAIL//MODE/flush}" --pairs "$([ -n "$quick" ] && echo 2 || echo 5)" --duration 2s --warm-up 500ms -q --work-dir "$work/rounds" -o "$out/cold" > /dev/null

OUT=$out HEAP=$HEAP QUICK=$quick CORES=${CORES:-} python3 - > "$out/RESULTS.md" <<'PY'
import glob, json, os
out = os.environ["OUT"]
def report(name): return json.load(open(f"{out}/{name}/report.json"))
def us(r, column, p):
    try: return f'{r["columns"][column]["percentiles"][p]["ns"]/1000:,.0f}'
    except KeyError: return "–"
reports = sorted(glob.glob(f"{out}/*/report.json"))
machine = report(os.path.basename(os.path.dirname(reports[0])))["setting"]["machine"]
print(f'# Ringtail beside Apache Kafka\n\n{machine["cpus_online"]} × {machine["cpu_model"]}, {machine["memory_bytes"]/2**30:.0f} GiB, kernel {machine["kernel"]}, governor {machine["governor"]}, {machine["file_system"]}; brokers {"on cores "+os.environ["CORES"] if os.environ["CORES"] else "not pinned"}, the load on the same machine. Kafka with a fixed heap of {os.environ["HEAP"]} and its start script\'s flags.{" **--quick: short runs, for orientation only.**" if os.environ["QUICK"] else ""}\n')
for mode, words in (("flush", "Durable: Ringtail `durability=flush`, Kafka `log.flush.interval.messages=1`"), ("write", "Ringtail `durability=write` (accepted by the device: **more** than Kafka gives here), Kafka's default (page cache)")):
    print(f'## {words}\n\nOffered in tail-read: {open(f"{out}/{mode}-offered.txt").read().strip()} records/s, at most 60 % of the slower one\'s ceiling.\n')
    print("| workload | broker | records/s | MB/s | p50 µs | p99 µs | p99.9 µs | end-to-end p99 µs | broker CPU s per 10^6 records | RSS MiB | |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    for workload in ("ceiling", "trickle", "tail-read", "streaming"):
        for broker in ("kafka", "ringtail"):
            place = f"{mode}-{workload}-{broker}"
            if not os.path.exists(f"{out}/{place}/report.json"): continue
            r = report(place); cpu0, _, cpu1, rss, status = map(float, open(f"{out}/{place}/broker.txt").read().split())
            seconds, rate = r["ended_s"], r["rate"]
            records = rate["achieved_records_per_s"] * seconds or 1
            notes = [] if status == 0 else ["**invalid: generator late**"]
            if rate["sustained"] is False: notes.append("**rate not sustained**")
            if workload == "ceiling" and not os.path.exists(f"{out}/{place}/steady.txt"): notes.append("**never steady within 3 %**")
            if r["closed_loop"]: notes.append("closed loop")
            print(f'| {workload} | {broker} | {rate["achieved_records_per_s"]:,.0f} | {rate["achieved_bytes_per_s"]/1e6:.1f} | {us(r,"latency","p50")} | {us(r,"latency","p99")} | {us(r,"latency","p99.9")} | {us(r,"end_to_end","p99")} | {(cpu1-cpu0)/records*1e6:.1f} | {rss/2**20:.0f} | {", ".join(notes)} |')
    print()
print("## Cold start and rounds in fresh processes (base Kafka, candidate Ringtail)\n"); print(open(f"{out}/cold/compare.md").read())
print("## Floors in the same run\n")
if os.path.exists(f"{out}/dsync.json"):
    d = json.load(open(f"{out}/dsync.json"))["jobs"][0]["write"]; p = d["clat_ns"]["percentile"]
    s = json.load(open(f"{out}/sequential.json"))["jobs"][0]["write"]
    print(f'- O_DSYNC overwrite of 4 KiB: p50 {p["50.000000"]/1000:.0f}, p99 {p["99.000000"]/1000:.0f} µs\n- sequential O_DIRECT write, 1 MiB × 8: {s["bw_bytes"]/1e6:,.0f} MB/s')
floor = json.load(open(f"{out}/self-test.json"))["cases"][0]
print(f'- loopback produce to a broker that does nothing: p50 {floor["p50_ns"]/1000:.0f}, p99 {floor["p99_ns"]/1000:.0f} µs\n- sendmsg of 1 MiB blocks: {float(open(f"{out}/sendmsg.txt").read()):,.0f} MB/s')
PY
rm -rf "$work"; echo "$out/RESULTS.md" >&2

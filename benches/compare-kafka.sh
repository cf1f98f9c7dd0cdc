#!/bin/bash
# Ringtail beside Apache Kafka on this machine: RESULTS.md, RESULTS.html and every run's own report.
#
#   benches/compare-kafka.sh [--quick] [--out DIR] [--part flush|write|cold|floors|report]...
#
# Without --quick one load runs 10 minutes a broker (STEADY seconds), so that garbage collection, write-back and journal laps are in it;
# with it everything takes less than 10 minutes. --part does a part only (several may be given); what other parts have left
# in DIR stays, and `report` puts together what is there.
#
# KAFKA_LIB  directory with Kafka's jars; without it Maven brings 4.3.1 into target/
# HEAP       Kafka's fixed heap, 1g as in its start script
# CORES      cores of both brokers, as 0,1; the load shares the machine either way
# RINGTAIL, LOADGEN  other binaries than those of target/release
#
# Needs Java 17, Maven (or KAFKA_LIB) and python3.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

quick='' out=target/compare-kafka parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1 ;;
    --out) out=${2:?--out wants a directory}; shift ;;
    --part) parts+=("${2:?--part wants a name}"); shift ;;
    *) sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 3 ;;
  esac
  shift
done
[ ${#parts[@]} -gt 0 ] || parts=(flush write cold floors report)
export HEAP=${HEAP:-1g} CORES=${CORES:-} QUICK=$quick
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$out/work
rm -rf "$work"
mkdir -p "$work"

# Seconds of the warm-up and of its windows, windows at most, seconds of the loads, pairs of cold starts.
if [ -n "$quick" ]; then
  warm_up=15 window=3 windows_max=5 trickle=10 steady=20 streaming=8 cold_pairs=9
else
  warm_up=60 window=5 windows_max=30 trickle=120 steady=${STEADY:-600} streaming=20 cold_pairs=10
fi

if [ -z "${LOADGEN:-}" ] || [ -z "${RINGTAIL:-}" ]; then
  # Both in one go: with -p the features of shared crates come out otherwise, and everything is compiled again.
  cargo build --release --locked
  LOADGEN=${LOADGEN:-$root/target/release/ringtail-loadgen} RINGTAIL=${RINGTAIL:-$root/target/release/ringtail}
fi
export KAFKA_LIB=${KAFKA_LIB:-$root/target/kafka-lib}
if [ ! -d "$KAFKA_LIB" ]; then
  mvn -q -B -f benches/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$KAFKA_LIB"
fi

# The generator goes before both brokers where the system allows it: its own lateness is nobody's latency.
load_command=("$LOADGEN")
if chrt -f 10 true 2>/dev/null; then load_command=(chrt -f 10 "$LOADGEN"); fi

# The command that starts a broker: NAME MODE PORT PORT2 DIR.
command_of() {
  local pin=''
  [ -z "$CORES" ] || pin="taskset -c $CORES "
  case $1 in
    kafka) echo "${pin}$root/benches/kafka/start.sh $3 $4 $5 $2" ;;
    ringtail)
      echo "${pin}$RINGTAIL start --override listeners=PLAINTEXT://127.0.0.1:$3" \
        "--override log.dirs=$5/data --override durability=$2"
      ;;
  esac
}

pids=()
stop_all() {
  local pid
  for pid in "${pids[@]:-}"; do
    [ -z "$pid" ] || kill -TERM -- "-$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]:-}"; do
    [ -z "$pid" ] || wait "$pid" 2>/dev/null || true
  done
  pids=()
}
trap 'stop_all; rm -rf "$work"' EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# start NAME MODE: sets address_NAME and pid_NAME once the port is open.
start() {
  local port port2 dir
  port=$(free_port) port2=$(free_port) dir=$work/$1-$2
  mkdir -p "$dir"
  # shellcheck disable=SC2046
  setsid $(command_of "$1" "$2" "$port" "$port2" "$dir") >"$dir.log" 2>&1 &
  pids+=($!)
  printf -v "address_$1" %s "127.0.0.1:$port"
  printf -v "pid_$1" %s "$!"
  for _ in $(seq 300); do
    (echo >"/dev/tcp/127.0.0.1/$port") 2>/dev/null && return
    sleep 0.2
  done
  echo "$1 does not start:" >&2
  tail -5 "$dir.log" >&2
  exit 3
}

# CPU seconds and bytes of memory of a broker's processes.
usage() { python3 "$root/benches/kafka/usage.py" "$1"; }

# load PLACE NAME WORKLOAD FLAGS...: one run on a topic of its own, its report, and the broker's CPU and memory beside it.
load() {
  local place=$out/$1 name=$2 workload=$3 status=0 before after
  shift 3
  local address=address_$name pid=pid_$name
  # What the run before has left in the page cache is not this one's.
  sync
  before=$(usage "${!pid}")
  "${load_command[@]}" run "$workload" -b "${!address}" -q --json -o "$place" "$@" >/dev/null || status=$?
  after=$(usage "${!pid}")
  # 2 is a late generator: shown in the table. Anything else makes the comparison worthless.
  if [ "$status" != 0 ] && [ "$status" != 2 ]; then
    echo "$name failed: ringtail-loadgen run $workload $* ended with $status" >&2
    tail -5 "$work/$name-"*.log >&2
    exit 3
  fi
  echo "$before $after $status" >"$place/broker.txt"
}

rate_of() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["rate"]["achieved_records_per_s"])' "$1"; }

# A closed loop for Java's compiler, then windows of it until three in a row agree within 3 %.
warm() {
  local name=$1 place=$2-ceiling-$1 rates=() number
  rm -f "$out/$place/steady.txt"
  load "$place" "$name" "$root/benches/kafka/steady.toml" --rate max --duration ${warm_up}s --warm-up 0s
  for number in $(seq $windows_max); do
    load "$place" "$name" "$root/benches/kafka/steady.toml" \
      --name ceiling --rate max --duration ${window}s --warm-up 0s --seed "$number"
    rates+=("$(rate_of "$out/$place/report.json")")
    if python3 -c 'import sys
r = [float(x) for x in sys.argv[1:]][-3:]
sys.exit(not (len(r) == 3 and max(r) <= 1.03 * min(r)))' "${rates[@]}"; then
      echo "$number" >"$out/$place/steady.txt"
      break
    fi
  done
  echo "$place: windows of ${window} s: ${rates[*]} records/s" >&2
}

# measure MODE: both brokers kept running, and loaded in turn.
measure() {
  local mode=$1 name offered order workload
  start kafka "$mode"
  start ringtail "$mode"
  for name in kafka ringtail; do
    warm "$name" "$mode"
  done
  offered=$(python3 -c 'import sys; print(int(0.6 * min(map(float, sys.argv[1:]))))' \
    "$(rate_of "$out/$mode-ceiling-kafka/report.json")" "$(rate_of "$out/$mode-ceiling-ringtail/report.json")")
  echo "$offered" >"$out/$mode-offered.txt"
  echo "$mode: $offered records/s are offered, 60 % of the slower one's ceiling" >&2
  # Who goes first changes from load to load.
  order="kafka ringtail"
  for workload in trickle steady streaming; do
    for name in $order; do
      case $workload in
        trickle)
          load "$mode-trickle-$name" "$name" trickle --rate 100 --duration ${trickle}s --warm-up 2s
          ;;
        steady)
          load "$mode-steady-$name" "$name" "$root/benches/kafka/steady.toml" \
            --rate "$offered" --duration ${steady}s --warm-up 3s
          ;;
        streaming)
          load "$mode-streaming-$name" "$name" streaming --rate max --duration ${streaming}s --warm-up 2s
          ;;
      esac
    done
    [ "$order" = "kafka ringtail" ] && order="ringtail kafka" || order="kafka ringtail"
  done
  # Nothing to do for five seconds: what the brokers cost then.
  for name in kafka ringtail; do
    local pid=pid_$name
    echo "$(usage "${!pid}") $(sleep 5; usage "${!pid}")" >"$out/$mode-idle-$name.txt"
  done
  stop_all
}

for part in "${parts[@]}"; do
  case $part in
    flush | write) measure "$part" ;;
    cold)
      "$LOADGEN" compare \
        "$(command_of kafka flush '{port}' '{port2}' '{dir}')" "$(command_of ringtail flush '{port}' '{port2}' '{dir}')" \
        --workload trickle --mode produce --pairs $cold_pairs --duration 1s --warm-up 500ms -q \
        --work-dir "$work/rounds" -o "$out/cold" >/dev/null
      ;;
    floors)
      python3 benches/kafka/floors.py "$work" >"$out/floors.json"
      "$LOADGEN" self-test --json >"$out/self-test.json"
      ;;
    report) python3 benches/kafka/results.py "$out" && echo "$out/RESULTS.md" >&2 ;;
    *) echo "no such part: $part" >&2; exit 3 ;;
  esac
done

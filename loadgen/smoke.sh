#!/bin/bash
# smoke.sh [RINGTAIL [LOADGEN]]: in less than a minute, every ready workload against a Ringtail, small and verified, and the
# gate of the binary against itself. Binaries are those of target/release unless others are given. Fails on any failure.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ringtail=${1:-$here/../target/release/ringtail}
export LOADGEN=${2:-$here/../target/release/ringtail-loadgen}
work=$(mktemp -d)
started=$SECONDS

pid=
finish() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null && wait "$pid" || true; fi
  rm -rf "$work"
}
trap finish EXIT

# confirm-slowed.sh is too long for here; that its patch still fits is not.
if git -C "$here/.." rev-parse HEAD >/dev/null 2>&1; then git -C "$here/.." apply --check loadgen/slowed.patch; fi

# A port on which nobody answers.
port=0
for _ in $(seq 50); do
  port=$((20000 + RANDOM % 10000))
  (echo >"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
"$ringtail" start --override "listeners=PLAINTEXT://127.0.0.1:$port" --override "log.dirs=$work/data" \
    ${RINGTAIL_TEST_RING:+--override "io.ring=$RINGTAIL_TEST_RING"} >"$work/log" 2>&1 &
pid=$!
for _ in $(seq 100); do
  (echo >"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
  sleep 0.1
done

# load NAME FLAGS...: a late generator (2) is a busy machine and no failure of the broker; anything else is one.
load() {
  local status=0
  "$LOADGEN" run "$@" -b "127.0.0.1:$port" -q --warm-up 200ms --duration 1s --timeout 20s >"$work/report" 2>&1 || status=$?
  if [ "$status" != 0 ] && [ "$status" != 2 ]; then
    printf 'smoke: %s ended with %s\n' "$*" "$status" >&2
    cat "$work/report" >&2
    tail -5 "$work/log" >&2
    exit 1
  fi
  printf '%-16s %s\n' "$1" "$(grep -m1 -E '^ +(verified|acknowledged) ' "$work/report" | tr -s ' ')"
}
load trickle
load fan-in --producers 50 --rate 500
load many-partitions --partitions 100 --rate 500
load tail-read --rate 500
load mixed --rate 1000
load burst --rate 1000
load streaming --rate 10MB/s
load catch-up --prefill 16MiB

kill "$pid"
wait "$pid" || { echo "smoke: the broker did not end cleanly" >&2; tail -5 "$work/log" >&2; exit 1; }
pid=

# The same binary on both sides must pass a limit that no noise reaches.
"$here/latency-gate.sh" "$ringtail" "$ringtail" "$work/gate" --work-dir "$work/rounds" --pairs 6 --limit p50=500% \
  --rate 500 --producers 1 --duration 600ms --warm-up 200ms -q
for file in gate.md gate.xml gate.html gate.json; do
  [ -s "$work/gate/$file" ] || { echo "smoke: the gate left no $file" >&2; exit 1; }
done
echo "smoke: all good in $((SECONDS - started)) s"

#!/bin/bash
# confirm-slowed.sh MICROS OUT [FLAGS...]: does the gate find a broker that is really slower? Builds HEAD in a worktree of its own
# with slowed.patch, which spins for so many microseconds in every produce request, and runs latency-gate.sh with the binary of
# target/release as the base. FLAGS go to `ringtail-loadgen gate`. Exit 0: the slowed build is a regression. 1: it was not found.
#
#   confirm-slowed.sh 0 OUT --equal N [FLAGS...]: instead, N gates of the base against itself; 1 if any calls that a regression.
#
# PAIRS is the number of pairs (80). SLOWED is the slowed binary (target/slowed/release/ringtail); it is built if it is not there.
set -euo pipefail
micros=${1:?MICROS OUT [FLAGS...]} out=${2:?OUT is missing}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/.." && pwd)
base=$root/target/release/ringtail
mkdir -p "$out"

# judge NAME CANDIDATE FLAGS...: the gate's exit code in $status. Anything but a verdict ends the script.
judge() {
  local name=$1 candidate=$2
  shift 2
  status=0
  "$here/latency-gate.sh" "$base" "$candidate" "$out/$name" --limit p50=10%,p99=20% --pairs "${PAIRS:-80}" \
    --work-dir /dev/shm/slowed-rounds "$@" >"$out/$name.md" 2>"$out/$name.log" || status=$?
  [ "$status" -le 2 ] || { tail -3 "$out/$name.log" >&2; exit 3; }
  printf '%-10s exit %s  %s\n' "$name" "$status" "$(grep -E '^\| gate' "$out/$name.md" | cut -d'|' -f2,3 | tr -s ' \n' ' ')"
}

if [ "${1:-}" = --equal ]; then
  count=${2:?--equal wants a number} false_alarms=0
  shift 2
  for number in $(seq "$count"); do
    judge "equal-$number" "$base" "$@"
    [ "$status" != 1 ] || false_alarms=$((false_alarms + 1))
  done
  echo "$false_alarms of $count gates of one binary against itself were called a regression"
  [ "$false_alarms" = 0 ]
  exit
fi

slowed=${SLOWED:-$root/target/slowed/release/ringtail}
if [ ! -x "$slowed" ]; then
  tree=$(mktemp -d)
  trap 'git -C "$root" worktree remove --force "$tree/ringtail" 2>/dev/null; rm -rf "$tree"' EXIT
  git -C "$root" worktree add -q --detach "$tree/ringtail" HEAD
  git -C "$tree/ringtail" apply "$here/slowed.patch"
  (cd "$tree/ringtail" && CARGO_TARGET_DIR=$root/target/slowed cargo build -q --release --locked)
  [ "$slowed" -ef "$root/target/slowed/release/ringtail" ] || cp "$root/target/slowed/release/ringtail" "$slowed"
fi
judge slowed "env SLOWED_BY_US=$micros $slowed" "$@"
if [ "$status" != 1 ]; then
  echo "the slowed build was not called a regression" >&2
  exit 1
fi

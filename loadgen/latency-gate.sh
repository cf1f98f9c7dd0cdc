#!/bin/bash
# latency-gate.sh BASE CANDIDATE OUT [FLAGS...]: judges the candidate binary of Ringtail against the base binary; FLAGS go to
# `ringtail-loadgen gate`. Exit 0 pass, 1 regression, 2 inconclusive, 3 any error. The pull requests' workflow and smoke.sh
# both call this. LOADGEN is another load generator than that of target/release.
set -euo pipefail
base=${1:?BASE CANDIDATE OUT [FLAGS...]} candidate=${2:?CANDIDATE is missing} out=${3:?OUT is missing}
shift 3
here=$(cd "$(dirname "$0")" && pwd)
loadgen=${LOADGEN:-$here/../target/release/ringtail-loadgen}
# Registered buffers need locked memory; without it both run the same way, only slower.
ulimit -l unlimited 2>/dev/null || sudo -n prlimit --pid $$ --memlock=unlimited 2>/dev/null || true
start='start --override listeners=PLAINTEXT://127.0.0.1:{port} --override log.dirs={dir}/data'
# Where the system allows it the generator goes before the broker: its own lateness is nobody's latency.
first='' normal=''
if chrt -f 10 true 2>/dev/null; then first='chrt -f 10' normal='chrt -o 0 '; fi
# shellcheck disable=SC2086
exec $first "$loadgen" gate "$normal$base $start" "$normal$candidate $start" --out "$out" "$@"

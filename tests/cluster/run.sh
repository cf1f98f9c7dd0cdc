#!/usr/bin/env bash
# Three brokers with real processes: killed, frozen, stopped and cut off in turn while idempotent producers write and a group reads; every
# acknowledged record is accounted for. tests/cluster/run.sh [ringtail|kafka] [seconds]
# The faults come in a fixed order once; with seconds, at random for so long after it (SEED repeats a run). The brokers are Ringtail's
# release build (RINGTAIL names another) or Apache Kafka itself, which must pass as well.
which=${1:-ringtail}
seconds=${2:-0}
set --
source "$(dirname "${BASH_SOURCE[0]}")/../interop/lib.sh"
need_kafka
need_command kcat kcat
# Cuts between nodes; without them there are none, and it says so.
command -v nft >/dev/null || (need_command nft nftables) || true
command -v python3 >/dev/null || skip "no python3"
if [ ! -f "$WORK/venv-cluster/.complete" ]; then
    { python3 -m venv "$WORK/venv-cluster" && "$WORK/venv-cluster/bin/pip" install -q 'confluent-kafka>=2.6,<3'; } ||
        skip "librdkafka for python cannot be installed"
    touch "$WORK/venv-cluster/.complete"
fi
binary=${RINGTAIL:-$ROOT/target/release/ringtail}
[ "$which" = kafka ] || [ -x "$binary" ] || fail "no $binary: cargo build --release first"
PYTHONDONTWRITEBYTECODE=1 exec "$WORK/venv-cluster/bin/python" "$ROOT/tests/cluster/faults.py" \
    "$which" "$binary" "$WORK/kafka" "$ROOT/target/cluster" "$seconds"

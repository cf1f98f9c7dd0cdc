#!/usr/bin/env bash
# Sends the same requests to Apache Kafka and to Ringtail and compares the answers field by field: tests/oracle/run.sh [case…].
# Before that it holds the guard's table of shapes against the schemas in Kafka's jar. RINGTAIL names the binary (default: the release build). SHOW=1 leaves every answer in target/oracle/*.txt.
source "$(dirname "${BASH_SOURCE[0]}")/../interop/lib.sh"
need_kafka
command -v python3 >/dev/null || skip "no python3"
binary=${RINGTAIL:-$ROOT/target/release/ringtail}
[ -x "$binary" ] || fail "no $binary: cargo build --release first"
mkdir -p "$ROOT/target/oracle"
PYTHONDONTWRITEBYTECODE=1 python3 "$ROOT/tests/oracle/shapes.py" --check "$WORK/kafka"/kafka-clients-*.jar
PYTHONDONTWRITEBYTECODE=1 exec python3 "$ROOT/tests/oracle/oracle.py" "$WORK/kafka" "$binary" "$ROOT/target/oracle" "$@"

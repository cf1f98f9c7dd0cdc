#!/usr/bin/env bash
# Starts the release build on a free port and runs every script of this folder against it; or, with an address, runs
# them against that broker. Each must pass alone; what cannot run here says why and is counted as skipped.
# RINGTAIL_TEST_RING=own|glommio chooses the brokers' way to the kernel, here and in tests/broker.
cd "$(dirname "$0")"
ROOT="$(cd ../.. && pwd)"
WORK="$ROOT/target/interop"
mkdir -p "$WORK"
broker=
if [ $# -gt 0 ]; then
    address=$1
else
    rm -rf "$WORK/data"
    "$ROOT/target/release/ringtail" start --override "log.dirs=$WORK/data" --override listeners=PLAINTEXT://127.0.0.1:0 \
        ${RINGTAIL_TEST_RING:+--override "io.ring=$RINGTAIL_TEST_RING"} >"$WORK/broker.log" 2>&1 &
    broker=$!
    trap '[ -n "$broker" ] && kill "$broker" 2>/dev/null' EXIT
    for _ in $(seq 100); do
        address=$(sed -n "s/.*listening=\"\?\([0-9.]*:[0-9]*\).*/\1/p" "$WORK/broker.log" | head -1)
        [ -n "$address" ] && break
        sleep 0.1
    done
    [ -n "$address" ] || { cat "$WORK/broker.log"; exit 1; }
fi
echo "broker at $address"
passed=0 failed=0 skipped=0
for script in *.sh; do
    case $script in lib.sh | run.sh) continue ;; esac
    began=$SECONDS
    timeout 600 "./$script" "$address" >"$WORK/${script%.sh}.log" 2>&1
    code=$?
    case $code in
        0) passed=$((passed + 1)); echo "ok      $script ($((SECONDS - began))s)" ;;
        77) skipped=$((skipped + 1)); echo "skipped $script: $(sed -n 's/^SKIP: //p' "$WORK/${script%.sh}.log" | tail -1)" ;;
        *) failed=$((failed + 1)); echo "FAILED  $script ($code)"; tail -30 "$WORK/${script%.sh}.log" ;;
    esac
done
if [ -n "$broker" ]; then
    kill "$broker"
    wait "$broker"
    code=$?
    broker=
    if [ "$code" != 0 ]; then
        echo "FAILED  the broker did not stop cleanly: exit code $code"
        failed=$((failed + 1))
        tail -20 "$WORK/broker.log"
    fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]

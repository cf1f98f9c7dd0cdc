#!/usr/bin/env bash
# README's two commands are the ones that work: the first starts a broker, the second is what `.ci/run` passes.
# Judges the checkout, so the address is not used.
source "$(dirname "$0")/lib.sh"
command -v cargo >/dev/null || skip "no cargo"
cd "$ROOT"

# The first block's commands, without their comments.
mapfile -t commands < <(awk '/^```/ { if (++fence == 2) exit; next } fence == 1' README.md | sed 's/ *#.*//')
expect "commands in README's first block" 2 "${#commands[@]}"
grep -qxF "${commands[1]}" .ci/run || fail "CI does not run README's test command: ${commands[1]}"

data=$(mktemp -d "$WORK/readme.XXXXXX")
log=$data.log
# On a port and a directory of its own; else word for word.
${commands[0]} --override "log.dirs=$data" --override listeners=PLAINTEXT://localhost:0 >"$log" 2>&1 &
broker=$!
trap 'kill -9 "$broker" 2>/dev/null || true; rm -rf "$data" "$log"' EXIT
for _ in $(seq 3000); do
    grep -q 'ready: clients connect to' "$log" && break
    kill -0 "$broker" 2>/dev/null || { cat "$log"; fail "«${commands[0]}» starts no broker"; }
    sleep 0.1
done
address=$(sed -n 's/.*ready: clients connect to \(localhost:[0-9]*\).*/\1/p' "$log")
(echo >"/dev/tcp/${address%:*}/${address#*:}") || fail "nobody listens on «$address»"
# cargo becomes the broker, so this is the broker's own exit code.
code=0
kill "$broker"
wait "$broker" || code=$?
expect "exit code after SIGTERM" 0 "$code"

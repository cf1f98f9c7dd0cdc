#!/usr/bin/env bash
# franz-go, idempotent produce with every codec, groups with each balancer and static members.
source "$(dirname "$0")/lib.sh"
command -v go >/dev/null || skip "no go"
mkdir -p "$WORK/go"
cp "$INTEROP"/go/*.go "$INTEROP/go/go.mod" "$WORK/go/"
cd "$WORK/go"
[ -x check ] && [ check -nt main.go ] || { go mod tidy && go build -o check .; } >"$WORK/go.log" 2>&1 || skip "franz-go cannot be built: $(tail -1 "$WORK/go.log")"
timeout 120 ./check "$BOOTSTRAP"

#!/usr/bin/env bash
# kafkajs, produce and consume in a group.
source "$(dirname "$0")/lib.sh"
command -v npm >/dev/null || skip "no npm"
mkdir -p "$WORK/node"
cp "$INTEROP/node/package.json" "$INTEROP/node/check.js" "$WORK/node/"
[ -d "$WORK/node/node_modules/kafkajs" ] || (cd "$WORK/node" && npm install --silent --no-audit --no-fund) || skip "kafkajs cannot be installed"
cd "$WORK/node" && timeout 120 node check.js "$BOOTSTRAP"

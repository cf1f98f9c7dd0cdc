#!/usr/bin/env bash
# librdkafka (kcat): every codec, keys, headers, nulls; what goes in comes out, by SHA-256.
source "$(dirname "$0")/lib.sh"
need_command kcat kcat
lines=${LINES_MAX:-20000}
# `head` may end the pipe before `find` is done.
(find "$ROOT/src" "$ROOT/loadgen" "$ROOT/tests" -type f \( -name '*.rs' -o -name '*.sh' \) -print0 | sort -z |
    xargs -0 cat | grep -v '^$' | head -n "$lines") >"$WORK/corpus.txt" || true
wanted=$(sha256sum <"$WORK/corpus.txt")
for codec in none gzip snappy lz4 zstd; do
    topic=$(topic_name "kcat-$codec")
    kcat -b "$BOOTSTRAP" -P -t "$topic" -p 0 -z "$codec" -X enable.idempotence=true -X topic.request.timeout.ms=30000 -l "$WORK/corpus.txt"
    found=$(kcat -b "$BOOTSTRAP" -C -t "$topic" -p 0 -o beginning -e -q | sha256sum)
    expect "$codec" "$wanted" "$found"
done
topic=$(topic_name kcat-shape)
printf 'k1:v1\nk2:\n' | kcat -b "$BOOTSTRAP" -P -t "$topic" -p 0 -K: -Z -H a=1 -H a=2 -H b=
expect "keys, nulls, headers" $'k1|v1|a=1,a=2,b=|2\nk2||a=1,a=2,b=|-1' \
    "$(kcat -b "$BOOTSTRAP" -C -t "$topic" -p 0 -o beginning -e -q -f '%k|%s|%h|%S\n')"
kcat -b "$BOOTSTRAP" -L -t "$topic" | grep -q "topic \"$topic\" with 1 partitions" || fail "metadata"
group=$(topic_name kcat-group)
expect "balanced consumer" 2 "$(timeout 60 kcat -b "$BOOTSTRAP" -G "$group" -X auto.offset.reset=earliest -c 2 -q "$topic" | wc -l)"
echo "kcat: ok"

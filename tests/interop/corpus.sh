#!/usr/bin/env bash
# Real text, line by line, through the stock console producer and through librdkafka with each codec: what goes in comes
# out, by SHA-256. CORPUS_MIB says how much (default 24; 1024 and more for the whole proof).
source "$(dirname "$0")/lib.sh"
need_kafka
need_command kcat kcat
size=$((${CORPUS_MIB:-24} * 1024 * 1024))
corpus="$WORK/corpus-$size.txt"
if [ ! -f "$corpus" ]; then
    # Sources and documentation of whatever is installed; valid UTF-8 without carriage returns, since Java's reader and
    # kcat agree on nothing else. `head` ends the pipe early.
    (find "$ROOT/src" "$ROOT/loadgen" /usr/share/doc /usr/include "${CARGO_HOME:-$HOME/.cargo}/registry/src" "$HOME/.pyenv/versions" \
        /usr/local/go/src -type f -size -2M \( -name '*.rs' -o -name '*.md' -o -name '*.txt' -o -name '*.py' -o -name '*.h' \
        -o -name '*.c' -o -name '*.go' -o -name copyright -o -name '*.html' \) -print0 2>/dev/null | sort -z | xargs -0 cat 2>/dev/null |
        iconv -c -f UTF-8 -t UTF-8 | tr -d '\r\000' | awk 'length($0) > 0 && length($0) < 100000' |
        head -c "$size" | sed '$d') >"$corpus.part" 2>/dev/null || true
    mv "$corpus.part" "$corpus"
fi
[ -s "$corpus" ] || skip "no text on this machine"
echo "$(stat -c %s "$corpus") bytes, $(wc -l <"$corpus") lines"
wanted=$(sha256sum <"$corpus")
for codec in none gzip snappy lz4 zstd; do
    topic=$(topic_name "corpus-$codec")
    kcat -b "$BOOTSTRAP" -P -t "$topic" -p 0 -z "$codec" -X enable.idempotence=true -X queue.buffering.max.kbytes=262144 -l "$corpus"
    found=$(kcat -b "$BOOTSTRAP" -C -t "$topic" -p 0 -o beginning -e -q | sha256sum)
    expect "librdkafka, $codec" "$wanted" "$found"
    echo "librdkafka, $codec: ok"
done
topic=$(topic_name corpus-console)
kafka kafka-topics --create --topic "$topic" --bootstrap-server "$BOOTSTRAP"
kafka kafka-console-producer --topic "$topic" --bootstrap-server "$BOOTSTRAP" --compression-codec zstd <"$corpus"
found=$(kafka kafka-console-consumer --topic "$topic" --bootstrap-server "$BOOTSTRAP" --from-beginning \
    --max-messages "$(wc -l <"$corpus")" --timeout-ms 60000 | sha256sum)
expect "console tools" "$wanted" "$found"
echo "corpus: ok"

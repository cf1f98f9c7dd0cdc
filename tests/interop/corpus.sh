#!/usr/bin/env bash
# Real text, line by line, through the stock console producer and through librdkafka with each codec: what goes in comes
# out, by SHA-256. CORPUS_MIB says how much (default 24; 1024 and more for the whole proof).
source "$(dirname "$0")/lib.sh"
need_kafka
need_command kcat kcat
corpus=$(make_corpus $((${CORPUS_MIB:-24} * 1024 * 1024)))
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

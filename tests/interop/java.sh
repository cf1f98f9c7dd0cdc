#!/usr/bin/env bash
# Apache Kafka's Java client: idempotent produce, consume alone and in groups with each assignor and a static member.
source "$(dirname "$0")/lib.sh"
need_kafka
command -v javac >/dev/null || skip "no javac"
mkdir -p "$WORK/java"
javac -nowarn -cp "$WORK/kafka/*" -d "$WORK/java" "$INTEROP/java/Check.java"
timeout 240 java -Xmx512m -Dlog4j2.configurationFile="$INTEROP/kafka/log4j2.properties" -cp "$WORK/java:$WORK/kafka/*" Check "$BOOTSTRAP"

#!/bin/bash
# start.sh PORT CONTROLLER_PORT DIR flush|write: Apache Kafka as its own start script runs it, with one node and a fixed heap.
# KAFKA_LIB is the directory with its jars, HEAP the heap.
set -euo pipefail
port=$1 controller_port=$2 dir=$3 mode=$4
mkdir -p "$dir"
cat >"$dir/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$dir/data
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
P
if [ "$mode" = flush ]; then echo log.flush.interval.messages=1 >>"$dir/server.properties"; fi
# Formatting starts a second Java. It is done before the measurement and copied, so that a cold start is the broker's own.
template=${TMPDIR:-/tmp}/compare-kafka-formatted-$UID
if [ ! -f "$template/meta.properties" ]; then
  rm -rf "$template" "$template.part"
  sed "s#^log.dirs=.*#log.dirs=$template.part#" "$dir/server.properties" >"$dir/format.properties"
  java -Xmx256m -cp "$KAFKA_LIB/*" kafka.tools.StorageTool format -t MkU3OEVBNTcwNTJENDM2Qg \
    -c "$dir/format.properties" >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; exit 1; }
  mv "$template.part" "$template"
fi
[ -d "$dir/data" ] || cp -r "$template" "$dir/data"
exec java -Xms"$HEAP" -Xmx"$HEAP" -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
  -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true \
  -cp "$KAFKA_LIB/*" kafka.Kafka "$dir/server.properties"

# What every script here shares. Source it; then: kafka <tool> <arguments>, fail, topic_name, BOOTSTRAP.
# A script takes the bootstrap address as its first argument (default localhost:9092), so that it judges any broker.
set -euo pipefail
INTEROP="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ROOT="$(cd "$INTEROP/../.." && pwd)"
WORK="$ROOT/target/interop"
BOOTSTRAP="${1:-${BOOTSTRAP:-localhost:9092}}"
mkdir -p "$WORK"

# A script that cannot run here says why and is counted as skipped.
skip() { echo "SKIP: $*"; exit 77; }
fail() { echo "FAIL: $*" >&2; exit 1; }
expect() { # expect <what> <wanted> <found>
    [ "$2" = "$3" ] || fail "$1: wanted «$2», found «$3»"
}
# says <pattern> <command…>: the command's output holds a line like that, whatever its exit code.
says() {
    local pattern=$1
    shift
    "$@" >"$WORK/says.out" 2>&1 || true
    grep -qE -- "$pattern" "$WORK/says.out" || { cat "$WORK/says.out"; return 1; }
}
topic_name() { echo "$1-$$-$RANDOM"; }

need_kafka() {
    command -v java >/dev/null || skip "no java"
    if [ ! -f "$WORK/kafka/.complete" ]; then
        command -v mvn >/dev/null || skip "no mvn to bring Apache Kafka's tools"
        mvn -q -B -f "$INTEROP/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
            -DoutputDirectory="$WORK/kafka" || skip "Apache Kafka's jars are out of reach"
        touch "$WORK/kafka/.complete"
    fi
}

# Apache Kafka's own tools by the names of their scripts.
kafka() {
    local tool=$1 class
    shift
    case $tool in
        kafka-topics) class=org.apache.kafka.tools.TopicCommand ;;
        kafka-console-producer) class=org.apache.kafka.tools.ConsoleProducer ;;
        kafka-console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
        kafka-consumer-groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
        kafka-configs) class=kafka.admin.ConfigCommand ;;
        kafka-get-offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
        kafka-delete-records) class=org.apache.kafka.tools.DeleteRecordsCommand ;;
        kafka-dump-log) class=org.apache.kafka.tools.DumpLogSegments ;;
        kafka-producer-perf-test) class=org.apache.kafka.tools.ProducerPerformance ;;
        kafka-consumer-perf-test) class=org.apache.kafka.tools.ConsumerPerformance ;;
        kafka-broker-api-versions) class=org.apache.kafka.tools.BrokerApiVersionsCommand ;;
        kafka-cluster) class=org.apache.kafka.tools.ClusterTool ;;
        kafka-log-dirs) class=org.apache.kafka.tools.LogDirsCommand ;;
        kafka-leader-election) class=org.apache.kafka.tools.LeaderElectionCommand ;;
        kafka-reassign-partitions) class=org.apache.kafka.tools.reassign.ReassignPartitionsCommand ;;
        kafka-metadata-quorum) class=org.apache.kafka.tools.MetadataQuorumCommand ;;
        kafka-features) class=org.apache.kafka.tools.FeatureCommand ;;
        kafka-transactions) class=org.apache.kafka.tools.TransactionsCommand ;;
        kafka-acls) class=org.apache.kafka.tools.AclCommand ;;
        kafka-client-metrics) class=org.apache.kafka.tools.ClientMetricsCommand ;;
        kafka-groups) class=org.apache.kafka.tools.GroupsCommand ;;
        kafka-verifiable-producer) class=org.apache.kafka.tools.VerifiableProducer ;;
        kafka-verifiable-consumer) class=org.apache.kafka.tools.VerifiableConsumer ;;
        *) fail "unknown tool $tool" ;;
    esac
    java -Xmx512m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$INTEROP/kafka/log4j2.properties" \
        -cp "$WORK/kafka/*" "$class" "$@"
}

# Debian packages, where we may install them.
need_command() { # need_command <command> <package>
    command -v "$1" >/dev/null && return
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || skip "no $1"
    { apt-get install -y -q "$2" || { apt-get update -q && apt-get install -y -q "$2"; }; } >"$WORK/apt.log" 2>&1 || skip "$2 cannot be installed"
}

# A broker of the script's own: start_own <binary> <data> <arguments…>; BOOTSTRAP is its address then. Ends with the script.
own_broker=
start_own() {
    local binary=$1 data=$2 log="$WORK/own-broker.log"
    shift 2
    "$binary" start --override "log.dirs=$data" --override "listeners=PLAINTEXT://127.0.0.1:${OWN_PORT:-0}" \
        ${RINGTAIL_TEST_RING:+--override "io.ring=$RINGTAIL_TEST_RING"} "$@" >"$log" 2>&1 &
    own_broker=$!
    trap 'if [ -n "$own_broker" ]; then kill -9 "$own_broker" 2>/dev/null; fi' EXIT
    BOOTSTRAP=
    for _ in $(seq 200); do
        BOOTSTRAP=$(sed -n "s/.*listening=\"\?\([0-9.]*:[0-9]*\).*/\1/p" "$log" | head -1)
        [ -n "$BOOTSTRAP" ] && return
        sleep 0.1
    done
    cat "$log"
    fail "the broker did not start"
}
stop_own() {
    local pid=$own_broker code=0
    own_broker=
    kill "$pid"
    wait "$pid" || code=$?
    [ "$code" = 0 ] || { tail -20 "$WORK/own-broker.log"; fail "the broker did not stop cleanly: exit code $code"; }
}

# make_corpus <bytes>: prints the path of a text of just under that size, made of what lies on this machine; from the start again if
# there is not enough of it. Sources and documentation; valid UTF-8 without carriage returns, since Java's reader and kcat agree on
# nothing else (iconv lets code points beyond Unicode through, Java does not). `head` ends the pipe early.
make_corpus() {
    local size=$1 corpus="$WORK/corpus-$1.txt" before
    if [ ! -f "$corpus" ]; then
        : >"$corpus.part"
        while [ "$(stat -c %s "$corpus.part")" -lt "$size" ]; do
            before=$(stat -c %s "$corpus.part")
            (find "$ROOT/src" "$ROOT/loadgen" /usr/share/doc /usr/include "${CARGO_HOME:-$HOME/.cargo}/registry/src" "$HOME/.pyenv/versions" \
                /usr/local/go/src -type f -size -2M \( -name '*.rs' -o -name '*.md' -o -name '*.txt' -o -name '*.py' -o -name '*.h' \
                -o -name '*.c' -o -name '*.go' -o -name copyright -o -name '*.html' \) -print0 2>/dev/null | sort -z | xargs -0 cat 2>/dev/null |
                iconv -c -f UTF-8 -t UTF-8 | tr -d '\r\000' |
                LC_ALL=C awk 'length($0) > 0 && length($0) < 100000 && !/[\365-\377]|\364[\220-\277]/' |
                head -c $((size - before))) >>"$corpus.part" 2>/dev/null || true
            [ "$(stat -c %s "$corpus.part")" -gt "$before" ] || skip "no text on this machine" >&2
        done
        # The last line may be cut.
        sed -i '$d' "$corpus.part"
        mv "$corpus.part" "$corpus"
    fi
    echo "$corpus"
}

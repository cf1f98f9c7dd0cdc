"""Where Ringtail is meant to answer otherwise than Apache Kafka, and why. A row that no answer needs any more fails the run."""

import fnmatch

SOMETIMES = "sometimes"
# (case/level, label, path, reason[, SOMETIMES]); the first three are patterns as a shell has them. SOMETIMES: chance decides whether
# it is seen, so not seeing it is no failure.
EXPECTED = [
    # What is not there yet.
    ("handshake/*", "others", "", "keys that Ringtail does not have: transactions, KIP-848, share and streams groups, SASL, delegation tokens"),
    ("handshake/*", "api 2", ".max", "the codec has no ListOffsets 11: offsets of tiered storage"),
    ("handshake/*", "api [89]", ".max", "the codec has no OffsetCommit and OffsetFetch 10: topic ids"),
    ("handshake/*", "api 35", ".max", "the codec has no DescribeLogDirs 5: cordoned directories"),
    ("handshake/*", "api 80", ".max", "the codec has no AddRaftVoter 1: acks of one that is not a voter yet"),
    ("handshake/*", "SupportedFeatures metadata.version", ".MinVersion", "there are no older metadata versions to come from"),
    ("handshake/*", "SupportedFeatures *", "", "features of what is not there yet: groups of KIP-848, share and streams, transactions, ELR"),
    ("handshake/*", "FinalizedFeatures *", "", "features of what is not there yet"),
    ("find-coordinator/*", "type 2 *", "*ErrorMessage", "no share groups: says so"),
    ("broker-configs/*", "describe group: resource", "*", "groups have no settings: they came with KIP-848"),
    ("broker-configs/*", "describe metrics: resource", "*", "no client metrics (KIP-714)"),
    ("*-configs/*", "*: min.insync.replicas", "*", "without ELR (KIP-966) nothing sets it for the whole cluster"),
    ("create-topics/*", "*", "*[[]min.insync.replicas].ConfigSource", "without ELR (KIP-966) nothing sets it for the whole cluster"),
    ("every-broker-key/*", "key: min.insync.replicas", "*", "without ELR (KIP-966) nothing sets it for the whole cluster"),
    ("fetch/*", "a follower · *", "*.CurrentLeader*", "no followers to be told of a leader"),
    ("loggers/*", "set root · *", "*", "levels are set at the start alone"),
    ("every-broker-key/*", "key: group.coordinator.rebalance.protocols", "*", "names the kinds of groups that are served"),
    # Settings of our own.
    ("create-topics/*", "*", "*[[]durability].*", "a topic setting of Ringtail's"),
    ("topic-configs/*", "all: durability", "", "a topic setting of Ringtail's"),
    ("every-broker-key/*", "key: durability", "", "a broker setting of Ringtail's"),
    ("every-broker-key/*", "key: cores", "", "a broker setting of Ringtail's"),
    ("every-broker-key/*", "key: journal.bytes", "", "a broker setting of Ringtail's"),
    ("every-broker-key/*", "key: io.ring", "", "a broker setting of Ringtail's"),
    ("every-broker-key/*", "key: memory.bytes", "", "a broker setting of Ringtail's"),
    ("*-configs/*", "*: node.id", ".Synonyms*", "has a default here: it starts without a file"),
    ("every-broker-key/*", "key: max.connections", ".Value", "what memory and open files allow is in force, and told"),
    ("every-broker-key/*", "key: node.id", ".Synonyms*", "has a default here: it starts without a file"),
    ("every-broker-key/*", "key: process.roles", ".Synonyms*", "has a default here: it starts without a file"),
    ("every-broker-key/*", "key: controller.listener.names", ".Synonyms*", "has a default here: it starts without a file"),
    ("every-broker-key/*", "key: broker.id", "*", "not filled in from node.id"),
    ("every-broker-key/*", "key: log.dir", "*", "another default"),
    ("every-broker-key/*", "key: offsets.topic.replication.factor", ".Synonyms*", "another default: three replicas would leave one broker without groups"),
    ("every-broker-key/*", "key: broker.heartbeat.interval.ms", "*", "another default: a broker that is gone is missed sooner"),
    ("every-broker-key/*", "key: broker.session.timeout.ms", "*", "another default: a broker that is gone is missed sooner"),
    ("every-broker-key/*", "key: replica.lag.time.max.ms", "*", "another default: acks=all waits so long for a follower that hangs"),
    ("every-broker-key/*", "key: listener*", "*", "another default, and not to be changed while running"),
    ("every-broker-key/*", "key: advertised.listeners", "*", "the brokers' own ports"),
    ("every-broker-key/*", "key: controller.quorum.voters", "*", "the brokers' own ports"),
    ("*/*", "*log.dirs", "*", "the brokers' own directories"),
    # Where Kafka fails on its own account.
    ("metadata/*", "neither id nor name · *", "*", "Kafka fails with UNKNOWN_SERVER_ERROR"),
    ("describe-topic-partitions/*", "name «» 0 · *", "*", "Kafka fails with UNKNOWN_SERVER_ERROR"),
    ("fetch/*", "*limit -1 · *", "*", "Kafka fails with UNKNOWN_SERVER_ERROR; a negative limit is 0 here"),
    ("fetch/*", "isolation 2 · *", "*", "Kafka fails with UNKNOWN_SERVER_ERROR; read_uncommitted here"),
    ("topic-configs/*", "operation 9 · *", "*", "Kafka fails with UNKNOWN_SERVER_ERROR"),
    ("produce/*", "null · *", "*", "Kafka never answers; INVALID_RECORD here"),
    ("produce/*", "codec [57] · *", "*.ErrorCode", "Kafka fails with UNKNOWN_SERVER_ERROR; UNSUPPORTED_COMPRESSION_TYPE here"),
    ("produce/*", "junk for * · *", "*.ErrorCode", "Kafka fails with UNKNOWN_SERVER_ERROR; INVALID_RECORD here"),
    ("produce/*", "gzip with inner offsets · *", "*", "Kafka fails with UNKNOWN_SERVER_ERROR; the offsets are mended here"),
    ("produce/*", "what is there · *", "*Partitions[[]1].Records[[]4].body", "Kafka keeps wrong inner offsets, they are mended here"),
    ("find-coordinator/*", "type * · *", "*ErrorMessage", "says what is wrong instead of that something is"),
    ("topic-configs/*", "describe kind *: resource", "*ErrorMessage", "says what is wrong instead of that something is"),
    ("wrong-joins/*", "after refused joins · *", "*", "a refused first join leaves no group behind here"),
    ("offset-deletes/*", "the group afterwards · *", "*", "a group without members and offsets is gone at once here, in Kafka with the next look for expired offsets"),
    ("features/*", "lower* · *", ".ErrorMessage", "there are no older metadata versions to go back to"),
    ("features/*", "higher · *", ".ErrorMessage", "there are no older metadata versions to go back to"),
    ("features/*", "level 0 · *", ".ErrorMessage", "there are no older metadata versions to go back to"),
    ("voters/*", "* another cluster · *", ".ErrorMessage", "the brokers' own cluster ids"),
    # Forms that no client sends.
    ("refusals/*", "metadata with -2 topics · *", "*", "a length below -1 closes the connection"),
    ("refusals/*", "client id * · *", "*", "a client id that is no text closes the connection"),
    ("create-topics/*", "collides · *", "*", "names that collide with one another in one request are refused here"),
    ("create-topics/*", "config: blanks · *", "*[[]retention.ms].Value", "blanks around a value are cut off here"),
    ("create-topics/*", "*", "*.TopicId", "what was only validated has no id here"),
    ("commits/*", "no partitions · *", "*", "a topic without partitions comes back as it was sent"),
    ("list-offsets/*", "epoch -2 · *", "*", "every negative epoch is none here"),
    ("*/*", "a partition twice · *", "*", "each mention is answered here, Kafka keeps the last"),
    ("sessions/*", "empty · *", ".SessionId", "a session without partitions is not kept here"),
    # Legal either way.
    ("fetch/*", "*limit * · *", "*.cut", "Kafka cuts a batch at the limit, Ringtail returns whole ones"),
    ("fetch/*", "three partitions, limit * · *", "*", "over several cores a partition that does not fit whole waits for the next fetch", SOMETIMES),
    ("produce*/*", "*", "*.LogStartOffset", "a refusal of records does not carry the log start offset"),
    ("sequences/*", "*", "*.LogStartOffset", "a refusal of records does not carry the log start offset"),
    ("sequences/*", "* · Produce *", "*.LogAppendTimeMs", "a duplicate is answered like the first one, without its records' time"),
    ("produce*/*", "*", "*ErrorMessage", "fewer words"),
]


def row_of(difference):
    """The index of the row that explains a difference, if any."""
    case, label, path, *_ = difference
    for index, (cases, labels, paths, *_) in enumerate(EXPECTED):
        if all(fnmatch.fnmatchcase(text, pattern) for text, pattern in ((case, cases), (label, labels), (path, paths))):
            return index
    return None


def unneeded(used):
    """Rows that explained nothing though they always should."""
    return [row for index, row in enumerate(EXPECTED) if index not in used and SOMETIMES not in row]

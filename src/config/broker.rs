//! A broker's settings as values, by subject. A subject is a file here: a struct and how it is read. A setting is a row of the
//! table (`keys`), and a field and a line of its subject.

mod cluster;
mod groups;
mod listeners;
mod network;
mod node;
mod offsets;
mod producers;
mod replication;
mod requests;
mod storage;
mod topics;

use std::sync::Arc;

pub(crate) use self::cluster::Voter;
use self::{
    cluster::ClusterConfig, groups::GroupsConfig, listeners::ListenersConfig, network::NetworkConfig, node::NodeConfig,
    offsets::OffsetsConfig, producers::ProducersConfig, replication::ReplicationConfig, requests::RequestsConfig,
    storage::StorageConfig, topics::TopicsConfig,
};
use super::{
    layers::{Layers, Statics},
    load::{ConfigError, Places},
    values::Values,
};

/// The settings of a broker. Fields are the crate's own, so that the compiler warns of one that nobody reads: a setting
/// that is described as used and is not. Cheap enough to have one per core; [`Self::with`] gives the one that dynamic values make.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    pub(crate) node: NodeConfig,
    pub(crate) listeners: ListenersConfig,
    pub(crate) cluster: ClusterConfig,
    pub(crate) replication: ReplicationConfig,
    pub(crate) storage: StorageConfig,
    pub(crate) network: NetworkConfig,
    pub(crate) requests: RequestsConfig,
    pub(crate) topics: TopicsConfig,
    pub(crate) groups: GroupsConfig,
    pub(crate) offsets: OffsetsConfig,
    pub(crate) producers: ProducersConfig,
    /// File and command line as they are, for [`Layers`].
    pub(crate) statics: Arc<Statics>,
}

/// What stays as it is while the process runs.
struct Fixed {
    node: NodeConfig,
    listeners: ListenersConfig,
    cluster: ClusterConfig,
    replication: ReplicationConfig,
    storage: StorageConfig,
}

impl BrokerConfig {
    /// The settings that `statics` make.
    pub(super) fn of(statics: Statics, places: &Places) -> Result<Self, ConfigError> {
        let statics = Arc::new(statics);
        let layers = Layers::of(&statics);
        let values = Values::of_broker(&layers);
        let node = NodeConfig::read(&values, places)?;
        let listeners = ListenersConfig::read(&values, places)?;
        let cluster = ClusterConfig::read(&values, places, node.id, &listeners.controllers)?;
        let replication = ReplicationConfig::read(&values, places)?;
        let storage = StorageConfig::read(&values, places)?;
        Ok(Self::read(Fixed { node, listeners, cluster, replication, storage }, statics.clone(), &layers))
    }

    /// These settings under dynamic values; `layers` must be made of [`Self::statics`]. What cannot change while the
    /// broker runs stays as it is.
    #[must_use]
    pub fn with(&self, layers: &Layers<'_>) -> Self {
        let fixed = Fixed {
            node: self.node.clone(),
            listeners: self.listeners.clone(),
            cluster: self.cluster.clone(),
            replication: self.replication.clone(),
            storage: self.storage.clone(),
        };
        Self::read(fixed, self.statics.clone(), layers)
    }

    /// The settings with everything read that may change and cannot be wrong. Not by assignment: the compiler warns of a
    /// field that nobody reads, and takes an assignment behind a reference for a read.
    fn read(fixed: Fixed, statics: Arc<Statics>, layers: &Layers<'_>) -> Self {
        let values = Values::of_broker(layers);
        let Fixed { node, listeners, cluster, replication, storage } = fixed;
        Self {
            node,
            listeners,
            cluster,
            replication,
            storage,
            network: NetworkConfig::read(&values),
            requests: RequestsConfig::read(&values),
            topics: TopicsConfig::read(&values),
            groups: GroupsConfig::read(&values),
            offsets: OffsetsConfig::read(&values),
            producers: ProducersConfig::read(&values),
            statics,
        }
    }

    /// File and command line as they are.
    #[must_use]
    pub fn statics(&self) -> &Statics {
        &self.statics
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{
        base::BrokerId,
        config::{Listener, layers::NOTHING, load},
    };

    fn config(file: &str) -> Result<BrokerConfig, String> {
        load(Some(("f", file)), &[]).map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    fn advertised(config: &BrokerConfig, name: &str) -> Option<Listener> {
        config.listeners.advertised.iter().find(|listener| listener.name == name).cloned()
    }

    #[test]
    fn with_no_file_it_listens_on_the_loopback() {
        let config = load(None, &[]).expect("defaults are good").config;
        assert_eq!(
            config.listeners.bound.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["PLAINTEXT://localhost:9092"]
        );
        assert_eq!(
            advertised(&config, "PLAINTEXT").map(|listener| listener.to_string()).as_deref(),
            Some("PLAINTEXT://localhost:9092")
        );
        assert_eq!(config.storage.directory, PathBuf::from("./ringtail-data"));
        assert_eq!(config.node.id, BrokerId(1));
        assert_eq!(config.node.memory_bytes, None);
        assert_eq!(config.storage.journal_bytes, 256 * 1024 * 1024);
        assert_eq!(config.offsets.topic_replication_factor, 1);
        assert_eq!(config.network.idle_max_ms, Some(600_000));
    }

    /// What is not commented out in `config/server.properties` of Apache Kafka 4.3.1.
    #[test]
    fn kafkas_own_file_starts_it() {
        let config = config(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
             listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
             advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\
             SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\n\
             num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
             socket.receive.buffer.bytes=102400\nsocket.request.max.bytes=104857600\n\
             log.dirs=/tmp/kraft-combined-logs\nnum.partitions=1\nnum.recovery.threads.per.data.dir=2\n\
             offsets.topic.replication.factor=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nlog.retention.hours=168\nlog.segment.bytes=1073741824\n\
             log.retention.check.interval.ms=300000\n",
        )
        .expect("it starts");
        assert_eq!(config.listeners.bound.len(), 1);
        assert_eq!(config.listeners.bound[0].to_string(), "PLAINTEXT://:9092");
        assert_eq!(advertised(&config, "PLAINTEXT").map(|listener| listener.host).as_deref(), Some("localhost"));
        assert_eq!(config.listeners.advertised.len(), 1);
        assert_eq!(config.storage.directory, PathBuf::from("/tmp/kraft-combined-logs"));
    }

    #[test]
    fn settings_that_contradict_each_other_are_errors() {
        let error = |file| config(file).expect_err("a contradiction");
        assert_eq!(error("node.id=1\nbroker.id=2\n"), "f line 2: broker.id=2: must be the same as node.id=1");
        assert_eq!(
            error("listeners=PLAINTEXT://0.0.0.0:9092\n"),
            "f line 1: listeners=PLAINTEXT://0.0.0.0:9092: clients cannot connect to 0.0.0.0: give \
             advertised.listeners a host name"
        );
        assert_eq!(
            error(
                "listeners=A://:1,PLAINTEXT://:2\nlistener.security.protocol.map=A:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
                   advertised.listeners=A://h:1\n"
            ),
            "f line 3: advertised.listeners=A://h:1: PLAINTEXT is missing"
        );
        assert_eq!(
            error("listeners=CONTROLLER://:1\ncontroller.listener.names=CONTROLLER\n"),
            "f line 1: listeners=CONTROLLER://:1: there is no listener for clients, such as PLAINTEXT://localhost:9092"
        );
        assert_eq!(
            error("inter.broker.listener.name=INTERNAL\n"),
            "f line 1: inter.broker.listener.name=INTERNAL: must be the name of an advertised listener"
        );
        assert_eq!(
            error("inter.broker.listener.name=PLAINTEXT\nsecurity.inter.broker.protocol=PLAINTEXT\n"),
            "f line 1: inter.broker.listener.name=PLAINTEXT: only one of it and security.inter.broker.protocol can be set"
        );
        assert_eq!(error("log.dirs=,\n"), "f line 1: log.dirs=,: must be a directory");
        assert_eq!(config("broker.id=7\n").map(|config| config.node.id), Ok(BrokerId(7)));
    }

    #[test]
    fn brokers_use_one_of_the_advertised_listeners_among_themselves() {
        let name = |lines: &str| {
            let map = "listener.security.protocol.map=IN:PLAINTEXT,OUT:PLAINTEXT,PLAINTEXT:PLAINTEXT\n";
            config(&format!("{map}{lines}")).expect("it starts").listeners.inter_broker
        };
        assert_eq!(name(""), "PLAINTEXT");
        assert_eq!(name("listeners=IN://:1,PLAINTEXT://:2\n"), "PLAINTEXT");
        assert_eq!(name("listeners=IN://:1,OUT://:2\n"), "IN");
        assert_eq!(name("listeners=IN://:1,OUT://:2\ninter.broker.listener.name=out\n"), "OUT");
    }

    fn dynamic(pairs: &[(&str, &str)]) -> Statics {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn dynamic_values_count_at_once_and_bad_ones_count_as_not_set() {
        let config = config("max.connections=10\n").expect("it starts");
        let cluster = dynamic(&[
            ("max.connections", "20"),
            ("max.connections.per.ip", "-5"),
            ("producer.id.expiration.ms", "damaged"),
            ("auto.create.topics.enable", "damaged"),
        ]);
        let layers = Layers { statics: &config.statics, cluster: &cluster, broker: &NOTHING, topic: &NOTHING };
        let changed = config.with(&layers);
        assert_eq!((config.network.connections_max, changed.network.connections_max), (10, 20));
        assert_eq!(changed.network.connections_per_ip_max, i32::MAX as u32);
        assert_eq!(changed.producers.id_expiration_ms, 86_400_000);
        assert!(changed.topics.auto_create);
    }

    /// The next subject as it will stand in a file of its own. Its rows wait among Kafka's other keys.
    mod transactions {
        use crate::config::values::Values;

        #[derive(Debug, PartialEq, Eq)]
        pub struct TransactionsConfig {
            pub timeout_max_ms: i32,
            pub topic_partitions: i32,
            pub verify_partitions: bool,
        }

        impl TransactionsConfig {
            pub fn read(values: &Values<'_>) -> Self {
                Self {
                    timeout_max_ms: values.int("transaction.max.timeout.ms"),
                    topic_partitions: values.int("transaction.state.log.num.partitions"),
                    verify_partitions: values.boolean("transaction.partition.verification.enable"),
                }
            }
        }
    }

    #[test]
    fn a_new_subject_is_a_file() {
        use transactions::TransactionsConfig;
        let config = config("transaction.max.timeout.ms=1000\n").expect("it starts");
        let cluster = dynamic(&[
            ("transaction.partition.verification.enable", "FALSE"),
            ("transaction.state.log.num.partitions", "0"),
        ]);
        let layers = Layers { statics: &config.statics, cluster: &cluster, broker: &NOTHING, topic: &NOTHING };
        let read = TransactionsConfig::read(&Values::of_broker(&layers));
        let expected = TransactionsConfig { timeout_max_ms: 1000, topic_partitions: 50, verify_partitions: false };
        assert_eq!(read, expected);
    }
}

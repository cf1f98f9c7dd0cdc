//! A broker's settings as values.

use std::{path::PathBuf, sync::Arc};

use super::keys::broker_key;
use super::layers::{Layers, Statics};
use super::listeners::{self, Listener, SecurityProtocol};
use super::load::{ConfigError, Places};
use super::value;
use crate::base::BrokerId;

/// The settings of a broker. Its fields are the crate's own, so that the compiler warns of one that nobody reads: a setting
/// that is described as used and is not. Cheap enough to have one per core; [`Self::with`] gives the one that dynamic values make.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// `node.id`.
    pub(crate) node_id: BrokerId,
    /// What to bind: `listeners` without the controller's.
    pub(crate) listeners: Vec<Listener>,
    /// What clients are told, by listener name. An empty host is up to the caller: the machine's name; port 0 is the one
    /// that was bound.
    pub(crate) advertised_listeners: Vec<Listener>,
    /// The data directory.
    pub(crate) log_dir: PathBuf,
    /// `broker.rack`.
    pub(crate) rack: Option<String>,
    /// `cores`: empty, a number or a list. The command line parses it.
    pub(crate) cores: String,
    /// `memory.bytes`; none: a quarter of what there is.
    pub(crate) memory_bytes: Option<u64>,
    /// `journal.bytes`, of all cores together.
    pub(crate) journal_bytes: u64,
    /// `num.partitions`.
    pub(crate) num_partitions: i32,
    /// `default.replication.factor`.
    pub(crate) default_replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub(crate) auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub(crate) delete_topics: bool,
    /// `fetch.max.bytes`.
    pub(crate) fetch_max_bytes: i32,
    /// `socket.request.max.bytes`.
    pub(crate) request_max_bytes: i32,
    /// `connections.max.idle.ms`; none: for ever.
    pub(crate) connections_max_idle_ms: Option<u64>,
    /// `max.connections`.
    pub(crate) connections_max: u32,
    /// `max.connections.per.ip`.
    pub(crate) connections_per_ip_max: u32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub(crate) fetch_session_slots: usize,
    /// `max.request.partition.size.limit`.
    pub(crate) describe_partitions_max: i32,
    /// `log.retention.check.interval.ms`.
    pub(crate) retention_check_interval_ms: u64,
    /// `log.initial.task.delay.ms`.
    pub(crate) log_initial_task_delay_ms: u64,
    /// `offsets.topic.num.partitions`.
    pub(crate) offsets_topic_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub(crate) offsets_topic_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub(crate) offsets_topic_segment_bytes: i32,
    /// `offsets.retention.minutes`, in milliseconds.
    pub(crate) offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub(crate) offsets_retention_check_interval_ms: u64,
    /// `offset.metadata.max.bytes`.
    pub(crate) offset_metadata_max_bytes: usize,
    /// `group.initial.rebalance.delay.ms`.
    pub(crate) group_initial_rebalance_delay_ms: i32,
    /// `group.min.session.timeout.ms`.
    pub(crate) group_session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub(crate) group_session_timeout_max_ms: i32,
    /// `group.max.size`.
    pub(crate) group_members_max: usize,
    /// `producer.id.expiration.ms`.
    pub(crate) producer_id_expiration_ms: i64,
    /// File and command line as they are, for [`Layers`].
    pub(crate) statics: Arc<Statics>,
}

/// A broker setting as a number. A value that is none, which only a damaged or newer metadata log can hold, counts as not
/// set.
fn number(layers: &Layers<'_>, name: &str) -> i64 {
    let default = || broker_key(name).and_then(|key| key.default).and_then(value::number);
    layers.broker_text(name).and_then(value::number).or_else(default).unwrap_or(0)
}

fn boolean(layers: &Layers<'_>, name: &str) -> bool {
    layers.broker_text(name).and_then(value::boolean).unwrap_or(false)
}

/// A number that the table bounds to 32 bits.
fn int(layers: &Layers<'_>, name: &str) -> i32 {
    number(layers, name).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// A number below zero counts as zero.
fn unsigned(layers: &Layers<'_>, name: &str) -> u64 {
    u64::try_from(number(layers, name)).unwrap_or(0)
}

/// Text; blank counts as not set.
fn text<'a>(layers: &Layers<'a>, name: &str) -> Option<&'a str> {
    layers.broker_text(name).map(str::trim).filter(|text| !text.is_empty())
}

impl BrokerConfig {
    /// The settings that `statics` make.
    pub(super) fn of(statics: Statics, places: &Places) -> Result<Self, ConfigError> {
        let layers = Layers::of(&statics);
        let node_id = node_id(&layers, places)?;
        check_roles(&layers, places)?;
        let (listeners, controller_listeners) = split_listeners(&layers, places)?;
        let advertised_listeners = advertised(&layers, places, &listeners)?;
        check_quorum(&layers, places, node_id, &controller_listeners)?;
        let fixed = Self {
            node_id: BrokerId(node_id),
            listeners,
            advertised_listeners,
            log_dir: log_dir(&layers, places)?,
            rack: text(&layers, "broker.rack").map(str::to_owned),
            cores: text(&layers, "cores").unwrap_or_default().to_owned(),
            memory_bytes: u64::try_from(number(&layers, "memory.bytes")).ok(),
            journal_bytes: unsigned(&layers, "journal.bytes"),
            num_partitions: 0,
            default_replication_factor: 0,
            auto_create_topics: false,
            delete_topics: false,
            fetch_max_bytes: 0,
            request_max_bytes: 0,
            connections_max_idle_ms: None,
            connections_max: 0,
            connections_per_ip_max: 0,
            fetch_session_slots: 0,
            describe_partitions_max: 0,
            retention_check_interval_ms: 0,
            log_initial_task_delay_ms: 0,
            offsets_topic_partitions: 0,
            offsets_topic_replication_factor: 0,
            offsets_topic_segment_bytes: 0,
            offsets_retention_ms: 0,
            offsets_retention_check_interval_ms: 0,
            offset_metadata_max_bytes: 0,
            group_initial_rebalance_delay_ms: 0,
            group_session_timeout_min_ms: 0,
            group_session_timeout_max_ms: 0,
            group_members_max: 0,
            producer_id_expiration_ms: 0,
            statics: Arc::new(Statics::new()),
        };
        let config = Self::read(fixed, &layers);
        Ok(Self { statics: Arc::new(statics), ..config })
    }

    /// These settings under dynamic values; `layers` must be made of [`Self::statics`]. What cannot change while the
    /// broker runs stays as it is.
    #[must_use]
    pub fn with(&self, layers: &Layers<'_>) -> Self {
        Self::read(self.clone(), layers)
    }

    /// These settings with everything read anew that may change and cannot be wrong. Not by assignment: the compiler warns of a
    /// field that nobody reads, and takes an assignment behind a reference for a read.
    fn read(fixed: Self, layers: &Layers<'_>) -> Self {
        Self {
            num_partitions: int(layers, "num.partitions"),
            default_replication_factor: number(layers, "default.replication.factor").clamp(0, 32_767) as i16,
            auto_create_topics: boolean(layers, "auto.create.topics.enable"),
            delete_topics: boolean(layers, "delete.topic.enable"),
            fetch_max_bytes: int(layers, "fetch.max.bytes"),
            request_max_bytes: int(layers, "socket.request.max.bytes"),
            connections_max_idle_ms: u64::try_from(number(layers, "connections.max.idle.ms")).ok(),
            connections_max: unsigned(layers, "max.connections") as u32,
            connections_per_ip_max: unsigned(layers, "max.connections.per.ip") as u32,
            fetch_session_slots: unsigned(layers, "max.incremental.fetch.session.cache.slots") as usize,
            describe_partitions_max: int(layers, "max.request.partition.size.limit"),
            retention_check_interval_ms: unsigned(layers, "log.retention.check.interval.ms"),
            log_initial_task_delay_ms: unsigned(layers, "log.initial.task.delay.ms"),
            offsets_topic_partitions: int(layers, "offsets.topic.num.partitions"),
            offsets_topic_replication_factor: number(layers, "offsets.topic.replication.factor").clamp(1, 32_767)
                as i16,
            offsets_topic_segment_bytes: int(layers, "offsets.topic.segment.bytes"),
            offsets_retention_ms: number(layers, "offsets.retention.minutes").saturating_mul(60_000),
            offsets_retention_check_interval_ms: unsigned(layers, "offsets.retention.check.interval.ms"),
            offset_metadata_max_bytes: unsigned(layers, "offset.metadata.max.bytes") as usize,
            group_initial_rebalance_delay_ms: int(layers, "group.initial.rebalance.delay.ms"),
            group_session_timeout_min_ms: int(layers, "group.min.session.timeout.ms"),
            group_session_timeout_max_ms: int(layers, "group.max.session.timeout.ms"),
            group_members_max: unsigned(layers, "group.max.size") as usize,
            producer_id_expiration_ms: number(layers, "producer.id.expiration.ms"),
            ..fixed
        }
    }

    /// File and command line as they are.
    #[must_use]
    pub fn statics(&self) -> &Statics {
        &self.statics
    }

    /// What clients of the listener are told to connect to.
    #[must_use]
    pub fn advertised(&self, listener_name: &str) -> Option<&Listener> {
        self.advertised_listeners.iter().find(|listener| listener.name == listener_name)
    }
}

fn node_id(layers: &Layers<'_>, places: &Places) -> Result<i32, ConfigError> {
    let older = layers.statics.get("broker.id").and_then(|text| value::number(text)).filter(|id| *id >= 0);
    let newer = layers.statics.get("node.id").and_then(|text| value::number(text));
    if let (Some(older), Some(newer)) = (older, newer)
        && older != newer
    {
        return Err(places.error("broker.id", &older.to_string(), &format!("must be the same as node.id={newer}")));
    }
    let id = newer.or(older).unwrap_or_else(|| number(layers, "node.id"));
    Ok(i32::try_from(id).expect("the table bounds node.id to 32 bits"))
}

fn check_roles(layers: &Layers<'_>, places: &Places) -> Result<(), ConfigError> {
    let key = "process.roles";
    let roles = layers.broker_text(key).unwrap_or_default();
    if ["broker", "controller"].iter().all(|role| value::list(roles).any(|given| given == *role)) {
        return Ok(());
    }
    Err(places.error(key, roles, "not supported yet: a Ringtail stands alone; must be broker,controller"))
}

type Split = (Vec<Listener>, Vec<Listener>);

fn split_listeners(layers: &Layers<'_>, places: &Places) -> Result<Split, ConfigError> {
    let map = protocols(layers, places)?;
    let key = "listeners";
    let given = layers.broker_text(key).unwrap_or_default();
    let all = listeners::parse(given, &map)
        .and_then(|all| listeners::distinct(&all).map(|()| all))
        .map_err(|why| places.error(key, given, &why))?;
    let (controllers, brokers): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|listener| controller_names(layers).any(|name| name == listener.name));
    if let Some(listener) = brokers.iter().find(|listener| listener.protocol != SecurityProtocol::Plaintext) {
        let why = format!(
            "not supported yet: {} is a {} listener; only PLAINTEXT can be bound",
            listener.name,
            listener.protocol.name()
        );
        return Err(places.error(key, given, &why));
    }
    if brokers.is_empty() {
        return Err(places.error(key, given, "there is no listener for clients, such as PLAINTEXT://localhost:9092"));
    }
    Ok((brokers, controllers))
}

fn protocols(layers: &Layers<'_>, places: &Places) -> Result<Vec<(String, SecurityProtocol)>, ConfigError> {
    let key = "listener.security.protocol.map";
    let given = layers.broker_text(key).unwrap_or_default();
    let mut map = listeners::protocol_map(given).map_err(|why| places.error(key, given, &why))?;
    // Kafka lets controller listeners go unmapped when nobody set the map.
    if !layers.statics.contains_key(key) {
        for name in controller_names(layers) {
            if !map.iter().any(|(known, _)| *known == name) {
                map.push((name, SecurityProtocol::Plaintext));
            }
        }
    }
    Ok(map)
}

fn controller_names<'a>(layers: &Layers<'a>) -> impl Iterator<Item = String> + use<'a> {
    value::list(layers.broker_text("controller.listener.names").unwrap_or_default()).map(str::to_ascii_uppercase)
}

fn advertised(layers: &Layers<'_>, places: &Places, bound: &[Listener]) -> Result<Vec<Listener>, ConfigError> {
    let (key, given) = match text(layers, "advertised.listeners") {
        Some(given) => ("advertised.listeners", given),
        None => ("listeners", layers.broker_text("listeners").unwrap_or_default()),
    };
    let map = protocols(layers, places)?;
    let all = listeners::parse(given, &map).map_err(|why| places.error(key, given, &why))?;
    let advertised: Vec<_> = all.into_iter().filter(|one| bound.iter().any(|b| b.name == one.name)).collect();
    if let Some(listener) = advertised.iter().find(|listener| matches!(listener.host.as_str(), "0.0.0.0" | "::")) {
        let why = format!("clients cannot connect to {}: give advertised.listeners a host name", listener.host);
        return Err(places.error(key, given, &why));
    }
    if let Some(listener) = bound.iter().find(|b| !advertised.iter().any(|one| one.name == b.name)) {
        return Err(places.error(key, given, &format!("{} is missing", listener.name)));
    }
    if let Some(name) = text(layers, "inter.broker.listener.name")
        && !advertised.iter().any(|listener| listener.name.eq_ignore_ascii_case(name))
    {
        return Err(places.error("inter.broker.listener.name", name, "must be the name of an advertised listener"));
    }
    Ok(advertised)
}

/// Refuses a quorum of others: to ignore it would make a second cluster beside the one that is meant.
fn check_quorum(
    layers: &Layers<'_>,
    places: &Places,
    node_id: i32,
    controllers: &[Listener],
) -> Result<(), ConfigError> {
    let alone = "not supported yet: a Ringtail stands alone; it can only name itself";
    let key = "controller.quorum.voters";
    let voters = layers.broker_text(key).unwrap_or_default();
    for voter in value::list(voters) {
        let id = voter.split_once('@').and_then(|(id, _)| value::number(id));
        let id = id.ok_or_else(|| places.error(key, voters, "must be id@host:port"))?;
        if id != i64::from(node_id) {
            return Err(places.error(key, voters, alone));
        }
    }
    let key = "controller.quorum.bootstrap.servers";
    let servers = layers.broker_text(key).unwrap_or_default();
    for (index, server) in value::list(servers).enumerate() {
        let (host, port) = server.rsplit_once(':').ok_or_else(|| places.error(key, servers, "must be host:port"))?;
        let port: u16 = port.parse().map_err(|_| places.error(key, servers, "must be host:port"))?;
        let own_port = controllers.is_empty() || controllers.iter().any(|listener| listener.port == port);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let own_host = matches!(host, "localhost" | "127.0.0.1" | "::1")
            || controllers.iter().any(|listener| listener.host.is_empty() || listener.host == host);
        if index > 0 || !own_port || !own_host {
            return Err(places.error(key, servers, alone));
        }
    }
    Ok(())
}

fn log_dir(layers: &Layers<'_>, places: &Places) -> Result<PathBuf, ConfigError> {
    let (key, given) = match text(layers, "log.dirs") {
        Some(given) => ("log.dirs", given),
        None => ("log.dir", layers.broker_text("log.dir").unwrap_or_default()),
    };
    let mut directories = value::list(given).filter(|directory| !directory.is_empty());
    let first = directories.next().ok_or_else(|| places.error(key, given, "must be a directory"))?;
    if directories.next().is_some() {
        return Err(places.error(key, given, "not supported yet: must be one directory"));
    }
    Ok(PathBuf::from(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::NOTHING;
    use crate::config::load;

    fn config(file: &str) -> Result<BrokerConfig, String> {
        load(Some(("f", file)), &[]).map(|loaded| loaded.config).map_err(|error| error.to_string())
    }

    #[test]
    fn with_no_file_it_listens_on_the_loopback() {
        let config = load(None, &[]).expect("defaults are good").config;
        assert_eq!(
            config.listeners.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["PLAINTEXT://localhost:9092"]
        );
        assert_eq!(
            config.advertised("PLAINTEXT").map(ToString::to_string).as_deref(),
            Some("PLAINTEXT://localhost:9092")
        );
        assert_eq!(config.log_dir, PathBuf::from("./ringtail-data"));
        assert_eq!(config.node_id, BrokerId(1));
        assert_eq!(config.memory_bytes, None);
        assert_eq!(config.journal_bytes, 256 * 1024 * 1024);
        assert_eq!(config.offsets_topic_replication_factor, 1);
        assert_eq!(config.connections_max_idle_ms, Some(600_000));
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
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.listeners[0].to_string(), "PLAINTEXT://:9092");
        assert_eq!(config.advertised("PLAINTEXT").map(|l| l.host.as_str()), Some("localhost"));
        assert_eq!(config.advertised_listeners.len(), 1);
        assert_eq!(config.log_dir, PathBuf::from("/tmp/kraft-combined-logs"));
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
        assert_eq!(error("log.dirs=,\n"), "f line 1: log.dirs=,: must be a directory");
        assert_eq!(config("broker.id=7\n").map(|config| config.node_id), Ok(BrokerId(7)));
    }

    #[test]
    fn dynamic_values_count_at_once_and_bad_ones_count_as_not_set() {
        let config = config("max.connections=10\n").expect("it starts");
        let dynamic = [("max.connections", "20"), ("producer.id.expiration.ms", "damaged")];
        let cluster = dynamic.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let layers = Layers { statics: &config.statics, cluster: &cluster, broker: &NOTHING, topic: &NOTHING };
        let changed = config.with(&layers);
        assert_eq!((config.connections_max, changed.connections_max), (10, 20));
        assert_eq!(changed.producer_id_expiration_ms, 86_400_000);
    }
}

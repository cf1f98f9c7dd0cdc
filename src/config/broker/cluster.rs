//! The cluster: who votes in the controller quorum, and how its brokers hear of each other.

use crate::{
    base::BrokerId,
    config::{
        listeners::{self, Listener, SecurityProtocol},
        load::{ConfigError, Places},
        value,
        values::Values,
    },
};

/// What makes a node one of several. It stays as it is while the process runs.
#[derive(Clone, Debug)]
pub(crate) struct ClusterConfig {
    /// `controller.quorum.voters` by id, this node among them. Empty, or this node alone: it stands alone.
    pub(crate) voters: Vec<Voter>,
    /// `controller.quorum.election.timeout.ms`.
    pub(crate) election_timeout_ms: u64,
    /// `controller.quorum.fetch.timeout.ms`.
    pub(crate) fetch_timeout_ms: u64,
    /// `broker.heartbeat.interval.ms`.
    pub(crate) heartbeat_interval_ms: u64,
    /// `broker.session.timeout.ms`.
    pub(crate) session_timeout_ms: u64,
    /// `controlled.shutdown.enable`.
    pub(crate) controlled_shutdown: bool,
}

/// A voter of the controller quorum, and where its controller listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Voter {
    pub(crate) id: BrokerId,
    /// A name or an address, IPv6 without brackets.
    pub(crate) host: String,
    /// Never 0.
    pub(crate) port: u16,
}

impl ClusterConfig {
    /// # Errors  The quorum cannot be one, this node is not in it or has nowhere to be asked, or the session ends before the
    /// next heartbeat.
    pub(super) fn read(
        values: &Values<'_>,
        places: &Places,
        id: BrokerId,
        controllers: &[Listener],
    ) -> Result<Self, ConfigError> {
        let voters = voters(values, places, id)?;
        if voters.len() > 1 {
            check_listeners(values, places, controllers)?;
        }
        check_bootstrap(values, places, &voters, controllers)?;
        let config = Self {
            voters,
            election_timeout_ms: values.unsigned("controller.quorum.election.timeout.ms"),
            fetch_timeout_ms: values.unsigned("controller.quorum.fetch.timeout.ms"),
            heartbeat_interval_ms: values.unsigned("broker.heartbeat.interval.ms"),
            session_timeout_ms: values.unsigned("broker.session.timeout.ms"),
            controlled_shutdown: values.boolean("controlled.shutdown.enable"),
        };
        if config.heartbeat_interval_ms >= config.session_timeout_ms {
            let why = format!("must be less than broker.session.timeout.ms={}", config.session_timeout_ms);
            let given = config.heartbeat_interval_ms.to_string();
            return Err(places.error("broker.heartbeat.interval.ms", &given, &why));
        }
        Ok(config)
    }

    /// Whether there are other voters.
    pub(crate) fn of_several(&self) -> bool {
        self.voters.len() > 1
    }
}

fn voters(values: &Values<'_>, places: &Places, id: BrokerId) -> Result<Vec<Voter>, ConfigError> {
    let key = "controller.quorum.voters";
    let given = &values.word(key);
    let mut voters: Vec<Voter> = Vec::new();
    for text in value::list(given) {
        let voter = parse_voter(text).ok_or_else(|| {
            places.error(key, given, &format!("{text} must be id@host:port, such as 1@localhost:9093"))
        })?;
        if voters.iter().any(|other| other.id == voter.id) {
            return Err(places.error(key, given, &format!("voter {} occurs twice", voter.id.0)));
        }
        if let Some(other) = voters.iter().find(|other| (&other.host, other.port) == (&voter.host, voter.port)) {
            let why = format!("voters {} and {} have the same address", other.id.0, voter.id.0);
            return Err(places.error(key, given, &why));
        }
        voters.push(voter);
    }
    if !voters.is_empty() && !voters.iter().any(|voter| voter.id == id) {
        let why = format!("process.roles has controller, so this node must be among them: node.id={}", id.0);
        return Err(places.error(key, given, &why));
    }
    voters.sort_by_key(|voter| voter.id);
    Ok(voters)
}

fn parse_voter(text: &str) -> Option<Voter> {
    let (id, address) = text.split_once('@')?;
    let id = value::number(id).and_then(|id| i32::try_from(id).ok()).filter(|id| *id >= 0)?;
    let (host, port) = address_of_another(address)?;
    Some(Voter { id: BrokerId(id), host: host.to_owned(), port })
}

/// An address that can be connected to.
fn address_of_another(text: &str) -> Option<(&str, u16)> {
    let (host, port) = listeners::address(text)?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!matches!(host, "" | "0.0.0.0" | "::")).then_some((host, port))
}

/// The other voters come to a listener of the controller's.
fn check_listeners(values: &Values<'_>, places: &Places, controllers: &[Listener]) -> Result<(), ConfigError> {
    let key = "controller.listener.names";
    let given = values.word(key);
    match value::list(&given).next() {
        None => return Err(places.error(key, &given, "must name the listener for the other controller.quorum.voters")),
        Some(first) if controllers.is_empty() => {
            return Err(places.error(key, &given, &format!("{first} is not in listeners")));
        }
        Some(_) => {}
    }
    match controllers.iter().find(|listener| listener.protocol != SecurityProtocol::Plaintext) {
        None => Ok(()),
        Some(listener) => {
            let (name, protocol) = (&listener.name, listener.protocol.name());
            let why = format!("not supported yet: {name} is a {protocol} listener; only PLAINTEXT can be bound");
            Err(places.error(key, &given, &why))
        }
    }
}

/// Quorums that are found by asking, and whose voters change, do not exist yet. To ignore one would make a second cluster
/// beside the one that is meant.
fn check_bootstrap(
    values: &Values<'_>,
    places: &Places,
    voters: &[Voter],
    controllers: &[Listener],
) -> Result<(), ConfigError> {
    let key = "controller.quorum.bootstrap.servers";
    let servers = &values.word(key);
    for (index, server) in value::list(servers).enumerate() {
        let (host, port) = address_of_another(server).ok_or_else(|| places.error(key, servers, "must be host:port"))?;
        if voters.iter().any(|voter| (voter.host.as_str(), voter.port) == (host, port)) {
            continue;
        }
        let own_port = controllers.is_empty() || controllers.iter().any(|listener| listener.port == port);
        let own_host = matches!(host, "localhost" | "127.0.0.1" | "::1")
            || controllers.iter().any(|listener| listener.host.is_empty() || listener.host == host);
        if voters.len() > 1 || index > 0 || !own_port || !own_host {
            let why = "not supported yet: the voters are those of controller.quorum.voters, or this node alone";
            return Err(places.error(key, servers, why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::config::load;

    const NAMES: &str = "controller.listener.names=CONTROLLER\n";

    /// The voters that a file of node 2 makes, or why it starts nothing.
    fn check(lines: &str) -> String {
        let file = format!(
            "node.id=2\nlisteners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n{lines}"
        );
        match load(Some(("f", &file)), &[]) {
            Ok(loaded) => {
                let voters = &loaded.config.cluster.voters;
                let words: Vec<_> =
                    voters.iter().map(|one| format!("{} {} {}", one.id.0, one.host, one.port)).collect();
                words.join("; ")
            }
            Err(error) => error.0.split_once(": ").map_or(error.0.clone(), |(_place, what)| what.to_owned()),
        }
    }

    #[test]
    fn voters_are_read_by_id() {
        let check = |voters: &str| check(&format!("{NAMES}controller.quorum.voters={voters}\n"));
        assert_eq!(check(""), "");
        assert_eq!(check("2@a:9093"), "2 a 9093");
        assert_eq!(check("3@c:9, 1@[::1]:7,2@10.0.0.2:8"), "1 ::1 7; 2 10.0.0.2 8; 3 c 9");
    }

    #[test]
    fn what_is_no_quorum_is_refused() {
        let voters = |voters: &str| {
            let said = check(&format!("{NAMES}controller.quorum.voters={voters}\n"));
            said.strip_prefix(&format!("controller.quorum.voters={voters}: ")).unwrap_or(&said).to_owned()
        };
        let form = "must be id@host:port, such as 1@localhost:9093";
        for bad in
            ["2", "x@a:1", "-1@a:1", "2@a", "2@a:0", "2@a:65536", "2@:9093", "2@0.0.0.0:9093", "2@[::1:1", "2@a b:1"]
        {
            assert_eq!(voters(bad), format!("{bad} {form}"));
        }
        assert_eq!(voters("2@a:1,"), format!(" {form}"));
        assert_eq!(voters("2@a:1,2@b:1"), "voter 2 occurs twice");
        assert_eq!(voters("2@a:1,3@a:1"), "voters 2 and 3 have the same address");
        assert_eq!(voters("1@a:1,3@c:1"), "process.roles has controller, so this node must be among them: node.id=2");
        let three = "controller.quorum.voters=1@a:1,2@b:1,3@c:1\n";
        assert_eq!(
            check(three),
            "controller.listener.names=: must name the listener for the other controller.quorum.voters"
        );
        assert_eq!(
            check(&format!("{three}controller.listener.names=QUORUM\n")),
            "controller.listener.names=QUORUM: QUORUM is not in listeners"
        );
        assert_eq!(
            check(&format!(
                "{three}controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:SSL,PLAINTEXT:PLAINTEXT\n"
            )),
            "controller.listener.names=CONTROLLER: not supported yet: CONTROLLER is a SSL listener; only PLAINTEXT can be bound"
        );
        let bootstrap = "controller.quorum.bootstrap.servers";
        assert_eq!(check(&format!("{NAMES}{three}{bootstrap}=c:1,a:1\n")), "1 a 1; 2 b 1; 3 c 1");
        for elsewhere in ["d:1", "localhost:9093", "c:1,d:1"] {
            let said = check(&format!("{NAMES}{three}{bootstrap}={elsewhere}\n"));
            assert!(said.starts_with(&format!("{bootstrap}={elsewhere}: not supported yet: ")), "{said}");
        }
    }

    #[test]
    fn a_session_is_longer_than_the_time_between_two_heartbeats() {
        assert_eq!(
            check("broker.heartbeat.interval.ms=3000\n"),
            "broker.heartbeat.interval.ms=3000: must be less than broker.session.timeout.ms=3000"
        );
        // Kafka's defaults.
        assert_eq!(check("broker.heartbeat.interval.ms=2000\nbroker.session.timeout.ms=9000\n"), "");
        assert_eq!(check("broker.heartbeat.interval.ms=2000\n"), "");
    }
}

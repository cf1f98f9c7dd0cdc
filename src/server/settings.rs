//! From the command line and server.properties to what this process will be.

use std::{
    fs,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::{info, warn};

use super::{
    Options,
    cores::{self, CoreChoice, CorePlan},
    limits,
};
use crate::{
    config::{self, BrokerConfig, ConfigError, Loaded, Note},
    io::glommio::probe,
    net::{CONNECTION_BUFFER_BYTES, Endpoint, Host, NetSettings},
};

/// Connections may hold a sixteenth of the memory in their own buffers.
const CONNECTION_SHARE: u64 = 16;

/// Requests that are being received or handled may hold five sixteenths; one of them is for small frames, so that every
/// connection can have one.
const REQUEST_SIXTEENTHS: u64 = 5;

/// Replies that lie unsent may hold an eighth before slow readers are closed sooner.
const UNSENT_SHARE: u64 = 8;

/// Reads a file, or takes the defaults, and checks every value.
/// # Errors  One line that names place, key, value and what is allowed.
pub fn load_config(file: Option<&Path>, overrides: &[String]) -> Result<Loaded, ConfigError> {
    let text = match file {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let text = fs::read(path).map_err(|error| ConfigError(format!("cannot read {name}: {error}")))?;
            // Java reads properties as Latin-1; a byte that is no UTF-8 can only be in a comment or a name.
            Some((name, String::from_utf8_lossy(&text).into_owned()))
        }
    };
    config::load(text.as_ref().map(|(name, text)| (name.as_str(), text.as_str())), overrides)
}

/// Says once what a file contains that does nothing.
pub(super) fn log_notes(notes: &[Note]) {
    for note in notes {
        match note {
            Note::NoEffect { .. } => info!("{note}"),
            Note::Unknown { .. } | Note::Repeated { .. } => warn!("{note}"),
        }
    }
}

/// What the machine gives and the command line takes.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) plan: CorePlan,
    /// What the broker may hold, in bytes.
    pub(super) memory_bytes: u64,
    /// Registered buffers of each executor, in bytes.
    pub(super) io_memory: usize,
}

impl Machine {
    /// Looks at the machine.
    /// # Errors  One sentence with the remedy.
    pub(super) fn look(options: &Options, config: &BrokerConfig) -> Result<Self, String> {
        let of_config = || (!config.cores.is_empty()).then(|| config.cores.parse::<CoreChoice>()).transpose();
        let choice = match &options.cores {
            Some(choice) => Some(choice.clone()),
            None => of_config().map_err(|error| format!("cores: {error}"))?,
        };
        let plan = cores::plan(choice.as_ref(), &cores::affinity_mask(), cores::cpu_quota())?;
        let limit = cores::memory_limit();
        let memory_bytes = options.memory.or(config.memory_bytes).unwrap_or_else(|| cores::default_memory(limit));
        if memory_bytes < cores::MEMORY_BYTES_MIN {
            let least = cores::MEMORY_BYTES_MIN >> 20;
            return Err(format!("{memory_bytes} bytes of memory are too few: give --memory at least {least}M"));
        }
        if memory_bytes > limit {
            let (wanted, limit) = (memory_bytes >> 20, limit >> 20);
            return Err(format!("--memory asks for {wanted} MiB, but this machine or cgroup has {limit} MiB"));
        }
        probe::io_uring().map_err(|unusable| unusable.to_string())?;
        let io_memory = probe::io_memory(plan.0.len()).map_err(|unusable| unusable.to_string())?;
        match limits::raise_open_files() {
            Ok(Some(files)) if files < 4096 => warn!(files, "few files may be open; raise the limit (ulimit -n)"),
            Ok(_) => {}
            Err(error) => warn!(%error, "cannot read the limit of open files"),
        }
        Ok(Self { plan, memory_bytes, io_memory })
    }

    pub(super) fn cores(&self) -> usize {
        self.plan.0.len()
    }

    /// What each core's connections may do.
    pub(super) fn net_settings(&self, config: &BrokerConfig) -> NetSettings {
        let of_core = self.memory_bytes / self.cores() as u64;
        NetSettings {
            frame_bytes_max: usize::try_from(config.request_max_bytes).unwrap_or(0),
            idle_max: config.connections_max_idle_ms.map_or(Duration::MAX, Duration::from_millis),
            request_bytes: (of_core / 16 * REQUEST_SIXTEENTHS) as usize,
            unsent_bytes: (of_core / UNSENT_SHARE) as usize,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }

    /// How many connections the memory allows in all.
    pub(super) fn connections_affordable(&self) -> usize {
        (self.memory_bytes / CONNECTION_SHARE) as usize / CONNECTION_BUFFER_BYTES
    }
}

/// Where the data lies: `log.dirs`.
#[must_use]
pub fn data_dir_of(config: &BrokerConfig) -> PathBuf {
    config.log_dir.clone()
}

/// `node.id`.
#[must_use]
pub fn node_id_of(config: &BrokerConfig) -> i32 {
    config.node_id.0
}

/// The sockets that a listener needs.
pub(super) fn endpoint(listener: &config::Listener) -> Endpoint {
    let host = match listener.host.as_str() {
        "" => Host::Any,
        // Either loopback address may be what a client's resolver gives for it.
        "localhost" => Host::Loopback,
        name => Host::Named(name.to_owned()),
    };
    Endpoint { host, port: listener.port }
}

/// What clients are told to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The listener's name.
    pub listener: String,
    /// The host.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

/// What clients of each listener are told, in the order of `listeners`, which were bound to `ports`.
pub(super) fn advertised(config: &BrokerConfig, ports: &[u16]) -> Vec<Advertised> {
    let tell = |(listener, bound): (&config::Listener, &u16)| {
        let advertised = config.advertised_listeners.iter().find(|advertised| advertised.name == listener.name);
        let (host, port) = advertised.map_or((listener.host.as_str(), 0), |told| (told.host.as_str(), told.port));
        let host = match host {
            "" => machine_name(),
            host => host.to_owned(),
        };
        Advertised { listener: listener.name.clone(), host, port: if port == 0 { *bound } else { port } }
    };
    config.listeners.iter().zip(ports).map(tell).collect()
}

/// The machine's name if it can be resolved here, else `localhost`: a name that no client finds helps nobody.
fn machine_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let resolves = (name.as_str(), 0).to_socket_addrs().is_ok_and(|mut addresses| addresses.next().is_some());
    if resolves && !name.is_empty() { name } else { "localhost".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(overrides: &[&str]) -> BrokerConfig {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        load_config(None, &overrides).expect("a good configuration").config
    }

    #[test]
    fn without_a_file_clients_find_the_loopback() {
        let config = loaded(&[]);
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(endpoint(&config.listeners[0]), Endpoint { host: Host::Loopback, port: 9092 });
        let told = advertised(&config, &[9092]);
        assert_eq!((told[0].host.as_str(), told[0].port), ("localhost", 9092));
    }

    #[test]
    fn port_0_is_told_as_the_one_that_was_bound() {
        let config = loaded(&["listeners=PLAINTEXT://127.0.0.1:0"]);
        assert_eq!(endpoint(&config.listeners[0]).host, Host::Named("127.0.0.1".into()));
        let told = advertised(&config, &[4711]);
        assert_eq!((told[0].host.as_str(), told[0].port), ("127.0.0.1", 4711));
        let config = loaded(&["listeners=PLAINTEXT://:0", "advertised.listeners=PLAINTEXT://example.org:1234"]);
        assert_eq!(endpoint(&config.listeners[0]).host, Host::Any);
        let told = advertised(&config, &[4711]);
        assert_eq!((told[0].host.as_str(), told[0].port), ("example.org", 1234));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load_config(Some(Path::new("/nonexistent/server.properties")), &[]).expect_err("it is not there");
        assert!(error.0.contains("/nonexistent/server.properties"), "{error}");
    }
}

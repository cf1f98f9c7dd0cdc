//! From the command line and server.properties to what this process will be.

use std::{
    fs,
    net::ToSocketAddrs,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use super::{
    Options,
    cores::{self, CoreChoice, CorePlan},
    limits,
};
use crate::{
    config::{self, BrokerConfig, ConfigError, Loaded, Note},
    io::glommio::{Door, probe},
    net::{Endpoint, Host},
    partition, protocol,
    shard::{self, Bounds},
};

/// Of the broker's memory, sixteenths. Records and batches made anew have five of them, groups one ([`super::broker`]).
///
/// Small requests: enough for every connection to have one parked that is a quarter of its buffer.
const SMALL_REQUEST_SIXTEENTHS: u64 = 1;
/// Large requests, while they are received or handled.
const LARGE_REQUEST_SIXTEENTHS: u64 = 6;
/// Replies that are not read: from here on a fetch gets its first batch only ...
const REPLY_SIXTEENTHS: u64 = 2;
/// ... and from here on the largest holders are closed. Records among them count as records: the cache gives way.
const REPLY_PRESSED_SIXTEENTHS: u64 = 3;
/// Connections.
const CONNECTION_SIXTEENTHS: u64 = 2;

/// The program itself and what an idle broker holds.
const BASE_BYTES: u64 = 12 << 20;
/// An idle executor: rings, registered buffers, a journal's blocks, stacks; and what its own ring receives into, where it has one, for
/// which there is less that is registered.
const EXECUTOR_BYTES: u64 = 5 << 19;

/// What a connection is counted with: what an idle one takes, and half of the buffer that a busy one has as well.
const CONNECTION_BYTES: u64 = 8 << 10;

/// Below this many open files a line says so.
const OPEN_FILES_FEW: u64 = 4096;
/// Open segment files of the whole broker, if so many may be open twice.
const SEGMENT_FILES_MAX: u64 = 2000;

/// Files of each executor that are neither segments nor connections: rings, event descriptors, journals, listeners.
const FILES_OF_CORE: u64 = 64;

/// `io.ring`, as far as this kernel has it.
fn door(own_ring: bool) -> Door {
    if !own_ring {
        return Door::Glommio;
    }
    match probe::own_ring() {
        Ok(()) => Door::Ring,
        Err(error) => {
            warn!(%error, "this kernel has no ring as io.ring=own needs it (Linux 6.1): glommio's are used");
            Door::Glommio
        }
    }
}

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
    /// How many files may be open.
    pub(super) open_files: u64,
    /// How bytes get to the kernel.
    pub(super) door: Door,
}

/// What the broker can hold and serve at most: it follows from memory, cores and open files. Bytes are the whole broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) small_request_bytes: usize,
    pub(super) large_request_bytes: usize,
    pub(super) reply_bytes: usize,
    pub(super) reply_pressed_bytes: usize,
    /// Connections that memory and open files allow.
    pub(super) connections_max: usize,
}

impl Machine {
    /// Looks at the machine.
    /// # Errors  One sentence with the remedy.
    pub(super) fn look(options: &Options, config: &BrokerConfig) -> Result<Self, String> {
        let of_config = || (!config.node.cores.is_empty()).then(|| config.node.cores.parse::<CoreChoice>()).transpose();
        let choice = match &options.cores {
            Some(choice) => Some(choice.clone()),
            None => of_config().map_err(|error| format!("cores: {error}"))?,
        };
        let plan = cores::plan(choice.as_ref(), &cores::affinity_mask(), cores::cpu_quota())?;
        let limit = cores::memory_limit();
        let memory_bytes = options.memory.or(config.node.memory_bytes).unwrap_or_else(|| cores::default_memory(limit));
        if memory_bytes < cores::MEMORY_BYTES_MIN {
            let least = cores::MEMORY_BYTES_MIN >> 20;
            return Err(format!("{memory_bytes} bytes of memory are too few: give --memory at least {least}M"));
        }
        if memory_bytes > limit {
            let (wanted, limit) = (memory_bytes >> 20, limit >> 20);
            return Err(format!("--memory asks for {wanted} MiB, but this machine or cgroup has {limit} MiB"));
        }
        limits::keep_no_large_memory(memory_bytes);
        probe::io_uring().map_err(|unusable| unusable.to_string())?;
        let door = door(config.node.own_ring);
        let io_memory = probe::io_memory(plan.0.len(), door).map_err(|unusable| unusable.to_string())?;
        let open_files = limits::raise_open_files().unwrap_or(u64::MAX);
        if open_files < OPEN_FILES_FEW {
            warn!(files = open_files, "few files may be open; raise the limit (ulimit -n)");
        }
        Ok(Self { plan, memory_bytes, io_memory, open_files, door })
    }

    pub(super) fn cores(&self) -> usize {
        self.plan.0.len()
    }

    /// What is left for records, requests, replies and connections when the broker runs and its cores talk to each other.
    pub(super) fn memory_left(&self) -> u64 {
        let executors = self.cores() as u64 * EXECUTOR_BYTES;
        let taken = BASE_BYTES + executors + shard::mesh_bytes(self.cores()) as u64;
        self.memory_bytes - taken.min(self.memory_bytes / 2)
    }

    /// Segments that may be open at the same time.
    pub(super) fn segment_files_max(&self) -> u64 {
        SEGMENT_FILES_MAX.min(self.open_files / 4)
    }

    /// What can be held and served.
    pub(super) fn budget(&self) -> Budget {
        let memory = self.memory_left();
        let sixteenths = |count| usize::try_from(memory / 16 * count).unwrap_or(usize::MAX);
        let own_files = self.segment_files_max() + FILES_OF_CORE * self.cores() as u64;
        let files = self.open_files - own_files.min(self.open_files / 2);
        let affordable = memory / 16 * CONNECTION_SIXTEENTHS / CONNECTION_BYTES;
        Budget {
            small_request_bytes: sixteenths(SMALL_REQUEST_SIXTEENTHS),
            large_request_bytes: sixteenths(LARGE_REQUEST_SIXTEENTHS),
            reply_bytes: sixteenths(REPLY_SIXTEENTHS),
            reply_pressed_bytes: sixteenths(REPLY_PRESSED_SIXTEENTHS),
            connections_max: usize::try_from(affordable.min(files)).unwrap_or(usize::MAX),
        }
    }
}

/// Says at the start what this process can do at most, and which settings ask for more.
pub(super) fn log_bounds(config: &BrokerConfig, memory_bytes: u64, bounds: &Bounds, budget: &Budget) {
    let memory_mib = memory_bytes >> 20;
    let connections = bounds.connections_max.min(config.network.connections_max as usize);
    let request_bytes = bounds.request_bytes_max;
    info!(
        connections,
        request_bytes,
        large_requests_bytes = budget.large_request_bytes,
        unread_reply_bytes = budget.reply_pressed_bytes,
        group_bytes = memory_bytes / 16 * super::broker::GROUPS_SIXTEENTHS,
        batch_unpacked_bytes = partition::SCANNED_BYTES_MAX,
        batch_recompressed_bytes = partition::REWRITTEN_BYTES_MAX,
        recompressed_bytes = memory_bytes / 32 * super::broker::REWRITES_32NDS,
        request_elements = protocol::guard::ELEMENTS_MAX,
        "limits: at most {connections} connections, requests of {request_bytes} bytes; README has them all"
    );
    let asked = config.network.request_max_bytes;
    if usize::try_from(asked).is_ok_and(|asked| asked > request_bytes) {
        warn!(
            "socket.request.max.bytes={asked}, but {memory_mib} MiB of memory carry requests of {request_bytes} bytes: \
             larger ones are refused (give --memory more)"
        );
    }
    // Kafka's default is as good as no limit; nobody expects that many.
    let asked = config.network.connections_max as usize;
    if config.statics.contains_key("max.connections") && asked > bounds.connections_max {
        warn!(
            "max.connections={asked}, but {memory_mib} MiB of memory and the open files allow {connections}: further \
             ones are refused (give --memory more, raise ulimit -n)"
        );
    }
}

/// Where the data lies: `log.dirs`.
#[must_use]
pub fn data_dir_of(config: &BrokerConfig) -> PathBuf {
    config.storage.directory.clone()
}

/// `node.id`.
#[must_use]
pub fn node_id_of(config: &BrokerConfig) -> i32 {
    config.node.id.0
}

/// Whether the node is no other's voter: `controller.quorum.voters` names nobody else.
#[must_use]
pub fn stands_alone(config: &BrokerConfig) -> bool {
    !config.cluster.of_several()
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
        let advertised = config.listeners.advertised.iter().find(|advertised| advertised.name == listener.name);
        let (host, port) = advertised.map_or((listener.host.as_str(), 0), |told| (told.host.as_str(), told.port));
        let host = match host {
            "" => machine_name(),
            host => host.to_owned(),
        };
        Advertised { listener: listener.name.clone(), host, port: if port == 0 { *bound } else { port } }
    };
    config.listeners.bound.iter().zip(ports).map(tell).collect()
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
    use crate::net::LargeRequests;

    fn loaded(overrides: &[&str]) -> BrokerConfig {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        load_config(None, &overrides).expect("a good configuration").config
    }

    #[test]
    fn without_a_file_clients_find_the_loopback() {
        let config = loaded(&[]);
        assert_eq!(config.listeners.bound.len(), 1);
        assert_eq!(endpoint(&config.listeners.bound[0]), Endpoint { host: Host::Loopback, port: 9092 });
        let told = advertised(&config, &[9092]);
        assert_eq!((told[0].host.as_str(), told[0].port), ("localhost", 9092));
    }

    #[test]
    fn port_0_is_told_as_the_one_that_was_bound() {
        let config = loaded(&["listeners=PLAINTEXT://127.0.0.1:0"]);
        assert_eq!(endpoint(&config.listeners.bound[0]).host, Host::Named("127.0.0.1".into()));
        let told = advertised(&config, &[4711]);
        assert_eq!((told[0].host.as_str(), told[0].port), ("127.0.0.1", 4711));
        let config = loaded(&["listeners=PLAINTEXT://:0", "advertised.listeners=PLAINTEXT://example.org:1234"]);
        assert_eq!(endpoint(&config.listeners.bound[0]).host, Host::Any);
        let told = advertised(&config, &[4711]);
        assert_eq!((told[0].host.as_str(), told[0].port), ("example.org", 1234));
    }

    fn machine(memory_mib: u64, cores: usize, open_files: u64) -> Machine {
        Machine {
            plan: CorePlan(vec![None; cores]),
            memory_bytes: memory_mib << 20,
            io_memory: 0,
            open_files,
            door: Door::Glommio,
        }
    }

    #[test]
    fn what_can_be_served_follows_from_memory_and_files_and_not_from_the_cores() {
        let default_request = loaded(&[]).network.request_max_bytes as usize;
        for cores in [1, 2, 16] {
            let budget = machine(1024, cores, 1 << 20).budget();
            assert!(budget.connections_max > 15_000, "{cores} cores: {budget:?}");
            let large = LargeRequests::new(budget.large_request_bytes, default_request);
            assert_eq!(large.frame_bytes_max(), default_request, "{cores} cores");
        }
        // A batch of 15 MB fits into the least memory.
        let large = LargeRequests::new(machine(64, 1, 1 << 20).budget().large_request_bytes, default_request);
        assert!((15 << 20..default_request).contains(&large.frame_bytes_max()));
        // Files: a quarter for segments, and room for what every core has open.
        assert_eq!(machine(1024, 1, 1024).segment_files_max(), 256);
        assert_eq!(machine(1024, 1, 1024).budget().connections_max, 1024 - 256 - 64);
        assert_eq!(machine(1024, 64, 1024).budget().connections_max, 512, "half at least");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load_config(Some(Path::new("/nonexistent/server.properties")), &[]).expect_err("it is not there");
        assert!(error.0.contains("/nonexistent/server.properties"), "{error}");
    }
}

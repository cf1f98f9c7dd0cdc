//! The process: started as a list of named steps, stopped in reverse.

mod broker;
mod check;
mod cores;
mod data_dir;
mod executors;
mod gate;
mod limits;
mod logging;
mod settings;
mod signals;

use std::{
    fmt, panic,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Instant,
};

use tracing::{info, warn};

use self::{broker::KafkaBroker, executors::Listeners};
pub use self::{
    check::check_data_dir,
    cores::{CoreChoice, affinity_mask, parse_bytes},
    data_dir::{DataDirError, lock as lock_data_dir, random_id, read_meta, write_meta},
    logging::LogFormat,
    settings::{Advertised, data_dir_of, load_config, node_id_of, stands_alone},
    signals::{Stop, watch as watch_signals},
};
use crate::{
    config::{BrokerConfig, Listener},
    io::glommio::{probe, probe::DirectIo},
    log::directory::MetaProperties,
    net::BoundListener,
};

/// The metadata version that a new cluster begins with.
pub const METADATA_VERSION: &str = "4.3-IV0";

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A server.properties.
    pub file: Option<PathBuf>,
    /// `key=value` each, above the file.
    pub overrides: Vec<String>,
    /// `--cores`.
    pub cores: Option<CoreChoice>,
    /// `--memory`, in bytes.
    pub memory: Option<u64>,
    /// `--data-dir`, above `log.dirs`.
    pub data_dir: Option<PathBuf>,
    /// `--log-format`.
    pub log_format: LogFormat,
}

/// Who this broker is: the same on all cores, known before anything is recovered.
#[derive(Clone, Debug)]
pub struct BrokerIdentity {
    /// The settings.
    pub config: BrokerConfig,
    /// Where the data lies.
    pub data_dir: PathBuf,
    /// What `meta.properties` says.
    pub meta: MetaProperties,
    /// What clients of each listener are told, in the order of [`crate::net::Peer::listener`].
    pub advertised: Vec<Advertised>,
    /// What the broker may hold, in bytes, beside what it needs to run and its cores to talk to each other. Six sixteenths are
    /// for records, for batches that are made anew to become some and for groups, and six for requests; unread replies may take
    /// three, most of them of the records' part, and connections two.
    pub memory_bytes: u64,
    /// How many segment files may be open.
    pub segment_files_max: u64,
    /// When the process began.
    pub began: Instant,
}

/// Why the broker does not run: one line that says what is wrong and what to do.
#[derive(Debug)]
pub struct RunError {
    step: &'static str,
    why: String,
}

impl fmt::Display for RunError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.step, self.why)
    }
}

impl std::error::Error for RunError {}

/// Names the step that fails.
fn step<T, E: fmt::Display>(name: &'static str, result: Result<T, E>) -> Result<T, RunError> {
    result.map_err(|error| RunError { step: name, why: error.to_string() })
}

/// Runs a broker in this process until a signal stops it.
/// # Errors  Why it could not start, or what failed while it stopped.
pub fn run(options: Options) -> Result<(), RunError> {
    let began = Instant::now();
    let stop = Stop::default();
    step("signals", signals::watch(stop.clone()))?;
    logging::start(options.log_format);
    end_process_on_panic();

    let loaded = step("configuration", load_config(options.file.as_deref(), &options.overrides))?;
    settings::log_notes(&loaded.notes);
    serve(&options, loaded.config, &stop, began)
}

/// The steps after the configuration is known. What a step takes is given back when it goes out of scope, in reverse.
fn serve(options: &Options, config: BrokerConfig, stop: &Stop, began: Instant) -> Result<(), RunError> {
    let machine = step("machine", settings::Machine::look(options, &config))?;
    info!(cores = ?machine.plan.0, memory_mib = machine.memory_bytes >> 20, "starting");
    let listeners = step("listeners", bind(&config))?;
    let data_dir = options.data_dir.clone().unwrap_or_else(|| data_dir_of(&config));
    let _lock = step("data directory", data_dir::lock(&data_dir))?;
    step("data directory", look_at_disk(&data_dir))?;
    let meta = step("data directory", identify(&data_dir, &config))?;
    let ports: Vec<u16> = listeners.clients.iter().map(|(_, listener)| listener.port()).collect();
    let advertised = settings::advertised(&config, &ports);
    let identity = Arc::new(BrokerIdentity {
        config,
        data_dir,
        meta,
        advertised,
        memory_bytes: machine.memory_left(),
        segment_files_max: machine.segment_files_max(),
        began,
    });
    let broker = KafkaBroker::new(machine.cores());
    step("broker", executors::run(&machine, &identity, listeners, &broker, stop))?;
    info!("stopped");
    Ok(())
}

/// The listeners, bound and not open yet. Nobody comes to the controllers' ones of a node that stands alone.
fn bind(config: &BrokerConfig) -> Result<Listeners, String> {
    let bind = |listener: &Listener| {
        let endpoint = settings::endpoint(listener);
        // The kernel lets go of a killed broker's sockets a moment after the process is gone: its rings end by themselves.
        let deadline = Instant::now() + std::time::Duration::from_secs(2);
        let bound = loop {
            match BoundListener::bind(&endpoint) {
                Err(taken) if taken.error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                bound => break bound,
            }
        };
        bound.map(|listener| (endpoint, listener)).map_err(|error| error.to_string())
    };
    let controllers = config.listeners.controllers.iter().filter(|_| config.cluster.of_several());
    Ok(Listeners {
        clients: config.listeners.bound.iter().map(bind).collect::<Result<_, _>>()?,
        controllers: controllers.map(bind).collect::<Result<_, _>>()?,
    })
}

/// Says what the disk under the data directory cannot do.
fn look_at_disk(data_dir: &Path) -> Result<(), DataDirError> {
    match probe::direct_io(data_dir) {
        Ok(DirectIo::Direct) => {}
        Ok(DirectIo::Tmpfs) => {
            warn!(data_dir = %data_dir.display(), "the data lies in memory (tmpfs): a power cut or reboot loses it");
        }
        Ok(DirectIo::Buffered) => {
            warn!(data_dir = %data_dir.display(), "this file system has no O_DIRECT: slower, through the page cache");
        }
        Err(error) => return Err(DataDirError::Io { path: data_dir.to_owned(), error }),
    }
    Ok(())
}

/// Reads who the directory belongs to, or makes it ours.
fn identify(data_dir: &Path, config: &BrokerConfig) -> Result<MetaProperties, String> {
    let node_id = node_id_of(config);
    match data_dir::read_meta(data_dir).map_err(|error| error.to_string())? {
        Some(meta) if meta.node_id == node_id => Ok(meta),
        Some(meta) => Err(format!(
            "{} belongs to node.id={}, the configuration says node.id={node_id}: correct one of them",
            data_dir.display(),
            meta.node_id
        )),
        // A random id would make a cluster of each of its nodes.
        None if !stands_alone(config) => Err(format!(
            "{} is not formatted, and a node of several controller.quorum.voters must be, each with the cluster's id: run \
             `ringtail storage format -t <id> -c <file>` (one id for all; `ringtail storage random-uuid` makes one)",
            data_dir.display()
        )),
        None => {
            let id = || random_id().map_err(|error| format!("no random numbers: {error}"));
            let meta = MetaProperties { cluster_id: id()?, node_id, directory_id: id()? };
            data_dir::write_meta(data_dir, &meta).map_err(|error| error.to_string())?;
            info!(cluster_id = meta.cluster_id, data_dir = %data_dir.display(), "new data directory");
            Ok(meta)
        }
    }
}

/// A panic on any thread ends the process: a broker that has lost a part of itself must not answer for the rest.
fn end_process_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_several_voters_starts_in_a_formatted_directory_alone() {
        let data_dir = std::env::temp_dir().join(format!("ringtail-identify-{}", process::id()));
        drop(std::fs::remove_dir_all(&data_dir));
        std::fs::create_dir_all(&data_dir).expect("a directory");
        let several = [
            "listeners=PLAINTEXT://:0,CONTROLLER://:0",
            "controller.listener.names=CONTROLLER",
            "controller.quorum.voters=1@a:1,2@b:1",
        ];
        let several = load_config(None, &several.map(str::to_owned)).expect("it is one").config;
        let refused = identify(&data_dir, &several).expect_err("it would be a cluster of its own");
        assert!(refused.contains("is not formatted") && refused.contains("storage format"), "{refused}");
        assert_eq!(std::fs::read_dir(&data_dir).expect("it is there").count(), 0, "nothing is written");

        let alone = load_config(None, &[]).expect("it is one").config;
        let made = identify(&data_dir, &alone).expect("it makes itself an id");
        assert_eq!(identify(&data_dir, &several), Ok(made));
        std::fs::remove_dir_all(data_dir).expect("it is ours");
    }
}

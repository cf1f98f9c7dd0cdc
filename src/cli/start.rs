//! `ringtail start`.

use std::path::PathBuf;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::server::{self, CoreChoice, LogFormat, Options};

/// How to start the broker.
#[derive(Debug, Args)]
pub(super) struct Start {
    /// A server.properties, as Apache Kafka reads it; without one, defaults.
    #[arg(value_name = "server.properties", value_parser = properties_file)]
    pub(super) file: Option<PathBuf>,
    /// Sets one key, above the file; may be given again.
    #[arg(long = "override", value_name = "key=value")]
    pub(super) overrides: Vec<String>,
    /// How many cores to use, or which: 4, or 0,2, or 0-3. Default: those that the process may run on, within the cgroup's
    /// CPU quota.
    #[arg(long, value_name = "N|list")]
    pub(super) cores: Option<CoreChoice>,
    /// Memory that the broker may hold: 512M, 2G. Default: a quarter of the machine's or the cgroup's, at most 1G.
    #[arg(long, value_name = "bytes", value_parser = server::parse_bytes)]
    pub(super) memory: Option<u64>,
    /// Where the data lies, above log.dirs. Default: ./ringtail-data.
    #[arg(long, value_name = "directory")]
    pub(super) data_dir: Option<PathBuf>,
    /// Stop in order when the process that has started this one ends.
    #[arg(long, hide = true)]
    pub(super) end_with_parent: bool,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
}

/// A mistyped command must not be taken for a file that does not exist.
fn properties_file(text: &str) -> Result<PathBuf, String> {
    let looks_like_a_file = text.contains(['.', '/']) || std::fs::exists(text).unwrap_or(false);
    if looks_like_a_file { Ok(text.into()) } else { Err("neither a command nor a file".into()) }
}

pub(super) fn run(start: Start) -> Result<(), String> {
    let Start { file, overrides, cores, memory, data_dir, log_format, end_with_parent } = start;
    if end_with_parent {
        set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| error.to_string())?;
    }
    let options = Options { file, overrides, cores, memory, data_dir, log_format };
    server::run(options).map_err(|error| error.to_string())
}

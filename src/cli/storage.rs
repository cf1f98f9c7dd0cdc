//! `ringtail storage`: the part of kafka-storage.sh that the quickstart uses.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::{log::directory::MetaProperties, server};

/// What to do with a data directory.
#[derive(Debug, Subcommand)]
pub(super) enum Storage {
    /// Print a random id for a cluster.
    RandomUuid,
    /// Write the cluster's id into an empty data directory.
    Format(Format),
    /// Say what a data directory is.
    Info(Info),
    /// Verify a data directory in which no broker runs: every checksum in it, and what a start would do. Changes nothing.
    Check(Check),
}

#[derive(Debug, Args)]
pub(super) struct Format {
    /// The cluster's id.
    #[arg(short = 't', long)]
    cluster_id: String,
    /// A server.properties: its log.dirs and node.id count.
    #[arg(short, long, value_name = "server.properties")]
    config: PathBuf,
    /// This node is the only controller; it is in any case.
    #[arg(short, long)]
    standalone: bool,
    /// A directory that is formatted already is no error.
    #[arg(short = 'g', long)]
    ignore_formatted: bool,
}

#[derive(Debug, Args)]
pub(super) struct Info {
    /// A server.properties: its log.dirs count.
    #[arg(short, long, value_name = "server.properties")]
    config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The data directory.
    #[arg(value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn run(storage: Storage) -> Result<(), String> {
    match storage {
        Storage::RandomUuid => {
            println!("{}", random_id()?);
            Ok(())
        }
        Storage::Format(format) => {
            let (data_dir, node_id) = places(&format.config)?;
            println!("{}", format_directory(&data_dir, node_id, &format)?);
            Ok(())
        }
        Storage::Info(info) => {
            let (data_dir, _) = places(&info.config)?;
            println!("{}", describe(&data_dir)?);
            Ok(())
        }
        Storage::Check(check) => check_directory(&check.data_dir),
    }
}

/// A line for everything that is not as it was written, then one for the whole.
fn check_directory(data_dir: &Path) -> Result<(), String> {
    let report = server::check_data_dir(data_dir)?;
    report.findings.iter().for_each(|finding| println!("{finding}"));
    report.notes.iter().for_each(|note| println!("{note}"));
    println!(
        "{}: read {} segments of {} partitions, {} batches, {} journal blocks",
        data_dir.display(),
        report.segments,
        report.partitions,
        report.batches,
        report.blocks
    );
    match report.findings.len() {
        0 => Ok(()),
        1 => Err("1 thing is damaged".into()),
        damaged => Err(format!("{damaged} things are damaged")),
    }
}

fn random_id() -> Result<String, String> {
    server::random_id().map_err(|error| format!("no random numbers: {error}"))
}

/// The data directory and the node id that a file names.
fn places(file: &Path) -> Result<(PathBuf, i32), String> {
    let loaded = server::load_config(Some(file), &[]).map_err(|error| error.to_string())?;
    Ok((server::data_dir_of(&loaded.config), server::node_id_of(&loaded.config)))
}

fn format_directory(data_dir: &Path, node_id: i32, format: &Format) -> Result<String, String> {
    if format.cluster_id.is_empty() || format.cluster_id.contains(char::is_whitespace) {
        return Err(format!("cluster id {:?} must not be empty or contain spaces", format.cluster_id));
    }
    let _lock = server::lock_data_dir(data_dir).map_err(|error| error.to_string())?;
    if server::read_meta(data_dir).map_err(|error| error.to_string())?.is_some() {
        // The words of kafka-storage.sh.
        return if format.ignore_formatted {
            Ok("All of the log directories are already formatted.".into())
        } else {
            let data_dir = data_dir.display();
            Err(format!(
                "Log directory {data_dir} is already formatted. Use --ignore-formatted to ignore this directory and format \
                 the others."
            ))
        };
    }
    let meta = MetaProperties { cluster_id: format.cluster_id.clone(), node_id, directory_id: random_id()? };
    server::write_meta(data_dir, &meta).map_err(|error| error.to_string())?;
    let kind = if format.standalone { "dynamic metadata voter directory" } else { "metadata directory" };
    Ok(format!("Formatting {kind} {} with metadata.version {}.", data_dir.display(), server::METADATA_VERSION))
}

fn describe(data_dir: &Path) -> Result<String, String> {
    match server::read_meta(data_dir).map_err(|error| error.to_string())? {
        Some(MetaProperties { cluster_id, node_id, directory_id }) => Ok(format!(
            "Found log directory:\n  {}\n\nFound metadata: {{cluster.id={cluster_id}, directory.id={directory_id}, \
             node.id={node_id}, version=1}}\n",
            data_dir.display()
        )),
        None => Err(format!("Found problem:\n  {} is not formatted.\n", data_dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_is_formatted_once() {
        let data_dir = std::env::temp_dir().join(format!("ringtail-format-{}", std::process::id()));
        drop(fs::remove_dir_all(&data_dir));
        let mut format = Format {
            cluster_id: "MkU3OEVBNTcwNTJENDM2Qk".into(),
            config: PathBuf::new(),
            standalone: true,
            ignore_formatted: false,
        };
        assert!(describe(&data_dir).is_err());
        let said = format_directory(&data_dir, 3, &format).unwrap();
        assert!(said.starts_with("Formatting dynamic metadata voter directory "), "{said}");
        assert!(describe(&data_dir).unwrap().contains("cluster.id=MkU3OEVBNTcwNTJENDM2Qk, "));
        assert!(format_directory(&data_dir, 3, &format).unwrap_err().contains("already formatted"));
        format.ignore_formatted = true;
        assert!(format_directory(&data_dir, 3, &format).is_ok());
        format.cluster_id = "a b".into();
        assert!(format_directory(&data_dir, 3, &format).is_err());
        fs::remove_dir_all(data_dir).unwrap();
    }
}

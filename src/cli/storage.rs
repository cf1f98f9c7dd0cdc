//! `ringtail storage`: the part of kafka-storage.sh that the quickstart uses.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::{base::TopicId, log::directory::MetaProperties, server};

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

#[derive(Debug, Default, Args)]
pub(super) struct Format {
    /// The cluster's id.
    #[arg(short = 't', long)]
    cluster_id: String,
    /// A server.properties: its log.dirs and node.id count.
    #[arg(short, long, value_name = "server.properties")]
    config: PathBuf,
    /// This node is the only controller. So it is without this, too, unless controller.quorum.voters names others.
    #[arg(short, long, group = "controllers")]
    standalone: bool,
    /// The controllers that a quorum begins with, as id@host:port:directory-id: this node alone, so far.
    #[arg(short = 'I', long, group = "controllers", value_name = "id@host:port:directory-id,…")]
    initial_controllers: Option<String>,
    /// This node is no controller before others make it one. Of no effect where controller.quorum.voters names them all.
    #[arg(short = 'N', long, group = "controllers")]
    no_initial_controllers: bool,
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
            let node = Node::of(&format.config)?;
            println!("{}", format_directory(&node, &format)?);
            Ok(())
        }
        Storage::Info(info) => {
            println!("{}", describe(&Node::of(&info.config)?.data_dir)?);
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

/// What a file says about the node.
struct Node {
    data_dir: PathBuf,
    id: i32,
    /// `controller.quorum.voters` names nobody else.
    stands_alone: bool,
}

impl Node {
    fn of(file: &Path) -> Result<Self, String> {
        let config = server::load_config(Some(file), &[]).map_err(|error| error.to_string())?.config;
        Ok(Self {
            data_dir: server::data_dir_of(&config),
            id: server::node_id_of(&config),
            stands_alone: server::stands_alone(&config),
        })
    }
}

/// The directory id that the command line gives this node. A quorum whose voters are in the settings needs none, and there is no
/// other of several nodes yet.
fn given_directory_id(node: &Node, format: &Format) -> Result<Option<String>, String> {
    if !node.stands_alone {
        // As kafka-storage.sh, which says so in more words.
        return if format.standalone || format.initial_controllers.is_some() {
            Err("You cannot specify controller.quorum.voters and format the node with --initial-controllers or \
                 --standalone."
                .into())
        } else {
            Ok(None)
        };
    }
    let others = "not supported yet: a quorum of several nodes is the same controller.quorum.voters on each of them";
    if format.no_initial_controllers {
        return Err(format!("--no-initial-controllers: {others}"));
    }
    let Some(controllers) = &format.initial_controllers else { return Ok(None) };
    let error = |why: &str| format!("--initial-controllers {controllers}: {why}");
    if controllers.contains(',') {
        return Err(error(others));
    }
    // An id has no colon in it, a host may.
    let voter = controllers.split_once('@').and_then(|(id, rest)| {
        let (address, directory) = rest.rsplit_once(':')?;
        let (host, port) = address.rsplit_once(':')?;
        (!host.is_empty() && port.parse::<u16>().is_ok()).then_some((id.parse::<i32>().ok()?, directory))
    });
    match voter {
        Some((id, _)) if id != node.id => Err(error(&format!("must be this node, node.id={}", node.id))),
        Some((_, directory)) if directory.parse::<TopicId>().is_ok_and(|id| id != TopicId::default()) => {
            Ok(Some(directory.to_owned()))
        }
        _ => Err(error("must be id@host:port:directory-id, such as 1@localhost:9093:3Db5QLSqSZieL3rJBUUegA")),
    }
}

fn format_directory(node: &Node, format: &Format) -> Result<String, String> {
    let data_dir = &node.data_dir;
    if format.cluster_id.is_empty() || format.cluster_id.contains(char::is_whitespace) {
        return Err(format!("cluster id {:?} must not be empty or contain spaces", format.cluster_id));
    }
    let directory_id = given_directory_id(node, format)?;
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
    let directory_id = directory_id.map_or_else(random_id, Ok)?;
    let meta = MetaProperties { cluster_id: format.cluster_id.clone(), node_id: node.id, directory_id };
    server::write_meta(data_dir, &meta).map_err(|error| error.to_string())?;
    let kind = if format.standalone || format.initial_controllers.is_some() {
        "dynamic metadata voter directory"
    } else {
        "metadata directory"
    };
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

    const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qk";

    fn node(name: &str, stands_alone: bool) -> Node {
        let data_dir = std::env::temp_dir().join(format!("ringtail-format-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&data_dir));
        Node { data_dir, id: 3, stands_alone }
    }

    fn asked() -> Format {
        Format { cluster_id: CLUSTER.into(), ..Format::default() }
    }

    #[test]
    fn a_directory_is_formatted_once() {
        let node = node("once", true);
        let data_dir = &node.data_dir;
        let mut format = Format { standalone: true, ..asked() };
        assert!(describe(data_dir).is_err());
        let said = format_directory(&node, &format).unwrap();
        assert!(said.starts_with("Formatting dynamic metadata voter directory "), "{said}");
        assert!(describe(data_dir).unwrap().contains("cluster.id=MkU3OEVBNTcwNTJENDM2Qk, "));
        assert!(format_directory(&node, &format).unwrap_err().contains("already formatted"));
        format.ignore_formatted = true;
        assert!(format_directory(&node, &format).is_ok());
        format.cluster_id = "a b".into();
        assert!(format_directory(&node, &format).is_err());
        fs::remove_dir_all(data_dir).unwrap();
    }

    #[test]
    fn a_node_of_several_voters_is_formatted_with_the_clusters_id_alone() {
        let node = node("several", false);
        let data_dir = &node.data_dir;
        for dynamic in [
            Format { standalone: true, ..asked() },
            Format { initial_controllers: Some("3@a:1:3Db5QLSqSZieL3rJBUUegA".into()), ..asked() },
        ] {
            let said = format_directory(&node, &dynamic).unwrap_err();
            assert!(said.starts_with("You cannot specify controller.quorum.voters and "), "{said}");
        }
        assert!(!data_dir.exists(), "nothing is written");
        let said = format_directory(&node, &asked()).unwrap();
        assert!(said.starts_with("Formatting metadata directory "), "{said}");
        assert!(describe(data_dir).unwrap().contains("node.id=3,"));
        fs::remove_dir_all(data_dir).unwrap();
    }

    #[test]
    fn the_first_controller_may_bring_its_directorys_id() {
        let node = node("initial", true);
        let said = |controllers: &str| {
            format_directory(&node, &Format { initial_controllers: Some(controllers.into()), ..asked() })
        };
        let form = "must be id@host:port:directory-id, such as 1@localhost:9093:3Db5QLSqSZieL3rJBUUegA";
        for (controllers, why) in [
            ("3@a:1", form),
            ("x@a:1:3Db5QLSqSZieL3rJBUUegA", form),
            ("3@a:x:3Db5QLSqSZieL3rJBUUegA", form),
            ("3@:1:3Db5QLSqSZieL3rJBUUegA", form),
            ("3@a:1:short", form),
            ("3@a:1:AAAAAAAAAAAAAAAAAAAAAA", form),
            ("4@a:1:3Db5QLSqSZieL3rJBUUegA", "must be this node, node.id=3"),
            ("3@a:1:3Db5QLSqSZieL3rJBUUegA,4@b:1:4Db5QLSqSZieL3rJBUUegA", "not supported yet: "),
        ] {
            let said = said(controllers).unwrap_err();
            assert!(said.starts_with(&format!("--initial-controllers {controllers}: {why}")), "{said}");
        }
        let joins = Format { no_initial_controllers: true, ..asked() };
        assert!(format_directory(&node, &joins).unwrap_err().contains("not supported yet"));
        assert!(!node.data_dir.exists(), "nothing is written");
        let said = said("3@[::1]:9093:3Db5QLSqSZieL3rJBUUegA").unwrap();
        assert!(said.starts_with("Formatting dynamic metadata voter directory "), "{said}");
        assert!(describe(&node.data_dir).unwrap().contains("directory.id=3Db5QLSqSZieL3rJBUUegA,"));
        fs::remove_dir_all(&node.data_dir).unwrap();
    }
}

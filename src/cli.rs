//! The command line.

mod dev;
mod start;
mod storage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Kafka broker for Linux. Without a command it starts one, with data in ./ringtail-data and clients on localhost:9092.
#[derive(Debug, Parser)]
#[command(name = "ringtail", version, max_term_width = 120, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// What `start` takes.
    #[command(flatten)]
    start: start::Start,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the broker.
    Start(start::Start),
    /// Start a cluster for trying out: processes of this program in a temporary directory, on free ports.
    Dev(dev::Dev),
    /// Prepare or inspect a data directory, as kafka-storage.sh does. Starting needs no preparation.
    #[command(subcommand)]
    Storage(storage::Storage),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => start::run(cli.start),
        Some(Command::Start(start)) => start::run(start),
        Some(Command::Dev(dev)) => dev::run(&dev),
        Some(Command::Storage(storage)) => storage::run(storage),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringtail: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        let start = |words: &[&str]| match Cli::try_parse_from(words).unwrap() {
            Cli { command: Some(Command::Start(start)), .. } | Cli { command: None, start } => start,
            Cli { command: Some(other), .. } => panic!("{other:?}"),
        };
        assert_eq!(start(&["ringtail"]).file, None);
        assert_eq!(start(&["ringtail", "start"]).file, None);
        let words = ["ringtail", "start", "a.properties", "--override", "x=1", "--override", "y=2", "--cores", "0,2"];
        let given = start(&words);
        assert_eq!(given.file.unwrap().to_str(), Some("a.properties"));
        assert_eq!(given.overrides, ["x=1", "y=2"]);
        assert_eq!(start(&["ringtail", "--memory", "512M"]).memory, Some(512 << 20));
        for bad in [
            &["ringtail", "nonsense-command"][..],
            &["ringtail", "start", "--cores", "0"],
            &["ringtail", "--memory", "x"],
            &["ringtail", "dev", "--nodes", "0"],
            &["ringtail", "storage", "format", "-s", "-N", "-t", "abc", "-c", "server.properties"],
        ] {
            assert!(Cli::try_parse_from(bad).is_err(), "{bad:?}");
        }
        for good in [
            &["ringtail", "dev", "--nodes", "3"][..],
            &["ringtail", "storage", "random-uuid"],
            &["ringtail", "storage", "format", "--standalone", "-t", "abc", "-c", "server.properties"],
            &["ringtail", "storage", "format", "-t", "abc", "-c", "server.properties", "--ignore-formatted"],
            &["ringtail", "storage", "format", "-I", "1@a:1:x", "-t", "abc", "-c", "server.properties"],
            &["ringtail", "storage", "info", "-c", "server.properties"],
            &["ringtail", "storage", "check", "data"],
        ] {
            assert!(Cli::try_parse_from(good).is_ok(), "{good:?}");
        }
    }
}

//! The command line.

pub mod versus;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::{
    client::admin::Admin,
    engine::{self, Outcome},
    environment::{BrokerFacts, Machine},
    failure::{Exit, Failure},
    null_broker::{Manners, NullBroker},
    progress::Progress,
    report::{html, json, json::Setting, print, text, write_file},
    self_test, sys,
    workload::{self, Workload, shape::Shape},
};

/// Load for any Kafka broker, and the truth about its latency.
#[derive(Parser)]
#[command(name = "ringtail-loadgen", version, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make load and measure it
    Run(RunArgs),
    /// Compare two brokers in pairs of rounds
    Compare(versus::VersusArgs),
    /// Judge a change in CI: exit 0 pass, 1 regression, 2 inconclusive, 3 error
    Gate(versus::GateArgs),
    /// List the ready workloads
    Workloads,
    /// Measure the generator itself against a built-in broker that does nothing
    SelfTest {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Be a broker that answers at once and keeps nothing, until interrupted
    NullBroker {
        /// Port on the loopback interface; 0 takes a free one and prints it
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// Answer that much later, as 50us
        #[arg(long, default_value = "0us")]
        delay: String,
        /// Ask producers for so much silence with every reply, as a broker with quotas does
        #[arg(long, default_value = "0ms")]
        throttle: String,
    },
}

#[derive(Args)]
struct RunArgs {
    /// A ready workload by name, or a TOML file; flags win over it
    workload: Option<String>,
    /// Addresses of brokers, host:port, separated by commas
    #[arg(long, short, value_delimiter = ',', default_value = "localhost:9092")]
    bootstrap: Vec<String>,
    #[command(flatten)]
    shape: Shape,
    /// Directory for report.html, report.json and latency.hlog
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// Print the report as JSON instead of text
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
}

/// Parses and does what is asked. Returns the exit code.
pub fn main() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            // Nowhere to print to is no reason to change the exit code.
            let _ = error.print();
            return if is_help { Exit::Good as i32 } else { Exit::Error as i32 };
        }
    };
    sys::catch_interrupts();
    sys::raise_file_limit();
    let result = match cli.command {
        Command::Run(args) => run(&args).map(|exit| exit as i32),
        Command::Compare(args) => versus::compare(&args),
        Command::Gate(args) => versus::gate(&args),
        Command::Workloads => {
            let lines = workload::READY.iter().map(|(name, toml)| {
                let about = toml.lines().next().unwrap_or_default().trim_start_matches("# ");
                format!("{name:<16} {about}\n")
            });
            print(&lines.collect::<String>()).map(|()| Exit::Good as i32)
        }
        Command::NullBroker { port, delay, throttle } => null_broker(port, &delay, &throttle),
        Command::SelfTest { json } => self_test::run().and_then(|result| {
            let text = if json { format!("{:#}\n", serde_json::json!(result)) } else { self_test::text(&result) };
            print(&text).map(|()| Exit::Good as i32)
        }),
    };
    result.unwrap_or_else(|failure| {
        eprintln!("error: {failure}");
        Exit::Error as i32
    })
}

fn run(args: &RunArgs) -> Result<Exit, Failure> {
    let base = match &args.workload {
        Some(name) => workload::load(name)?,
        None => Shape::default(),
    };
    let workload = Workload::resolve(&args.shape.clone().or(base))?;
    if let Some(directory) = &args.out {
        std::fs::create_dir_all(directory)
            .map_err(|error| Failure(format!("cannot make {}: {error}; give another --out", directory.display())))?;
    }
    let mut admin = Admin::new(&args.bootstrap, "ringtail-loadgen");
    // Whether there is a broker at all comes first; what it tells of itself is a courtesy.
    admin.link()?;
    let setting = Setting {
        machine: Machine::read(),
        broker: BrokerFacts::read(&mut admin, &workload.topic_configs),
        command: command_line(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    drop(admin);
    let mut progress = Progress::new(args.quiet);
    let outcome = engine::run(&workload, &args.bootstrap, &mut |news| progress.tell(&news))?;
    progress.finish();
    let report = json::report(&outcome, &setting);
    let printed = print(&if args.json { format!("{report:#}\n") } else { text::summary(&outcome, &setting) });
    if let Some(directory) = &args.out {
        write_reports(directory, &outcome, &setting, &report)?;
        if !args.quiet {
            eprintln!("  reports in {}", directory.display());
        }
    }
    printed?;
    Ok(exit_of(&outcome))
}

fn write_reports(
    directory: &Path,
    outcome: &Outcome,
    setting: &Setting,
    report: &serde_json::Value,
) -> Result<(), Failure> {
    write_file(&directory.join("report.json"), &format!("{report:#}\n"))?;
    write_file(&directory.join("latency.hlog"), &outcome.books.log.text(outcome.started_wall_ns))?;
    write_file(&directory.join("report.html"), &html::run_page(outcome, setting))
}

fn null_broker(port: u16, delay: &str, throttle: &str) -> Result<i32, Failure> {
    let throttle_ms = workload::units::parse_duration(throttle)? / 1_000_000;
    let manners = Manners {
        delay_ns: workload::units::parse_duration(delay)?,
        throttle_ms: i32::try_from(throttle_ms).map_err(|_| Failure("throttle: too long".to_owned()))?,
    };
    let broker = NullBroker::start(port, manners)
        .map_err(|error| Failure(format!("cannot listen on 127.0.0.1:{port}: {error}")))?;
    print(&format!("{}\n", broker.address))?;
    while !sys::interrupted() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Ok(Exit::Good as i32)
}

fn exit_of(outcome: &Outcome) -> Exit {
    let idempotent = outcome.workload.idempotence;
    if outcome.verdict.as_ref().is_some_and(|verdict| verdict.is_broken(idempotent)) {
        return Exit::Broken;
    }
    if !outcome.invalid.is_empty() && !outcome.interrupted {
        return Exit::Invalid;
    }
    Exit::Good
}

/// As it was typed, quoted where a shell needs it.
pub fn command_line() -> String {
    let quote = |argument: String| {
        let is_plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c));
        if is_plain && !argument.is_empty() { argument } else { format!("'{}'", argument.replace('\'', "'\\''")) }
    };
    std::env::args().map(quote).collect::<Vec<_>>().join(" ")
}

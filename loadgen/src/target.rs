//! A broker under comparison: an address, or a command that is started afresh for every round.

use std::{
    fs, io,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use kafka_protocol::messages::{
    ProduceRequest,
    produce_request::{PartitionProduceData, TopicProduceData},
};

use crate::{
    client::{
        admin::Admin,
        error::{ClientError, codes},
    },
    failure::Failure,
    records::{
        batch::{BatchWriter, Identity, seal},
        compress::Codec,
    },
    sys,
};

const READY_TIMEOUT: Duration = Duration::from_secs(90);
const READY_PAUSE: Duration = Duration::from_millis(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const LOG_TAIL_BYTES: usize = 2_000;
const PROBE_TOPIC: &str = "loadgen-probe";

/// What is compared.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Address(Vec<String>),
    /// With `{port}`, `{port2}`, `{dir}` and `{cpus}` to be filled in.
    Command(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(bootstrap) => f.write_str(&bootstrap.join(",")),
            Self::Command(command) => f.write_str(command),
        }
    }
}

impl Target {
    /// # Errors  a text that is neither `host:port` nor a command with `{port}`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text.contains("{port}") {
            return Ok(Self::Command(text.to_owned()));
        }
        let is_address = |part: &str| {
            let port = part.rsplit_once(':').map(|(_, port)| port);
            port.is_some_and(|port| port.parse::<u16>().is_ok()) && !part.contains(' ')
        };
        let parts: Vec<String> = text.split(',').map(str::to_owned).collect();
        if parts.iter().all(|part| is_address(part)) {
            return Ok(Self::Address(parts));
        }
        Err(Failure(format!("{text:?} is neither host:port nor a command with {{port}} in it")))
    }

    /// Starts the command, or takes the address as it is. Returns when a record was acknowledged.
    pub fn start(&self, parent: &Path, cpus: &str) -> Result<Running, Failure> {
        match self {
            Self::Address(bootstrap) => {
                probe(bootstrap).map_err(|error| Failure(format!("the target is not ready: {error}")))?;
                Ok(Running { bootstrap: bootstrap.clone(), process: None, cold_start_ns: None })
            }
            Self::Command(command) => start_command(command, parent, cpus),
        }
    }
}

/// A broker that answers. A started one is ended when this is dropped.
pub struct Running {
    pub bootstrap: Vec<String>,
    process: Option<Process>,
    /// From the start of the process to the first acknowledged record.
    pub cold_start_ns: Option<u64>,
}

struct Process {
    child: Child,
    directory: PathBuf,
    /// Where its output goes; outside its directory, which must be fresh.
    log: PathBuf,
}

/// CPU time and memory of a broker's processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    pub rss_bytes: u64,
}

impl Running {
    /// None for an address: the process may be anywhere.
    pub fn usage(&self) -> Option<Usage> {
        self.process.as_ref().map(|process| group_usage(process.child.id()))
    }

    /// # Errors  a started broker that has ended by itself, with the end of its output.
    pub fn check_alive(&mut self) -> Result<(), Failure> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match process.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(process.died(&format!("ended by itself with {status}"))),
            Err(error) => Err(process.died(&error.to_string())),
        }
    }

    /// SIGTERM, then SIGKILL, then its directory is removed.
    pub fn stop(mut self) -> Result<(), Failure> {
        let result = self.check_alive();
        self.end();
        result
    }

    fn end(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let group = process.child.id();
        sys::signal_group(group, libc::SIGTERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline && group_is_alive(group) {
            // Reaps the leader; its children are counted by group.
            let _ = process.child.try_wait();
            std::thread::sleep(READY_PAUSE);
        }
        if group_is_alive(group) {
            sys::signal_group(group, libc::SIGKILL);
        }
        // It has been killed if it had not ended; and a directory that stays behind is only untidy.
        let _ = process.child.wait();
        let _ = fs::remove_dir_all(&process.directory);
        let _ = fs::remove_file(&process.log);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    fn died(&self, how: &str) -> Failure {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
        Failure(format!("the broker {how}; its output ends with:\n{}", tail.trim_end()))
    }
}

fn start_command(template: &str, parent: &Path, cpus: &str) -> Result<Running, Failure> {
    let cannot = |error: io::Error| Failure(format!("cannot start a round in {}: {error}", parent.display()));
    let (port, port2) = free_ports().map_err(cannot)?;
    let directory = parent.join(format!("round-{port}-{}", sys::monotonic_ns()));
    fs::create_dir_all(&directory).map_err(cannot)?;
    let log = directory.with_extension("log");
    let output = fs::File::create(&log).map_err(cannot)?;
    let command = template
        .replace("{port}", &port.to_string())
        .replace("{port2}", &port2.to_string())
        .replace("{dir}", &directory.display().to_string())
        .replace("{cpus}", cpus);
    let started = Instant::now();
    let errors = output.try_clone().map_err(cannot)?;
    let child = Command::new("sh")
        .args(["-c", &command])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let bootstrap = vec![format!("127.0.0.1:{port}")];
    let mut running = Running { bootstrap, process: Some(Process { child, directory, log }), cold_start_ns: None };
    loop {
        running.check_alive()?;
        match probe(&running.bootstrap) {
            Ok(()) => break,
            Err(error) if started.elapsed() > READY_TIMEOUT => {
                let process = running.process.as_ref().expect("set above");
                return Err(process.died(&format!("acknowledged nothing within 90 s ({error})")));
            }
            Err(_) => std::thread::sleep(READY_PAUSE),
        }
    }
    running.cold_start_ns = Some(started.elapsed().as_nanos() as u64);
    Ok(running)
}

/// Two ports that were free a moment ago. The broker binds them itself, so another process could be quicker: then the round
/// fails with the broker's own message.
fn free_ports() -> io::Result<(u16, u16)> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((first.local_addr()?.port(), second.local_addr()?.port()))
}

/// One record, acknowledged by all replicas.
fn probe(bootstrap: &[String]) -> Result<(), ClientError> {
    let mut admin = Admin::new(bootstrap, "ringtail-loadgen-probe");
    let topic = PROBE_TOPIC.to_owned();
    admin.create_topic(&topic, 1, -1, &[])?;
    let metadata = admin.settled_metadata(std::slice::from_ref(&topic))?;
    let id = metadata.topics.first().map_or(uuid::Uuid::nil(), |topic| topic.topic_id);
    let mut writer = BatchWriter::start(BytesMut::new(), 0);
    writer.push_parts((sys::wall_ns() / 1_000_000) as i64, None, b"probe", b"");
    let batch = writer.finish(Codec::None, &mut Vec::new()).expect("nothing is compressed");
    let data = PartitionProduceData::default().with_records(Some(seal(batch, Identity::NONE)));
    let link = admin.link()?;
    let version = link.versions().pick_at_most::<ProduceRequest>(if id.is_nil() { 12 } else { i16::MAX })?;
    let named = TopicProduceData::default().with_partition_data(vec![data]);
    let named = if version >= crate::fetch::TOPIC_ID_VERSION {
        named.with_topic_id(id)
    } else {
        named.with_name(kafka_protocol::messages::TopicName(kafka_protocol::protocol::StrBytes::from_string(topic)))
    };
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![named]);
    let response = link.call_at("Produce", version, &request)?;
    let answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let code = answers.map(|answer| answer.error_code).next().unwrap_or(-1);
    if code != codes::NONE {
        return Err(ClientError::Code { doing: "the first record".to_owned(), code, message: String::new() });
    }
    Ok(())
}

/// Of all processes in the group: what a shell started belongs to it too.
fn group_usage(group: u32) -> Usage {
    let tick_ns = 1_000_000_000 / sys::clock_ticks();
    let mut usage = Usage::default();
    for stat in group_stats(group) {
        usage.cpu_ns += (stat.user_ticks + stat.system_ticks + stat.children_ticks) * tick_ns;
        usage.rss_bytes += stat.rss_pages * 4096;
    }
    usage
}

fn group_is_alive(group: u32) -> bool {
    group_stats(group).iter().any(|stat| stat.state != 'Z')
}

struct Stat {
    state: char,
    group: u32,
    user_ticks: u64,
    system_ticks: u64,
    children_ticks: u64,
    rss_pages: u64,
}

fn group_stats(group: u32) -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let processes = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())));
    let stats = processes.filter_map(|entry| parse_stat(&fs::read_to_string(entry.path().join("stat")).ok()?));
    stats.filter(|stat| stat.group == group).collect()
}

/// `/proc/<pid>/stat`; the name in parentheses may hold anything, spaces too.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: number(2)? as u32,
        user_ticks: number(11)?,
        system_ticks: number(12)?,
        children_ticks: number(13)? + number(14)?,
        rss_pages: number(21)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert!(matches!(Target::parse("localhost:9092").unwrap(), Target::Address(_)));
        assert!(matches!(Target::parse("a:1,b:2").unwrap(), Target::Address(list) if list.len() == 2));
        assert!(matches!(Target::parse("broker --port {port}").unwrap(), Target::Command(_)));
        assert!(Target::parse("broker --port 9092").is_err());
        assert!(Target::parse("localhost").is_err());
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_parses() {
        let text = "12 (a ) b) S 1 77 77 0 -1 0 0 0 0 0 5 6 1 2 20 0 1 0 100 1000 33 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.group, stat.user_ticks, stat.system_ticks, stat.children_ticks), (77, 5, 6, 3));
        assert_eq!((stat.rss_pages, stat.state), (33, 'S'));
    }
}

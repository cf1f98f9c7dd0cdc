//! What load to make: flags and TOML files are one table (`Shape`), checked and resolved into a `Workload`.

pub mod shape;
pub mod sizes;
pub mod units;

use std::path::Path;

use serde::Serialize;

use crate::{
    records::{compress::Codec, stamp::STAMP_BYTES},
    schedule::{Arrival, Burst},
    workload::{
        shape::Shape,
        sizes::Sizes,
        units::{parse_bytes, parse_duration, parse_rate},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Produce,
    Fetch,
    Both,
}

impl Mode {
    pub fn produces(self) -> bool {
        match self {
            Self::Produce | Self::Both => true,
            Self::Fetch => false,
        }
    }

    pub fn fetches(self) -> bool {
        match self {
            Self::Fetch | Self::Both => true,
            Self::Produce => false,
        }
    }
}

/// The offered rate of all producers together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// Closed loop: as fast as replies allow. Its latencies say nothing about an offered load.
    Max,
    RecordsPerSecond(f64),
    BytesPerSecond(f64),
}

/// How a record finds its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioner {
    /// One partition until its batch is sent, then the next: what the Java client does without keys.
    Sticky,
    RoundRobin,
    Random,
    /// murmur2 of the key, as the Java client.
    Key,
}

/// A load, checked. Times in nanoseconds, sizes in bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    pub name: String,
    pub mode: Mode,
    pub rate: Rate,
    pub arrival: Arrival,
    pub burst: Option<Burst>,
    pub record_bytes: Sizes,
    pub keys: u64,
    pub partitioner: Partitioner,
    pub randomness: f64,
    pub topic: Option<String>,
    pub topics: usize,
    pub partitions: usize,
    pub replication: i16,
    pub topic_configs: Vec<(String, String)>,
    pub create: bool,
    pub keep_topics: bool,
    pub producers: usize,
    pub consumers: usize,
    pub group: bool,
    pub acks: i16,
    pub idempotence: bool,
    pub batch_bytes: usize,
    pub batch_records: u32,
    pub request_bytes: usize,
    pub linger_ns: u64,
    pub compression: Codec,
    pub in_flight: usize,
    pub duration_ns: u64,
    pub warm_up_ns: u64,
    pub timeout_ns: u64,
    pub request_timeout_ns: u64,
    pub fetch_max_wait_ms: i32,
    pub fetch_min_bytes: i32,
    pub fetch_max_bytes: i32,
    pub partition_max_bytes: i32,
    pub prefill_bytes: u64,
    pub verify: bool,
    pub threads: usize,
    pub pin: Vec<usize>,
    pub spin: bool,
    pub seed: u64,
    pub lateness_bound_ns: u64,
    /// All brokers are reached through this address: a proxy in front of a single broker.
    #[serde(skip)]
    pub via: Option<std::net::SocketAddr>,
}

impl Workload {
    /// Checks a shape and fills in the defaults.
    /// # Errors  one line that names the setting, what is wrong with it and what is allowed.
    pub fn resolve(shape: &Shape) -> Result<Self, String> {
        let record_bytes = Sizes::parse(shape.record_bytes.as_deref().unwrap_or("1024"))
            .map_err(|error| format!("record-bytes: {error}"))?;
        let mode = parse_mode(shape.mode.as_deref().unwrap_or("both"))?;
        let keys = shape.keys.unwrap_or(0);
        let rate = parse_rate(shape.rate.as_deref().unwrap_or("1000"))?;
        let acks = parse_acks(shape.acks.as_deref().unwrap_or("all"))?;
        let idempotence = shape.idempotence.unwrap_or(acks == -1);
        let seed = shape.seed.unwrap_or_else(|| crate::sys::wall_ns() / 1_000 % 1_000_000_000);
        let workload = Self {
            name: shape.name.clone().unwrap_or_else(|| "custom".to_owned()),
            mode,
            rate,
            arrival: parse_arrival(shape.arrival.as_deref().unwrap_or("constant"))?,
            burst: parse_burst(shape.burst.as_deref())?,
            record_bytes,
            keys,
            partitioner: parse_partitioner(shape.partitioner.as_deref(), keys)?,
            randomness: shape.randomness.unwrap_or(1.0),
            topic: shape.topic.clone(),
            topics: shape.topics.unwrap_or(1),
            partitions: shape.partitions.unwrap_or(1),
            replication: shape.replication.unwrap_or(-1),
            topic_configs: parse_configs(shape.topic_config.as_deref().unwrap_or_default())?,
            create: shape.create.unwrap_or(true),
            keep_topics: shape.keep_topics.unwrap_or(false),
            producers: if mode.produces() { shape.producers.unwrap_or(1) } else { 0 },
            consumers: if mode.fetches() { shape.consumers.unwrap_or(1) } else { 0 },
            group: shape.group.unwrap_or(false),
            acks,
            idempotence,
            batch_bytes: bytes(&shape.batch_bytes, "16KiB", "batch-bytes")? as usize,
            batch_records: shape.batch_records.unwrap_or(u32::MAX >> 2),
            request_bytes: bytes(&shape.request_bytes, "1MiB", "request-bytes")? as usize,
            linger_ns: duration(&shape.linger, "0ms", "linger")?,
            compression: parse_codec(shape.compression.as_deref().unwrap_or("none"))?,
            in_flight: shape.in_flight.unwrap_or(5),
            duration_ns: duration(&shape.duration, "30s", "duration")?,
            warm_up_ns: duration(&shape.warm_up, "5s", "warm-up")?,
            timeout_ns: duration(&shape.timeout, "60s", "timeout")?,
            request_timeout_ns: duration(&shape.request_timeout, "30s", "request-timeout")?,
            fetch_max_wait_ms: (duration(&shape.fetch_max_wait, "500ms", "fetch-max-wait")? / 1_000_000) as i32,
            fetch_min_bytes: bytes(&shape.fetch_min_bytes, "1", "fetch-min-bytes")? as i32,
            fetch_max_bytes: bytes(&shape.fetch_max_bytes, "50MiB", "fetch-max-bytes")? as i32,
            partition_max_bytes: bytes(&shape.partition_max_bytes, "1MiB", "partition-max-bytes")? as i32,
            prefill_bytes: bytes(&shape.prefill, "0", "prefill")?,
            verify: shape.verify.unwrap_or(true),
            threads: shape.threads.unwrap_or(1),
            pin: parse_cores(shape.pin.as_deref())?,
            spin: shape.spin.unwrap_or(false),
            seed,
            lateness_bound_ns: duration(&shape.lateness_bound, "1ms", "lateness-bound")?,
            via: None,
        };
        workload.check()?;
        Ok(workload)
    }

    fn check(&self) -> Result<(), String> {
        let smallest = self.record_bytes.smallest();
        let rules = [
            (
                smallest < STAMP_BYTES,
                format!(
                    "record-bytes: at least {STAMP_BYTES} (the stamp that latency and verification need), not {smallest}"
                ),
            ),
            (
                self.idempotence && self.acks != -1,
                "idempotence needs acks=all; give --acks all or --idempotence false".to_owned(),
            ),
            (
                self.idempotence && self.in_flight > 5,
                "idempotence allows in-flight of at most 5; lower it or give --idempotence false".to_owned(),
            ),
            (!(0.0..=1.0).contains(&self.randomness), "randomness: between 0 and 1".to_owned()),
            (self.partitions == 0 || self.topics == 0, "partitions and topics: at least 1".to_owned()),
            (self.mode.produces() && self.producers == 0, "producers: at least 1 (or --mode fetch)".to_owned()),
            (self.mode.fetches() && self.consumers == 0, "consumers: at least 1 (or --mode produce)".to_owned()),
            (self.in_flight == 0, "in-flight: at least 1".to_owned()),
            (self.batch_records == 0, "batch-records: at least 1".to_owned()),
            (self.threads == 0 || self.threads > 64, "threads: between 1 and 64".to_owned()),
            (self.duration_ns == 0, "duration: more than 0".to_owned()),
            (self.timeout_ns > 600_000_000_000, "timeout: at most 10m, the histograms' range".to_owned()),
            (
                self.partitioner == Partitioner::Key && self.keys == 0,
                "partitioner key needs --keys of at least 1".to_owned(),
            ),
            (self.group && self.consumers > 64, "consumers: at most 64 in a group".to_owned()),
            (
                self.burst.is_some() && self.rate == Rate::Max,
                "burst needs a rate; --rate max has no schedule".to_owned(),
            ),
            (
                self.mode == Mode::Fetch && self.prefill_bytes == 0 && self.topic.is_none(),
                "mode fetch needs something to read: --topic of an existing topic, or --prefill of a size".to_owned(),
            ),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, message)) => Err(message),
            None => Ok(()),
        }
    }

    /// Records a second of all producers together; none in a closed loop.
    pub fn records_per_second(&self) -> Option<f64> {
        match self.rate {
            Rate::Max => None,
            Rate::RecordsPerSecond(records) => Some(records),
            Rate::BytesPerSecond(bytes) => Some(bytes / self.record_bytes.mean()),
        }
    }
}

/// Reads a workload: one of the ready ones by name, or a TOML file.
pub fn load(name_or_path: &str) -> Result<Shape, String> {
    let ready = READY.iter().find(|(name, _)| *name == name_or_path);
    if let Some((name, text)) = ready {
        let shape = Shape::from_toml(text).map_err(|error| format!("workload {name}: {error}"))?;
        return Ok(shape);
    }
    let path = Path::new(name_or_path);
    let text = std::fs::read_to_string(path).map_err(|error| {
        let names: Vec<&str> = READY.iter().map(|(name, _)| *name).collect();
        format!("workload {name_or_path}: {error}; give a TOML file or one of {}", names.join(", "))
    })?;
    Shape::from_toml(&text).map_err(|error| format!("workload {name_or_path}: {error}"))
}

/// The ready workloads, in the binary so that they need no files.
pub const READY: &[(&str, &str)] = &[
    ("trickle", include_str!("../workloads/trickle.toml")),
    ("fan-in", include_str!("../workloads/fan-in.toml")),
    ("many-partitions", include_str!("../workloads/many-partitions.toml")),
    ("streaming", include_str!("../workloads/streaming.toml")),
    ("tail-read", include_str!("../workloads/tail-read.toml")),
    ("catch-up", include_str!("../workloads/catch-up.toml")),
    ("mixed", include_str!("../workloads/mixed.toml")),
    ("burst", include_str!("../workloads/burst.toml")),
    ("gate", include_str!("../workloads/gate.toml")),
];

fn duration(text: &Option<String>, default: &str, name: &str) -> Result<u64, String> {
    parse_duration(text.as_deref().unwrap_or(default)).map_err(|error| format!("{name}: {error}"))
}

fn bytes(text: &Option<String>, default: &str, name: &str) -> Result<u64, String> {
    parse_bytes(text.as_deref().unwrap_or(default)).map_err(|error| format!("{name}: {error}"))
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    match text {
        "produce" => Ok(Mode::Produce),
        "fetch" => Ok(Mode::Fetch),
        "both" => Ok(Mode::Both),
        _ => Err(format!("mode: produce, fetch or both, not {text:?}")),
    }
}

fn parse_acks(text: &str) -> Result<i16, String> {
    match text {
        "all" | "-1" => Ok(-1),
        "0" => Ok(0),
        "1" => Ok(1),
        _ => Err(format!("acks: 0, 1 or all, not {text:?}")),
    }
}

fn parse_arrival(text: &str) -> Result<Arrival, String> {
    match text {
        "constant" => Ok(Arrival::Constant),
        "poisson" => Ok(Arrival::Poisson),
        _ => Err(format!("arrival: constant or poisson, not {text:?}")),
    }
}

fn parse_burst(text: Option<&str>) -> Result<Option<Burst>, String> {
    let Some(text) = text else { return Ok(None) };
    let expected = || format!("burst: two durations as 100ms/900ms (on/off), not {text:?}");
    let (on, off) = text.split_once('/').ok_or_else(expected)?;
    let (on_ns, off_ns) = (parse_duration(on)?, parse_duration(off)?);
    if on_ns == 0 {
        return Err(expected());
    }
    Ok(Some(Burst { on_ns, off_ns }))
}

fn parse_partitioner(text: Option<&str>, keys: u64) -> Result<Partitioner, String> {
    match text {
        None if keys > 0 => Ok(Partitioner::Key),
        None | Some("sticky") => Ok(Partitioner::Sticky),
        Some("round-robin") => Ok(Partitioner::RoundRobin),
        Some("random") => Ok(Partitioner::Random),
        Some("key") => Ok(Partitioner::Key),
        Some(other) => Err(format!("partitioner: sticky, round-robin, random or key, not {other:?}")),
    }
}

fn parse_codec(text: &str) -> Result<Codec, String> {
    Codec::parse(text).ok_or_else(|| format!("compression: none, gzip, snappy, lz4 or zstd, not {text:?}"))
}

fn parse_configs(list: &[String]) -> Result<Vec<(String, String)>, String> {
    let pairs = list.iter().map(|text| {
        let (key, value) = text.split_once('=').ok_or_else(|| format!("topic-config: key=value, not {text:?}"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    });
    pairs.collect()
}

fn parse_cores(text: Option<&str>) -> Result<Vec<usize>, String> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let cores =
        text.split(',').map(|core| core.trim().parse().map_err(|_| format!("pin: core numbers as 0,1, not {text:?}")));
    cores.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ready_workload_resolves() {
        for (name, _) in READY {
            let workload = Workload::resolve(&load(name).unwrap()).unwrap();
            assert_eq!(&workload.name, name);
        }
    }

    #[test]
    fn bad_settings_are_named() {
        let check = |toml: &str, expected: &str| {
            let error = match Shape::from_toml(toml) {
                Err(error) => error,
                Ok(shape) => Workload::resolve(&shape).unwrap_err(),
            };
            assert!(error.contains(expected), "{toml}: {error}");
        };
        check("record-bytes = 10", "record-bytes: at least 24");
        check("acks = 1\nidempotence = true", "idempotence needs acks=all");
        check("in-flight = 9", "at most 5");
        check("rate = \"fast\"", "rate");
        check("lingre = \"5ms\"", "lingre");
        check("duration = \"5 parsecs\"", "duration");
        check("mode = \"fetch\"", "--prefill");
        check("compression = \"lzma\"", "compression");
    }
}

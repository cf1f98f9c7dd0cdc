//! Where a result was measured: machine, kernel, file system, and what the broker tells of itself.

use std::{fs, path::Path};

use kafka_protocol::messages::{BrokerId, DescribeClusterRequest};
use serde::Serialize;

use crate::client::admin::{Admin, BrokerSetting};

/// The machine that ran the generator.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    pub host: String,
    pub kernel: String,
    pub cpu_model: String,
    pub cpus_online: usize,
    /// The cores this process may use.
    pub cpus_allowed: String,
    pub governor: String,
    pub memory_bytes: u64,
    /// File system and device of the working directory.
    pub file_system: String,
    pub container_cpu_quota: Option<String>,
}

impl Machine {
    pub fn read() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let models = cpuinfo.lines().filter(|line| line.starts_with("model name"));
        Self {
            host: read("/proc/sys/kernel/hostname"),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu_model: models.clone().next().map_or("unknown".to_owned(), after_colon),
            cpus_online: models.count(),
            cpus_allowed: status("Cpus_allowed_list"),
            governor: known(read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            memory_bytes: memory_bytes(),
            file_system: file_system(Path::new(".")),
            container_cpu_quota: Some(read("/sys/fs/cgroup/cpu.max")).filter(|quota| !quota.is_empty()),
        }
    }
}

/// What a cluster tells of itself over the protocol.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BrokerFacts {
    pub bootstrap: String,
    pub cluster_id: String,
    pub brokers: Vec<String>,
    /// By its settings; the protocol has no field for it.
    pub kind: String,
    /// `metadata.version` and the like, as announced.
    pub features: Vec<String>,
    /// When an acknowledged record is on stable storage, as far as the settings tell.
    pub durability: String,
    /// Settings that are not the default.
    pub settings: Vec<BrokerSetting>,
}

impl BrokerFacts {
    /// Nothing here is needed to run: what the broker does not tell stays empty.
    pub fn read(admin: &mut Admin, topic_configs: &[(String, String)]) -> Self {
        let mut facts = Self::default();
        if let Ok(link) = admin.link() {
            facts.bootstrap = link.address().to_owned();
        }
        facts.features = admin.features().unwrap_or_default();
        let mut first = BrokerId(0);
        if let Ok(cluster) = admin.call("DescribeCluster", &DescribeClusterRequest::default()) {
            facts.cluster_id = cluster.cluster_id.to_string();
            first = cluster.brokers.first().map_or(first, |broker| broker.broker_id);
            let brokers = cluster.brokers.iter();
            facts.brokers = brokers.map(|b| format!("{} {}:{}", b.broker_id.0, b.host.as_str(), b.port)).collect();
        }
        let settings = admin.broker_settings(first);
        facts.kind = kind(&settings).to_owned();
        facts.durability = durability(&settings, topic_configs);
        facts.settings = settings.into_iter().filter(|setting| !setting.is_default).collect();
        facts
    }
}

fn kind(settings: &[BrokerSetting]) -> &'static str {
    let has = |name: &str| settings.iter().any(|setting| setting.name == name);
    if has("durability") {
        "Ringtail"
    } else if has("log.flush.interval.messages") {
        "Apache Kafka"
    } else {
        "unknown"
    }
}

fn durability(settings: &[BrokerSetting], topic_configs: &[(String, String)]) -> String {
    let topic = |name: &str| topic_configs.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let broker = |name: &str| {
        let found = settings.iter().find(|setting| setting.name == name);
        found.map(|setting| &setting.value)
    };
    if let Some(durability) = topic("durability").or(broker("durability")) {
        return format!("durability={durability}");
    }
    match topic("flush.messages").or(broker("log.flush.interval.messages")).map(String::as_str) {
        Some("1") => "flush.messages=1 (flushed before the ack)".to_owned(),
        Some("9223372036854775807") => "page cache (the broker's default; not flushed before the ack)".to_owned(),
        Some(other) => format!("flush.messages={other}"),
        None => "unknown".to_owned(),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn known(text: String) -> String {
    if text.is_empty() { "unknown".to_owned() } else { text }
}

fn after_colon(line: &str) -> String {
    line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
}

fn status(key: &str) -> String {
    let text = read("/proc/self/status");
    let line = text.lines().find(|line| line.starts_with(key));
    line.map_or(String::new(), after_colon)
}

fn memory_bytes() -> u64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find(|line| line.starts_with("MemTotal")).map(after_colon);
    let kib = line.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// `ext4 on /dev/vda1`, of the longest mount point above the path.
pub fn file_system(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = read("/proc/self/mounts");
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(point), Some(kind)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let is_longer = best.as_ref().is_none_or(|(length, _)| point.len() >= *length);
        if path.starts_with(point) && is_longer {
            best = Some((point.len(), format!("{kind} on {device}")));
        }
    }
    best.map_or("unknown".to_owned(), |(_, text)| text)
}

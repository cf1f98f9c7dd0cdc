//! What a run needs before its first record: topics, leaders, producers with their schedules, consumers at their offsets.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    thread::JoinHandle,
};

use crate::{
    client::{
        admin::Admin,
        cluster::{Layout, Leaders, Numbers},
        error::{ClientError, code_name, codes},
    },
    control::Shared,
    engine::{Consumers, News, plain_assignment},
    failure::Failure,
    fetch::{self, Consumer},
    measure::Window,
    produce::{
        Producer, Settings,
        picker::{Payload, Picker},
    },
    rng::Rng,
    schedule::Schedule,
    sys,
    verify::Ledger,
    worker::lines::TopicNames,
    workload::{Mode, Workload},
};

const START_OF_LOG: i64 = -2;
const END_OF_LOG: i64 = -1;
/// Queues of all producers together; each is some 150 bytes.
const QUEUES_MAX: usize = 4_000_000;

/// Which part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Writing what is to be read later.
    Prefill,
    Measure,
}

/// The topics and what is known of the cluster.
pub struct Ground {
    pub layout: Arc<Layout>,
    pub leaders: Leaders,
    numbers: Arc<Numbers>,
    made: Vec<String>,
    start_offsets: Vec<i64>,
    /// Marks the run's records.
    pub run: u32,
    bootstrap: Vec<String>,
    ends: std::cell::OnceCell<Vec<i64>>,
}

impl Ground {
    pub fn topics(&self) -> TopicNames {
        TopicNames { layout: Arc::clone(&self.layout), numbers: Arc::clone(&self.numbers) }
    }

    /// The ends of the log when first asked; empty if the broker does not answer.
    pub fn ends_now(&self) -> Vec<i64> {
        let ends = self.ends.get_or_init(|| {
            let mut admin = Admin::new(&self.bootstrap, "ringtail-loadgen");
            admin.list_offsets(&self.layout, &self.leaders, END_OF_LOG).unwrap_or_default()
        });
        ends.clone()
    }
}

/// Makes or finds the topics.
pub fn prepare(workload: &Workload, admin: &mut Admin, news: &mut dyn FnMut(News<'_>)) -> Result<Ground, Failure> {
    let run = (workload.seed ^ sys::wall_ns() ^ u64::from(std::process::id())) as u32 | 1;
    let names = names(workload, run);
    let mut made = Vec::new();
    let prepared = find_or_make(workload, admin, &names, run, &mut made);
    match prepared {
        Ok(ground) => {
            news(News::Note(&format!(
                "{} topic(s), {} partition(s), {}",
                ground.layout.topics.len(),
                ground.layout.partitions.len(),
                if ground.made.is_empty() { "found there" } else { "made for this run" },
            )));
            Ok(ground)
        }
        Err(failure) => {
            if !made.is_empty() && admin.delete_topics(&made).is_err() {
                return Err(Failure(format!("{failure}; the topics {} are left", made.join(", "))));
            }
            Err(failure)
        }
    }
}

fn names(workload: &Workload, run: u32) -> Vec<String> {
    let base = workload.topic.clone().unwrap_or_else(|| format!("loadgen-{}-{run:08x}", workload.name));
    match workload.topics {
        1 => vec![base],
        count => (0..count).map(|number| format!("{base}-{number}")).collect(),
    }
}

fn find_or_make(
    workload: &Workload,
    admin: &mut Admin,
    names: &[String],
    run: u32,
    made: &mut Vec<String>,
) -> Result<Ground, Failure> {
    if workload.producers.saturating_mul(workload.partitions * workload.topics) > QUEUES_MAX {
        return Err("producers × partitions is above 4,000,000; use fewer of one".into());
    }
    let found = admin.metadata(names)?;
    for name in names {
        let topic = found.topics.iter().find(|t| t.name.as_ref().is_some_and(|n| n.as_str() == name));
        let code = topic.map_or(codes::UNKNOWN_TOPIC_OR_PARTITION, |topic| topic.error_code);
        let partitions = topic.map_or(0, |topic| topic.partitions.len());
        match code {
            codes::NONE if partitions < workload.partitions => {
                return Err(Failure(format!(
                    "topic {name} has {partitions} partition(s), the workload wants {}: give --partitions {partitions}, another --topic, or add partitions",
                    workload.partitions
                )));
            }
            codes::NONE => {}
            codes::UNKNOWN_TOPIC_OR_PARTITION if workload.create => {
                let partitions = workload.partitions as i32;
                if admin.create_topic(name, partitions, workload.replication, &workload.topic_configs)? {
                    made.push(name.clone());
                }
            }
            codes::UNKNOWN_TOPIC_OR_PARTITION => {
                return Err(Failure(format!(
                    "topic {name} does not exist and --create is false: make it, or allow --create true"
                )));
            }
            code => return Err(Failure(format!("topic {name}: {}", code_name(code)))),
        }
    }
    let metadata = admin.settled_metadata(names)?;
    let layout = Layout::from_metadata(&metadata, names, workload.partitions);
    let leaders = admin.leaders_of(&metadata, &layout);
    if let Some(unreachable) = metadata.brokers.iter().find(|b| !leaders.brokers.contains_key(&b.node_id.0)) {
        return Err(Failure(format!(
            "the broker advertises {}:{}, which has no address here; mend its advertised.listeners",
            unreachable.host.as_str(),
            unreachable.port
        )));
    }
    let start = if workload.mode == Mode::Fetch { START_OF_LOG } else { END_OF_LOG };
    let start_offsets = if workload.mode.fetches() {
        offsets(admin, &layout, &leaders, start)?
    } else {
        vec![0; layout.partitions.len()]
    };
    Ok(Ground {
        numbers: Arc::new(layout.numbers()),
        layout: Arc::new(layout),
        leaders,
        made: made.clone(),
        start_offsets,
        run,
        bootstrap: admin.addresses().to_vec(),
        ends: std::cell::OnceCell::new(),
    })
}

fn offsets(admin: &mut Admin, layout: &Layout, leaders: &Leaders, timestamp: i64) -> Result<Vec<i64>, ClientError> {
    const ATTEMPTS_MAX: usize = 20;
    for _ in 0..ATTEMPTS_MAX {
        match admin.list_offsets(layout, leaders, timestamp) {
            Err(error) if error.is_retriable() => std::thread::sleep(std::time::Duration::from_millis(100)),
            result => return result,
        }
    }
    admin.list_offsets(layout, leaders, timestamp)
}

/// Removes the topics that this run made, and no others.
pub fn clean_up(workload: &Workload, admin: &mut Admin, ground: &Ground) -> Result<(), ClientError> {
    if ground.made.is_empty() || workload.keep_topics {
        return Ok(());
    }
    admin.delete_topics(&ground.made)
}

/// The producers of a phase, each with its share of the rate.
pub fn producers(
    workload: &Workload,
    ground: &Ground,
    ledger: Option<Arc<Ledger>>,
    phase: Phase,
    (start, end): (u64, u64),
) -> Result<Vec<Option<Producer>>, Failure> {
    if workload.producers == 0 {
        return Ok(Vec::new());
    }
    let settings = Arc::new(settings(workload, ground));
    let mut admin = Admin::new(&ground.bootstrap, "ringtail-loadgen");
    // The prefill is another producer than the first measured one: their numbers must not mix.
    let first_id = match phase {
        Phase::Prefill => 1 << 20,
        Phase::Measure => 0,
    };
    let mut producers = Vec::with_capacity(workload.producers);
    for number in 0..workload.producers {
        let identity = if workload.idempotence { Some(admin.producer_id()?) } else { None };
        let rng = |stream: u64| Rng::new(workload.seed, number as u64 * 4 + stream);
        let schedule = match (phase, workload.records_per_second()) {
            (Phase::Prefill, _) => {
                let records = (workload.prefill_bytes as f64 / workload.record_bytes.mean()).ceil();
                Schedule::closed_count(start, end, records as u64)
            }
            (Phase::Measure, None) => Schedule::closed(start, end),
            (Phase::Measure, Some(rate)) => {
                let share = rate / workload.producers as f64;
                let phase = (number as f64 + 0.5) / workload.producers as f64;
                Schedule::open(workload.arrival, share, workload.burst, (start, end), phase, rng(1))
            }
        };
        let picker = Picker::new(rng(2), settings.partitions);
        let id = first_id + number as u32;
        let ledger = ledger.clone().filter(|_| workload.verify);
        producers.push(Some(Producer::new(id, Arc::clone(&settings), ledger, schedule, picker, identity)));
    }
    Ok(producers)
}

fn settings(workload: &Workload, ground: &Ground) -> Settings {
    Settings {
        partitions: ground.layout.partitions.len(),
        sizes: workload.record_bytes.clone(),
        keys: workload.keys,
        partitioner: workload.partitioner,
        payload: Payload::new(workload.seed, workload.randomness, workload.record_bytes.largest()),
        batch_bytes: workload.batch_bytes,
        batch_records: workload.batch_records,
        request_bytes: workload.request_bytes,
        linger_ns: workload.linger_ns,
        codec: workload.compression,
        in_flight: workload.in_flight,
        acks: workload.acks,
        idempotence: workload.idempotence,
        timeout_ns: workload.timeout_ns,
        run: ground.run,
        wall_offset_ns: sys::wall_ns() as i64 - sys::monotonic_ns() as i64,
    }
}

pub fn fetch_settings(workload: &Workload, ground: &Ground, window: Window) -> Arc<fetch::Settings> {
    Arc::new(fetch::Settings {
        layout: Arc::clone(&ground.layout),
        numbers: ground.layout.numbers(),
        max_wait_ms: workload.fetch_max_wait_ms,
        min_bytes: workload.fetch_min_bytes,
        max_bytes: workload.fetch_max_bytes,
        partition_max_bytes: workload.partition_max_bytes,
        check_crc: workload.verify,
        run: ground.run,
        positions: ground.start_offsets.iter().map(|offset| AtomicI64::new(*offset)).collect(),
        // Beside producers the consumers wait at the end of the log before the first record is due.
        start_at: if workload.mode == Mode::Fetch { window.start } else { 0 },
        last_read: AtomicU64::new(0),
    })
}

/// The consumers of a phase. Members of a group start without partitions.
pub fn consumers(
    workload: &Workload,
    ground: &Ground,
    settings: &Arc<fetch::Settings>,
    ledger: Option<Arc<Ledger>>,
) -> Consumers {
    let partitions = ground.layout.partitions.len();
    let make = |number| {
        let assigned =
            if workload.group { BTreeSet::new() } else { plain_assignment(partitions, number, workload.consumers) };
        Some(Consumer::new(Arc::clone(settings), ledger.clone(), assigned))
    };
    (0..workload.consumers).map(make).collect()
}

/// Starts the group's members, one thread each.
pub fn join_group(
    workload: &Workload,
    bootstrap: &[String],
    ground: &Ground,
    fetch: &Arc<fetch::Settings>,
    shared: &Arc<Shared>,
) -> Result<Vec<JoinHandle<()>>, Failure> {
    let mut threads = Vec::new();
    for consumer in 0..workload.consumers {
        let member = crate::group::Member {
            bootstrap: bootstrap.to_vec(),
            group: format!("loadgen-{:08x}", ground.run),
            layout: Arc::clone(&ground.layout),
            fetch: Arc::clone(fetch),
            worker: consumer % workload.threads,
            consumer: consumer / workload.threads,
            shared: Arc::clone(shared),
        };
        let name = format!("member-{consumer}");
        let spawned = std::thread::Builder::new().name(name).spawn(move || member.run());
        threads.push(spawned.map_err(|error| Failure(format!("cannot start a thread: {error}")))?);
    }
    Ok(threads)
}

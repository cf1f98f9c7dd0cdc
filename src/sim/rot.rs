//! Rot at rest: a stopped or killed broker's directory, and every file of it damaged, cut, lost or replaced in turn. The
//! next start gives everything back, or is refused with a line that names the file, or answers for that partition with an
//! error; and no file of a topic that exists is moved or removed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    base::{ErrorCode, PartitionKey, ProducerId},
    config,
    io::{Io, sim::Simulation},
    log::{self, CheckReport},
    partition::validate,
    protocol::compression::Compression,
    replica::{Acks, Appended, Local},
    shard::{ProducePart, check},
    sim::{
        bench::Bench,
        broker::{DIRECTORY, Life, NODE, Settings},
        records::{self, Value},
    },
};

const CORES: usize = 1;
/// Steps within which a start ends, one way or the other.
const STEPS_MAX: u64 = 100_000;
/// Bytes of a file that are flipped in turn.
const FLIPS: usize = 12;
/// Milliseconds between the timestamps of two batches: a segment rolls at every third.
const ROLL_MS: i64 = 2_000;
const NOW: i64 = 1_700_000_000_000;

/// A directory at rest: bytes of files, `None` for a directory.
type Files = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What a directory holds, and what was acknowledged.
struct Rest {
    files: Files,
    numbers: BTreeMap<(String, i32), Vec<u32>>,
}

fn settings() -> Settings {
    let mut settings = Settings::small();
    let overrides = ["log.roll.ms=3000", "log.retention.ms=-1", "offsets.topic.num.partitions=1"];
    settings.config = config::load(None, &overrides.map(str::to_owned)).expect("good settings").config;
    settings
}

fn produce(bench: &Bench, key: PartitionKey, numbers: std::ops::Range<u32>, time: i64) {
    let connection = bench.connect(0);
    let appended: Appended = bench.wait(async move {
        let answer = connection.begin(move |router| {
            Box::pin(async move {
                let values = numbers.map(|number| Value { writer: 0, number });
                let bytes = records::batch_at(values, (ProducerId::NONE, -1), Compression::None, |_| time);
                let rules = router.topic(key.topic_id).map(|topic| topic.rules.clone()).unwrap_or_default();
                let batch = validate(bytes, &rules, 9, time).expect("a good batch");
                let pending = router.produce(vec![ProducePart { key, batch, acks: Acks::All }]).await;
                let waits: Local<Appended> = Box::pin(async move {
                    pending.wait(Duration::from_secs(30)).await.pop().unwrap_or(Err(ErrorCode::NetworkException))
                });
                waits
            })
        });
        answer.await.expect("the broker lives")
    });
    appended.expect("a good disk");
}

/// Topics with several segments each, metadata with two snapshots, and records that the journal alone has if it is killed.
fn rest(clean: bool) -> Rest {
    let bench = Bench::start_with(5, CORES, settings());
    let topics = [("a", 1), ("b", 2)].map(|(name, partitions)| (name, partitions, bench.topic(name, partitions)));
    for _ in 0..3 {
        bench.topic("bulk", 80);
        bench.delete("bulk");
    }
    let mut numbers = BTreeMap::new();
    for round in 0..6u32 {
        for (name, partitions, topic_id) in topics {
            for partition in 0..partitions {
                let key = PartitionKey { topic_id, partition };
                produce(&bench, key, round * 10..round * 10 + 3, NOW + i64::from(round) * ROLL_MS);
                let all: &mut Vec<u32> = numbers.entry((name.to_owned(), partition)).or_default();
                all.extend(round * 10..round * 10 + 3);
            }
        }
        // The last ones are in the journal alone.
        if round < 5 {
            bench.sim.run_for(Duration::from_millis(200));
        }
    }
    if clean {
        bench.life.stop();
        bench.sim.run_until(|| bench.life.stopped.get());
        bench.life.ended();
        bench.sim.stop(NODE);
    } else {
        bench.life.kill();
    }
    let files = bench.sim.block_on(NODE, 0, |io| async move { files(&io).await });
    Rest { files, numbers }
}

async fn files(io: &Io) -> Files {
    let mut files = Files::new();
    let mut directories = vec![PathBuf::from(DIRECTORY)];
    while let Some(directory) = directories.pop() {
        for entry in io.disk.read_dir(&directory).await.expect("a good disk") {
            let path = directory.join(&entry.name);
            if entry.is_dir {
                directories.push(path.clone());
                files.insert(path, None);
            } else {
                let bytes = io.disk.read_file(&path).await.expect("a good disk");
                files.insert(path, Some(bytes));
            }
        }
    }
    files
}

async fn lay_down(io: &Io, files: &Files) {
    io.disk.create_dir_all(Path::new(DIRECTORY)).await.expect("a good disk");
    for (path, bytes) in files {
        match bytes {
            Some(bytes) => io.disk.write_file(path, bytes, false).await.expect("a good disk"),
            None => io.disk.create_dir_all(path).await.expect("a good disk"),
        }
    }
    io.disk.sync_filesystem_of(Path::new(DIRECTORY)).await.expect("a good disk");
}

/// What a start made of a directory.
#[derive(Debug)]
enum Outcome {
    Refused(String),
    /// What each partition gave. An error: offline.
    Served(BTreeMap<(String, i32), Result<Vec<u32>, ErrorCode>>),
}

fn started(damaged: Files) -> (Outcome, Files) {
    let sim = Simulation::new(9);
    sim.block_on(NODE, 0, |io| async move { lay_down(&io, &damaged).await });
    let life = Life::begin(&sim, &settings(), CORES);
    let mut steps = 0;
    while !life.ready.get() && life.failed.borrow().is_none() && life.fatal.borrow().is_none() {
        assert!(steps < STEPS_MAX, "the start does not end");
        sim.run_steps(50);
        steps += 50;
    }
    let why = life.failed.borrow().clone().or_else(|| life.fatal.borrow().clone());
    let outcome = match why {
        Some(why) => Outcome::Refused(why),
        None => {
            let bench = Bench { sim: sim.clone(), settings: settings(), life };
            let image = bench.router(0).image();
            let keys = image.topics().flat_map(|topic| topic.partition_keys().map(|key| (topic.name.to_string(), key)));
            let keys: Vec<(String, PartitionKey)> = keys.filter(|(name, _)| !name.starts_with("__")).collect();
            let served = keys.into_iter().map(|(name, key)| ((name, key.partition), read(&bench, key)));
            Outcome::Served(served.collect())
        }
    };
    sim.stop(NODE);
    let left = sim.block_on(NODE, 0, |io| async move { files(&io).await });
    (outcome, left)
}

/// What `storage check` says of a directory, which it leaves as it is.
fn checked(damaged: &Files) -> CheckReport {
    let (sim, damaged) = (Simulation::new(9), damaged.clone());
    sim.block_on(NODE, 0, |io| async move {
        lay_down(&io, &damaged).await;
        let report = check(&io, &settings().config, Path::new(DIRECTORY)).await.expect("a good disk");
        assert!(files(&io).await == damaged, "the check has changed something");
        report
    })
}

fn read(bench: &Bench, key: PartitionKey) -> Result<Vec<u32>, ErrorCode> {
    let (_, records) = bench.records(key)?;
    Ok(records.into_iter().map(|(_, value)| value.number).collect())
}

/// What is done to a file or directory.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(usize, u8),
    Lost,
    Cut(usize),
    /// A directory where a file was, or a file where a directory was.
    Swapped,
}

fn damages(bytes: Option<&Vec<u8>>) -> Vec<Damage> {
    let Some(bytes) = bytes else { return vec![Damage::Lost, Damage::Swapped] };
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut damages = vec![Damage::Lost, Damage::Swapped];
    if !bytes.is_empty() {
        damages.extend([Damage::Cut(0), Damage::Cut(end.saturating_sub(1)), Damage::Cut(end / 2)]);
    }
    let step = (end / FLIPS).max(1);
    damages.extend((0..end).step_by(step).map(|at| Damage::Flip(at, 1 << (at % 8))));
    damages
}

fn apply(files: &Files, path: &Path, damage: Damage) -> Files {
    let mut files = files.clone();
    let bytes = files.get(path).cloned().flatten();
    match (damage, bytes) {
        (Damage::Flip(at, mask), Some(mut bytes)) => {
            bytes[at] ^= mask;
            files.insert(path.to_owned(), Some(bytes));
        }
        (Damage::Cut(to), Some(mut bytes)) => {
            bytes.truncate(to);
            files.insert(path.to_owned(), Some(bytes));
        }
        (Damage::Lost, _) => files.retain(|other, _| !other.starts_with(path)),
        (Damage::Swapped, Some(_)) => drop(files.insert(path.to_owned(), None)),
        (Damage::Swapped | Damage::Flip(..) | Damage::Cut(_), None) => {
            files.retain(|other, _| !other.starts_with(path));
            files.insert(path.to_owned(), Some(b"a file".to_vec()));
        }
    }
    files
}

/// What no start can know, because nothing that is left says so.
fn is_beyond_knowing(path: &Path, damage: Damage) -> bool {
    let name = path.to_string_lossy();
    // The last block of a journal is torn as often as it is damaged, and a journal that is gone leaves no last block.
    name.ends_with(".journal") && !matches!(damage, Damage::Swapped)
}

fn judge(rest: &Rest, path: &Path, damage: Damage) -> Result<(), String> {
    let damaged = apply(&rest.files, path, damage);
    let report = checked(&damaged);
    let foretold = report.findings.iter().any(|finding| finding.start == log::Start::Refused);
    if path.extension().is_some_and(|it| it == "log") && report.findings.is_empty() {
        return Err("nobody sees it".into());
    }
    let (outcome, left) = started(damaged);
    if foretold != matches!(outcome, Outcome::Refused(_)) {
        return Err(format!("the check said {:?}, the start {outcome:?}", report.findings));
    }
    match outcome {
        Outcome::Refused(why) => {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let directory = path.parent().and_then(Path::file_name).expect("a name").to_string_lossy().into_owned();
            let named = why.contains(&name) || (directory != DIRECTORY && why.contains(&directory));
            if !named {
                return Err(format!("refused without naming it: {why}"));
            }
        }
        Outcome::Served(served) => {
            for (partition, numbers) in &rest.numbers {
                match served.get(partition) {
                    Some(Ok(found)) if found == numbers || is_beyond_knowing(path, damage) => {}
                    Some(Err(_))
                        if path.starts_with(Path::new(DIRECTORY).join(format!("{}-{}", partition.0, partition.1))) => {}
                    other => return Err(format!("{partition:?} is {other:?} and was {numbers:?}")),
                }
            }
        }
    }
    let kept = |other: &PathBuf| {
        let of_topic = ["a-", "b-", "__cluster_metadata-"].iter().any(|topic| {
            other.starts_with(DIRECTORY)
                && other.components().nth(1).is_some_and(|name| name.as_os_str().to_string_lossy().starts_with(topic))
        });
        of_topic && other.extension().is_some_and(|it| it == "log" || it == "checkpoint") && !other.starts_with(path)
    };
    match rest.files.keys().filter(|other| kept(other)).find(|other| !left.contains_key(*other)) {
        Some(removed) => Err(format!("{} was removed or moved", removed.display())),
        None => Ok(()),
    }
}

fn nothing_is_lost(clean: bool, part: usize) {
    let rest = rest(clean);
    assert!(rest.files.len() > 25, "{:?}", rest.files.keys());
    assert_eq!(checked(&rest.files).findings, []);
    let (outcome, _) = started(rest.files.clone());
    let Outcome::Served(served) = outcome else { panic!("the directory itself is refused: {outcome:?}") };
    assert!(rest.numbers.iter().all(|(partition, numbers)| served[partition].as_ref() == Ok(numbers)), "{served:?}");
    let mut failed = Vec::new();
    for (index, (path, bytes)) in rest.files.iter().enumerate() {
        if index % 2 != part {
            continue;
        }
        for damage in damages(bytes.as_ref()) {
            let judged = std::panic::catch_unwind(|| judge(&rest, path, damage));
            if let Err(why) = judged.unwrap_or_else(|_| Err("a panic".into())) {
                failed.push(format!("{} {damage:?}: {why}", path.display()));
            }
        }
    }
    assert!(failed.is_empty(), "{} of them:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn no_file_of_a_killed_broker_may_be_wrong_one_half() {
    nothing_is_lost(false, 0);
}

#[test]
fn no_file_of_a_killed_broker_may_be_wrong_other_half() {
    nothing_is_lost(false, 1);
}

#[test]
fn no_file_of_a_stopped_broker_may_be_wrong_one_half() {
    nothing_is_lost(true, 0);
}

#[test]
fn no_file_of_a_stopped_broker_may_be_wrong_other_half() {
    nothing_is_lost(true, 1);
}

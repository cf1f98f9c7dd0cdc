//! What lies on the broker's disk. Nothing goes that no client and no retention has deleted; and a file that rots between two
//! lives costs nothing but the service of what it belongs to.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use crate::{
    base::{ErrorCode, Offset, PartitionKey, TopicId},
    io::sim::{Faults, NameTaken, Simulation},
    sim::{
        bench::Bench,
        broker::{DIRECTORY, Life, NODE, Settings},
        inspection::Allowed,
        records::Value,
        world::World,
    },
};

const METADATA: &str = "__cluster_metadata-0";
/// Kafka's files in the data directory that are replaced as a whole.
const REPLACED: [&str; 5] = [
    "meta.properties",
    ".kafka_cleanshutdown",
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
];
/// Within this everything has landed that a killed process had on its way.
const LANDED: Duration = Duration::from_millis(200);
/// Steps within which a start on a damaged directory ends, one way or the other.
const STEPS_MAX: u64 = 600_000;
const CORES_MAX: u64 = 3;

/// Holds what was removed or renamed since the last call against what was deleted.
/// # Panics
/// If something went that nobody has deleted.
pub fn check_removed(world: &World) {
    check_removed_of(world, false);
}

/// As [`check_removed`]. Where the last block of a journal may be `forgotten`, a topic that it made is one that nobody knows.
fn check_removed_of(world: &World, forgotten: bool) {
    let there: Vec<PathBuf> = world.sim.files(NODE).into_iter().map(|(path, _)| path).collect();
    for taken in world.sim.names_taken(NODE) {
        let Some((directory, name)) = place(&taken) else { continue };
        let deleted = Deleted { world, there: &there, directory, forgotten };
        let may_go = match (&taken, directory) {
            (NameTaken::Removed(_), None) => is_ours(name) || deleted.topic_of(name),
            (NameTaken::Removed(_), Some(_)) => deleted.file(name),
            (NameTaken::Renamed(_, to), None) => is_replacing(name, to) || deleted.directory(name, &name_of(to)),
            (NameTaken::Renamed(_, to), Some(_)) => is_replacing(name, to) || deleted.file(name),
        };
        assert!(may_go, "{}: nobody has deleted what went: {taken:?}", world.seed());
    }
}

/// The directory within the data directory, if it lies in one, and the name. None of the data directory itself.
fn place(taken: &NameTaken) -> Option<(Option<&str>, &str)> {
    let (NameTaken::Removed(path) | NameTaken::Renamed(path, _)) = taken;
    let mut names = path.strip_prefix(DIRECTORY).expect("it has no other directory").iter();
    let mut next = || names.next().and_then(|name| name.to_str());
    let first = next()?;
    Some(next().map_or((None, first), |second| (Some(first), second)))
}

fn name_of(path: &Path) -> String {
    path.file_name().expect("it has a name").to_string_lossy().into_owned()
}

/// Files in the data directory that the broker makes and removes for itself.
fn is_ours(name: &str) -> bool {
    let suffixes = [".journal", ".checkpoint", ".rescue", ".tmp"];
    let ours = name == "ringtail-ballast" || suffixes.iter().any(|it| name.ends_with(it));
    // What a crash has left of one that was about to be replaced.
    let torn = name.strip_suffix(".tmp").is_some_and(|name| REPLACED.contains(&name));
    (name.starts_with("ringtail-") && ours) || torn
}

fn is_replacing(name: &str, to: &Path) -> bool {
    name.strip_suffix(".tmp").is_some_and(|name| name == name_of(to))
}

/// What clients and retention have deleted, in the eyes of one directory.
struct Deleted<'a> {
    world: &'a World,
    there: &'a [PathBuf],
    directory: Option<&'a str>,
    forgotten: bool,
}

impl Deleted<'_> {
    /// Whether a directory of this name is that of a topic that was deleted.
    fn topic_of(&self, name: &str) -> bool {
        name.ends_with("-delete") && topic_id(name).is_some_and(|id| self.world.model.deleted.borrow().contains(&id))
    }

    /// Whether a directory may get this name.
    fn directory(&self, _from: &str, to: &str) -> bool {
        let is_live = |id| self.world.model.topics.borrow().values().any(|topic| topic.id == id);
        // What nobody knows is set aside, and nobody removes it.
        self.topic_of(to) || (to.ends_with("-stray") && (self.forgotten || !topic_id(to).is_some_and(is_live)))
    }

    /// Whether a file of the directory may go.
    fn file(&self, name: &str) -> bool {
        let directory = self.directory.expect("the directory of a file");
        if self.topic_of(directory) || name.ends_with(".deleted") || name.ends_with(".checkpoint.tmp") {
            // What is called deleted got that name here.
            return true;
        }
        let Some(base) = name.split(['.', '-']).next().and_then(|base| base.parse().ok()) else { return false };
        if directory == METADATA {
            // Behind a later snapshot nothing of it is read again.
            return self.files(".checkpoint").any(|end| end > base);
        }
        let is_segment = [".log", ".index", ".timeindex"].iter().any(|it| name.ends_with(it));
        is_segment && self.segment(directory, base)
    }

    /// The numbers in the names of the directory's files that end so.
    fn files(&self, suffix: &'static str) -> impl Iterator<Item = i64> {
        let directory = Path::new(DIRECTORY).join(self.directory.unwrap_or_default());
        let names = self.there.iter().filter(move |path| path.parent() == Some(&directory)).map(|path| name_of(path));
        names.filter_map(move |name| name.strip_suffix(suffix)?.split('-').next()?.parse().ok())
    }

    /// Whether all of a segment was deleted, or may have been by retention.
    fn segment(&self, directory: &str, base: i64) -> bool {
        let Some((topic, partition)) = directory.rsplit_once('-') else { return false };
        let partition = partition.parse().expect("a partition's directory");
        let named = self.world.model.named.borrow();
        // One that its creator has not been told of has no record that counts.
        let Some(ids) = named.get(topic) else { return !topic.starts_with("__") };
        let end = self.files(".log").filter(|other| *other > base).min();
        ids.iter().any(|id| {
            let partitions = self.world.model.partitions.borrow();
            let Some(promised) = partitions.get(&PartitionKey { topic_id: *id, partition }) else { return true };
            let wanted = promised.start_asked.max(base);
            let deleted = end.is_none_or(|end| promised.known.range(wanted..end.max(wanted)).next().is_none());
            promised.retention || (base < promised.start_asked && deleted)
        })
    }
}

/// The id in the name of a directory that was renamed.
fn topic_id(name: &str) -> Option<TopicId> {
    let (_, id) = name.rsplit_once('-')?.0.rsplit_once('.')?;
    Some(TopicId(uuid::Uuid::try_parse(id).ok()?))
}

/// What happens to a file or a directory while nobody has it open.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64),
    Cut(u64),
    Lost,
    /// A directory where a file was, or a file where a directory was.
    Exchanged,
}

/// Damages one file or directory, starts a broker on it, looks at all that it gives, and puts everything back as it was.
/// Gives what was damaged, and what the start said if it was refused.
/// # Panics
/// If it lost something, removed something, or was refused without a word of what was damaged.
pub fn rot(world: &World, settings: &Settings, allowed: Allowed) -> String {
    let sim = &world.sim;
    sim.set_faults(NODE, Faults::default());
    sim.run_for(LANDED);
    check_removed(world);
    let saved = sim.save(NODE);
    let Some((path, damage)) = damage(sim) else { return "nothing is there yet".into() };
    let said = format!("{} {damage:?}", path.display());
    let life = Life::begin(sim, settings, 1 + sim.below(CORES_MAX) as usize);
    let judge = Judge { world, path: &path, damage, allowed };
    let outcome = started(&life);
    let forgotten = judge.is_beyond_knowing();
    match &outcome {
        Some(why) => judge.refused(why),
        None => judge.served(Bench { sim: sim.clone(), settings: settings.clone(), life: life.clone() }),
    }
    life.kill();
    check_removed_of(world, forgotten);
    sim.put_back(NODE, &saved);
    format!("{said}: {outcome:?}")
}

/// Why a start was refused, if it was.
fn started(life: &Rc<Life>) -> Option<String> {
    let mut steps = 0;
    loop {
        let why = life.failed.borrow().clone().or_else(|| life.fatal.borrow().clone());
        if why.is_some() || life.ready.get() {
            return why;
        }
        assert!(steps < STEPS_MAX, "RINGTAIL_SEED={}: the start on what has rotted does not end", life.sim.seed());
        life.sim.run_steps(50);
        steps += 50;
    }
}

/// Damages something. None if there is nothing.
fn damage(sim: &Simulation) -> Option<(PathBuf, Damage)> {
    let in_directory = |path: &PathBuf| path.starts_with(DIRECTORY) && path != Path::new(DIRECTORY);
    let mut all = sim.files(NODE);
    all.extend(sim.directories(NODE).into_iter().map(|path| (path, u64::MAX)));
    all.retain(|(path, _)| in_directory(path));
    if all.is_empty() {
        return None;
    }
    let (path, length) = all.swap_remove(sim.below(all.len() as u64) as usize);
    let is_directory = length == u64::MAX;
    let damage = match sim.below(if is_directory || length == 0 { 2 } else { 6 }) {
        0 => Damage::Lost,
        1 => Damage::Exchanged,
        2 => Damage::Cut(sim.below(length)),
        _ => {
            // Not the zeros that nothing was written over yet.
            let bytes = sim.bytes_at_rest(NODE, &path);
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(length, |last| last as u64 + 1);
            Damage::Flip(sim.below(written * 8))
        }
    };
    match damage {
        Damage::Flip(bit) => sim.flip_bit(NODE, &path, bit),
        Damage::Cut(length) => sim.cut(NODE, &path, length),
        Damage::Lost => sim.take_away(NODE, &path),
        Damage::Exchanged => sim.exchange(NODE, &path),
    }
    // That was not the broker.
    drop(sim.names_taken(NODE));
    Some((path, damage))
}

struct Judge<'a> {
    world: &'a World,
    path: &'a Path,
    damage: Damage,
    allowed: Allowed,
}

impl Judge<'_> {
    fn hint(&self) -> String {
        format!("{}: {} {:?}", self.world.seed(), self.path.display(), self.damage)
    }

    /// The last block of a journal is torn as often as it is damaged, and a journal that is gone leaves no last block.
    fn is_beyond_knowing(&self) -> bool {
        self.path.extension().is_some_and(|it| it == "journal") && !matches!(self.damage, Damage::Exchanged)
    }

    /// Whether it is a file of this partition, or all of them.
    fn concerns(&self, name: &str, key: PartitionKey) -> bool {
        let directory = Path::new(DIRECTORY).join(format!("{name}-{}", key.partition));
        let rescue = format!("{}-{}.rescue", key.topic_id.0.simple(), key.partition);
        self.path.starts_with(directory) || name_of(self.path).contains(&rescue)
    }

    fn refused(&self, why: &str) {
        let directory = self.path.parent().map(name_of).filter(|it| it != DIRECTORY);
        let name = name_of(self.path);
        // The files of a core's journal are one chain: where one is missing, it is the next one that does not fit.
        let of_core = name.strip_suffix(".journal").and_then(|name| name.rsplit_once('-')).map(|(core, _)| core);
        let is_chain = of_core.is_some_and(|core| why.contains(&format!("{core}-")) && why.contains(".journal"));
        let named = why.contains(&name) || is_chain || directory.is_some_and(|it| why.contains(&it));
        assert!(named, "{}: refused without a word of it: {why}", self.hint());
    }

    /// A process that ends is as a start that is refused.
    fn ended(&self, life: &Life) {
        let why = life.fatal.borrow();
        self.refused(why.as_ref().unwrap_or_else(|| panic!("{}: it ended without a reason", self.hint())));
    }

    fn served(&self, bench: Bench) {
        for key in self.world.model.keys() {
            let Some(image) = bench.life.router(0).map(|router| router.image()) else { return self.ended(&bench.life) };
            if image.partition(key).is_none() {
                let gone = self.world.model.is_deleted(key) || self.is_beyond_knowing();
                assert!(gone, "{}: {key} is gone", self.hint());
                continue;
            }
            let name = self.world.model.name_of(key.topic_id).expect("a topic has a name");
            match bench.records(key) {
                Ok((start, records)) => self.compare(key, start, &records),
                Err(_) if bench.life.ended.get() => return self.ended(&bench.life),
                Err(ErrorCode::OffsetOutOfRange) if self.world.model.with(key, |it| it.retention) => {}
                Err(error) => assert!(self.concerns(&name, key), "{}: {key} is offline: {error:?}", self.hint()),
            }
        }
    }

    /// Nothing that was promised has changed or is missing.
    fn compare(&self, key: PartitionKey, start: Offset, records: &[(Offset, Value)]) {
        let hint = format!("{}: {key}", self.hint());
        self.world.model.with(key, |promised| {
            let asked = promised.retention || start.0 <= promised.start_asked;
            assert!(asked || self.is_beyond_knowing(), "{hint}: begins at {start}");
            let may_lose = (self.allowed.power_cut && !promised.flush) || self.is_beyond_knowing();
            let end = records.last().map_or(start.0, |(last, _)| last.0 + 1);
            let there: std::collections::BTreeMap<i64, Value> =
                records.iter().map(|(offset, value)| (offset.0, *value)).collect();
            for (offset, value) in promised.known.range(start.0..) {
                let lost = may_lose && *offset >= end;
                assert!(lost || there.get(offset) == Some(value), "{hint}: what was at {offset} is gone or another");
            }
        });
    }
}

//! What the journal has of partitions that are offline goes into their rescue files before a checkpoint frees it.

use std::{collections::hash_map::Entry, io, rc::Rc};

use crate::{
    base::{METADATA_KEY, METADATA_TOPIC, Map, PartitionKey},
    io::is_full,
    log::{
        checkpoint::RoundError,
        core::{Core, Failed},
        image::LogImage,
        journal::block::placed_entries,
        logs::Logs,
        partition_log::Log,
        rescue::{Rescue, RescueMark, RescueWriter},
        settings::LogError,
        wire::Reader,
    },
};

/// Partitions whose entries are looked for in one reading of the journal. Each has a block in memory meanwhile.
pub const TOGETHER_MAX: usize = 64;

/// Brings into safety what the journal has of offline partitions in its blocks below `first_sequence`, where a checkpoint
/// is to begin. Returns where it may begin: earlier, if not all these blocks are written yet.
pub async fn rescue_failed(logs: &Logs, first_sequence: u64) -> Result<u64, RoundError> {
    let core = &logs.core;
    let mut first = first_sequence;
    loop {
        let (concerned, from) = {
            let mut failed = core.failed.borrow_mut();
            failed.retain(|it| logs.get(it.key).is_some());
            if failed.iter().any(|it| it.key == METADATA_KEY)
                && let Some(metadata) = logs.get(METADATA_KEY)
            {
                let why = metadata.state().dead().map(LogError::to_string).unwrap_or_default();
                return Err(RoundError::Disk(io::Error::other(format!(
                    "the metadata log has failed: {METADATA_TOPIC}-0/{why}"
                ))));
            }
            let waiting = failed.iter().filter(|it| it.covered < it.upto.min(first)).take(TOGETHER_MAX);
            let waiting: Vec<&Failed> = waiting.collect();
            let from = waiting.iter().map(|it| it.covered).min();
            (waiting.iter().filter_map(|it| logs.get(it.key)).collect::<Vec<_>>(), from)
        };
        let Some(from) = from else { break };
        // A deletion removes the rescue file, so it waits until there is one or none.
        let _busy: Vec<_> = concerned.iter().map(|log| log.busy()).collect();
        first = first.min(core.journal.done_below());
        let write = || core.files.patiently(async || rescue(core, &concerned, from, first).await);
        let mut rescued = write().await;
        if rescued.as_ref().is_err_and(is_full) {
            core.give_up_ballast().await;
            rescued = write().await;
        }
        let marks = rescued.map_err(|error| {
            if is_full(&error) {
                return RoundError::Full;
            }
            RoundError::Disk(io::Error::new(error.kind(), format!("a rescue file cannot be written: {error}")))
        })?;
        for log in &concerned {
            covered(core, log, first, marks.get(&log.key()).copied());
        }
    }
    core.failed.borrow_mut().retain(|it| it.covered < it.upto);
    Ok(first)
}

/// The journal's blocks below `first` are not there any more. Who failed while the checkpoint was on its way has in its segments
/// what they had of it.
pub fn checkpointed(core: &Core, first: u64) {
    core.failed.borrow_mut().iter_mut().for_each(|it| it.covered = it.covered.max(first));
}

/// Notes that the rescue file of a partition has what the journal has below `first`.
fn covered(core: &Core, log: &Rc<Log>, first: u64, mark: Option<RescueMark>) {
    let mut failed = core.failed.borrow_mut();
    let Some(it) = failed.iter_mut().find(|it| it.key == log.key()) else { return };
    it.covered = first.max(it.covered);
    let Some(mark) = mark else { return };
    it.mark = Some(mark);
    let encoded = log.state().encoded().clone();
    let base = encoded.and_then(|encoded| LogImage::decode(&mut Reader(&encoded)).ok());
    let mut image = base.unwrap_or_else(|| LogImage::empty(log.key(), log.name()));
    image.rescue = Some(mark);
    let mut encoded = Vec::new();
    image.encode(&mut encoded);
    log.state_mut().keep_encoded(encoded);
}

/// Writes the rescue files of these partitions, each from what it has and from the blocks `from..below` of the journal. One
/// without entries there gets none.
async fn rescue(core: &Rc<Core>, logs: &[Rc<Log>], from: u64, below: u64) -> io::Result<Map<PartitionKey, RescueMark>> {
    let wanted: Map<PartitionKey, (u64, Option<RescueMark>)> = {
        let failed = core.failed.borrow();
        let ours = failed.iter().filter(|it| logs.iter().any(|log| log.key() == it.key));
        ours.map(|it| (it.key, (it.covered, it.mark))).collect()
    };
    let mut writers: Map<PartitionKey, RescueWriter> = Map::default();
    let mut sequence = from;
    core.journal
        .reread(from, below, async |block| {
            for (place, entry) in placed_entries(&block).map_while(Result::ok) {
                let key = entry.key();
                let Some((_, mark)) = wanted.get(&key).copied().filter(|it| it.0 <= sequence) else { continue };
                let writer = match writers.entry(key) {
                    Entry::Occupied(there) => there.into_mut(),
                    Entry::Vacant(place) => place.insert(begin(core, key, mark).await?),
                };
                writer.add(&block[place]).await?;
            }
            sequence += 1;
            Ok(())
        })
        .await?;
    let mut marks = Map::default();
    for (key, writer) in writers {
        marks.insert(key, writer.finish().await?);
    }
    Ok(marks)
}

async fn begin(core: &Core, key: PartitionKey, mark: Option<RescueMark>) -> io::Result<RescueWriter> {
    let mut writer = RescueWriter::begin(&core.io, &core.directory, key).await?;
    if let Some(mark) = mark {
        let rescue = Rescue::open(&core.io, &core.directory, key, mark, |_| {}).await;
        writer.copy(&rescue.map_err(|error| io::Error::other(error.to_string()))?).await?;
    }
    Ok(writer)
}

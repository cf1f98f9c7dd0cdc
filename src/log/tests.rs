//! The log on the simulator: a model of what was promised, and crashes at random moments.

mod before;
mod books;
mod crash;
mod cuts;
mod faults;
#[cfg(feature = "glommio")]
mod machine;
mod model;
mod names;
mod offline;
mod reads;
mod rot;
mod stop;
mod story;

use std::{cell::RefCell, path::Path, rc::Rc};

use bytes::Bytes;

use crate::{
    base::{LeaderEpoch, Map, Offset, PartitionKey},
    io::{Io, Slice},
    log::{CoreLog, KnownPartitions, LivePartitions, Log, LogConfig, LogError, LogSettings, RecoverError, recover},
    partition::PartitionState,
    protocol::batch::{BatchBuilder, BatchHeader, BatchInfo},
};

const DIRECTORY: &str = "data";

/// A log of one core with the rules' part of the work done in the simplest way.
#[derive(Clone)]
struct Rig {
    core_log: Rc<CoreLog>,
    states: Rc<RefCell<Map<PartitionKey, PartitionState>>>,
    fatal: Rc<RefCell<Option<String>>>,
}

impl Rig {
    async fn open(io: &Io, settings: &LogSettings, live: &LivePartitions) -> Result<Self, RecoverError> {
        Self::open_known(io, settings, live.clone().into()).await
    }

    async fn open_known(io: &Io, settings: &LogSettings, known: KnownPartitions) -> Result<Self, RecoverError> {
        let mut recovered = recover(io, Path::new(DIRECTORY), settings, 1, |_| Ok(known)).await?;
        let fatal: Rc<RefCell<Option<String>>> = Rc::default();
        let heard = fatal.clone();
        let seed = recovered.cores.remove(0);
        let (core_log, restored) =
            CoreLog::start(io, seed, Rc::new(move |reason| *heard.borrow_mut() = Some(reason))).await?;
        let states: Map<PartitionKey, PartitionState> = restored.into_iter().map(|it| (it.key, it.state)).collect();
        let states = Rc::new(RefCell::new(states));
        let source = states.clone();
        core_log.set_state_source(Rc::new(move |key| source.borrow().get(&key).cloned()));
        Ok(Self { core_log: Rc::new(core_log), states, fatal })
    }

    fn create(&self, key: PartitionKey, name: &str, config: LogConfig) -> Rc<Log> {
        self.states.borrow_mut().insert(key, PartitionState::default());
        self.core_log.create(key, name, config)
    }

    /// Appends a batch without waiting for it. Returns the offset behind it.
    async fn append(&self, log: &Rc<Log>, batch: &Bytes) -> Result<Offset, LogError> {
        let reservation = log.reserve(batch.len()).await?;
        let info = BatchInfo::of(&BatchHeader::parse(batch).unwrap()).at(log.log_end_offset(), LeaderEpoch(0));
        log.append(reservation, batch, &info);
        self.states.borrow_mut().get_mut(&log.key()).unwrap().apply(&info, 0);
        Ok(info.next_offset())
    }

    async fn append_durably(&self, log: &Rc<Log>, batch: &Bytes) -> Result<Offset, LogError> {
        let end = self.append(log, batch).await?;
        log.flushed(end).await?;
        Ok(end)
    }
}

/// Topic ids begin above those that Kafka keeps for itself.
fn key(number: u128) -> PartitionKey {
    PartitionKey { topic_id: crate::base::TopicId(uuid::Uuid::from_u128(number + 100)), partition: 0 }
}

/// A batch of one record for each timestamp.
fn batch(timestamps: &[i64], value_bytes: usize) -> Bytes {
    let mut batch = BatchBuilder::new();
    for timestamp in timestamps {
        batch.push(*timestamp, Some(b"key"), Some(&vec![b'v'; value_bytes]));
    }
    batch.build()
}

fn live(key: PartitionKey, name: &str, config: &LogConfig) -> LivePartitions {
    [(key, (name.to_owned(), config.clone()))].into_iter().collect()
}

fn bytes_of(slices: &[Slice]) -> Vec<u8> {
    super::core::joined(slices)
}

//! What administrators ask of partitions: how large their logs are, and which producers they remember.

use std::{rc::Rc, sync::Arc};

use crate::{
    base::{ErrorCode, METADATA_KEY, PartitionKey},
    partition::ActiveProducer,
    shard::{
        call::{Answer, Call},
        core::Core,
    },
};

impl Core {
    /// Asks every core. Partitions that are nowhere are left out, and so are those of a core that is gone.
    pub(super) async fn log_sizes(self: &Rc<Self>, keys: Option<Arc<[PartitionKey]>>) -> Vec<(PartitionKey, u64)> {
        let mut pending = Vec::new();
        for core in (0..self.mesh.cores()).filter(|core| *core != self.index()) {
            pending.push(self.call(core, Call::LogSizes(keys.clone())).await.1);
        }
        let mut sizes = self.log_sizes_here(keys.as_deref());
        for answer in pending {
            if let Some(Answer::LogSizes(other)) = answer.await {
                sizes.extend(other);
            }
        }
        sizes
    }

    /// Of this core's logs, without the metadata's: Kafka does not count it among them. One whose files have failed has no size.
    pub(super) fn log_sizes_here(&self, keys: Option<&[PartitionKey]>) -> Vec<(PartitionKey, u64)> {
        let replicas = self.replicas.borrow();
        let size = |key: &PartitionKey| {
            let log = replicas.get(key).filter(|_| *key != METADATA_KEY)?.log();
            (!log.is_offline()).then(|| (*key, log.size_bytes()))
        };
        match keys {
            Some(keys) => keys.iter().filter_map(size).collect(),
            None => replicas.keys().filter_map(size).collect(),
        }
    }

    /// The producers that a partition remembers, wherever it is.
    pub(super) async fn producers(self: &Rc<Self>, key: PartitionKey) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let owner = self.owner(key);
        if owner == self.index() {
            return self.producers_here(key);
        }
        match self.call(owner, Call::Producers(key)).await.1.await {
            Some(Answer::Producers(found)) => found,
            Some(_) | None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    pub(super) fn producers_here(&self, key: PartitionKey) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let replica = self.replica(key)?;
        replica.served()?;
        Ok(replica.inspect(|partition| partition.state_ref().producers.active()))
    }
}

//! Who is in sync: the leaders of all cores ask the controller for others than the metadata has, a core's all at once.

use std::{rc::Rc, time::Duration};

use tracing::{info, warn};

use crate::{
    base::{BrokerId, ErrorCode, PartitionKey},
    io::either,
    partition::{IsrChange, IsrState},
    replica::Replica,
    shard::{
        call::{Answer, Call},
        core::{Core, PARTITIONS_A_TURN},
        in_sync_asks::{AlterPartition, found, request},
        router::CONTROLLER_CORE,
    },
};

/// How often leaders look for followers that lag. Who catches up is seen when it fetches.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A follower that has not been at the end of its leader's log for so long is not in sync any more.
const LAG_MAX_MS: i64 = 10_000;

/// Partitions of one ask. What is more goes with the next one.
const ASKED_MAX: usize = 1000;

impl Core {
    /// Says how the controller is asked. Once, on its core.
    pub(super) fn alter_partitions_by(&self, controller: AlterPartition) {
        // Whoever says so twice says the same.
        let _ = self.in_sync.controller.set(controller);
    }

    /// Asks for other in-sync replicas whenever this core's leaders have reason to, as long as the core lives.
    pub(super) async fn keep_in_sync(self: Rc<Self>) {
        let mut next_look = self.io.clock.now() + LOOK_EVERY;
        loop {
            let news = self.in_sync.news.notified();
            if self.in_sync.joining.borrow().is_empty() {
                either(news, self.io.clock.sleep_until(next_look)).await;
            }
            let mut keys = std::mem::take(&mut *self.in_sync.joining.borrow_mut());
            if self.io.clock.now() >= next_look {
                next_look = self.io.clock.now() + LOOK_EVERY;
                // A broker alone has no followers.
                if self.image.borrow().brokers().nth(1).is_some() {
                    keys = self.replicas.borrow().keys().copied().collect();
                }
            }
            for some in keys.chunks(PARTITIONS_A_TURN) {
                some.iter().for_each(|key| self.propose_in_sync(*key));
                self.io.clock.yield_now().await;
            }
            self.ask_for_changes();
        }
    }

    fn propose_in_sync(&self, key: PartitionKey) {
        let Ok(replica) = self.replica(key) else { return };
        let image = self.image.borrow().clone();
        let is_eligible = |id: BrokerId, broker_epoch: i64| {
            let broker = image.broker(id).filter(|broker| broker.broker_epoch == broker_epoch);
            broker.is_some_and(|broker| !broker.fenced && !broker.in_controlled_shutdown)
        };
        if let Some(change) = replica.propose_in_sync(LAG_MAX_MS, is_eligible) {
            self.in_sync.changes.borrow_mut().push((key, change));
        }
    }

    /// Asks in a task of its own, one ask after the other: whoever waits for an answer looks at nobody meanwhile.
    fn ask_for_changes(self: &Rc<Self>) {
        if self.in_sync.changes.borrow().is_empty() || self.in_sync.is_asking.replace(true) {
            return;
        }
        let this = self.clone();
        self.io.spawner.spawn(async move {
            loop {
                let some: Vec<_> = {
                    let mut changes = this.in_sync.changes.borrow_mut();
                    let count = changes.len().min(ASKED_MAX);
                    changes.drain(..count).collect()
                };
                if some.is_empty() {
                    break;
                }
                let answers = this.ask_in_sync(some.clone()).await;
                for ((key, change), answer) in some.iter().zip(answers) {
                    if let Ok(replica) = this.replica(*key) {
                        told(&replica, change, answer);
                    }
                }
            }
            this.in_sync.is_asking.set(false);
        });
    }

    /// One answer for each change.
    async fn ask_in_sync(self: &Rc<Self>, changes: Vec<(PartitionKey, IsrChange)>) -> Vec<Result<IsrState, ErrorCode>> {
        let count = changes.len();
        let answers = if self.index() == CONTROLLER_CORE {
            self.ask_in_sync_here(&changes).await
        } else {
            match self.call(CONTROLLER_CORE, Call::InSync(changes.into())).await.1.await {
                Some(Answer::InSync(answers)) => answers,
                Some(_) | None => Vec::new(),
            }
        };
        let nobody_knows = std::iter::repeat(Err(ErrorCode::RequestTimedOut));
        answers.into_iter().chain(nobody_knows).take(count).collect()
    }

    /// Asks the controller. On its core.
    pub(super) async fn ask_in_sync_here(
        &self,
        changes: &[(PartitionKey, IsrChange)],
    ) -> Vec<Result<IsrState, ErrorCode>> {
        let me = self.broker.id;
        let broker_epoch = self.image.borrow().broker(me).map_or(-1, |broker| broker.broker_epoch);
        let answer = match self.in_sync.controller.get() {
            Some(controller) => controller(request(me, broker_epoch, changes)).await,
            None => Err(ErrorCode::NotController),
        };
        let answer = answer.and_then(|answer| match ErrorCode::try_from_code(answer.error_code) {
            None => Ok(answer),
            Some(error) => Err(error),
        });
        match answer {
            Ok(answer) => changes.iter().map(|(key, _)| found(&answer, *key)).collect(),
            Err(error) => {
                warn!(?error, partitions = changes.len(), "other in-sync replicas were not decided upon; asking again");
                changes.iter().map(|_| Err(error)).collect()
            }
        }
    }
}

fn told(replica: &Replica, change: &IsrChange, answer: Result<IsrState, ErrorCode>) {
    let partition = replica.key();
    match &answer {
        Ok(state) => {
            info!(%partition, in_sync = ?state.in_sync_replicas, epoch = state.partition_epoch, "in-sync replicas")
        }
        Err(error) => info!(%partition, asked = ?change.others, ?error, "in-sync replicas stay"),
    }
    replica.in_sync_answered(change, answer);
}

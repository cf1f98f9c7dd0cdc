//! What a core does by itself: durable appends become visible, old things go.

use std::{rc::Rc, time::Duration};

use crate::shard::{
    core::{Core, PARTITIONS_A_TURN},
    router::CONTROLLER_CORE,
};

/// How often a core looks after itself.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often silent idempotent producers are looked for, in intervals.
const PRODUCERS_EVERY: u64 = 600;
/// How often the controller's core tells what the broker counted, in intervals.
const METRICS_EVERY: u64 = 60;

impl Core {
    /// Moves high watermarks as the journal becomes durable.
    pub(super) async fn follow_flushes(self: Rc<Self>) {
        loop {
            for (key, end) in self.log.next_flushed().await {
                if let Ok(replica) = self.replica(key) {
                    replica.flushed(end);
                }
            }
        }
    }

    /// Retention, memory that other cores gave back, producers that fell silent.
    pub(super) async fn keep_house(self: Rc<Self>) {
        let mut retention = {
            let config = self.config.borrow();
            self.io.clock.now() + Duration::from_millis(config.storage.initial_task_delay_ms)
        };
        let mut told = None;
        for round in 1u64.. {
            self.io.clock.sleep(INTERVAL).await;
            if self.index() == CONTROLLER_CORE && round.is_multiple_of(METRICS_EVERY) {
                self.tell_metrics(&mut told).await;
            }
            self.io.disk.reclaim();
            self.log.housekeeping().await;
            if self.io.clock.now() >= retention {
                // Replicas ask their logs where they begin, so who moved is not needed here.
                let _moved = self.log.retain(self.io.clock.wall()).await;
                let interval_ms = self.config.borrow().storage.retention_check_interval_ms;
                retention = self.io.clock.now() + Duration::from_millis(interval_ms);
            }
            if round.is_multiple_of(PRODUCERS_EVERY) {
                self.expire_producers().await;
            }
        }
    }

    async fn expire_producers(&self) {
        let replicas: Vec<_> = self.replicas.borrow().values().cloned().collect();
        let (now, expiration_ms) = (self.io.clock.wall(), self.config.borrow().producers.id_expiration_ms);
        for some in replicas.chunks(PARTITIONS_A_TURN) {
            for replica in some {
                replica.expire_producers(now, expiration_ms);
            }
            self.io.clock.yield_now().await;
        }
    }
}

//! A follower's side: batches of the leader's, taken over as they are.

use std::rc::Rc;

use crate::{
    base::{LeaderEpoch, Offset},
    log::LogError,
    partition::{FetchPartition, FollowRefusal, Partition},
    protocol::batch::{BatchInfo, BatchView, batches, crc_ok},
    replica::Replica,
};

/// Why a follower's log does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowError {
    /// The leader's answer does not continue this log.
    Refused(FollowRefusal),
    /// The bytes are not whole record batches, or not what was written.
    Malformed,
    /// This log failed, or is full.
    Log(LogError),
}

impl Replica {
    /// Takes over whole batches, with the offsets and epochs that the leader gave them. They are in memory when this
    /// returns; [`Replica::durable_end`] tells when they count, and where the next fetch begins. `high_watermark` and
    /// `log_start_offset` are the leader's.
    /// # Errors  Why not all were taken; those before the first that was not are.
    #[allow(dead_code, reason = "for the metadata's log when its quorum has several voters")]
    pub async fn follow(
        &self,
        records: &[u8],
        high_watermark: Offset,
        log_start_offset: Offset,
    ) -> Result<(), FollowError> {
        let leader_epoch = self.inspect(Partition::leader_epoch);
        self.follow_in(leader_epoch, records, high_watermark, log_start_offset).await
    }

    /// [`follow`](Self::follow), as long as this broker follows in the term in which the leader was asked: memory may be waited for.
    /// # Errors  As there; `FollowRefusal::Over`.
    pub async fn follow_in(
        &self,
        leader_epoch: LeaderEpoch,
        records: &[u8],
        high_watermark: Offset,
        log_start_offset: Offset,
    ) -> Result<(), FollowError> {
        for batch in batches(records) {
            let batch = batch.map_err(|_| FollowError::Malformed)?;
            if !is_sound(&batch) {
                return Err(FollowError::Malformed);
            }
            let info = BatchInfo::of(&batch.header);
            let room = match self.log.try_reserve(batch.bytes.len()) {
                Some(room) => room,
                None => self.log.reserve(batch.bytes.len()).await.map_err(FollowError::Log)?,
            };
            let now = self.io.clock.wall();
            let mut partition = self.partition.borrow_mut();
            if partition.leader_epoch() != leader_epoch {
                return Err(FollowError::Refused(FollowRefusal::Over));
            }
            partition.check_follow(&info).map_err(FollowError::Refused)?;
            self.log.append(room, batch.bytes, &info);
            partition.followed(&info, now);
        }
        if self.partition.borrow().leader_epoch() != leader_epoch {
            return Err(FollowError::Refused(FollowRefusal::Over));
        }
        let committed = self.partition.borrow_mut().leader_committed(high_watermark);
        self.committed(committed);
        self.follow_start(log_start_offset).await
    }

    /// What the leader is to be asked for next; nothing while something of the log is not on stable storage.
    pub fn next_fetch(&self, partition_max_bytes: i32) -> Option<FetchPartition> {
        if self.is_deleted() || self.log.is_offline() {
            return None;
        }
        self.inspect(|partition| partition.next_fetch(partition_max_bytes))
    }

    /// Cuts off what the leader of that term does not have: from where its log and ours went apart, as it says. Durable when it
    /// returns; for long, since all of the log has to be in its segments first.
    /// # Errors  `FollowRefusal::Over`, `Log`.
    pub async fn cut_diverging(
        self: &Rc<Self>,
        leader_epoch: LeaderEpoch,
        (epoch, end_offset): (LeaderEpoch, Offset),
    ) -> Result<(), FollowError> {
        let offset = self.inspect(|partition| partition.diverging_end(epoch, end_offset));
        loop {
            let cut = self.log.find_cut(offset).await.map_err(FollowError::Log)?;
            if !self.partition.borrow().follows_in(leader_epoch) {
                return Err(FollowError::Refused(FollowRefusal::Over));
            }
            let Some(cut) = cut else { return Ok(()) };
            let end = cut.end();
            if let Some(truncated) = self.log.truncate(cut) {
                self.partition.borrow_mut().cut_off(end);
                return truncated.durable().await.map_err(FollowError::Log);
            }
            // Somebody has room for an append that will not be, or works on the files: they need their turns.
            self.io.clock.yield_now().await;
        }
    }

    /// The leader's log begins later: so does ours, as far as we know that to be committed.
    async fn follow_start(&self, log_start_offset: Offset) -> Result<(), FollowError> {
        let (start, high_watermark) =
            self.inspect(|partition| (partition.log_start_offset(), partition.high_watermark()));
        let target = log_start_offset.min(high_watermark);
        if target <= start {
            return Ok(());
        }
        self.log.move_start(target, high_watermark).await.map_err(FollowError::Log)?;
        self.follow_log_start();
        Ok(())
    }

    /// Everything below it is on stable storage here: where a follower's next fetch begins.
    #[allow(dead_code, reason = "for the metadata's log when its quorum has several voters")]
    pub fn durable_end(&self) -> Offset {
        self.partition.borrow().durable_end()
    }
}

/// Whether a batch is what its leader stored: its sum, and offsets that can be counted on from.
fn is_sound(batch: &BatchView<'_>) -> bool {
    let header = &batch.header;
    let last = header.base_offset.0.checked_add(i64::from(header.last_offset_delta));
    let counts = header.base_offset.0 >= 0 && header.last_offset_delta >= 0 && last.is_some_and(|last| last < i64::MAX);
    counts && crc_ok(batch.bytes)
}

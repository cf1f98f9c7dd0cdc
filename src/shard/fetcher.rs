//! A fetcher: asks one leader for what the followers of one core lack, again and again.
//!
//! What it asks says what is on stable storage here: an answer is taken over, made durable, and only then comes the next
//! question. A partition that cannot go on rests, or is cut, while the others go on.

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use tracing::{debug, info, warn};

use crate::{
    base::{LeaderEpoch, Map, Offset, PartitionKey},
    io::{
        Either, Instant, Io,
        channel::{Notified, Notify},
        either,
    },
    log::LogError,
    partition::{FetchPartition, FollowRefusal},
    replica::{FollowError, Replica},
    shard::leader::{Answered, Leader, PARTITION_BYTES_MAX},
};

/// Before a leader is asked again that refused a partition: mostly one of the two brokers has not heard of a new leader yet.
const REST: Duration = Duration::from_millis(50);
/// Before a partition is tried again whose leader's answer could not be taken over, or a broker that does not answer.
const LONG_REST: Duration = Duration::from_millis(500);

/// One for each other broker that leads partitions of which this core has replicas.
pub struct Fetcher {
    io: Io,
    /// Rung when other partitions follow that broker, or in another term.
    changed: Notify,
    /// Those that do.
    followed: Box<dyn Fn() -> Vec<Rc<Replica>>>,
    /// Whom to ask; nobody while nobody knows where.
    leader: Box<dyn Fn() -> Option<Rc<dyn Leader>>>,
    /// Partitions that rest, and until when. `None`: until they are cut.
    resting: RefCell<Map<PartitionKey, Option<Instant>>>,
    failing: Cell<bool>,
}

/// A partition of a question.
struct Asked {
    replica: Rc<Replica>,
    range: FetchPartition,
    leader_epoch: LeaderEpoch,
}

impl Fetcher {
    /// A fetcher for the replicas that `followed` gives, which asks whom `leader` gives.
    pub fn new(
        io: Io,
        changed: Notify,
        followed: Box<dyn Fn() -> Vec<Rc<Replica>>>,
        leader: Box<dyn Fn() -> Option<Rc<dyn Leader>>>,
    ) -> Rc<Self> {
        Rc::new(Self { io, changed, followed, leader, resting: RefCell::default(), failing: Cell::new(false) })
    }

    /// Fetches until nobody follows any more. No await lies between that look and the end.
    pub async fn run(self: &Rc<Self>) {
        // Who is asked for first has what room there is: each in its turn.
        for turn in 0usize.. {
            let changed = self.changed.notified();
            let followed = (self.followed)();
            if followed.is_empty() {
                return;
            }
            let mut asked = self.ready(followed);
            if asked.is_empty() {
                either(changed, self.io.clock.sleep(REST)).await;
                continue;
            }
            let first = turn % asked.len();
            asked.rotate_left(first);
            if let Some(answers) = self.ask(&asked, changed).await {
                self.take_all(asked, answers).await;
            }
        }
    }

    fn ready(&self, followed: Vec<Rc<Replica>>) -> Vec<Asked> {
        let now = self.io.clock.now();
        self.resting.borrow_mut().retain(|_, until| until.is_none_or(|until| until > now));
        let resting = self.resting.borrow();
        let ready = followed.into_iter().filter(|replica| !resting.contains_key(&replica.key()));
        let asked = ready.filter_map(|replica| {
            let range = replica.next_fetch(PARTITION_BYTES_MAX)?;
            Some(Asked { replica, range, leader_epoch: range.current_leader_epoch? })
        });
        asked.collect()
    }

    /// Asks the leader. Nothing comes if it does not answer, or if others are to be asked for.
    async fn ask(&self, asked: &[Asked], changed: Notified) -> Option<Vec<Answered>> {
        let Some(leader) = (self.leader)() else {
            either(changed, self.io.clock.sleep(LONG_REST)).await;
            return None;
        };
        let ranges = asked.iter().map(|asked| (asked.replica.key(), asked.range)).collect();
        match either(leader.fetch(ranges), changed).await {
            Either::Left(Ok(answers)) => {
                if self.failing.replace(false) {
                    info!("a leader answers again");
                }
                Some(answers)
            }
            Either::Left(Err(error)) => {
                if !self.failing.replace(true) {
                    warn!(%error, partitions = asked.len(), "a leader does not answer its followers; they go on asking");
                }
                either(self.changed.notified(), self.io.clock.sleep(LONG_REST)).await;
                None
            }
            Either::Right(()) => None,
        }
    }

    /// Takes the answers over, and waits until what they bring is on stable storage.
    async fn take_all(self: &Rc<Self>, mut asked: Vec<Asked>, answers: Vec<Answered>) {
        let mut appended = Vec::new();
        for answer in answers {
            // Each once, and none that was not asked for.
            let Some(place) = asked.iter().position(|asked| asked.replica.key() == answer.key) else { continue };
            let asked = asked.swap_remove(place);
            if let Some(end) = self.take(&asked, answer).await {
                appended.push((asked, end));
            }
        }
        for (Asked { replica, leader_epoch, .. }, end) in appended {
            // A log that failed says so itself, and is asked for no more.
            if replica.log().flushed(end).await.is_ok() && replica.inspect(|it| it.follows_in(leader_epoch)) {
                replica.flushed(end);
            }
        }
    }

    /// Takes one answer over. Gives where the log ends then, if it was longer than before.
    async fn take(self: &Rc<Self>, asked: &Asked, answer: Answered) -> Option<Offset> {
        let Asked { replica, range, leader_epoch } = asked;
        let partition = replica.key();
        if let Some(error) = answer.error {
            debug!(%partition, ?error, epoch = %leader_epoch, "a leader refuses its follower");
            self.rest(partition, REST);
            return None;
        }
        if let Some(diverging) = answer.diverging {
            self.cut(replica.clone(), *leader_epoch, diverging);
            return None;
        }
        let Answered { records, high_watermark, log_start_offset, .. } = answer;
        let followed = replica.follow_in(*leader_epoch, &records, high_watermark, log_start_offset).await;
        if let Err(error) = followed {
            self.failed(partition, &error);
        }
        // Of an answer that is wrong somewhere, what comes before that place is there.
        let end = replica.inspect(|it| it.follows_in(*leader_epoch).then(|| it.log_end_offset()))?;
        (end > range.fetch_offset).then_some(end)
    }

    fn rest(&self, partition: PartitionKey, duration: Duration) {
        self.resting.borrow_mut().insert(partition, Some(self.io.clock.now() + duration));
    }

    fn failed(&self, partition: PartitionKey, error: &FollowError) {
        match error {
            // Another fetcher has it by now, or this one in another term.
            FollowError::Refused(FollowRefusal::Over) => {}
            FollowError::Log(LogError::Stopping | LogError::Deleted) => self.rest(partition, LONG_REST),
            FollowError::Refused(_) | FollowError::Malformed | FollowError::Log(_) => {
                warn!(%partition, ?error, "a leader's answer was not taken over; it is asked again");
                self.rest(partition, LONG_REST);
            }
        }
    }

    /// Cuts in a task of its own, since it takes long. Until that is done the partition is not asked for.
    fn cut(self: &Rc<Self>, replica: Rc<Replica>, leader_epoch: LeaderEpoch, diverging: (LeaderEpoch, Offset)) {
        let partition = replica.key();
        self.resting.borrow_mut().insert(partition, None);
        let this = self.clone();
        self.io.spawner.spawn(async move {
            let end = replica.inspect(|it| (it.log_end_offset(), it.high_watermark()));
            match replica.cut_diverging(leader_epoch, diverging).await {
                Ok(()) => {
                    this.resting.borrow_mut().remove(&partition);
                    let now = replica.inspect(|it| it.log_end_offset());
                    info!(%partition, epoch = %leader_epoch, from = %end.0, to = %now, "cut off what the leader does not have");
                    if now < end.1 {
                        warn!(%partition, high_watermark = %end.1, to = %now, "the leader lacks what was committed");
                    }
                }
                Err(error) => {
                    this.resting.borrow_mut().remove(&partition);
                    this.failed(partition, &error);
                }
            }
            this.changed.notify_all();
        });
    }
}

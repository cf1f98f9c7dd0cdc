//! Fetch: read now, and if there is too little, wait where the partitions live.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::{
    base::{BrokerId, ErrorCode},
    io::{
        Either,
        channel::{Notified, Notify},
        either, join_all,
    },
    metrics::{Counter, Gauge},
    partition::Fetcher,
    replica::{Fetched, Replica},
    shard::{
        call::{Answer, Call, FetchCall, Message},
        core::Core,
    },
};

/// How often, and how many times, a fetch looks whether there is memory for replies again.
const ROOM_PERIOD: Duration = Duration::from_millis(50);
const ROOM_LOOKS_MAX: u32 = 40;

impl Core {
    /// Fetches over all cores; answers in the order asked, within the call's limits.
    pub(super) async fn fetch(self: &Rc<Self>, call: FetchCall) -> Vec<Fetched> {
        let fetched = self.fetch_from_owners(call).await;
        let metrics = &self.io.metrics;
        metrics.add(Counter::BytesOut, fetched.iter().map(|part| part.bytes as u64).sum());
        metrics.add(Counter::FailedFetches, fetched.iter().filter(|part| part.error.is_some()).count() as u64);
        fetched
    }

    async fn fetch_from_owners(self: &Rc<Self>, call: FetchCall) -> Vec<Fetched> {
        let mut owners: Vec<usize> = call.partitions.iter().map(|(key, _)| self.owner(*key)).collect();
        owners.sort_unstable();
        owners.dedup();
        match owners.as_slice() {
            [] => {
                // Nothing to read, but the client asked to be kept waiting: Kafka answers an empty fetch at once.
                Vec::new()
            }
            [only] if *only == self.index() => self.fetch_here(&call, Notify::new().notified()).await,
            [only] => self.fetch_there(*only, call).await,
            several => self.fetch_everywhere(several, call).await,
        }
    }

    async fn fetch_there(self: &Rc<Self>, core: usize, call: FetchCall) -> Vec<Fetched> {
        let count = call.partitions.len();
        let (id, answer) = self.call(core, Call::Fetch(call)).await;
        let others = Others::new(self);
        others.calls.borrow_mut().push((core, id));
        let answer = answer.await;
        others.told.set(true);
        match answer {
            Some(Answer::Fetch(fetched)) if fetched.len() == count => fetched,
            Some(_) | None => (0..count).map(|_| Fetched::refused(ErrorCode::KafkaStorageError)).collect(),
        }
    }

    /// First everything that is there. Then, if that is too little, every core waits; the first that has news ends the
    /// wait of the others, and all are read again.
    async fn fetch_everywhere(self: &Rc<Self>, owners: &[usize], call: FetchCall) -> Vec<Fetched> {
        let deadline = self.io.clock.now() + call.max_wait;
        let mut wait = Duration::ZERO;
        // What counts as news on each core: more than it had when all were asked last.
        let mut news_bytes = vec![1; owners.len()];
        loop {
            let fetched = self.fetch_round(owners, &call, wait, &news_bytes).await;
            if enough(&fetched, &call, self.fetch_bytes_max(&call)) || self.io.clock.now() >= deadline {
                return within_limits(fetched, &call);
            }
            for (owner, news_bytes) in owners.iter().zip(&mut news_bytes) {
                let parts = call.partitions.iter().zip(&fetched).filter(|((key, _), _)| self.owner(*key) == *owner);
                *news_bytes = 1 + parts.map(|(_, part)| part.bytes).sum::<usize>();
            }
            drop(fetched);
            wait = deadline.since(self.io.clock.now());
        }
    }

    async fn fetch_round(
        self: &Rc<Self>,
        owners: &[usize],
        call: &FetchCall,
        wait: Duration,
        news_bytes: &[usize],
    ) -> Vec<Fetched> {
        let others = Rc::new(Others::new(self));
        let mut places = Vec::with_capacity(owners.len());
        let mut calls = Vec::with_capacity(owners.len());
        let mut local = None;
        for (owner, min_bytes) in owners.iter().zip(news_bytes) {
            let (place, partitions): (Vec<usize>, Vec<_>) = call
                .partitions
                .iter()
                .enumerate()
                .filter(|(_, (key, _))| self.owner(*key) == *owner)
                .map(|(index, part)| (index, *part))
                .unzip();
            // What the others have meanwhile is not known there, so any news ends the round.
            let part = FetchCall { partitions, max_wait: wait, min_bytes: *min_bytes, ..call.clone() };
            places.push(place);
            if *owner == self.index() {
                local = Some((places.len() - 1, part));
            } else {
                let (id, answer) = self.call(*owner, Call::Fetch(part)).await;
                others.calls.borrow_mut().push((*owner, id));
                calls.push((places.len() - 1, answer));
            }
        }
        let mut waits: Vec<crate::replica::Local<(usize, Option<Vec<Fetched>>)>> = Vec::with_capacity(owners.len());
        if let Some((slot, part)) = local {
            let (this, wait_ended, others) = (self.clone(), others.end_wait.notified(), others.clone());
            waits.push(Box::pin(async move {
                let fetched = this.fetch_here(&part, wait_ended).await;
                others.end_waits();
                (slot, Some(fetched))
            }));
        }
        for (slot, answer) in calls {
            let others = others.clone();
            waits.push(Box::pin(async move {
                let fetched = match answer.await {
                    Some(Answer::Fetch(fetched)) => Some(fetched),
                    Some(_) | None => None,
                };
                others.end_waits();
                (slot, fetched)
            }));
        }
        let mut gathered: Vec<Fetched> =
            call.partitions.iter().map(|_| Fetched::refused(ErrorCode::KafkaStorageError)).collect();
        for (slot, fetched) in join_all(waits).await {
            for (index, part) in places[slot].iter().zip(fetched.into_iter().flatten()) {
                gathered[*index] = part;
            }
        }
        gathered
    }

    /// Fetches from replicas of this core. Waits for `min_bytes`, but not once `wait_ended` rings.
    pub(super) async fn fetch_here(&self, call: &FetchCall, wait_ended: Notified) -> Vec<Fetched> {
        self.wait_for_memory().await;
        if call.max_wait.is_zero() {
            return self.read_all(call).await;
        }
        let deadline = self.io.clock.now() + call.max_wait;
        let news = Notify::new();
        let replicas = call.partitions.iter().filter_map(|(key, _)| self.replica(*key).ok());
        let _watches = Watches::of(replicas, call.reader, &news);
        let over = either(wait_ended, self.io.clock.sleep_until(deadline));
        let mut over = std::pin::pin!(over);
        loop {
            // The bell is taken up before the look, so that nothing can come in between.
            let rung = news.notified();
            let bytes_max = self.fetch_bytes_max(call);
            let fetched = self.read_all(call).await;
            if enough(&fetched, call, bytes_max) || self.io.clock.now() >= deadline {
                return fetched;
            }
            drop(fetched);
            let _waiting = self.io.metrics.raised(Gauge::WaitingFetches);
            if let Either::Right(_) = either(rung, over.as_mut()).await {
                return self.read_all(call).await;
            }
        }
    }

    /// While unread replies hold more than they may, what is read now would only add to it: somebody will be closed for it
    /// within a second. Who waits may be slow himself, so he does not wait for long.
    async fn wait_for_memory(&self) {
        for _ in 0..ROOM_LOOKS_MAX {
            if self.replies.borrow().excess() == 0 {
                return;
            }
            self.io.clock.sleep(ROOM_PERIOD).await;
        }
    }

    /// What the call asks for, or what the memory for replies allows, if that is less.
    fn fetch_bytes_max(&self, call: &FetchCall) -> usize {
        call.max_bytes.min(self.replies.borrow().fetch_bytes_max())
    }

    /// Whether a follower is in the life that the metadata has of it (KIP-903). One that is ahead of our metadata comes again; what
    /// it says of itself must not be what shuts the registered one out.
    /// # Errors  `NotLeaderOrFollower`.
    fn check_reader(&self, reader: Fetcher) -> Result<(), ErrorCode> {
        let image = self.image.borrow();
        let registered = |id| image.broker(id).map(|broker| broker.broker_epoch);
        if is_alive(reader, registered) { Ok(()) } else { Err(ErrorCode::NotLeaderOrFollower) }
    }

    fn note_follower(&self, replica: &Replica, reader: Fetcher) {
        if let Fetcher::Follower { broker, .. } = reader
            && replica.inspect(|partition| partition.may_join(broker))
        {
            self.in_sync.note_joining(replica.key());
        }
    }

    async fn read_all(&self, call: &FetchCall) -> Vec<Fetched> {
        if let Err(error) = self.check_reader(call.reader) {
            return call.partitions.iter().map(|_| Fetched::refused(error)).collect();
        }
        if let (Fetcher::Consumer(_), Err(error)) = (call.reader, self.check_alive()) {
            return call.partitions.iter().map(|_| Fetched::refused(error)).collect();
        }
        let mut room = self.fetch_bytes_max(call);
        let mut empty = true;
        let mut all = Vec::with_capacity(call.partitions.len());
        for (key, part) in &call.partitions {
            let fetched = match self.replica(*key) {
                Ok(replica) => {
                    let fetched = replica.fetch(part, call.reader, room, empty).await;
                    self.note_follower(&replica, call.reader);
                    fetched
                }
                Err(error) => Fetched::refused(error),
            };
            if fetched.bytes > 0 {
                // Others have read meanwhile, if the disk was asked.
                room = room.saturating_sub(fetched.bytes).min(self.fetch_bytes_max(call));
                empty = false;
            }
            all.push(fetched);
        }
        all
    }
}

/// Watches on replicas. They end when dropped, also with a client that went away.
struct Watches(Vec<(Rc<Replica>, u64)>);

impl Watches {
    fn of(replicas: impl Iterator<Item = Rc<Replica>>, reader: Fetcher, bell: &Notify) -> Self {
        let watched = replicas.map(|replica| {
            let number = match reader {
                Fetcher::Consumer(_) => replica.watch(bell),
                Fetcher::Follower { .. } => replica.watch_appends(bell),
            };
            (replica, number)
        });
        Self(watched.collect())
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for (replica, number) in &self.0 {
            replica.unwatch(*number);
        }
    }
}

/// The calls of one round of a fetch over several cores. Whoever asked may go away: then they end as well.
struct Others {
    core: Rc<Core>,
    end_wait: Notify,
    calls: RefCell<Vec<(usize, u64)>>,
    told: Cell<bool>,
}

impl Others {
    fn new(core: &Rc<Core>) -> Self {
        Self { core: core.clone(), end_wait: Notify::new(), calls: RefCell::default(), told: Cell::new(false) }
    }

    /// The first core with news ends the wait of all the others.
    fn end_waits(&self) {
        if self.told.replace(true) {
            return;
        }
        self.end_wait.notify_all();
        for (owner, id) in self.calls.borrow().iter().copied() {
            let message = Message::EndWait { from: self.core.index(), id };
            if let Err(message) = self.core.mesh.try_send(owner, message) {
                let core = self.core.clone();
                self.core.io.spawner.spawn(async move { core.mesh.send(owner, message).await });
            }
        }
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        self.end_waits();
    }
}

/// Whether who reads is a consumer, or a broker in the life in which it is registered.
fn is_alive(reader: Fetcher, registered: impl Fn(BrokerId) -> Option<i64>) -> bool {
    match reader {
        Fetcher::Consumer(_) => true,
        Fetcher::Follower { broker, broker_epoch } => registered(broker) == Some(broker_epoch),
    }
}

fn is_decided(part: &Fetched) -> bool {
    part.error.is_some() || part.diverging.is_some()
}

/// Whether a fetch that could read `bytes_max` need not wait for more. What others hold and do not read must not make it
/// wait for bytes that it cannot have.
fn enough(fetched: &[Fetched], call: &FetchCall, bytes_max: usize) -> bool {
    let bytes: usize = fetched.iter().map(|part| part.bytes).sum();
    bytes >= call.min_bytes || (bytes > 0 && bytes_max < call.min_bytes) || fetched.iter().any(is_decided)
}

/// Each core kept to the limits by itself; together they may be above. What is too much is given back, in request order.
fn within_limits(mut fetched: Vec<Fetched>, call: &FetchCall) -> Vec<Fetched> {
    let mut room = call.max_bytes;
    let mut empty = true;
    for part in &mut fetched {
        if part.bytes > room && !empty {
            part.records.clear();
            part.bytes = 0;
        }
        room = room.saturating_sub(part.bytes);
        empty &= part.bytes == 0;
    }
    fetched
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::Isolation;

    #[test]
    fn a_fetch_that_may_read_less_than_it_waits_for_does_not_wait() {
        let call = |min_bytes| FetchCall {
            partitions: Vec::new(),
            reader: Fetcher::Consumer(Isolation::ReadUncommitted),
            max_bytes: 1000,
            min_bytes,
            max_wait: Duration::from_secs(1),
        };
        let enough = |bytes, min_bytes, bytes_max| {
            enough(&[Fetched::default(), Fetched { bytes, ..Fetched::default() }], &call(min_bytes), bytes_max)
        };
        assert!(enough(100, 100, 1000) && !enough(99, 100, 1000) && !enough(99, 100, 100));
        assert!(enough(99, 100, 99) && enough(99, 100, 0), "there is no room for more");
        assert!(!enough(0, 100, 0), "but then for something");
        assert!(enough(0, 0, 0));
    }

    #[test]
    fn a_follower_is_served_in_the_life_that_is_registered_and_in_no_other() {
        let registered = |id: BrokerId| (id == BrokerId(2)).then_some(70);
        let follower = |id, broker_epoch| Fetcher::Follower { broker: BrokerId(id), broker_epoch };
        let served = [(2, 70), (2, 69), (2, 71), (2, i64::MAX), (2, -1), (3, 70)]
            .map(|(id, broker_epoch)| is_alive(follower(id, broker_epoch), registered));
        assert_eq!(served, [true, false, false, false, false, false]);
        assert!(is_alive(Fetcher::Consumer(Isolation::ReadCommitted), registered));
    }

    #[test]
    fn what_several_cores_read_together_stays_within_the_limit() {
        let call = FetchCall {
            partitions: Vec::new(),
            reader: Fetcher::Consumer(Isolation::ReadUncommitted),
            max_bytes: 100,
            min_bytes: 1,
            max_wait: Duration::ZERO,
        };
        let part = |bytes| Fetched { bytes, ..Fetched::default() };
        let sizes = |sizes: &[usize]| -> Vec<usize> {
            within_limits(sizes.iter().map(|size| part(*size)).collect(), &call).iter().map(|part| part.bytes).collect()
        };
        assert_eq!(sizes(&[60, 40, 1]), [60, 40, 0]);
        assert_eq!(sizes(&[60, 60, 30]), [60, 0, 30]);
        assert_eq!(sizes(&[0, 500, 1]), [0, 500, 0], "the first batch is given whole, whatever its size");
    }
}

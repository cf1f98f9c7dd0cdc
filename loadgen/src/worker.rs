//! One thread under measurement: an epoll, its producers and consumers with their connections, and its books.

pub mod lines;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    io,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender},
    },
};

use crate::{
    client::error::codes,
    control::{Ask, Shared, Tell},
    fetch::Consumer,
    measure::{Recorder, Sample, Window},
    produce::Producer,
    sys::{self, Epoll, Event, Interest},
    worker::lines::{Lines, Lost, Owner},
};

const WAKER_TOKEN: u64 = u64::MAX;
const SECOND: u64 = 1_000_000_000;
const CHECK_INTERVAL_NS: u64 = 10_000_000;

/// What a worker hands over every second.
pub struct Handover {
    pub worker: usize,
    /// Seconds since the run's start; the last one may be short.
    pub index: u64,
    pub start: u64,
    pub end: u64,
    pub measured: Sample,
    pub warm_up: Sample,
    /// CPU time of the thread in this interval.
    pub cpu_ns: u64,
    /// No more follow.
    pub is_last: bool,
}

/// Everything a worker starts with.
pub struct Job {
    pub index: usize,
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    pub window: Window,
    /// When the first interval starts, in monotonic nanoseconds.
    pub start: u64,
    pub acks: i16,
    pub has_topic_ids: bool,
    pub request_timeout_ns: u64,
    pub spin: bool,
    pub client_id: String,
    pub topics: lines::TopicNames,
    pub shared: Arc<Shared>,
    pub handovers: Sender<Handover>,
    /// Cleared samples come back here, so that none is allocated while measuring.
    pub returned: Receiver<Sample>,
}

struct Worker {
    job: Job,
    epoll: Epoll,
    lines: Lines,
    recorder: Recorder,
    /// Wake-up times of producers; outdated entries are skipped.
    wakeups: BinaryHeap<Reverse<(u64, usize)>>,
    wakeup_of: Vec<u64>,
    brokers_of: Vec<Vec<i32>>,
    leaders_version: u64,
    stopped: bool,
    asked_metadata_at: u64,
    asked_identity: BTreeSet<usize>,
    next_check: u64,
    interval: u64,
    interval_start: u64,
    cpu_at_start: u64,
}

/// Runs until the shared `quit`. Returns an error only when the system refuses an epoll.
pub fn run(job: Job) -> io::Result<()> {
    sys::tighten_timers();
    let epoll = Epoll::new()?;
    epoll.add(job.shared.waker(job.index), WAKER_TOKEN, Interest::Read)?;
    let lines = Lines::new(job.client_id.clone(), job.acks, job.has_topic_ids, job.topics.clone());
    let mut worker = Worker {
        recorder: Recorder::new(job.window),
        wakeups: BinaryHeap::new(),
        wakeup_of: vec![u64::MAX; job.producers.len()],
        brokers_of: vec![Vec::new(); job.producers.len()],
        leaders_version: 0,
        stopped: false,
        asked_metadata_at: 0,
        asked_identity: BTreeSet::new(),
        next_check: 0,
        interval: 0,
        interval_start: job.start,
        cpu_at_start: sys::thread_cpu_ns(),
        epoll,
        lines,
        job,
    };
    worker.serve()
}

impl Worker {
    fn serve(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let now = sys::monotonic_ns();
            if self.job.shared.quit.load(Ordering::Relaxed) {
                self.finish(now);
                return Ok(());
            }
            self.follow_leaders(now);
            self.run_due(now);
            if now >= self.next_check {
                self.next_check = now + CHECK_INTERVAL_NS;
                self.check(now);
            }
            if now >= self.interval_start + SECOND {
                self.hand_over(self.interval_start + SECOND, false);
            }
            let timeout = self.timeout(sys::monotonic_ns());
            events.clear();
            self.epoll.wait(timeout, &mut events)?;
            for event in events.drain(..) {
                self.on_event(event);
            }
        }
    }

    fn timeout(&self, now: u64) -> u64 {
        if self.job.spin {
            return 0;
        }
        let next = self.wakeups.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        let next = next.min(self.next_check).min(self.interval_start + SECOND);
        next.saturating_sub(now)
    }

    fn on_event(&mut self, event: Event) {
        if event.token == WAKER_TOKEN {
            self.job.shared.waker(self.job.index).drain();
            self.read_inbox();
            return;
        }
        let Some((owner, broker)) = self.lines.owner(event.token) else {
            return;
        };
        let was_ready = self.lines.is_ready(event.token);
        let mut result = Ok(());
        if event.writable {
            result = self.lines.on_writable(event.token, &self.epoll);
        }
        if event.readable && result.is_ok() {
            result = self.read_replies(event.token, owner, broker);
        }
        if result.is_err() {
            return self.disconnect(event.token, owner, broker, codes::NETWORK_EXCEPTION);
        }
        let now = sys::monotonic_ns();
        if !was_ready && self.lines.is_ready(event.token) {
            let silent_until = now + self.lines.first_silence_ns(event.token);
            match owner {
                Owner::Producer(at) => {
                    self.job.producers[at].connected(broker, now);
                    self.job.producers[at].throttle(broker, now, silent_until, &mut self.recorder);
                }
                Owner::Consumer(at) => {
                    self.job.consumers[at].connected(broker);
                    self.job.consumers[at].throttle(broker, now, silent_until, &mut self.recorder);
                }
            }
        }
        match owner {
            Owner::Producer(at) => self.pump_producer(at, now),
            Owner::Consumer(at) => self.pump_consumer(at, now),
        }
    }

    fn read_replies(&mut self, token: u64, owner: Owner, broker: i32) -> Result<(), Lost> {
        // What arrived before the peer closed is still to be read.
        let received = self.lines.on_readable(token);
        let now = sys::monotonic_ns();
        match owner {
            Owner::Producer(at) => {
                let producer = &mut self.job.producers[at];
                while let Some((answers, silence_ns)) = self.lines.next_answers(token)? {
                    producer.throttle(broker, now, now + silence_ns, &mut self.recorder);
                    producer.on_reply(broker, now, answers, &mut self.recorder);
                }
            }
            Owner::Consumer(at) => {
                let consumer = &mut self.job.consumers[at];
                while let Some((response, silence_ns)) = self.lines.next_fetched(token)? {
                    consumer.throttle(broker, now, now + silence_ns, &mut self.recorder);
                    consumer.on_reply(broker, now, &response, &mut self.recorder);
                }
            }
        }
        received
    }

    /// Producers whose time has come.
    fn run_due(&mut self, now: u64) {
        while let Some(Reverse((at, producer))) = self.wakeups.peek().copied() {
            if at > now {
                break;
            }
            self.wakeups.pop();
            if self.wakeup_of[producer] == at {
                self.wakeup_of[producer] = u64::MAX;
                self.pump_producer(producer, sys::monotonic_ns());
            }
        }
    }

    fn pump_producer(&mut self, at: usize, now: u64) {
        let producer = &mut self.job.producers[at];
        producer.advance(now, &mut self.recorder);
        let mut failed = None;
        for broker in &self.brokers_of[at] {
            let Some(token) = self.lines.find(Owner::Producer(at), *broker) else {
                continue;
            };
            let mut sent_any = false;
            // Read again for each request: encoding one takes time, and that time is the generator's.
            while let Some(sent) = producer.next_request(*broker, sys::monotonic_ns(), &mut self.recorder) {
                sent_any = true;
                if self.lines.send_produce(token, sent, self.job.request_timeout_ns).is_err() {
                    failed = Some((token, *broker));
                    break;
                }
                if self.job.acks == 0 {
                    producer.settle_unanswered(*broker, sys::monotonic_ns(), &mut self.recorder);
                }
                producer.advance(sys::monotonic_ns(), &mut self.recorder);
            }
            if sent_any && self.lines.flush(token, &self.epoll).is_err() {
                failed = Some((token, *broker));
            }
        }
        let wakeup = producer.next_wakeup();
        if wakeup < self.wakeup_of[at] {
            self.wakeup_of[at] = wakeup;
            self.wakeups.push(Reverse((wakeup, at)));
        }
        if let Some((token, broker)) = failed {
            self.disconnect(token, Owner::Producer(at), broker, codes::NETWORK_EXCEPTION);
        }
    }

    fn pump_consumer(&mut self, at: usize, now: u64) {
        let brokers: Vec<i32> = self.job.consumers[at].brokers().collect();
        for broker in brokers {
            let Some(token) = self.lines.find(Owner::Consumer(at), broker) else {
                continue;
            };
            let Some(version) = self.lines.fetch_version(token) else {
                continue;
            };
            let Some(request) = self.job.consumers[at].next_request(broker, version, now) else {
                continue;
            };
            let sent = self.lines.send_fetch(token, &request);
            if sent.is_err() || self.lines.flush(token, &self.epoll).is_err() {
                self.disconnect(token, Owner::Consumer(at), broker, codes::NETWORK_EXCEPTION);
            }
        }
    }

    fn disconnect(&mut self, token: u64, owner: Owner, broker: i32, code: i16) {
        let now = sys::monotonic_ns();
        self.lines.close(token, now);
        self.recorder.at(now).reconnects += 1;
        match owner {
            Owner::Producer(at) => {
                self.job.producers[at].on_disconnect(broker, code, now, &mut self.recorder);
                self.pump_producer(at, now);
            }
            Owner::Consumer(at) => self.job.consumers[at].on_disconnect(broker),
        }
    }

    fn follow_leaders(&mut self, now: u64) {
        let version = self.job.shared.version();
        if version == self.leaders_version {
            return;
        }
        self.leaders_version = version;
        let leaders = self.job.shared.leaders();
        for (at, producer) in self.job.producers.iter_mut().enumerate() {
            producer.set_leaders(&leaders.leader, now);
            self.brokers_of[at] = producer.brokers().collect();
        }
        for consumer in &mut self.job.consumers {
            consumer.set_leaders(&leaders.leader);
        }
        self.lines.set_brokers(leaders.brokers.clone());
        self.connect_missing(now);
        for at in 0..self.job.producers.len() {
            self.pump_producer(at, now);
        }
    }

    fn connect_missing(&mut self, now: u64) {
        for (at, brokers) in self.brokers_of.iter().enumerate() {
            for broker in brokers {
                self.lines.connect(Owner::Producer(at), *broker, now, &self.epoll);
            }
        }
        for (at, consumer) in self.job.consumers.iter().enumerate() {
            for broker in consumer.brokers() {
                self.lines.connect(Owner::Consumer(at), broker, now, &self.epoll);
            }
        }
    }

    fn read_inbox(&mut self) {
        let now = sys::monotonic_ns();
        for message in self.job.shared.take_messages(self.job.index) {
            match message {
                Tell::Identity { producer, identity } => {
                    self.asked_identity.remove(&producer);
                    self.job.producers[producer].set_identity(identity, now);
                    self.pump_producer(producer, now);
                }
                Tell::Assignment { consumer, partitions } => {
                    self.job.consumers[consumer].assign(partitions);
                    self.connect_missing(now);
                    self.pump_consumer(consumer, now);
                }
            }
        }
    }

    /// What need not happen at once: reconnects, time-outs, news for the control thread.
    fn check(&mut self, now: u64) {
        if !self.stopped && self.job.shared.stop.load(Ordering::Relaxed) {
            self.stopped = true;
            for at in 0..self.job.producers.len() {
                self.job.producers[at].stop(now);
                self.pump_producer(at, now);
            }
        }
        self.drop_silent(now);
        self.connect_missing(now);
        let mut wants_metadata = false;
        for at in 0..self.job.producers.len() {
            let producer = &mut self.job.producers[at];
            wants_metadata |= std::mem::take(&mut producer.wants_metadata);
            if producer.awaits_identity() && self.asked_identity.insert(at) {
                let ask = Ask::ProducerId { worker: self.job.index, producer: at };
                self.job.shared.ask(ask);
            }
            if now >= producer.next_expiry() || producer.is_closed_loop() {
                self.pump_producer(at, now);
            }
        }
        for at in 0..self.job.consumers.len() {
            wants_metadata |= std::mem::take(&mut self.job.consumers[at].wants_metadata);
            if self.job.consumers[at].next_wakeup() <= now {
                self.pump_consumer(at, now);
            }
        }
        if wants_metadata && now >= self.asked_metadata_at + SECOND / 10 {
            self.asked_metadata_at = now;
            self.job.shared.ask(Ask::Metadata);
        }
        let drained = self.job.producers.iter().all(Producer::is_drained);
        self.job.shared.drained[self.job.index].store(drained, Ordering::Release);
    }

    /// Closes connections whose oldest request has waited too long.
    fn drop_silent(&mut self, now: u64) {
        let Some(horizon) = now.checked_sub(self.job.request_timeout_ns) else {
            return;
        };
        for (token, owner, broker) in self.lines.all() {
            let oldest = match owner {
                Owner::Producer(at) => self.job.producers[at].oldest_sent(broker),
                Owner::Consumer(at) => self.job.consumers[at].oldest_sent(broker),
            };
            if oldest.is_some_and(|sent| sent < horizon) {
                self.disconnect(token, owner, broker, codes::REQUEST_TIMED_OUT);
            }
        }
    }

    fn hand_over(&mut self, end: u64, is_last: bool) {
        let fresh = || self.job.returned.try_recv().unwrap_or_default();
        let measured = std::mem::replace(&mut self.recorder.measured, fresh());
        let warm_up = std::mem::replace(&mut self.recorder.warm_up, fresh());
        let cpu = sys::thread_cpu_ns();
        let handover = Handover {
            worker: self.job.index,
            index: self.interval,
            start: self.interval_start,
            end,
            measured,
            warm_up,
            cpu_ns: cpu - self.cpu_at_start,
            is_last,
        };
        self.interval += 1;
        self.interval_start = end;
        self.cpu_at_start = cpu;
        if self.job.handovers.send(handover).is_err() {
            // Nobody reads the books any more: the run is over.
            self.job.shared.quit.store(true, Ordering::Relaxed);
        }
    }

    fn finish(&mut self, now: u64) {
        for producer in &mut self.job.producers {
            producer.stop(now);
            producer.give_up(now, &mut self.recorder);
        }
        self.hand_over(now.max(self.interval_start + 1), true);
    }
}

//! The run's control side: one thread with a blocking client that reads metadata again and fetches producer ids, so that
//! the threads under measurement never wait for either.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use crate::{
    client::{
        admin::Admin,
        cluster::{Layout, Leaders},
    },
    group::offsets::GroupBooks,
    sys::Waker,
};

/// Metadata is read at most this often.
const REFRESH_INTERVAL: Duration = Duration::from_millis(100);

/// What a worker asks for.
#[derive(Debug)]
pub enum Ask {
    Metadata,
    ProducerId { worker: usize, producer: usize },
}

/// What a worker is told.
#[derive(Debug)]
pub enum Tell {
    Identity {
        producer: usize,
        identity: (i64, i16),
    },
    /// The partitions that a group gave to a consumer.
    Assignment {
        consumer: usize,
        partitions: BTreeSet<u32>,
    },
}

/// What the threads of a run share.
pub struct Shared {
    leaders: Mutex<Arc<Leaders>>,
    version: AtomicU64,
    inboxes: Vec<Inbox>,
    asks: Mutex<Sender<Ask>>,
    group: Mutex<GroupBooks>,
    /// Nothing more becomes due.
    pub stop: AtomicBool,
    /// Give up what is unanswered and end.
    pub quit: AtomicBool,
    /// By worker: schedule over, everything answered.
    pub drained: Vec<AtomicBool>,
}

struct Inbox {
    waker: Waker,
    messages: Mutex<Vec<Tell>>,
}

impl Shared {
    pub fn new(workers: usize, leaders: Leaders) -> std::io::Result<(Arc<Self>, Receiver<Ask>)> {
        let (asks, asked) = channel();
        let mut inboxes = Vec::new();
        for _ in 0..workers {
            inboxes.push(Inbox { waker: Waker::new()?, messages: Mutex::default() });
        }
        let shared = Self {
            leaders: Mutex::new(Arc::new(leaders)),
            version: AtomicU64::new(1),
            inboxes,
            asks: Mutex::new(asks),
            group: Mutex::default(),
            stop: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            drained: (0..workers).map(|_| AtomicBool::new(false)).collect(),
        };
        Ok((Arc::new(shared), asked))
    }

    /// What the members of the group have done so far.
    pub fn group(&self) -> MutexGuard<'_, GroupBooks> {
        self.group.lock().expect("no holder of the group's books panics")
    }

    /// Grows with every change of the leaders.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn leaders(&self) -> Arc<Leaders> {
        Arc::clone(&self.leaders.lock().expect("no holder of the leaders panics"))
    }

    fn publish(&self, leaders: Leaders) {
        *self.leaders.lock().expect("no holder of the leaders panics") = Arc::new(leaders);
        self.version.fetch_add(1, Ordering::Release);
        self.wake_all();
    }

    pub fn wake_all(&self) {
        for inbox in &self.inboxes {
            inbox.waker.wake();
        }
    }

    pub fn waker(&self, worker: usize) -> &Waker {
        &self.inboxes[worker].waker
    }

    /// Asks the control thread; it is gone only when the run is over.
    pub fn ask(&self, ask: Ask) {
        let asks = self.asks.lock().expect("no holder of the channel panics");
        if asks.send(ask).is_err() {
            self.quit.store(true, Ordering::Relaxed);
        }
    }

    pub fn tell(&self, worker: usize, tell: Tell) {
        let inbox = &self.inboxes[worker];
        inbox.messages.lock().expect("no holder of an inbox panics").push(tell);
        inbox.waker.wake();
    }

    pub fn take_messages(&self, worker: usize) -> Vec<Tell> {
        std::mem::take(&mut *self.inboxes[worker].messages.lock().expect("no holder of an inbox panics"))
    }
}

/// Serves asks until `quit`. Failures are tried again: the broker may be away for a while.
pub fn serve(shared: &Shared, asked: &Receiver<Ask>, admin: &mut Admin, layout: &Layout) {
    let mut wants_metadata = false;
    let mut pending_ids: Vec<(usize, usize)> = Vec::new();
    let mut next_refresh = Instant::now();
    while !shared.quit.load(Ordering::Relaxed) {
        match asked.recv_timeout(REFRESH_INTERVAL) {
            Ok(Ask::Metadata) => wants_metadata = true,
            Ok(Ask::ProducerId { worker, producer }) => pending_ids.push((worker, producer)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if wants_metadata && Instant::now() >= next_refresh {
            next_refresh = Instant::now() + REFRESH_INTERVAL;
            if let Ok(leaders) = admin.leaders(layout) {
                wants_metadata = leaders.leader.iter().any(Option::is_none);
                shared.publish(leaders);
            }
        }
        pending_ids.retain(|(worker, producer)| match admin.producer_id() {
            Ok(identity) => {
                shared.tell(*worker, Tell::Identity { producer: *producer, identity });
                false
            }
            Err(_) => true,
        });
    }
}

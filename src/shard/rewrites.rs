//! The broker's memory for batches that a topic wants otherwise than they came: compressed anew, without gaps.
//!
//! What comes out may be many times what the client has sent, and is held until it is stored. One budget for all cores. Whoever
//! finds no room waits in line, and holds none of it meanwhile: so nobody waits for one that waits.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use bytes::Bytes;

/// One budget, shared by the cores.
#[derive(Debug)]
pub struct RewriteMemory {
    bytes_max: usize,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    held: usize,
    last_ticket: u64,
    /// First come, first served. Bounded by the number of connections: each has one request at this stage.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    bytes: usize,
    granted: bool,
    waker: Option<Waker>,
}

/// Bytes taken of [`RewriteMemory`]; given back when dropped.
#[derive(Debug)]
pub struct Rewriting {
    memory: Arc<RewriteMemory>,
    bytes: usize,
}

impl RewriteMemory {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, line: Mutex::default() })
    }

    /// Takes `bytes` if nobody waits and there are so many.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Rewriting> {
        let bytes = self.possible(bytes);
        let mut line = self.line();
        (line.waiting.is_empty() && line.take(bytes, self.bytes_max)).then(|| self.taken(bytes))
    }

    /// Takes `bytes`, which may take a while; the caller holds nothing of this memory. More than there are in all means all of
    /// them: such a batch is rewritten while no other is.
    pub async fn take(self: &Arc<Self>, bytes: usize) -> Rewriting {
        let bytes = self.possible(bytes);
        let ticket = self.line().join(bytes);
        let mut place = Place { memory: self, ticket: Some(ticket) };
        self.serve();
        poll_fn(|context| self.line().collect(ticket, context.waker())).await;
        place.ticket = None;
        self.taken(bytes)
    }

    /// Bytes that are taken now.
    #[cfg(test)]
    #[must_use]
    pub fn held(&self) -> usize {
        self.line().held
    }

    fn possible(&self, bytes: usize) -> usize {
        bytes.min(self.bytes_max)
    }

    fn taken(self: &Arc<Self>, bytes: usize) -> Rewriting {
        Rewriting { memory: self.clone(), bytes }
    }

    fn give_back(&self, bytes: usize) {
        self.line().held -= bytes;
        self.serve();
    }

    /// Serves the line from its head, as far as there is room. Those served are woken when no lock is held any more.
    fn serve(&self) {
        let mut woken = Vec::new();
        {
            let mut line = self.line();
            while let Some(next) = line.waiting.iter().position(|entry| !entry.granted) {
                let bytes = line.waiting[next].bytes;
                if !line.take(bytes, self.bytes_max) {
                    break;
                }
                line.waiting[next].granted = true;
                woken.extend(line.waiting[next].waker.take());
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn take(&mut self, bytes: usize, bytes_max: usize) -> bool {
        let fits = self.held + bytes <= bytes_max;
        if fits {
            self.held += bytes;
        }
        fits
    }

    fn join(&mut self, bytes: usize) -> u64 {
        self.last_ticket += 1;
        self.waiting.push_back(Waiting { ticket: self.last_ticket, bytes, granted: false, waker: None });
        self.last_ticket
    }

    fn collect(&mut self, ticket: u64, waker: &Waker) -> Poll<()> {
        let at = self.waiting.iter().position(|entry| entry.ticket == ticket).expect("only its waiter takes it out");
        if self.waiting[at].granted {
            self.waiting.remove(at);
            return Poll::Ready(());
        }
        self.waiting[at].waker = Some(waker.clone());
        Poll::Pending
    }
}

impl Rewriting {
    /// The bytes that were made, as bytes that keep as much as they are, until the last of them is dropped: on whatever core that
    /// is, and whether or not the client hears of it.
    #[must_use]
    pub fn kept_by(mut self, bytes: Bytes) -> Bytes {
        self.shrink_to(bytes.len());
        Bytes::from_owner(Kept { bytes, _memory: self })
    }

    fn shrink_to(&mut self, bytes: usize) {
        if let Some(unused) = self.bytes.checked_sub(bytes) {
            self.bytes = bytes;
            self.memory.give_back(unused);
        }
    }
}

struct Kept {
    bytes: Bytes,
    _memory: Rewriting,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Rewriting {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

/// A place in the line; left when its waiter goes.
struct Place<'a> {
    memory: &'a RewriteMemory,
    /// Absent once it was served.
    ticket: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        {
            let mut line = self.memory.line();
            let Some(at) = line.waiting.iter().position(|entry| entry.ticket == ticket) else { return };
            if let Some(entry) = line.waiting.remove(at)
                && entry.granted
            {
                line.held -= entry.bytes;
            }
        }
        self.memory.serve();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn first_come_first_served_and_whoever_wants_all_gets_it_alone() {
        let memory = RewriteMemory::new(100);
        let first = memory.try_take(60).expect("there is room");
        assert!(memory.try_take(50).is_none());
        let mut all = pin!(memory.take(1000));
        let mut behind = pin!(memory.take(10));
        assert!(block_on(poll_once(all.as_mut())).is_none());
        assert!(block_on(poll_once(behind.as_mut())).is_none(), "nobody overtakes");
        assert!(memory.try_take(1).is_none());
        let first = first.kept_by(Bytes::from_static(&[7; 20]));
        assert_eq!((memory.held(), &first[..]), (20, &[7; 20][..]));
        let part = first.slice(5..);
        drop(first);
        assert_eq!(memory.held(), 20, "all of it is there as long as a part of it is");
        assert!(block_on(poll_once(all.as_mut())).is_none());
        drop(part);
        let whole = block_on(poll_once(all.as_mut())).expect("nobody holds any");
        assert_eq!(memory.held(), 100);
        assert!(block_on(poll_once(behind.as_mut())).is_none());
        drop(whole);
        drop(block_on(behind));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn giving_up_gives_back() {
        let memory = RewriteMemory::new(100);
        for served in [false, true] {
            let held = memory.try_take(100).expect("nobody holds any");
            let mut waits = Box::pin(memory.take(30));
            assert!(block_on(poll_once(waits.as_mut())).is_none());
            let mut behind = pin!(memory.take(80));
            assert!(block_on(poll_once(behind.as_mut())).is_none());
            if served {
                drop(held);
                drop(waits);
            } else {
                drop(waits);
                drop(held);
            }
            drop(block_on(poll_once(behind.as_mut())).expect("what was in its way is gone"));
            assert_eq!(memory.held(), 0, "served {served}");
        }
    }

    #[test]
    fn cores_take_turns() {
        let memory = RewriteMemory::new(100);
        let cores: Vec<_> = (0..8)
            .map(|core| {
                let memory = memory.clone();
                std::thread::spawn(move || {
                    for round in 0..200 {
                        let room = block_on(memory.take(1 + (core * 37 + round) % 120));
                        assert!(memory.held() <= 100);
                        drop(room.kept_by(Bytes::from_static(b"batch")));
                    }
                })
            })
            .collect();
        cores.into_iter().for_each(|core| core.join().expect("every one of them was served"));
        assert_eq!(memory.held(), 0);
    }
}

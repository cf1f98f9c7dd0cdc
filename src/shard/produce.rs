//! Appends, from the connection's core to the partitions'.

use std::{rc::Rc, time::Duration};

use crate::{
    base::ErrorCode,
    io::channel::{OneshotReceiver, oneshot},
    metrics::{Counter, Gauge},
    replica::Appended,
    shard::{
        call::{Answer, Call, ProducePart},
        core::Core,
    },
};

/// Batches that were handed over; their order is fixed. What is left is to wait.
pub struct ProducePending {
    core: Rc<Core>,
    parts: Vec<Part>,
    remote: Vec<OneshotReceiver<Answer>>,
    elsewhere: Option<usize>,
}

enum Part {
    Local(OneshotReceiver<Appended>),
    /// What became of one that was local.
    Decided(Appended),
    /// Which of `remote`, and which place in its answer.
    Remote(usize, usize),
}

impl Core {
    /// Hands every batch to the core that owns its partition, one message per core.
    pub(super) async fn produce(self: &Rc<Self>, batches: Vec<ProducePart>) -> ProducePending {
        let mut parts = Vec::with_capacity(batches.len());
        let mut by_core: Vec<(usize, Vec<ProducePart>)> = Vec::new();
        for batch in batches {
            let owner = self.owner(batch.key);
            if owner == self.index() {
                parts.push(Part::Local(self.append(batch)));
                continue;
            }
            let index = by_core.iter().position(|(core, _)| *core == owner).unwrap_or_else(|| {
                by_core.push((owner, Vec::new()));
                by_core.len() - 1
            });
            parts.push(Part::Remote(index, by_core[index].1.len()));
            by_core[index].1.push(batch);
        }
        let elsewhere = match &by_core[..] {
            [(owner, batches)] if batches.len() == parts.len() => Some(*owner),
            _ => None,
        };
        let mut remote = Vec::with_capacity(by_core.len());
        for (owner, batches) in by_core {
            let (_, answer) = self.call(owner, Call::Produce(batches)).await;
            remote.push(answer);
        }
        ProducePending { core: self.clone(), parts, remote, elsewhere }
    }

    /// Appends to a replica of this core.
    pub(super) fn append(&self, part: ProducePart) -> OneshotReceiver<Appended> {
        let metrics = &self.io.metrics;
        metrics.count(Counter::Appends);
        metrics.add(Counter::BytesIn, part.batch.bytes.len() as u64);
        match self.check_alive().and_then(|()| self.replica(part.key)) {
            Ok(replica) => replica.append(part.batch, part.acks),
            Err(error) => {
                let (answer, receiver) = oneshot();
                let _ = answer.send(Err(error));
                receiver
            }
        }
    }
}

impl ProducePending {
    /// The core that owns the partitions of all these batches, if that is a single core other than ours.
    #[must_use]
    pub fn elsewhere(&self) -> Option<usize> {
        self.elsewhere
    }

    /// Waits until every batch is durable or refused. What is not decided after `timeout` is `RequestTimedOut`: it may
    /// still be stored, as with Kafka.
    pub async fn wait(self, timeout: Duration) -> Vec<Appended> {
        let Self { core, mut parts, mut remote, elsewhere: _ } = self;
        let _waiting = core.io.metrics.raised(Gauge::WaitingProduces);
        let lost = Err(ErrorCode::KafkaStorageError);
        let late = Err(ErrorCode::RequestTimedOut);
        let mut from_cores: Vec<Option<Vec<Appended>>> = vec![None; remote.len()];
        let all = async {
            for (answers, answer) in from_cores.iter_mut().zip(&mut remote) {
                *answers = Some(appended(answer.await));
            }
            for part in &mut parts {
                if let Part::Local(answer) = part {
                    *part = Part::Decided(answer.await.unwrap_or(lost));
                }
            }
        };
        futures_lite::future::or(all, core.io.clock.sleep(timeout)).await;
        // In time or not: who has answered is heard, whatever the others do.
        for (answers, answer) in from_cores.iter_mut().zip(&mut remote).filter(|(answers, _)| answers.is_none()) {
            *answers = answer.try_recv().map(|answer| appended(Some(answer)));
        }
        let decided = parts.into_iter().map(|part| match part {
            Part::Decided(decided) => decided,
            Part::Local(mut answer) => answer.try_recv().unwrap_or(late),
            Part::Remote(core, place) => {
                from_cores[core].as_ref().map_or(late, |answers| answers.get(place).copied().unwrap_or(lost))
            }
        });
        // Whoever has lost its leaderships meanwhile, and has not heard of it, must not promise what the new leader may not have.
        decided.map(|decided| decided.and_then(|produced| core.check_alive().map(|()| produced))).collect()
    }
}

/// What a core says of its batches; nothing if it is gone.
fn appended(answer: Option<Answer>) -> Vec<Appended> {
    match answer {
        Some(Answer::Produce(answers)) => answers,
        Some(_) | None => Vec::new(),
    }
}

//! What a broker makes of a quorum that does what the test says: streams of committed metadata, in order or not, and
//! leadership that comes and goes.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    path::Path,
    rc::Rc,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    base::{ErrorCode, LeaderEpoch, Offset, PartitionKey, TopicId},
    controller::asks::EnsureTopic,
    io::{
        channel::{Notify, OneshotReceiver, oneshot},
        sim::{Faults, Simulation},
    },
    metadata::{CommittedBatch, Image, Place, Position},
    partition::{Isolation, TopicRules, validate},
    protocol::{
        batch::BatchBuilder,
        metadata_records::{MetadataRecord, PartitionChange, PartitionRecord, RegisterBroker},
    },
    quorum::{Event, LocalFuture, Quorum, SingleVoter},
    replica::Acks,
    shard::{OffsetsCall, ProducePart, Router, Started, recover, start_with},
    sim::broker::{DIRECTORY, NODE, Settings},
};

const CORES: usize = 3;
/// More than anything here takes.
const A_WHILE: Duration = Duration::from_millis(50);

/// A quorum whose other members are the test.
#[derive(Clone, Default)]
struct Script(Rc<State>);

#[derive(Default)]
struct State {
    events: RefCell<VecDeque<Event>>,
    news: Notify,
    /// The epoch in which the quorum takes proposals.
    leads: Cell<Option<LeaderEpoch>>,
    /// Where what is committed or proposed next begins.
    next_offset: Cell<i64>,
    /// What was proposed, as it is committed if it is.
    proposed: RefCell<VecDeque<CommittedBatch>>,
    wants_snapshot: Cell<bool>,
    /// Positions of the snapshots, and their records.
    snapshots: RefCell<Vec<(Position, Vec<MetadataRecord>)>>,
}

impl Quorum for Script {
    fn propose(&self, epoch: LeaderEpoch, records: Vec<MetadataRecord>) -> Result<Offset, ErrorCode> {
        if self.0.leads.get() != Some(epoch) {
            return Err(ErrorCode::NotController);
        }
        let batch = self.batch(epoch.0, &records);
        let last_offset = batch.last_offset;
        self.0.proposed.borrow_mut().push_back(batch);
        Ok(last_offset)
    }

    fn next(&self) -> LocalFuture<'_, Event> {
        Box::pin(async {
            loop {
                let event = self.0.events.borrow_mut().pop_front();
                match event {
                    Some(event) => return event,
                    None => self.0.news.notified().await,
                }
            }
        })
    }

    fn wants_snapshot(&self) -> bool {
        self.0.wants_snapshot.get()
    }

    fn snapshot<'a>(&'a self, position: Position, records: &'a [MetadataRecord]) -> LocalFuture<'a, ()> {
        self.0.wants_snapshot.set(false);
        self.0.snapshots.borrow_mut().push((position, records.to_vec()));
        Box::pin(async {})
    }
}

impl Script {
    fn tell(&self, event: Event) {
        match &event {
            Event::Gained(epoch) => self.0.leads.set(Some(*epoch)),
            Event::Lost(_) => self.0.leads.set(None),
            Event::Committed(_) | Event::Replaced { .. } => {}
        }
        self.0.events.borrow_mut().push_back(event);
        self.0.news.notify_all();
    }

    /// Records at the end of the log.
    fn batch(&self, epoch: i32, records: &[MetadataRecord]) -> CommittedBatch {
        let base_offset = Offset(self.0.next_offset.get());
        let last_offset = base_offset.plus(records.len() as i64 - 1);
        self.0.next_offset.set(last_offset.0 + 1);
        CommittedBatch { base_offset, last_offset, epoch: LeaderEpoch(epoch), records: records.to_vec() }
    }

    /// The leader of that epoch commits records.
    fn commit(&self, epoch: i32, records: &[MetadataRecord]) -> CommittedBatch {
        let batch = self.batch(epoch, records);
        self.tell(Event::Committed(batch.clone()));
        batch
    }

    fn gain(&self, epoch: i32) {
        self.tell(Event::Gained(LeaderEpoch(epoch)));
    }

    /// The broker leads no more. Its proposals are in no log but its own, or still in all.
    fn lose(&self, forgotten: bool) -> Option<CommittedBatch> {
        self.tell(Event::Lost(ErrorCode::NotController));
        let proposed = self.0.proposed.borrow_mut().pop_front();
        if let Some(batch) = proposed.as_ref().filter(|_| forgotten) {
            self.0.next_offset.set(batch.base_offset.0);
        }
        proposed
    }

    /// What the broker has proposed is committed.
    fn commit_proposed(&self) -> CommittedBatch {
        let batch = self.0.proposed.borrow_mut().pop_front().expect("something is proposed");
        self.tell(Event::Committed(batch.clone()));
        batch
    }

    fn proposals(&self) -> usize {
        self.0.proposed.borrow().len()
    }
}

/// A broker of a few cores under such a quorum.
struct Bed {
    sim: Simulation,
    script: Script,
    started: Vec<Rc<Started>>,
    fatal: Rc<RefCell<Option<String>>>,
}

impl Bed {
    fn start(seed: u64) -> Self {
        let script = Script::default();
        let quorum = script.clone();
        Self::start_under(seed, script, Rc::new(move |_| Box::new(quorum.clone())))
    }

    fn start_under(seed: u64, script: Script, quorum: Rc<dyn Fn(SingleVoter) -> Box<dyn Quorum>>) -> Self {
        let sim = Simulation::new(seed);
        let fatal: Rc<RefCell<Option<String>>> = Rc::default();
        let seeds = sim.block_on(NODE, 0, |io| async move {
            let settings = Settings::small();
            let broker = settings.broker();
            recover(&io, &broker, &settings.config, Path::new(DIRECTORY), &settings.log, CORES)
                .await
                .expect("an empty directory")
                .0
        });
        let started = seeds.into_iter().enumerate().map(|(core, seed)| {
            let (quorum, fatal) = (quorum.clone(), Rc::clone(&fatal));
            let tell = Rc::new(move |why: String| *fatal.borrow_mut() = Some(why));
            let start = |io| async move { start_with(io, seed, tell, |voter| quorum(voter)).await };
            Rc::new(sim.block_on(NODE, core, start).expect("a good seed"))
        });
        let started = started.collect();
        Self { sim, script, started, fatal }
    }

    /// With two brokers registered, of which this is one, and the given topics, by another leader.
    fn start_in_cluster(seed: u64, topics: &[u128]) -> Self {
        let bed = Self::start(seed);
        let broker = |broker_id| MetadataRecord::RegisterBroker(RegisterBroker { broker_id, ..Default::default() });
        bed.script.commit(1, &[broker(1), broker(2)]);
        for number in topics {
            bed.script.commit(1, &topic(*number, 2));
        }
        bed.settle();
        bed
    }

    /// This broker leads, and knows it.
    fn gain(&self, epoch: i32) {
        self.script.gain(epoch);
        self.settle();
    }

    fn settle(&self) {
        self.sim.run_for(A_WHILE);
    }

    fn router(&self, core: usize) -> Router {
        self.started[core].router.clone()
    }

    /// Asks for a topic on one of the cores, and does not wait.
    fn create(&self, core: usize, name: &str) -> OneshotReceiver<Result<TopicId, ErrorCode>> {
        let (answer, receiver) = oneshot();
        let (router, ask) = (self.router(core), EnsureTopic(name.to_owned()));
        self.sim.spawn_on(NODE, core, |_| async move {
            let _ = answer.send(router.control(ask).await);
        });
        receiver
    }

    /// The names of the topics, which all cores must agree about, and the offset up to which they go.
    fn topics(&self) -> (String, i64) {
        let (image, offset) = (self.router(0).image(), self.router(0).image_offset());
        for core in 1..CORES {
            assert_eq!(*self.router(core).image(), *image, "core {core}");
            assert_eq!(self.router(core).image_offset(), offset, "core {core}");
        }
        (image.topics().map(|topic| &*topic.name).collect::<Vec<_>>().join(" "), offset.0)
    }

    fn fatal(&self) -> Option<String> {
        self.fatal.borrow().clone()
    }
}

fn id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

/// The records of a topic `t<number>` that this broker leads.
fn topic(number: u128, partitions: i32) -> Vec<MetadataRecord> {
    let partition = |partition_id| {
        let (topic_id, replicas, isr) = (id(number), vec![1], vec![1]);
        MetadataRecord::Partition(PartitionRecord {
            partition_id,
            topic_id,
            replicas,
            isr,
            leader: 1,
            ..PartitionRecord::default()
        })
    };
    let topic = MetadataRecord::Topic { name: format!("t{number}"), topic_id: id(number) };
    std::iter::once(topic).chain((0..partitions).map(partition)).collect()
}

fn told(answer: &mut OneshotReceiver<Result<TopicId, ErrorCode>>) -> Option<Result<(), ErrorCode>> {
    answer.try_recv().map(|answer| answer.map(drop))
}

const REFUSED: Option<Result<(), ErrorCode>> = Some(Err(ErrorCode::NotController));

#[test]
fn what_others_commit_is_applied_on_every_core_and_nothing_is_decided() {
    let bed = Bed::start_in_cluster(1, &[1, 2]);
    bed.script.commit(2, &topic(3, 2));
    bed.script.commit(4, &[MetadataRecord::RemoveTopic { topic_id: id(1) }]);
    bed.settle();
    assert_eq!(bed.topics(), ("t2 t3".to_owned(), 11));
    for (topic, code) in [(3, None), (1, Some(ErrorCode::UnknownTopicOrPartition))] {
        let keys = (0..2).map(|partition| (PartitionKey { topic_id: id(topic), partition }, -1, -1)).collect();
        let router = bed.router(1);
        let list = OffsetsCall::List(keys, Isolation::ReadUncommitted);
        let listed = bed.sim.block_on(NODE, 1, |_| async move { router.offsets(list).await });
        assert!(listed.iter().all(|listed| listed.err() == code), "topic {topic}: {listed:?}");
    }
    for core in 0..CORES {
        let mut answer = bed.create(core, "new");
        bed.settle();
        assert_eq!(told(&mut answer), REFUSED, "core {core}");
    }
    assert_eq!((bed.script.proposals(), bed.fatal()), (0, None));
}

#[test]
fn replicas_are_where_the_metadata_places_them_in_the_role_that_it_says() {
    let bed = Bed::start_in_cluster(1, &[5]);
    let lead = |partition_id, leader| {
        let (topic_id, replicas) = (id(5), Some(vec![1, 2]));
        let change = PartitionChange { partition_id, topic_id, replicas, leader: Some(leader), ..Default::default() };
        MetadataRecord::PartitionChange(change)
    };
    let elsewhere = topic(6, 1).into_iter().map(|record| match record {
        MetadataRecord::Partition(it) => {
            MetadataRecord::Partition(PartitionRecord { replicas: vec![2], isr: vec![2], leader: 2, ..it })
        }
        other => other,
    });
    let codes = || {
        let keys = [(5, 0), (5, 1), (6, 0)].map(|(topic, partition)| PartitionKey { topic_id: id(topic), partition });
        let (router, now) = (bed.router(2), 1_700_000_000_000);
        let parts = keys.map(|key| {
            let mut batch = BatchBuilder::new();
            batch.push(now, None, Some(b"value"));
            let batch = validate(batch.build(), &TopicRules::default(), 9, now).expect("a good batch");
            ProducePart { key, batch, acks: Acks::All }
        });
        bed.sim.block_on(NODE, 2, |_| async move {
            let appended = router.produce(parts.into()).await.wait(A_WHILE).await;
            let list = OffsetsCall::List(keys.map(|key| (key, -1, -1)).into(), Isolation::ReadUncommitted);
            let listed = router.offsets(list).await.into_iter().map(|listed| listed.map(|listed| listed.offset.0));
            appended.into_iter().map(|it| it.map(|it| it.base_offset.0)).zip(listed).collect::<Vec<_>>()
        })
    };
    let (not_here, stored) = (Err(ErrorCode::NotLeaderOrFollower), |offset| (Ok(offset), Ok(offset + 1)));
    bed.script.commit(2, &elsewhere.collect::<Vec<_>>());
    bed.settle();
    assert_eq!(codes(), [stored(0), stored(0), (not_here, not_here)]);
    bed.script.commit(2, &[lead(0, 2)]);
    bed.settle();
    assert_eq!(codes(), [(not_here, not_here), stored(1), (not_here, not_here)]);
    bed.script.commit(2, &[lead(0, 1), lead(1, -1)]);
    bed.settle();
    assert_eq!(codes(), [stored(1), (not_here, not_here), (not_here, not_here)]);
    assert_eq!(bed.fatal(), None);
}

#[test]
fn a_change_is_seen_and_answered_when_it_is_committed() {
    for core in 0..CORES {
        let bed = Bed::start_in_cluster(1, &[1]);
        bed.gain(2);
        let mut answer = bed.create(core, "new");
        bed.settle();
        assert_eq!((told(&mut answer), bed.topics()), (None, ("t1".to_owned(), 4)));
        let batch = bed.script.commit_proposed();
        assert_eq!((batch.base_offset, batch.epoch), (Offset(5), LeaderEpoch(2)));
        // Not a step later.
        let mut answered = None;
        bed.sim.run_until(|| {
            answered = told(&mut answer);
            answered.is_some()
        });
        assert_eq!((answered, bed.topics().0), (Some(Ok(())), "new t1".to_owned()));
        // What changes nothing waits for nobody.
        let mut again = bed.create(core, "new");
        bed.settle();
        assert_eq!((told(&mut again), bed.script.proposals()), (Some(Ok(())), 0));
    }
}

#[test]
fn who_waits_when_leadership_goes_is_refused_and_the_decisions_are_forgotten() {
    let bed = Bed::start_in_cluster(1, &[1]);
    bed.gain(2);
    let mut answers: Vec<_> = (0..CORES).map(|core| bed.create(core, "mine")).collect();
    bed.settle();
    assert_eq!(bed.script.proposals(), 1, "one at a time");
    bed.script.lose(true);
    bed.settle();
    for answer in &mut answers {
        assert_eq!(told(answer), REFUSED);
    }
    bed.script.commit(3, &topic(2, 1));
    bed.settle();
    assert_eq!(bed.topics(), ("t1 t2".to_owned(), 6));
    // Decided against what the other leader left behind, not against what was decided here before.
    bed.gain(4);
    let mut theirs = bed.create(0, "t2");
    let mut mine = bed.create(1, "mine");
    bed.settle();
    assert_eq!((told(&mut theirs), told(&mut mine), bed.script.proposals()), (Some(Ok(())), None, 1));
    bed.script.commit_proposed();
    bed.settle();
    assert_eq!((told(&mut mine), bed.topics().0, bed.fatal()), (Some(Ok(())), "mine t1 t2".to_owned(), None));
}

#[test]
fn a_refused_proposal_may_be_committed_by_the_next_leader() {
    let bed = Bed::start_in_cluster(1, &[]);
    bed.gain(2);
    let mut answer = bed.create(2, "mine");
    bed.settle();
    let proposed = bed.script.lose(false).expect("it was proposed");
    bed.settle();
    assert_eq!((told(&mut answer), bed.topics().0), (REFUSED, String::new()));
    bed.script.tell(Event::Committed(proposed));
    bed.script.commit(3, &topic(7, 1));
    bed.settle();
    assert_eq!((bed.topics().0, bed.fatal()), ("mine t7".to_owned(), None));
}

#[test]
fn the_next_leaders_batch_ends_leadership_also_if_the_word_of_it_comes_late() {
    let bed = Bed::start_in_cluster(1, &[]);
    bed.gain(2);
    let mut answer = bed.create(0, "mine");
    bed.settle();
    let proposed = bed.script.0.proposed.borrow_mut().pop_front().expect("it was proposed");
    bed.script.0.next_offset.set(proposed.base_offset.0);
    bed.script.commit(3, &topic(7, 1));
    bed.settle();
    assert_eq!((told(&mut answer), bed.topics().0), (REFUSED, "t7".to_owned()));
    bed.script.lose(true);
    let mut later = bed.create(0, "mine");
    bed.settle();
    assert_eq!((told(&mut later), bed.fatal()), (REFUSED, None));
}

#[test]
fn a_quorum_that_takes_no_proposal_ends_leadership_at_once() {
    let bed = Bed::start_in_cluster(1, &[]);
    bed.gain(2);
    bed.script.0.leads.set(None);
    let mut answers = [bed.create(0, "a"), bed.create(1, "b")];
    bed.settle();
    assert_eq!(answers.each_mut().map(told), [REFUSED, REFUSED]);
    bed.gain(3);
    let mut answer = bed.create(0, "b");
    bed.settle();
    bed.script.commit_proposed();
    bed.settle();
    assert_eq!((told(&mut answer), bed.topics().0, bed.fatal()), (Some(Ok(())), "b".to_owned(), None));
}

#[test]
fn what_is_repeated_is_applied_once() {
    let bed = Bed::start_in_cluster(1, &[1]);
    let removal = bed.script.commit(1, &[MetadataRecord::RemoveTopic { topic_id: id(1) }]);
    let created =
        CommittedBatch { base_offset: Offset(2), last_offset: Offset(4), epoch: LeaderEpoch(1), records: topic(1, 2) };
    for batch in [&removal, &created, &created, &removal] {
        bed.script.tell(Event::Committed(batch.clone()));
    }
    bed.script.commit(1, &topic(2, 1));
    bed.settle();
    assert_eq!((bed.topics(), bed.fatal()), (("t2".to_owned(), 7), None));
}

#[test]
fn a_snapshot_takes_the_images_place_on_every_core() {
    let bed = Bed::start_in_cluster(1, &[1, 2]);
    bed.gain(2);
    let mut answer = bed.create(1, "mine");
    bed.settle();
    let broker = |broker_id| MetadataRecord::RegisterBroker(RegisterBroker { broker_id, ..Default::default() });
    let renamed = MetadataRecord::Topic { name: "t1".to_owned(), topic_id: id(4) };
    let records = [vec![broker(1), broker(2)], topic(2, 3), topic(3, 1), vec![renamed]].concat();
    let position = Position { last_offset: Offset(40), epoch: LeaderEpoch(5) };
    bed.script.tell(Event::Replaced { position, records: records.clone() });
    bed.settle();
    assert_eq!((told(&mut answer), bed.topics()), (REFUSED, ("t1 t2 t3".to_owned(), 40)));
    let image = bed.router(0).image();
    assert!(image.topic_by_id(id(1)).is_none() && image.topic_by_id(id(4)).is_some());
    let mut expected = Image::default();
    records.iter().for_each(|record| expected.apply(record).expect("it fits"));
    assert_eq!(*image, expected);
    // The log goes on behind it, without what was proposed.
    bed.script.0.proposed.borrow_mut().clear();
    bed.script.0.next_offset.set(41);
    bed.script.commit(5, &topic(5, 1));
    bed.settle();
    assert_eq!((bed.topics(), bed.fatal()), (("t1 t2 t3 t5".to_owned(), 42), None));
    bed.gain(6);
    let mut answer = bed.create(0, "new");
    bed.settle();
    bed.script.commit_proposed();
    bed.settle();
    assert_eq!((told(&mut answer), bed.fatal()), (Some(Ok(())), None));
}

#[test]
fn the_quorums_own_batches_take_offsets_and_change_nothing() {
    let bed = Bed::start_in_cluster(1, &[1]);
    bed.gain(2);
    for _ in 0..2 {
        let own = CommittedBatch { records: Vec::new(), ..bed.script.batch(2, &[MetadataRecord::NoOp]) };
        bed.script.tell(Event::Committed(own));
        bed.settle();
        let mut answer = bed.create(0, "new");
        bed.settle();
        if bed.script.proposals() > 0 {
            bed.script.commit_proposed();
            bed.settle();
        }
        assert_eq!(told(&mut answer), Some(Ok(())));
    }
    assert_eq!((bed.topics().0, bed.fatal()), ("new t1".to_owned(), None));
}

/// Tells what must not be, and looks: the process ends with words, and nothing more is applied or decided.
fn check_fatal(what: impl FnOnce(&Bed), words: &str) {
    let bed = Bed::start_in_cluster(1, &[1]);
    bed.gain(2);
    let mut waits = bed.create(1, "mine");
    bed.settle();
    what(&bed);
    bed.script.commit(9, &topic(8, 1));
    bed.settle();
    let mut late = bed.create(2, "late");
    bed.settle();
    assert_eq!(bed.fatal().as_deref(), Some(words));
    assert_eq!(bed.topics(), ("t1".to_owned(), 4), "{words}");
    assert_eq!((told(&mut waits), told(&mut late)), (REFUSED, REFUSED), "{words}");
}

#[test]
fn what_must_not_be_committed_ends_the_process_with_words() {
    let at = |bed: &Bed, base: i64, epoch: i32, records: &[MetadataRecord]| {
        bed.script.0.next_offset.set(base);
        bed.script.commit(epoch, records);
    };
    check_fatal(|bed| at(bed, 6, 3, &topic(5, 1)), "committed metadata goes on at offset 6, and 5 would be next");
    check_fatal(
        |bed| at(bed, 4, 3, &topic(5, 1)),
        "committed metadata from offset 4 to 5 is known in part: 5 would be next",
    );
    check_fatal(|bed| at(bed, 5, 1, &topic(5, 1)), "metadata of epoch 1 is committed behind that of epoch 2");
    check_fatal(
        |bed| at(bed, 5, 2, &topic(5, 8)),
        "the metadata committed at 5 is of our epoch, and we have not proposed it",
    );
    check_fatal(|bed| bed.script.gain(1), "metadata of epoch 1 is committed behind that of epoch 2");
    let again = format!("committed metadata contradicts what was before: topic t1 with id {} is there already", id(1));
    check_fatal(|bed| at(bed, 5, 3, &topic(1, 1)), &again);
}

#[test]
fn a_snapshot_is_of_what_is_applied() {
    let bed = Bed::start_in_cluster(1, &[1]);
    bed.script.0.wants_snapshot.set(true);
    bed.script.commit(3, &topic(2, 1));
    bed.script.commit(3, &topic(3, 1));
    bed.settle();
    let snapshots = bed.script.0.snapshots.borrow();
    let [(position, records)] = &snapshots[..] else { panic!("{snapshots:?}") };
    assert_eq!(*position, Position { last_offset: Offset(6), epoch: LeaderEpoch(3) });
    let mut image = Image::default();
    records.iter().for_each(|record| image.apply(record).expect("consistent"));
    assert_eq!(image.topics().map(|topic| &*topic.name).collect::<String>(), "t1t2");
}

#[test]
fn other_tasks_have_their_turns_while_a_large_batch_is_applied() {
    const PARTITIONS: i32 = 4000;
    let bed = Bed::start_in_cluster(1, &[]);
    let turns = Rc::new(Cell::new(0));
    let counted = turns.clone();
    bed.script.commit(1, &topic(1, PARTITIONS));
    bed.sim.spawn_on(NODE, 0, |io| async move {
        loop {
            io.clock.yield_now().await;
            counted.set(counted.get() + 1);
        }
    });
    bed.sim.run_until(|| bed.router(0).image_offset() > Offset(2));
    // While the image is built; the replicas come afterwards.
    assert!(turns.get() >= PARTITIONS / 512, "{} turns", turns.get());
}

/// A single voter that nobody drives but the test.
#[test]
fn the_single_voter_tells_what_is_durable_in_order_and_leads_again_after_a_failure() {
    let slot = Rc::new(RefCell::new(None));
    let taken = slot.clone();
    let keep = move |voter| -> Box<dyn Quorum> {
        *taken.borrow_mut() = Some(voter);
        Box::new(Script::default())
    };
    let bed = Bed::start_under(1, Script::default(), Rc::new(keep));
    let voter = slot.take().expect("the core of the metadata log has one");
    let sim = bed.sim.clone();
    let epoch = LeaderEpoch(0);
    let (committed, lost) = bed.sim.block_on(NODE, 0, |io| async move {
        assert_eq!(voter.propose(epoch, topic(0, 1)), Err(ErrorCode::NotController), "it has not said that it leads");
        assert_eq!(voter.next().await, Event::Gained(epoch));
        assert_eq!(voter.propose(LeaderEpoch(1), topic(0, 1)), Err(ErrorCode::NotController));
        let (mut committed, mut promised, mut lost) = (Vec::new(), Vec::new(), None);
        for number in 0..200 {
            if number == 8 {
                sim.set_faults(NODE, Faults { capacity: sim.used_bytes(NODE), ..Faults::default() });
            }
            // Several are under way at once.
            match voter.propose(epoch, topic(number, 600)) {
                Ok(last_offset) => promised.push(last_offset),
                Err(error) => panic!("{error:?}"),
            }
            if number % 4 < 3 {
                continue;
            }
            while promised.len() > committed.len() && lost.is_none() {
                match voter.next().await {
                    Event::Committed(batch) => committed.push(batch),
                    Event::Lost(error) => lost = Some(error),
                    Event::Gained(epoch) => panic!("it leads already, in {epoch}"),
                    Event::Replaced { .. } => panic!("nobody else has a snapshot"),
                }
            }
            if lost.is_some() {
                break;
            }
        }
        let told: Vec<_> = committed.iter().map(|batch| batch.last_offset).collect();
        assert_eq!(promised[..told.len()], told, "each is where it was to be");
        assert_eq!(voter.propose(epoch, topic(999, 1)), Err(ErrorCode::NotController), "it does not lead");
        loop {
            match voter.next().await {
                Event::Committed(batch) => committed.push(batch),
                Event::Gained(again) => break assert_eq!(again, epoch),
                Event::Lost(error) => panic!("{error:?} was told already"),
                Event::Replaced { .. } => panic!("nobody else has a snapshot"),
            }
        }
        sim.set_faults(NODE, Faults::default());
        io.clock.sleep(Duration::from_secs(2)).await;
        let last_offset = voter.propose(epoch, topic(999, 1)).expect("it leads");
        let Event::Committed(batch) = voter.next().await else { panic!("there is room again") };
        assert_eq!(batch.last_offset, last_offset);
        committed.push(batch);
        (committed, lost)
    });
    assert_eq!(lost, Some(ErrorCode::KafkaStorageError));
    let mut position = Position { last_offset: Offset(-1), epoch: LeaderEpoch(-1) };
    for batch in &committed {
        assert_eq!(position.place(batch), Ok(Place::Next));
        position.pass(batch);
    }
    assert!(committed.len() > 8, "{} batches", committed.len());
}

/// Leaders come and go, repeat themselves and commit what others proposed: the image is what the log says, whoever wrote it.
#[test]
fn whatever_the_leaders_do_the_image_is_what_is_committed() {
    for seed in 0..40 {
        let bed = Bed::start_in_cluster(seed, &[]);
        let dice = |sides: u64| bed.sim.below(sides);
        let (mut log, mut epoch, mut waiting) = (Vec::<CommittedBatch>::new(), 1, Vec::new());
        for number in 0..40u128 {
            let leads = bed.script.0.leads.get();
            match dice(6) {
                0 | 1 if leads.is_none() => log.push(bed.script.commit(epoch, &topic(number, 3))),
                0 | 1 => waiting.push(bed.create(dice(CORES as u64) as usize, &format!("own{number}"))),
                2 if bed.script.proposals() > 0 => log.push(bed.script.commit_proposed()),
                3 if !log.is_empty() => {
                    let known = log[dice(log.len() as u64) as usize].clone();
                    bed.script.tell(Event::Committed(known));
                }
                4 if leads.is_none() => {
                    epoch += 1;
                    bed.script.gain(epoch);
                }
                4 => {
                    epoch += 1;
                    let forgotten = dice(2) == 0;
                    if let Some(batch) = bed.script.lose(forgotten).filter(|_| !forgotten) {
                        log.push(batch.clone());
                        bed.script.tell(Event::Committed(batch));
                    }
                }
                _ => bed.settle(),
            }
            if dice(2) == 0 {
                bed.sim.run_steps(dice(30));
            } else {
                bed.settle();
            }
        }
        bed.settle();
        let mut image = Image::default();
        let apply = |batch: &CommittedBatch| batch.records.iter().for_each(|it| image.apply(it).expect("consistent"));
        log.iter().for_each(apply);
        let names = image.topics().map(|topic| &*topic.name).collect::<Vec<_>>().join(" ");
        assert_eq!((bed.topics().0, bed.fatal()), (names, None), "seed {seed}");
        // Whoever waits still has a proposal under way, or waits behind one.
        let open = waiting.iter_mut().filter_map(|answer| told(answer).is_none().then_some(())).count();
        assert!(open == 0 || bed.script.proposals() == 1, "seed {seed}: {open} wait for nothing");
    }
}

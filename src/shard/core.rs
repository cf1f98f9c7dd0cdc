//! What a core owns.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    sync::Arc,
};

use tracing::{debug, warn};

use crate::{
    base::{BrokerId, ClusterId, ErrorCode, LeaderEpoch, METADATA_KEY, Map, Offset, PartitionKey, TopicId},
    config::{BrokerConfig, TopicConfig},
    coordinator::MachineMemory,
    io::{
        Io, Mesh,
        channel::{Notify, OneshotReceiver, OneshotSender, oneshot},
    },
    log::CoreLog,
    metadata::{Image, Touched},
    partition::{AssignedRole, Assignment, Partition, TopicRules},
    peer::Link,
    replica::Replica,
    shard::{
        call::{Answer, Call, Delta, Message},
        cluster::{Cluster, TakePackets},
        control::Driver,
        coordinators::{AnyCoordinator, Kind},
        in_sync_asks::InSync,
        quota_use::QuotaUse,
        replies::ReplyMemory,
        rewrites::RewriteMemory,
        router::Bounds,
        settings,
    },
};

/// After this many partitions other tasks get a turn.
pub(super) const PARTITIONS_A_TURN: usize = 256;

/// What is the same on every core: who we are, and what all cores share.
#[derive(Clone, Debug)]
pub struct Broker {
    /// `node.id`.
    pub id: BrokerId,
    /// From `meta.properties`.
    pub cluster_id: ClusterId,
    /// What the groups of all its coordinators hold in memory, and may.
    pub group_memory: Arc<MachineMemory>,
    /// What batches that are made anew may take, until they are stored.
    pub rewrite_memory: Arc<RewriteMemory>,
    /// What its clients have used of their quotas.
    pub quota_use: Arc<QuotaUse>,
    /// What is known of the others; none if the broker stands alone.
    pub cluster: Option<Arc<Cluster>>,
}

/// What a connection's core needs to know about a topic, worked out once per change of its configuration.
#[derive(Debug)]
pub struct TopicView {
    /// The resolved configuration.
    pub config: TopicConfig,
    /// What batches are held against.
    pub rules: TopicRules,
}

/// One core: its replicas, its log, its copy of the metadata, its open calls.
pub struct Core {
    pub(super) io: Io,
    pub(super) mesh: Mesh<Message>,
    pub(super) broker: Broker,
    /// From file and command line.
    pub(super) statics: Rc<BrokerConfig>,
    /// With what was set while the broker runs.
    pub(super) config: RefCell<Rc<BrokerConfig>>,
    pub(super) log: Rc<CoreLog>,
    pub(super) image: RefCell<Rc<Image>>,
    /// The offset in the metadata log of the last record in the image.
    pub(super) image_offset: Cell<Offset>,
    pub(super) replicas: RefCell<Map<PartitionKey, Rc<Replica>>>,
    pub(super) coordinators: RefCell<Map<(Kind, i32), AnyCoordinator>>,
    pub(super) in_sync: InSync,
    /// Brokers from which followers of this core fetch; rung when others do.
    pub(super) fetchers: RefCell<Map<BrokerId, Notify>>,
    /// On the core of the metadata log only.
    pub(super) driver: RefCell<Option<Rc<Driver>>>,
    /// Takes packets of other voters', on the core of the metadata log of a broker that is one of several.
    pub(super) take_packets: OnceCell<TakePackets>,
    /// Ways to the voters' controllers.
    pub(super) controllers: RefCell<Map<BrokerId, Rc<Link>>>,
    /// Questions of this core that other cores have not answered yet.
    open_calls: RefCell<Map<u64, OneshotSender<Answer>>>,
    next_call: Cell<u64>,
    /// Calls of other cores that wait here, by (core, number).
    pub(super) parked: RefCell<Map<(usize, u64), Notify>>,
    views: RefCell<Map<TopicId, Rc<TopicView>>>,
    /// Producer ids this core may still hand out: next, end.
    pub(super) producer_ids: Cell<(i64, i64)>,
    /// What the process can do at most. Absent where there is no process around the cores.
    pub(super) bounds: OnceCell<Bounds>,
    /// What fetches may hold while they are not read.
    pub(super) replies: RefCell<Arc<ReplyMemory>>,
}

impl Core {
    pub(super) fn new(
        io: Io,
        mesh: Mesh<Message>,
        broker: Broker,
        statics: Rc<BrokerConfig>,
        log: Rc<CoreLog>,
        (image, image_offset): (Image, Offset),
    ) -> Rc<Self> {
        let config = RefCell::new(dynamic(&statics, &image));
        Rc::new(Self {
            io,
            mesh,
            broker,
            statics,
            config,
            log,
            image: RefCell::new(Rc::new(image)),
            image_offset: Cell::new(image_offset),
            replicas: RefCell::default(),
            coordinators: RefCell::default(),
            in_sync: InSync::default(),
            fetchers: RefCell::default(),
            driver: RefCell::default(),
            take_packets: OnceCell::new(),
            controllers: RefCell::default(),
            open_calls: RefCell::default(),
            next_call: Cell::new(0),
            parked: RefCell::default(),
            views: RefCell::default(),
            producer_ids: Cell::new((0, 0)),
            bounds: OnceCell::new(),
            replies: RefCell::new(ReplyMemory::boundless()),
        })
    }

    /// Which core this is.
    pub(super) fn index(&self) -> usize {
        self.mesh.core()
    }

    /// The core that owns a partition.
    pub(super) fn owner(&self, key: PartitionKey) -> usize {
        key.core(self.mesh.cores())
    }

    /// A replica of this core.
    pub(super) fn replica(&self, key: PartitionKey) -> Result<Rc<Replica>, ErrorCode> {
        if let Some(replica) = self.replicas.borrow().get(&key) {
            return Ok(replica.clone());
        }
        let elsewhere = self.image.borrow().partition(key).is_some();
        Err(if elsewhere { ErrorCode::NotLeaderOrFollower } else { ErrorCode::UnknownTopicOrPartition })
    }

    /// The topic's configuration and batch rules.
    pub(super) fn view(&self, topic_id: TopicId) -> Option<Rc<TopicView>> {
        if let Some(view) = self.views.borrow().get(&topic_id) {
            return Some(view.clone());
        }
        let image = self.image.borrow().clone();
        let topic = image.topic_by_id(topic_id)?;
        let config = image.topic_config(&self.statics.statics, self.broker.id, &topic.name);
        let rules = settings::topic_rules(&config);
        let view = Rc::new(TopicView { config, rules });
        self.views.borrow_mut().insert(topic_id, view.clone());
        Some(view)
    }

    /// Sends a call and gives the place where its answer arrives. Waits for room on the way there.
    pub(super) async fn call(&self, core: usize, call: Call) -> (u64, OneshotReceiver<Answer>) {
        let id = self.next_call.get();
        self.next_call.set(id + 1);
        let (sender, receiver) = oneshot();
        self.open_calls.borrow_mut().insert(id, sender);
        let unsent = Unsent { core: self, id };
        self.mesh.send(core, Message::Call { from: self.index(), id, call }).await;
        std::mem::forget(unsent);
        (id, receiver)
    }

    /// Hands an answer to whoever asked.
    pub(super) fn answered(&self, id: u64, answer: Answer) {
        let asker = self.open_calls.borrow_mut().remove(&id);
        match asker {
            Some(asker) => {
                let _ = asker.send(answer);
            }
            None => debug!(id, "answer to a call that nobody waits for"),
        }
    }

    /// Takes committed metadata as this core's image and makes replicas and coordinators follow. Costs what is touched, and
    /// leaves turns to others: a topic may have 10,000 partitions.
    pub(super) async fn apply(self: &Rc<Self>, delta: &Delta) {
        let before = self.image.replace(Rc::new(delta.image.clone()));
        self.image_offset.set(delta.last_offset);
        for topic_id in &delta.touched.removed {
            self.remove_topic(&before, *topic_id).await;
            self.views.borrow_mut().remove(topic_id);
        }
        for some in delta.touched.partitions.chunks(PARTITIONS_A_TURN) {
            // A topic that came and went in one change has no partition any more.
            some.iter().filter(|key| delta.image.partition(**key).is_some()).for_each(|key| {
                self.reassign(*key);
                self.follow_leadership(*key);
            });
            if some.len() == PARTITIONS_A_TURN {
                self.io.clock.yield_now().await;
            }
        }
        self.reconfigure(&delta.touched).await;
    }

    /// Makes an empty replica of a partition, if it is this core's, placed on this broker and not there yet.
    pub(super) fn own(self: &Rc<Self>, key: PartitionKey) {
        if self.owner(key) != self.index() || self.replicas.borrow().contains_key(&key) {
            return;
        }
        let (Some(view), Some(topic)) =
            (self.view(key.topic_id), self.image.borrow().topic_by_id(key.topic_id).cloned())
        else {
            warn!(partition = %key, "partition of an unknown topic");
            return;
        };
        let Some(assignment) = self.assignment(key) else { return };
        let log = self.log.create(key, &topic.name, settings::log_config(&view.config));
        let partition = Partition::restored(&assignment, Default::default());
        self.adopt(&topic.name, Replica::new(self.io.clone(), log, partition));
    }

    /// The metadata has changed for a partition: its replica, if there is to be one here, takes its new role. One that is to
    /// be here no more serves nobody and follows nobody; its records stay.
    fn reassign(self: &Rc<Self>, key: PartitionKey) {
        let replica = self.replicas.borrow().get(&key).cloned();
        match (replica, self.assignment(key)) {
            (Some(replica), Some(assignment)) => {
                replica.assign(&assignment);
                self.fetch_for(&replica);
            }
            (Some(replica), None) => {
                let image = self.image.borrow();
                let Some(partition) = image.partition(key) else { return };
                let (leader_epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch);
                let role = AssignedRole::Follower { leader: None };
                replica.assign(&Assignment { leader_epoch, partition_epoch, min_in_sync_replicas: 1, role });
            }
            (None, _) => self.own(key),
        }
    }

    /// What the metadata says of a partition to this broker; nothing if no replica is to be here.
    pub(super) fn assignment(&self, key: PartitionKey) -> Option<Assignment> {
        if key == METADATA_KEY {
            return Some(Assignment::alone(LeaderEpoch(0)));
        }
        let view = self.view(key.topic_id)?;
        Assignment::of(self.image.borrow().partition(key)?, view.config.min_insync_replicas, self.broker.id)
    }

    /// Takes a replica into this core, and a coordinator with it if its topic asks for one.
    pub(super) fn adopt(self: &Rc<Self>, topic: &str, replica: Rc<Replica>) {
        let key = replica.key();
        self.replicas.borrow_mut().insert(key, replica.clone());
        self.coordinate(topic, &replica);
        self.fetch_for(&replica);
    }

    async fn remove_topic(&self, before: &Image, topic_id: TopicId) {
        let Some(topic) = before.topic_by_id(topic_id) else { return };
        for key in topic.partition_keys() {
            let replica = self.replicas.borrow_mut().remove(&key);
            if let Some(replica) = replica {
                replica.deleted();
                self.log.delete(key).await;
            }
        }
        self.topic_deleted(&topic.name);
    }

    /// Dynamic settings act at once.
    async fn reconfigure(&self, touched: &Touched) {
        if touched.broker_configured {
            let config = dynamic(&self.statics, &self.image.borrow());
            *self.config.borrow_mut() = config.clone();
            self.views.borrow_mut().clear();
            self.configure_coordinators(&config);
            let all: Vec<PartitionKey> = self.replicas.borrow().keys().copied().collect();
            return self.reconfigure_logs(all).await;
        }
        for topic_id in &touched.configured {
            self.views.borrow_mut().remove(topic_id);
            let topic = self.image.borrow().topic_by_id(*topic_id).cloned();
            if let Some(topic) = topic {
                self.reconfigure_logs(topic.partition_keys().collect()).await;
            }
        }
    }

    async fn reconfigure_logs(&self, keys: Vec<PartitionKey>) {
        for some in keys.chunks(PARTITIONS_A_TURN) {
            for key in some {
                if let (Ok(replica), Some(view)) = (self.replica(*key), self.view(key.topic_id)) {
                    replica.log().set_config(settings::log_config(&view.config));
                    // `min.insync.replicas` is one of its settings.
                    if let Some(assignment) = self.assignment(*key) {
                        replica.assign(&assignment);
                    }
                }
            }
            self.io.clock.yield_now().await;
        }
    }
}

/// A call that waits for room on its way; if it is given up, nobody answers it.
struct Unsent<'a> {
    core: &'a Core,
    id: u64,
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        self.core.open_calls.borrow_mut().remove(&self.id);
    }
}

/// The broker's settings with what was set while it ran.
fn dynamic(statics: &BrokerConfig, image: &Image) -> Rc<BrokerConfig> {
    Rc::new(statics.with(&image.layers(&statics.statics, statics.node.id)))
}

//! The coordinators of a core: who has one, and which of them act.

use std::rc::Rc;

use crate::{
    base::{ErrorCode, Map, PartitionKey},
    config::BrokerConfig,
    coordinator::{Coordinator, ImageSource},
    group::{GroupAnswer, GroupRequest, Groups},
    metadata::names::CONSUMER_OFFSETS,
    replica::Replica,
    shard::{core::Core, settings},
};

/// What a coordinator coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Groups and their offsets.
    Group,
}

impl Kind {
    /// The kind whose state lies in a topic.
    fn of_topic(name: &str) -> Option<Self> {
        match name {
            CONSUMER_OFFSETS => Some(Self::Group),
            _ => None,
        }
    }
}

/// A coordinator of any kind.
#[derive(Clone)]
pub(super) enum AnyCoordinator {
    Group(Rc<Coordinator<Groups>>),
}

impl AnyCoordinator {
    fn configure(&self, config: &BrokerConfig) {
        match self {
            Self::Group(groups) => groups.configure(settings::group_config(config)),
        }
    }

    fn topic_deleted(&self, name: &str) {
        match self {
            Self::Group(groups) => groups.topic_deleted(name),
        }
    }

    fn deleted(&self) {
        match self {
            Self::Group(groups) => groups.deleted(),
        }
    }
}

impl Core {
    /// Makes the coordinator of a partition, if its topic asks for one. It acts once it is told that it leads.
    pub(super) fn coordinate(self: &Rc<Self>, topic: &str, replica: &Rc<Replica>) {
        let Some(kind) = Kind::of_topic(topic) else { return };
        let core = Rc::downgrade(self);
        let image: ImageSource = Rc::new(move || Some(core.upgrade()?.image.borrow().clone()));
        let coordinator = match kind {
            Kind::Group => {
                let config = settings::group_config(&self.config.borrow());
                let memory = self.broker.group_memory.clone();
                let nothing = Rc::new(|action| match action {});
                let groups = Coordinator::new(self.io.clone(), replica.clone(), config, memory, image, nothing);
                AnyCoordinator::Group(groups)
            }
        };
        let key = replica.key();
        self.coordinators.borrow_mut().insert((kind, key.partition), coordinator);
        self.follow_leadership(key);
    }

    /// Tells a partition's coordinator, if it has one, who leads the partition as the metadata says.
    pub(super) fn follow_leadership(&self, key: PartitionKey) {
        let image = self.image.borrow().clone();
        let Some(topic) = image.topic_by_id(key.topic_id) else { return };
        let (Some(kind), Some(partition)) = (Kind::of_topic(&topic.name), topic.partition(key.partition)) else {
            return;
        };
        let leads = partition.leader == Some(self.broker.id);
        match self.coordinator(kind, key.partition) {
            Some(AnyCoordinator::Group(groups)) if leads => groups.lead(partition.leader_epoch),
            Some(AnyCoordinator::Group(groups)) => groups.unload(partition.leader_epoch),
            None => {}
        }
    }

    fn coordinator(&self, kind: Kind, partition: i32) -> Option<AnyCoordinator> {
        self.coordinators.borrow().get(&(kind, partition)).cloned()
    }

    /// A topic is gone: so are its coordinators, if it was one of theirs, and else they forget what belonged to it.
    pub(super) fn topic_deleted(&self, name: &str) {
        if let Some(kind) = Kind::of_topic(name) {
            let all = std::mem::take(&mut *self.coordinators.borrow_mut());
            let (gone, left): (Map<_, _>, Map<_, _>) = all.into_iter().partition(|((other, _), _)| *other == kind);
            *self.coordinators.borrow_mut() = left;
            return gone.values().for_each(AnyCoordinator::deleted);
        }
        let all: Vec<_> = self.coordinators.borrow().values().cloned().collect();
        all.iter().for_each(|coordinator| coordinator.topic_deleted(name));
    }

    /// Settings of the broker changed.
    pub(super) fn configure_coordinators(&self, config: &BrokerConfig) {
        self.coordinators.borrow().values().for_each(|coordinator| coordinator.configure(config));
    }

    /// Asks the groups of a partition that this core owns.
    pub(super) async fn group_here(&self, partition: i32, request: GroupRequest) -> Result<GroupAnswer, ErrorCode> {
        match self.coordinator(Kind::Group, partition) {
            Some(AnyCoordinator::Group(groups)) => groups.request(request).await,
            None => Err(ErrorCode::NotCoordinator),
        }
    }
}

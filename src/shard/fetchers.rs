//! The followers of a core, and who fetches for them: one fetcher for each broker that leads some of them.

use std::{cell::RefCell, rc::Rc};

use tracing::debug;

use crate::{
    base::{BrokerId, METADATA_KEY},
    io::channel::Notify,
    partition::Partition,
    peer::Link,
    replica::Replica,
    shard::{
        core::Core,
        fetcher::Fetcher,
        leader::{Leader, RemoteLeader},
    },
};

impl Core {
    /// A replica has taken its role: if it follows, somebody fetches for it from now on. The metadata's own log does not follow
    /// so: its quorum has words of its own.
    pub(super) fn fetch_for(self: &Rc<Self>, replica: &Replica) {
        let Some(leader) = replica.inspect(Partition::followed_leader) else { return };
        if replica.key() == METADATA_KEY || leader == self.broker.id {
            return;
        }
        let running = self.fetchers.borrow().get(&leader).cloned();
        match running {
            Some(changed) => changed.notify_all(),
            None => self.start_fetcher(leader),
        }
    }

    fn start_fetcher(self: &Rc<Self>, leader: BrokerId) {
        debug!(%leader, "followers of that broker fetch");
        let changed = Notify::new();
        self.fetchers.borrow_mut().insert(leader, changed.clone());
        let (this, that) = (self.clone(), self.clone());
        let followed = Box::new(move || this.followers_of(leader));
        let link = RefCell::default();
        let leader_now = Box::new(move || that.leader_at(leader, &link));
        let fetcher = Fetcher::new(self.io.clone(), changed, followed, leader_now);
        let this = self.clone();
        self.io.spawner.spawn(async move {
            fetcher.run().await;
            this.fetchers.borrow_mut().remove(&leader);
        });
    }

    fn followers_of(&self, leader: BrokerId) -> Vec<Rc<Replica>> {
        let replicas = self.replicas.borrow();
        let follows = |replica: &&Rc<Replica>| {
            replica.key() != METADATA_KEY && replica.inspect(Partition::followed_leader) == Some(leader)
        };
        replicas.values().filter(follows).cloned().collect()
    }

    /// The broker at the address that the metadata has of it now; the way there is kept as long as that stays.
    fn leader_at(self: &Rc<Self>, leader: BrokerId, known: &Known) -> Option<Rc<dyn Leader>> {
        let image = self.image.borrow().clone();
        let among_brokers = &self.statics.listeners.inter_broker;
        let end_point = image.broker(leader)?.end_points.iter().find(|it| it.name == *among_brokers)?;
        let address = (end_point.host.clone(), end_point.port);
        if let Some((_, leader)) = known.borrow().as_ref().filter(|(there, _)| *there == address) {
            return Some(leader.clone());
        }
        let me = self.broker.id;
        let link = Link::new(&self.io, &format!("broker-{me}-fetcher-{}", self.index()), &address.0, address.1);
        let core = self.clone();
        let broker_epoch = move || core.image.borrow().broker(me).map_or(-1, |broker| broker.broker_epoch);
        let leader: Rc<dyn Leader> = Rc::new(RemoteLeader::new(link, me, Rc::new(broker_epoch)));
        *known.borrow_mut() = Some((address, leader.clone()));
        Some(leader)
    }
}

/// Where a broker was, and the way there.
type Known = RefCell<Option<((String, u16), Rc<dyn Leader>)>>;

//! All logs of one core, by their partitions.

use std::{cell::RefCell, rc::Rc};

use crate::{
    base::{Map, PartitionKey},
    log::{core::Core, partition_log::Log, slots::Slot},
};

pub struct Logs {
    pub core: Rc<Core>,
    by_key: RefCell<Map<PartitionKey, Rc<Log>>>,
}

impl Logs {
    pub fn new(core: Rc<Core>) -> Rc<Self> {
        Rc::new(Self { core, by_key: RefCell::default() })
    }

    pub fn add(&self, log: Rc<Log>) {
        self.by_key.borrow_mut().insert(log.key(), log);
    }

    /// Takes a log out: for the core it is gone.
    pub fn remove(&self, key: PartitionKey) -> Option<Rc<Log>> {
        let log = self.by_key.borrow_mut().remove(&key)?;
        self.core.remove(log.slot());
        Some(log)
    }

    pub fn get(&self, key: PartitionKey) -> Option<Rc<Log>> {
        self.by_key.borrow().get(&key).cloned()
    }

    /// Those of these slots that have not gone.
    pub fn at(&self, slots: &[Slot]) -> Vec<Rc<Log>> {
        let by_key = self.by_key.borrow();
        let placings = slots.iter().filter_map(|slot| self.core.placing(*slot));
        placings.filter_map(|placing| by_key.get(&placing.borrow().key()).cloned()).collect()
    }

    pub fn all(&self) -> Vec<Rc<Log>> {
        self.by_key.borrow().values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.by_key.borrow().len()
    }
}

//! Slots: what lists and journal blocks hold of a log. A number instead of the log itself keeps nothing alive, and those that
//! hold it know nothing of logs.

use slab::Slab;

/// The place of a log on its core. Never that of another log, also not after it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    index: usize,
    /// Places are used again.
    serial: u64,
}

/// What lies in the slots of one core.
pub struct Slots<T> {
    slab: Slab<(u64, T)>,
    next_serial: u64,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slab: Slab::new(), next_serial: 0 }
    }
}

impl<T> Slots<T> {
    pub fn insert(&mut self, value: T) -> Slot {
        let serial = self.next_serial;
        self.next_serial += 1;
        Slot { index: self.slab.insert((serial, value)), serial }
    }

    /// What lies there, unless it has gone.
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.slab.get(slot.index).filter(|(serial, _)| *serial == slot.serial).map(|(_, value)| value)
    }

    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        self.get(slot)?;
        self.slab.try_remove(slot.index).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_leads_to_nothing_else_when_its_place_is_used_again() {
        let mut slots = Slots::default();
        let (first, other) = (slots.insert("first"), slots.insert("other"));
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.index, first.index, "the place is used again");
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!((slots.get(second), slots.get(other)), (Some(&"second"), Some(&"other")));
    }
}

//! Appending: into the partition's chunks and into the journal's current block, without waiting.

use std::rc::Rc;

use crate::{
    log::{
        journal::entry::AppendHead,
        partition_log::Log,
        placing::{Placed, STAMP_BYTES, stamp},
        room::Reservation,
        settings::LogError,
    },
    protocol::batch::BatchInfo,
};

impl Log {
    /// Appends a batch: stamps it with its offset and epoch, and copies it into the tail chunk and into the journal's
    /// current block. `info` carries the final offsets. Never waits; it counts when [`flushed`](Self::flushed) says so.
    pub fn append(self: &Rc<Self>, reservation: Reservation, batch: &[u8], info: &BatchInfo) {
        let reserved = reservation.use_for(self);
        assert!(batch.len() <= reserved && batch.len() == info.bytes as usize, "a reservation fits its batch");
        let core = &self.core;
        let mut state = self.state_mut();
        let durability = state.config().durability;
        let Placed { seal, head, changes } = state.append(batch, info, |capacity| core.io.disk.allocate(capacity));
        let released = state.release(reserved);
        drop(state);
        if let Some(seal) = seal {
            core.journal.announce_in_order(self.slot(), &seal);
        }
        let stamp = stamp(batch, info);
        let end = info.last_offset.plus(1);
        core.journal.append(self.slot(), &head, [&stamp, &batch[STAMP_BYTES..]], end, durability);
        core.memory.used(reserved);
        core.settle(self.slot(), changes.with(released));
    }

    /// Replays an append at exactly the place where it was; for recovery, which has no journal to write to.
    pub(super) fn replay(&self, head: &AppendHead, batch: &[u8], info: &BatchInfo) -> Result<(), LogError> {
        let disk = &self.core.io.disk;
        let changes = self.state_mut().replay(head, batch, info, |capacity| disk.allocate(capacity))?;
        self.core.settle(self.slot(), changes);
        Ok(())
    }
}

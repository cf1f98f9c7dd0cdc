//! A statement: a block without entries, which says that everything before it is durable.
//!
//! The last block of a journal has no successor that knows of it. If it is damaged at rest it looks like one that was torn,
//! which nobody was promised anything about, and what it has would be gone without a word. So a journal that has had nothing
//! to write for a while says that its last block was whole. Whoever waits for room, or comes meanwhile, is not held up by
//! more than one write.

use std::time::Duration;

use super::{Journal, JournalFailure, block::BlockBuilder};
use crate::log::settings::BLOCK_BYTES;

/// How long nothing was written when the journal states that everything is durable.
pub const QUIET: Duration = Duration::from_millis(100);

impl Journal {
    /// Whether somebody must wait for a quiet moment: true once for each.
    pub fn wants_watch(&self) -> bool {
        self.unstated.get() && !self.watched.replace(true)
    }

    /// Waits until nothing was written for a while, and has the writer state that everything is durable. A core that comes to
    /// rest is woken by it twice at the most, and then not again: a timer for each block would cost every append.
    /// # Errors  A sync failed. As [`run`](Self::run).
    pub async fn watch(&self) -> Result<(), JournalFailure> {
        loop {
            let before = self.next_sequence();
            self.io.clock.sleep(QUIET).await;
            if self.stopping.get() {
                return Ok(());
            }
            if self.is_quiet_since(before) {
                self.sync_unsynced(before).await?;
                if self.is_quiet_since(before) {
                    break;
                }
            }
        }
        self.watched.set(false);
        self.unstated.set(false);
        // After a checkpoint of all of it nothing depends on the journal.
        if self.ring.used_bytes() > 0 {
            let mut state = self.state.borrow_mut();
            state.statement_wanted = true;
            state.wake();
        }
        Ok(())
    }

    fn is_quiet_since(&self, sequence: u64) -> bool {
        self.next_sequence() == sequence && self.is_idle()
    }

    /// Makes durable what is only with the device of the blocks below `sequence`, all of which are written.
    async fn sync_unsynced(&self, sequence: u64) -> Result<(), JournalFailure> {
        let durable_below = self.state.borrow().durable_below;
        if durable_below == sequence {
            return Ok(());
        }
        for file in self.ring.files_since(durable_below) {
            let synced = file.plain.sync().await;
            synced.map_err(|error| JournalFailure { path: file.path().display().to_string(), position: 0, error })?;
        }
        let mut state = self.state.borrow_mut();
        state.durable_below = state.durable_below.max(sequence);
        Ok(())
    }

    /// Writes the statement, if there is a place for it without making or waiting for one. Everything before is durable.
    pub(super) async fn state_durable(&self) -> Result<(), JournalFailure> {
        let sequence = self.state.borrow().next_sequence;
        let Some(place) = self.ring.try_place(BLOCK_BYTES as u64, sequence) else { return Ok(()) };
        let mut block = BlockBuilder::new(self.io.disk.allocate(BLOCK_BYTES));
        let (.., crc) = self.finish(&mut block);
        let written = place.file.durable.write(block.into_buffer().share(), place.position).await;
        written.map_err(|error| JournalFailure::at(&place, error))?;
        let mut state = self.state.borrow_mut();
        state.previous_crc = crc;
        state.durable_below = sequence + 1;
        drop(state);
        self.done_below.set(sequence + 1);
        self.done.notify_all();
        Ok(())
    }
}

//! Room for an append, before it is accepted: memory, a journal file that its block fits into, the disk.

use std::rc::Rc;

use crate::{
    base::METADATA_KEY,
    io::is_full,
    log::{
        core::Core,
        journal::Journal,
        memory::Memory,
        partition_log::Log,
        placing::{Placing, in_blocks},
        segment::{file_name, grown},
        settings::LogError,
    },
};

/// Room for one append. Dropped unused, it is given back.
pub struct Reservation {
    /// Until it has become an append.
    log: Option<Rc<Log>>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.change(|state| state.release(self.bytes));
            log.core.memory.give_back(self.bytes);
            log.change(Placing::list_clean_tail);
        }
    }
}

impl Reservation {
    /// Bytes that the append may have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// It becomes an append of this log, which releases its bytes.
    pub(super) fn use_for(mut self, log: &Rc<Log>) -> usize {
        let reserved = self.log.take();
        assert!(reserved.is_some_and(|reserved| Rc::ptr_eq(&reserved, log)), "a reservation is for one log");
        self.bytes
    }
}

impl Placing {
    /// How many bytes of the disk should be promised before `bytes` more are accepted, and how many must.
    fn growth(&self, bytes: usize) -> (u64, u64) {
        let held = self.active().promised.max(self.active().allocated);
        let needed = u64::from(self.active().size) + self.reserved_bytes() as u64 + bytes as u64;
        if needed <= held {
            return (0, 0);
        }
        (grown(held, needed) - held, in_blocks(needed).saturating_sub(held))
    }

    /// What has been accepted, and what will be, lies in the segment's file or has been promised room there.
    #[cfg(test)]
    pub(in crate::log) fn has_its_room(&self) -> Result<(), String> {
        let active = self.active();
        let (held, needed) =
            (active.promised.max(active.allocated), u64::from(active.size) + self.reserved_bytes() as u64);
        let known = self.dead().is_none() && !active.has_unknown_length();
        if known && held < needed { Err(format!("{needed} bytes need room and have {held}")) } else { Ok(()) }
    }
}

impl Log {
    /// Takes room for an append if that needs no waiting and nobody waits already.
    #[must_use]
    pub fn try_reserve(self: &Rc<Self>, bytes: usize) -> Option<Reservation> {
        let core = &self.core;
        let growth = {
            let state = self.state();
            let ready = state.alive().is_ok() && !core.stopping.get() && state.tail_is_loaded() && !state.is_cutting();
            if !ready || state.active().has_unknown_length() || !self.line.borrow().is_empty() {
                return None;
            }
            state.growth(bytes).0
        };
        if core.journal.ring.missing_for(Journal::block_bytes(bytes)).is_some() {
            return None;
        }
        core.evict();
        if !core.memory.try_take(bytes, core.journal.has_room(bytes)) {
            return None;
        }
        // What makes room for others may have been this log's tail.
        let loaded = self.state().tail_is_loaded();
        if !loaded || (growth > 0 && !core.space.try_promise(growth)) {
            core.memory.give_back(bytes);
            return None;
        }
        Some(self.reserved(bytes, growth))
    }

    fn reserved(self: &Rc<Self>, bytes: usize, growth: u64) -> Reservation {
        self.state_mut().reserve(bytes, growth);
        Reservation { log: Some(self.clone()), bytes }
    }

    /// Takes room for an append of `bytes`: memory, journal, disk. Waits for memory and journal; calls for one partition
    /// return in the order in which they came, if the caller appends before it awaits anything else.
    /// # Errors  `Full` if the disk has no room, `Deleted`, `Stopping`, `Io` if the partition is offline.
    pub async fn reserve(self: &Rc<Self>, bytes: usize) -> Result<Reservation, LogError> {
        if let Some(reservation) = self.try_reserve(bytes) {
            return Ok(reservation);
        }
        let _turn = self.turn().await;
        let core = &self.core;
        let hopeless = || core.space.is_stuck() || core.stopping.get() || self.state().dead().is_some();
        let room_elsewhere = || {
            core.evict();
            core.journal.has_room(bytes)
        };
        if !core.memory.take(bytes, room_elsewhere, || core.want_round(), hopeless).await {
            self.state().alive()?;
            return Err(if core.stopping.get() { LogError::Stopping } else { LogError::Full });
        }
        let taken = Taken { memory: &core.memory, bytes };
        self.ensure_ring(bytes).await?;
        let growth = self.room_in_segment(bytes).await?;
        std::mem::forget(taken);
        // From here on the tail stays in memory.
        let reservation = self.reserved(bytes, growth);
        self.noted(self.load_tail().await)?;
        if core.stopping.get() {
            return Err(LogError::Stopping);
        }
        Ok(reservation)
    }

    /// Promises room in the file of the segment that the append will go to. A log that is cut meanwhile has another one.
    async fn room_in_segment(self: &Rc<Self>, bytes: usize) -> Result<u64, LogError> {
        loop {
            while self.state().is_cutting() {
                self.changed.notified().await;
            }
            self.noted(self.know_length().await)?;
            let cuts = self.state().cuts();
            let growth = self.promised(bytes).await?;
            if self.state().cuts() == cuts {
                return Ok(growth);
            }
            self.core.space.give_back(growth);
        }
    }

    /// Without the metadata's log no broker starts and no topic is deleted, which is what makes room: it may have of the
    /// margin.
    async fn promised(&self, bytes: usize) -> Result<u64, LogError> {
        let space = &self.core.space;
        let (wanted, least) = self.state().growth(bytes);
        let promised = match wanted {
            0 => Some(0),
            _ if self.key() == METADATA_KEY => self.promised_anyhow(least).await.then_some(least),
            _ => space.promise(wanted, least).await,
        };
        promised.ok_or(LogError::Full)
    }

    async fn promised_anyhow(&self, bytes: u64) -> bool {
        let Core { space, .. } = &*self.core;
        if space.promise_from_margin(bytes).await {
            return true;
        }
        self.core.give_up_ballast().await;
        space.promise_from_margin(bytes).await
    }

    /// A batch that is larger than the journal's files needs one of its own, and is not accepted before there is one.
    async fn ensure_ring(&self, bytes: usize) -> Result<(), LogError> {
        let Core { journal, space, directory, .. } = &*self.core;
        let block = Journal::block_bytes(bytes);
        let Some(missing) = journal.ring.missing_for(block) else { return Ok(()) };
        if space.promise(missing, missing).await.is_none() {
            return Err(LogError::Full);
        }
        // The books of promises are those of segments.
        space.kept(missing);
        journal.ring.ensure(block).await.map_err(|error| {
            if is_full(&error) {
                space.refuse();
                return LogError::Full;
            }
            LogError::at(directory, &error)
        })
    }

    /// Looks how long the active segment's file is, if an earlier life has made it: what is allocated there already needs no
    /// promise. Asked at the first append and not at the start, which may have thousands of partitions to begin with.
    async fn know_length(&self) -> Result<(), LogError> {
        let segment = {
            let state = self.state();
            if !state.active().has_unknown_length() {
                return Ok(());
            }
            state.active().id()
        };
        let path = self.file(&file_name(segment.base, "log"));
        let files = &self.core.files;
        let length = files.patiently(async || files.open(self.key(), segment, &path, false).await?.len().await);
        match length.await {
            Ok(length) => self.allocated(segment, length),
            // Deleted meanwhile: there is another one, or none.
            Err(_) if self.state().active().id() != segment => self.state().alive()?,
            Err(error) => {
                self.state().alive()?;
                return Err(self.file_error(segment.base, &error));
            }
        }
        Ok(())
    }

    /// Waits until the calls before have been served.
    async fn turn(self: &Rc<Self>) -> Turn {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        self.line.borrow_mut().push_back(ticket);
        let turn = Turn { log: self.clone(), ticket };
        while self.line.borrow().front() != Some(&ticket) {
            self.changed.notified().await;
        }
        turn
    }
}

/// A turn in the partition's line of appends.
struct Turn {
    log: Rc<Log>,
    ticket: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.log.line.borrow_mut().retain(|ticket| *ticket != self.ticket);
        self.log.changed.notify_all();
    }
}

/// Memory taken, on the way to a reservation.
struct Taken<'a> {
    memory: &'a Memory,
    bytes: usize,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

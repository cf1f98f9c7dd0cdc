//! One core's log as its owner sees it: started from what recovery found, and its tasks.

use std::{path::Path, rc::Rc};

use crate::{
    base::{Offset, PartitionKey},
    io::Io,
    log::{
        core::{Core, Fatal, LogSeed, PartitionSeed, StateSource},
        destage,
        logs::Logs,
        partition_log::Log,
        settings::{LogConfig, LogUsage, RecoverError},
    },
    partition::PartitionState,
};

/// A partition as it was found.
pub struct RestoredPartition {
    /// Which one.
    pub key: PartitionKey,
    /// Its topic's name.
    pub name: String,
    /// Offsets, epochs and producers, ready for `Partition::restored`.
    pub state: PartitionState,
    /// Its log.
    pub log: Rc<Log>,
}

/// One core's log. Dropping it ends its tasks; [`stop`](Self::stop) first.
pub struct CoreLog {
    pub(super) core: Rc<Core>,
    pub(super) logs: Rc<Logs>,
}

impl CoreLog {
    /// Starts one core's log from what recovery found. `fatal` is called when the process must end.
    /// # Errors  A journal file cannot be opened or made.
    pub async fn start(io: &Io, seed: LogSeed, fatal: Fatal) -> Result<(Self, Vec<RestoredPartition>), RecoverError> {
        let core = Core::new(io, &seed, fatal);
        let opened = core.journal.ring.open(&seed.journals, core.settings.journal_start_bytes).await;
        opened.map_err(|error| RecoverError::Io {
            path: core.directory.display().to_string(),
            message: error.to_string(),
        })?;
        core.space.refresh().await;
        let logs = Logs::new(core.clone());
        let mut restored = Vec::with_capacity(seed.partitions.len());
        for PartitionSeed { image, config, state, offline } in seed.partitions {
            let log = Log::restored(&core, &image, config);
            let mut encoded = Vec::new();
            image.encode(&mut encoded);
            if image.is_kept() {
                log.state_mut().keep_encoded(encoded);
            }
            if let Some(error) = offline {
                log.kill(error);
            }
            logs.add(log.clone());
            restored.push(RestoredPartition { key: image.key, name: image.name, state, log });
        }
        let core_log = Self { core, logs };
        core_log.start_tasks();
        Ok((core_log, restored))
    }

    fn start_tasks(&self) {
        let core = self.core.clone();
        self.core.spawn(async move {
            let done = |marks| core.blocks_done(marks);
            if let Err(failure) = core.journal.run(done, || core.want_round()).await {
                core.journal_failed(failure);
                // Nothing may be answered any more: hold on until the process is gone.
                std::future::pending::<()>().await;
            }
        });
        let logs = self.logs.clone();
        self.core.spawn(async move { destage::run(&logs).await });
    }

    /// Says where a partition's state comes from when a checkpoint is made. Before the first append.
    pub fn set_state_source(&self, source: StateSource) {
        *self.core.state_source.borrow_mut() = Some(source);
    }

    /// A new, empty partition. No file is touched until its first destage.
    #[must_use]
    pub fn create(&self, key: PartitionKey, topic_name: &str, config: LogConfig) -> Rc<Log> {
        let log = Log::new(&self.core, key, topic_name, config);
        self.logs.add(log.clone());
        log
    }

    /// The log of a partition that lives on this core.
    #[cfg(test)]
    #[must_use]
    pub fn log(&self, key: PartitionKey) -> Option<Rc<Log>> {
        self.logs.get(key)
    }

    /// Waits for news and returns the partitions whose durable end has moved, with that end.
    pub async fn next_flushed(&self) -> Vec<(PartitionKey, Offset)> {
        loop {
            let flushed = std::mem::take(&mut *self.core.flushed.borrow_mut());
            if !flushed.is_empty() {
                let placings = flushed.into_iter().filter_map(|slot| self.core.placing(slot));
                let news: Vec<(PartitionKey, Offset)> = placings.map(|it| it.borrow_mut().take_flushed()).collect();
                if !news.is_empty() {
                    return news;
                }
            }
            self.core.flushed_news.notified().await;
        }
    }

    /// Moves everything appended so far into segments and makes a checkpoint.
    /// # Errors  `Stopping`.
    #[cfg(test)]
    pub async fn checkpoint(&self) -> Result<(), crate::log::LogError> {
        let core = &self.core;
        // A round that is under way may have begun before the last append, so the one after it counts.
        let wanted = core.rounds_done.get() + 2;
        while core.rounds_done.get() < wanted {
            if core.stopping.get() {
                return Err(crate::log::LogError::Stopping);
            }
            core.want_round();
            core.rounds_changed.notified().await;
        }
        Ok(())
    }

    /// What this core holds.
    #[must_use]
    pub fn usage(&self) -> LogUsage {
        let core = &self.core;
        LogUsage {
            logs: self.logs.len(),
            dirty_bytes: core.memory.dirty(),
            chunk_bytes: core.memory.chunk_bytes() + core.cold.bytes(),
            journal_used_bytes: core.journal.ring.used_bytes(),
            journal_bytes: core.journal.ring.total_bytes(),
            open_files: core.files.len(),
            checkpoints: core.rounds_done.get(),
        }
    }

    /// Holds the books against what they count, at any moment: room promised on the disk, records that are in no segment,
    /// memory of chunks and of cold reads. What is reserved is at least what the logs know of.
    /// # Errors  Which one is wrong.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> Result<(), String> {
        let core = &self.core;
        let (mut promised, mut dirty, mut chunks, mut reserved) = (0, 0, 0, 0);
        for log in self.logs.all() {
            let state = log.state();
            state.has_its_room().map_err(|why| format!("{}: {why}", log.name()))?;
            promised += state.outstanding();
            reserved += state.reserved_bytes();
            for chunk in &state.chunks().0 {
                dirty += chunk.tail.published() - chunk.written;
                chunks += chunk.capacity();
            }
        }
        let memory = &core.memory;
        let books = [
            ("promised", core.space.promised() as usize, promised as usize),
            ("dirty", memory.dirty(), dirty),
            ("chunks", memory.chunk_bytes(), chunks),
            ("cold", core.cold.bytes(), core.cold.recount()),
            ("reserved", memory.reserved(), memory.reserved().max(reserved)),
        ];
        match books.into_iter().find(|(_, book, counted)| book != counted) {
            Some((what, book, counted)) => Err(format!("{what}: the book says {book}, counted are {counted}")),
            None => Ok(()),
        }
    }

    /// Whether appends are refused because the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.core.space.is_refusing()
    }

    /// The data directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.core.directory
    }
}

impl Drop for CoreLog {
    fn drop(&mut self) {
        self.core.stopping.set(true);
        self.core.journal.forget();
        self.core.journal.stop();
        self.core.work.notify_all();
        self.core.rounds_changed.notify_all();
        self.core.state_source.borrow_mut().take();
    }
}

//! The open segment files of one core, within a bound. 10,000 partitions do not keep 10,000 files open.

use std::{
    cell::{Cell, RefCell},
    io,
    path::Path,
    time::Duration,
};

use crate::{
    base::{Map, PartitionKey},
    io::{File, Io, OpenOptions, is_passing},
    log::segment::SegmentId,
};

/// How long what fails for a passing reason is tried again: for a second.
const TRIES_MAX: usize = 20;
const TRY_DELAY: Duration = Duration::from_millis(50);

pub struct Files {
    io: Io,
    open_max: usize,
    open: RefCell<Map<(PartitionKey, SegmentId), Opened>>,
    clock: Cell<u64>,
}

struct Opened {
    file: File,
    used: u64,
}

impl Files {
    pub fn new(io: &Io, open_max: usize) -> Self {
        Self { io: io.clone(), open_max: open_max.max(8), open: RefCell::default(), clock: Cell::new(0) }
    }

    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// Does what may fail because too much is open or too little memory is free: then files are closed that nobody uses, and
    /// it is tried again for a while.
    pub async fn patiently<T>(&self, mut attempt: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
        let mut tries = 0;
        loop {
            match attempt().await {
                Err(error) if is_passing(&error) && tries < TRIES_MAX => {
                    if tries == 0 {
                        tracing::warn!(%error, "a file operation is tried again");
                    }
                    tries += 1;
                    self.close_down_to(self.len() / 2);
                    self.io.clock.sleep(TRY_DELAY).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The segment's file, opened if it is not open yet.
    pub async fn open(&self, key: PartitionKey, segment: SegmentId, path: &Path, create: bool) -> io::Result<File> {
        let used = self.tick();
        if let Some(opened) = self.open.borrow_mut().get_mut(&(key, segment)) {
            opened.used = used;
            return Ok(opened.file.clone());
        }
        let file = self.io.disk.open(path, OpenOptions { create, durable: false }).await?;
        self.open.borrow_mut().insert((key, segment), Opened { file: file.clone(), used });
        self.shrink();
        Ok(file)
    }

    /// Closes the files that have not been used for longest. One in use stays open until its last operation is done.
    fn shrink(&self) {
        if self.len() > self.open_max {
            // An eighth at once, so that the search is paid for rarely.
            self.close_down_to(self.open_max - self.open_max / 8);
        }
    }

    fn close_down_to(&self, count: usize) {
        let mut open = self.open.borrow_mut();
        let mut ages: Vec<u64> = open.values().map(|opened| opened.used).collect();
        ages.sort_unstable();
        let Some(newest_closed) = ages.len().checked_sub(count + 1).map(|last| ages[last]) else { return };
        open.retain(|_, opened| opened.used > newest_closed);
    }

    /// Forgets one segment's file, or with `None` all of the partition's.
    pub fn forget(&self, key: PartitionKey, segment: Option<SegmentId>) {
        match segment {
            Some(segment) => drop(self.open.borrow_mut().remove(&(key, segment))),
            None => self.open.borrow_mut().retain(|opened, _| opened.0 != key),
        }
    }

    pub fn forget_all(&self) {
        self.open.borrow_mut().clear();
    }
}

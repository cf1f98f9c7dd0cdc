//! Many partitions' files, many a job of a thread: step by step each would cost a millisecond.
//!
//! What does not work out when records are written (a full disk, a directory that is another topic's, a failing file) is
//! left dirty for destaging's own way, which knows what to do about it.

use std::{cell::RefCell, future::Future, rc::Rc};

use crate::{
    io::{FileWrite, PieceWrite, join_all},
    log::{
        core::Core,
        destage::{Piece, dirty_pieces, wrote},
        partition_log::Log,
        segment::{file_name, grown},
    },
};

/// A job is closed when it has so many files, or so many bytes: what a thread does without looking up. Records lie in the
/// chunks' own memory; side files are made for the job.
pub const JOB_FILES: usize = 64;
pub const JOB_BYTES: usize = 4 << 20;

/// Jobs at the same time: the threads always find the next one waiting.
const JOBS_MAX: usize = 4;

/// What one job writes of one segment.
struct Part {
    log: Rc<Log>,
    pieces: Vec<Piece>,
}

/// Writes what is dirty in these logs, as far as that goes smoothly. A log is asked for when the ones before it are on
/// their way.
pub async fn write_many(core: &Rc<Core>, logs: impl Iterator<Item = Rc<Log>>) {
    let mut parts = logs.flat_map(|log| parts(&log)).fuse();
    in_jobs(|| next_job(&mut parts), |job| write_job(core, job)).await;
}

/// Does one job after the other, a few at the same time, until there is no next one.
pub async fn in_jobs<J, F: Future<Output = ()>>(next: impl FnMut() -> Option<J>, work: impl Fn(J) -> F) {
    let next = RefCell::new(next);
    let worker = || async {
        loop {
            let job = next.borrow_mut()();
            let Some(job) = job else { return };
            work(job).await;
        }
    };
    join_all((0..JOBS_MAX).map(|_| worker())).await;
}

/// One part for each segment with dirty bytes.
fn parts(log: &Rc<Log>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for piece in dirty_pieces(log) {
        match parts.last_mut().filter(|part| part.pieces[0].segment == piece.segment) {
            Some(part) => part.pieces.push(piece),
            None => parts.push(Part { log: log.clone(), pieces: vec![piece] }),
        }
    }
    parts
}

fn next_job(parts: &mut impl Iterator<Item = Part>) -> Option<Vec<(Part, FileWrite)>> {
    let (mut job, mut bytes) = (Vec::new(), 0);
    while job.len() < JOB_FILES && bytes < JOB_BYTES {
        let Some(part) = parts.next() else { break };
        let write = part.write();
        bytes += write.bytes();
        job.push((part, write));
    }
    (!job.is_empty()).then_some(job)
}

impl Part {
    fn write(&self) -> FileWrite {
        let pieces = self.pieces.iter().map(|piece| PieceWrite {
            position: piece.position(),
            buffer: piece.buffer.clone(),
            range: piece.range(),
        });
        FileWrite {
            path: self.log.file(&file_name(self.pieces[0].segment.base, "log")),
            mark: self.log.directory_mark(),
            grown,
            pieces: pieces.collect(),
        }
    }
}

async fn write_job(core: &Rc<Core>, job: Vec<(Part, FileWrite)>) {
    let (parts, writes): (Vec<Part>, Vec<FileWrite>) = job.into_iter().unzip();
    let _busy: Vec<_> = parts.iter().map(|part| part.log.busy()).collect();
    for (Part { log, pieces }, written) in parts.iter().zip(core.io.disk.write_files(writes).await) {
        match written {
            Ok(length) => {
                log.state_mut().made_directory();
                log.allocated(pieces[0].segment, length);
                pieces.iter().for_each(|piece| wrote(core, log, piece));
            }
            Err(error) => tracing::debug!(partition = %log.key(), %error, "written step by step instead"),
        }
    }
}

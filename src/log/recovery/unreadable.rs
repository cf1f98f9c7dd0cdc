//! Journal files of which the disk cannot read a part. Most of a ring does not count at any time, so a bad sector there is
//! no reason not to start; where the next block of the log may lie it is.

use std::io;

use crate::{
    io::{File, Slice},
    log::{
        journal::block::{BlockHeader, Incarnation},
        settings::BLOCK_BYTES,
    },
};

/// A file that cannot be read as a whole is read in pieces of this size, and those that fail block by block.
const PIECE_BYTES: u64 = 256 << 10;

/// With more bad blocks than this the disk is gone, and every one of them may take it seconds.
const UNREADABLE_MAX: usize = 256;

/// A position in one of the journal's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: usize,
    pub position: u64,
}

/// The bytes of a file, zeros where it cannot be read, and the positions of the blocks where that is.
/// # Errors  `error`, if too much cannot be read.
pub async fn read_around(file: &File, size: u64, error: io::Error) -> io::Result<(Slice, Vec<u64>)> {
    let mut bytes = vec![0; size as usize];
    let mut unreadable = Vec::new();
    for start in (0..size).step_by(PIECE_BYTES as usize) {
        let end = (start + PIECE_BYTES).min(size);
        if let Ok(piece) = file.read(start, (end - start) as usize).await {
            bytes[start as usize..end as usize].copy_from_slice(&piece);
            continue;
        }
        for position in (start..end).step_by(BLOCK_BYTES) {
            let length = BLOCK_BYTES.min((end - position) as usize);
            match file.read(position, length).await {
                Ok(block) => bytes[position as usize..position as usize + length].copy_from_slice(&block),
                Err(_) => unreadable.push(position),
            }
            if unreadable.len() > UNREADABLE_MAX {
                return Err(error);
            }
        }
    }
    Ok((bytes.into(), unreadable))
}

/// The block with which the log would go on behind its end.
pub struct Next<'a> {
    pub incarnation: &'a Incarnation,
    pub sequence: u64,
    /// Where the blocks of this life end, with their sequences.
    pub ends: &'a [(u64, Place)],
    pub unreadable: &'a [Place],
}

impl Next<'_> {
    /// The place that cannot be read and may hold a part of the block. It lies behind the one before it, or at the beginning
    /// of another of the core's files, which are given with their sizes.
    pub async fn may_be_lost<'f>(&self, files: impl Iterator<Item = (usize, &'f File, u64)>) -> Option<Place> {
        let before = self.ends.iter().find(|(sequence, _)| sequence + 1 == self.sequence).map(|(_, end)| *end);
        if before.is_none() && self.sequence > 0 {
            // Its own place cannot be told.
            return self.unreadable.first().copied();
        }
        for (index, file, size) in files {
            let behind = before.filter(|end| end.file == index).map(|end| end.position);
            for position in [Some(0), behind].into_iter().flatten().filter(|position| *position < size) {
                let place = Place { file: index, position };
                if self.unreadable.contains(&place) {
                    return Some(place);
                }
                // A header that is not there means that the block was never whole.
                let Ok(front) = file.read(position, BLOCK_BYTES).await else { return Some(place) };
                let Ok(header) = BlockHeader::peek(&front) else { continue };
                if (header.incarnation, header.sequence) == (*self.incarnation, self.sequence) {
                    let block = position..position + header.padded() as u64;
                    let lost = self.unreadable.iter().find(|it| it.file == index && block.contains(&it.position));
                    if lost.is_some() {
                        return lost.copied();
                    }
                }
            }
        }
        None
    }
}

//! Room that is kept for a full disk, as a file that can be given up.
//!
//! While the broker runs, most of it may go to bring what was accepted into its segments. The rest is for the next start:
//! whatever fills the disk, a start needs some blocks of its own (a checkpoint, the manifest, the metadata's next record)
//! before it can serve, and delete topics, which makes room. What a start has used it takes back from what its earlier life
//! has left.

use std::{io, path::Path};

use crate::{
    io::{Io, OpenOptions},
    log::names::BALLAST,
};

/// The part of the ballast that only a start gives up.
const START_PART: u64 = 4;

/// The part that is given up at once while the broker runs: whoever fills the disk takes what is not needed.
const STEP_PART: u64 = 8;

/// The part that a start leaves free for what the broker does next, if there is no more.
const FREE_PART: u64 = 128;

const BLOCK: u64 = crate::log::settings::BLOCK_BYTES as u64;

/// How much a start should find free.
pub fn start_bytes(ballast_bytes: u64) -> u64 {
    (ballast_bytes / START_PART).next_multiple_of(BLOCK)
}

/// Before a start writes anything: gives all of the ballast up if there is little room.
pub async fn make_room(io: &Io, directory: &Path, ballast_bytes: u64) {
    let free = io.disk.free_bytes(directory).await.unwrap_or(u64::MAX);
    if free < start_bytes(ballast_bytes) && io.disk.remove_file(&directory.join(BALLAST)).await.is_ok() {
        tracing::warn!(free, "the disk is full: the ballast is given up for the start");
    }
}

/// While the broker runs: gives up a step of what is not kept for the next start. Returns whether there was one.
pub async fn give_up(io: &Io, directory: &Path, ballast_bytes: u64) -> bool {
    let (kept, step) = (start_bytes(ballast_bytes), (ballast_bytes / STEP_PART).next_multiple_of(BLOCK));
    let cut = async {
        let file = io.disk.open(&directory.join(BALLAST), OpenOptions { create: false, durable: false }).await?;
        let length = file.len().await?;
        let much = length > kept;
        if much {
            file.truncate(length.saturating_sub(step).max(kept)).await?;
        }
        file.close().await?;
        Ok::<_, io::Error>(much)
    };
    let given = cut.await.unwrap_or(false);
    if given {
        tracing::warn!("the disk is full: a part of the ballast is given up to bring records into their segments");
    }
    given
}

/// Makes the ballast, or makes it whole again: as large as it should be if as much again stays free, and after a start
/// on a full disk as large as can be.
pub async fn put_ballast(io: &Io, directory: &Path, bytes: u64) {
    let path = directory.join(BALLAST);
    if bytes == 0 {
        return;
    }
    let made = async {
        let free = io.disk.free_bytes(directory).await?;
        let there = io.disk.exists(&path).await;
        let little = free < 2 * bytes;
        let free = if little { free.saturating_sub(bytes / FREE_PART) } else { free };
        if !there && free < BLOCK {
            return Ok((0, bytes));
        }
        let file = io.disk.open(&path, OpenOptions { create: true, durable: false }).await?;
        let length = file.len().await?;
        let target = bytes.min(length + free) / BLOCK * BLOCK;
        if target <= length {
            return Ok((length, bytes));
        }
        if file.allocate(length, target - length).await.is_err() {
            file.truncate(length).await?;
        }
        let length = file.len().await?;
        // A power cut may otherwise take the new one and not bring the old one back.
        file.sync().await?;
        file.close().await?;
        io.disk.sync_dir(directory).await?;
        Ok::<_, io::Error>((length, bytes))
    };
    match made.await {
        Ok((length, bytes)) if length < bytes => {
            tracing::warn!(length, bytes, "there is no room for the whole ballast");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, bytes, "there is no ballast"),
    }
}

/// Makes the ballast whole again once there is room.
pub async fn restore(io: &Io, directory: &Path, bytes: u64) {
    let free = io.disk.free_bytes(directory).await.unwrap_or(0);
    if bytes > 0 && free >= 2 * bytes {
        put_ballast(io, directory, bytes).await;
    }
}

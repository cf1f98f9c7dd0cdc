//! What an earlier life says of itself: its manifest, and the checkpoint of each of its cores that counts.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::{
    io::{DirEntry, Io},
    log::{
        checkpoint::{Checkpoint, Manifest},
        names::{
            MANIFEST, checkpoint_name, is_partition_directory, is_temporary, life_of_checkpoint, old_checkpoint_name,
            parse_journal_name, parse_rescue_name,
        },
        settings::RecoverError,
        wire::Unreadable,
    },
};

/// Reads the manifest. `None` if nothing was ever served from here.
/// # Errors  It is damaged, or is not there although it must have been.
pub async fn read_manifest(io: &Io, directory: &Path, entries: &[DirEntry]) -> Result<Option<Manifest>, RecoverError> {
    let path = directory.join(MANIFEST);
    if !entries.iter().any(|entry| entry.name == MANIFEST) {
        return match remains(io, directory, entries).await? {
            Some(found) => Err(RecoverError::ManifestMissing { path: path.display().to_string(), found }),
            None => Ok(None),
        };
    }
    let bytes = io.disk.read_file(&path).await.map_err(|error| RecoverError::at(&path, &error))?;
    let path = path.display().to_string();
    match Manifest::decode(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(Unreadable::Newer(version)) => Err(RecoverError::Newer { path, version }),
        Err(Unreadable::Damaged) => Err(RecoverError::ManifestCorrupt { path }),
    }
}

/// # Errors  A directory has a name by way of which files are replaced, so none of that name can be.
pub fn refuse_directories(directory: &Path, entries: &[DirEntry]) -> Result<(), RecoverError> {
    match entries.iter().find(|entry| entry.is_dir && is_temporary(&entry.name)) {
        Some(entry) => Err(RecoverError::at(&directory.join(&entry.name), &std::io::ErrorKind::IsADirectory.into())),
        None => Ok(()),
    }
}

/// What only a life with a manifest can have left: journals and partitions come behind it. The checkpoints that a first
/// start makes come before it, and have nothing in them.
async fn remains(io: &Io, directory: &Path, entries: &[DirEntry]) -> Result<Option<String>, RecoverError> {
    for entry in entries {
        let remains = match entry.is_dir {
            true => is_partition_directory(&entry.name),
            false if life_of_checkpoint(&entry.name).is_some() => {
                let path = directory.join(&entry.name);
                let bytes = io.disk.read_file(&path).await.map_err(|error| RecoverError::at(&path, &error))?;
                // A torn one was never named by a manifest either.
                Checkpoint::decode(&bytes).is_ok_and(|checkpoint| !checkpoint.images.is_empty())
            }
            false => parse_journal_name(&entry.name).is_some() || parse_rescue_name(&entry.name).is_some(),
        };
        if remains {
            return Ok(Some(entry.name.clone()));
        }
    }
    Ok(None)
}

/// The checkpoint of each core that counts.
/// # Errors  One is not there whole and nothing can stand in for it, or one cannot be read.
pub async fn read_checkpoints(
    io: &Io,
    directory: &Path,
    manifest: &Manifest,
    entries: &[DirEntry],
) -> Result<Vec<Checkpoint>, RecoverError> {
    let mut checkpoints = Vec::with_capacity(manifest.cores);
    for core in 0..manifest.cores {
        let files = Files { io, directory, manifest, entries, core };
        checkpoints.push(match (manifest.clean, manifest.generations[core]) {
            (true, 0) => files.last_of_a_clean_life().await?,
            (true, generation) => files.of_generation(generation).await?,
            (false, at_least) => files.newest(at_least).await?,
        });
    }
    Ok(checkpoints)
}

/// A file in which a checkpoint should be.
enum Slot {
    Found(Checkpoint),
    Damaged,
    Absent,
}

/// The two checkpoint files of a core.
struct Files<'a> {
    io: &'a Io,
    directory: &'a Path,
    manifest: &'a Manifest,
    entries: &'a [DirEntry],
    core: usize,
}

impl Files<'_> {
    fn path(&self, generation: u64) -> PathBuf {
        let names =
            [checkpoint_name, old_checkpoint_name].map(|name| name(&self.manifest.incarnation, self.core, generation));
        let is_there = |name: &String| self.entries.iter().any(|entry| entry.name == *name);
        // A partition's directory may have the old name.
        let is_file = |name: &String| self.entries.iter().any(|entry| entry.name == *name && !entry.is_dir);
        let [new, old] = names;
        self.directory.join(if !is_there(&new) && is_file(&old) { old } else { new })
    }

    fn corrupt(&self, generation: u64) -> RecoverError {
        RecoverError::CheckpointCorrupt { path: self.path(generation).display().to_string() }
    }

    /// The file of all generations that are even, or odd, as this one. What cannot be read is an error: it may be the one
    /// that counts, and may be readable the next time.
    async fn read(&self, generation: u64) -> Result<Slot, RecoverError> {
        let path = self.path(generation);
        let bytes = match self.io.disk.read_file(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Slot::Absent),
            Err(error) => return Err(RecoverError::at(&path, &error)),
        };
        match Checkpoint::decode(&bytes) {
            Ok(checkpoint)
                if checkpoint.incarnation == self.manifest.incarnation
                    && checkpoint.core == self.core
                    && checkpoint.generation % 2 == generation % 2 =>
            {
                Ok(Slot::Found(checkpoint))
            }
            Err(Unreadable::Newer(version)) => Err(RecoverError::Newer { path: path.display().to_string(), version }),
            Ok(_) | Err(Unreadable::Damaged) => Ok(Slot::Damaged),
        }
    }

    /// After a clean stop the journal holds nothing that could make up for an older checkpoint.
    async fn of_generation(&self, generation: u64) -> Result<Checkpoint, RecoverError> {
        match self.read(generation).await? {
            Slot::Found(checkpoint) if checkpoint.generation == generation => Ok(checkpoint),
            Slot::Found(_) | Slot::Damaged | Slot::Absent => Err(self.corrupt(generation)),
        }
    }

    /// Version 1 of the manifest does not say which one counts. Of a life that ended in order both are whole, so a damaged
    /// one may be it; only the first generation has no other beside it.
    async fn last_of_a_clean_life(&self) -> Result<Checkpoint, RecoverError> {
        match (self.read(0).await?, self.read(1).await?) {
            (Slot::Found(even), Slot::Found(odd)) => Ok(newer(even, odd)),
            (Slot::Absent, Slot::Found(odd)) if odd.generation == 1 => Ok(odd),
            (_, Slot::Found(_)) => Err(self.corrupt(0)),
            (_, Slot::Damaged | Slot::Absent) => Err(self.corrupt(1)),
        }
    }

    /// After a crash the newer one may be torn. Then the one before it counts: the journal was not given up before the newer
    /// one was durable, and if it was since, the journal's own chain says that something is missing.
    async fn newest(&self, at_least: u64) -> Result<Checkpoint, RecoverError> {
        let newest = match (self.read(0).await?, self.read(1).await?) {
            (Slot::Found(even), Slot::Found(odd)) => newer(even, odd),
            (Slot::Found(found), other) | (other, Slot::Found(found)) => {
                let is_damaged = matches!(other, Slot::Damaged);
                let in_place_of = is_damaged.then(|| self.path(found.generation + 1));
                Checkpoint { in_place_of, ..found }
            }
            (Slot::Absent, Slot::Absent) => return Err(self.corrupt(1)),
            // Either may be the one that counted. The one that is not there may never have been, or is lost.
            (Slot::Damaged | Slot::Absent, Slot::Damaged | Slot::Absent) => {
                let [even, odd] = [0, 1].map(|generation| self.path(generation).display().to_string());
                return Err(RecoverError::CheckpointCorrupt { path: format!("{even}, like {odd},") });
            }
        };
        if newest.generation < at_least { Err(self.corrupt(at_least)) } else { Ok(newest) }
    }
}

fn newer(one: Checkpoint, other: Checkpoint) -> Checkpoint {
    if one.generation > other.generation { one } else { other }
}

//! The rescue files that an earlier life's checkpoints name.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::journals::Journals;
use crate::{
    base::{Map, PartitionKey},
    io::Io,
    log::{image::LogImage, names::rescue_name, rescue::Rescue, settings::LogError},
};

/// Rescue files by partition; in the place of one that is no use, why.
pub struct Rescues {
    directory: PathBuf,
    files: Map<PartitionKey, Result<Rescue, LogError>>,
}

impl Rescues {
    /// Opens the files that images name, and tells the journals what is in them: the second pass has to know it.
    pub async fn open(
        io: &Io,
        directory: &Path,
        images: &Map<PartitionKey, LogImage>,
        journals: &mut Journals,
    ) -> Self {
        let mut files = Map::default();
        for (key, mark) in images.iter().filter_map(|(key, image)| Some((*key, image.rescue?))) {
            let mut undecodable = false;
            let look = |block: &[u8]| undecodable |= !journals.note_rescued(block);
            let mut rescue = Rescue::open(io, directory, key, mark, look).await;
            if undecodable && let Ok(whole) = &rescue {
                let error = io::Error::new(io::ErrorKind::InvalidData, "an entry of it cannot be understood");
                rescue = Err(LogError::at(whole.path(), &error));
            }
            files.insert(key, rescue);
        }
        Self { directory: directory.to_owned(), files }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&PartitionKey, &Result<Rescue, LogError>)> {
        self.files.iter()
    }

    pub fn get(&self, key: PartitionKey) -> Option<&Result<Rescue, LogError>> {
        self.files.get(&key)
    }

    pub fn path(&self, key: PartitionKey) -> PathBuf {
        self.directory.join(rescue_name(key))
    }
}

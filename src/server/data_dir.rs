//! The data directory as a whole: one process at a time, and only directories that Ringtail wrote.

use std::{
    fmt, fs,
    fs::{File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Builder;

use crate::log::directory::{META_PROPERTIES, MetaProperties};

const LOCK_FILE: &str = ".lock";

/// Why a data directory cannot be used: one line, with the way out.
#[derive(Debug)]
pub enum DataDirError {
    /// Another process holds it.
    InUse(PathBuf),
    /// Somebody else wrote what is in there.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What gives it away.
        why: String,
    },
    /// The system refuses.
    Io {
        /// What was touched.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for DataDirError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                out,
                "{} is in use by another process: stop it, or choose another directory with --data-dir",
                path.display()
            ),
            Self::Foreign { path, why } => write!(
                out,
                "{} is left untouched: {why}; choose an empty directory with --data-dir or log.dirs",
                path.display()
            ),
            Self::Io { path, error } => {
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => "give this user the right to write there",
                    io::ErrorKind::ReadOnlyFilesystem => "the file system is mounted read-only",
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
                    _ => "check the path and the disk",
                };
                write!(out, "{}: {error}: {remedy}, or choose another directory with --data-dir", path.display())
            }
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    move |error| DataDirError::Io { path: path.to_owned(), error }
}

/// The right to use a data directory; ends with the process or when dropped.
pub struct DataDirLock {
    _file: File,
}

/// Creates the directory if need be and takes it for this process. A directory that somebody else wrote is left untouched.
/// # Errors  `InUse`, `Foreign`, or what the system says.
pub fn lock(path: &Path) -> Result<DataDirLock, DataDirError> {
    fs::create_dir_all(path).map_err(at(path))?;
    refuse_foreign(path)?;
    let lock_path = path.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
    match file.try_lock() {
        Ok(()) => Ok(DataDirLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(&lock_path)(error)),
    }
}

/// Keeps a broker from starting while the directory is read. `None` if none ever did, so that there is no file to lock.
/// # Errors  `InUse`, or what the system says.
pub fn lock_for_reading(path: &Path) -> Result<Option<DataDirLock>, DataDirError> {
    fs::read_dir(path).map_err(at(path))?;
    let lock_path = path.join(LOCK_FILE);
    let file = match File::open(&lock_path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(&lock_path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(DataDirLock { _file: file })),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(&lock_path)(error)),
    }
}

/// Whether a directory is ours or empty.
fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    if read_meta(path)?.is_some() {
        return Ok(());
    }
    // A mount point, and what a start that failed early leaves behind.
    let harmless = ["lost+found", LOCK_FILE];
    for entry in fs::read_dir(path).map_err(at(path))? {
        let name = entry.map_err(at(path))?.file_name();
        if !harmless.iter().any(|harmless| name == *harmless) {
            let why = format!("{} is in it, and no {META_PROPERTIES}", name.display());
            return Err(DataDirError::Foreign { path: path.to_owned(), why });
        }
    }
    Ok(())
}

/// Reads `meta.properties`; `None` if there is none.
/// # Errors  `Foreign` if it is not ours, or what the system says.
pub fn read_meta(path: &Path) -> Result<Option<MetaProperties>, DataDirError> {
    let file = path.join(META_PROPERTIES);
    match fs::read(&file) {
        Ok(text) => match MetaProperties::parse(&String::from_utf8_lossy(&text)) {
            Ok(meta) => Ok(Some(meta)),
            Err(why) => Err(DataDirError::Foreign { path: path.to_owned(), why }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(&file)(error)),
    }
}

/// Writes `meta.properties` of a directory in which no broker runs, so that it is there whole or not at all, also after a
/// power cut.
/// # Errors  What the system says.
pub fn write_meta(path: &Path, meta: &MetaProperties) -> Result<(), DataDirError> {
    let (file, temporary) = (path.join(META_PROPERTIES), path.join("meta.properties.tmp"));
    let write = || {
        let mut out = File::create(&temporary)?;
        out.write_all(meta.text(false).as_bytes())?;
        out.sync_all()?;
        fs::rename(&temporary, &file)?;
        File::open(path)?.sync_all()
    };
    write().map_err(at(&file))
}

/// A random id as Kafka writes it: a version 4 UUID in 22 characters of URL-safe base64, none that begins with a dash,
/// since command lines take it for an option.
/// # Errors  If the system has no randomness.
pub fn random_id() -> io::Result<String> {
    let mut random = File::open("/dev/urandom")?;
    loop {
        let mut bytes = [0; 16];
        random.read_exact(&mut bytes)?;
        let id = URL_SAFE_NO_PAD.encode(Builder::from_random_bytes(bytes).into_uuid().as_bytes());
        if !id.starts_with('-') {
            return Ok(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ringtail-data-dir-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        path
    }

    fn meta() -> MetaProperties {
        let id = || random_id().expect("Linux has randomness");
        MetaProperties { cluster_id: id(), node_id: 7, directory_id: id() }
    }

    #[test]
    fn what_is_written_is_read_and_locked_once() {
        let path = fresh("own");
        let held = lock(&path).unwrap();
        assert_eq!(read_meta(&path).unwrap(), None);
        let meta = meta();
        write_meta(&path, &meta).unwrap();
        assert_eq!(read_meta(&path).unwrap(), Some(meta));
        assert!(matches!(lock(&path), Err(DataDirError::InUse(_))));
        assert!(matches!(lock_for_reading(&path), Err(DataDirError::InUse(_))));
        drop(held);
        let reading = [lock_for_reading(&path).unwrap(), lock_for_reading(&path).unwrap()];
        assert!(matches!(lock(&path), Err(DataDirError::InUse(_))), "no broker starts meanwhile");
        drop(reading);
        lock(&path).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_untouched() {
        let path = fresh("foreign");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(META_PROPERTIES), "version=1\ncluster.id=a\nnode.id=1\ndirectory.id=b\n").unwrap();
        assert!(matches!(lock(&path), Err(DataDirError::Foreign { .. })));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "not even a lock file");
        fs::remove_dir_all(path).unwrap();
    }
}

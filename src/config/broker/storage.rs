//! Where data lies, and how often the logs are looked after.

use std::path::PathBuf;

use crate::config::{
    load::{ConfigError, Places},
    value,
    values::Values,
};

/// The logs' settings that are not a topic's. They stay as they are while the process runs.
#[derive(Clone, Debug)]
pub(crate) struct StorageConfig {
    /// The data directory.
    pub(crate) directory: PathBuf,
    /// `journal.bytes`, of all cores together.
    pub(crate) journal_bytes: u64,
    /// `log.retention.check.interval.ms`.
    pub(crate) retention_check_interval_ms: u64,
    /// `log.initial.task.delay.ms`.
    pub(crate) initial_task_delay_ms: u64,
}

impl StorageConfig {
    /// # Errors  There is not exactly one data directory.
    pub(super) fn read(values: &Values<'_>, places: &Places) -> Result<Self, ConfigError> {
        Ok(Self {
            directory: directory(values, places)?,
            journal_bytes: values.unsigned("journal.bytes"),
            retention_check_interval_ms: values.unsigned("log.retention.check.interval.ms"),
            initial_task_delay_ms: values.unsigned("log.initial.task.delay.ms"),
        })
    }
}

fn directory(values: &Values<'_>, places: &Places) -> Result<PathBuf, ConfigError> {
    let (key, given) = match values.text("log.dirs") {
        Some(given) => ("log.dirs", given),
        None => ("log.dir", values.word("log.dir")),
    };
    let mut directories = value::list(&given).filter(|directory| !directory.is_empty());
    let first = directories.next().ok_or_else(|| places.error(key, &given, "must be a directory"))?;
    if directories.next().is_some() {
        return Err(places.error(key, &given, "not supported yet: must be one directory"));
    }
    Ok(PathBuf::from(first))
}

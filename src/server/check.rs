//! `storage check`: an executor of its own, on which a directory at rest is read through.

use std::path::Path;

use super::{data_dir, settings};
use crate::{
    io::glommio::{self as backend, probe},
    log::{CheckReport, Finding, Start, directory::META_PROPERTIES},
    shard,
};

/// Verifies a data directory in which no broker runs. Changes nothing.
/// # Errors  One line: why it cannot be looked at.
pub fn check_data_dir(data_dir: &Path) -> Result<CheckReport, String> {
    let _lock = data_dir::lock_for_reading(data_dir).map_err(|error| error.to_string())?;
    let refused = match data_dir::read_meta(data_dir) {
        Ok(Some(_)) => None,
        Ok(None) => Some(format!("{} is missing", data_dir.join(META_PROPERTIES).display())),
        Err(error) => Some(error.to_string()),
    };
    let config = settings::load_config(None, &[]).map_err(|error| error.to_string())?.config;
    probe::io_uring().map_err(|unusable| unusable.to_string())?;
    let io_memory = probe::io_memory(1, backend::Door::Glommio).map_err(|unusable| unusable.to_string())?;
    let body = |_| {
        let (config, data_dir) = (config.clone(), data_dir.to_owned());
        move |io| async move { shard::check(&io, &config, &data_dir).await.map_err(|error| error.to_string()) }
    };
    let executors =
        backend::start(&[None], io_memory, backend::Door::Glommio, body).map_err(|error| error.to_string())?;
    let done = executors.join().pop().ok_or("the executor gave no answer")?;
    let mut report = done.map_err(|_| "the executor ended before its work was done")??;
    report.findings.splice(0..0, refused.map(|what| Finding { what, start: Start::Refused }));
    Ok(report)
}

//! Results for people and for programs.

pub mod html;
pub mod json;
pub mod plot;
pub mod text;

use std::{fs, io::Write, path::Path};

use crate::failure::Failure;

/// Writes to standard output.
/// # Errors  a disk that is full behind it, or a reader that is gone.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| {
        Failure(format!("cannot write the result to standard output: {error}; give a directory with room as --out"))
    })
}

/// Writes a report file whole or not at all: beside its place first, then renamed.
/// # Errors  names the file and what to do; the results are still on the terminal.
pub fn write_file(path: &Path, content: &str) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let written = fs::File::create(&part).and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_data()
    });
    written.and_then(|()| fs::rename(&part, path)).map_err(|error| {
        // What was written stays as .part: a partial report is better than none.
        Failure(format!(
            "cannot write {}: {error}; what fitted is in {}. Give another place with --out",
            path.display(),
            part.display()
        ))
    })
}

//! The `ringtail` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringtail::cli::run()
}

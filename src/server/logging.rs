//! Where log lines go: standard output, as text or JSON, for people and for tools that wait for a line.

mod line;

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use self::line::Line;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text each.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// Which lines: `RINGTAIL_LOG`, in the syntax of tracing's `EnvFilter`.
const FILTER_VARIABLE: &str = "RINGTAIL_LOG";

/// glommio warns that it goes on without registered buffers, which is what we ask of it where memlock is short.
const DEFAULT_FILTER: &str = "info,glommio=error";

/// Starts logging; a second call changes nothing.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let colours = io::stdout().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).event_format(Line { format, colours });
    // An error says that somebody has started logging already, a test for example.
    drop(builder.try_init());
}

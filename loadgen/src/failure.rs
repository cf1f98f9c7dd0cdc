//! How the program ends when it cannot do what was asked: one line, and an exit code.

use std::fmt;

use crate::client::error::ClientError;

/// Exit codes of `run` and `self-test`; `gate` has its own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Good = 0,
    /// The broker broke its word: lost, repeated, disordered or corrupt records.
    Broken = 1,
    /// The generator itself was too late or had no CPU left: the numbers mean nothing.
    Invalid = 2,
    /// Usage, unreachable broker, full disk and the like.
    Error = 3,
}

/// An error for the user.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}

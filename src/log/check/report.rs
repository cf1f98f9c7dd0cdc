//! What a check of a directory has found.

use std::fmt;

/// What a start does about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is refused.
    Refused,
    /// This partition answers with an error where the damage is read, the others are served.
    Offline(String),
    /// It goes on, as the words say.
    GoesOn(&'static str),
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, with file and place.
    pub what: String,
    /// What a start does about it.
    pub start: Start,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Start::Refused => write!(out, "{}: a start is refused", self.what),
            Start::Offline(partition) => {
                write!(out, "{}: {partition} is offline there, the others are served", self.what)
            }
            Start::GoesOn(how) => write!(out, "{}: {how}", self.what),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Damage, in the order in which it was met.
    pub findings: Vec<Finding>,
    /// What is no damage, but should be known.
    pub notes: Vec<String>,
    /// Partitions that exist.
    pub partitions: usize,
    /// Segments that were read through.
    pub segments: usize,
    /// Batches whose sums are right.
    pub batches: u64,
    /// Journal blocks that count.
    pub blocks: usize,
}

impl CheckReport {
    pub(super) fn refused(&mut self, why: impl fmt::Display) {
        self.findings.push(Finding { what: why.to_string(), start: Start::Refused });
    }

    pub(super) fn goes_on(&mut self, what: String, how: &'static str) {
        self.findings.push(Finding { what, start: Start::GoesOn(how) });
    }
}

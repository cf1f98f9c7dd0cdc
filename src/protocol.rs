//! Bytes to meaning and back: what travels on the wire and lies in the log.

pub mod batch;
pub mod compression;
pub mod frame;
pub mod guard;
pub mod metadata_records;
pub mod offsets_records;
pub mod primitives;
pub mod quorum_packets;
pub mod versions;

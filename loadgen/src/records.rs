//! Record batches (format v2): our own encoder and reader, without an allocation per record.

pub mod batch;
pub mod compress;
pub mod reader;
pub mod stamp;

//! What the cluster consists of: brokers, topics, partitions, configs, features. State changes only by applying records.

mod image;
pub mod names;
mod snapshot;
mod stream;
mod touched;

pub use image::{Image, Inconsistent, PartitionRegistration, Topic};
pub use stream::{CommittedBatch, Place, Position, StreamError};
pub use touched::{Change, Touched};

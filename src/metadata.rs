//! What the cluster consists of: brokers, topics, partitions, configs, features. State changes only by applying records.

mod image;
pub mod names;
pub mod quotas;
mod snapshot;
mod stream;
mod touched;

pub use self::{
    image::{Image, Inconsistent, PartitionRegistration, Topic},
    stream::{CommittedBatch, Place, Position, StreamError},
    touched::{Change, Touched},
};

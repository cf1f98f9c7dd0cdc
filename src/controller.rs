//! The controller: decides what becomes of the cluster.
//!
//! A request is decided against the current image into records and an answer. The records are applied to the
//! controller's own image at once, so that the next decision sees them; the caller appends them to the metadata log and
//! gives the answer, and the records to the cores, once they are durable. If the append fails, the controller is dropped
//! and made again from the log.
//!
//! Absent on purpose: elections and fencing, which need a second broker.

pub mod asks;
mod assignment;
mod configs;
mod create;
mod delete;
mod partitions;
mod start;

use kafka_protocol::protocol::StrBytes;

use crate::base::{ErrorCode, ProducerId};
use crate::config::{BrokerConfig, Layers};
use crate::metadata::Image;
use crate::protocol::metadata_records::MetadataRecord;

pub use start::{METADATA_VERSION, METADATA_VERSION_MIN, new_leader_epoch, partitions_led};

/// Producer ids that a broker takes at a time, as in Kafka.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Most partitions that one request may create, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// The one that decides. Lives on the core of the metadata log.
#[derive(Clone, Debug)]
pub struct Controller {
    config: BrokerConfig,
    image: Image,
}

/// Why one part of a request is not done: Kafka's code, and its words where it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    code: ErrorCode,
    message: Option<String>,
}

impl Refusal {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }

    fn bare(code: ErrorCode) -> Self {
        Self { code, message: None }
    }

    fn message(&self) -> Option<StrBytes> {
        self.message.clone().map(StrBytes::from_string)
    }
}

impl Controller {
    /// A controller that goes on from the image that the metadata log left behind.
    #[must_use]
    pub fn new(config: BrokerConfig, image: Image) -> Self {
        Self { config, image }
    }

    /// The image with everything that was decided, durable or not. Nothing may be answered from it.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Gives the next block of producer ids (KIP-98) to this broker: records, and the first of
    /// [`PRODUCER_ID_BLOCK`] ids.
    /// # Errors  `UnknownServerError` when all 2⁶³ are gone.
    pub fn allocate_producer_ids(&mut self) -> Result<(Vec<MetadataRecord>, ProducerId), ErrorCode> {
        let first = self.image.next_producer_id();
        let next_producer_id = first.checked_add(PRODUCER_ID_BLOCK).ok_or(ErrorCode::UnknownServerError)?;
        let broker = self.config.node.id;
        let broker_epoch = self.image.broker(broker).map_or(-1, |broker| broker.broker_epoch);
        let records = vec![MetadataRecord::ProducerIds { broker_id: broker.0, broker_epoch, next_producer_id }];
        self.apply(&records);
        Ok((records, ProducerId(first)))
    }

    /// Applies what was just decided.
    fn apply(&mut self, records: &[MetadataRecord]) {
        for record in records {
            self.image.apply(record).expect("a decision fits the image that it was made against");
        }
    }

    fn layers(&self) -> Layers<'_> {
        self.image.layers(&self.config.statics, self.config.node.id)
    }
}

/// The elements whose key occurs more than once, once each.
fn repeated<T: Ord + Clone>(keys: impl Iterator<Item = T>) -> Vec<T> {
    let mut keys: Vec<T> = keys.collect();
    keys.sort_unstable();
    let mut repeated: Vec<T> = keys.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect();
    repeated.dedup();
    repeated
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::config::load;

    /// A controller of one broker, id 1, that has just started for the first time.
    pub(crate) fn controller(file: &str) -> Controller {
        let config = load(Some(("test.properties", file)), &[]).expect("a good file").config;
        let mut controller = Controller::new(config, Image::default());
        controller.start(Uuid::from_u128(1), 0, Vec::new(), Uuid::from_u128(0xd1));
        controller
    }

    /// Ids 1000, 1001, …
    pub(crate) fn ids() -> impl FnMut() -> Uuid {
        let mut next = 1000;
        move || {
            next += 1;
            Uuid::from_u128(next - 1)
        }
    }

    /// What was decided is exactly what the records say.
    pub(crate) fn replays(before: &Image, records: &[MetadataRecord], after: &Controller) {
        let mut image = before.clone();
        for record in records {
            let record = MetadataRecord::decode(&record.encode()).expect("ours");
            image.apply(&record).expect("consistent");
        }
        assert_eq!(&image, after.image());
    }

    #[test]
    fn producer_ids_come_in_blocks_and_never_twice() {
        let mut controller = controller("");
        let before = controller.image().clone();
        let (records, first) = controller.allocate_producer_ids().expect("ids are left");
        replays(&before, &records, &controller);
        assert_eq!(first, ProducerId(0));
        assert_eq!(controller.allocate_producer_ids().map(|(_, first)| first), Ok(ProducerId(1000)));
        let last = MetadataRecord::ProducerIds { broker_id: 1, broker_epoch: 0, next_producer_id: i64::MAX - 1 };
        controller.image.apply(&last).expect("always fits");
        assert_eq!(controller.allocate_producer_ids(), Err(ErrorCode::UnknownServerError));
    }

    #[test]
    fn repeated_names_come_once() {
        assert_eq!(repeated("banana".chars()), ['a', 'n']);
        assert!(repeated("abc".chars()).is_empty());
    }
}

//! The controller: decides what becomes of the cluster.
//!
//! A request is decided against the current image into records and an answer. The records are applied to the
//! controller's own image at once, so that the next decision sees them; the caller proposes them to the quorum and gives the
//! answer once they are committed. If they are not, or may not be, the controller is dropped with the leadership of the quorum,
//! and the next one is made from what is committed. Which broker asks, and which is registered, are arguments.
//!
//! Whether a broker is alive is what it says itself, in its heartbeats, and how long ago. That is the controller's own and in no
//! record: the next controller listens for as long as a session before it takes anybody for dead.

mod alter_partition;
pub mod asks;
mod assignment;
mod configs;
mod create;
mod delete;
mod elections;
mod features;
mod leadership;
mod liveness;
mod partitions;
mod quotas;
mod reassignments;
mod registration;
#[cfg(test)]
mod rig;
mod scram;
mod sessions;
mod start;
mod transition;

use kafka_protocol::protocol::StrBytes;

use self::sessions::Sessions;
pub use self::{
    create::default_topic,
    elections::refuse_elections,
    start::{BrokerRegistration, new_leader_epoch, partitions_led, supported_features},
};
use crate::{
    base::{BrokerId, ErrorCode, ProducerId},
    config::{BrokerConfig, Layers},
    metadata::Image,
    protocol::metadata_records::MetadataRecord,
};

/// Producer ids that a broker takes at a time, as in Kafka.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Most partitions that one request may create, as in Kafka.
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;

/// The one that decides. Lives on the core of the metadata log.
#[derive(Clone, Debug)]
pub struct Controller {
    config: BrokerConfig,
    image: Image,
    sessions: Sessions,
    /// Of the first record that is decided next.
    next_offset: i64,
    now_ms: u64,
    /// When partitions without leader were looked through.
    reviewed_ms: u64,
}

/// Why one part of a request is not done: Kafka's code, and its words where it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: ErrorCode,
    message: Option<String>,
}

impl ApiError {
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
        let sessions = Sessions::new(config.cluster.session_timeout_ms);
        Self { config, image, sessions, next_offset: 0, now_ms: 0, reviewed_ms: 0 }
    }

    /// The image with everything that was decided, committed or not. Nothing may be answered from it.
    #[cfg(test)]
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Gives the next block of producer ids (KIP-98) to a broker: records, and the first of [`PRODUCER_ID_BLOCK`] ids.
    /// # Errors  `StaleBrokerEpoch` if the broker is not registered in that epoch, `UnknownServerError` when all 2⁶³
    /// are gone.
    pub fn allocate_producer_ids(
        &mut self,
        broker: BrokerId,
        broker_epoch: i64,
    ) -> Result<(Vec<MetadataRecord>, ProducerId), ErrorCode> {
        if self.image.broker(broker).is_none_or(|registered| registered.broker_epoch != broker_epoch) {
            return Err(ErrorCode::StaleBrokerEpoch);
        }
        let first = self.image.next_producer_id();
        let next_producer_id = first.checked_add(PRODUCER_ID_BLOCK).ok_or(ErrorCode::UnknownServerError)?;
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

    /// The settings as the controller's own node has them, which is what Kafka's controller answers, too.
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
        controller.register_broker(registration(1), 0);
        controller
    }

    /// What broker 1 says of itself at its start with that number.
    pub(crate) fn registration(start: u128) -> BrokerRegistration {
        BrokerRegistration {
            broker: BrokerId(1),
            incarnation: Uuid::from_u128(start),
            end_points: Vec::new(),
            rack: None,
            directory: Uuid::from_u128(0xd1),
        }
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
        let (records, first) = controller.allocate_producer_ids(BrokerId(1), 0).expect("ids are left");
        replays(&before, &records, &controller);
        assert_eq!(first, ProducerId(0));
        assert_eq!(controller.allocate_producer_ids(BrokerId(1), 0).map(|(_, first)| first), Ok(ProducerId(1000)));
        let last = MetadataRecord::ProducerIds { broker_id: 1, broker_epoch: 0, next_producer_id: i64::MAX - 1 };
        controller.image.apply(&last).expect("always fits");
        assert_eq!(controller.allocate_producer_ids(BrokerId(1), 0), Err(ErrorCode::UnknownServerError));
    }

    #[test]
    fn producer_ids_are_for_brokers_as_they_are_registered() {
        let mut controller = controller("");
        controller.register_broker(registration(2), 7);
        controller.register_broker(BrokerRegistration { broker: BrokerId(2), ..registration(3) }, 9);
        let mut given =
            |broker, epoch| controller.allocate_producer_ids(BrokerId(broker), epoch).map(|(_, first)| first);
        assert_eq!(given(1, 7), Ok(ProducerId(0)));
        assert_eq!(given(2, 9), Ok(ProducerId(1000)));
        for (broker, epoch) in [(1, 0), (1, 9), (2, 7), (3, 9), (3, -1)] {
            assert_eq!(given(broker, epoch), Err(ErrorCode::StaleBrokerEpoch), "broker {broker} in epoch {epoch}");
        }
    }

    #[test]
    fn repeated_names_come_once() {
        assert_eq!(repeated("banana".chars()), ['a', 'n']);
        assert!(repeated("abc".chars()).is_empty());
    }
}

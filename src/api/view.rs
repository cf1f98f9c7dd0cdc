//! The metadata as far as whoever asks may use it. Handlers look topics up here.

use kafka_protocol::messages::TopicName;
use uuid::Uuid;

use crate::{
    api::{asker::Asker, policy::Resource, topics},
    base::{ErrorCode, PartitionKey, TopicId},
    metadata::{Image, Topic},
};

/// One request's view.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    image: &'a Image,
    asker: &'a Asker,
}

impl<'a> View<'a> {
    /// What the asker may use of the metadata.
    pub fn new(image: &'a Image, asker: &'a Asker) -> Self {
        Self { image, asker }
    }

    /// The topic of a name.
    /// # Errors  `TopicAuthorizationFailed`, whether it is there or not, or `UnknownTopicOrPartition`.
    pub fn topic(&self, name: &str) -> Result<&'a Topic, ErrorCode> {
        self.asker.topic(name)?;
        self.image.topic(name).map(AsRef::as_ref).ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    /// The topic of an id.
    /// # Errors  `UnknownTopicId` or `TopicAuthorizationFailed`.
    pub fn topic_by_id(&self, id: TopicId) -> Result<&'a Topic, ErrorCode> {
        let topic = self.image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?;
        self.asker.topic(&topic.name)?;
        Ok(topic)
    }

    /// The topic that a request names: by id if `by_id`, else by name.
    /// # Errors  As for the one or the other.
    pub fn find(&self, name: &str, id: Uuid, by_id: bool) -> Result<&'a Topic, ErrorCode> {
        if by_id { self.topic_by_id(TopicId(id)) } else { self.topic(name) }
    }

    /// The partition that a request names by topic name and index.
    /// # Errors  As for the topic; `UnknownTopicOrPartition` if it has no such partition.
    pub fn partition(&self, name: &TopicName, index: i32) -> Result<PartitionKey, ErrorCode> {
        topics::partition(self.topic(name)?, index)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &'a Topic> + use<'a> {
        let asker = self.asker;
        self.image.topics().map(|topic| &**topic).filter(move |topic| asker.may(Resource::Topic, &topic.name))
    }

    /// What the asker may do besides.
    pub fn asker(&self) -> &'a Asker {
        self.asker
    }
}

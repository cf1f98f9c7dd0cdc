//! How topics come and go. What a topic itself is held to is a [`TopicConfig`](crate::config::TopicConfig).

use crate::config::values::Values;

/// What a topic is created with if the request does not say, and whether it may be created and deleted.
#[derive(Clone, Debug)]
pub(crate) struct TopicsConfig {
    /// `num.partitions`.
    pub(crate) partitions: i32,
    /// `default.replication.factor`.
    pub(crate) replication_factor: i16,
    /// `auto.create.topics.enable`.
    pub(crate) auto_create: bool,
    /// `delete.topic.enable`.
    pub(crate) delete: bool,
}

impl TopicsConfig {
    pub(super) fn read(values: &Values<'_>) -> Self {
        Self {
            partitions: values.int("num.partitions"),
            replication_factor: values.long("default.replication.factor").clamp(0, i64::from(i16::MAX)) as i16,
            auto_create: values.boolean("auto.create.topics.enable"),
            delete: values.boolean("delete.topic.enable"),
        }
    }
}

//! Which requests Ringtail answers, and in which versions.
//!
//! The bounds come from the codec's request types, `<Req as Message>::VERSIONS`. `ApiKey::valid_versions()` is no source: for
//! OffsetCommit, OffsetFetch and InitProducerId it names versions whose requests the codec cannot decode.

use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest,
        DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
        DescribeGroupsRequest, DescribeTopicPartitionsRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest,
        IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
        ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
        ProduceRequest, SyncGroupRequest,
    },
    protocol::Message,
};

/// One request type and the versions in which it is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// The request type.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// The oldest version that is decoded.
    pub min: i16,
    /// The newest version that is decoded.
    pub max: i16,
    /// The oldest version that ApiVersions names; differs from `min` for Produce alone.
    pub advertised_min: i16,
    /// The first version with compact forms and tagged fields (KIP-482).
    pub flexible_from: i16,
}

const fn api<Request: Message>(key: ApiKey, name: &'static str, flexible_from: i16) -> Api {
    let (min, max) = (Request::VERSIONS.min, Request::VERSIONS.max);
    Api { key, name, min, max, advertised_min: min, flexible_from }
}

const PRODUCE: Api = Api {
    // librdkafka ties its use of compression to Produce v0 (KAFKA-18659), so 0 is advertised, and refused when it is sent.
    advertised_min: 0,
    ..api::<ProduceRequest>(ApiKey::Produce, "Produce", 9)
};

/// Every request that is implemented, by key. Nothing else is advertised or decoded.
pub const APIS: [Api; 25] = [
    PRODUCE,
    api::<FetchRequest>(ApiKey::Fetch, "Fetch", 12),
    api::<ListOffsetsRequest>(ApiKey::ListOffsets, "ListOffsets", 6),
    api::<MetadataRequest>(ApiKey::Metadata, "Metadata", 9),
    api::<OffsetCommitRequest>(ApiKey::OffsetCommit, "OffsetCommit", 8),
    api::<OffsetFetchRequest>(ApiKey::OffsetFetch, "OffsetFetch", 6),
    api::<FindCoordinatorRequest>(ApiKey::FindCoordinator, "FindCoordinator", 3),
    api::<JoinGroupRequest>(ApiKey::JoinGroup, "JoinGroup", 6),
    api::<HeartbeatRequest>(ApiKey::Heartbeat, "Heartbeat", 4),
    api::<LeaveGroupRequest>(ApiKey::LeaveGroup, "LeaveGroup", 4),
    api::<SyncGroupRequest>(ApiKey::SyncGroup, "SyncGroup", 4),
    api::<DescribeGroupsRequest>(ApiKey::DescribeGroups, "DescribeGroups", 5),
    api::<ListGroupsRequest>(ApiKey::ListGroups, "ListGroups", 3),
    api::<ApiVersionsRequest>(ApiKey::ApiVersions, "ApiVersions", 3),
    api::<CreateTopicsRequest>(ApiKey::CreateTopics, "CreateTopics", 5),
    api::<DeleteTopicsRequest>(ApiKey::DeleteTopics, "DeleteTopics", 4),
    api::<DeleteRecordsRequest>(ApiKey::DeleteRecords, "DeleteRecords", 2),
    api::<InitProducerIdRequest>(ApiKey::InitProducerId, "InitProducerId", 2),
    api::<OffsetForLeaderEpochRequest>(ApiKey::OffsetForLeaderEpoch, "OffsetForLeaderEpoch", 4),
    api::<DescribeConfigsRequest>(ApiKey::DescribeConfigs, "DescribeConfigs", 4),
    api::<CreatePartitionsRequest>(ApiKey::CreatePartitions, "CreatePartitions", 2),
    api::<DeleteGroupsRequest>(ApiKey::DeleteGroups, "DeleteGroups", 2),
    api::<IncrementalAlterConfigsRequest>(ApiKey::IncrementalAlterConfigs, "IncrementalAlterConfigs", 1),
    api::<DescribeClusterRequest>(ApiKey::DescribeCluster, "DescribeCluster", 0),
    api::<DescribeTopicPartitionsRequest>(ApiKey::DescribeTopicPartitions, "DescribeTopicPartitions", 0),
];

impl Api {
    /// The row of a key as it came off the wire, if it is implemented.
    #[must_use]
    pub fn of(key: i16) -> Option<&'static Self> {
        APIS.binary_search_by_key(&key, |api| api.key as i16).ok().map(|index| &APIS[index])
    }

    /// Whether requests of this version are decoded.
    #[must_use]
    pub const fn supports(&self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether this version uses compact forms and tagged fields.
    #[must_use]
    pub const fn is_flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_found() {
        assert!(APIS.is_sorted_by_key(|api| api.key as i16));
        for api in &APIS {
            assert_eq!(Api::of(api.key as i16), Some(api));
            assert_eq!(api.key.request_header_version(api.max) == 2, api.is_flexible(api.max), "{}", api.name);
            assert_eq!(api.key.request_header_version(api.min) == 2, api.is_flexible(api.min), "{}", api.name);
        }
        for key in [-1, 4, 17, 24, 68, 71, 88, 1000] {
            assert_eq!(Api::of(key), None, "key {key}");
        }
    }

    #[test]
    fn the_line_of_versions_that_old_clients_need_is_there() {
        // (key, minimum of Kafka 4.3.1, maximum the codec decodes)
        let lines = [
            (0, 3, 13),
            (1, 4, 18),
            (2, 1, 10),
            (3, 0, 13),
            (8, 2, 9),
            (9, 1, 9),
            (10, 0, 6),
            (11, 0, 9),
            (12, 0, 4),
            (13, 0, 5),
            (14, 0, 5),
            (15, 0, 6),
            (16, 0, 5),
            (18, 0, 4),
            (19, 2, 7),
            (20, 1, 6),
            (21, 0, 2),
            (22, 0, 5),
            (23, 2, 4),
            (32, 1, 4),
            (37, 0, 3),
            (42, 0, 2),
            (44, 0, 1),
            (60, 0, 2),
            (75, 0, 0),
        ];
        assert_eq!(lines.len(), APIS.len());
        for (key, min, max) in lines {
            let api = Api::of(key).expect("listed");
            assert_eq!((key, api.min, api.max), (key, min, max), "{}", api.name);
            assert_eq!(api.advertised_min, if key == 0 { 0 } else { min });
        }
    }

    /// Every request that a client could miss stands in README, and none that is there.
    #[test]
    fn readme_names_what_is_not_there() {
        // What brokers and controllers say to controllers.
        const CONTROLLERS: [i16; 13] = [52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 93];
        let readme = include_str!("../../README.md");
        let (_, section) = readme.split_once("## Not there yet").expect("a section");
        let (section, _) = section.split_once("\n## ").expect("another one");
        let words: Vec<&str> = section.split_whitespace().collect();
        let text = words.join(" ");
        for key in 8..=92 {
            // 4 to 7 are gone from Kafka, and so is their codec.
            let Ok(api) = ApiKey::try_from(key) else { continue };
            let named = text.contains(&format!("{api:?} ({key}"));
            let missing = Api::of(key).is_none() && !CONTROLLERS.contains(&key);
            assert_eq!(named, missing, "{api:?} ({key})");
        }
        assert!(text.contains("OffsetDelete (47)") && text.contains("DeleteShareGroupOffsets (92)"));
    }
}

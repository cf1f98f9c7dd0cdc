//! DescribeLogDirs (key 35), versions 1–4 (KIP-113).
//! v3 an error of the whole answer · v4 the size of the file system (KIP-827)
//! Differs from Kafka: there is one data directory, and a partition whose files have failed is left out of it by itself.

use std::{io, rc::Rc};

use kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
    describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
};
use tracing::warn;

use crate::{
    api::{
        Context, Outcome,
        call::{Call, text, throttled},
    },
    base::{ErrorCode, Map, PartitionKey, TopicId},
    metadata::Image,
};

throttled!(DescribeLogDirsResponse);

pub(super) async fn handle(context: &Rc<Context>, call: Call<DescribeLogDirsRequest>) -> Outcome {
    if let Err(error) = call.asker.cluster() {
        return call.reply(DescribeLogDirsResponse::default().with_error_code(error.code()));
    }
    let keys = asked(&context.router.image(), &call.request);
    let directory = context.router.log_directory();
    let told = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let result = DescribeLogDirsResult::default().with_log_dir(text(&told.to_string_lossy()));
    let result = match space(context).await {
        Ok((total_bytes, usable_bytes)) => {
            let mut sizes = context.router.log_sizes(keys).await;
            sizes.sort_unstable();
            result
                .with_topics(topics(&context.router.image(), &sizes))
                .with_total_bytes(total_bytes)
                .with_usable_bytes(usable_bytes)
        }
        Err(error) => {
            warn!(directory = %told.display(), %error, "the data directory does not say how large it is");
            result.with_error_code(ErrorCode::KafkaStorageError.code()).with_total_bytes(-1).with_usable_bytes(-1)
        }
    };
    call.reply(DescribeLogDirsResponse::default().with_results(vec![result]))
}

/// The partitions that are asked for, once each; none: all.
fn asked(image: &Image, request: &DescribeLogDirsRequest) -> Option<Vec<PartitionKey>> {
    let topics = request.topics.as_ref()?.iter();
    let mut keys: Vec<PartitionKey> = topics
        .filter_map(|asked| Some((image.topic(&asked.topic)?, &asked.partitions)))
        .flat_map(|(topic, partitions)| partitions.iter().map(|index| topic.key(*index)))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    Some(keys)
}

/// The size of the file system in bytes, and how much of it is left.
async fn space(context: &Context) -> io::Result<(i64, i64)> {
    let (disk, directory) = (&context.io.disk, context.router.log_directory());
    let told = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Ok((told(disk.total_bytes(directory).await?), told(disk.free_bytes(directory).await?)))
}

/// The partitions by topic. A topic that was deleted meanwhile has no name any more.
fn topics(image: &Image, sizes: &[(PartitionKey, u64)]) -> Vec<DescribeLogDirsTopic> {
    let mut topics: Map<TopicId, DescribeLogDirsTopic> = Map::default();
    for (key, bytes) in sizes {
        let Some(topic) = image.topic_by_id(key.topic_id) else { continue };
        let told = topics
            .entry(key.topic_id)
            .or_insert_with(|| DescribeLogDirsTopic::default().with_name(TopicName(text(&topic.name))));
        let size = i64::try_from(*bytes).unwrap_or(i64::MAX);
        told.partitions
            .push(DescribeLogDirsPartition::default().with_partition_index(key.partition).with_partition_size(size));
    }
    topics.into_values().collect()
}

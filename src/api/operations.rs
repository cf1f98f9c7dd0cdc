//! Which operations a client may do with a resource, as a set for the answers that tell it. Bit n stands for operation n of Kafka's
//! ACLs.

use crate::api::{
    asker::Asker,
    policy::{
        CLUSTER,
        Operation::{
            self, Alter, AlterConfigs, ClusterAction, Create, Delete, Describe, DescribeConfigs, IdempotentWrite, Read,
            Write,
        },
        Resource,
    },
};

const OF_TOPICS: [Operation; 8] = [Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs];
const OF_CLUSTERS: [Operation; 7] =
    [Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite];
const OF_GROUPS: [Operation; 5] = [Read, Delete, Describe, DescribeConfigs, AlterConfigs];

/// Nobody asked.
pub(super) const UNASKED: i32 = i32::MIN;

/// What may be done with a topic.
pub(super) fn topic(asker: &Asker, name: &str) -> i32 {
    set(asker, &OF_TOPICS, Resource::Topic, name)
}

/// What may be done with the cluster.
pub(super) fn cluster(asker: &Asker) -> i32 {
    set(asker, &OF_CLUSTERS, Resource::Cluster, CLUSTER)
}

/// What may be done with a group.
pub(super) fn group(asker: &Asker, id: &str) -> i32 {
    set(asker, &OF_GROUPS, Resource::Group, id)
}

fn set(asker: &Asker, operations: &[Operation], resource: Resource, name: &str) -> i32 {
    let allowed = operations.iter().filter(|operation| asker.may_do(**operation, resource, name));
    allowed.fold(0, |set, operation| set | 1 << *operation as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_do_everything_has_kafka_s_bits() {
        let asker = Asker::anybody();
        assert_eq!(
            (topic(&asker, "t"), cluster(&asker), group(&asker, "g")),
            (0b1101_1111_1000, 0b1_1111_1010_0000, 0b1101_0100_1000)
        );
    }
}

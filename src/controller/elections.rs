//! Elections that are asked for: ElectLeaders (43, KIP-183, KIP-460).

use kafka_protocol::{
    messages::{
        ElectLeadersRequest, ElectLeadersResponse, TopicName,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};

use super::{ApiError, Controller, transition::Election};
use crate::{
    base::{ErrorCode, PartitionKey},
    metadata::PartitionRegistration,
    protocol::metadata_records::MetadataRecord,
};

/// `ElectionType` of the wire: whether the first replica is to lead, or anybody rather than nobody.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

impl Controller {
    /// ElectLeaders, versions 0–2. Version 0 has no type: its default is the preferred leader.
    pub fn elect_leaders(&mut self, request: &ElectLeadersRequest) -> (Vec<MetadataRecord>, ElectLeadersResponse) {
        let election = match request.election_type {
            PREFERRED => Election::Preferred,
            UNCLEAN => Election::Unclean,
            other => {
                let message = format!("Unknown election type {other}");
                return (Vec::new(), refuse_elections(request, ErrorCode::InvalidRequest, &message));
            }
        };
        let mut records = Vec::new();
        let results = match &request.topic_partitions {
            Some(topics) => topics
                .iter()
                .map(|asked| {
                    let elected = asked
                        .partitions
                        .iter()
                        .map(|index| told(*index, self.elect(&asked.topic, *index, election, &mut records).err()));
                    ReplicaElectionResult::default()
                        .with_topic(asked.topic.clone())
                        .with_partition_result(elected.collect())
                })
                .collect(),
            None => self.elect_all(election, &mut records),
        };
        (records, ElectLeadersResponse::default().with_replica_election_results(results))
    }

    /// Of all partitions those are told that had need of a leader.
    fn elect_all(&mut self, election: Election, records: &mut Vec<MetadataRecord>) -> Vec<ReplicaElectionResult> {
        let topics = self.image.topics().map(|topic| (topic.name.clone(), topic.partitions.len()));
        let topics: Vec<_> = topics.collect();
        let elected = topics.into_iter().map(|(name, partitions)| {
            let results = (0..).take(partitions).filter_map(|index| {
                let refusal = self.elect(&name, index, election, records).err();
                let needed = refusal.as_ref().is_none_or(|refusal| refusal.code != ErrorCode::ElectionNotNeeded);
                needed.then(|| told(index, refusal))
            });
            let results = results.collect();
            let name = TopicName(StrBytes::from_string(name.to_string()));
            ReplicaElectionResult::default().with_topic(name).with_partition_result(results)
        });
        elected.collect()
    }

    /// Elects one leader, or says why not.
    fn elect(
        &mut self,
        name: &str,
        index: i32,
        election: Election,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), ApiError> {
        let unknown = |message| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
        let topic = self.image.topic(name).ok_or_else(|| unknown(format!("No such topic as {name}")))?;
        let partition =
            topic.partition(index).ok_or_else(|| unknown(format!("No such partition as {name}-{index}")))?;
        if is_led(partition, election) {
            let message = "Leader election not needed for topic partition.";
            return Err(ApiError::new(ErrorCode::ElectionNotNeeded, message));
        }
        let key = PartitionKey { topic_id: topic.id, partition: index };
        let Some(change) = self.transition(key, Some(election), |_| {}) else {
            return Err(match election {
                Election::Preferred => {
                    ApiError::new(ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
                }
                Election::Online | Election::Unclean => ApiError::new(
                    ErrorCode::EligibleLeadersNotAvailable,
                    "Eligible topic partition leaders are not available.",
                ),
            });
        };
        let record = MetadataRecord::PartitionChange(change);
        self.apply(std::slice::from_ref(&record));
        records.push(record);
        Ok(())
    }
}

/// Every partition that is named with the same refusal, and the answer as a whole with it.
#[must_use]
pub fn refuse_elections(request: &ElectLeadersRequest, error: ErrorCode, message: &str) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten().map(|asked| {
        let partitions = asked.partitions.iter().map(|index| told(*index, Some(ApiError::new(error, message))));
        ReplicaElectionResult::default().with_topic(asked.topic.clone()).with_partition_result(partitions.collect())
    });
    ElectLeadersResponse::default().with_error_code(error.code()).with_replica_election_results(topics.collect())
}

fn is_led(partition: &PartitionRegistration, election: Election) -> bool {
    match election {
        Election::Preferred => partition.leader.is_some() && partition.leader == partition.replicas.first().copied(),
        Election::Online | Election::Unclean => partition.leader.is_some(),
    }
}

fn told(index: i32, refusal: Option<ApiError>) -> PartitionResult {
    let result = PartitionResult::default().with_partition_id(index).with_error_message(None);
    match refusal {
        Some(refusal) => result.with_error_code(refusal.code.code()).with_error_message(refusal.message()),
        None => result,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;

    use super::*;
    use crate::controller::{
        rig::Rig,
        tests::{controller, ids},
    };

    /// What is answered for each partition of `t`, or for those that have need of a leader.
    fn elect(rig: &mut Rig, election_type: i8, partitions: Option<&[i32]>) -> Vec<(i32, i16)> {
        let named = |indexes: &[i32]| {
            vec![TopicPartitions::default().with_topic(TopicName("t".into())).with_partitions(indexes.to_vec())]
        };
        let request = ElectLeadersRequest::default()
            .with_election_type(election_type)
            .with_topic_partitions(partitions.map(named));
        let answer = rig.decide(|controller| controller.elect_leaders(&request));
        let results = answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
        results.map(|result| (result.partition_id, result.error_code)).collect()
    }

    /// The answers are Apache Kafka 4.3.1's.
    #[test]
    fn whoever_is_led_needs_no_election() {
        let mut c = controller("num.partitions=2\n");
        c.auto_create(&["t"], &mut ids());
        for election_type in [PREFERRED, UNCLEAN] {
            let request = ElectLeadersRequest::default().with_election_type(election_type).with_topic_partitions(None);
            let (records, answer) = c.elect_leaders(&request);
            assert!(records.is_empty());
            assert!(answer.replica_election_results.iter().all(|topic| topic.partition_result.is_empty()));
        }
        let request = ElectLeadersRequest::default().with_election_type(2).with_topic_partitions(None);
        assert_eq!(c.elect_leaders(&request).1.error_code, ErrorCode::InvalidRequest.code());
    }

    #[test]
    fn the_preferred_leader_leads_again_once_it_is_in_sync() {
        let mut rig = Rig::of(&[1, 2]);
        rig.topic(&[&[1, 2], &[2, 1]], &[]);
        rig.kill(1);
        rig.start(1);
        let not_available = ErrorCode::PreferredLeaderNotAvailable.code();
        let not_needed = ErrorCode::ElectionNotNeeded.code();
        assert_eq!(elect(&mut rig, PREFERRED, None), [(0, not_available)]);
        assert_eq!(elect(&mut rig, PREFERRED, Some(&[0, 1, 2])), [(0, not_available), (1, not_needed), (2, 3)]);
        rig.in_sync(0, &[2, 1]);
        // Named twice it is elected once.
        assert_eq!(elect(&mut rig, PREFERRED, Some(&[0, 0])), [(0, 0), (0, not_needed)]);
        assert_eq!(rig.show(0), "1 e2 isr=2,1");
    }

    #[test]
    fn anybody_leads_when_that_is_asked_for() {
        let mut rig = Rig::of(&[1, 2, 3]);
        rig.topic(&[&[1, 2], &[1]], &[]);
        rig.kill(2);
        rig.kill(1);
        rig.start(2);
        assert_eq!([0, 1].map(|index| rig.show(index)), ["none e1 isr= elr=1", "none e1 isr= elr=1"]);
        let none = ErrorCode::EligibleLeadersNotAvailable.code();
        assert_eq!(elect(&mut rig, PREFERRED, None), [(0, 80), (1, 80)]);
        assert_eq!(elect(&mut rig, UNCLEAN, None), [(0, 0), (1, none)]);
        assert_eq!(rig.show(0), "2 e2 isr=2 recovering");
        // Who had more may only follow now.
        rig.start(1);
        assert_eq!([0, 1].map(|index| rig.show(index)), ["2 e2 isr=2 recovering", "1 e2 isr=1"]);
    }
}

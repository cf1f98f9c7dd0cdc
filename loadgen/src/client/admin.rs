//! What a run asks of a cluster outside the measurement: metadata, topics, producer ids, offsets, configuration.

use std::{net::SocketAddr, time::Duration};

use kafka_protocol::{
    messages::{
        ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
        InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse, ProducerId, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
    },
    protocol::StrBytes,
};

use crate::client::{
    cluster::{Layout, Leaders},
    error::{ClientError, codes},
    link::{Link, resolve},
    throttle::Throttled,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const TOPIC_TIMEOUT_MS: i32 = 60_000;
const ATTEMPTS_MAX: usize = 40;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
/// DeleteTopics takes names until version 5 and names or ids from 6.
const DELETE_BY_STATE_VERSION: i16 = 6;

/// A client of the cluster's control side. Goes to the next bootstrap address when one fails.
pub struct Admin {
    addresses: Vec<String>,
    client_id: String,
    link: Option<Link>,
    next_address: usize,
    via: Option<SocketAddr>,
}

/// One broker setting as the broker tells it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BrokerSetting {
    pub name: String,
    pub value: String,
    pub is_default: bool,
}

impl Admin {
    pub fn new(bootstrap: &[String], client_id: &str) -> Self {
        Self { addresses: bootstrap.to_vec(), client_id: client_id.to_owned(), link: None, next_address: 0, via: None }
    }

    /// The same client, for which every broker is reached through one address.
    pub fn through(mut self, via: Option<SocketAddr>) -> Self {
        self.via = via;
        self
    }

    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The finalized features that the broker announces, as `metadata.version=29`.
    pub fn features(&mut self) -> Result<Vec<String>, ClientError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("ringtail-loadgen"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let response = self.call("ApiVersions", &request)?;
        let features = response.finalized_features.iter();
        Ok(features.map(|f| format!("{}={}", f.name.as_str(), f.max_version_level)).collect())
    }

    /// The open connection, or a new one to the first address that answers.
    pub fn link(&mut self) -> Result<&mut Link, ClientError> {
        if self.link.is_none() {
            let mut failed = None;
            for _ in 0..self.addresses.len() {
                let address = &self.addresses[self.next_address % self.addresses.len()];
                match Link::connect(address, &self.client_id, CALL_TIMEOUT) {
                    Ok(link) => {
                        self.link = Some(link);
                        break;
                    }
                    Err(error) => failed = Some(error),
                }
                self.next_address += 1;
            }
            if let (None, Some(error)) = (&self.link, failed) {
                return Err(error);
            }
        }
        Ok(self.link.as_mut().expect("at least one address was tried and none failed"))
    }

    /// One call, without a second try.
    pub fn call<R: Throttled>(&mut self, what: &'static str, request: &R) -> Result<R::Response, ClientError> {
        let result = self.link()?.call(what, request);
        if result.as_ref().is_err_and(breaks_link) {
            self.link = None;
            self.next_address += 1;
        }
        result
    }

    /// Metadata of the named topics; never creates one. Retries until each has a leader or an error that stays.
    pub fn metadata(&mut self, topics: &[String]) -> Result<MetadataResponse, ClientError> {
        let wanted = topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
        let request =
            MetadataRequest::default().with_topics(Some(wanted.collect())).with_allow_auto_topic_creation(false);
        self.call("Metadata", &request)
    }

    /// Metadata once every topic is there and every partition has a leader; a fresh topic needs a moment.
    pub fn settled_metadata(&mut self, topics: &[String]) -> Result<MetadataResponse, ClientError> {
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            match self.metadata(topics) {
                Ok(response) => match unsettled(&response) {
                    None => return Ok(response),
                    Some(error) => last = Some(error),
                },
                Err(error) if error.is_retriable() => last = Some(error),
                Err(error) => return Err(error),
            }
            std::thread::sleep(ATTEMPT_PAUSE);
        }
        Err(last.expect("every attempt left an error"))
    }

    /// Returns whether the topic was made; false when it was there already.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        replication: i16,
        configs: &[(String, String)],
    ) -> Result<bool, ClientError> {
        let configs = configs.iter().map(|(key, value)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_string(key.clone()))
                .with_value(Some(StrBytes::from_string(value.clone())))
        });
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(replication)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TOPIC_TIMEOUT_MS);
        let response = self.call("CreateTopics", &request)?;
        let result = response.topics.first();
        let (code, message) = result.map_or((-1, String::new()), |result| {
            let message = result.error_message.as_ref().map(ToString::to_string);
            (result.error_code, message.unwrap_or_default())
        });
        match code {
            codes::NONE => Ok(true),
            codes::TOPIC_ALREADY_EXISTS => Ok(false),
            _ => Err(ClientError::Code { doing: format!("creating topic {name}"), code, message }),
        }
    }

    /// Deletes topics; a connection that has died meanwhile is made anew, once for each address.
    pub fn delete_topics(&mut self, names: &[String]) -> Result<(), ClientError> {
        let mut result = self.delete_once(names);
        for _ in 0..=self.addresses.len() {
            if !result.as_ref().is_err_and(breaks_link) {
                break;
            }
            self.link = None;
            self.next_address += 1;
            result = self.delete_once(names);
        }
        result
    }

    fn delete_once(&mut self, names: &[String]) -> Result<(), ClientError> {
        let version = self.link()?.versions().pick::<DeleteTopicsRequest>()?;
        let request = DeleteTopicsRequest::default().with_timeout_ms(TOPIC_TIMEOUT_MS);
        let request = if version >= DELETE_BY_STATE_VERSION {
            let states = names.iter().map(|name| DeleteTopicState::default().with_name(Some(topic_name(name))));
            request.with_topics(states.collect())
        } else {
            request.with_topic_names(names.iter().map(|name| topic_name(name)).collect())
        };
        let response = self.link()?.call_at("DeleteTopics", version, &request)?;
        for result in &response.responses {
            let code = result.error_code;
            if code != codes::NONE && code != codes::UNKNOWN_TOPIC_OR_PARTITION {
                let name = result.name.as_ref().map_or("?".to_owned(), |name| name.to_string());
                let message = result.error_message.as_ref().map(ToString::to_string);
                return Err(ClientError::Code {
                    doing: format!("deleting topic {name}"),
                    code,
                    message: message.unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    /// A fresh producer id and its epoch, for an idempotent producer.
    pub fn producer_id(&mut self) -> Result<(i64, i16), ClientError> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(i32::MAX)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let mut failed = None;
        for _ in 0..ATTEMPTS_MAX {
            let error = match self.call("InitProducerId", &request) {
                Ok(response) if response.error_code == codes::NONE => {
                    return Ok((response.producer_id.0, response.producer_epoch));
                }
                Ok(response) => ClientError::Code {
                    doing: "asking for a producer id".to_owned(),
                    code: response.error_code,
                    message: String::new(),
                },
                Err(error) => error,
            };
            if !error.is_retriable() {
                return Err(error);
            }
            failed = Some(error);
            std::thread::sleep(ATTEMPT_PAUSE);
        }
        Err(failed.expect("every attempt left an error"))
    }

    /// The offset at `timestamp` (-1 end, -2 start) of each partition, by partition number.
    pub fn list_offsets(
        &mut self,
        layout: &Layout,
        leaders: &Leaders,
        timestamp: i64,
    ) -> Result<Vec<i64>, ClientError> {
        let numbers = layout.numbers();
        let mut offsets = vec![0; layout.partitions.len()];
        for (&broker, addresses) in &leaders.brokers {
            let request = offsets_request(layout, leaders, broker, timestamp);
            if request.topics.is_empty() {
                continue;
            }
            let address = addresses.first().expect("brokers without an address are left out");
            let mut link = Link::connect(&address.to_string(), &self.client_id, CALL_TIMEOUT)?;
            let response = link.call("ListOffsets", &request)?;
            for topic in &response.topics {
                for partition in &topic.partitions {
                    let number = numbers.find(topic.name.as_str(), uuid::Uuid::nil(), partition.partition_index);
                    let Some(number) = number else { continue };
                    if partition.error_code != codes::NONE {
                        return Err(ClientError::Code {
                            doing: format!("listing offsets of {}", layout.name(number)),
                            code: partition.error_code,
                            message: String::new(),
                        });
                    }
                    offsets[number as usize] = partition.offset;
                }
            }
        }
        Ok(offsets)
    }

    /// The settings of one broker, or nothing if it may not or cannot tell.
    pub fn broker_settings(&mut self, broker: BrokerId) -> Vec<BrokerSetting> {
        const BROKER_RESOURCE: i8 = 4;
        const SOURCE_DEFAULT: i8 = 5;
        let resource = DescribeConfigsResource::default()
            .with_resource_type(BROKER_RESOURCE)
            .with_resource_name(StrBytes::from_string(broker.0.to_string()))
            .with_configuration_keys(None);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let Ok(response) = self.call("DescribeConfigs", &request) else {
            return Vec::new();
        };
        let settings = response.results.iter().flat_map(|result| &result.configs);
        settings
            .filter(|setting| !setting.is_sensitive)
            .map(|setting| BrokerSetting {
                name: setting.name.to_string(),
                value: setting.value.as_ref().map_or(String::new(), ToString::to_string),
                is_default: setting.config_source == SOURCE_DEFAULT,
            })
            .collect()
    }

    /// Brokers whose name does not resolve are left out; the partitions they lead wait.
    pub fn leaders_of(&self, response: &MetadataResponse, layout: &Layout) -> Leaders {
        Leaders::from_metadata(response, layout, |address| match self.via {
            Some(via) => vec![via],
            None => resolve(address).unwrap_or_default(),
        })
    }

    /// Who leads what, read once.
    pub fn leaders(&mut self, layout: &Layout) -> Result<Leaders, ClientError> {
        let names: Vec<String> = layout.topics.iter().map(|topic| topic.name.to_string()).collect();
        let response = self.metadata(&names)?;
        Ok(self.leaders_of(&response, layout))
    }
}

fn offsets_request(layout: &Layout, leaders: &Leaders, broker: i32, timestamp: i64) -> ListOffsetsRequest {
    let mut topics: Vec<ListOffsetsTopic> =
        layout.topics.iter().map(|topic| ListOffsetsTopic::default().with_name(topic.name.clone())).collect();
    for (partition, leader) in layout.partitions.iter().zip(&leaders.leader) {
        if *leader == Some(broker) {
            let wanted = ListOffsetsPartition::default()
                .with_partition_index(partition.index)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp);
            topics[partition.topic as usize].partitions.push(wanted);
        }
    }
    topics.retain(|topic| !topic.partitions.is_empty());
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics)
}

fn unsettled(response: &MetadataResponse) -> Option<ClientError> {
    for topic in &response.topics {
        let name = topic.name.as_ref().map_or("?".to_owned(), |name| name.to_string());
        let mut code = topic.error_code;
        if code == codes::NONE {
            let partitions = topic.partitions.iter();
            code = partitions.map(|p| p.error_code).find(|code| *code != codes::NONE).unwrap_or(0);
        }
        if code != codes::NONE {
            return Some(ClientError::Code {
                doing: format!("reading the metadata of topic {name}"),
                code,
                message: String::new(),
            });
        }
    }
    None
}

fn breaks_link(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::NotKafka { .. }
        | ClientError::Closed { .. }
        | ClientError::TimedOut { .. }
        | ClientError::Garbled { .. } => true,
        ClientError::Throttled { .. }
        | ClientError::Unsupported { .. }
        | ClientError::Code { .. }
        | ClientError::Unencodable(_) => false,
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

//! Changing settings while the cluster runs (KIP-339).

use kafka_protocol::{
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        alter_configs_request, alter_configs_response,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{ApiError, Controller, repeated};
use crate::{
    base::{BrokerId, ErrorCode, LOGGERS, ROOT_LOGGER, Set},
    config::{
        Key, Kind, Overrides, Update,
        keys::{broker_key, topic_key},
        value,
    },
    metadata::names,
    protocol::metadata_records::{BROKER_RESOURCE, ConfigRecord, MetadataRecord, TOPIC_RESOURCE},
};

/// `ConfigResource.Type` of a broker's loggers.
const BROKER_LOGGER_RESOURCE: i8 = 8;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl Controller {
    /// IncrementalAlterConfigs, versions 0–1, as `asked` was asked it: all changes of a resource, or none.
    pub fn incremental_alter_configs(
        &mut self,
        asked: BrokerId,
        request: &IncrementalAlterConfigsRequest,
    ) -> (Vec<MetadataRecord>, IncrementalAlterConfigsResponse) {
        self.decide_configs(request, |controller, resource| match resource.resource_type {
            BROKER_LOGGER_RESOURCE => controller.check_shape(resource).and(Err(refuse_logger(asked, resource))),
            _ => controller.changes(asked, resource),
        })
    }

    fn decide_configs(
        &mut self,
        request: &IncrementalAlterConfigsRequest,
        changes: impl Fn(&Self, &AlterConfigsResource) -> Result<Vec<MetadataRecord>, ApiError>,
    ) -> (Vec<MetadataRecord>, IncrementalAlterConfigsResponse) {
        let resources = request.resources.iter();
        let repeated = repeated(resources.map(|resource| (resource.resource_type, resource.resource_name.as_str())));
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let response = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone())
                .with_error_message(None);
            let decided = if repeated.contains(&(resource.resource_type, resource.resource_name.as_str())) {
                Err(ApiError::new(ErrorCode::InvalidRequest, "Each resource must appear at most once."))
            } else {
                changes(self, resource)
            };
            responses.push(match decided {
                Ok(new) => {
                    records.extend(new);
                    response
                }
                Err(refusal) => response.with_error_code(refusal.code.code()).with_error_message(refusal.message()),
            });
        }
        if request.validate_only {
            records.clear();
        }
        self.apply(&records);
        if records.iter().any(decides_leaders) {
            records.extend(self.review_leaders());
        }
        (records, IncrementalAlterConfigsResponse::default().with_responses(responses))
    }

    /// AlterConfigs, versions 0–2, as `asked` was asked it: what is set and not given goes.
    pub fn alter_configs(
        &mut self,
        asked: BrokerId,
        request: &AlterConfigsRequest,
    ) -> (Vec<MetadataRecord>, AlterConfigsResponse) {
        let resources = request.resources.iter().map(|resource| self.replacement(resource)).collect();
        let changes = IncrementalAlterConfigsRequest::default()
            .with_resources(resources)
            .with_validate_only(request.validate_only);
        let (records, answer) =
            self.decide_configs(&changes, |controller, resource| controller.changes(asked, resource));
        let responses = answer.responses.into_iter().map(|response| {
            alter_configs_response::AlterConfigsResourceResponse::default()
                .with_resource_type(response.resource_type)
                .with_resource_name(response.resource_name)
                .with_error_code(response.error_code)
                .with_error_message(response.error_message)
        });
        (records, AlterConfigsResponse::default().with_responses(responses.collect()))
    }

    /// The changes that leave a resource with what is given, and nothing else.
    fn replacement(&self, resource: &alter_configs_request::AlterConfigsResource) -> AlterConfigsResource {
        let (kind, name) = (resource.resource_type, &resource.resource_name);
        let given = resource.configs.iter().map(|config| {
            AlterableConfig::default()
                .with_name(config.name.clone())
                .with_config_operation(SET)
                .with_value(config.value.clone())
        });
        let gone = self.image.overrides(kind, &spelled(kind, name)).keys();
        let named: Set<&str> = resource.configs.iter().map(|config| config.name.as_str()).collect();
        let gone = gone.filter(|key| !named.contains(key.as_str()));
        let gone = gone.map(|key| {
            AlterableConfig::default().with_name(StrBytes::from_string(key.clone())).with_config_operation(DELETE)
        });
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(name.clone())
            .with_configs(given.chain(gone).collect())
    }

    /// Each key once, and with a value where it needs one.
    fn check_shape(&self, resource: &AlterConfigsResource) -> Result<(), ApiError> {
        let invalid = |message: String| ApiError::new(ErrorCode::InvalidRequest, message);
        if !repeated(resource.configs.iter().map(|config| config.name.as_str())).is_empty() {
            return Err(invalid("Error due to duplicate config keys".to_owned()));
        }
        let nulls =
            resource.configs.iter().filter(|config| config.config_operation != DELETE && config.value.is_none());
        let nulls: Vec<_> = nulls.map(|config| config.name.as_str()).collect();
        if !nulls.is_empty() {
            return Err(invalid(format!("Null value not supported for : {}", nulls.join(","))));
        }
        Ok(())
    }

    fn changes(&self, asked: BrokerId, resource: &AlterConfigsResource) -> Result<Vec<MetadataRecord>, ApiError> {
        self.check_shape(resource)?;
        let name = resource.resource_name.as_str();
        match resource.resource_type {
            TOPIC_RESOURCE => {
                self.check_topic(name)?;
                self.change(resource, topic_key, |after| self.check_topic_overrides(after))
            }
            BROKER_RESOURCE => {
                check_broker(asked, name)?;
                check_dynamic(&resource.configs, name.is_empty())?;
                self.change(resource, broker_key, check_broker_overrides)
            }
            other => Err(ApiError::new(ErrorCode::InvalidRequest, format!("Unknown resource type {other}"))),
        }
    }

    fn check_topic(&self, name: &str) -> Result<(), ApiError> {
        if name.is_empty() {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "Default topic resources are not allowed."));
        }
        names::check(name).map_err(|message| ApiError::new(ErrorCode::InvalidTopicException, message))?;
        if self.image.topic(name).is_none() {
            let message = format!("The topic '{name}' does not exist.");
            return Err(ApiError::new(ErrorCode::UnknownTopicOrPartition, message));
        }
        Ok(())
    }

    /// The records that make the changes, if what comes of them passes `check`.
    fn change(
        &self,
        resource: &AlterConfigsResource,
        key: fn(&str) -> Option<&'static Key>,
        check: impl FnOnce(&Overrides) -> Result<(), ApiError>,
    ) -> Result<Vec<MetadataRecord>, ApiError> {
        let name = spelled(resource.resource_type, &resource.resource_name);
        let before = self.image.overrides(resource.resource_type, &name);
        let mut after = before.clone();
        for config in &resource.configs {
            let given = config.value.as_deref().unwrap_or_default();
            let name = config.name.as_str();
            match config.config_operation {
                SET => drop(after.insert(name.to_owned(), given.to_owned())),
                DELETE => drop(after.remove(name)),
                APPEND | SUBTRACT => {
                    let appends = config.config_operation == APPEND;
                    let old = self.list(key, name, &after, appends)?;
                    after.insert(name.to_owned(), if appends { joined(&old, given) } else { without(&old, given) });
                }
                other => {
                    let message = format!("Unknown alter config operation {other} for {name}.");
                    return Err(ApiError::new(ErrorCode::InvalidRequest, message));
                }
            }
        }
        check(&after)?;
        let record = |key: &String, value: Option<&String>| {
            MetadataRecord::Config(ConfigRecord {
                resource_type: resource.resource_type,
                resource_name: name.clone(),
                name: key.clone(),
                value: value.cloned(),
            })
        };
        let removed = before.keys().filter(|key| !after.contains_key(*key)).map(|key| record(key, None));
        let set = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
        Ok(removed.chain(set.map(|(key, value)| record(key, Some(value)))).collect())
    }

    /// The list that a change begins with.
    fn list(
        &self,
        key: fn(&str) -> Option<&'static Key>,
        name: &str,
        after: &Overrides,
        appends: bool,
    ) -> Result<String, ApiError> {
        let Some(key) = key(name).filter(|key| key.kind == Kind::List) else {
            let verb = if appends { "APPEND to" } else { "SUBTRACT to" };
            let message = format!("Can't {verb} key {name} because its type is not LIST.");
            return Err(ApiError::new(ErrorCode::InvalidConfig, message));
        };
        let given = after.get(name).cloned();
        let layers = self.layers();
        Ok(given
            .or_else(|| match key.update {
                Update::PerTopic => layers.topic_text(key),
                Update::ReadOnly | Update::PerBroker | Update::ClusterWide => {
                    layers.broker_text(name).map(str::to_owned)
                }
            })
            .unwrap_or_default())
    }

    /// Whether these can be a topic's own settings, all together.
    pub(super) fn check_topic_overrides(&self, overrides: &Overrides) -> Result<(), ApiError> {
        let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidConfig, message));
        for (name, text) in overrides {
            let Some(key) = topic_key(name) else { return refuse(format!("Unknown topic config name: {name}")) };
            if let Err(invalid) = value::check(key, text) {
                return refuse(invalid.0);
            }
        }
        if overrides.get("remote.storage.enable").and_then(|text| value::boolean(text)) == Some(true) {
            return refuse(
                "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log \
                 storage."
                    .to_owned(),
            );
        }
        let layers = self.layers().with_topic(overrides);
        let lag =
            |name: &str| topic_key(name).and_then(|key| layers.topic_text(key)).and_then(|text| value::number(&text));
        if let (Some(min), Some(max)) = (lag("min.compaction.lag.ms"), lag("max.compaction.lag.ms"))
            && min > max
        {
            return refuse(format!(
                "conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"
            ));
        }
        Ok(())
    }
}

/// A resource's name as the image has it. A broker's id may be written with a sign or with zeros; the image knows one way.
fn spelled(resource_type: i8, name: &str) -> String {
    let id = name.parse::<i32>().ok().filter(|_| resource_type == BROKER_RESOURCE);
    id.map_or_else(|| name.to_owned(), |id| id.to_string())
}

/// Kafka's refusals in its order; then ours, since levels are set at the start alone.
fn refuse_logger(asked: BrokerId, resource: &AlterConfigsResource) -> ApiError {
    let invalid = |message: String| ApiError::new(ErrorCode::InvalidRequest, message);
    let name = resource.resource_name.as_str();
    match name.parse::<i32>() {
        Ok(id) if id == asked.0 => {}
        Ok(id) => return invalid(format!("Unexpected node id. Expected {asked}, but received {id}")),
        Err(_) => return invalid(format!("Node id must be an integer, but it is: {name}")),
    }
    for config in &resource.configs {
        let logger = config.name.as_str();
        match config.config_operation {
            APPEND | SUBTRACT => {
                let operation = if config.config_operation == APPEND { "APPEND" } else { "SUBTRACT" };
                return invalid(format!("{operation} operation is not allowed for the BROKER_LOGGER resource"));
            }
            DELETE if logger == ROOT_LOGGER => {
                return invalid("Removing the log level of the root logger is not allowed".to_owned());
            }
            _ if !LOGGERS.contains(&logger) => {
                return ApiError::new(ErrorCode::InvalidConfig, format!("Logger {logger} does not exist!"));
            }
            _ => {}
        }
    }
    invalid("Log levels cannot be changed while Ringtail runs: RINGTAIL_LOG sets them at the start.".to_owned())
}

/// Whether the name stands for the broker that was asked, or as the empty name for all.
fn check_broker(asked: BrokerId, name: &str) -> Result<(), ApiError> {
    let message = match name.parse::<i32>() {
        _ if name.is_empty() => return Ok(()),
        Ok(id) if id == asked.0 => return Ok(()),
        Ok(id) => format!("Unexpected broker id, expected {asked}, but received {id}"),
        Err(_) => format!("Node id must be an integer, but it is: {name}"),
    };
    Err(ApiError::new(ErrorCode::InvalidRequest, message))
}

/// Whether a broker may be told these while it runs. As in Kafka, keys that nobody knows are taken and mean nothing.
fn check_dynamic(configs: &[AlterableConfig], all_brokers: bool) -> Result<(), ApiError> {
    let names = |update: Update| {
        let keys = configs.iter().filter_map(|config| broker_key(config.name.as_str()));
        keys.filter(|key| key.update == update).map(|key| key.name).collect::<Vec<_>>().join(", ")
    };
    let read_only = names(Update::ReadOnly);
    if !read_only.is_empty() {
        let message = format!("Cannot update these configs dynamically: [{read_only}]");
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let per_broker = names(Update::PerBroker);
    if all_brokers && !per_broker.is_empty() {
        let message = format!(
            "Cannot update these configs at default cluster level, broker id must be specified: [{per_broker}]"
        );
        return Err(ApiError::new(ErrorCode::InvalidRequest, message));
    }
    Ok(())
}

fn check_broker_overrides(overrides: &Overrides) -> Result<(), ApiError> {
    for (name, text) in overrides {
        let checked = match broker_key(name) {
            Some(key) => value::check(key, text),
            None if name.is_empty() || name.len().max(text.len()) > value::VALUE_BYTES_MAX => {
                Err(value::Invalid(format!("{} bytes are no setting", name.len().max(text.len()))))
            }
            None => Ok(()),
        };
        checked.map_err(|invalid| ApiError::new(ErrorCode::InvalidRequest, invalid.0))?;
    }
    Ok(())
}

fn joined(old: &str, new: &str) -> String {
    let mut elements: Vec<&str> = value::list(old).collect();
    for element in value::list(new) {
        if !elements.contains(&element) {
            elements.push(element);
        }
    }
    elements.join(",")
}

fn without(old: &str, gone: &str) -> String {
    let stays = |element: &&str| !value::list(gone).any(|gone| gone == *element);
    value::list(old).filter(stays).collect::<Vec<_>>().join(",")
}

/// Whether a setting says who may lead. With fewer in-sync replicas wanted more is committed at once, and who was eligible may
/// not have it: that must be in the batch that says so.
fn decides_leaders(record: &MetadataRecord) -> bool {
    let keys = ["min.insync.replicas", "unclean.leader.election.enable"];
    matches!(record, MetadataRecord::Config(config) if keys.contains(&config.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::tests::{controller, ids, replays};

    /// One change as `type name key op value`, and what is set afterwards or why not.
    fn check(controller: &mut Controller, text: &str, expected: &str) {
        let words: Vec<&str> = text.splitn(5, ' ').collect();
        let [kind, resource, key, operation, value] = words[..] else { panic!("five words: {text}") };
        let kind = match kind {
            "topic" => TOPIC_RESOURCE,
            "broker" => BROKER_RESOURCE,
            "logger" => BROKER_LOGGER_RESOURCE,
            other => panic!("unknown type {other}"),
        };
        let operation = match operation {
            "set" => SET,
            "delete" => DELETE,
            "append" => APPEND,
            "subtract" => SUBTRACT,
            other => panic!("unknown operation {other}"),
        };
        let config = AlterableConfig::default()
            .with_name(key.to_owned().into())
            .with_config_operation(operation)
            .with_value((value != "null").then(|| value.to_owned().into()));
        let resource = resource.trim_matches('\'').replace('~', " ");
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(resource.clone().into())
                .with_configs(vec![config]),
        ]);
        let before = controller.image().clone();
        let (looked, only) =
            controller.incremental_alter_configs(BrokerId(1), &request.clone().with_validate_only(true));
        assert!(looked.is_empty() && controller.image() == &before, "{text}");
        let (records, response) = controller.incremental_alter_configs(BrokerId(1), &request);
        assert_eq!(only, response, "{text}");
        replays(&before, &records, controller);
        let result = &response.responses[0];
        let found = if result.error_code == 0 {
            let overrides = controller.image().overrides(kind, &resource);
            overrides.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        } else {
            format!("{} {}", result.error_code, result.error_message.as_deref().unwrap_or_default())
        };
        assert_eq!(found, expected, "{text}");
    }

    fn with_topic() -> Controller {
        let mut controller = controller("");
        controller.auto_create(&["t"], &mut ids());
        controller
    }

    /// The answers are Apache Kafka 4.3.1's.
    #[test]
    fn topic_settings() {
        let mut c = with_topic();
        check(&mut c, "topic nope retention.ms set 1", "3 The topic 'nope' does not exist.");
        check(&mut c, "topic '' retention.ms set 1", "42 Default topic resources are not allowed.");
        check(
            &mut c,
            "topic a~b retention.ms set 1",
            "17 Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'",
        );
        check(&mut c, "topic t retention.ms set 1000", "retention.ms=1000");
        check(&mut c, "topic t foo set 1", "40 Unknown topic config name: foo");
        check(&mut c, "topic t foo delete null", "retention.ms=1000");
        check(
            &mut c,
            "topic t retention.ms set x",
            "40 Invalid value x for configuration retention.ms: Not a number of type LONG",
        );
        check(
            &mut c,
            "topic t retention.ms append 1",
            "40 Can't APPEND to key retention.ms because its type is not LIST.",
        );
        check(&mut c, "topic t retention.ms set null", "42 Null value not supported for : retention.ms");
        check(&mut c, "topic t retention.ms delete null", "");
        check(&mut c, "topic t cleanup.policy append compact", "cleanup.policy=delete,compact");
        check(&mut c, "topic t cleanup.policy append compact", "cleanup.policy=delete,compact");
        check(&mut c, "topic t cleanup.policy subtract delete", "cleanup.policy=compact");
        check(&mut c, "topic t cleanup.policy subtract compact", "cleanup.policy=");
        check(&mut c, "topic t foo append compact", "40 Can't APPEND to key foo because its type is not LIST.");
        check(
            &mut c,
            "topic t cleanup.policy append foo",
            "40 Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
        );
        check(&mut c, "topic t durability set write", "cleanup.policy= durability=write");
        check(
            &mut c,
            "topic t durability set never",
            "40 Invalid value never for configuration durability: String must be one of: flush, write",
        );
    }

    /// The answers are Apache Kafka 4.3.1's.
    #[test]
    fn broker_settings() {
        let mut c = with_topic();
        check(&mut c, "broker 77 log.retention.ms set 4", "42 Unexpected broker id, expected 1, but received 77");
        check(&mut c, "broker abc log.retention.ms set 4", "42 Node id must be an integer, but it is: abc");
        check(&mut c, "broker 1 num.partitions set 4", "42 Cannot update these configs dynamically: [num.partitions]");
        check(&mut c, "broker '' num.partitions set 4", "42 Cannot update these configs dynamically: [num.partitions]");
        check(
            &mut c,
            "broker '' ssl.keystore.type set JKS",
            "42 Cannot update these configs at default cluster level, broker id must be specified: [ssl.keystore.type]",
        );
        check(&mut c, "broker '' foo.bar set 4", "foo.bar=4");
        check(&mut c, "broker '' log.retention.ms set 777777", "foo.bar=4 log.retention.ms=777777");
        check(&mut c, "broker 1 log.retention.ms set 888888", "log.retention.ms=888888");
        check(
            &mut c,
            "broker 1 log.retention.ms set zz",
            "42 Invalid value zz for configuration log.retention.ms: Not a number of type LONG",
        );
        check(
            &mut c,
            "broker 1 log.segment.bytes set 1",
            "42 Invalid value 1 for configuration log.segment.bytes: Value must be at least 1048576",
        );
        check(&mut c, "logger 1 kafka set DEBUG", "40 Logger kafka does not exist!");
        check(&mut c, "logger 2 root set DEBUG", "42 Unexpected node id. Expected 1, but received 2");
        check(&mut c, "logger x root set DEBUG", "42 Node id must be an integer, but it is: x");
        check(&mut c, "logger '' root set DEBUG", "42 Node id must be an integer, but it is: ");
        check(
            &mut c,
            "logger 1 root append DEBUG",
            "42 APPEND operation is not allowed for the BROKER_LOGGER resource",
        );
        check(&mut c, "logger 1 root delete null", "42 Removing the log level of the root logger is not allowed");
        check(
            &mut c,
            "logger 1 ringtail::net set DEBUG",
            "42 Log levels cannot be changed while Ringtail runs: RINGTAIL_LOG sets them at the start.",
        );
        let config = c.image().topic_config(&c.config.statics, BrokerId(1), "t");
        assert_eq!(config.retention_ms, Some(888_888));
    }

    /// The answers are Apache Kafka 4.3.1's.
    #[test]
    fn what_the_old_request_does_not_give_goes() {
        let mut c = with_topic();
        let mut replace = |kind, name: &'static str, given: &[(&'static str, Option<&'static str>)]| {
            let configs = given.iter().map(|(key, value)| {
                alter_configs_request::AlterableConfig::default()
                    .with_name((*key).into())
                    .with_value(value.map(StrBytes::from_static_str))
            });
            let resource = alter_configs_request::AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(name.into())
                .with_configs(configs.collect());
            let request = AlterConfigsRequest::default().with_resources(vec![resource]);
            let before = c.image().clone();
            let (looked, _) = c.alter_configs(BrokerId(1), &request.clone().with_validate_only(true));
            assert!(looked.is_empty() && c.image() == &before);
            let (records, answer) = c.alter_configs(BrokerId(1), &request);
            replays(&before, &records, &c);
            let result = &answer.responses[0];
            if result.error_code != 0 {
                return format!("{} {}", result.error_code, result.error_message.as_deref().unwrap_or_default());
            }
            let overrides = c.image().overrides(kind, &spelled(kind, name));
            overrides.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            replace(TOPIC_RESOURCE, "t", &[("retention.ms", Some("5")), ("flush.ms", Some("7"))]),
            "flush.ms=7 retention.ms=5"
        );
        assert_eq!(replace(TOPIC_RESOURCE, "t", &[("retention.ms", Some("6"))]), "retention.ms=6");
        assert_eq!(
            replace(TOPIC_RESOURCE, "t", &[("retention.ms", None)]),
            "42 Null value not supported for : retention.ms"
        );
        assert_eq!(replace(TOPIC_RESOURCE, "t", &[("nope", Some("6"))]), "40 Unknown topic config name: nope");
        assert_eq!(replace(TOPIC_RESOURCE, "t", &[]), "");
        assert_eq!(replace(BROKER_RESOURCE, "1", &[("log.retention.ms", Some("9"))]), "log.retention.ms=9");
        assert_eq!(replace(BROKER_RESOURCE, "+01", &[]), "");
        assert_eq!(replace(BROKER_LOGGER_RESOURCE, "1", &[("root", Some("INFO"))]), "42 Unknown resource type 8");
    }

    #[test]
    fn a_broker_id_has_one_spelling() {
        let mut c = with_topic();
        let (records, _) = {
            let config = AlterableConfig::default().with_name("durability".into()).with_value(Some("write".into()));
            let resource = AlterConfigsResource::default()
                .with_resource_type(BROKER_RESOURCE)
                .with_resource_name("+01".into())
                .with_configs(vec![config]);
            c.incremental_alter_configs(
                BrokerId(1),
                &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
            )
        };
        assert_eq!(records.len(), 1);
        assert_eq!(c.image().broker_overrides(BrokerId(1)).len(), 1);
    }

    #[test]
    fn all_changes_of_a_resource_or_none_and_each_resource_once() {
        let mut c = with_topic();
        let config = |name: &'static str, value: &'static str| {
            AlterableConfig::default().with_name(name.into()).with_value(Some(value.into()))
        };
        let resource = |configs| {
            AlterConfigsResource::default()
                .with_resource_type(TOPIC_RESOURCE)
                .with_resource_name("t".into())
                .with_configs(configs)
        };
        let mut codes = |resources| {
            let request = IncrementalAlterConfigsRequest::default().with_resources(resources);
            let (records, response) = c.incremental_alter_configs(BrokerId(1), &request);
            let results = response.responses.iter();
            let codes: Vec<_> = results
                .map(|result| (result.error_code, result.error_message.as_deref().unwrap_or_default().to_owned()))
                .collect();
            (records.len(), codes)
        };
        let bad = vec![config("retention.ms", "1"), config("segment.bytes", "x")];
        assert_eq!(codes(vec![resource(bad)]).0, 0);
        let twice = "Each resource must appear at most once.".to_owned();
        let good = || resource(vec![config("retention.ms", "1")]);
        assert_eq!(codes(vec![good(), good()]), (0, vec![(42, twice.clone()), (42, twice)]));
        let keys = vec![config("retention.ms", "1"), config("retention.ms", "2")];
        assert_eq!(codes(vec![resource(keys)]), (0, vec![(42, "Error due to duplicate config keys".to_owned())]));
        assert_eq!(codes(vec![good()]).0, 1);
        // Set to what it is: nothing to write down.
        assert_eq!(codes(vec![good()]), (0, vec![(0, String::new())]));
    }
}

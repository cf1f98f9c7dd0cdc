//! Settings as `DescribeConfigs` and `CreateTopics` show them.

use kafka_protocol::{
    messages::{
        create_topics_response::CreatableTopicConfigs,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym},
    },
    protocol::StrBytes,
};

use super::{
    keys::{Effect, Key, Kind, Update, broker_key, broker_keys, topic_keys},
    layers::{Layers, Overrides, Resolved, Source},
    value,
};

/// What a client wants to see besides the values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// These keys only; none: all.
    pub keys: Option<&'a [StrBytes]>,
    /// All places that could give the value.
    pub synonyms: bool,
    /// What the key means.
    pub documentation: bool,
}

impl Wanted<'_> {
    /// Whether a key is one of them.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == name))
    }
}

/// All settings of a topic.
#[must_use]
pub fn topic(layers: &Layers<'_>, wanted: &Wanted<'_>) -> Vec<DescribeConfigsResourceResult> {
    let keys = topic_keys().iter().filter(|key| wanted.has(key.name));
    keys.map(|key| entry(key, layers.topic_value(key), false, wanted)).collect()
}

/// All settings of this broker, with those that clients set and nobody knows.
#[must_use]
pub fn broker(layers: &Layers<'_>, wanted: &Wanted<'_>) -> Vec<DescribeConfigsResourceResult> {
    let known =
        broker_keys().filter(|key| !matches!(key.effect, Effect::Hidden | Effect::UsedUnseen) && wanted.has(key.name));
    let known = known.map(|key| entry(key, layers.broker_value(key), key.update == Update::ReadOnly, wanted));
    let dynamic = layers.broker.keys().chain(layers.cluster.keys().filter(|name| !layers.broker.contains_key(*name)));
    let unknown = dynamic.filter(|name| broker_key(name).is_none() && wanted.has(name)).map(|name| {
        let own = layers.broker.contains_key(name).then_some(Source::DynamicBroker);
        let all = layers.cluster.contains_key(name).then_some(Source::DynamicDefaultBroker);
        unknown(name, own.into_iter().chain(all), wanted)
    });
    known.chain(unknown).collect()
}

/// The dynamic settings that count for all brokers.
#[must_use]
pub fn cluster(cluster: &Overrides, wanted: &Wanted<'_>) -> Vec<DescribeConfigsResourceResult> {
    let entries = cluster.iter().filter(|(name, _)| wanted.has(name));
    entries
        .map(|(name, text)| {
            let source = Source::DynamicDefaultBroker;
            let Some(key) = broker_key(name) else { return unknown(name, [source].into_iter(), wanted) };
            let synonyms = vec![super::Synonym { name: name.clone(), value: text.clone(), source }];
            let resolved = Resolved { value: Some(text.clone()), source, synonyms };
            entry(key, resolved, key.update == Update::ReadOnly, wanted)
        })
        .collect()
}

/// The settings of a fresh topic, for `CreateTopics` from version 5 on.
#[must_use]
pub fn created_topic(layers: &Layers<'_>) -> Vec<CreatableTopicConfigs> {
    topic_keys()
        .iter()
        .map(|key| {
            let resolved = layers.topic_value(key);
            let shown = |text: String| match key.kind {
                // Kafka gives back here what it was given.
                Kind::List => text,
                kind => value::shown(kind, &text),
            };
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(key.name))
                .with_value(resolved.value.map(|text| shown(text).into()))
                .with_config_source(resolved.source as i8)
        })
        .collect()
}

fn entry(key: &'static Key, resolved: Resolved, read_only: bool, wanted: &Wanted<'_>) -> DescribeConfigsResourceResult {
    let shown = |kind, text: &str| (!key.sensitive()).then(|| StrBytes::from(value::shown(kind, text)));
    let synonyms = resolved.synonyms.iter().filter(|_| wanted.synonyms).map(|synonym| {
        let kind = broker_key(&synonym.name).map_or(key.kind, |key| key.kind);
        DescribeConfigsSynonym::default()
            .with_name(synonym.name.clone().into())
            .with_value(shown(kind, &synonym.value))
            .with_source(synonym.source as i8)
    });
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(key.name))
        .with_value(resolved.value.as_deref().and_then(|text| shown(key.kind, text)))
        .with_read_only(read_only)
        .with_config_source(resolved.source as i8)
        .with_is_sensitive(key.sensitive())
        .with_synonyms(synonyms.collect())
        .with_config_type(key.kind.code())
        .with_documentation(wanted.documentation.then(|| StrBytes::from_static_str(key.documentation)))
}

/// A key that nobody knows may be a secret of some plug-in's: its value is not shown.
fn unknown(name: &str, sources: impl Iterator<Item = Source>, wanted: &Wanted<'_>) -> DescribeConfigsResourceResult {
    let hidden = |source| {
        DescribeConfigsSynonym::default().with_name(name.to_owned().into()).with_value(None).with_source(source as i8)
    };
    let synonyms: Vec<_> = sources.map(hidden).collect();
    DescribeConfigsResourceResult::default()
        .with_name(name.to_owned().into())
        .with_value(None)
        .with_read_only(true)
        .with_config_source(synonyms.first().map_or(Source::Default as i8, |synonym| synonym.source))
        .with_is_sensitive(true)
        .with_synonyms(if wanted.synonyms { synonyms } else { Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::NOTHING;

    fn find<'a>(entries: &'a [DescribeConfigsResourceResult], name: &str) -> &'a DescribeConfigsResourceResult {
        entries.iter().find(|entry| entry.name.as_str() == name).expect("it is there")
    }

    fn map(pairs: &[(&str, &str)]) -> Overrides {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn secrets_and_unknown_values_are_not_shown() {
        let broker_overrides = map(&[("ssl.key.password", "geheim"), ("my.plugin.key", "geheim")]);
        let layers = Layers { statics: &NOTHING, cluster: &NOTHING, broker: &broker_overrides, topic: &NOTHING };
        let wanted = Wanted { synonyms: true, ..Wanted::default() };
        let entries = broker(&layers, &wanted);
        for name in ["ssl.key.password", "my.plugin.key"] {
            let entry = find(&entries, name);
            assert!(entry.is_sensitive && entry.value.is_none(), "{name}");
            assert!(entry.synonyms.iter().all(|synonym| synonym.value.is_none()), "{name}");
        }
        assert!(!format!("{entries:?}").contains("geheim"));
    }

    #[test]
    fn keys_types_and_documentation_as_wanted() {
        let keys = [StrBytes::from_static_str("retention.ms"), StrBytes::from_static_str("nope")];
        let wanted = Wanted { keys: Some(&keys), synonyms: false, documentation: true };
        let entries = topic(&Layers::of(&NOTHING), &wanted);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].config_type, 5);
        assert!(entries[0].documentation.as_ref().is_some_and(|text| text.contains("milliseconds")));
        assert!(!entries[0].read_only);
        assert_eq!(entries[0].config_source, 5);
        let entries = broker(&Layers::of(&NOTHING), &Wanted::default());
        assert!(find(&entries, "num.partitions").read_only);
        assert!(!find(&entries, "log.retention.ms").read_only);
        assert!(find(&entries, "log.retention.ms").value.is_none());
    }

    /// As in Kafka: a list is described with each element once, and given back by CreateTopics as it came.
    #[test]
    fn what_is_in_a_list_twice_is_described_once() {
        for (given, described) in [("delete,delete", "delete"), ("delete, compact,delete", "delete,compact"), ("", "")]
        {
            let own = map(&[("cleanup.policy", given)]);
            let layers = Layers::of(&NOTHING).with_topic(&own);
            let entries = topic(&layers, &Wanted { synonyms: true, ..Wanted::default() });
            let entry = find(&entries, "cleanup.policy");
            assert_eq!(entry.value.as_ref().map(StrBytes::as_str), Some(described));
            assert_eq!(entry.synonyms[0].value.as_ref().map(StrBytes::as_str), Some(described));
            let created = created_topic(&layers);
            let created = created.iter().find(|one| one.name.as_str() == "cleanup.policy").expect("it is there");
            assert_eq!(created.value.as_ref().map(StrBytes::as_str), Some(given));
        }
    }

    #[test]
    fn all_brokers_show_dynamic_values_only() {
        let overrides = map(&[("log.retention.ms", " 777777 ")]);
        let entries = cluster(&overrides, &Wanted { synonyms: true, ..Wanted::default() });
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].value.as_ref().map(StrBytes::as_str), Some("777777"));
        assert_eq!((entries[0].config_source, entries[0].synonyms.len()), (3, 1));
    }
}

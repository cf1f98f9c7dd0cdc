//! Where a value comes from: the layers of settings, best first.

use std::collections::BTreeMap;

use super::{
    keys::{self, Key, Kind, broker_key, broker_synonyms_of_topic_key, synonyms_of_broker_key},
    value,
};

/// Values set while the cluster runs, by key: of one topic, of one broker, or of all brokers.
pub type Overrides = BTreeMap<String, String>;

/// Values from the file and the command line, by key.
pub type Statics = BTreeMap<String, String>;

/// Where a value comes from. The numbers are those of `DescribeConfigs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set for the topic.
    DynamicTopic = 1,
    /// Set for this broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefaultBroker = 3,
    /// From the file or the command line.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
}

/// One place that could give a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The key there, which may be another one.
    pub name: String,
    /// The value there, in that key's own unit.
    pub value: String,
    /// Where it is.
    pub source: Source,
}

/// A value with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The value that counts; none: not set.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// All places that could give a value, best first.
    pub synonyms: Vec<Synonym>,
}

/// All layers for one resource.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// File and command line.
    pub statics: &'a Statics,
    /// Dynamic values for all brokers.
    pub cluster: &'a Overrides,
    /// Dynamic values for this broker.
    pub broker: &'a Overrides,
    /// The topic's own values.
    pub topic: &'a Overrides,
}

/// No values at all, for a layer that a caller has not.
pub static NOTHING: BTreeMap<String, String> = BTreeMap::new();

impl<'a> Layers<'a> {
    /// The layers of a broker that has no dynamic values.
    #[must_use]
    pub fn of(statics: &'a Statics) -> Self {
        Self { statics, cluster: &NOTHING, broker: &NOTHING, topic: &NOTHING }
    }

    /// The layers of a topic: its own values above the broker's.
    #[must_use]
    pub fn with_topic(self, topic: &'a Overrides) -> Self {
        Self { topic, ..self }
    }

    /// The value of a broker setting.
    #[must_use]
    pub fn broker_value(&self, key: &'static Key) -> Resolved {
        let value = self.broker_text(key.name).map(str::to_owned);
        let names = synonyms_of_broker_key(key.name);
        let synonyms = visible(key.name, names.iter().flat_map(|name| self.broker_places(name)).collect());
        let source = synonyms.first().map_or(Source::Default, |synonym| synonym.source);
        Resolved { value, source, synonyms }
    }

    /// The value of a topic setting.
    #[must_use]
    pub fn topic_value(&self, key: &'static Key) -> Resolved {
        let synonyms_of_topic_key = broker_synonyms_of_topic_key(key.name);
        let mut synonyms = match synonyms_of_topic_key.first() {
            // Kafka lists what stands in for the first synonym under its name, and nothing if that one is not set.
            Some((first, _)) => {
                visible(first, synonyms_of_broker_key(first).iter().flat_map(|name| self.broker_places(name)).collect())
            }
            None => Vec::new(),
        };
        let own = self.topic.get(key.name);
        if let Some(own) = own {
            synonyms.insert(0, Synonym { name: key.name.to_owned(), value: own.clone(), source: Source::DynamicTopic });
        }
        let source = synonyms.first().map_or(Source::Default, |synonym| synonym.source);
        let value = own.cloned().or_else(|| self.broker_text_for(key, synonyms_of_topic_key));
        Resolved { value, source, synonyms }
    }

    /// The value of a topic setting, without its origin.
    #[must_use]
    pub fn topic_text(&self, key: &'static Key) -> Option<String> {
        let own = self.topic.get(key.name).cloned();
        own.or_else(|| self.broker_text_for(key, broker_synonyms_of_topic_key(key.name)))
    }

    /// What the broker settings give for a topic setting, in the topic setting's unit.
    fn broker_text_for(&self, key: &'static Key, synonyms: &[(&'static str, i64)]) -> Option<String> {
        for (name, unit) in synonyms {
            let Some(text) = self.broker_text(name) else { continue };
            return Some(match value::number(text) {
                Some(number) if key.kind == Kind::Long && *unit != 1 => {
                    // Whatever lies below zero means "for ever".
                    if number < 0 { "-1".to_owned() } else { number.saturating_mul(*unit).to_string() }
                }
                _ => text.to_owned(),
            });
        }
        key.default.map(str::to_owned)
    }

    /// The text of a broker setting under its own name; none: not set.
    #[must_use]
    pub fn broker_text(&self, name: &str) -> Option<&'a str> {
        let set = self.broker.get(name).or_else(|| self.cluster.get(name)).or_else(|| self.statics.get(name));
        set.map(String::as_str).or_else(|| broker_key(name)?.default)
    }

    fn broker_places(&self, name: &'static str) -> Vec<Synonym> {
        let place = |value: Option<&str>, source| {
            value.map(|value| Synonym { name: name.to_owned(), value: value.to_owned(), source })
        };
        let default = keys::broker_key(name).and_then(|key| key.default);
        [
            place(self.broker.get(name).map(String::as_str), Source::DynamicBroker),
            place(self.cluster.get(name).map(String::as_str), Source::DynamicDefaultBroker),
            place(self.statics.get(name).map(String::as_str), Source::StaticBroker),
            place(default, Source::Default),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Drops what stands before the first place that has the key's own name, as Kafka does; with it goes everything if the
/// key itself is set nowhere.
fn visible(name: &str, mut places: Vec<Synonym>) -> Vec<Synonym> {
    let first = places.iter().position(|place| place.name == name).unwrap_or(places.len());
    places.drain(..first);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::topic_key;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn show(resolved: &Resolved) -> String {
        let synonyms: Vec<_> =
            resolved.synonyms.iter().map(|s| format!("{}={}@{:?}", s.name, s.value, s.source)).collect();
        format!("{:?} {:?} [{}]", resolved.value.as_deref(), resolved.source, synonyms.join(" "))
    }

    /// The answers are Apache Kafka 4.3.1's.
    #[test]
    fn topic_values_and_their_synonyms() {
        let statics = map(&[("log.retention.hours", "2"), ("min.insync.replicas", "1")]);
        let cluster = map(&[("log.retention.ms", "777777")]);
        let broker = map(&[("log.retention.ms", "888888")]);
        let topic = map(&[("cleanup.policy", "")]);
        let retention = topic_key("retention.ms").expect("a key");
        let layers = Layers { statics: &statics, cluster: &cluster, broker: &broker, topic: &topic };
        assert_eq!(
            show(&layers.topic_value(retention)),
            "Some(\"888888\") DynamicBroker [log.retention.ms=888888@DynamicBroker \
             log.retention.ms=777777@DynamicDefaultBroker log.retention.hours=2@StaticBroker \
             log.retention.hours=168@Default]"
        );
        assert_eq!(
            show(&layers.topic_value(topic_key("cleanup.policy").expect("a key"))),
            "Some(\"\") DynamicTopic [cleanup.policy=@DynamicTopic log.cleanup.policy=delete@Default]"
        );
        // Hours from the file count, but do not show.
        let layers = Layers::of(&statics);
        assert_eq!(show(&layers.topic_value(retention)), "Some(\"7200000\") Default []");
        assert_eq!(
            show(&layers.topic_value(topic_key("segment.ms").expect("a key"))),
            "Some(\"604800000\") Default []"
        );
        assert_eq!(
            show(&layers.topic_value(topic_key("min.insync.replicas").expect("a key"))),
            "Some(\"1\") StaticBroker [min.insync.replicas=1@StaticBroker min.insync.replicas=1@Default]"
        );
        assert_eq!(
            show(&layers.topic_value(topic_key("remote.storage.enable").expect("a key"))),
            "Some(\"false\") Default []"
        );
    }

    #[test]
    fn broker_values_and_their_synonyms() {
        let statics = map(&[("num.partitions", "4")]);
        let layers = Layers::of(&statics);
        let value = |name| show(&layers.broker_value(broker_key(name).expect("a key")));
        assert_eq!(
            value("num.partitions"),
            "Some(\"4\") StaticBroker [num.partitions=4@StaticBroker num.partitions=1@Default]"
        );
        assert_eq!(value("log.roll.ms"), "None Default []");
        assert_eq!(value("log.roll.hours"), "Some(\"168\") Default [log.roll.hours=168@Default]");
    }

    #[test]
    fn hours_below_zero_are_for_ever() {
        let statics = map(&[("log.retention.hours", "-1")]);
        let text = Layers::of(&statics).topic_text(topic_key("retention.ms").expect("a key"));
        assert_eq!(text.as_deref(), Some("-1"));
    }
}

//! Settings as typed values, out of the layers.

use super::{
    keys::{Key, broker_key, topic_key},
    layers::Layers,
    value,
};

/// The values of a broker's or a topic's settings, by key, each as the type that its subject keeps. A value that is none,
/// which only a damaged or newer metadata log can hold, counts as not set. The names must be in the table: asking for
/// another one is a mistake of ours, which every start would meet.
pub(super) struct Values<'a> {
    layers: &'a Layers<'a>,
    scope: Scope,
}

enum Scope {
    Broker,
    Topic,
}

impl<'a> Values<'a> {
    /// The broker's.
    pub(super) fn of_broker(layers: &'a Layers<'a>) -> Self {
        Self { layers, scope: Scope::Broker }
    }

    /// A topic's.
    pub(super) fn of_topic(layers: &'a Layers<'a>) -> Self {
        Self { layers, scope: Scope::Topic }
    }

    /// What the file or the command line say, as it is.
    pub(super) fn given(&self, name: &str) -> Option<&'a str> {
        self.layers.statics.get(name).map(String::as_str)
    }

    /// Text without the blanks around it; nothing but blanks counts as not set.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        Some(self.word(name)).filter(|text| !text.is_empty())
    }

    /// Text without the blanks around it; empty if there is none.
    pub(super) fn word(&self, name: &str) -> String {
        self.value(name, |text| Some(text.trim().to_owned())).unwrap_or_default()
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, name: &str) -> bool {
        self.value(name, value::boolean).expect("the table has a default for every boolean")
    }

    /// A number of up to 64 bits.
    pub(super) fn long(&self, name: &str) -> i64 {
        self.value(name, value::number).expect("the table has a default for every number that is asked for")
    }

    /// A number that the table bounds to 32 bits.
    pub(super) fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).expect("the table bounds the key to 32 bits")
    }

    /// A number that the table bounds to 16 bits.
    pub(super) fn short(&self, name: &str) -> i16 {
        i16::try_from(self.long(name)).expect("the table bounds the key to 16 bits")
    }

    /// A count, which the table bounds to 31 bits. Below zero counts as zero.
    pub(super) fn count(&self, name: &str) -> u32 {
        u32::try_from(self.long(name).max(0)).expect("the table bounds the key to 31 bits")
    }

    /// A number, below zero counting as zero.
    pub(super) fn unsigned(&self, name: &str) -> u64 {
        self.limit(name).unwrap_or(0)
    }

    /// A number for which everything below zero means that there is no limit.
    pub(super) fn limit(&self, name: &str) -> Option<u64> {
        u64::try_from(self.long(name)).ok()
    }

    fn value<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let key = self.key(name);
        let set = match self.scope {
            Scope::Broker => self.layers.broker_text(name).map(str::to_owned),
            Scope::Topic => self.layers.topic_text(key),
        };
        let set = set.filter(|text| value::check(key, text).is_ok());
        set.as_deref().and_then(&parse).or_else(|| key.default.and_then(&parse))
    }

    fn key(&self, name: &str) -> &'static Key {
        let key = match self.scope {
            Scope::Broker => broker_key(name),
            Scope::Topic => topic_key(name),
        };
        key.expect("only keys of the table are asked for")
    }
}

//! Settings: one table of keys, from which come the parser of `server.properties`, the answers of `DescribeConfigs`, the
//! checks of `IncrementalAlterConfigs`, `config/server.properties` and README's table.
//!
//! A value is looked up in layers: topic override, this broker's dynamic value, all brokers' dynamic value, file or
//! command line, default. See [`Layers`].

mod broker;
pub mod describe;
pub mod document;
pub mod keys;
mod layers;
mod listeners;
mod load;
mod properties;
pub mod topic;
pub mod value;
mod values;

pub(crate) use self::broker::Voter;
pub use self::{
    broker::BrokerConfig,
    keys::{Effect, Key, Kind, Update},
    layers::{Layers, Overrides, Statics, Synonym},
    listeners::Listener,
    load::{ConfigError, Loaded, Note, load},
    topic::{CompressionType, Durability, TopicConfig},
};

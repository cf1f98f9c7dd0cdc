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

pub use broker::BrokerConfig;
pub use keys::{Effect, Key, Kind, Update};
pub use layers::{Layers, Overrides, Resolved, Source, Statics, Synonym};
pub use listeners::{Listener, SecurityProtocol};
pub use load::{ConfigError, Loaded, Note, load};
pub use properties::{Property, parse as parse_properties};
pub use topic::{CleanupPolicy, CompressionType, Durability, TimestampType, TopicConfig};

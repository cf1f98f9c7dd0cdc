//! The levels of the loggers, for DescribeConfigs (KIP-412).

use kafka_protocol::{messages::describe_configs_response::DescribeConfigsResourceResult, protocol::StrBytes};
use tracing::{Level, enabled, level_filters::LevelFilter};

use crate::{
    base::{LOGGERS, ROOT_LOGGER},
    config::describe::Wanted,
};

/// `DYNAMIC_BROKER_LOGGER_CONFIG` in DescribeConfigs.
const LOGGER_SOURCE: i8 = 6;

/// All loggers that are wanted. They have no type, no other names, and an empty
/// documentation whether it is wanted or not, as in Kafka.
pub(super) fn described(wanted: &Wanted<'_>) -> Vec<DescribeConfigsResourceResult> {
    let names = LOGGERS.iter().filter(|name| wanted.has(name));
    names
        .map(|name| {
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(word(level(name)))))
                .with_config_source(LOGGER_SOURCE)
                .with_documentation(Some(StrBytes::new()))
        })
        .collect()
}

/// Kafka's word for a level. It has none for "nothing": the least it knows is FATAL.
fn word(level: LevelFilter) -> &'static str {
    match level.into_level() {
        None => "FATAL",
        Some(Level::ERROR) => "ERROR",
        Some(Level::WARN) => "WARN",
        Some(Level::INFO) => "INFO",
        Some(Level::DEBUG) => "DEBUG",
        Some(Level::TRACE) => "TRACE",
    }
}

/// A target must be known to the compiler, so each is asked for by itself.
macro_rules! levels {
    ($($target:literal),* $(,)?) => {
        /// The most that a logger says.
        fn level(name: &str) -> LevelFilter {
            match name {
                $($target => {
                    if enabled!(target: $target, Level::TRACE) {
                        LevelFilter::TRACE
                    } else if enabled!(target: $target, Level::DEBUG) {
                        LevelFilter::DEBUG
                    } else if enabled!(target: $target, Level::INFO) {
                        LevelFilter::INFO
                    } else if enabled!(target: $target, Level::WARN) {
                        LevelFilter::WARN
                    } else if enabled!(target: $target, Level::ERROR) {
                        LevelFilter::ERROR
                    } else {
                        LevelFilter::OFF
                    }
                })*
                other => unreachable!("{other} is no logger of {ROOT_LOGGER}"),
            }
        }
    };
}

levels!(
    "ringtail::api",
    "ringtail::cli",
    "ringtail::config",
    "ringtail::controller",
    "ringtail::coordinator",
    "ringtail::group",
    "ringtail::io",
    "ringtail::log",
    "ringtail::metadata",
    "ringtail::metrics",
    "ringtail::net",
    "ringtail::partition",
    "ringtail::peer",
    "ringtail::protocol",
    "ringtail::quorum",
    "ringtail::replica",
    "ringtail::server",
    "ringtail::shard",
    "root",
);

#[cfg(test)]
mod tests {
    use tracing_subscriber::EnvFilter;

    use super::*;

    #[test]
    fn levels_are_those_in_force() {
        let filter = EnvFilter::new("warn,ringtail::net=debug,ringtail::log=off,ringtail::shard=trace");
        let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::sink).finish();
        tracing::subscriber::with_default(subscriber, || {
            let all = described(&Wanted { documentation: true, ..Wanted::default() });
            let told = |name: &str| {
                all.iter().find(|one| one.name.as_str() == name).and_then(|one| one.value.clone()).expect("it is there")
            };
            assert_eq!(all.len(), LOGGERS.len(), "every logger has a level");
            for (name, level) in [
                ("ringtail::net", "DEBUG"),
                ("ringtail::log", "FATAL"),
                ("ringtail::shard", "TRACE"),
                ("ringtail::api", "WARN"),
                ("root", "WARN"),
            ] {
                assert_eq!(told(name).as_str(), level, "{name}");
            }
            assert!(all.iter().all(|one| one.config_source == 6 && !one.read_only && one.config_type == 0));
            let keys = [StrBytes::from_static_str("root"), StrBytes::from_static_str("no.such")];
            let some = described(&Wanted { keys: Some(&keys), ..Wanted::default() });
            assert_eq!(some.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["root"]);
            assert_eq!(some[0].documentation.as_deref(), Some(""), "as in Kafka, though nobody asked");
        });
    }
}

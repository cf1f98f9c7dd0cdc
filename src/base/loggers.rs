//! The loggers that clients see as settings of a broker (KIP-412): one for each room, and the root of them all.

/// Their names, in order: what `RINGTAIL_LOG` calls them.
pub const LOGGERS: [&str; 19] = [
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
    ROOT_LOGGER,
];

/// What holds where nothing else does.
pub const ROOT_LOGGER: &str = "root";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_that_may_log_is_a_logger() {
        let room = |line: &'static str| {
            line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub "))?.strip_prefix("mod ")?.strip_suffix(';')
        };
        let rooms = include_str!("../lib.rs").lines().filter_map(room);
        let mut expected: Vec<String> = rooms.map(|room| format!("ringtail::{room}")).collect();
        expected.retain(|name| name != "ringtail::base");
        expected.push(ROOT_LOGGER.to_owned());
        expected.sort();
        let mut named = LOGGERS.map(str::to_owned).to_vec();
        assert!(named.is_sorted(), "clients get them in this order");
        named.sort();
        assert_eq!(named, expected);
    }
}

//! How followers copy their leaders' logs, and when a leader counts them as in sync.

use crate::config::{
    load::{ConfigError, Places},
    values::Values,
};

/// What replication is held to. It stays as it is while the process runs.
#[allow(dead_code, reason = "the cluster is being put together: who reads them comes with it")]
#[derive(Clone, Debug)]
pub(crate) struct ReplicationConfig {
    /// `replica.lag.time.max.ms`.
    pub(crate) lag_time_max_ms: u64,
    /// `replica.fetch.max.bytes`, of one partition.
    pub(crate) fetch_max_bytes: i32,
    /// `replica.fetch.response.max.bytes`.
    pub(crate) fetch_response_max_bytes: i32,
    /// `replica.fetch.min.bytes`.
    pub(crate) fetch_min_bytes: i32,
    /// `replica.fetch.wait.max.ms`.
    pub(crate) fetch_wait_max_ms: i32,
    /// `replica.fetch.backoff.ms`.
    pub(crate) fetch_backoff_ms: u64,
    /// `replica.socket.timeout.ms`.
    pub(crate) socket_timeout_ms: u64,
}

impl ReplicationConfig {
    /// # Errors  A fetch that finds nothing waits longer than its connection or its place among those in sync lasts.
    pub(super) fn read(values: &Values<'_>, places: &Places) -> Result<Self, ConfigError> {
        let key = "replica.fetch.wait.max.ms";
        let config = Self {
            lag_time_max_ms: values.unsigned("replica.lag.time.max.ms"),
            fetch_max_bytes: values.int("replica.fetch.max.bytes"),
            fetch_response_max_bytes: values.int("replica.fetch.response.max.bytes"),
            fetch_min_bytes: values.int("replica.fetch.min.bytes"),
            fetch_wait_max_ms: values.int(key),
            fetch_backoff_ms: values.unsigned("replica.fetch.backoff.ms"),
            socket_timeout_ms: values.unsigned("replica.socket.timeout.ms"),
        };
        let wait = values.unsigned(key);
        for (other, limit) in [
            ("replica.socket.timeout.ms", config.socket_timeout_ms),
            ("replica.lag.time.max.ms", config.lag_time_max_ms),
        ] {
            if wait > limit {
                return Err(places.error(key, &wait.to_string(), &format!("must be at most {other}={limit}")));
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::load;

    #[test]
    fn a_fetch_waits_no_longer_than_its_follower_counts_as_in_sync() {
        let error = |lines| load(Some(("f", lines)), &[]).expect_err("a contradiction").0;
        assert_eq!(
            error("replica.fetch.wait.max.ms=20000\n"),
            "f line 1: replica.fetch.wait.max.ms=20000: must be at most replica.lag.time.max.ms=10000"
        );
        assert_eq!(
            error("replica.socket.timeout.ms=400\n"),
            "default: replica.fetch.wait.max.ms=500: must be at most replica.socket.timeout.ms=400"
        );
    }
}

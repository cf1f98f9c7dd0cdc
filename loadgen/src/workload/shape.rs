//! The settings of a load as a user gives them, all optional: the same names as flags and in a TOML file.

use clap::Args;
use serde::{
    Deserialize, Serialize,
    de::{self, Deserializer, Visitor},
};

/// Settings as written. A flag wins over the file, the file over the default.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Shape {
    /// Name in the report
    #[arg(long)]
    pub name: Option<String>,
    /// produce, fetch or both (end-to-end latency) [both]
    #[arg(long)]
    pub mode: Option<String>,
    /// Offered rate of all producers: records/s (5000, 50k), bytes (50MB/s), or max for a closed loop [1000]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub rate: Option<String>,
    /// Spacing of the send times: constant or poisson [constant]
    #[arg(long)]
    pub arrival: Option<String>,
    /// All load in bursts, ON/OFF as 100ms/900ms; the average stays the rate
    #[arg(long)]
    pub burst: Option<String>,
    /// Value size: 1024, uniform:100-2000, lognormal:median=200,sigma=1, mix:100*0.9,10000*0.1 [1024]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub record_bytes: Option<String>,
    /// Number of distinct keys; 0 sends records without a key [0]
    #[arg(long)]
    pub keys: Option<u64>,
    /// sticky, round-robin, random or key [key with keys, else sticky]
    #[arg(long)]
    pub partitioner: Option<String>,
    /// Share of the payload that is random, 0 to 1; the rest is one repeated byte [1]
    #[arg(long)]
    pub randomness: Option<f64>,
    /// Topic to use; made if it is not there. Without it a fresh one is made and removed
    #[arg(long)]
    pub topic: Option<String>,
    /// Number of topics to make [1]
    #[arg(long)]
    pub topics: Option<usize>,
    /// Partitions of each topic [1]
    #[arg(long)]
    pub partitions: Option<usize>,
    /// Replication factor; -1 is the broker's default [-1]
    #[arg(long, allow_hyphen_values = true)]
    pub replication: Option<i16>,
    /// Setting of the made topics, key=value; may be given several times
    #[arg(long)]
    pub topic_config: Option<Vec<String>>,
    /// Whether to make topics that are missing [true]
    #[arg(long)]
    pub create: Option<bool>,
    /// Leave the topics that the run made [false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub keep_topics: Option<bool>,
    /// Producers, each with connections of its own [1]
    #[arg(long)]
    pub producers: Option<usize>,
    /// Consumers, each with connections of its own [1]
    #[arg(long)]
    pub consumers: Option<usize>,
    /// Let the consumers form a group instead of dividing the partitions up beforehand [false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub group: Option<bool>,
    /// 0, 1 or all [all]
    #[arg(long, allow_hyphen_values = true)]
    #[serde(deserialize_with = "text")]
    pub acks: Option<String>,
    /// Idempotent producers [true with acks=all]
    #[arg(long)]
    pub idempotence: Option<bool>,
    /// Largest batch [16KiB]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub batch_bytes: Option<String>,
    /// Most records in a batch [no limit]
    #[arg(long)]
    pub batch_records: Option<u32>,
    /// Largest produce request [1MiB]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub request_bytes: Option<String>,
    /// How long a record may wait for company [0ms]
    #[arg(long)]
    pub linger: Option<String>,
    /// none, gzip, snappy, lz4 or zstd [none]
    #[arg(long)]
    pub compression: Option<String>,
    /// Unanswered produce requests per connection [5]
    #[arg(long)]
    pub in_flight: Option<usize>,
    /// How long the measured schedule runs [30s]
    #[arg(long)]
    pub duration: Option<String>,
    /// Load before it that is not measured [5s]
    #[arg(long)]
    pub warm_up: Option<String>,
    /// After this a record that is not acknowledged has failed, and counts as this long [60s]
    #[arg(long)]
    pub timeout: Option<String>,
    /// After this an unanswered request is given up and its connection closed [30s]
    #[arg(long)]
    pub request_timeout: Option<String>,
    /// How long the broker may wait for fetch-min-bytes [500ms]
    #[arg(long)]
    pub fetch_max_wait: Option<String>,
    /// Least bytes of a fetch reply [1]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub fetch_min_bytes: Option<String>,
    /// Most bytes of a fetch reply [50MiB]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub fetch_max_bytes: Option<String>,
    /// Most bytes of one partition in a fetch reply [1MiB]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub partition_max_bytes: Option<String>,
    /// Bytes to write before the measurement, as fast as they go, for fetch to read [0]
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub prefill: Option<String>,
    /// Check every consumed record for order, gaps and duplicates [true]
    #[arg(long)]
    pub verify: Option<bool>,
    /// Threads that carry the load [1]
    #[arg(long)]
    pub threads: Option<usize>,
    /// Cores to pin the threads to, as 0,1; the threads take them in turn
    #[arg(long)]
    #[serde(deserialize_with = "text")]
    pub pin: Option<String>,
    /// Poll instead of sleeping between events: less lateness, one whole core per thread [false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub spin: Option<bool>,
    /// Seed of schedule, sizes, keys and payload [drawn, and printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// The run is invalid if the generator is later than this at its own p99 [1ms]
    #[arg(long)]
    pub lateness_bound: Option<String>,
}

impl Shape {
    /// # Errors  the line and the setting that is wrong; unknown names are errors.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))
    }

    /// This shape, with `other` for what it leaves open.
    pub fn or(self, other: Self) -> Self {
        macro_rules! first {
            ($($field:ident),* $(,)?) => { Self { $($field: self.$field.or(other.$field)),* } };
        }
        first!(
            name,
            mode,
            rate,
            arrival,
            burst,
            record_bytes,
            keys,
            partitioner,
            randomness,
            topic,
            topics,
            partitions,
            replication,
            topic_config,
            create,
            keep_topics,
            producers,
            consumers,
            group,
            acks,
            idempotence,
            batch_bytes,
            batch_records,
            request_bytes,
            linger,
            compression,
            in_flight,
            duration,
            warm_up,
            timeout,
            request_timeout,
            fetch_max_wait,
            fetch_min_bytes,
            fetch_max_bytes,
            partition_max_bytes,
            prefill,
            verify,
            threads,
            pin,
            spin,
            seed,
            lateness_bound,
        )
    }
}

/// A TOML string or number, kept as text: `rate = 1000` and `rate = "max"` are both natural.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Option<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string or a number")
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
            Ok(Some(value.to_owned()))
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
            Ok(Some(value.to_string()))
        }
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
            Ok(Some(value.to_string()))
        }
    }
    deserializer.deserialize_any(Text)
}

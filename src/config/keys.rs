//! The one table of settings.

mod idle;
mod topic;
mod used;

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its name in files, on the command line and on the wire.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Its default as text; none is null: not set.
    pub default: Option<&'static str>,
    /// Which values of the type are taken.
    pub allowed: Allowed,
    /// Who may change it while the broker runs.
    pub update: Update,
    /// What it does here.
    pub effect: Effect,
    /// What it means, units included.
    pub documentation: &'static str,
}

/// Kafka's types of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// Any text.
    String,
    /// 32 bits.
    Int,
    /// 16 bits.
    Short,
    /// 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// Texts separated by commas.
    List,
    /// The name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
}

impl Kind {
    /// The number of the type in `DescribeConfigs` (KIP-569).
    #[must_use]
    pub fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    /// The name of the type in Kafka's messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }
}

/// Bounds of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// Every value of the type.
    Any,
    /// From this number on.
    AtLeast(i64),
    /// From the first to the second number.
    Between(i64, i64),
    /// From the first to the second number, or the third.
    BetweenOr(i64, i64, i64),
    /// From the first to the second fraction.
    Fraction(f64, f64),
    /// One of these words; in a list, each element.
    OneOf(&'static [&'static str]),
    /// One of these words in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// Any text but none at all.
    NonEmpty,
    /// `*`, or `partition:broker` pairs.
    ThrottledReplicas,
}

/// Who may change a setting while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nobody: file and command line only.
    ReadOnly,
    /// An admin client, for one broker.
    PerBroker,
    /// An admin client, for one broker or for all.
    ClusterWide,
    /// An admin client, for one topic.
    PerTopic,
}

/// What a setting does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What its documentation says.
    Used,
    /// What its documentation says, but `DescribeConfigs` does not show it: Kafka keeps the key to itself.
    UsedUnseen,
    /// Nothing: the key is Kafka's and is only known.
    NoEffect,
    /// Nothing, and `DescribeConfigs` does not show it: Kafka keeps the key to itself.
    Hidden,
    /// A file that sets it does not start the broker, because ignoring it would be unsafe. The reason.
    Refused(&'static str),
}

impl Key {
    /// Whether the value must never be shown.
    #[must_use]
    pub fn sensitive(&self) -> bool {
        self.kind == Kind::Password
    }
}

const fn key(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    allowed: Allowed,
    update: Update,
    effect: Effect,
    documentation: &'static str,
) -> Key {
    Key { name, kind, default, allowed, update, effect, documentation }
}

/// A key of Kafka's without effect here.
const fn idle(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    allowed: Allowed,
    update: Update,
    effect: Effect,
) -> Key {
    key(name, kind, default, allowed, update, effect, "A setting of Apache Kafka's. It has no effect in Ringtail.")
}

/// All broker settings: those in use first, in the order of the documentation, then Kafka's others by name.
pub fn broker_keys() -> impl Iterator<Item = &'static Key> {
    used::USED.iter().chain(idle::IDLE)
}

/// The broker settings that mean something, in the order of the documentation.
#[must_use]
pub fn used_broker_keys() -> &'static [Key] {
    used::USED
}

/// All topic settings.
#[must_use]
pub fn topic_keys() -> &'static [Key] {
    topic::TOPIC
}

/// The broker setting of that name.
#[must_use]
pub fn broker_key(name: &str) -> Option<&'static Key> {
    used::USED.iter().find(|key| key.name == name).or_else(|| by_name(idle::IDLE, name))
}

/// The topic setting of that name.
#[must_use]
pub fn topic_key(name: &str) -> Option<&'static Key> {
    topic::TOPIC.iter().find(|key| key.name == name)
}

fn by_name(sorted: &'static [Key], name: &str) -> Option<&'static Key> {
    sorted.binary_search_by(|key| key.name.cmp(name)).ok().map(|index| &sorted[index])
}

/// Broker settings that stand in for a topic setting, best first, and for each what one unit of it is worth in units of
/// the topic setting.
#[must_use]
pub fn broker_synonyms_of_topic_key(name: &str) -> &'static [(&'static str, i64)] {
    match name {
        "segment.bytes" => &[("log.segment.bytes", 1)],
        "segment.ms" => &[("log.roll.ms", 1), ("log.roll.hours", 3_600_000)],
        "segment.jitter.ms" => &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000)],
        "segment.index.bytes" => &[("log.index.size.max.bytes", 1)],
        "flush.messages" => &[("log.flush.interval.messages", 1)],
        "flush.ms" => &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
        "retention.bytes" => &[("log.retention.bytes", 1)],
        "retention.ms" => {
            &[("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)]
        }
        "max.message.bytes" => &[("message.max.bytes", 1)],
        "index.interval.bytes" => &[("log.index.interval.bytes", 1)],
        "delete.retention.ms" => &[("log.cleaner.delete.retention.ms", 1)],
        "min.compaction.lag.ms" => &[("log.cleaner.min.compaction.lag.ms", 1)],
        "max.compaction.lag.ms" => &[("log.cleaner.max.compaction.lag.ms", 1)],
        "file.delete.delay.ms" => &[("log.segment.delete.delay.ms", 1)],
        "min.cleanable.dirty.ratio" => &[("log.cleaner.min.cleanable.ratio", 1)],
        "cleanup.policy" => &[("log.cleanup.policy", 1)],
        "unclean.leader.election.enable" => &[("unclean.leader.election.enable", 1)],
        "min.insync.replicas" => &[("min.insync.replicas", 1)],
        "compression.type" => &[("compression.type", 1)],
        "compression.gzip.level" => &[("compression.gzip.level", 1)],
        "compression.lz4.level" => &[("compression.lz4.level", 1)],
        "compression.zstd.level" => &[("compression.zstd.level", 1)],
        "preallocate" => &[("log.preallocate", 1)],
        "message.timestamp.type" => &[("log.message.timestamp.type", 1)],
        "message.timestamp.before.max.ms" => &[("log.message.timestamp.before.max.ms", 1)],
        "message.timestamp.after.max.ms" => &[("log.message.timestamp.after.max.ms", 1)],
        "local.retention.ms" => &[("log.local.retention.ms", 1)],
        "local.retention.bytes" => &[("log.local.retention.bytes", 1)],
        "durability" => &[("durability", 1)],
        _ => &[],
    }
}

/// The broker settings that stand in for a broker setting, itself first.
#[must_use]
pub fn synonyms_of_broker_key(name: &'static str) -> Vec<&'static str> {
    match name {
        "log.roll.ms" => vec!["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" => vec!["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "log.flush.interval.ms" => vec!["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "log.retention.ms" => vec!["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
        name => vec![name],
    }
}

/// The known broker or topic key that is spelled most like `name`, if one is like it at all.
#[must_use]
pub fn nearest<'a>(name: &str, keys: impl Iterator<Item = &'a Key>) -> Option<&'static str> {
    // Half of the letters wrong is another word. Longer names than any key's are not worth the sums.
    let distance_max = (name.chars().count() / 2).min(6);
    if name.len() > 100 {
        return None;
    }
    keys.map(|key| (strsim::levenshtein(name, key.name), key.name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value;

    #[test]
    fn every_default_is_allowed_and_names_are_unique() {
        for keys in [broker_keys().collect::<Vec<_>>(), topic_keys().iter().collect()] {
            let mut names: Vec<_> = keys.iter().map(|key| key.name).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(count, names.len(), "a name occurs twice");
            for key in keys {
                if let Some(default) = key.default {
                    assert_eq!(value::check(key, default), Ok(()), "{}", key.name);
                }
            }
        }
    }

    #[test]
    fn idle_keys_are_sorted_so_that_they_are_found() {
        assert!(idle::IDLE.is_sorted_by(|left, right| left.name < right.name));
        assert!(broker_keys().all(|key| broker_key(key.name).is_some_and(|found| std::ptr::eq(found, key))));
    }

    #[test]
    fn kafkas_keys_are_all_there() {
        // 360 broker keys and 33 public topic keys in Apache Kafka 4.3.1; ours are durability, journal.bytes,
        // memory.bytes, cores and io.ring, and durability for topics.
        assert_eq!(broker_keys().count(), 360 + 5);
        assert_eq!(topic_keys().len(), 33 + 1);
    }

    #[test]
    fn synonyms_are_broker_keys() {
        for key in topic_keys() {
            for (name, _) in broker_synonyms_of_topic_key(key.name) {
                assert!(broker_key(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn nearest_names() {
        let nearest = |name| nearest(name, broker_keys());
        assert_eq!(nearest("num.partition"), Some("num.partitions"));
        assert_eq!(nearest("log.retention.hour"), Some("log.retention.hours"));
        assert_eq!(nearest("advertised.listener"), Some("advertised.listeners"));
        assert_eq!(nearest("zookeeper.connect"), None);
        assert_eq!(nearest(""), None);
    }

    /// What a file with this line makes of it all: the broker's settings and a topic's, or why it does not start.
    fn made_of(lines: &str) -> String {
        match crate::config::load(Some(("f", lines)), &[]) {
            Ok(loaded) => {
                let config = format!("{:?}", loaded.config);
                let (settings, _as_given) = config.split_once("statics").expect("the last field");
                let layers = crate::config::Layers::of(loaded.config.statics());
                format!("{settings} {:?}", crate::config::TopicConfig::of(&layers))
            }
            Err(error) => error.to_string(),
        }
    }

    /// Another value than the default that the key takes, and what else has to be in the file for it to count.
    fn another(key: &Key) -> String {
        let value = match (key.name, key.kind, key.allowed) {
            ("process.roles", ..) => "broker".to_owned(),
            ("listeners" | "advertised.listeners", ..) => "PLAINTEXT://localhost:9".to_owned(),
            ("listener.security.protocol.map", ..) => "PLAINTEXT:SSL".to_owned(),
            ("controller.listener.names" | "inter.broker.listener.name", ..) => "OTHER".to_owned(),
            ("controller.quorum.voters", ..) => "77@localhost:9093".to_owned(),
            ("controller.quorum.bootstrap.servers", ..) => "other:9093".to_owned(),
            ("log.dirs" | "log.dir", ..) => "/elsewhere".to_owned(),
            (_, _, Allowed::OneOf(words)) => {
                words.iter().find(|word| Some(**word) != key.default).expect("two words").to_string()
            }
            (_, Kind::Boolean, _) => (key.default != Some("true")).to_string(),
            (_, Kind::Int | Kind::Short | Kind::Long, allowed) => {
                let default = key.default.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
                match allowed {
                    Allowed::Between(_, max) | Allowed::BetweenOr(_, max, _) if default != max => max.to_string(),
                    _ if default == i64::from(i32::MAX) || default == i64::MAX => (default - 1).to_string(),
                    _ => (default + 1).to_string(),
                }
            }
            _ => "something".to_owned(),
        };
        let beside = match key.name {
            "controller.listener.names" => "listeners=OTHER://:1,PLAINTEXT://:2\n",
            _ => "",
        };
        format!("{beside}{}={value}\n", key.name)
    }

    /// The first half of "a setting that is described as used is used": it makes another value of the broker's settings or of a
    /// topic's. The second half is the compiler's, which warns of a field of these that nobody reads.
    #[test]
    fn every_setting_in_use_makes_a_difference() {
        /// What these say is held against what there is; another value does not start.
        const REFUSED: [&str; 6] = [
            "process.roles",
            "listener.security.protocol.map",
            "inter.broker.listener.name",
            "security.inter.broker.protocol",
            "controller.quorum.voters",
            "controller.quorum.bootstrap.servers",
        ];
        for key in used_broker_keys() {
            let set = another(key);
            let starts = crate::config::load(Some(("f", &set)), &[]).is_ok();
            assert_eq!(starts, !REFUSED.contains(&key.name), "{set}");
            let (lines, _) = set.split_at(set.rfind(key.name).expect("it is set"));
            let without = made_of(&format!("{lines}\n"));
            assert_ne!(made_of(&set), without, "{set}has no effect, though the table says so");
        }
        for key in topic_keys().iter().filter(|key| key.effect == Effect::Used) {
            let (_, value) =
                another(key).trim().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("set");
            let own = [(key.name.to_owned(), value.clone())].into();
            let statics = Default::default();
            let layers = crate::config::Layers::of(&statics);
            let differs = format!("{:?}", crate::config::TopicConfig::of(&layers.with_topic(&own)));
            assert_ne!(differs, format!("{:?}", crate::config::TopicConfig::of(&layers)), "{}={value}", key.name);
        }
    }
}

//! From a file and a command line to a checked configuration, and what there is to tell about it.

use std::fmt;

use super::{
    broker::BrokerConfig,
    keys::{self, Effect, Key, broker_key, broker_keys},
    layers::Statics,
    properties, value,
};

/// A configuration that the broker can start with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: BrokerConfig,
    /// What the log should say about them, in the order of the file.
    pub notes: Vec<Note>,
}

/// Something about a file that a user may want to know. Each is worth one log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A setting of Kafka's without effect here. Not a warning.
    NoEffect {
        /// The key.
        key: String,
    },
    /// A key that nobody knows: a warning.
    Unknown {
        /// The key.
        key: String,
        /// Its line in the file.
        line: usize,
        /// A known key that is spelled like it.
        nearest: Option<&'static str>,
    },
    /// A key that occurs again, so that this line does not count: a warning.
    Repeated {
        /// The key.
        key: String,
        /// The line that does not count.
        line: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEffect { key } => write!(out, "{key} is a setting of Apache Kafka's without effect here"),
            Self::Unknown { key, line, nearest: Some(nearest) } => {
                write!(out, "unknown setting {key} on line {line}; did you mean {nearest}?")
            }
            Self::Unknown { key, line, nearest: None } => write!(out, "unknown setting {key} on line {line}"),
            Self::Repeated { key, line } => {
                write!(out, "{key} is set again below line {line}, and the last one counts")
            }
        }
    }
}

/// Why the broker cannot start with these settings: one line that names place, key, value and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Where each setting was made, for error messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    file: String,
    lines: Vec<(String, Option<usize>)>,
}

impl Places {
    fn of(&self, key: &str) -> String {
        match self.lines.iter().rev().find(|(known, _)| known == key) {
            Some((_, Some(line))) => format!("{} line {line}", self.file),
            Some((_, None)) => "--override".to_owned(),
            None => "default".to_owned(),
        }
    }

    /// An error about the value of a key.
    pub(super) fn error(&self, key: &str, value: &str, why: &str) -> ConfigError {
        ConfigError(format!("{}: {key}={value}: {why}", self.of(key)))
    }
}

/// Reads `file` (its name and its text) and `overrides` (`key=value` each, later ones win).
/// # Errors  The first thing that keeps the broker from starting.
pub fn load(file: Option<(&str, &str)>, overrides: &[String]) -> Result<Loaded, ConfigError> {
    let mut statics = Statics::new();
    let mut places = Places::default();
    let mut notes = Vec::new();
    if let Some((name, text)) = file {
        name.clone_into(&mut places.file);
        read_file(text, &mut statics, &mut places, &mut notes)?;
    }
    read_overrides(overrides, &mut statics, &mut places, &mut notes)?;
    let config = BrokerConfig::of(statics, &places)?;
    Ok(Loaded { config, notes })
}

fn read_file(text: &str, statics: &mut Statics, places: &mut Places, notes: &mut Vec<Note>) -> Result<(), ConfigError> {
    let properties = properties::parse(text).map_err(|(line, text)| {
        ConfigError(format!("{} line {line}: {text}: a \\u must be followed by four hexadecimal digits", places.file))
    })?;
    for (index, property) in properties.iter().enumerate() {
        let (key, line) = (property.key.as_str(), property.line);
        places.lines.push((key.to_owned(), Some(line)));
        if properties[index + 1..].iter().any(|later| later.key == property.key) {
            notes.push(Note::Repeated { key: key.to_owned(), line });
            continue;
        }
        match broker_key(key) {
            Some(known) => take(known, &property.value, statics, places, notes)?,
            // Settings of one listener: TLS and SASL, all of them.
            None if key.starts_with("listener.name.") => notes.push(Note::NoEffect { key: key.to_owned() }),
            None => {
                let nearest = keys::nearest(key, broker_keys());
                notes.push(Note::Unknown { key: key.to_owned(), line, nearest });
            }
        }
    }
    Ok(())
}

fn read_overrides(
    overrides: &[String],
    statics: &mut Statics,
    places: &mut Places,
    notes: &mut Vec<Note>,
) -> Result<(), ConfigError> {
    for text in overrides {
        let (key, value) =
            text.split_once('=').ok_or_else(|| ConfigError(format!("--override {text}: must be key=value")))?;
        let key = key.trim();
        places.lines.push((key.to_owned(), None));
        let known = broker_key(key).ok_or_else(|| {
            let nearest = keys::nearest(key, broker_keys());
            let hint = nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
            ConfigError(format!("--override {text}: unknown setting {key}{hint}"))
        })?;
        take(known, value, statics, places, notes)?;
    }
    Ok(())
}

fn take(
    key: &'static Key,
    text: &str,
    statics: &mut Statics,
    places: &Places,
    notes: &mut Vec<Note>,
) -> Result<(), ConfigError> {
    let text = if key.sensitive() { text } else { text.trim() };
    if value::check(key, text).is_err() {
        let shown = if key.sensitive() { "(hidden)" } else { text };
        return Err(places.error(key.name, shown, &format!("must be {}", value::allowed_words(key))));
    }
    match key.effect {
        Effect::Used | Effect::UsedUnseen => {}
        Effect::NoEffect | Effect::Hidden => {
            let note = Note::NoEffect { key: key.name.to_owned() };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        Effect::Refused(_) if text.is_empty() => {}
        Effect::Refused(why) => {
            return Err(places.error(key.name, text, &format!("not supported yet: {why}; remove the setting")));
        }
    }
    statics.insert(key.name.to_owned(), text.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, overrides: &[&str]) -> String {
        let overrides: Vec<_> = overrides.iter().map(|text| (*text).to_owned()).collect();
        match load(Some(("f.properties", file)), &overrides) {
            Ok(loaded) => {
                let notes: Vec<_> = loaded.notes.iter().map(ToString::to_string).collect();
                format!("ok {}", notes.join("; "))
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn unknown_keys_are_warnings_in_files_and_errors_on_the_command_line() {
        assert_eq!(
            check("num.partition=3\n", &[]),
            "ok unknown setting num.partition on line 1; did you mean num.partitions?"
        );
        assert_eq!(check("zookeeper.connect=x\n", &[]), "ok unknown setting zookeeper.connect on line 1");
        assert_eq!(
            check("", &["num.partition=3"]),
            "--override num.partition=3: unknown setting num.partition; did you mean num.partitions?"
        );
        assert_eq!(check("", &["num.partitions"]), "--override num.partitions: must be key=value");
    }

    #[test]
    fn bad_values_name_place_key_value_and_what_is_allowed() {
        assert_eq!(
            check("\nnum.partitions=none\n", &[]),
            "f.properties line 2: num.partitions=none: must be a 32-bit number of at least 1"
        );
        assert_eq!(check("", &["durability=maybe"]), "--override: durability=maybe: must be one of flush, write");
        // A value that a later one replaces is not looked at.
        assert_eq!(
            check("num.partitions=x\nnum.partitions=2\n", &[]),
            "ok num.partitions is set again below line 1, and the last one counts"
        );
    }

    #[test]
    fn what_would_be_unsafe_to_ignore_is_refused() {
        let refused = |file: &str| check(file, &[]).contains("not supported yet");
        assert!(refused("authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n"));
        assert!(!refused("authorizer.class.name=\n"));
        assert!(refused("listeners=SSL://:9092\n"));
        assert!(refused("listeners=IN://:9092\nlistener.security.protocol.map=IN:SASL_PLAINTEXT\n"));
        assert!(refused("controller.quorum.bootstrap.servers=a:1,b:1\n"));
        assert!(refused("log.dirs=/a,/b\n"));
        assert!(refused("process.roles=controller\n"));
        assert!(refused("process.roles=broker\n"));
    }

    #[test]
    fn keys_without_effect_are_told_once() {
        assert_eq!(
            check("num.io.threads=8\n", &["num.io.threads=9"]),
            "ok num.io.threads is a setting of Apache Kafka's without effect here"
        );
    }
}

//! From text to value, with Kafka's rules and Kafka's words.

use super::keys::{Allowed, Key, Kind};

/// Why a value is not taken, in Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Longest value that is taken, in bytes: Kafka's bound of a string.
pub const VALUE_BYTES_MAX: usize = i16::MAX as usize;

/// Whether the text is a value of the key.
/// # Errors  Kafka's message.
pub fn check(key: &Key, text: &str) -> Result<(), Invalid> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(Invalid(format!(
            "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_BYTES_MAX} bytes."
        )));
    }
    match key.kind {
        Kind::Boolean => boolean(text)
            .map(drop)
            .ok_or_else(|| invalid(key.name, text.trim(), "Expected value to be either true or false")),
        Kind::Int | Kind::Short | Kind::Long => check_number(key, text.trim()),
        Kind::Double => check_fraction(key, text.trim()),
        Kind::List => check_list(key, text),
        Kind::String | Kind::Class => check_word(key, text.trim()),
        Kind::Password => Ok(()),
    }
}

/// Kafka's sentence.
fn invalid(name: &str, value: &str, why: &str) -> Invalid {
    Invalid(format!("Invalid value {value} for configuration {name}: {why}"))
}

fn check_number(key: &Key, text: &str) -> Result<(), Invalid> {
    let bounds = match key.kind {
        Kind::Int => i64::from(i32::MIN)..=i64::from(i32::MAX),
        Kind::Short => i64::from(i16::MIN)..=i64::from(i16::MAX),
        _ => i64::MIN..=i64::MAX,
    };
    let number = number(text)
        .filter(|number| bounds.contains(number))
        .ok_or_else(|| invalid(key.name, text, &format!("Not a number of type {}", key.kind.name())))?;
    let why = match key.allowed {
        Allowed::AtLeast(min) if number < min => format!("Value must be at least {min}"),
        Allowed::Between(min, _) if number < min => format!("Value must be at least {min}"),
        Allowed::Between(_, max) if number > max => format!("Value must be no more than {max}"),
        Allowed::BetweenOr(min, max, other) if !(min..=max).contains(&number) && number != other => {
            format!("Value must be between {min} and {max} or equal to {other}")
        }
        _ => return Ok(()),
    };
    Err(invalid(key.name, text, &why))
}

fn check_fraction(key: &Key, text: &str) -> Result<(), Invalid> {
    let number =
        fraction(text).ok_or_else(|| invalid(key.name, text, &format!("Not a number of type {}", key.kind.name())))?;
    match key.allowed {
        Allowed::Fraction(min, _) if number < min => {
            Err(invalid(key.name, &format!("{number:?}"), &format!("Value must be at least {min}")))
        }
        Allowed::Fraction(_, max) if number > max => {
            Err(invalid(key.name, &format!("{number:?}"), &format!("Value must be no more than {max}")))
        }
        _ => Ok(()),
    }
}

fn check_list(key: &Key, text: &str) -> Result<(), Invalid> {
    match key.allowed {
        Allowed::OneOf(words) => match list(text).find(|element| !words.contains(element)) {
            Some(element) => Err(invalid(key.name, element, &format!("String must be one of: {}", words.join(", ")))),
            None => Ok(()),
        },
        Allowed::ThrottledReplicas if text.trim() != "*" && !list(text).all(partition_and_broker) => Err(invalid(
            key.name,
            &format!("[{}]", list(text).collect::<Vec<_>>().join(", ")),
            &format!(
                "{} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                key.name
            ),
        )),
        _ => Ok(()),
    }
}

fn partition_and_broker(element: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    element.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker))
}

fn check_word(key: &Key, text: &str) -> Result<(), Invalid> {
    match key.allowed {
        Allowed::OneOf(words) if !words.contains(&text) => {
            Err(invalid(key.name, text, &format!("String must be one of: {}", words.join(", "))))
        }
        Allowed::OneOfAnyCase(words) if !words.iter().any(|word| word.eq_ignore_ascii_case(text)) => {
            Err(invalid(key.name, text, &format!("String must be one of (case insensitive): {}", words.join(", "))))
        }
        Allowed::NonEmpty if text.is_empty() => Err(invalid(key.name, text, "String must be non-empty")),
        _ => Ok(()),
    }
}

/// `true` or `false` in any case, blanks around it ignored.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// A whole number, blanks around it ignored.
#[must_use]
pub fn number(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// A floating-point number, blanks around it ignored.
#[must_use]
pub fn fraction(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| !number.is_nan())
}

/// The elements of a list. The empty text is the empty list.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim();
    let count = if text.is_empty() { 0 } else { usize::MAX };
    text.split(',').take(count).map(str::trim)
}

/// The text as `DescribeConfigs` shows a parsed value.
#[must_use]
pub fn shown(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Boolean => boolean(text).map_or_else(|| text.to_owned(), |value| value.to_string()),
        Kind::Int | Kind::Short | Kind::Long => number(text).map_or_else(|| text.to_owned(), |value| value.to_string()),
        Kind::List => {
            // What is there twice counts once, as in Kafka.
            let mut elements: Vec<&str> = Vec::new();
            for element in list(text) {
                if !elements.contains(&element) {
                    elements.push(element);
                }
            }
            elements.join(",")
        }
        // Java writes fractions in a notation of its own; what was given reads the same to a person.
        Kind::Double | Kind::String | Kind::Class => text.trim().to_owned(),
        Kind::Password => String::new(),
    }
}

/// What is allowed, in words, for error messages and documentation.
#[must_use]
pub fn allowed_words(key: &Key) -> String {
    let kind = match key.kind {
        Kind::Boolean => "true or false",
        Kind::String => "text",
        Kind::Int => "a 32-bit number",
        Kind::Short => "a 16-bit number",
        Kind::Long => "a 64-bit number",
        Kind::Double => "a number",
        Kind::List => "a list separated by commas",
        Kind::Class => "a class name",
        Kind::Password => "text",
    };
    match key.allowed {
        Allowed::Any => kind.to_owned(),
        Allowed::AtLeast(min) => format!("{kind} of at least {min}"),
        Allowed::Between(min, max) => format!("{kind} from {min} to {max}"),
        Allowed::BetweenOr(min, max, other) => format!("{kind} from {min} to {max}, or {other}"),
        Allowed::Fraction(min, max) => format!("{kind} from {min} to {max}"),
        Allowed::OneOf(words) | Allowed::OneOfAnyCase(words) if key.kind == Kind::List => {
            format!("{kind}, of {}", words.join(", "))
        }
        Allowed::OneOf(words) => format!("one of {}", words.join(", ")),
        Allowed::OneOfAnyCase(words) => format!("one of {} (in any case)", words.join(", ")),
        Allowed::NonEmpty => format!("{kind}, not empty"),
        Allowed::ThrottledReplicas => "* or partition:broker pairs separated by commas".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::topic_key;

    /// The words are Apache Kafka 4.3.1's own.
    #[test]
    fn values_are_taken_and_refused_as_kafka_does() {
        let cases = [
            ("retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"),
            ("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"),
            ("retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"),
            (
                "segment.bytes",
                "99999999999",
                "Invalid value 99999999999 for configuration segment.bytes: Not a number of type INT",
            ),
            (
                "cleanup.policy",
                "delete,foo",
                "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "min.cleanable.dirty.ratio",
                "2",
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "message.timestamp.type",
                "x",
                "Invalid value x for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime",
            ),
            (
                "leader.replication.throttled.replicas",
                "foo",
                "Invalid value [foo] for configuration leader.replication.throttled.replicas: \
                 leader.replication.throttled.replicas must be the literal '*' or a list of replicas in the following \
                 format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
            ("retention.ms", " 55 ", ""),
            ("preallocate", " TRUE ", ""),
            ("cleanup.policy", "", ""),
            ("cleanup.policy", "compact, delete", ""),
            ("leader.replication.throttled.replicas", "0:1,3:2", ""),
            ("leader.replication.throttled.replicas", "*", ""),
        ];
        for (name, text, expected) in cases {
            let key = topic_key(name).expect("a key");
            let message = check(key, text).map_or_else(|invalid| invalid.0, |()| String::new());
            assert_eq!(message, expected, "{name}={text}");
        }
        let key = topic_key("durability").expect("a key");
        assert!(check(key, &"x".repeat(VALUE_BYTES_MAX + 1)).is_err());
    }
}

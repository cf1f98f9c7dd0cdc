//! Names of topics.

/// Longest name of a topic, in bytes: with partition and id it must fit a file name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// The topic that holds the offsets of groups.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// Whether clients should treat the topic as one of the cluster's own, as Kafka's metadata answers say.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    matches!(name, CONSUMER_OFFSETS | "__transaction_state" | "__share_group_state")
}

/// Whether a topic may have that name.
/// # Errors  Kafka's message.
pub fn check(name: &str) -> Result<(), String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() {
        Err("Topic name is invalid: the empty string is not allowed".to_owned())
    } else if name == "." || name == ".." {
        Err(format!("Topic name is invalid: '{name}' is not allowed"))
    } else if name.len() > TOPIC_NAME_BYTES_MAX {
        Err(format!(
            "Topic name is invalid: the length of '{name}' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}"
        ))
    } else if !name.bytes().all(legal) {
        Err(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        ))
    } else {
        Ok(())
    }
}

/// The name with the letters that Kafka's metrics cannot tell apart made one, if it has any: two topics must not share it.
#[must_use]
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_and_refused_as_kafka_does() {
        for name in ["a", "a.b_c-D9", "...", &"x".repeat(249)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for (name, why) in [
            ("", "Topic name is invalid: the empty string is not allowed"),
            (".", "Topic name is invalid: '.' is not allowed"),
            ("..", "Topic name is invalid: '..' is not allowed"),
            (
                "a b",
                "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' \
                 and '-'",
            ),
        ] {
            assert_eq!(check(name), Err(why.to_owned()), "{name}");
        }
        for name in ["a/b", "é", "a\0", &"x".repeat(250)] {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn dots_and_underscores_collide() {
        assert_eq!(collision_key("a.b"), collision_key("a_b"));
        assert_ne!(collision_key("a.b"), collision_key("a-b"));
        assert_eq!(collision_key("ab"), None);
    }
}

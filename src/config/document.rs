//! The table of settings as text: `config/server.properties` and `config/README.md`.

use std::fmt::Write;

use super::{
    keys::{Key, Kind, topic_keys, used_broker_keys},
    value,
};

/// The text of `config/server.properties`: every setting that means something, with its default and its unit. All are
/// comments: the file changes nothing until somebody does.
#[must_use]
pub fn server_properties() -> String {
    let mut out = String::from(
        "# Settings of Ringtail, all with their defaults. A server.properties written for Apache Kafka works as well: what\n\
         # has no effect here is named once in the log.\n\
         #\n\
         # This file is made from the table of settings (`src/config/keys`); a test keeps it true.\n",
    );
    for key in used_broker_keys() {
        out.push('\n');
        for line in wrap(key.documentation, 117) {
            let _ = writeln!(out, "# {line}");
        }
        let _ = writeln!(out, "# Allowed: {}.", value::allowed_words(key));
        let _ = writeln!(out, "#{}={}", key.name, key.default.unwrap_or_default());
    }
    out
}

/// The text of `config/README.md`: the same as two tables.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Settings\n\n\
         Made from the table of settings (`src/config/keys`); a test keeps it true. The broker takes every other setting of\n\
         Apache Kafka 4.3.1 too, and says once that it has no effect.\n\n\
         - `server.properties`: every setting with its default, as a comment.\n\
         - `dev.properties`: small and quick, for development.\n\
         - `durable.properties`: for data that must not be lost.\n\
         - `write.properties`: acknowledged when the device has it, without a flush.\n\
         - `cluster/1.properties`, `2`, `3`: three nodes of one cluster, on one machine.\n\n",
    );
    table(&mut out, "broker setting", used_broker_keys());
    out.push('\n');
    table(&mut out, "topic setting", topic_keys());
    out
}

fn table<'a>(out: &mut String, title: &str, keys: impl IntoIterator<Item = &'a Key>) {
    let _ = writeln!(out, "| {title} | default | allowed | meaning |\n|---|---|---|---|");
    for key in keys.into_iter().filter(|key| matches!(key.effect, super::Effect::Used | super::Effect::UsedUnseen)) {
        let default = match key.default {
            None => "not set".to_owned(),
            Some("") => "empty".to_owned(),
            Some(default) if key.kind == Kind::List => default.replace(',', ", "),
            Some(default) => default.to_owned(),
        };
        let _ = writeln!(
            out,
            "| `{}` | {default} | {} | {} |",
            key.name,
            value::allowed_words(key),
            key.documentation.replace('|', "\\|")
        );
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

//! The files under `config/` and the table of settings say the same.
//!
//! `UPDATE_EXPECT=1 cargo test --test config` writes `config/server.properties` and `config/README.md` anew.

use std::{fs, path::PathBuf};

use ringtail::internals::config::{
    self, BrokerConfig, Durability, Effect, Layers, Note, TopicConfig, broker_key, markdown, server_properties,
    used_broker_keys,
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn load(name: &str) -> config::Loaded {
    config::load(Some((name, &read(name))), &[]).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn server_properties_is_made_from_the_table() {
    expect_test::expect_file![path("server.properties")].assert_eq(&server_properties());
}

#[test]
fn every_setting_in_use_stands_in_server_properties_with_its_default() {
    let text = read("server.properties");
    for key in used_broker_keys() {
        assert!(matches!(key.effect, Effect::Used | Effect::UsedUnseen), "{}", key.name);
        let line = format!("#{}={}", key.name, key.default.unwrap_or_default());
        assert!(text.lines().any(|found| found == line), "{line}");
        assert!(!key.documentation.is_empty(), "{}", key.name);
    }
}

/// A comment sign less must not turn a default into an error, or into another value.
#[test]
fn every_default_can_be_set() {
    let text = read("server.properties");
    let set: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.split_once('=').is_some_and(|(key, value)| broker_key(key).is_some() && !value.is_empty()))
        .map(str::to_owned)
        .collect();
    assert!(set.len() > 40, "{} settings", set.len());
    let loaded = config::load(Some(("uncommented", &set.join("\n"))), &[]).expect("the defaults are good");
    assert_eq!(loaded.notes, []);
    let defaults = config::load(None, &[]).expect("the defaults are good").config;
    let settings = |config: &BrokerConfig| {
        let text = format!("{config:?}");
        let (settings, _as_given) = text.split_once("statics").expect("the last field");
        (settings.to_owned(), format!("{:?}", TopicConfig::of(&Layers::of(config.statics()))))
    };
    assert_eq!(settings(&loaded.config), settings(&defaults));
}

#[test]
fn every_file_starts_a_broker_without_a_word() {
    let single = ["server.properties", "dev.properties", "durable.properties", "write.properties"];
    for name in single.into_iter().chain(CLUSTER) {
        assert_eq!(load(name).notes, Vec::<Note>::new(), "{name}");
    }
}

const CLUSTER: [&str; 3] = ["cluster/1.properties", "cluster/2.properties", "cluster/3.properties"];

/// All but the node's id, its ports and its directory is the same, and the voters are where the controllers listen.
#[test]
fn the_clusters_files_are_of_one_cluster() {
    let own = ["node.id", "listeners", "log.dirs"];
    let statics = CLUSTER.map(|name| load(name).config.statics().clone());
    let common = |number: usize| {
        let mut settings = statics[number].clone();
        settings.retain(|key, _| !own.contains(&key.as_str()));
        settings
    };
    assert!(common(0) == common(1) && common(1) == common(2));
    let voters: Vec<&str> = statics[0]["controller.quorum.voters"].split(',').collect();
    for (number, settings) in statics.iter().enumerate() {
        let port = settings["listeners"].split_once("CONTROLLER://localhost:").expect("it has one").1;
        assert_eq!(voters[number], format!("{}@localhost:{port}", settings["node.id"]));
        for key in own {
            assert_eq!(statics.iter().filter(|other| other[key] == settings[key]).count(), 1, "{key}");
        }
    }
}

#[test]
fn the_ready_made_files_do_what_their_names_say() {
    let durability = |name| {
        let config = load(name).config;
        TopicConfig::of(&Layers::of(config.statics())).durability()
    };
    assert_eq!(durability("server.properties"), Durability::Flush);
    assert_eq!(durability("durable.properties"), Durability::Flush);
    assert_eq!(durability("write.properties"), Durability::Write);
    let has = |name, setting: &str| format!("{:?}", load(name).config).contains(setting);
    assert!(has("dev.properties", "initial_rebalance_delay_ms: 0,"));
    assert!(has("durable.properties", "auto_create: false,"));
}

#[test]
fn the_tables_are_made_from_the_table() {
    expect_test::expect_file![path("README.md")].assert_eq(&markdown());
}

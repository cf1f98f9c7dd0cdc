//! The names of the broker's own files in the data directory's root.
//!
//! A partition's directory ends in `-<number>`, `-delete` or `-stray`, and clients choose what comes before; so what
//! tells our files comes last, and whatever a topic is called, none of them can be meant. Before format 2 it came first,
//! and a topic `ringtail-journal-0` had a directory named like a journal: those names are still read, if they are names
//! of regular files.

use uuid::Uuid;

use crate::{
    base::{PartitionKey, TopicId},
    log::journal::block::Incarnation,
};

pub const MANIFEST: &str = "ringtail-manifest";
pub const BALLAST: &str = "ringtail-ballast";

const PREFIX: &str = "ringtail-";
const JOURNAL: &str = ".journal";
const CHECKPOINT: &str = ".checkpoint";
const RESCUE: &str = ".rescue";
const TEMPORARY: &str = ".tmp";

const OLD_JOURNAL: &str = "ringtail-journal-";
const OLD_CHECKPOINT: &str = "ringtail-checkpoint-";

/// Files that are replaced as a whole, by way of a temporary one.
const REPLACED: [&str; 6] = [
    MANIFEST,
    super::directory::META_PROPERTIES,
    super::directory::CLEAN_SHUTDOWN,
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
];

/// What a journal file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalName {
    pub core: usize,
    pub number: usize,
    /// Written before format 2: read, and never written to again.
    pub old: bool,
}

pub fn journal_name(core: usize, number: usize) -> String {
    format!("{PREFIX}{core}-{number}{JOURNAL}")
}

fn old_journal_name(core: usize, number: usize) -> String {
    format!("{OLD_JOURNAL}{core}-{number}")
}

/// What the name says, if it is one of a journal file: exactly as it is written, leading zeros and signs are not ours.
pub fn parse_journal_name(name: &str) -> Option<JournalName> {
    if let Some((core, number)) = name.strip_prefix(PREFIX).and_then(|rest| numbers(rest.strip_suffix(JOURNAL)?)) {
        return (name == journal_name(core, number)).then_some(JournalName { core, number, old: false });
    }
    // A topic of that name took the live file for a directory of an earlier topic, and renamed it as deleted.
    let kept = name.strip_suffix("-delete").and_then(|rest| rest.split_once('.')).filter(|(_, id)| is_hex(id, 32));
    let name = kept.map_or(name, |(name, _)| name);
    let (core, number) = numbers(name.strip_prefix(OLD_JOURNAL)?)?;
    (name == old_journal_name(core, number)).then_some(JournalName { core, number, old: true })
}

/// `<core>-<number>`
fn numbers(text: &str) -> Option<(usize, usize)> {
    let (core, number) = text.split_once('-')?;
    Some((core.parse().ok()?, number.parse().ok()?))
}

/// The front of an incarnation, as file names carry it.
fn life(incarnation: &Incarnation) -> String {
    incarnation[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn checkpoint_name(incarnation: &Incarnation, core: usize, generation: u64) -> String {
    format!("{PREFIX}{}-{core}-{}{CHECKPOINT}", life(incarnation), generation % 2)
}

/// The name that the same checkpoint had before format 2.
pub fn old_checkpoint_name(incarnation: &Incarnation, core: usize, generation: u64) -> String {
    format!("{OLD_CHECKPOINT}{}-{core}-{}", life(incarnation), generation % 2)
}

/// Whether a file of this name is a checkpoint of another life than this one.
pub fn is_checkpoint_of_another_life(name: &str, incarnation: &Incarnation) -> bool {
    life_of_checkpoint(name).is_some_and(|of| of != life(incarnation))
}

/// The life whose checkpoint a file of this name is.
pub fn life_of_checkpoint(name: &str) -> Option<&str> {
    let new = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(CHECKPOINT));
    let rest = new.or_else(|| name.strip_prefix(OLD_CHECKPOINT));
    let (life, rest) = rest?.split_once('-')?;
    (is_hex(life, 16) && numbers(rest).is_some()).then_some(life)
}

pub fn rescue_name(key: PartitionKey) -> String {
    format!("{PREFIX}{}-{}{RESCUE}", key.topic_id.0.simple(), key.partition)
}

/// The partition that a rescue file of this name is for.
pub fn parse_rescue_name(name: &str) -> Option<PartitionKey> {
    let (id, partition) = name.strip_prefix(PREFIX)?.strip_suffix(RESCUE)?.split_once('-')?;
    let key = PartitionKey { topic_id: TopicId(Uuid::try_parse(id).ok()?), partition: partition.parse().ok()? };
    (rescue_name(key) == name).then_some(key)
}

/// The name under which a file is written that is then renamed.
pub fn temporary_name(name: &str) -> String {
    format!("{name}{TEMPORARY}")
}

/// Whether a file of this name is what a crash has left of a file that was being replaced.
pub fn is_temporary(name: &str) -> bool {
    name.strip_suffix(TEMPORARY).is_some_and(|name| REPLACED.contains(&name) || parse_rescue_name(name).is_some())
}

/// Whether a directory of this name is one that we have renamed as deleted: `<topic>-<partition>.<id>-delete`.
pub fn is_deleted_directory(name: &str) -> bool {
    is_marked_directory(name, "-delete")
}

/// Whether a directory of this name was set aside: `<topic>-<partition>.<id>-stray`.
pub fn is_stray_directory(name: &str) -> bool {
    is_marked_directory(name, "-stray")
}

fn is_marked_directory(name: &str, mark: &str) -> bool {
    let parts = name.strip_suffix(mark).and_then(|rest| rest.rsplit_once('.'));
    parts.is_some_and(|(partition, id)| is_hex(id, 32) && is_partition_directory(partition))
}

/// Whether a directory of this name is a partition's: `<topic>-<number>`.
pub fn is_partition_directory(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u32>().is_ok_and(|it| it.to_string() == number))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::segment::{deleted_directory_name, directory_name};

    const LIFE: Incarnation = [0xab; 16];

    #[test]
    fn names_read_back() {
        let key = PartitionKey { topic_id: TopicId(Uuid::from_u128(7)), partition: 3 };
        assert_eq!(parse_rescue_name(&rescue_name(key)), Some(key));
        assert!(is_temporary(&temporary_name(&rescue_name(key))));
        assert_eq!(parse_rescue_name("ringtail-7-3.rescue"), None);
        assert_eq!(parse_rescue_name("ringtail-00000000-0000-0000-0000-000000000007-3.rescue"), None);
        let name = |core, number, old| Some(JournalName { core, number, old });
        assert_eq!(parse_journal_name(&journal_name(12, 3)), name(12, 3, false));
        assert_eq!(parse_journal_name("ringtail-journal-12-3"), name(12, 3, true));
        let renamed = deleted_directory_name("ringtail-journal-12", 3, 5);
        assert_eq!(parse_journal_name(&renamed), name(12, 3, true));
        for other in [
            "ringtail-x-1.journal",
            "ringtail-+1-1.journal",
            "ringtail-01-1.journal",
            "events-0",
            "ringtail-journal-0-01",
        ] {
            assert_eq!(parse_journal_name(other), None, "{other}");
        }
        for name in [checkpoint_name(&[1; 16], 3, 9), old_checkpoint_name(&[1; 16], 3, 9)] {
            assert!(is_checkpoint_of_another_life(&name, &LIFE), "{name}");
            assert!(!is_checkpoint_of_another_life(&name, &[1; 16]), "{name}");
        }
        assert!(is_temporary("ringtail-manifest.tmp") && is_temporary("meta.properties.tmp"));
        assert!(!is_temporary("x.tmp") && !is_temporary(".tmp"));
        assert!(is_deleted_directory(&deleted_directory_name("t", 0, 1)));
        assert!(is_deleted_directory(&deleted_directory_name(&"x".repeat(249), i32::MAX, 1)));
        for other in ["a-delete", "a.b-delete", &format!("{}-delete", "0".repeat(32)), "x-0.0-delete"] {
            assert!(!is_deleted_directory(other), "{other}");
        }
    }

    #[test]
    fn no_partition_can_be_named_like_a_file_of_ours() {
        let ours = [
            MANIFEST.to_owned(),
            BALLAST.to_owned(),
            journal_name(0, 0),
            checkpoint_name(&LIFE, 0, 0),
            rescue_name(PartitionKey { topic_id: TopicId(Uuid::from_u128(7)), partition: 3 }),
            deleted_directory_name("t", 0, 1),
        ];
        for name in ours.iter().map(String::as_str).chain(REPLACED) {
            for name in [name.to_owned(), format!("{name}{TEMPORARY}")] {
                assert!(!is_partition_directory(&name), "{name}");
            }
        }
        assert!(is_partition_directory(&directory_name("ringtail-0-0.journal", 0)));
    }
}

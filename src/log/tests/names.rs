//! Topics named like the broker's own files, and the names that those files once had.

use std::path::Path;

use super::{DIRECTORY, Rig, batch, bytes_of, key, live as one_live, story::settings};
use crate::{
    base::{Offset, PartitionKey, TopicId},
    io::{Io, sim::Simulation},
    log::{LivePartitions, LogConfig, LogError},
};

fn hostile() -> Vec<String> {
    let mut names: Vec<String> = [
        "ringtail-journal-0",
        "ringtail-checkpoint-0000000000000000-0",
        "ringtail-manifest",
        "ringtail-ballast",
        "ringtail-rescue-x",
        "ringtail-0-0.journal",
        "meta.properties",
        "meta.properties.tmp",
        "x.tmp",
        "x-stray",
        "x-delete",
        "cleaner-offset-checkpoint",
        ".lock",
        ".kafka_cleanshutdown",
    ]
    .map(String::from)
    .into();
    names.push(format!("a.{}-delete", "0".repeat(32)));
    names.push("n".repeat(249));
    names
}

/// Two partitions each, since a journal's number is where a partition's would be.
fn keys(generation: u128) -> Vec<(PartitionKey, String)> {
    let topics = hostile().into_iter().enumerate();
    topics
        .flat_map(|(number, name)| {
            let topic_id = TopicId(uuid::Uuid::from_u128(1000 * generation + number as u128));
            [0, 1].map(|partition| (PartitionKey { topic_id, partition }, name.clone()))
        })
        .collect()
}

fn live(generation: u128) -> LivePartitions {
    keys(generation).into_iter().map(|(key, name)| (key, (name, LogConfig::default()))).collect()
}

/// Appends to each partition what fills chunks, so that directories are made, and half of it is in the journal alone.
async fn append(rig: &Rig, generation: u128) -> Result<(), LogError> {
    for (key, _) in keys(generation) {
        let log = rig.core_log.log(key).expect("it is live");
        rig.append_durably(&log, &batch(&[1], 6000)).await?;
    }
    rig.core_log.checkpoint().await?;
    for (key, _) in keys(generation) {
        let log = rig.core_log.log(key).expect("it is live");
        rig.append_durably(&log, &batch(&[1], 10)).await?;
    }
    Ok(())
}

async fn check(rig: &Rig, generation: u128) {
    let expected = [batch(&[1], 6000), batch(&[1], 10)].map(|it| it.len());
    for (key, name) in keys(generation) {
        let log = rig.core_log.log(key).expect("it is live");
        assert_eq!(log.log_end_offset(), Offset(2), "{name}");
        let mut found = 0;
        for offset in 0..2 {
            let read = log.read(Offset(offset), 1, Offset(2), true).await.unwrap();
            found += bytes_of(&read.slices).len();
        }
        assert_eq!(found, expected.iter().sum::<usize>(), "{name}");
    }
}

#[test]
fn topics_named_like_the_brokers_files_live_beside_them() {
    let sim = Simulation::new(21);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &live(1)).await.unwrap();
        append(&rig, 1).await.unwrap();
        check(&rig, 1).await;
    });
    sim.power_cut(0);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &live(1)).await.unwrap();
        check(&rig, 1).await;
        for (key, _) in keys(1) {
            rig.core_log.delete(key).await;
        }
        for (key, name) in keys(2) {
            rig.create(key, &name, LogConfig::default());
        }
        append(&rig, 2).await.unwrap();
        check(&rig, 2).await;
    });
    sim.power_cut(0);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &live(2)).await.unwrap();
        check(&rig, 2).await;
    });
}

/// Gives journals and checkpoints the names that they had in format 1. Where that is a partition's, the live journal was
/// taken for the directory of an earlier topic and renamed as deleted. Returns how many were renamed either way.
async fn rename_to_format_1(io: &Io) -> [usize; 2] {
    let directory = Path::new(DIRECTORY);
    let mut renamed = [0, 0];
    for entry in io.disk.read_dir(directory).await.unwrap() {
        let rest = entry.name.strip_prefix("ringtail-");
        let journal = rest.and_then(|it| it.strip_suffix(".journal")).map(|it| format!("ringtail-journal-{it}"));
        let checkpoint = rest.and_then(|it| it.strip_suffix(".checkpoint"));
        let checkpoint = checkpoint.map(|it| format!("ringtail-checkpoint-{it}"));
        let Some(mut old) = journal.or(checkpoint) else { continue };
        let taken = io.disk.exists(&directory.join(&old)).await;
        if taken {
            old.push_str(&format!(".{}-delete", "5".repeat(32)));
        }
        renamed[usize::from(taken)] += 1;
        io.disk.rename(&directory.join(entry.name), &directory.join(old)).await.unwrap();
    }
    io.disk.sync_dir(directory).await.unwrap();
    renamed
}

#[test]
fn files_under_their_old_names_are_read_and_not_used_again() {
    let sim = Simulation::new(22);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &live(1)).await.unwrap();
        append(&rig, 1).await.unwrap();
        let [plain, misnamed] = rename_to_format_1(&io).await;
        assert!(plain > 0 && misnamed > 0, "{plain} and {misnamed}");
        // Only now: what it forgets when it is dropped must not go into a checkpoint.
        drop(rig);
    });
    sim.power_cut(0);
    for _ in 0..2 {
        sim.block_on(0, 0, |io| async move {
            let rig = Rig::open(&io, &settings(), &live(1)).await.unwrap();
            check(&rig, 1).await;
            let entries = io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap();
            let old = |name: &str| name.contains("-journal-") || name.contains("-checkpoint-");
            assert_eq!(entries.iter().find(|entry| !entry.is_dir && old(&entry.name)), None);
        });
        sim.power_cut(0);
    }
}

#[test]
fn a_file_that_merely_has_the_old_name_of_a_journal_stays() {
    let sim = Simulation::new(24);
    let contents: [&[u8]; 2] = [b"", b"somebody's"];
    for (number, bytes) in contents.into_iter().enumerate() {
        let path = Path::new(DIRECTORY).join(format!("ringtail-journal-0-{number}"));
        sim.block_on(0, 0, |io| async move {
            let known = one_live(key(1), "t", &LogConfig::default());
            drop(Rig::open(&io, &settings(), &known).await.unwrap());
            io.disk.write_file(&path, bytes, true).await.unwrap();
            io.disk.sync_dir(Path::new(DIRECTORY)).await.unwrap();
        });
        sim.power_cut(0);
        let path = Path::new(DIRECTORY).join(format!("ringtail-journal-0-{number}"));
        sim.block_on(0, 0, |io| async move {
            let known = one_live(key(1), "t", &LogConfig::default());
            drop(Rig::open(&io, &settings(), &known).await.unwrap());
            assert_eq!(io.disk.read_file(&path).await.unwrap()[..], *bytes);
        });
        sim.power_cut(0);
    }
}

#[test]
fn a_deletion_leaves_the_directory_of_another_topic_of_that_name() {
    let sim = Simulation::new(23);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &one_live(key(1), "t", &LogConfig::default())).await.unwrap();
        rig.append_durably(&rig.core_log.log(key(1)).unwrap(), &batch(&[1], 6000)).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        // Nothing of it is on the disk yet, and the name is the other one's.
        rig.create(key(2), "t", LogConfig::default());
        rig.core_log.delete(key(2)).await;
        let entries = io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap();
        let names: Vec<&str> = entries.iter().filter(|it| it.is_dir).map(|it| it.name.as_str()).collect();
        assert!(names.contains(&"t-0") && !names.iter().any(|name| name.ends_with("-delete")), "{names:?}");
        rig.core_log.delete(key(1)).await;
        let entries = io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap();
        assert!(entries.iter().any(|it| it.name.ends_with("-delete")), "its own goes");
    });
}

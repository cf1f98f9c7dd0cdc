//! Damage and errors: what is refused, what is fatal, what is tried again.

use std::{path::Path, time::Duration};

use super::{DIRECTORY, Rig, batch, bytes_of, key, live, story::settings};
use crate::{
    base::Offset,
    io::{
        Either, either,
        sim::{Faults, Simulation},
    },
    log::{
        LogConfig, LogError, LogSettings, RecoverError,
        destage::{What, write_all},
    },
};

/// Appends `count` batches, one block each, and pulls the plug.
fn crashed(sim: &Simulation, count: i64) {
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &live(key(1), "t", &LogConfig::default())).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        for number in 0..count {
            rig.append_durably(&log, &batch(&[number], 10)).await.unwrap();
        }
    });
    sim.power_cut(0);
}

fn reopened(sim: &Simulation) -> Result<Offset, RecoverError> {
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &live(key(1), "t", &LogConfig::default())).await?;
        Ok(rig.core_log.log(key(1)).unwrap().log_end_offset())
    })
}

/// Each of the small batches is a block of 4 KiB in the first file.
fn journal() -> std::path::PathBuf {
    Path::new(DIRECTORY).join("ringtail-0-0.journal")
}

#[test]
fn a_damaged_block_before_valid_ones_is_refused_with_its_place() {
    let sim = Simulation::new(11);
    crashed(&sim, 10);
    sim.overwrite(0, &journal(), 4 * 4096 + 100, b"rotten");
    let error = reopened(&sim).unwrap_err();
    assert!(matches!(error, RecoverError::JournalCorrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("ringtail-0-0.journal"), "{error}");
}

#[test]
fn a_damaged_last_block_ends_the_log() {
    let sim = Simulation::new(12);
    crashed(&sim, 10);
    sim.overwrite(0, &journal(), 9 * 4096 + 100, b"torn");
    assert_eq!(reopened(&sim), Ok(Offset(9)));
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let sim = Simulation::new(13);
    crashed(&sim, 3);
    let names = sim.block_on(0, 0, |io| async move { io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap() });
    for entry in names.iter().filter(|entry| entry.name.ends_with(".checkpoint")) {
        sim.overwrite(0, &Path::new(DIRECTORY).join(&entry.name), 12, b"x");
    }
    let error = reopened(&sim).unwrap_err();
    assert!(matches!(error, RecoverError::CheckpointCorrupt { .. }), "{error:?}");
    assert!(error.to_string().contains(".checkpoint"), "{error}");
}

/// Reopens, and reads all that is there. Returns how many batches.
fn read_back(sim: &Simulation) -> Result<usize, LogError> {
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &live(key(1), "t", &LogConfig::default())).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        let read = log.read(Offset(0), 1 << 20, log.log_end_offset(), true).await?;
        let bytes = bytes_of(&read.slices);
        let batches = crate::protocol::batch::batches(&bytes).map(|batch| batch.expect("a whole batch"));
        Ok(batches.filter(|batch| crate::protocol::batch::crc_ok(batch.bytes)).count())
    })
}

#[test]
fn a_recovery_whose_writes_fail_tries_each_once_more_and_loses_nothing_if_the_partition_goes_offline() {
    let (mut recovered, mut offline) = (0, 0);
    for seed in 0..40 {
        let sim = Simulation::new(seed);
        crashed(&sim, 3);
        let faults = Faults { write_error_one_in: 2, short_write_one_in: 3, files_named: "0.log", ..Faults::default() };
        sim.set_faults(0, faults);
        match read_back(&sim) {
            Ok(batches) => {
                assert_eq!(batches, 3, "seed {seed}");
                recovered += 1;
            }
            Err(_) => offline += 1,
        }
        sim.power_cut(0);
        sim.set_faults(0, Faults::default());
        assert_eq!(read_back(&sim), Ok(3), "seed {seed}");
    }
    assert!(recovered > 5 && offline > 5, "{recovered} recovered, {offline} went offline");
}

#[test]
fn recovery_puts_the_directory_of_another_topic_aside() {
    let sim = Simulation::new(18);
    crashed(&sim, 3);
    sim.block_on(0, 0, |io| async move {
        io.disk.create_dir_all(Path::new("data/t-0")).await.unwrap();
        let mark = format!("version: 0\ntopic_id: {}", key(9).topic_id);
        io.disk.write_file(Path::new("data/t-0/partition.metadata"), mark.as_bytes(), true).await.unwrap();
        io.disk.sync_filesystem_of(Path::new(DIRECTORY)).await.unwrap();
    });
    assert_eq!(read_back(&sim), Ok(3));
    let mark = sim.block_on(0, 0, |io| async move {
        String::from_utf8(io.disk.read_file(Path::new("data/t-0/partition.metadata")).await.unwrap()).unwrap()
    });
    assert!(mark.contains(&key(1).topic_id.to_string()), "{mark}");
}

#[test]
fn a_failed_journal_write_is_fatal_and_never_acknowledged() {
    for faults in
        [Faults { write_error_one_in: 1, ..Faults::default() }, Faults { short_write_one_in: 1, ..Faults::default() }]
    {
        let sim = Simulation::new(14);
        let disk = sim.clone();
        sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &settings(), &live(key(1), "t", &LogConfig::default())).await.unwrap();
            let log = rig.core_log.log(key(1)).unwrap();
            disk.set_faults(0, faults);
            let end = rig.append(&log, &batch(&[1], 10)).await.unwrap();
            let acked = either(log.flushed(end), io.clock.sleep(Duration::from_secs(1))).await;
            assert!(matches!(acked, Either::Right(())), "a failed write was acknowledged");
            assert!(rig.fatal.borrow().as_ref().is_some_and(|reason| reason.contains("ringtail-0-")));
            assert_eq!(log.durable_end(), Offset::ZERO);
        });
    }
}

#[test]
fn a_full_disk_refuses_appends_serves_reads_and_recovers() {
    let sim = Simulation::new(15);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let settings = LogSettings { dirty_max_bytes: 1 << 20, ..settings() };
        let rig = Rig::open(&io, &settings, &live(key(1), "t", &LogConfig::default())).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        rig.append_durably(&log, &batch(&[1], 10_000)).await.unwrap();
        disk.set_faults(0, Faults { capacity: disk.used_bytes(0) + (400 << 10), ..Faults::default() });
        let mut end = Offset(1);
        let refused = loop {
            match rig.append_durably(&log, &batch(&[1], 10_000)).await {
                Ok(next) => end = next,
                Err(error) => break error,
            }
            assert!(end < Offset(1000), "the disk never gets full");
        };
        assert_eq!(refused, LogError::Full);
        assert!(rig.core_log.is_full());
        assert!(log.read(Offset(0), 1000, end, true).await.unwrap().bytes > 0);
        disk.set_faults(0, Faults::default());
        io.clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(rig.append_durably(&log, &batch(&[1], 10_000)).await, Ok(end.plus(1)));
        assert!(!rig.core_log.is_full());
        rig.core_log.checkpoint().await.unwrap();
        assert_eq!(rig.core_log.usage().dirty_bytes, 0, "what waited has reached its segment");
    });
}

#[test]
fn a_partition_whose_file_fails_goes_offline_alone() {
    let sim = Simulation::new(16);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &live(key(1), "t", &LogConfig::default())).await.unwrap();
        let good = rig.create(key(2), "good", LogConfig::default());
        let bad = rig.core_log.log(key(1)).unwrap();
        rig.append_durably(&bad, &batch(&[1], 10)).await.unwrap();
        disk.set_faults(0, Faults { write_error_one_in: 1, ..Faults::default() });
        let core = rig.core_log.core.clone();
        write_all(&core, std::slice::from_ref(&bad), What::Everything).await.unwrap();
        disk.set_faults(0, Faults::default());
        assert!(matches!(bad.reserve(10).await, Err(LogError::Io { .. })));
        assert!(matches!(bad.read(Offset(0), 100, Offset(1), true).await, Err(LogError::Io { .. })));
        rig.append_durably(&good, &batch(&[1], 10)).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        assert_eq!(rig.core_log.usage().dirty_bytes, 0);
    });
}

#[test]
fn a_deleted_topic_leaves_its_name_to_the_next_one() {
    let sim = Simulation::new(17);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &live(key(1), "t", &LogConfig::default())).await.unwrap();
        let old = rig.core_log.log(key(1)).unwrap();
        let end = rig.append_durably(&old, &batch(&[1, 2, 3], 10)).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        rig.core_log.delete(key(1)).await;
        assert_eq!(old.flushed(end.plus(1)).await, Err(LogError::Deleted));
        assert!(matches!(old.reserve(10).await, Err(LogError::Deleted)));
        let new = rig.create(key(2), "t", LogConfig::default());
        rig.append_durably(&new, &batch(&[9], 10)).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        let text = io.disk.read_file(Path::new("data/t-0/partition.metadata")).await.unwrap();
        assert!(String::from_utf8(text).unwrap().contains(&key(2).topic_id.to_string()));
        io.clock.sleep(Duration::from_secs(61)).await;
        let names = io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap();
        assert!(!names.iter().any(|entry| entry.name.ends_with("-delete")), "{names:?}");
        // Ours is the last handle on it, once who waits for news has had it: what it held in memory is free.
        rig.core_log.next_flushed().await;
        assert_eq!(std::rc::Rc::strong_count(&old), 1);
    });
}

//! Partitions whose files fail: what was acknowledged is there when the files are good again, whatever happens meanwhile.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use super::{DIRECTORY, Rig, batch, bytes_of, key, story::settings};
use crate::{
    base::{METADATA_KEY, Offset, PartitionKey},
    io::{
        Either, Io, either,
        sim::{Failure, Faults, Operation, Simulation, errno},
    },
    log::{LivePartitions, Log, LogConfig, LogError, LogSettings, RecoverError, finish_clean_stop, names::rescue_name},
};

const BAD: &str = "bad";
const GOOD: &str = "good";

fn config() -> LogConfig {
    LogConfig { segment_bytes: 20_000, retention_ms: -1, ..LogConfig::default() }
}

/// Two partitions; the disk fails for the first one.
fn both() -> LivePartitions {
    [(key(1), (BAD.to_owned(), config())), (key(2), (GOOD.to_owned(), config()))].into_iter().collect()
}

/// Every write to the partition's first segments fails.
fn segments_fail() -> Faults {
    Faults { write_error_one_in: 1, files_named: "bad-0/", ..Faults::default() }
}

fn rescue_path(key: PartitionKey) -> PathBuf {
    Path::new(DIRECTORY).join(rescue_name(key))
}

/// What the clients of both partitions were told, outside of the simulated machine.
#[derive(Clone, Default)]
struct Told {
    acked: Rc<RefCell<[i64; 2]>>,
    offline: Rc<Cell<bool>>,
}

impl Told {
    fn acked(&self, index: usize) -> i64 {
        self.acked.borrow()[index]
    }
}

/// A batch that says where it belongs.
fn numbered(index: usize, number: i64) -> bytes::Bytes {
    batch(&[number * 10 + index as i64], 600)
}

/// Appends to both partitions until the rig is dropped; checkpoints in between.
async fn work(io: Io, told: Told) -> Result<(), RecoverError> {
    let rig = Rig::open(&io, &settings(), &both()).await?;
    for number in 0.. {
        for index in 0..2 {
            let log = rig.core_log.log(key(1 + index as u128)).expect("it is live");
            match rig.append_durably(&log, &numbered(index, log.log_end_offset().0)).await {
                Ok(end) => told.acked.borrow_mut()[index] = end.0,
                Err(LogError::Io { .. }) => told.offline.set(true),
                Err(error) => panic!("{error}"),
            }
        }
        if number % 8 == 7 {
            rig.core_log.checkpoint().await.expect("not stopping");
        }
        if rig.fatal.borrow().is_some() {
            break;
        }
    }
    Ok(())
}

/// Opens on whatever disk there is and reads all of both partitions. An offline one gives its error.
fn looked_at(sim: &Simulation) -> Result<[Result<i64, LogError>; 2], RecoverError> {
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await?;
        let mut found = [Ok(0), Ok(0)];
        for (index, found) in found.iter_mut().enumerate() {
            *found = read_all(&rig.core_log.log(key(1 + index as u128)).unwrap(), index).await;
        }
        Ok(found)
    })
}

async fn read_all(log: &Rc<Log>, index: usize) -> Result<i64, LogError> {
    if let Some(error) = log.offline() {
        return Err(error);
    }
    let (mut from, end) = (Offset::ZERO, log.log_end_offset());
    let mut found = Vec::new();
    while from < end {
        let bytes = bytes_of(&log.read(from, 1 << 20, end, true).await?.slices);
        for batch in crate::protocol::batch::batches(&bytes) {
            let header = batch.expect("whole batches").header;
            assert_eq!(header.base_offset, from, "no gap");
            assert_eq!(header.base_timestamp, from.0 * 10 + index as i64, "what was written there");
            from = header.last_offset().plus(1);
        }
        found.push(bytes);
    }
    assert!(
        found
            .iter()
            .flat_map(|bytes| crate::protocol::batch::batches(bytes))
            .flatten()
            .all(|batch| { crate::protocol::batch::crc_ok(batch.bytes) })
    );
    Ok(end.0)
}

fn is_there(sim: &Simulation, path: PathBuf) -> bool {
    sim.block_on(0, 0, |io| async move { io.disk.exists(&path).await })
}

#[test]
fn whatever_moment_ends_a_life_with_a_failing_partition_nothing_acknowledged_is_lost() {
    let mut offline = 0;
    for seed in 0..80 {
        let sim = Simulation::new(seed);
        let told = Told::default();
        // Some lives go well before; the disk fails in the middle of one, and in none, some or all of the later ones.
        for life in 0..4 {
            let failing = sim.below(3) > 0;
            if life > 0 && failing {
                sim.set_faults(0, segments_fail());
            }
            let (io_told, heard) = (told.clone(), Rc::new(Cell::new(false)));
            let refused = heard.clone();
            sim.spawn_on(0, 0, |io| async move { refused.set(work(io, io_told).await.is_err()) });
            sim.run_steps(200 + sim.below(4000));
            if failing {
                sim.set_faults(0, segments_fail());
            }
            sim.run_steps(sim.below(4000));
            assert!(!heard.get(), "seed {seed}: one partition's files refuse a start");
            if sim.below(2) == 0 {
                sim.kill(0)
            } else {
                sim.power_cut(0)
            }
            sim.set_faults(0, Faults::default());
        }
        offline += usize::from(told.offline.get());
        let found = looked_at(&sim).unwrap();
        for (index, found) in found.iter().enumerate() {
            let end = found.as_ref().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(*end >= told.acked(index), "seed {seed}: {end} < {}: partition {index}", told.acked(index));
        }
        assert!(!is_there(&sim, rescue_path(key(1))), "seed {seed}: the rescue file has done its duty");
    }
    assert!(offline > 20, "the partition hardly ever went offline: {offline}");
}

/// Some records in segments, some only in the journal, and then a partition whose files fail. Returns what was
/// acknowledged.
async fn gone_offline(io: &Io, disk: &Simulation, rig: &Rig) -> i64 {
    let log = rig.core_log.log(key(1)).unwrap();
    for number in 0..10 {
        rig.append_durably(&log, &numbered(0, number)).await.unwrap();
    }
    rig.core_log.checkpoint().await.unwrap();
    for number in 10..25 {
        rig.append_durably(&log, &numbered(0, number)).await.unwrap();
    }
    disk.set_faults(0, segments_fail());
    rig.core_log.checkpoint().await.unwrap();
    disk.set_faults(0, Faults::default());
    assert!(log.is_offline(), "its files failed");
    assert!(io.disk.exists(&rescue_path(key(1))).await, "what the segments lack is in safety");
    25
}

#[test]
fn a_clean_stop_keeps_what_an_offline_partition_has() {
    let sim = Simulation::new(1);
    let disk = sim.clone();
    let acked = sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
        let acked = gone_offline(&io, &disk, &rig).await;
        let report = rig.core_log.stop().await.unwrap();
        finish_clean_stop(&io, Path::new(DIRECTORY), &[report]).await.unwrap();
        acked
    });
    sim.stop(0);
    assert_eq!(looked_at(&sim).unwrap(), [Ok(acked), Ok(0)]);
}

#[test]
fn an_offline_partition_stays_so_over_restarts_until_its_files_are_good_again() {
    let sim = Simulation::new(2);
    let disk = sim.clone();
    let acked = sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
        gone_offline(&io, &disk, &rig).await
    });
    for _ in 0..5 {
        sim.kill(0);
        sim.set_faults(0, segments_fail());
        let [bad, good] = looked_at(&sim).unwrap();
        assert!(matches!(bad, Err(LogError::Io { .. })), "{bad:?}");
        assert_eq!(good, Ok(0));
    }
    sim.power_cut(0);
    sim.set_faults(0, Faults::default());
    assert_eq!(looked_at(&sim).unwrap(), [Ok(acked), Ok(0)]);
    assert!(!is_there(&sim, rescue_path(key(1))));
}

#[test]
fn a_damaged_rescue_file_keeps_the_partition_offline_and_is_kept() {
    for remove in [false, true] {
        let sim = Simulation::new(3);
        let disk = sim.clone();
        sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
            gone_offline(&io, &disk, &rig).await;
        });
        sim.kill(0);
        if remove {
            sim.block_on(0, 0, |io| async move { io.disk.remove_file(&rescue_path(key(1))).await.unwrap() });
        } else {
            sim.overwrite(0, &rescue_path(key(1)), 300, b"rot");
        }
        for _ in 0..3 {
            let [bad, good] = looked_at(&sim).unwrap();
            let error = bad.unwrap_err().to_string();
            assert!(error.contains(".rescue"), "{error}");
            assert_eq!(good, Ok(0));
            assert_eq!(is_there(&sim, rescue_path(key(1))), !remove);
            sim.kill(0);
        }
        // Its topic can be deleted all the same.
        sim.block_on(0, 0, |io| async move {
            let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
            rig.core_log.delete(key(1)).await;
            assert!(!io.disk.exists(&rescue_path(key(1))).await);
            assert!(!io.disk.exists(Path::new("data/bad-0")).await);
        });
    }
}

#[test]
fn a_deletion_at_any_moment_of_going_offline_leaves_no_file_and_right_books() {
    for steps in 0..300 {
        let sim = Simulation::new(steps);
        let disk = sim.clone();
        sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
            let log = rig.core_log.log(key(1)).unwrap();
            for number in 0..20 {
                rig.append(&log, &numbered(0, number)).await.unwrap();
            }
            disk.set_faults(0, segments_fail());
            let core_log = rig.core_log.clone();
            io.spawner.spawn(async move { core_log.checkpoint().await.unwrap() });
            io.clock.sleep(Duration::from_micros(steps * 20)).await;
            rig.core_log.delete(key(1)).await;
            disk.set_faults(0, Faults::default());
            let good = rig.core_log.log(key(2)).unwrap();
            for number in 0..20 {
                rig.append_durably(&good, &numbered(1, number)).await.unwrap();
            }
            rig.core_log.checkpoint().await.unwrap();
            assert_eq!(rig.core_log.usage().dirty_bytes, 0, "after {steps} steps");
            let left = io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap();
            let left = left.iter().filter(|entry| entry.name.contains(".rescue")).count();
            assert_eq!(left, 0, "after {steps} steps");
            assert_eq!(*rig.fatal.borrow(), None);
        });
    }
}

#[test]
fn a_segment_that_cannot_be_read_at_a_start_takes_its_partition_offline_alone() {
    // Missing, too short, or a directory in its place.
    for damage in 0..3 {
        let sim = Simulation::new(5);
        sim.block_on(0, 0, |io| async move {
            let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
            for index in 0..2 {
                let log = rig.core_log.log(key(1 + index as u128)).unwrap();
                for number in 0..5 {
                    rig.append_durably(&log, &numbered(index, number)).await.unwrap();
                }
                rig.core_log.checkpoint().await.unwrap();
                rig.append_durably(&log, &numbered(index, 5)).await.unwrap();
            }
        });
        sim.kill(0);
        let segment = Path::new("data/bad-0/00000000000000000000.log");
        let aside = Path::new("data/aside");
        sim.block_on(0, 0, move |io| async move {
            io.disk.rename(segment, aside).await.unwrap();
            match damage {
                0 => {}
                1 => io.disk.write_file(segment, b"short", true).await.unwrap(),
                _ => io.disk.create_dir_all(segment).await.unwrap(),
            }
            io.disk.sync_filesystem_of(Path::new(DIRECTORY)).await.unwrap();
        });
        for _ in 0..2 {
            let [bad, good] = looked_at(&sim).unwrap();
            assert!(matches!(bad, Err(LogError::Io { .. })), "damage {damage}: {bad:?}");
            assert_eq!(good, Ok(6));
            sim.kill(0);
        }
        // With the file back in its place everything is there, what only the journal had included.
        sim.block_on(0, 0, move |io| async move {
            match damage {
                0 => {}
                1 => io.disk.remove_file(segment).await.unwrap(),
                _ => io.disk.remove_dir_all(segment).await.unwrap(),
            }
            io.disk.rename(aside, segment).await.unwrap();
        });
        assert_eq!(looked_at(&sim).unwrap(), [Ok(6), Ok(6)], "damage {damage}");
    }
}

#[test]
fn a_stored_batch_that_is_not_what_was_written_is_corrupt_and_takes_its_partition_offline() {
    // The base offset, the last offset's delta, the length, the format, a record.
    for (at, byte) in [(7, 1), (6, 3), (23, 1), (26, 5), (10, 9), (16, 1), (100, 0x55)] {
        for number in [0, 7, 19] {
            let sim = Simulation::new(6);
            sim.block_on(0, 0, |io| async move {
                let settings = LogSettings { cache_max_bytes: 1, ..settings() };
                let rig = Rig::open(&io, &settings, &both()).await.unwrap();
                let log = rig.core_log.log(key(1)).unwrap();
                for number in 0..20 {
                    rig.append_durably(&log, &numbered(0, number)).await.unwrap();
                }
                let report = rig.core_log.stop().await.unwrap();
                finish_clean_stop(&io, Path::new(DIRECTORY), &[report]).await.unwrap();
            });
            sim.stop(0);
            let position = number * numbered(0, 0).len() as u64 + at;
            sim.overwrite(0, Path::new("data/bad-0/00000000000000000000.log"), position, &[byte]);
            for from in 0..20 {
                let read = sim.block_on(0, 0, move |io| async move {
                    let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
                    let log = rig.core_log.log(key(1)).unwrap();
                    let read = log.read(Offset(from), 1 << 20, Offset(20), true).await;
                    let offline = log.is_offline();
                    assert_eq!(read.is_err(), offline);
                    if offline {
                        assert!(matches!(log.reserve(10).await, Err(LogError::Corrupt { .. })));
                    }
                    read.map(|read| bytes_of(&read.slices))
                });
                match read {
                    Err(error) => assert!(matches!(error, LogError::Corrupt { .. }), "{error}"),
                    Ok(bytes) => {
                        let mut next = from;
                        for batch in crate::protocol::batch::batches(&bytes).map(Result::unwrap) {
                            assert_eq!(batch.header.base_offset, Offset(next));
                            assert!(crate::protocol::batch::crc_ok(batch.bytes));
                            next += 1;
                        }
                        let damaged = number as i64;
                        assert!(from > damaged || (from < next && next <= damaged), "byte {at}, read {from}..{next}");
                    }
                }
                sim.kill(0);
            }
        }
    }
}

#[test]
fn the_block_in_which_a_segment_ends_is_not_written_back_if_it_has_changed() {
    let sim = Simulation::new(7);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        for number in 0..10 {
            rig.append_durably(&log, &numbered(0, number)).await.unwrap();
        }
        let report = rig.core_log.stop().await.unwrap();
        finish_clean_stop(&io, Path::new(DIRECTORY), &[report]).await.unwrap();
    });
    sim.stop(0);
    let size = 10 * numbered(0, 0).len() as u64;
    sim.overwrite(0, Path::new("data/bad-0/00000000000000000000.log"), size - 10, &[0x77]);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        assert!(matches!(log.reserve(100).await.map(drop), Err(LogError::Corrupt { .. })));
        assert!(log.is_offline());
    });
}

/// A life in which operations fail, from its start or from its middle on, and what comes of it: `Ok` if the broker went on
/// to the end, otherwise why it ended or did not start.
fn failing_life(sim: &Simulation, told: &Told, failure: &Failure, from_start: bool) -> Result<(), String> {
    let faults = Faults { failures: vec![failure.clone()], ..Faults::default() };
    if from_start {
        sim.set_faults(0, faults.clone());
    }
    let (disk, told) = (sim.clone(), told.clone());
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.map_err(|error| error.to_string())?;
        for number in 0..24 {
            if number == 8 {
                disk.set_faults(0, faults.clone());
            }
            // The disk is good again towards the end: whoever has not ended must go on, as soon as a full disk has been looked
            // at once more.
            if number == 16 {
                disk.set_faults(0, Faults::default());
                io.clock.sleep(Duration::from_secs(1)).await;
            }
            for index in 0..2 {
                let log = rig.core_log.log(key(1 + index as u128)).unwrap();
                let append = async {
                    let end = rig.append_durably(&log, &numbered(index, log.log_end_offset().0)).await?;
                    told.acked.borrow_mut()[index] = end.0;
                    Ok(())
                };
                match either(append, io.clock.sleep(Duration::from_secs(3))).await {
                    Either::Left(Ok(())) => {}
                    Either::Left(Err(LogError::Full)) if number < 16 => {}
                    Either::Left(Err(LogError::Io { .. } | LogError::Corrupt { .. })) => {
                        assert!(log.is_offline());
                        told.offline.set(true);
                    }
                    Either::Left(Err(error)) => panic!("{error}"),
                    Either::Right(()) => assert!(number < 16 || rig.fatal.borrow().is_some(), "wedged"),
                }
            }
            if number % 3 == 2 {
                rig.core_log.core.want_round();
                io.clock.sleep(Duration::from_millis(20)).await;
            }
            if let Some(why) = rig.fatal.borrow().clone() {
                return Err(why);
            }
        }
        Ok(())
    })
}

#[test]
fn whatever_operation_fails_on_whatever_file_nothing_is_lost_wedged_or_refused_for_good() {
    const OPERATIONS: [Operation; 10] = [
        Operation::Open,
        Operation::Read,
        Operation::Write,
        Operation::Allocate,
        Operation::Truncate,
        Operation::Sync,
        Operation::Rename,
        Operation::Remove,
        Operation::CreateDir,
        Operation::ReadDir,
    ];
    const FILES: [&str; 9] =
        ["bad-0/", ".log", "index", "partition.metadata", ".journal", ".checkpoint", "manifest", ".rescue", ""];
    let (mut went_on, mut ended, mut offline) = (0, 0, 0);
    for (number, operation) in OPERATIONS.into_iter().enumerate() {
        for files_named in FILES {
            for error in [errno::EIO, errno::EDQUOT, errno::EMFILE] {
                for one_in in [1, 3] {
                    let hint = format!("{operation:?} of {files_named:?} fails with {error}, one in {one_in}");
                    let sim = Simulation::new(number as u64 * 31 + one_in);
                    let told = Told::default();
                    let failure = Failure { operation, files_named, error, one_in };
                    for life in 0..3 {
                        match failing_life(&sim, &told, &failure, life > 0) {
                            Ok(()) => went_on += 1,
                            Err(why) => {
                                assert!(!why.is_empty(), "{hint}");
                                ended += 1;
                            }
                        }
                        if life == 1 {
                            sim.power_cut(0)
                        } else {
                            sim.kill(0)
                        }
                        sim.set_faults(0, Faults::default());
                    }
                    offline += usize::from(told.offline.get());
                    let found = looked_at(&sim).unwrap_or_else(|error| panic!("{hint}: {error}"));
                    for (index, found) in found.iter().enumerate() {
                        let end = found.as_ref().unwrap_or_else(|error| panic!("{hint}: {error}"));
                        assert!(*end >= told.acked(index), "{hint}: {end} < {}", told.acked(index));
                    }
                }
            }
        }
    }
    println!("{went_on} lives went on, {ended} ended, {offline} schedules had an offline partition");
    let enough = went_on > 500 && ended > 100 && offline > 20;
    assert!(enough, "{went_on} went on, {ended} ended, {offline} with an offline partition");
}

#[test]
fn too_many_open_files_take_no_partition_offline() {
    let sim = Simulation::new(9);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        rig.append_durably(&log, &numbered(0, 0)).await.unwrap();
        let failure = Failure { operation: Operation::Open, files_named: "", error: errno::EMFILE, one_in: 1 };
        disk.set_faults(0, Faults { failures: vec![failure], ..Faults::default() });
        rig.core_log.core.want_round();
        io.clock.sleep(Duration::from_millis(500)).await;
        disk.set_faults(0, Faults::default());
        rig.core_log.checkpoint().await.unwrap();
        assert!(!log.is_offline());
        assert_eq!(*rig.fatal.borrow(), None);
    });
}

#[test]
fn a_metadata_log_whose_files_fail_ends_the_process_with_the_reason() {
    let sim = Simulation::new(8);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
        let log = rig.core_log.log(METADATA_KEY).unwrap();
        rig.append_durably(&log, &numbered(0, 0)).await.unwrap();
        let faults = Faults { write_error_one_in: 1, files_named: "__cluster_metadata-0/", ..Faults::default() };
        disk.set_faults(0, faults);
        rig.core_log.core.want_round();
        io.clock.sleep(Duration::from_secs(2)).await;
        let fatal = rig.fatal.borrow().clone().expect("nobody knows what there is without it");
        assert!(fatal.contains("__cluster_metadata-0"), "{fatal}");
    });
}

#[test]
fn a_metadata_log_that_is_not_what_was_written_ends_the_process_with_file_and_place() {
    let sim = Simulation::new(9);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &both()).await.unwrap();
        let log = rig.core_log.log(METADATA_KEY).unwrap();
        for number in 0..2 {
            rig.append_durably(&log, &numbered(0, number)).await.unwrap();
            rig.core_log.checkpoint().await.unwrap();
        }
        disk.overwrite(0, &Path::new(DIRECTORY).join("__cluster_metadata-0/00000000000000000000.log"), 70, b"rot");
        log.forget_memory();
        assert!(log.read(Offset(0), 1 << 20, Offset(2), true).await.is_err());
        io.clock.sleep(Duration::from_secs(2)).await;
        let fatal = rig.fatal.borrow().clone().expect("nobody knows what there is without it");
        assert!(fatal.contains("__cluster_metadata-0/00000000000000000000.log is corrupt at position 0"), "{fatal}");
    });
}

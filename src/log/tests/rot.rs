//! Files that are not what was written: nothing is taken for gone because of it.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use super::{DIRECTORY, Rig, batch, bytes_of, key, live, story::settings};
use crate::{
    base::{METADATA_KEY, Offset},
    config::Durability,
    io::{
        Io,
        sim::{Failure, Faults, Operation, Simulation, errno},
    },
    log::{
        KnownPartitions, LogConfig, LogSettings, RecoverError, checkpoint::Checkpoint, finish_clean_stop,
        journal::block::BlockHeader, names::life_of_checkpoint, recover,
    },
    protocol::batch::{batches, crc_ok},
};

fn one_topic() -> KnownPartitions {
    live(key(1), "t", &LogConfig::default()).into()
}

/// Two batches in the segment, under a checkpoint, and two in the journal alone.
async fn written(io: &Io) -> Rig {
    written_to(io, one_topic()).await
}

async fn written_to(io: &Io, known: KnownPartitions) -> Rig {
    let settings = LogSettings { checkpoint_interval: Duration::from_secs(3600), ..settings() };
    let rig = Rig::open_known(io, &settings, known).await.unwrap();
    let log = rig.core_log.log(key(1)).unwrap();
    for number in 0..4 {
        rig.append_durably(&log, &batch(&[number], 10)).await.unwrap();
        if number == 1 {
            rig.core_log.checkpoint().await.unwrap();
        }
    }
    rig
}

async fn names(io: &Io) -> Vec<String> {
    let entries = io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

/// Opens, and says how far the topic's log goes.
fn opened(sim: &Simulation, known: KnownPartitions) -> Result<Option<Offset>, RecoverError> {
    let end = sim.block_on(0, 0, |io| async move {
        let rig = Rig::open_known(&io, &settings(), known).await?;
        Ok(rig.core_log.log(key(1)).map(|log| log.log_end_offset()))
    });
    sim.power_cut(0);
    end
}

#[test]
fn without_its_manifest_a_directory_is_not_a_new_one() {
    for clean in [false, true] {
        let sim = Simulation::new(21);
        let manifest = Path::new(DIRECTORY).join("ringtail-manifest");
        let path = manifest.clone();
        let (kept, before) = sim.block_on(0, 0, |io| async move {
            let rig = written(&io).await;
            if clean {
                let report = rig.core_log.stop().await.unwrap();
                finish_clean_stop(&io, Path::new(DIRECTORY), &[report]).await.unwrap();
            }
            let kept = io.disk.read_file(&path).await.unwrap();
            io.disk.remove_file(&path).await.unwrap();
            io.disk.sync_dir(Path::new(DIRECTORY)).await.unwrap();
            (kept, names(&io).await)
        });
        sim.power_cut(0);
        let refused = opened(&sim, one_topic()).unwrap_err();
        assert!(matches!(refused, RecoverError::ManifestMissing { .. }), "{refused:?}");
        assert!(refused.to_string().starts_with("data/ringtail-manifest is missing, but "), "{refused}");
        let after = sim.block_on(0, 0, |io| async move {
            let after = names(&io).await;
            io.disk.write_file(&manifest, &kept, true).await.unwrap();
            io.disk.sync_dir(Path::new(DIRECTORY)).await.unwrap();
            after
        });
        assert_eq!(after, before, "nothing was changed");
        sim.power_cut(0);
        assert_eq!(opened(&sim, one_topic()), Ok(Some(Offset(4))));
    }
}

#[test]
fn a_first_start_that_was_cut_short_before_its_manifest_is_repeated() {
    let sim = Simulation::new(22);
    sim.block_on(0, 0, |io| async move {
        Rig::open_known(&io, &settings(), KnownPartitions::default()).await.unwrap();
        for name in names(&io).await.iter().filter(|name| life_of_checkpoint(name).is_none()) {
            io.disk.remove_file(&Path::new(DIRECTORY).join(name)).await.unwrap();
        }
        io.disk.sync_filesystem_of(Path::new(DIRECTORY)).await.unwrap();
    });
    sim.power_cut(0);
    assert_eq!(opened(&sim, KnownPartitions::default()), Ok(None));
}

/// The newer and the older checkpoint of a directory.
async fn checkpoints(io: &Io) -> [PathBuf; 2] {
    let mut found = Vec::new();
    for name in names(io).await.iter().filter(|name| life_of_checkpoint(name).is_some()) {
        let path = Path::new(DIRECTORY).join(name);
        let checkpoint = Checkpoint::decode(&io.disk.read_file(&path).await.unwrap()).unwrap();
        found.push((std::cmp::Reverse(checkpoint.generation), path));
    }
    found.sort();
    found.into_iter().map(|(_, path)| path).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn after_a_clean_stop_no_older_checkpoint_stands_in_for_the_last_one() {
    for what in
        ["newer damaged", "newer missing", "newer unreadable", "newer a directory", "older damaged", "older missing"]
    {
        let sim = Simulation::new(23);
        let disk = sim.clone();
        let path = sim.block_on(0, 0, |io| async move {
            let rig = written(&io).await;
            rig.core_log.checkpoint().await.unwrap();
            let log = rig.core_log.log(key(1)).unwrap();
            rig.append_durably(&log, &batch(&[4], 10)).await.unwrap();
            let report = rig.core_log.stop().await.unwrap();
            finish_clean_stop(&io, Path::new(DIRECTORY), &[report]).await.unwrap();
            let [newer, older] = checkpoints(&io).await;
            let path = if what.starts_with("newer") { newer } else { older };
            match what.split_once(' ').unwrap().1 {
                "damaged" => disk.overwrite(0, &path, 60, b"rot"),
                "missing" => io.disk.remove_file(&path).await.unwrap(),
                "a directory" => {
                    io.disk.remove_file(&path).await.unwrap();
                    io.disk.create_dir_all(&path).await.unwrap();
                }
                _ => {}
            }
            io.disk.sync_dir(Path::new(DIRECTORY)).await.unwrap();
            path
        });
        sim.stop(0);
        if what == "newer unreadable" {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned().leak();
            sim.set_faults(0, Faults { read_error_one_in: 1, files_named: name, ..Faults::default() });
        }
        let first = opened(&sim, one_topic());
        sim.set_faults(0, Faults::default());
        match what {
            "older damaged" | "older missing" => assert_eq!(first, Ok(Some(Offset(5))), "{what}"),
            _ => {
                let refused = first.expect_err(what).to_string();
                assert!(refused.contains(path.to_str().unwrap()), "{what}: {refused}");
            }
        }
        if what == "newer unreadable" {
            assert_eq!(opened(&sim, one_topic()), Ok(Some(Offset(5))), "the error has passed");
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_named_where_the_one_before_it_does_not_lead_on() {
    let sim = Simulation::new(25);
    let ([newer, older], (journal, last, _)) = sim.block_on(0, 0, |io| async move {
        let rig = written(&io).await;
        let paths = checkpoints(&io).await;
        drop(rig);
        (paths, last_block(&io).await)
    });
    sim.power_cut(0);
    let names = |refused: &str, paths: &[&Path]| {
        paths.iter().for_each(|path| assert!(refused.contains(path.to_str().unwrap()), "{path:?}: {refused}"));
    };
    sim.overwrite(0, &journal, last - 4096 + 100, b"another life");
    sim.overwrite(0, &newer, 60, b"rot");
    sim.stop(0);
    let refused = opened(&sim, one_topic()).unwrap_err();
    assert!(matches!(refused, RecoverError::JournalCorrupt { .. }), "{refused:?}");
    names(&refused.to_string(), &[&journal, &newer]);
    sim.overwrite(0, &older, 60, b"rot");
    sim.stop(0);
    names(&opened(&sim, one_topic()).unwrap_err().to_string(), &[&newer, &older]);
}

#[test]
fn a_directory_where_a_file_is_written_before_it_takes_its_place_is_named() {
    for name in ["ringtail-manifest.tmp", "meta.properties.tmp"] {
        let sim = Simulation::new(26);
        let path = Path::new(DIRECTORY).join(name);
        let made = path.clone();
        sim.block_on(0, 0, |io| async move {
            drop(written(&io).await);
            io.disk.create_dir_all(&made).await.unwrap();
        });
        sim.stop(0);
        let refused = opened(&sim, one_topic()).unwrap_err().to_string();
        assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    }
}

/// How many sound batches the first segment of a directory has.
async fn batches_in(io: &Io, name: &str) -> usize {
    let path = Path::new(DIRECTORY).join(name).join("00000000000000000000.log");
    let bytes = io.disk.read_file(&path).await.unwrap();
    batches(&bytes).map_while(Result::ok).filter(|batch| crc_ok(batch.bytes)).count()
}

#[test]
fn what_the_metadata_does_not_mention_is_set_aside_whole_and_only_what_was_deleted_is_removed() {
    let sim = Simulation::new(24);
    sim.block_on(0, 0, |io| async move { drop(written(&io).await) });
    sim.power_cut(0);
    let id = key(1).topic_id;
    let aside = format!("t-0.{:032x}-stray", id.0.as_u128());
    // Twice: a stray stays one.
    for _ in 0..2 {
        assert_eq!(opened(&sim, KnownPartitions::default()), Ok(None));
        let name = aside.clone();
        let (there, found) = sim.block_on(0, 0, |io| async move { (names(&io).await, batches_in(&io, &name).await) });
        assert!(there.contains(&aside) && !there.contains(&"t-0".to_owned()), "{there:?}");
        assert_eq!(found, 4, "the journal's part as well");
        sim.stop(0);
    }
    // One that was deleted goes.
    let sim = Simulation::new(25);
    sim.block_on(0, 0, |io| async move { drop(written(&io).await) });
    sim.power_cut(0);
    let deleted = KnownPartitions { deleted: [id].into_iter().collect(), ..KnownPartitions::default() };
    assert_eq!(opened(&sim, deleted.clone()), Ok(None));
    assert_eq!(opened(&sim, deleted), Ok(None));
    sim.run_for(Duration::from_secs(1));
    let there = sim.block_on(0, 0, |io| async move { names(&io).await });
    assert!(!there.iter().any(|name| name.ends_with("-stray") || name == "t-0"), "{there:?}");
}

#[test]
fn directories_that_nobody_knows_are_set_aside_under_any_name_and_never_over_another() {
    let sim = Simulation::new(26);
    let long = "x".repeat(249);
    let directories = [format!("{long}-7"), "t-0".to_owned(), "unmarked-3".to_owned()];
    let made = directories.clone();
    for _ in 0..2 {
        let made = made.clone();
        sim.block_on(0, 0, |io| async move {
            Rig::open_known(&io, &settings(), KnownPartitions::default()).await.unwrap();
            for name in &made {
                let path = Path::new(DIRECTORY).join(name);
                io.disk.create_dir_all(&path).await.unwrap();
                io.disk.write_file(&path.join("00000000000000000000.log"), b"records", true).await.unwrap();
                if name != "unmarked-3" {
                    let mark = format!("version: 0\ntopic_id: {}", key(1).topic_id);
                    io.disk.write_file(&path.join("partition.metadata"), mark.as_bytes(), true).await.unwrap();
                }
            }
            io.disk.sync_filesystem_of(Path::new(DIRECTORY)).await.unwrap();
        });
        sim.stop(0);
    }
    // No power is cut: it may bring a name back, which the next start sets aside again.
    sim.block_on(0, 0, |io| async move {
        Rig::open_known(&io, &settings(), KnownPartitions::default()).await.unwrap();
    });
    let there = sim.block_on(0, 0, |io| async move { names(&io).await });
    assert!(!directories.iter().any(|name| there.contains(name)), "{there:?}");
    let strays: Vec<&String> = there.iter().filter(|name| name.ends_with("-stray")).collect();
    assert_eq!(strays.len(), 6, "{there:?}");
    assert!(strays.iter().all(|name| name.len() <= 255));
}

#[test]
fn a_directory_that_cannot_be_renamed_is_no_reason_not_to_start() {
    let sim = Simulation::new(30);
    sim.block_on(0, 0, |io| async move { drop(written(&io).await) });
    sim.power_cut(0);
    let full = Failure { operation: Operation::Rename, files_named: "t-0", error: errno::ENOSPC, one_in: 1 };
    sim.set_faults(0, Faults { failures: vec![full], ..Faults::default() });
    assert_eq!(opened(&sim, KnownPartitions::default()), Ok(None));
    let found = sim.block_on(0, 0, |io| async move { batches_in(&io, "t-0").await });
    assert_eq!(found, 4, "it stays where it is");
    sim.power_cut(0);
    sim.set_faults(0, Faults::default());
    let there = sim.block_on(0, 0, |io| async move {
        drop(Rig::open_known(&io, &settings(), KnownPartitions::default()).await.unwrap());
        // Before a power cut: it may take the new name back, and the next start gives it again.
        names(&io).await
    });
    assert!(there.iter().any(|name| name.ends_with("-stray")) && !there.contains(&"t-0".to_owned()), "{there:?}");
}

#[test]
fn a_wrong_bit_at_the_end_of_the_metadata_is_named_also_where_the_journal_goes_on() {
    let sim = Simulation::new(31);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open_known(&io, &settings(), one_topic()).await.unwrap();
        let log = rig.core_log.log(METADATA_KEY).unwrap();
        rig.append_durably(&log, &batch(&[1], 10)).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        rig.append_durably(&log, &batch(&[2], 10)).await.unwrap();
    });
    sim.power_cut(0);
    let segment = Path::new(DIRECTORY).join("__cluster_metadata-0/00000000000000000000.log");
    sim.overwrite(0, &segment, 70, b"rot");
    let refused = opened(&sim, one_topic()).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("{} is damaged at position 0; restore it", segment.display())), "{refused}");
}

#[test]
fn no_bit_of_the_metadata_log_may_be_wrong() {
    let sim = Simulation::new(27);
    let segment = Path::new(DIRECTORY).join("__cluster_metadata-0/00000000000000000000.log");
    let path = segment.clone();
    let bytes = sim.block_on(0, 0, |io| async move {
        let rig = Rig::open_known(&io, &settings(), one_topic()).await.unwrap();
        let log = rig.core_log.log(METADATA_KEY).unwrap();
        for number in 0..3 {
            rig.append_durably(&log, &batch(&[number, number], 10)).await.unwrap();
        }
        let read = log.read(Offset(0), 1 << 20, Offset(6), true).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        let bytes = bytes_of(&read.slices);
        assert!(io.disk.read_file(&path).await.unwrap().starts_with(&bytes));
        bytes
    });
    sim.power_cut(0);
    let without_epochs = |mut bytes: Vec<u8>| {
        let lengths: Vec<usize> = batches(&bytes).flatten().map(|batch| batch.bytes.len()).collect();
        let mut start = 0;
        for length in lengths {
            bytes[start + 12..start + 16].fill(0);
            start += length;
        }
        bytes
    };
    let (mut refused, length) = (0, bytes.len());
    for bit in 0..length * 8 {
        let damaged = [bytes[bit / 8] ^ 1 << (bit % 8)];
        sim.overwrite(0, &segment, (bit / 8) as u64, &damaged);
        let seen: Rc<RefCell<Vec<u8>>> = Rc::default();
        let shown = seen.clone();
        let recovered = sim.block_on(0, 0, |io| async move {
            let known = |log: crate::log::MetadataLog| {
                *shown.borrow_mut() = bytes_of(&log.batches);
                Ok(one_topic())
            };
            recover(&io, Path::new(DIRECTORY), &settings(), 1, known).await.map(drop)
        });
        sim.stop(0);
        match recovered {
            // The leader epoch is in no sum, and of the metadata nobody asks for it.
            Ok(()) => assert_eq!(without_epochs(seen.take()), without_epochs(bytes.clone()), "bit {bit}"),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains(segment.to_str().unwrap()), "bit {bit}: {error}");
            }
        }
        sim.overwrite(0, &segment, (bit / 8) as u64, &bytes[bit / 8..][..1]);
    }
    assert_eq!(refused, length * 8 - 3 * 32, "all but three leader epochs");
}

/// The last block with an entry in the journal's files: its file, its position and its padded length.
async fn last_block(io: &Io) -> (PathBuf, u64, usize) {
    let mut found = Vec::new();
    for name in names(io).await.into_iter().filter(|name| name.ends_with(".journal")) {
        let path = Path::new(DIRECTORY).join(name);
        let bytes = io.disk.read_file(&path).await.unwrap();
        for at in (0..bytes.len()).step_by(4096) {
            let Ok((header, _)) = BlockHeader::parse(&bytes[at..]) else { continue };
            if header.entries > 0 {
                found.push((header.sequence, (path.clone(), at as u64, header.padded())));
            }
        }
    }
    found.into_iter().max().unwrap().1
}

#[test]
fn damage_to_the_last_block_of_a_journal_that_was_quiet_is_seen() {
    for durability in [Durability::Flush, Durability::Write] {
        let sim = Simulation::new(32);
        let config = LogConfig { durability, ..LogConfig::default() };
        let known: KnownPartitions = live(key(1), "t", &config).into();
        let topic = known.clone();
        let (path, at, length) = sim.block_on(0, 0, |io| async move {
            let rig = written_to(&io, topic).await;
            io.clock.sleep(Duration::from_millis(250)).await;
            drop(rig);
            last_block(&io).await
        });
        // A statement is durable, and so is what it is about.
        sim.power_cut(0);
        let corrupt = RecoverError::JournalCorrupt { path: path.display().to_string(), position: at, checkpoint: None };
        let journal = path.clone();
        let good = sim.block_on(0, 0, |io| async move { io.disk.read_file(&journal).await.unwrap() });
        sim.stop(0);
        for byte in (at..at + length as u64).step_by(101) {
            let right = good[byte as usize];
            sim.overwrite(0, &path, byte, &[right ^ 4]);
            let topic = known.clone();
            let report = sim.block_on(0, 0, |io| async move {
                crate::log::check(&io, Path::new(DIRECTORY), |_| Ok(topic)).await.unwrap()
            });
            sim.stop(0);
            assert_eq!(report.findings.len(), 1, "{durability:?} byte {byte}");
            assert_eq!(report.findings[0].what, corrupt.to_string());
            assert_eq!(opened(&sim, known.clone()), Err(corrupt.clone()), "{durability:?} byte {byte}");
            sim.overwrite(0, &path, byte, &[right]);
        }
        assert_eq!(opened(&sim, known), Ok(Some(Offset(4))));
    }
}

#[test]
fn a_journal_says_once_that_it_is_whole_and_only_if_something_depends_on_it() {
    Simulation::new(33).block_on(0, 0, |io| async move {
        let rig = written(&io).await;
        let log = rig.core_log.log(key(1)).unwrap();
        let journal = &rig.core_log.core.journal;
        let mut blocks = journal.next_sequence();
        let mut more = async |millis: u64| {
            io.clock.sleep(Duration::from_millis(millis)).await;
            let before = std::mem::replace(&mut blocks, journal.next_sequence());
            blocks - before
        };
        assert_eq!(more(90).await, 0);
        assert_eq!(more(160).await, 1);
        assert_eq!(more(60_000).await, 0);
        // While appends go on nothing is said.
        for number in 0..20 {
            rig.append_durably(&log, &batch(&[number], 10)).await.unwrap();
            assert_eq!(more(60).await, 1);
        }
        assert_eq!(more(1000).await, 1);
        rig.append_durably(&log, &batch(&[1], 10)).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        assert_eq!(more(1000).await, 1, "the segments have it");
    });
}

#[test]
fn a_bad_sector_of_a_journal_blocks_a_start_only_where_the_log_may_be() {
    let end = |sim: &Simulation| opened(sim, one_topic());
    for (file, block, starts) in [
        ("0-0.journal", 12, true),
        ("0-1.journal", 5, true),
        // The log's own blocks, the place where it would go on, and the other one.
        ("0-0.journal", 2, false),
        ("0-0.journal", 10, false),
        ("0-1.journal", 0, false),
    ] {
        let sim = Simulation::new(28);
        sim.block_on(0, 0, |io| async move {
            let rig = Rig::open_known(&io, &settings(), one_topic()).await.unwrap();
            let log = rig.core_log.log(key(1)).unwrap();
            for number in 0..10 {
                rig.append_durably(&log, &batch(&[number], 10)).await.unwrap();
            }
            // The second file is made in the background.
            io.clock.sleep(Duration::from_millis(50)).await;
        });
        sim.power_cut(0);
        let unreadable = vec![(file, block * 4096 + 512..block * 4096 + 1024)];
        sim.set_faults(0, Faults { unreadable, ..Faults::default() });
        match end(&sim) {
            Ok(found) => assert!(starts && found == Some(Offset(10)), "{file} {block}: {found:?}"),
            Err(error) => {
                assert!(!starts, "{file} {block}: {error}");
                assert!(
                    error.to_string().contains(&format!("{file}: the disk cannot read it at {}", block * 4096)),
                    "{error}"
                );
                sim.set_faults(0, Faults::default());
                assert_eq!(end(&sim), Ok(Some(Offset(10))), "nothing was given up");
            }
        }
    }
}

#[test]
fn no_bit_of_an_index_file_leads_astray() {
    let sim = Simulation::new(29);
    let config = LogConfig { segment_bytes: 30_000, index_interval_bytes: 4096, ..LogConfig::default() };
    let known = || KnownPartitions::from(live(key(1), "t", &config));
    let opening = known();
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open_known(&io, &settings(), opening).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        for number in 0..12 {
            rig.append_durably(&log, &batch(&[1000 + 10 * number, 1005 + 10 * number], 1500)).await.unwrap();
        }
        let report = rig.core_log.stop().await.unwrap();
        finish_clean_stop(&io, Path::new(DIRECTORY), &[report]).await.unwrap();
    });
    sim.stop(0);
    let segment = Path::new(DIRECTORY).join("t-0/00000000000000000000.log");
    for suffix in ["index", "timeindex"] {
        let path = segment.with_extension(suffix);
        let place = path.clone();
        let bytes = sim.block_on(0, 0, |io| async move { io.disk.read_file(&place).await.unwrap() });
        assert!(bytes.len() > 24, "{suffix}: {} bytes", bytes.len());
        for bit in 0..bytes.len() * 8 {
            let at = bit / 8;
            sim.overwrite(0, &path, at as u64, &[bytes[at] ^ 1 << (bit % 8)]);
            let opening = known();
            sim.block_on(0, 0, |io| async move {
                let rig = Rig::open_known(&io, &settings(), opening).await.unwrap();
                let log = rig.core_log.log(key(1)).unwrap();
                for offset in (0..18).step_by(3).map(Offset) {
                    let read = log.read(offset, 1, Offset(24), true).await.unwrap();
                    let first = batches(&bytes_of(&read.slices)).next().unwrap().unwrap().header.base_offset;
                    assert_eq!(first, Offset(offset.0 / 2 * 2), "{suffix} bit {bit}");
                    let found = log.offset_for_timestamp(1000 + 5 * offset.0, Offset(24)).await.unwrap();
                    assert_eq!(found, Some((1000 + 5 * offset.0, offset)), "{suffix} bit {bit}");
                }
            });
            sim.stop(0);
            sim.overwrite(0, &path, at as u64, &bytes[at..=at]);
        }
    }
}

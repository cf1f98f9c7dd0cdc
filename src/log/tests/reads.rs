//! Reading and finding: memory and disk, limits, timestamps, retention.

use std::{rc::Rc, time::Duration};

use super::{Rig, batch, bytes_of, key, live, story::settings};
use crate::{
    base::Offset,
    io::{Io, sim::Simulation},
    log::{Log, LogConfig, LogError, LogSettings},
    protocol::{batch::BatchBuilder, compression::Compression},
};

const COUNT: i64 = 200;

/// 200 batches of two records; batch n has the timestamps 10 n and 10 n + 5.
async fn filled(io: &Io, settings: &LogSettings, config: &LogConfig) -> (Rig, Rc<Log>) {
    let rig = Rig::open(io, settings, &live(key(1), "t", config)).await.unwrap();
    let log = rig.core_log.log(key(1)).unwrap();
    for number in 0..COUNT {
        rig.append(&log, &batch(&[number * 10, number * 10 + 5], 1000)).await.unwrap();
    }
    log.flushed(Offset(COUNT * 2)).await.unwrap();
    (rig, log)
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 100_000, file_delete_delay_ms: 1, retention_ms: -1, ..LogConfig::default() }
}

#[test]
fn limits_hold_in_memory_and_on_disk_alike() {
    for cache_max_bytes in [64 << 20, 1] {
        let sim = Simulation::new(1);
        sim.block_on(0, 0, move |io| async move {
            let settings = LogSettings { cache_max_bytes, ..settings() };
            let (rig, log) = filled(&io, &settings, &config()).await;
            rig.core_log.checkpoint().await.unwrap();
            let in_memory = log.read_cached(Offset(11), 1 << 20, Offset(400), true).is_some();
            assert_eq!(in_memory, cache_max_bytes > 1, "the cache is bounded");
            let end = Offset(COUNT * 2);
            let read = log.read(Offset(11), 5000, end, true).await.unwrap();
            let found: Vec<_> = crate::protocol::batch::batches(&bytes_of(&read.slices))
                .map(|batch| batch.unwrap().header.base_offset)
                .collect();
            assert_eq!(found, [Offset(10), Offset(12)], "from the batch that contains the offset on");
            let first = log.read(Offset(11), 10, end, true).await.unwrap();
            assert_eq!(crate::protocol::batch::batches(&bytes_of(&first.slices)).count(), 1, "one batch at least");
            assert_eq!(log.read(Offset(11), 10, end, false).await.unwrap().bytes, 0);
            assert_eq!(log.read(Offset(11), 1 << 20, Offset(11), true).await.unwrap().bytes, 0, "not above the limit");
            assert_eq!(log.read(end, 1 << 20, end, true).await.unwrap().bytes, 0, "nothing at the end");
            let beyond = log.read(end.plus(1), 1 << 20, end, true).await.unwrap_err();
            assert_eq!(beyond, LogError::OffsetOutOfRange);
        });
    }
}

#[test]
fn timestamps_lead_to_offsets() {
    for cache_max_bytes in [64 << 20, 1] {
        let sim = Simulation::new(2);
        sim.block_on(0, 0, move |io| async move {
            let settings = LogSettings { cache_max_bytes, ..settings() };
            let (rig, log) = filled(&io, &settings, &config()).await;
            rig.core_log.checkpoint().await.unwrap();
            let end = Offset(COUNT * 2);
            let cases = [
                (0, Some((0, 0))),
                (1, Some((5, 1))),
                (995, Some((995, 199))),
                (996, Some((1000, 200))),
                (1995, Some((1995, 399))),
                (1996, None),
            ];
            for (timestamp, expected) in cases {
                let found = log.offset_for_timestamp(timestamp, end).await.unwrap();
                assert_eq!(found, expected.map(|(time, offset)| (time, Offset(offset))), "timestamp {timestamp}");
            }
            assert_eq!(log.offset_for_timestamp(1000, Offset(200)).await.unwrap(), None, "above the limit");
            assert_eq!(log.max_timestamp_offset(end).await.unwrap(), Some((1995, Offset(399))));
            assert_eq!(log.max_timestamp_offset(Offset(200)).await.unwrap(), Some((995, Offset(199))));
        });
    }
}

/// A few kilobytes on the wire that are 70 or 120 MB of records: each still has its own offset and timestamp.
#[test]
fn records_of_a_batch_of_any_size_are_found_by_their_own_timestamps() {
    for (codec, half) in [(Compression::Zstd, 35 << 20), (Compression::Zstd, 60 << 20), (Compression::Gzip, 35 << 20)] {
        let sim = Simulation::new(5);
        sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &settings(), &live(key(1), "t", &config())).await.unwrap();
            let log = rig.core_log.log(key(1)).unwrap();
            let mut large = BatchBuilder::new().compressed(codec, codec.default_level());
            for timestamp in [1000, 2000] {
                large.push(timestamp, None, Some(&vec![0; half]));
            }
            let bytes = large.build();
            assert!(bytes.len() < 200_000, "{} bytes on the wire", bytes.len());
            rig.append(&log, &bytes).await.unwrap();
            rig.append(&log, &batch(&[500], 10)).await.unwrap();
            log.flushed(Offset(3)).await.unwrap();
            for (timestamp, expected) in [(0, (1000, 0)), (1000, (1000, 0)), (1001, (2000, 1)), (2000, (2000, 1))] {
                let found = log.offset_for_timestamp(timestamp, Offset(3)).await.unwrap();
                assert_eq!(found, Some((expected.0, Offset(expected.1))), "{codec:?} {half}: {timestamp}");
            }
            assert_eq!(log.offset_for_timestamp(2001, Offset(3)).await.unwrap(), None);
            assert_eq!(log.max_timestamp_offset(Offset(3)).await.unwrap(), Some((2000, Offset(1))), "{codec:?} {half}");
            // The last record of it alone is left.
            log.move_start(Offset(1), Offset(3)).await.unwrap();
            assert_eq!(log.offset_for_timestamp(0, Offset(3)).await.unwrap(), Some((2000, Offset(1))));
        });
    }
}

/// By brute force: any timestamps in any batches, any log start, any end.
#[test]
fn timestamps_lead_where_looking_at_every_record_leads() {
    for seed in 0..40 {
        let sim = Simulation::new(seed);
        let source = sim.clone();
        sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &settings(), &live(key(1), "t", &config())).await.unwrap();
            let log = rig.core_log.log(key(1)).unwrap();
            let mut records: Vec<(i64, i64)> = Vec::new();
            let mut ends = vec![0];
            for _ in 0..12 {
                let codec = Compression::ALL[source.below(5) as usize];
                let mut one = BatchBuilder::new().compressed(codec, codec.default_level());
                for _ in 0..1 + source.below(4) {
                    let timestamp = source.below(50) as i64;
                    one.push(timestamp, None, Some(&[b'v'; 300]));
                    records.push((records.len() as i64, timestamp));
                }
                rig.append(&log, &one.build()).await.unwrap();
                ends.push(records.len() as i64);
            }
            log.flushed(Offset(records.len() as i64)).await.unwrap();
            let start = source.below(records.len() as u64) as i64;
            log.move_start(Offset(start), Offset(records.len() as i64)).await.unwrap();
            for upto in ends.into_iter().filter(|end| *end > start) {
                let seen = || records.iter().filter(|(offset, _)| (start..upto).contains(offset));
                for timestamp in 0..52 {
                    let expected = seen().find(|(_, time)| *time >= timestamp).map(|(at, time)| (*time, Offset(*at)));
                    let found = log.offset_for_timestamp(timestamp, Offset(upto)).await.unwrap();
                    assert_eq!(found, expected, "seed {seed}: {timestamp} in {start}..{upto} of {records:?}");
                }
                let largest = seen().map(|(_, time)| *time).max();
                let expected = largest
                    .and_then(|largest| seen().find(|(_, time)| *time == largest))
                    .map(|(at, time)| (*time, Offset(*at)));
                let found = log.max_timestamp_offset(Offset(upto)).await.unwrap();
                assert_eq!(found, expected, "seed {seed}: the largest in {start}..{upto} of {records:?}");
            }
        });
    }
}

#[test]
fn retention_deletes_whole_segments_below_the_high_watermark() {
    let sim = Simulation::new(3);
    sim.block_on(0, 0, |io| async move {
        let (rig, log) = filled(&io, &settings(), &config()).await;
        rig.core_log.checkpoint().await.unwrap();
        assert!(rig.core_log.retain(1_000_000).await.is_empty(), "-1 keeps everything");
        log.set_config(LogConfig { retention_bytes: 250_000, ..config() });
        log.set_high_watermark(Offset(10));
        assert!(rig.core_log.retain(0).await.is_empty(), "not above the high watermark");
        log.set_high_watermark(Offset(COUNT * 2));
        let sizes: Vec<u32> = log.state().segments().iter().map(|segment| segment.size).collect();
        assert!(sizes.len() > 3, "{sizes:?}");
        let moved = rig.core_log.retain(0).await;
        assert_eq!(moved, [(key(1), log.log_start_offset())]);
        assert!(log.size_bytes() >= 250_000 && log.size_bytes() < 350_000, "{}", log.size_bytes());
        let gone = log.read(Offset(0), 1000, Offset(400), true).await.unwrap_err();
        assert_eq!(gone, LogError::OffsetOutOfRange);
        log.set_config(LogConfig { retention_ms: 100, ..config() });
        rig.core_log.retain(1_000_000).await;
        assert_eq!((log.log_start_offset(), log.size_bytes()), (Offset(400), 0), "the active segment goes as well");
        io.clock.sleep(Duration::from_secs(1)).await;
        let left = io.disk.read_dir(std::path::Path::new("data/t-0")).await.unwrap();
        assert!(left.iter().all(|entry| !entry.name.contains(".log")), "{left:?}");
        assert_eq!(rig.append_durably(&log, &batch(&[1], 10)).await.unwrap(), Offset(401));
    });
}

#[test]
fn records_without_timestamps_are_as_old_as_their_file() {
    let sim = Simulation::new(5);
    sim.block_on(0, 0, |io| async move {
        let config = LogConfig { retention_ms: 10_000, ..config() };
        let rig = Rig::open(&io, &settings(), &live(key(1), "t", &config)).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        let untimed = batch(&[-1], 60_000);
        for _ in 0..3 {
            rig.append_durably(&log, &untimed).await.unwrap();
        }
        // A sealed segment is written at once, the active one with a checkpoint.
        io.clock.sleep(Duration::from_secs(5)).await;
        rig.core_log.checkpoint().await.unwrap();
        io.clock.sleep(Duration::from_secs(3)).await;
        assert!(rig.core_log.retain(io.clock.wall()).await.is_empty(), "the first file is 8 seconds old");
        io.clock.sleep(Duration::from_secs(5)).await;
        rig.append_durably(&log, &untimed).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        rig.core_log.retain(io.clock.wall()).await;
        assert_eq!(log.log_start_offset(), Offset(2), "the third one is 8 seconds old");
        io.clock.sleep(Duration::from_secs(4)).await;
        rig.core_log.retain(io.clock.wall()).await;
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(3), Offset(4)));
    });
    sim.power_cut(0);
    sim.block_on(0, 0, |io| async move {
        let config = LogConfig { retention_ms: 10_000, ..config() };
        let rig = Rig::open(&io, &settings(), &live(key(1), "t", &config)).await.unwrap();
        io.clock.sleep(Duration::from_secs(8)).await;
        rig.core_log.retain(io.clock.wall()).await;
        assert_eq!(rig.core_log.log(key(1)).unwrap().log_start_offset(), Offset(4), "also after a restart");
    });
}

#[test]
fn what_one_turn_appends_to_many_partitions_goes_out_in_one_block() {
    let sim = Simulation::new(4);
    sim.block_on(0, 0, |io| async move {
        let settings = LogSettings { cache_max_bytes: 1 << 20, ..settings() };
        let rig = Rig::open(&io, &settings, &Default::default()).await.unwrap();
        let logs: Vec<_> = (1..=50).map(|number| rig.create(key(number), &format!("t{number}"), config())).collect();
        let before = rig.core_log.core.journal.next_sequence();
        for log in &logs {
            assert!(log.try_reserve(1000).is_some(), "room is there without waiting");
            rig.append(log, &batch(&[1], 100)).await.unwrap();
        }
        for log in &logs {
            log.flushed(Offset(1)).await.unwrap();
        }
        assert_eq!(rig.core_log.core.journal.next_sequence(), before + 1);
        let news = rig.core_log.next_flushed().await;
        assert_eq!(news.len(), 50);
        let entries = io.disk.read_dir(std::path::Path::new("data")).await.unwrap();
        assert!(!entries.iter().any(|entry| entry.is_dir), "the first append touches no file: {entries:?}");
    });
}

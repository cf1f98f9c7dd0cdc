//! After a clean stop the directory is Kafka's, byte by byte.

use std::{future::Future, path::Path, pin::Pin, time::Duration};

use super::{DIRECTORY, Rig, batch, bytes_of, key, live, story::settings};
use crate::{
    base::Offset,
    io::{join_all, sim::Simulation},
    log::{
        LivePartitions, LogConfig, LogError, LogSettings, RecoverError,
        directory::{MetaProperties, write_meta},
        finish_clean_stop,
        index::SegmentIndex,
    },
};

/// A deletion may be on its way when a stop begins, and come to its directory at any moment of it.
#[test]
fn a_deletion_meanwhile_fails_no_stop() {
    for delay_us in (0..3000).step_by(50) {
        let sim = Simulation::new(9);
        sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &settings(), &LivePartitions::default()).await.unwrap();
            for number in 1..=6 {
                let log = rig.create(key(number), &format!("t{number}"), LogConfig::default());
                rig.append_durably(&log, &batch(&[1, 2], 700)).await.unwrap();
            }
            rig.core_log.checkpoint().await.unwrap();
            let stop = rig.core_log.stop();
            let delete = async {
                io.clock.sleep(Duration::from_micros(delay_us)).await;
                rig.core_log.delete(key(3)).await;
                Ok(None)
            };
            let stop = async { stop.await.map(Some) };
            let both: [Pin<Box<dyn Future<Output = Result<_, LogError>>>>; 2] = [Box::pin(stop), Box::pin(delete)];
            let outcomes = join_all(both).await;
            assert!(outcomes.iter().all(Result::is_ok), "after {delay_us} µs: {outcomes:?}");
            let left = io.disk.read_dir(Path::new(DIRECTORY)).await.unwrap();
            assert!(!left.iter().any(|entry| entry.name == "t3-0"), "after {delay_us} µs: {left:?}");
        });
    }
}

#[test]
fn a_clean_stop_leaves_whole_segments_indexes_and_checkpoints() {
    let sim = Simulation::new(7);
    sim.block_on(0, 0, |io| async move {
        let directory = Path::new(DIRECTORY);
        let meta = MetaProperties { cluster_id: "cluster".into(), node_id: 1, directory_id: "dir".into() };
        write_meta(&io, directory, &meta, false).await.unwrap();
        let config = LogConfig { segment_bytes: 40_000, ..LogConfig::default() };
        let partition = key(5);
        let rig = Rig::open(&io, &settings(), &live(partition, "events", &config)).await.unwrap();
        let log = rig.core_log.log(partition).unwrap();
        for number in 0..60 {
            rig.append_durably(&log, &batch(&[1000 + number, 1001 + number], 700)).await.unwrap();
        }
        let expected = {
            let mut bytes: Vec<u8> = Vec::new();
            let mut from = Offset::ZERO;
            while from < Offset(120) {
                let read = log.read(from, 1 << 20, Offset(120), true).await.unwrap();
                let piece = bytes_of(&read.slices);
                let last = crate::protocol::batch::batches(&piece).flatten().last().unwrap();
                from = last.header.last_offset().plus(1);
                bytes.extend(&piece);
            }
            bytes
        };
        let running = io.disk.read_file(&directory.join("meta.properties")).await.unwrap();
        assert!(running.starts_with(b"version=1000\n"), "Kafka must refuse the directory of a running broker");
        let report = rig.core_log.stop().await.unwrap();
        finish_clean_stop(&io, directory, &[report]).await.unwrap();

        let text = |name: &'static str| {
            let io = io.clone();
            async move { String::from_utf8(io.disk.read_file(&directory.join(name)).await.unwrap()).unwrap() }
        };
        assert_eq!(text("meta.properties").await, meta.text(false));
        assert_eq!(text("recovery-point-offset-checkpoint").await, "0\n1\nevents 0 120\n");
        assert_eq!(text("replication-offset-checkpoint").await, "0\n1\nevents 0 120\n");
        assert_eq!(text("log-start-offset-checkpoint").await, "0\n1\nevents 0 0\n");
        assert_eq!(text("events-0/leader-epoch-checkpoint").await, "0\n1\n0 0\n");
        assert!(text("events-0/partition.metadata").await.starts_with("version: 0\ntopic_id: "));

        let mut entries = io.disk.read_dir(&directory.join("events-0")).await.unwrap();
        entries.retain(|entry| entry.name.ends_with(".log"));
        assert!(entries.len() >= 2, "{entries:?}");
        let mut found: Vec<u8> = Vec::new();
        for entry in &entries {
            let path = directory.join("events-0").join(&entry.name);
            let segment = io.disk.read_file(&path).await.unwrap();
            let offsets = io.disk.read_file(&path.with_extension("index")).await.unwrap();
            let times = io.disk.read_file(&path.with_extension("timeindex")).await.unwrap();
            let index = SegmentIndex::from_files(&offsets, &times, segment.len() as u32, 4096).expect("valid indexes");
            for (offset, position) in index.parts().0 {
                let batch = crate::protocol::batch::batches(&segment[*position as usize..]).next().unwrap().unwrap();
                let base: i64 = entry.name.trim_end_matches(".log").parse().unwrap();
                assert_eq!(batch.header.last_offset(), Offset(base + i64::from(*offset)));
            }
            assert!(!times.is_empty(), "the largest timestamp is there");
            found.extend(segment);
        }
        assert_eq!(found, expected, "segments are whole and have no zeros behind");

        // It starts again without a journal, and goes on where it was.
        let rig = Rig::open(&io, &settings(), &live(partition, "events", &config)).await.unwrap();
        let log = rig.core_log.log(partition).unwrap();
        assert_eq!(log.log_end_offset(), Offset(120));
        assert_eq!(rig.append_durably(&log, &batch(&[5000], 10)).await.unwrap(), Offset(121));
    });
}

#[test]
fn a_directory_that_kafka_has_opened_since_is_refused() {
    let sim = Simulation::new(9);
    sim.block_on(0, 0, |io| async move {
        let directory = Path::new(DIRECTORY);
        let meta = MetaProperties { cluster_id: "cluster".into(), node_id: 1, directory_id: "dir".into() };
        write_meta(&io, directory, &meta, false).await.unwrap();
        let rig = Rig::open(&io, &LogSettings::default(), &Default::default()).await.unwrap();
        let report = rig.core_log.stop().await.unwrap();
        finish_clean_stop(&io, directory, &[report]).await.unwrap();
        let mark = directory.join(".kafka_cleanshutdown");
        let ours = io.disk.read_file(&mark).await.unwrap();
        // Kafka takes the mark away when it starts, and leaves one of its own when it stops.
        for theirs in [None, Some(&b"{\"version\":0,\"brokerEpoch\":5}"[..])] {
            io.disk.remove_file(&mark).await.unwrap();
            if let Some(theirs) = theirs {
                io.disk.write_file(&mark, theirs, true).await.unwrap();
            }
            let before = io.disk.read_dir(directory).await.unwrap();
            let refused = Rig::open(&io, &LogSettings::default(), &Default::default()).await.err().unwrap();
            assert!(matches!(refused, RecoverError::TouchedByKafka { .. }), "{refused:?}");
            assert_eq!(io.disk.read_dir(directory).await.unwrap(), before, "it is left untouched");
            let text = io.disk.read_file(&directory.join("meta.properties")).await.unwrap();
            assert_eq!(text, meta.text(false).as_bytes(), "and Kafka may go on with it");
            io.disk.write_file(&mark, b"x", true).await.unwrap();
        }
        io.disk.write_file(&mark, &ours, true).await.unwrap();
        assert!(Rig::open(&io, &LogSettings::default(), &Default::default()).await.is_ok(), "as the line says");
    });
}

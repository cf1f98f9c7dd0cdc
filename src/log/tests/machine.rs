//! The same log on the machine's own disk, through glommio: what the simulator cannot know.

use std::{path::PathBuf, time::Duration};

use super::{batch, bytes_of, key, story};
use crate::{
    base::{LeaderEpoch, Offset},
    io::{Io, glommio as backend},
    log::{CoreLog, LivePartitions, LogConfig, LogSettings, finish_clean_stop, recover},
    partition::PartitionState,
    protocol::batch::{BatchHeader, BatchInfo},
};

const PARTITIONS: u128 = 100;
const IO_MEMORY: usize = 64 * 1024;

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind if the test has broken it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn all() -> LivePartitions {
    let config = LogConfig { segment_bytes: 20_000, ..LogConfig::default() };
    (1..=PARTITIONS).map(|number| (key(number), (format!("t{number}"), config.clone()))).collect()
}

/// One life: checks that every partition ends at `found`, appends `batches` to each, and stops or just ends.
async fn life(io: Io, directory: PathBuf, found: Offset, batches: usize, stop: bool) {
    let settings = LogSettings { checkpoint_interval: Duration::from_secs(3600), ..story::settings() };
    let mut recovered = recover(&io, &directory, &settings, 1, |_| Ok(all().into())).await.unwrap();
    let seed = recovered.cores.remove(0);
    let fatal = |reason: String| panic!("{reason}");
    let (core_log, restored) = CoreLog::start(&io, seed, std::rc::Rc::new(fatal)).await.unwrap();
    let states: std::rc::Rc<std::cell::RefCell<crate::base::Map<_, PartitionState>>> =
        std::rc::Rc::new(std::cell::RefCell::new(restored.iter().map(|it| (it.key, it.state.clone())).collect()));
    let source = states.clone();
    core_log.set_state_source(std::rc::Rc::new(move |key| source.borrow().get(&key).cloned()));
    let one = batch(&[7], 1000);
    for number in 1..=PARTITIONS {
        let log = core_log.log(key(number)).unwrap();
        assert_eq!(log.log_end_offset(), found);
        let mut from = Offset::ZERO;
        while from < found {
            let read = log.read(from, 1 << 20, found, true).await.unwrap();
            for batch in crate::protocol::batch::batches(&bytes_of(&read.slices)) {
                let batch = batch.unwrap();
                assert!(crate::protocol::batch::crc_ok(batch.bytes));
                assert_eq!(batch.header.base_offset, from);
                from = batch.header.last_offset().plus(1);
            }
        }
    }
    for _ in 0..batches {
        let mut last = None;
        for number in 1..=PARTITIONS {
            let log = core_log.log(key(number)).unwrap();
            let reservation = log.reserve(one.len()).await.unwrap();
            let info = BatchInfo::of(&BatchHeader::parse(&one).unwrap()).at(log.log_end_offset(), LeaderEpoch(0));
            log.append(reservation, &one, &info);
            states.borrow_mut().get_mut(&key(number)).unwrap().apply(&info, 0);
            last = Some((log, info.next_offset()));
        }
        let (log, end) = last.expect("there are partitions");
        log.flushed(end).await.unwrap();
    }
    if stop {
        let report = core_log.stop().await.unwrap();
        finish_clean_stop(&io, &directory, &[report]).await.unwrap();
    } else {
        // A process that dies gives up its locks; a thread of ours must let go of the files.
        core_log.core.journal.ring.close().await.unwrap();
    }
}

#[test]
fn lives_follow_each_other_on_a_real_disk() {
    let directory = Directory(std::env::temp_dir().join(format!("ringtail-log-{}", std::process::id())));
    let mut end = 0;
    // Each life through the other door.
    let doors = [backend::Door::Ring, backend::Door::Glommio].into_iter().cycle();
    for ((batches, stop), door) in [(3, false), (40, false), (2, true), (1, true), (0, false)].into_iter().zip(doors) {
        let path = directory.0.clone();
        let body = std::cell::Cell::new(Some(move |io: Io| life(io, path, Offset(end), batches as usize, stop)));
        let executors = backend::start(&[None], IO_MEMORY, door, |_| body.take().expect("one core")).unwrap();
        executors.join().remove(0).unwrap();
        end += batches;
    }
}

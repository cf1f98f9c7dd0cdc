//! What is promised of the disk, what is held in memory, and whose turn it is.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::{DIRECTORY, Rig, batch, key, live, story::settings};
use crate::{
    base::Offset,
    io::{
        Either, Io, either, join_all,
        sim::{Faults, Simulation},
    },
    log::{LivePartitions, Log, LogConfig, LogError, LogSettings, RecoverError, put_ballast},
};

/// As in production: nothing goes round all the time.
fn roomy() -> LogSettings {
    LogSettings {
        journal_max_bytes: 64 << 20,
        journal_start_bytes: 1 << 20,
        journal_file_bytes: 1 << 20,
        dirty_max_bytes: 64 << 20,
        cache_max_bytes: 64 << 20,
        checkpoint_interval: Duration::from_secs(60),
        ..settings()
    }
}

fn many(count: u128) -> LivePartitions {
    (1..=count).map(|number| (key(number), (format!("t{number}"), LogConfig::default()))).collect()
}

fn logs(rig: &Rig, count: u128) -> Vec<Rc<Log>> {
    (1..=count).map(|number| rig.core_log.log(key(number)).unwrap()).collect()
}

fn with_free(sim: &Simulation, bytes: u64) {
    sim.set_faults(0, Faults { capacity: sim.used_bytes(0) + bytes, ..Faults::default() });
}

/// Lets the core ask the disk how much there is.
async fn room_is_known(io: &Io, rig: &Rig) {
    io.clock.sleep(Duration::from_secs(1)).await;
    rig.core_log.housekeeping().await;
}

/// One partition with 5 MiB, and twenty with 300 KB.
async fn fill(io: &Io) -> Rig {
    let rig = Rig::open(io, &roomy(), &many(21)).await.unwrap();
    let logs = logs(&rig, 21);
    for _ in 0..50 {
        rig.append_durably(&logs[0], &batch(&[1], 100_000)).await.unwrap();
    }
    for log in &logs[1..] {
        rig.append_durably(log, &batch(&[1], 300_000)).await.unwrap();
    }
    rig.core_log.recount().unwrap();
    rig.core_log.checkpoint().await.unwrap();
    rig.core_log.recount().unwrap();
    rig
}

#[test]
fn after_a_restart_only_growth_needs_room() {
    for clean in [false, true] {
        let sim = Simulation::new(31);
        sim.block_on(0, 0, move |io| async move {
            let rig = fill(&io).await;
            if clean {
                rig.core_log.stop().await.unwrap();
            }
        });
        sim.power_cut(0);
        let disk = sim.clone();
        sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &roomy(), &many(21)).await.unwrap();
            // Less than the steps in which the files grow: what there is goes round all the same.
            with_free(&disk, roomy().space_margin_bytes + 400_000);
            room_is_known(&io, &rig).await;
            for log in logs(&rig, 21) {
                let appended = rig.append_durably(&log, &batch(&[1], 5)).await;
                assert!(appended.is_ok(), "clean {clean}, {}: {appended:?}", log.name());
                rig.core_log.recount().unwrap();
            }
            rig.core_log.checkpoint().await.unwrap();
            rig.core_log.recount().unwrap();
            assert_eq!(rig.core_log.core.space.promised(), 0, "every promise was kept");
        });
    }
}

#[test]
fn what_is_not_needed_is_given_back() {
    let sim = Simulation::new(32);
    sim.block_on(0, 0, |io| async move {
        let config = LogConfig { segment_bytes: 400_000, ..LogConfig::default() };
        let rig = Rig::open(&io, &roomy(), &live(key(1), "t", &config)).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        let promised = || rig.core_log.core.space.promised();
        drop(log.reserve(5 << 20).await.unwrap());
        assert_eq!(promised(), 0, "a reservation that was dropped");
        // Rolled before anything is in a segment: each of the two is promised what it needs.
        for _ in 0..5 {
            rig.append(&log, &batch(&[1], 150_000)).await.unwrap();
            rig.core_log.recount().unwrap();
        }
        assert_eq!(log.state().segments().len(), 3);
        rig.core_log.checkpoint().await.unwrap();
        rig.core_log.recount().unwrap();
        assert_eq!(promised(), 0, "all of it is allocated");
        rig.append(&log, &batch(&[1], 300_000)).await.unwrap();
        assert!(promised() > 0);
        rig.core_log.delete(key(1)).await;
        assert_eq!(promised(), 0, "a deleted partition needs nothing");
        rig.core_log.recount().unwrap();
    });
}

#[test]
fn a_partition_that_is_refused_keeps_nobody_from_waiting() {
    let sim = Simulation::new(33);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let settings = LogSettings { dirty_max_bytes: 200_000, ..roomy() };
        let rig = Rig::open(&io, &settings, &many(2)).await.unwrap();
        let [greedy, healthy] = &logs(&rig, 2)[..] else { unreachable!() };
        rig.append_durably(healthy, &batch(&[1], 100_000)).await.unwrap();
        with_free(&disk, settings.space_margin_bytes + (4 << 20));
        room_is_known(&io, &rig).await;
        let refused = greedy.reserve(8 << 20);
        assert_eq!(refused.await.err(), Some(LogError::Full));
        assert!(rig.core_log.is_full());
        rig.append(healthy, &batch(&[1], 50_000)).await.unwrap();
        // Now it has to wait until something is in its segment.
        assert_eq!(rig.append_durably(healthy, &batch(&[1], 120_000)).await, Ok(Offset(3)));
    });
}

#[test]
fn a_batch_that_the_journal_cannot_take_is_refused_before_it_is_accepted() {
    let sim = Simulation::new(34);
    let disk = sim.clone();
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &roomy(), &many(2)).await.unwrap();
        let [large, small] = &logs(&rig, 2)[..] else { unreachable!() };
        rig.append_durably(small, &batch(&[1], 100)).await.unwrap();
        with_free(&disk, roomy().space_margin_bytes + (3 << 20));
        room_is_known(&io, &rig).await;
        assert_eq!(rig.append(large, &batch(&[1], 5 << 20)).await, Err(LogError::Full));
        let before = rig.core_log.usage().checkpoints;
        let tiny = batch(&[1], 100);
        for _ in 0..10 {
            let appended = either(rig.append_durably(small, &tiny), io.clock.sleep(Duration::from_secs(1)));
            assert!(matches!(appended.await, Either::Left(Ok(_))), "others go on");
        }
        assert!(rig.core_log.usage().checkpoints < before + 3, "and no checkpoint was wanted for it");
        disk.set_faults(0, Faults::default());
        room_is_known(&io, &rig).await;
        assert!(rig.append_durably(large, &batch(&[1], 5 << 20)).await.is_ok());
        rig.core_log.recount().unwrap();
    });
}

#[test]
fn many_small_partitions_stay_within_the_memory() {
    let sim = Simulation::new(35);
    sim.block_on(0, 0, |io| async move {
        const PARTITIONS: u128 = 2000;
        let settings = LogSettings { cache_max_bytes: 1 << 20, dirty_max_bytes: 400_000, ..roomy() };
        let rig = Rig::open(&io, &settings, &many(PARTITIONS)).await.unwrap();
        let logs = logs(&rig, PARTITIONS);
        for round in 0..3 {
            for log in &logs {
                rig.append(log, &batch(&[1], 10)).await.unwrap();
                let held = rig.core_log.usage().chunk_bytes;
                assert!(held <= 1 << 20, "round {round}: {held}");
            }
            rig.core_log.recount().unwrap();
        }
        // Appended to at every turn, so that it is dirty whenever it could be evicted, and then no more.
        for log in &logs[..100] {
            for _ in 0..2 {
                rig.append(log, &batch(&[1], 10)).await.unwrap();
                rig.core_log.core.evict();
            }
        }
        rig.core_log.checkpoint().await.unwrap();
        for log in &logs[100..] {
            rig.append(log, &batch(&[1], 10)).await.unwrap();
        }
        rig.core_log.checkpoint().await.unwrap();
        let held: usize = logs[..100].iter().map(|log| log.state().chunks().0.len()).sum();
        assert_eq!(held, 0, "who was not appended to for longest has gone first");
    });
}

#[test]
fn what_is_read_from_disk_keeps_no_more_than_it_is() {
    let sim = Simulation::new(36);
    sim.block_on(0, 0, |io| async move {
        let settings = LogSettings { cache_max_bytes: 4 << 20, ..roomy() };
        let rig = Rig::open(&io, &settings, &many(1)).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        for _ in 0..8000 {
            rig.append(&log, &batch(&[1], 1000)).await.unwrap();
        }
        rig.core_log.checkpoint().await.unwrap();
        let (mut replies, mut bytes) = (Vec::new(), 0);
        for number in 0..20 {
            let read = log.read(Offset(number * 200), 1, Offset(8000), true).await.unwrap();
            bytes += read.bytes;
            replies.extend(read.slices);
            rig.core_log.recount().unwrap();
            assert!(rig.core_log.usage().chunk_bytes <= 4 << 20, "{}", rig.core_log.usage().chunk_bytes);
        }
        let held: usize = replies.iter().map(|slice| slice.held_bytes()).sum();
        assert!(held <= bytes * 4, "{held} for {bytes}");
    });
}

#[test]
fn a_round_ends_while_appends_go_on() {
    let sim = Simulation::new(37);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &roomy(), &many(1)).await.unwrap();
        let log = rig.core_log.log(key(1)).unwrap();
        let (done, appending) = (Rc::new(Cell::new(false)), rig.clone());
        let (stop, io2) = (done.clone(), io.clone());
        io.spawner.spawn(async move {
            while !stop.get() {
                appending.append(&log, &batch(&[1], 3000)).await.unwrap();
                io2.clock.sleep(Duration::from_micros(20)).await;
            }
        });
        let checkpoint = either(rig.core_log.checkpoint(), io.clock.sleep(Duration::from_millis(200))).await;
        done.set(true);
        assert!(matches!(checkpoint, Either::Left(Ok(()))), "the round goes on as long as the appends");
    });
}

#[test]
fn a_small_append_does_not_wait_for_all_large_ones_before_it() {
    let sim = Simulation::new(38);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &LogSettings { journal_file_bytes: 64 << 10, ..roomy() }, &many(13)).await.unwrap();
        let logs = logs(&rig, 13);
        let large = batch(&[1], 1 << 20);
        for log in &logs[..12] {
            rig.append(log, &large).await.unwrap();
        }
        // In its own partition it comes behind; whoever writes to another one overtakes.
        let behind = rig.append(&logs[11], &batch(&[1], 10)).await.unwrap();
        let end = rig.append(&logs[12], &batch(&[1], 10)).await.unwrap();
        logs[12].flushed(end).await.unwrap();
        let durable = logs[..12].iter().filter(|log| log.durable_end() > Offset::ZERO).count();
        assert!(durable <= 2, "{durable} large ones came first");
        logs[11].flushed(behind).await.unwrap();
        assert!(logs.iter().all(|log| log.durable_end() == log.log_end_offset()), "it was the last");
        // A round begins while large ones wait, and both survive a crash.
        for log in &logs[..12] {
            rig.append(log, &large).await.unwrap();
        }
        let rounds = rig.core_log.checkpoint();
        let appends = logs.iter().map(|log| rig.append_durably(log, &large));
        let (checkpoint, appended) = futures_join(rounds, join_all(appends)).await;
        checkpoint.unwrap();
        assert!(appended.iter().all(Result::is_ok));
    });
    sim.power_cut(0);
    sim.block_on(0, 0, |io| async move {
        let rig = Rig::open(&io, &roomy(), &many(13)).await.unwrap();
        let ends: Vec<i64> = logs(&rig, 13).iter().map(|log| log.log_end_offset().0).collect();
        assert_eq!(ends, [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 2]);
    });
}

async fn futures_join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (first, second) = (Cell::new(None), Cell::new(None));
    let both: [std::pin::Pin<Box<dyn Future<Output = ()> + '_>>; 2] =
        [Box::pin(async { first.set(Some(a.await)) }), Box::pin(async { second.set(Some(b.await)) })];
    join_all(both).await;
    (first.take().expect("it has ended"), second.take().expect("it has ended"))
}

#[test]
fn a_small_reservation_passes_a_large_one_and_not_for_ever() {
    let sim = Simulation::new(39);
    sim.block_on(0, 0, |io| async move {
        let settings = LogSettings { dirty_max_bytes: 1 << 20, ..roomy() };
        let rig = Rig::open(&io, &settings, &many(3)).await.unwrap();
        let logs = logs(&rig, 3);
        let held = logs[0].reserve(500_000).await.unwrap();
        let (large, waits) = (logs[1].clone(), Rc::new(Cell::new(true)));
        let waiting = waits.clone();
        io.spawner.spawn(async move {
            let reservation = large.reserve(800_000).await;
            waiting.set(false);
            drop(reservation);
        });
        io.clock.sleep(Duration::from_millis(10)).await;
        assert!(waits.get(), "there is no room for both");
        let mut passed = 0;
        while let Either::Left(reservation) =
            either(logs[2].reserve(50_000), io.clock.sleep(Duration::from_millis(10))).await
        {
            passed += reservation.unwrap().bytes();
        }
        assert_eq!(passed, 800_000, "as much as it wants itself");
        drop(held);
        io.clock.sleep(Duration::from_millis(10)).await;
        assert!(!waits.get());
    });
}

#[test]
fn a_start_needs_no_free_byte_after_any_end_and_as_often_as_it_comes() {
    let sim = Simulation::new(40);
    let settings = || LogSettings { ballast_bytes: 512 << 10, ..roomy() };
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &many(3)).await.unwrap();
        put_ballast(&io, DIRECTORY.as_ref(), settings().ballast_bytes).await;
        let logs = logs(&rig, 3);
        rig.append_durably(&logs[0], &batch(&[1], 20_000)).await.unwrap();
        rig.core_log.checkpoint().await.unwrap();
        // These are in the journal alone.
        for log in &logs[1..] {
            rig.append_durably(log, &batch(&[1], 10)).await.unwrap();
        }
    });
    sim.power_cut(0);
    for life in 0..8 {
        // Somebody else has taken everything, before each start.
        with_free(&sim, 0);
        let disk = sim.clone();
        let result = sim.block_on(0, 0, move |io| async move {
            let rig = Rig::open(&io, &settings(), &many(3)).await?;
            put_ballast(&io, DIRECTORY.as_ref(), settings().ballast_bytes).await;
            let logs = logs(&rig, 3);
            for log in &logs {
                assert_eq!(log.log_end_offset(), Offset(1));
                assert!(log.read(Offset(0), 1, Offset(1), true).await.unwrap().bytes > 0);
            }
            room_is_known(&io, &rig).await;
            assert_eq!(logs[1].reserve(1 << 20).await.err(), Some(LogError::Full));
            if life % 2 == 0 {
                // And while it runs, so that the stop has nothing either.
                with_free(&disk, 0);
                let _full = rig.core_log.stop().await;
            }
            Ok::<_, RecoverError>(())
        });
        assert!(result.is_ok(), "life {life}: {result:?}");
        sim.power_cut(0);
    }
    sim.set_faults(0, Faults::default());
    sim.block_on(0, 0, move |io| async move {
        let rig = Rig::open(&io, &settings(), &many(3)).await.unwrap();
        assert!(rig.append_durably(&logs(&rig, 3)[1], &batch(&[1], 1 << 20)).await.is_ok());
        for _ in 0..40 {
            room_is_known(&io, &rig).await;
        }
        let entries = io.disk.read_dir(DIRECTORY.as_ref()).await.unwrap();
        let ballast = entries.iter().find(|entry| entry.name == "ringtail-ballast").map(|entry| entry.len);
        assert_eq!(ballast, Some(settings().ballast_bytes), "it is whole again");
    });
}

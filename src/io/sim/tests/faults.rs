//! What a disk does when it fails, and what a kill leaves.

use super::*;
use crate::io::sim::{Failure, Operation, errno};

fn failing(operation: Operation, files_named: &'static str, error: i32) -> Faults {
    Faults { failures: vec![Failure { operation, files_named, error, one_in: 1 }], ..Faults::default() }
}

#[test]
fn each_operation_fails_where_it_is_told_to_and_nowhere_else() {
    let operations = [
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
    for wrong in operations {
        let sim = Simulation::new(1);
        let disk = sim.clone();
        sim.block_on(0, 0, move |io| async move {
            io.disk.create_dir_all(Path::new("bad")).await.unwrap();
            for directory in ["bad", "good"] {
                disk.set_faults(0, Faults::default());
                let path = |name: &str| Path::new(directory).join(name);
                io.disk.create_dir_all(Path::new(directory)).await.unwrap();
                let file = io.disk.open(&path("f"), NEW).await.unwrap();
                file.write(block(&io, 1, 1), 0).await.unwrap();
                io.disk.write_file(&path("old"), b"x", true).await.unwrap();
                disk.set_faults(0, failing(wrong, "bad/", errno::EIO));
                let results = [
                    io.disk.open(&path("f"), NEW).await.map(drop),
                    file.read(0, 1).await.map(drop),
                    file.write(block(&io, 1, 1), 0).await,
                    file.allocate(0, 8192).await,
                    file.truncate(4096).await,
                    file.sync().await,
                    io.disk.rename(&path("old"), &path("new")).await,
                    io.disk.remove_file(&path("f")).await,
                    io.disk.create_dir_all(&path("d")).await,
                    io.disk.read_dir(&path("")).await.map(drop),
                ];
                for (operation, result) in operations.iter().zip(results) {
                    let fails = directory == "bad" && *operation == wrong;
                    let error = result.err().and_then(|error| error.raw_os_error());
                    assert_eq!(error, fails.then_some(errno::EIO), "{wrong:?}: {operation:?} in {directory}");
                }
            }
        });
    }
}

#[test]
fn a_quota_and_too_many_open_files_say_so() {
    let sim = Simulation::new(1);
    let faults = Faults { capacity: 8192, full_error: errno::EDQUOT, open_files_max: 2, ..Faults::default() };
    sim.set_faults(0, faults);
    sim.block_on(0, 0, |io| async move {
        let first = io.disk.open(Path::new("a"), NEW).await.unwrap();
        let second = io.disk.open(Path::new("b"), NEW).await.unwrap();
        let many = io.disk.open(Path::new("c"), NEW).await.map(drop).unwrap_err();
        assert_eq!(many.raw_os_error(), Some(errno::EMFILE));
        second.close().await.unwrap();
        io.disk.open(Path::new("c"), NEW).await.unwrap();
        assert_eq!(first.allocate(0, 16384).await.unwrap_err().kind(), ErrorKind::QuotaExceeded);
        let long = "n".repeat(256);
        assert_eq!(io.disk.write_file(Path::new(&long), b"", false).await.unwrap_err().raw_os_error(), Some(36));
        assert!(io.disk.rename(Path::new("a"), Path::new(&long)).await.is_err());
    });
}

#[test]
fn files_and_directories_do_not_take_each_others_places() {
    Simulation::new(1).block_on(0, 0, |io| async move {
        let disk = &io.disk;
        let (file, directory) = (Path::new("f"), Path::new("d"));
        disk.write_file(file, b"x", false).await.unwrap();
        disk.create_dir_all(directory).await.unwrap();
        let kind = |result: std::io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(disk.rename(file, directory).await), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.rename(directory, file).await), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.open(directory, NEW).await.map(drop)), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.read_file(directory).await.map(drop)), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.write_file(directory, b"", true).await), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.remove_file(directory).await), ErrorKind::IsADirectory);
        assert_eq!(kind(disk.read_dir(file).await.map(drop)), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.create_dir_all(file).await), ErrorKind::NotADirectory);
        assert_eq!(kind(disk.open(Path::new("f/g"), NEW).await.map(drop)), ErrorKind::NotADirectory);
    });
}

#[test]
fn what_a_failed_sync_was_to_make_durable_is_not_and_the_next_one_says_all_is_well() {
    let (mut lost, mut gone_at_once) = (0, 0);
    for seed in 0..100 {
        for whole in [false, true] {
            let sim = Simulation::new(seed);
            let disk = sim.clone();
            let there = sim.block_on(0, 0, move |io| async move {
                let file = io.disk.open(Path::new("f"), NEW).await.unwrap();
                let other = io.disk.open(Path::new("f"), NEW).await.unwrap();
                file.write(block(&io, 1, 1), 0).await.unwrap();
                io.disk.sync_filesystem_of(Path::new(".")).await.unwrap();
                file.write(block(&io, 2, 1), 0).await.unwrap();
                disk.set_faults(0, Faults { sync_error_one_in: 1, ..Faults::default() });
                match whole {
                    true => io.disk.sync_filesystem_of(Path::new(".")).await.unwrap_err(),
                    false => file.sync().await.unwrap_err(),
                };
                disk.set_faults(0, Faults::default());
                // Each open file hears of it once.
                assert_eq!(file.sync().await.is_err(), whole);
                assert!(other.sync().await.is_err());
                other.sync().await.unwrap();
                io.disk.open(Path::new("f"), NEW).await.unwrap().sync().await.unwrap();
                io.disk.sync_filesystem_of(Path::new(".")).await.unwrap();
                let there = file.read(0, BLOCK).await.unwrap();
                file.write(block(&io, 3, 1), 4096).await.unwrap();
                file.sync().await.unwrap();
                there.iter().all(|byte| *byte == 2)
            });
            gone_at_once += u64::from(!there);
            sim.power_cut(0);
            let bytes = sim.bytes_at_rest(0, Path::new("f"));
            lost += u64::from(bytes[..BLOCK].contains(&1));
            assert!(bytes[BLOCK..].iter().all(|byte| *byte == 3), "seed {seed}: what was written since is durable");
        }
    }
    assert!(lost > 100 && (20..180).contains(&gone_at_once), "{lost} lost, {gone_at_once} at once");
}

#[test]
fn a_buffer_is_read_when_the_device_gets_to_it() {
    Simulation::new(1).block_on(0, 0, |io| async move {
        let file = io.disk.open(Path::new("f"), NEW).await.unwrap();
        let mut tail = Tail::new(io.disk.allocate(BLOCK), 0);
        tail.append(&[1; 100]);
        let (again, buffer) = (file.clone(), tail.buffer().clone());
        let write = io.spawner.spawn_with_handle(async move { again.write(buffer, 0).await });
        io.clock.yield_now().await;
        tail.append(&[2; 100]);
        write.await.unwrap();
        assert_eq!(file.read(99, 2).await.unwrap()[..], [1, 2]);
    });
}

#[test]
fn a_killed_processs_write_may_land_late_and_its_locks_hold_until_then() {
    let mut late = 0;
    for seed in 0..200 {
        let sim = Simulation::new(seed);
        sim.set_faults(0, Faults { latency_ns: 1_000_000..2_000_000, ..Faults::default() });
        let written = Rc::new(Cell::new(false));
        sim.spawn_on(0, 0, |io| {
            let written = written.clone();
            async move {
                let lock = io.disk.open(Path::new("lock"), NEW).await.unwrap();
                lock.try_lock_exclusive().unwrap();
                let file = io.disk.open(Path::new("f"), NEW).await.unwrap();
                file.write(block(&io, 1, 1), 0).await.unwrap();
                written.set(true);
                file.write(block(&io, 2, 1), 0).await.unwrap();
                unreachable!("killed before");
            }
        });
        assert!(sim.run_until(|| written.get()));
        sim.kill(0);
        sim.set_faults(0, Faults::default());
        late += sim.block_on(0, 0, |io| async move {
            let file = io.disk.open(Path::new("f"), OpenOptions::default()).await.unwrap();
            let before = file.read(0, 1).await.unwrap()[0];
            let lock = io.disk.open(Path::new("lock"), NEW).await.unwrap();
            while lock.try_lock_exclusive().is_err() {
                io.clock.sleep(Duration::from_micros(10)).await;
            }
            let after = file.read(0, 1).await.unwrap()[0];
            io.clock.sleep(Duration::from_secs(1)).await;
            assert_eq!(file.read(0, 1).await.unwrap()[0], after, "seed {seed}: nothing lands after the lock is free");
            u64::from(before != after)
        });
    }
    assert!((20..120).contains(&late), "{late} of 200 landed late");
}

#[test]
fn a_kill_leaves_half_of_a_side_file() {
    let mut found = [0; 3];
    for seed in 0..300 {
        let sim = Simulation::new(seed);
        sim.block_on(0, 0, |io| async move { io.disk.write_file(Path::new("f"), &[1; 20_000], true).await.unwrap() });
        sim.spawn_on(0, 0, |io| async move { io.disk.write_file(Path::new("f"), &[2; 20_000], false).await.unwrap() });
        sim.run_steps(sim.below(14));
        sim.kill(0);
        let bytes = sim.bytes_at_rest(0, Path::new("f"));
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "seed {seed}: truncated first");
        assert!(bytes.len().is_multiple_of(BLOCK) || bytes.len() == 20_000, "seed {seed}: {}", bytes.len());
        found[match (bytes.len(), bytes.first()) {
            (20_000, Some(1)) => 0,
            (20_000, _) => 2,
            _ => 1,
        }] += 1;
    }
    assert!(found.iter().all(|count| *count > 20), "{found:?}");
}

#[test]
fn rot_is_durable_and_what_was_saved_can_be_put_back() {
    let sim = Simulation::new(1);
    sim.block_on(0, 0, |io| async move {
        io.disk.create_dir_all(Path::new("d")).await.unwrap();
        for name in ["d/a", "d/b", "d/c"] {
            io.disk.write_file(Path::new(name), &[0; 1000], true).await.unwrap();
        }
    });
    sim.stop(0);
    let saved = sim.save(0);
    let names = |sim: &Simulation| {
        sim.files(0).into_iter().map(|(path, len)| (path.display().to_string(), len)).collect::<Vec<_>>()
    };
    let before = names(&sim);
    sim.flip_bit(0, Path::new("d/a"), 8 * 700 + 3);
    sim.cut(0, Path::new("d/b"), 10);
    sim.exchange(0, Path::new("d/c"));
    sim.power_cut(0);
    assert_eq!(sim.bytes_at_rest(0, Path::new("d/a"))[699..702], [0, 8, 0]);
    assert_eq!(names(&sim), [("d/a".to_owned(), 1000), ("d/b".to_owned(), 10)]);
    assert_eq!(sim.directories(0), [Path::new("d"), Path::new("d/c")]);
    sim.take_away(0, Path::new("d"));
    sim.power_cut(0);
    assert!(names(&sim).is_empty() && sim.used_bytes(0) == 0);
    sim.put_back(0, &saved);
    assert_eq!(names(&sim), before);
    assert_eq!(sim.used_bytes(0), 3 * 4096);
}

//! The simulator's promises: one seed, one run; what a kill keeps; what a power cut keeps and tears.

mod faults;
mod network;

use std::{
    cell::{Cell, RefCell},
    io::ErrorKind,
    path::Path,
    rc::Rc,
    time::Duration,
};

use super::*;
use crate::io::{OpenOptions, SharedBuffer, Tail, mesh};

const BLOCK: usize = 4096;
const NEW: OpenOptions = OpenOptions { create: true, durable: false };
const NEW_DURABLE: OpenOptions = OpenOptions { create: true, durable: true };

fn block(io: &Io, fill: u8, blocks: usize) -> SharedBuffer {
    let mut buffer = io.disk.allocate(blocks * BLOCK);
    buffer.as_mut().fill(fill);
    buffer.share()
}

/// Several tasks that write, read, rename, talk and sleep: something to compare two runs by.
fn busy_run(seed: u64) -> (u64, Instant) {
    let sim = Simulation::new(seed);
    let mut seeds = mesh::<u64>(3).into_iter();
    for core in 0..3 {
        let seed = seeds.next().unwrap();
        sim.spawn_on(0, core, |io| async move {
            let mesh = seed.open(&io);
            let path = format!("data/{core}.log");
            io.disk.create_dir_all(Path::new("data")).await.unwrap();
            let file = io.disk.open(Path::new(&path), NEW_DURABLE).await.unwrap();
            for round in 0..10u8 {
                file.write(block(&io, round, 2), u64::from(round) * 8192).await.unwrap();
                mesh.send((core + 1) % 3, io.rand.next_u64()).await;
                let _message = mesh.recv().await;
                io.clock.sleep(Duration::from_micros(io.rand.below(500))).await;
            }
            io.disk.rename(Path::new(&path), Path::new(&format!("data/{core}.old"))).await.unwrap();
        });
    }
    sim.run_for(Duration::from_millis(2));
    sim.kill(0);
    sim.power_cut(0);
    (sim.trace_hash(), sim.now())
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(busy_run(seed), busy_run(seed), "seed {seed}");
    }
    assert_ne!(busy_run(1), busy_run(2));
}

#[test]
fn time_passes_only_when_nothing_can_run() {
    let sim = Simulation::new(1);
    let order = Rc::new(RefCell::new(Vec::new()));
    for (number, wait) in [(1, 30), (2, 10), (3, 20)] {
        let order = order.clone();
        sim.spawn_on(0, 0, |io| async move {
            io.clock.sleep(Duration::from_secs(wait)).await;
            order.borrow_mut().push((number, io.clock.now().0 / 1_000_000_000));
        });
    }
    sim.run_until_idle();
    assert_eq!(*order.borrow(), [(2, 10), (3, 20), (1, 30)]);
}

#[test]
fn what_is_written_is_read_back_wherever_it_lies() {
    Simulation::new(1).block_on(0, 0, |io| async move {
        let file = io.disk.open(Path::new("a"), NEW).await.unwrap();
        let mut buffer = io.disk.allocate(2 * BLOCK);
        for (index, byte) in buffer.as_mut().iter_mut().enumerate() {
            *byte = (index % 251) as u8;
        }
        file.write(buffer.share(), 4096).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 12288);
        let read = file.read(4000, 200).await.unwrap();
        assert!(read[..96].iter().all(|byte| *byte == 0));
        assert!(read[96..].iter().enumerate().all(|(index, byte)| *byte == index as u8));
        assert_eq!(file.read(12200, 89).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        file.truncate(5000).await.unwrap();
        file.truncate(9000).await.unwrap();
        let read = file.read(4999, 100).await.unwrap();
        assert_eq!((read[0], read[1]), ((903 % 251) as u8, 0));
        assert_eq!(file.write(block(&io, 1, 1), 100).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_durable_write_survives_a_power_cut_and_a_plain_one_tears() {
    let mut torn = 0;
    for seed in 0..200 {
        let sim = Simulation::new(seed);
        sim.block_on(0, 0, |io| async move {
            let durable = io.disk.open(Path::new("durable"), NEW_DURABLE).await.unwrap();
            let plain = io.disk.open(Path::new("plain"), NEW).await.unwrap();
            io.disk.sync_dir(Path::new(".")).await.unwrap();
            plain.write(block(&io, 1, 1), 0).await.unwrap();
            plain.sync().await.unwrap();
            plain.write(block(&io, 2, 1), 0).await.unwrap();
            durable.write(block(&io, 3, 4), 0).await.unwrap();
        });
        sim.power_cut(0);
        let sectors = sim.block_on(0, 0, |io| async move {
            let durable = io.disk.open(Path::new("durable"), OpenOptions::default()).await.unwrap();
            assert!(durable.read(0, 4 * BLOCK).await.unwrap().iter().all(|byte| *byte == 3));
            let plain = io.disk.open(Path::new("plain"), OpenOptions::default()).await.unwrap();
            let bytes = plain.read(0, BLOCK).await.unwrap();
            let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
            assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])), "tears at 512 bytes");
            sectors
        });
        assert!(sectors.iter().all(|byte| [1, 2].contains(byte)), "seed {seed}: {sectors:?}");
        torn += usize::from(sectors.contains(&1) && sectors.contains(&2));
    }
    assert!(torn > 20, "{torn} of 200 cuts tore the block");
}

#[test]
fn a_sync_covers_what_was_written_before_it_began() {
    for seed in 0..100 {
        let sim = Simulation::new(seed);
        let synced = Rc::new(Cell::new(0));
        sim.spawn_on(0, 0, |io| {
            let synced = synced.clone();
            async move {
                let file = io.disk.open(Path::new("f"), NEW).await.unwrap();
                io.disk.sync_dir(Path::new("/")).await.unwrap();
                for round in 1..100u8 {
                    file.write(block(&io, round, 1), 0).await.unwrap();
                    let (sync, again) = (file.clone(), file.clone());
                    let buffer = block(&io, round, 1);
                    let write = io.spawner.spawn_with_handle(async move { again.write(buffer, 0).await });
                    sync.sync().await.unwrap();
                    synced.set(round);
                    write.await.unwrap();
                }
            }
        });
        sim.run_steps(50 + sim.below(400));
        sim.power_cut(0);
        let kept = synced.get();
        if kept == 0 {
            continue;
        }
        let least = sim.block_on(0, 0, |io| async move {
            let file = io.disk.open(Path::new("f"), OpenOptions::default()).await.unwrap();
            *file.read(0, BLOCK).await.unwrap().iter().min().unwrap()
        });
        assert!(least >= kept, "seed {seed}: synced {kept}, found {least}");
    }
}

#[test]
fn a_kill_keeps_what_has_landed_and_each_write_in_flight_wholly_or_not() {
    let mut landed = 0;
    for seed in 0..100 {
        let sim = Simulation::new(seed);
        let written = Rc::new(Cell::new(false));
        sim.spawn_on(0, 0, |io| {
            let written = written.clone();
            async move {
                let file = io.disk.open(Path::new("f"), NEW).await.unwrap();
                file.write(block(&io, 1, 2), 0).await.unwrap();
                written.set(true);
                file.write(block(&io, 2, 2), 0).await.unwrap();
                unreachable!("killed before");
            }
        });
        assert!(sim.run_until(|| written.get()));
        sim.kill(0);
        let bytes = sim.block_on(0, 0, |io| async move {
            let file = io.disk.open(Path::new("f"), OpenOptions::default()).await.unwrap();
            file.try_lock_exclusive().unwrap();
            file.read(0, 2 * BLOCK).await.unwrap().to_vec()
        });
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "seed {seed}");
        landed += usize::from(bytes[0] == 2);
    }
    assert!((20..80).contains(&landed), "{landed} of 100 landed");
}

#[test]
fn names_are_lost_unless_their_directory_was_synced() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..100 {
        let sim = Simulation::new(seed);
        sim.block_on(0, 0, |io| async move {
            io.disk.create_dir_all(Path::new("d")).await.unwrap();
            io.disk.sync_dir(Path::new(".")).await.unwrap();
            io.disk.replace_file(Path::new("d/safe"), b"safe").await.unwrap();
            io.disk.write_file(Path::new("d/new"), b"new", true).await.unwrap();
            io.disk.rename(Path::new("d/new"), Path::new("d/renamed")).await.unwrap();
        });
        sim.power_cut(0);
        let names = sim.block_on(0, 0, |io| async move {
            assert_eq!(io.disk.read_file(Path::new("d/safe")).await.unwrap(), b"safe");
            let entries = io.disk.read_dir(Path::new("d")).await.unwrap();
            entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        });
        match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["safe"] => lost += 1,
            ["renamed", "safe"] => kept += 1,
            ["new", "safe"] => {}
            _ => panic!("seed {seed}: {names:?}"),
        }
    }
    assert!(lost > 10 && kept > 10, "{lost} lost, {kept} kept");
}

#[test]
fn replacing_a_file_leaves_the_old_one_or_the_new_one() {
    let mut found = [0; 2];
    for seed in 0..200 {
        let sim = Simulation::new(seed);
        sim.block_on(0, 0, |io| async move { io.disk.replace_file(Path::new("f"), b"old").await.unwrap() });
        sim.spawn_on(0, 0, |io| async move { io.disk.replace_file(Path::new("f"), b"new").await.unwrap() });
        sim.run_steps(sim.below(20));
        sim.power_cut(0);
        let bytes = sim.block_on(0, 0, |io| async move { io.disk.read_file(Path::new("f")).await.unwrap() });
        match bytes.as_slice() {
            b"old" => found[0] += 1,
            b"new" => found[1] += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(found.iter().all(|count| *count > 10), "{found:?}");
}

#[test]
fn syncfs_makes_all_of_it_durable() {
    for seed in 0..50 {
        let sim = Simulation::new(seed);
        sim.block_on(0, 0, |io| async move {
            for name in ["x/a", "x/y/b"] {
                io.disk.create_dir_all(Path::new(name).parent().unwrap()).await.unwrap();
                let file = io.disk.open(Path::new(name), NEW).await.unwrap();
                file.allocate(0, 65536).await.unwrap();
                file.write(block(&io, 9, 1), 8192).await.unwrap();
            }
            io.disk.sync_filesystem_of(Path::new("x")).await.unwrap();
        });
        sim.power_cut(0);
        sim.block_on(0, 0, |io| async move {
            for name in ["x/a", "x/y/b"] {
                let file = io.disk.open(Path::new(name), OpenOptions::default()).await.unwrap();
                assert_eq!(file.len().await.unwrap(), 65536);
                assert_eq!(file.read(8191, 2).await.unwrap()[..], [0, 9]);
            }
        });
    }
}

#[test]
fn a_full_disk_says_so_and_freed_space_is_there_again() {
    let sim = Simulation::new(5);
    sim.set_faults(0, Faults { capacity: 64 * 1024, ..Faults::default() });
    sim.block_on(0, 0, |io| async move {
        let first = io.disk.open(Path::new("a"), NEW).await.unwrap();
        first.allocate(0, 48 * 1024).await.unwrap();
        let second = io.disk.open(Path::new("b"), NEW).await.unwrap();
        assert_eq!(second.allocate(0, 32 * 1024).await.unwrap_err().kind(), ErrorKind::StorageFull);
        second.write(block(&io, 1, 4), 0).await.unwrap();
        assert_eq!(second.write(block(&io, 1, 1), 16384).await.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(io.disk.free_bytes(Path::new(".")).await.unwrap(), 0);
        io.disk.remove_file(Path::new("a")).await.unwrap();
        assert_eq!(io.disk.free_bytes(Path::new(".")).await.unwrap(), 0, "it is still open");
        first.close().await.unwrap();
        second.write(block(&io, 1, 1), 16384).await.unwrap();
    });
    assert_eq!(sim.used_bytes(0), 20 * 1024);
}

#[test]
fn faults_come_as_errors() {
    let sim = Simulation::new(3);
    sim.set_faults(
        0,
        Faults { short_write_one_in: 2, read_error_one_in: 3, sync_error_one_in: 3, ..Faults::default() },
    );
    sim.block_on(0, 0, |io| async move {
        let file = io.disk.open(Path::new("a"), NEW).await.unwrap();
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let results = [file.write(block(&io, 1, 4), 0).await, file.sync().await, file.read(0, 1).await.map(|_| ())];
            kinds.extend(
                results.into_iter().filter_map(|result| result.err().map(|error| format!("{:?}", error.kind()))),
            );
        }
        assert!(kinds.contains("WriteZero") && kinds.len() >= 2, "{kinds:?}");
    });
}

#[test]
fn locks_keep_others_out_until_the_file_is_closed_or_its_process_ends() {
    let sim = Simulation::new(4);
    let held = Rc::new(RefCell::new(None));
    sim.block_on(0, 0, |io| {
        let held = held.clone();
        async move {
            let file = io.disk.open(Path::new("lock"), NEW).await.unwrap();
            file.try_lock_exclusive().unwrap();
            let other = io.disk.open(Path::new("lock"), NEW).await.unwrap();
            assert_eq!(other.try_lock_exclusive().unwrap_err().kind(), ErrorKind::WouldBlock);
            *held.borrow_mut() = Some(file);
        }
    });
    sim.kill(0);
    sim.block_on(0, 0, |io| async move {
        let file = io.disk.open(Path::new("lock"), NEW).await.unwrap();
        file.try_lock_exclusive().unwrap();
        drop(held);
        let other = io.disk.open(Path::new("lock"), NEW).await.unwrap();
        assert_eq!(
            other.try_lock_exclusive().unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "an old handle frees nothing"
        );
    });
}

#[test]
fn a_dropped_write_still_lands_and_a_killed_node_runs_nothing_more() {
    let sim = Simulation::new(6);
    sim.block_on(0, 0, |io| async move {
        let file = io.disk.open(Path::new("f"), NEW).await.unwrap();
        let write = Box::pin(file.write(block(&io, 7, 1), 0));
        assert!(futures_lite::future::poll_once(write).await.is_none());
        io.clock.sleep(Duration::from_secs(1)).await;
        assert_eq!(file.read(0, 1).await.unwrap()[..], [7]);
    });
    let ran = Rc::new(Cell::new(false));
    let (ran_then, killer) = (ran.clone(), sim.clone());
    sim.spawn_on(0, 0, |io| async move {
        killer.kill(0);
        io.clock.sleep(Duration::from_millis(1)).await;
        ran_then.set(true);
    });
    sim.run_until_idle();
    assert!(!ran.get());
    assert_eq!(sim.generation(0), 1);
}

#[test]
fn bit_rot_is_seen() {
    let sim = Simulation::new(7);
    sim.block_on(0, 0, |io| async move {
        let file = io.disk.open(Path::new("f"), NEW_DURABLE).await.unwrap();
        io.disk.sync_dir(Path::new(".")).await.unwrap();
        file.write(block(&io, 7, 1), 0).await.unwrap();
    });
    sim.overwrite(0, Path::new("f"), 1000, &[1, 2]);
    sim.power_cut(0);
    sim.block_on(0, 0, |io| async move {
        let file = io.disk.open(Path::new("f"), OpenOptions::default()).await.unwrap();
        assert_eq!(file.read(999, 4).await.unwrap()[..], [7, 1, 2, 7]);
    });
}

#[test]
fn a_mesh_keeps_order_and_waits_for_room() {
    for seed in 0..20 {
        let sim = Simulation::new(seed);
        let mut seeds = mesh::<u64>(2).into_iter();
        let (left, right) = (seeds.next().unwrap(), seeds.next().unwrap());
        sim.spawn_on(0, 0, |io| async move {
            let mesh = left.open(&io);
            let (a, b) = (mesh.clone(), mesh.clone());
            let first = io.spawner.spawn_with_handle(async move {
                for number in 0..3000 {
                    a.send(1, number * 2).await;
                }
            });
            for number in 0..3000 {
                b.send(1, number * 2 + 1).await;
            }
            first.await;
        });
        let got = sim.block_on(0, 1, |io| async move {
            let mesh = right.open(&io);
            let mut got = Vec::new();
            io.clock.sleep(Duration::from_millis(5)).await;
            for _ in 0..6000 {
                got.push(mesh.recv().await);
            }
            got
        });
        for parity in 0..2 {
            let one = got.iter().filter(|number| **number % 2 == parity).copied();
            assert!(one.clone().is_sorted() && one.count() == 3000, "seed {seed}");
        }
    }
}

#[test]
fn a_core_sends_to_itself() {
    let sim = Simulation::new(8);
    let seed = mesh::<u64>(1).remove(0);
    sim.block_on(0, 0, |io| async move {
        let mesh = seed.open(&io);
        let receiver = io.spawner.spawn_with_handle({
            let mesh = mesh.clone();
            async move {
                let mut sum = 0;
                for _ in 0..5000 {
                    sum += mesh.recv().await;
                }
                sum
            }
        });
        for number in 0..5000 {
            mesh.send(0, number).await;
        }
        assert_eq!(receiver.await, 4999 * 5000 / 2);
    });
}

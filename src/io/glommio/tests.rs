//! glommio for real: files, memory across threads, and the mesh, on unpinned executors.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    io::{ErrorKind, Read, Write},
    path::PathBuf,
    sync::mpsc,
    time::Duration,
};

use super::{
    super::{start::ExecutorError, *},
    DOOR,
};
use crate::io::{self as room, Io, Mesh, MeshSeed, OpenOptions, Slice, Stream, Tail, mesh, stream::conformance};

/// Little enough for any limit of locked memory.
const IO_MEMORY: usize = 64 * 1024;

/// A directory of this test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringtail-io-{}-{DOOR:?}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Left behind if the test has broken it.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a body on one executor.
fn run<T: Send + 'static, F: Future<Output = T> + 'static>(body: impl FnOnce(Io) -> F + Send + 'static) -> T {
    let body = Cell::new(Some(body));
    start(&[None], IO_MEMORY, DOOR, |_| body.take().unwrap()).unwrap().join().remove(0).unwrap()
}

#[test]
fn what_is_written_is_read_back_wherever_it_lies() {
    let directory = Directory::new("write-read");
    let path = directory.0.join("file");
    run(move |io| async move {
        let options = OpenOptions { create: true, durable: true };
        let file = io.disk.open(&path, options).await.unwrap();
        file.allocate(0, 1 << 20).await.unwrap();
        assert_eq!(file.len().await.unwrap(), 1 << 20);
        let mut buffer = io.disk.allocate(3 * 4096);
        assert!(buffer.as_slice().iter().all(|byte| *byte == 0));
        for (index, byte) in buffer.as_mut().iter_mut().enumerate() {
            *byte = (index % 251) as u8;
        }
        let shared = buffer.share();
        file.write(shared.clone(), 8192).await.unwrap();
        file.write_range(shared.clone(), 4096..8192, 0).await.unwrap();
        let read = file.read(8192 + 100, 5000).await.unwrap();
        assert_eq!(&read[..], &shared.as_slice()[100..5100]);
        assert_eq!(&file.read(10, 10).await.unwrap()[..], &shared.as_slice()[4106..4116]);
        // The end of a file that is no multiple of a block.
        file.truncate(9000).await.unwrap();
        assert_eq!(file.read(8192, 808).await.unwrap()[..], shared.as_slice()[..808]);
        assert_eq!(file.read(8192, 809).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(file.read(20_000, 1).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(file.write(shared, 10).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        file.sync().await.unwrap();
        file.close().await.unwrap();
    });
}

#[test]
fn a_tail_goes_on_while_its_buffer_is_written_and_other_threads_read_it() {
    let directory = Directory::new("tail");
    let path = directory.0.join("file");
    let (slices, received) = mpsc::channel::<Slice>();
    let reader = std::thread::spawn(move || received.into_iter().map(|slice| u64::from(slice[0])).sum::<u64>());
    run(move |io| async move {
        let file = io.disk.open(&path, OpenOptions { create: true, durable: false }).await.unwrap();
        let mut tail = Tail::new(io.disk.allocate(64 * 1024), 0);
        for round in 0..200u8 {
            let range = tail.append(&[round; 300]);
            slices.send(tail.slice(range)).unwrap();
            file.write(tail.buffer().clone(), 0).await.unwrap();
        }
        let read = file.read(0, 60_000).await.unwrap();
        assert!(read.chunks(300).enumerate().all(|(round, bytes)| bytes == [round as u8; 300]));
    });
    assert_eq!(reader.join().unwrap(), (0..200).sum::<u64>());
}

#[test]
fn memory_dropped_on_another_thread_comes_home() {
    let directory = Directory::new("home");
    let path = directory.0.join("file");
    let (slices, received) = mpsc::channel::<Slice>();
    let (done, dropped) = mpsc::channel::<()>();
    let dropper = std::thread::spawn(move || {
        received.into_iter().for_each(drop);
        done.send(()).unwrap();
    });
    let leftover = run(move |io| async move {
        let file = io.disk.open(&path, OpenOptions { create: true, durable: false }).await.unwrap();
        let shared = io.disk.allocate(1 << 16).share();
        file.write(shared.clone(), 0).await.unwrap();
        for position in 0..16 {
            slices.send(file.read(position * 4096, 4096).await.unwrap()).unwrap();
            slices.send(shared.slice(0..100)).unwrap();
        }
        drop((slices, shared));
        // Blocks this executor only, which has nothing else to do.
        dropped.recv().unwrap();
        assert!(io.disk.live_bytes() > 0);
        io.disk.reclaim();
        io.disk.live_bytes()
    });
    dropper.join().unwrap();
    assert_eq!(leftover, 0);
}

#[test]
fn memory_may_outlive_its_executor() {
    let slice = run(|io| async move {
        let mut buffer = io.disk.allocate(4096);
        buffer.as_mut().fill(9);
        buffer.share().slice(0..4096)
    });
    assert!(slice.iter().all(|byte| *byte == 9));
    drop(slice);
}

#[test]
fn names_and_side_files() {
    let directory = Directory::new("names");
    let root = directory.0.clone();
    run(move |io| async move {
        let disk = &io.disk;
        disk.create_dir_all(&root.join("a/b")).await.unwrap();
        disk.replace_file(&root.join("a/side"), b"one").await.unwrap();
        disk.replace_file(&root.join("a/side"), b"two").await.unwrap();
        disk.rename(&root.join("a/side"), &root.join("a/moved")).await.unwrap();
        disk.sync_dir(&root.join("a")).await.unwrap();
        std::os::unix::fs::symlink("b", root.join("a/link")).unwrap();
        let entries = disk.read_dir(&root.join("a")).await.unwrap();
        let entries: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.is_dir, entry.len)).collect();
        assert_eq!(
            entries,
            [("b", true, 0), ("link", false, 1), ("moved", false, 3)],
            "a link is not what it leads to"
        );
        assert_eq!(disk.read_file(&root.join("a/moved")).await.unwrap(), b"two");
        assert!(disk.exists(&root.join("a/moved")).await);
        disk.remove_file(&root.join("a/moved")).await.unwrap();
        assert!(!disk.exists(&root.join("a/moved")).await);
        let missing = disk.open(&root.join("none"), OpenOptions::default()).await;
        assert_eq!(missing.err().unwrap().kind(), ErrorKind::NotFound);
        disk.remove_dir_all(&root.join("a")).await.unwrap();
        disk.sync_filesystem(&disk.open_filesystem(&root).await.unwrap()).await.unwrap();
        assert!(disk.free_bytes(&root).await.unwrap() > 0);
    });
}

#[test]
fn a_lock_keeps_a_second_descriptor_out() {
    let directory = Directory::new("lock");
    let path = directory.0.join("file");
    run(move |io| async move {
        let options = OpenOptions { create: true, durable: false };
        let file = io.disk.open(&path, options).await.unwrap();
        file.try_lock_exclusive().unwrap();
        let other = io.disk.open(&path, options).await.unwrap();
        assert_eq!(other.try_lock_exclusive().unwrap_err().kind(), ErrorKind::WouldBlock);
        file.close().await.unwrap();
        other.try_lock_exclusive().unwrap();
    });
}

#[test]
fn files_are_opened_for_direct_io() {
    let directory = Directory::new("flags");
    if probe::direct_io(&directory.0).unwrap() != probe::DirectIo::Direct {
        return;
    }
    let path = directory.0.join("file");
    let flags = run(move |io| async move {
        let file = io.disk.open(&path, OpenOptions { create: true, durable: true }).await.unwrap();
        std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.raw_fd())).unwrap()
    });
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    assert_eq!(flags & (libc::O_DIRECT | libc::O_DSYNC), libc::O_DIRECT | libc::O_DSYNC);
}

#[test]
fn a_dropped_write_lands_and_tasks_are_waited_for() {
    let directory = Directory::new("dropped");
    let path = directory.0.join("file");
    run(move |io| async move {
        let file = io.disk.open(&path, OpenOptions { create: true, durable: true }).await.unwrap();
        let mut buffer = io.disk.allocate(4096);
        buffer.as_mut().fill(5);
        let write = Box::pin(file.write(buffer.share(), 0));
        assert!(futures_lite::future::poll_once(write).await.is_none());
        let task = io.spawner.spawn_with_handle({
            let (file, clock) = (file.clone(), io.clock.clone());
            async move {
                while file.len().await.unwrap() == 0 {
                    clock.yield_now().await;
                }
                file.read(0, 4096).await.unwrap()
            }
        });
        drop(file);
        assert!(task.await.iter().all(|byte| *byte == 5));
    });
}

/// What a core that waits is woken by at once: a wait that ends by itself would make each of them last 100 ms.
const WAKES: u32 = 40;
const WAKES_TIME_MAX: Duration = Duration::from_millis(2500);

#[test]
fn another_thread_wakes_a_task_of_a_core_that_waits() {
    let (asks, asked) = mpsc::channel::<std::task::Waker>();
    let woken = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let wakes = woken.clone();
    let thread = std::thread::spawn(move || {
        for waker in asked {
            // Long enough for the core to have looked, spun and gone to sleep.
            std::thread::sleep(Duration::from_millis(2));
            wakes.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            waker.wake();
        }
    });
    let took = run(move |io| async move {
        let began = io.clock.now();
        for wake in 1..=WAKES {
            let mut asked = false;
            std::future::poll_fn(|context| {
                if woken.load(std::sync::atomic::Ordering::SeqCst) >= wake {
                    return std::task::Poll::Ready(());
                }
                if !std::mem::replace(&mut asked, true) {
                    asks.send(context.waker().clone()).unwrap();
                }
                std::task::Poll::Pending
            })
            .await;
        }
        io.clock.now().since(began)
    });
    thread.join().unwrap();
    assert!(took < WAKES_TIME_MAX, "{took:?}");
}

#[test]
fn a_message_wakes_the_core_that_waits_for_it() {
    let seeds = RefCell::new(mesh::<u32>(2).into_iter().map(Some).collect::<Vec<_>>());
    let executors = start(&[None, None], IO_MEMORY, DOOR, |core| {
        let seed = seeds.borrow_mut()[core].take().unwrap();
        move |io: Io| async move {
            let mesh = seed.open(&io);
            let began = io.clock.now();
            for wake in 0..WAKES {
                if core == 0 {
                    // Long enough for the other to have gone to sleep.
                    io.clock.sleep(Duration::from_millis(2)).await;
                    mesh.send(1, wake).await;
                    assert_eq!(mesh.recv().await, wake);
                } else {
                    let message = mesh.recv().await;
                    mesh.send(0, message).await;
                }
            }
            io.clock.now().since(began)
        }
    });
    for took in executors.unwrap().join() {
        assert!(took.as_ref().is_ok_and(|took| *took < WAKES_TIME_MAX), "{took:?}");
    }
}

/// What a core says when it has asked all it wanted to.
const DONE: u64 = u64::MAX;

/// Asks every other core in turn and answers what the others ask, until all are done; gives the sum of the answers.
async fn ask_around(io: Io, mesh: Mesh<(usize, u64)>, rounds: u64) -> u64 {
    let (core, cores) = (mesh.core(), mesh.cores());
    let answering = mesh.clone();
    let (answers, mut arrived) = crate::io::channel::queue(8);
    let everybody_done = io.spawner.spawn_with_handle(async move {
        let mut done = 0;
        while done < cores {
            match answering.recv().await {
                (_, DONE) => done += 1,
                (from, question) if question % 2 == 0 => answering.send(from, (core, question + 1)).await,
                (_, answer) => answers.send(answer).await.unwrap(),
            }
        }
    });
    let mut sum = 0;
    for round in 0..rounds {
        for other in (0..cores).filter(|other| *other != core) {
            mesh.send(other, (core, round * 2)).await;
            sum += arrived.recv().await.unwrap();
        }
    }
    for other in 0..cores {
        mesh.send(other, (core, DONE)).await;
    }
    everybody_done.await;
    sum
}

fn talk(placement: &[Option<usize>]) {
    const ROUNDS: u64 = 300;
    let seeds: Vec<MeshSeed<(usize, u64)>> = mesh(placement.len());
    let seeds = RefCell::new(seeds.into_iter().map(Some).collect::<Vec<_>>());
    let executors = start(placement, IO_MEMORY, DOOR, |core| {
        let seed = seeds.borrow_mut()[core].take().unwrap();
        move |io: Io| async move {
            let mesh = seed.open(&io);
            ask_around(io, mesh, ROUNDS).await
        }
    });
    let others = placement.len() as u64 - 1;
    let expected: u64 = (0..ROUNDS).map(|round| (round * 2 + 1) * others).sum();
    for sum in executors.unwrap().join() {
        assert_eq!(sum.unwrap(), expected);
    }
}

#[test]
fn two_executors_talk() {
    talk(&[None, None]);
}

#[test]
fn more_executors_than_cpus_talk_and_two_share_a_cpu() {
    talk(&[Some(0), Some(0)]);
    talk(&[None; 5]);
}

#[test]
fn a_full_queue_makes_the_sender_wait_and_loses_nothing() {
    const MESSAGES: u64 = 20_000;
    let seeds = RefCell::new(mesh::<u64>(2).into_iter().map(Some).collect::<Vec<_>>());
    let executors = start(&[None, None], IO_MEMORY, DOOR, |core| {
        let seed = seeds.borrow_mut()[core].take().unwrap();
        move |io: Io| async move {
            let mesh = seed.open(&io);
            if core == 0 {
                for number in 0..MESSAGES {
                    mesh.send(1, number).await;
                }
                return mesh.recv().await;
            }
            // Long enough for the queue to fill up.
            io.clock.sleep(Duration::from_millis(50)).await;
            for expected in 0..MESSAGES {
                assert_eq!(mesh.recv().await, expected);
            }
            mesh.send(0, MESSAGES).await;
            MESSAGES
        }
    });
    for result in executors.unwrap().join() {
        assert_eq!(result.unwrap(), MESSAGES);
    }
}

#[test]
fn an_executor_that_cannot_start_keeps_the_others_from_running() {
    let ran = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let result = start(&[None, Some(100_000)], IO_MEMORY, DOOR, |_| {
        let ran = ran.clone();
        move |_io| async move { ran.store(true, std::sync::atomic::Ordering::SeqCst) }
    });
    assert!(matches!(result, Err(ExecutorError::Executor { core: 1, .. })), "{:?}", result.err());
    assert!(!ran.load(std::sync::atomic::Ordering::SeqCst));
}

#[test]
fn this_machine_can_be_probed() {
    let directory = Directory::new("probe");
    probe::io_uring().unwrap();
    assert!(probe::io_memory(1, DOOR).unwrap() >= 64 * 1024);
    probe::direct_io(&directory.0).unwrap();
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0, "nothing is left behind");
    assert_eq!(probe::direct_io(&directory.0.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Both ends of a connection over the loopback, on one executor.
fn with_connection<F: Future<Output = ()> + 'static>(
    body: impl FnOnce(Io, room::Stream, room::Stream) -> F + Send + 'static,
) {
    run(move |io| async move {
        let bound = room::BoundAddress::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        bound.open().unwrap();
        let client = std::net::TcpStream::connect(bound.address().unwrap()).unwrap();
        let here = room::DetachedStream::Glommio(DetachedStream::of(client)).attach(&io);
        let there = bound.attach(&io).next().await.unwrap().attach(&io);
        here.configure(&room::StreamOptions::default()).unwrap();
        there.configure(&room::StreamOptions::default()).unwrap();
        body(io, here, there).await;
    });
}

#[test]
fn sockets_do_what_every_stream_does() {
    with_connection(|_, here, there| conformance::all_of_it_arrives(here, there));
    with_connection(|_, here, there| conformance::who_does_not_read_makes_the_sender_wait(here, there));
    with_connection(|_, here, there| conformance::a_receiver_that_rests_misses_nothing(here, there));
    with_connection(|_, here, there| conformance::both_directions_end_as_they_are_told(here, there));
    with_connection(conformance::what_is_not_taken_is_told);
    with_connection(conformance::a_detached_stream_goes_on);
}

#[test]
fn connections_are_opened_to_who_listens_and_refused_elsewhere() {
    use std::{future::poll_fn, net::TcpListener};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = nobody.local_addr().unwrap().port();
    drop(nobody);
    run(move |io| async move {
        for host in ["127.0.0.1", "localhost"] {
            let here = Stream::connect(&io, host, port).await.unwrap();
            let (mut there, _) = listener.accept().unwrap();
            there.write_all(b"hello").unwrap();
            let received = poll_fn(|context| here.poll_recv(context, 1)).await.unwrap();
            assert_eq!(received.as_slice(), b"hello");
            let mut outbox = room::Outbox::default();
            outbox.push(vec![b"and back".to_vec().into()]);
            while outbox.unsent_bytes() > 0 {
                poll_fn(|context| here.poll_send(context, &mut outbox)).await.unwrap();
            }
            poll_fn(|context| here.poll_sent(context)).await.unwrap();
            let mut back = [0; 8];
            there.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"and back");
        }
        let refused = Stream::connect(&io, "127.0.0.1", free).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(Stream::connect(&io, "no.such.host.invalid", port).await.is_err());
    });
}

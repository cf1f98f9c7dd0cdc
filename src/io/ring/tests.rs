//! What only a ring can have: too little room for all at once, and something under way when it ends.

use std::{
    cell::Cell,
    future::Future,
    io::{ErrorKind, Read, Write},
    net::TcpStream as StdStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    time::Duration,
};

use futures_lite::future::{poll_fn, poll_once};

use super::{Bell, COMPLETIONS, buffers, kernel::Completion, stream};
use crate::io::{
    BoundAddress, Io, OpenOptions, RECEIVED_BYTES_MAX,
    glommio::{self, Door},
    join_all,
};

/// Runs a body on one executor with a ring.
fn run<T: Send + 'static, F: Future<Output = T> + 'static>(body: impl FnOnce(Io) -> F + Send + 'static) -> T {
    let body = Cell::new(Some(body));
    glommio::start(&[None], 64 << 10, Door::Ring, |_| body.take().unwrap()).unwrap().join().remove(0).unwrap()
}

fn bell(io: &Io) -> Arc<Bell> {
    io.spawner.ring().expect("it has one").bell().clone()
}

/// A crowd whose bytes come together, which needs more buffers than there are and more completions than have room.
#[test]
fn a_crowd_is_served_with_few_buffers_and_few_attempts() {
    const CROWD: usize = COMPLETIONS as usize + 500;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum },
    )
    .unwrap();
    if limit.maximum.is_some_and(|files| files < 3 * CROWD as u64) {
        eprintln!("skipped: this process may not open so many files");
        return;
    }
    let polls = run(|io| async move {
        let ring = io.spawner.ring().unwrap().clone();
        let (mut peers, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..CROWD {
            let (here, there) = UnixStream::pair().unwrap();
            let stream = stream::Stream::attach(&ring, StdStream::from(OwnedFd::from(here)), None);
            peers.push(there);
            receivers.push(io.spawner.spawn_with_handle(async move {
                poll_fn(|context| stream.poll_recv(context, RECEIVED_BYTES_MAX)).await.unwrap().as_slice().to_vec()
            }));
        }
        // All of them wait.
        io.clock.sleep(Duration::from_millis(20)).await;
        let before = ring.0.polls.get();
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&number.to_ne_bytes()).unwrap();
        }
        for (number, receiver) in receivers.into_iter().enumerate() {
            assert_eq!(receiver.await, number.to_ne_bytes());
        }
        ring.0.polls.get() - before
    });
    // Each is woken to ask again at most once, and this test once for each.
    assert!(polls < 4 * CROWD as u64, "{polls} polls for {CROWD} connections");
}

/// Where a kernel completes them all in one turn, most of a crowd find no buffer.
#[test]
fn those_who_find_no_buffer_ask_again_in_their_order_and_no_more_at_a_time_than_find_one() {
    run(|io| async move {
        let ring = io.spawner.ring().unwrap().clone();
        let (mut peers, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..2 * buffers::COUNT {
            let (here, there) = UnixStream::pair().unwrap();
            streams.push(stream::Stream::attach(&ring, StdStream::from(OwnedFd::from(here)), None));
            peers.push(there);
        }
        for stream in &streams {
            // As if the kernel had had it and said so.
            let key = ring.0.operations.borrow_mut().insert(stream.receive_for_test());
            ring.complete(Completion { key: key as u64, result: -libc::ENOBUFS, flags: 0 });
        }
        let asking = || streams.iter().take_while(|stream| !stream.starves_for_test()).count();
        assert_eq!((asking(), ring.0.starving.borrow().len()), (0, 2 * usize::from(buffers::COUNT)));
        ring.feed_the_starving();
        assert_eq!(asking(), usize::from(buffers::COUNT));
        ring.feed_the_starving();
        assert_eq!(asking(), streams.len());
        // One that went on to wait gets what comes.
        peers[0].write_all(b"here").unwrap();
        let received = poll_fn(|context| streams[0].poll_recv(context, RECEIVED_BYTES_MAX)).await.unwrap();
        assert_eq!(received.as_slice(), b"here");
    });
}

#[test]
fn more_operations_than_have_room_all_end() {
    run(|io| async move {
        let missing = std::env::temp_dir().join("ringtail-ring-none");
        let opens = (0..5 * COMPLETIONS).map(|_| io.disk.open(&missing, OpenOptions::default()));
        for opened in join_all(opens).await {
            assert_eq!(opened.err().unwrap().kind(), ErrorKind::NotFound);
        }
    });
}

#[test]
fn what_is_under_way_at_the_end_goes_with_the_ring() {
    let path = std::env::temp_dir().join(format!("ringtail-ring-end-{}", std::process::id()));
    let file_path = path.clone();
    let (bell, mut client) = run(move |io| async move {
        let bound = BoundAddress::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        bound.open().unwrap();
        let connected = StdStream::connect(bound.address().unwrap()).unwrap();
        let incoming = bound.attach(&io);
        assert!(poll_once(Box::pin(incoming.next())).await.is_none());
        // A file that a write keeps open, which owns the disk, which owns the ring.
        let file = io.disk.open(&file_path, OpenOptions { create: true, durable: true }).await.unwrap();
        let write = Box::pin(file.write(io.disk.allocate(4096).share(), 0));
        assert!(poll_once(write).await.is_none());
        let opening = io.disk.open(&file_path, OpenOptions::default());
        assert!(poll_once(Box::pin(opening)).await.is_none());
        (bell(&io), connected)
    });
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let ended = client.read(&mut [0]);
    assert!(
        ended.as_ref().is_ok_and(|read| *read == 0) || ended.is_err_and(|it| it.kind() == ErrorKind::ConnectionReset)
    );
    assert_eq!(Arc::strong_count(&bell), 1, "the ring is kept by what it keeps");
    std::fs::remove_file(path).unwrap();
}

/// The last close of a file may take long, so the core does none of them.
#[test]
fn a_file_that_is_dropped_is_closed_elsewhere() {
    let directory = std::env::temp_dir().join(format!("ringtail-ring-drop-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let pipes = ["first", "second"].map(|name| directory.join(name));
    assert!(std::process::Command::new("mkfifo").args(&pipes).status().unwrap().success());
    let path = directory.join("file");
    run(move |io| async move {
        let file = io.disk.open(&path, OpenOptions { create: true, durable: true }).await.unwrap();
        let other = io.disk.open(&path, OpenOptions::default()).await.unwrap();
        file.try_lock_exclusive().unwrap();
        // Both threads wait for somebody who writes.
        for pipe in &pipes {
            assert!(poll_once(Box::pin(io.disk.read_file(pipe))).await.is_none());
        }
        drop(file);
        assert_eq!(other.try_lock_exclusive().unwrap_err().kind(), ErrorKind::WouldBlock, "it was closed here");
        for pipe in &pipes {
            std::fs::write(pipe, b"go on").unwrap();
        }
        while other.try_lock_exclusive().is_err() {
            io.clock.sleep(Duration::from_millis(1)).await;
        }
    });
    std::fs::remove_dir_all(directory).unwrap();
}

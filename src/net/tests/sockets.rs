//! Over real sockets on the loopback, from threads.

#[path = "sockets/counted.rs"]
mod counted;

use std::{
    io::{Read, Write},
    net::TcpStream as StdStream,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use super::*;
use crate::{
    io::glommio as backend,
    metrics::{Gauge, Snapshot},
};

fn small_send_buffer() -> StreamOptions {
    StreamOptions { send_buffer_bytes: Some(4096), ..StreamOptions::default() }
}

/// Runs `client` on a thread of its own against an echo; `sweeps` is called over and over meanwhile.
fn with_echo<T: Send + 'static>(
    settings: NetSettings,
    sweeps: impl Fn(&NetCore<Echo>) + Send + 'static,
    client: impl FnOnce(&dyn Fn() -> StdStream) -> T + Send + 'static,
) -> T {
    with_counted_echo(settings, sweeps, client).0
}

/// As [`with_echo`], and what the core counted from its start to its end.
fn with_counted_echo<T: Send + 'static>(
    settings: NetSettings,
    sweeps: impl Fn(&NetCore<Echo>) + Send + 'static,
    client: impl FnOnce(&dyn Fn() -> StdStream) -> T + Send + 'static,
) -> (T, Snapshot) {
    let once = std::sync::Mutex::new(Some((sweeps, client, settings)));
    let executor = backend::start(&[None], 64 << 10, DOOR, |_| {
        let (sweeps, client, settings) = once.lock().unwrap().take().expect("there is one core");
        move |io| async move {
            let endpoint = Endpoint { host: Host::Loopback, port: 0 };
            let listener = BoundListener::bind(&endpoint).unwrap();
            let address = listener.addresses()[0];
            let core = NetCore::new(Echo::default(), settings, &io, |_| unreachable!("there is one core"));
            let limits = ConnectionLimits::new(100, 100, 1);
            let deliver = {
                let core = core.clone();
                move |accepted| core.take(accepted)
            };
            let acceptor = listener.open(&endpoint).unwrap().accept(ListenerKind::Clients, 0, &limits, &io, deliver);
            let client = thread::spawn(move || {
                client(&move || {
                    let stream = StdStream::connect(address).unwrap();
                    // So that a broken broker fails the test instead of hanging it.
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    stream
                })
            });
            while !client.is_finished() {
                sweeps(&core);
                io.clock.sleep(Duration::from_millis(2)).await;
            }
            acceptor.stop().await;
            assert_eq!(io.metrics.snapshot().gauge(Gauge::Connections), core.open() as u64);
            core.drain();
            while core.open() > 0 {
                core.close();
                io.clock.sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(limits.open(), 0, "every connection gives its ticket back");
            (client.join(), io.metrics.snapshot())
        }
    });
    match executor.unwrap().join().remove(0).unwrap() {
        (Ok(result), counted) => (result, counted),
        (Err(panic), _) => std::panic::resume_unwind(panic),
    }
}

fn send(stream: &mut StdStream, body: &[u8]) {
    stream.write_all(&[&(body.len() as i32).to_be_bytes()[..], body].concat()).unwrap();
}

fn receive(stream: &mut StdStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut body = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    body
}

/// What a closed connection reads as, whether its end is orderly or not.
fn is_ended(stream: &mut StdStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn replies_come_in_request_order() {
    with_echo(
        settings(),
        |_| {},
        |connect| {
            let mut client = connect();
            // The first waits for the third; none is answered before its predecessors.
            for body in [&b"w-first "[..], b"p-second", b"r-third "] {
                send(&mut client, body);
            }
            for body in [&b"w-first "[..], b"p-second", b"r-third "] {
                assert_eq!(receive(&mut client), body);
            }
        },
    );
}

#[test]
fn what_does_not_pipeline_waits_for_its_predecessors() {
    with_echo(
        settings(),
        |_| {},
        |connect| {
            let (mut client, mut other) = (connect(), connect());
            // In one write, so that both are there when the first is begun.
            let both = [&8_i32.to_be_bytes()[..], b"w-parked", &8_i32.to_be_bytes(), b"e-behind"].concat();
            client.write_all(&both).unwrap();
            let mut begun = || {
                send(&mut other, b"l-------");
                let mut begun = [0; 4];
                other.read_exact(&mut begun).unwrap();
                u32::from_be_bytes(begun)
            };
            while begun() == 0 {}
            for _ in 0..20 {
                assert_eq!(begun(), 1, "the one behind waits");
            }
            send(&mut other, b"r-------");
            assert_eq!(receive(&mut other), b"r-------");
            assert_eq!(receive(&mut client), b"w-parked");
            assert_eq!(receive(&mut client), b"e-behind");
        },
    );
}

#[test]
fn a_muted_client_has_its_answer_at_once_and_the_next_one_later() {
    with_echo(
        settings(),
        |_| {},
        |connect| {
            let mut client = connect();
            let began = std::time::Instant::now();
            send(&mut client, b"m-------");
            assert_eq!(receive(&mut client), b"m-------");
            let answered = began.elapsed();
            send(&mut client, b"e-------");
            assert_eq!(receive(&mut client), b"e-------");
            assert!(began.elapsed() >= MUTE, "{:?}", began.elapsed());
            assert!(answered < MUTE, "{answered:?}");
        },
    );
}

#[test]
fn large_frames_and_small_ones_come_back_identical() {
    with_echo(
        settings(),
        |_| {},
        |connect| {
            let mut client = connect();
            let mut writer = client.try_clone().unwrap();
            let bodies: Vec<Vec<u8>> = [8, 20_000, 5 << 20, 9, 16_380, 16_381, 300_000]
                .iter()
                .map(|length| {
                    (0..*length).map(|at: usize| if at == 0 { b'p' } else { ((at * 13) >> 2) as u8 }).collect()
                })
                .collect();
            let sent = bodies.clone();
            let sender = thread::spawn(move || sent.iter().for_each(|body| send(&mut writer, body)));
            for body in &bodies {
                assert!(receive(&mut client) == *body, "a frame of {} bytes differs", body.len());
            }
            sender.join().unwrap();
        },
    );
}

#[test]
fn a_thousand_pieces_through_a_tiny_buffer_arrive_identical() {
    let tiny = NetSettings { stream: small_send_buffer(), ..settings() };
    with_echo(
        tiny,
        |_| {},
        |connect| {
            let mut client = connect();
            send(&mut client, b"b-------");
            let expected: Vec<u8> = big_reply().iter().flat_map(|piece| piece.to_vec()).collect();
            let mut seen = vec![0; expected.len()];
            // Reads of odd sizes, so that the socket is full most of the time.
            for chunk in seen.chunks_mut(10_007) {
                client.read_exact(chunk).unwrap();
            }
            assert!(seen == expected);
        },
    );
}

#[test]
fn no_reply_is_sent_for_a_request_that_has_none_and_closing_closes() {
    with_echo(
        settings(),
        |_| {},
        |connect| {
            let mut client = connect();
            send(&mut client, b"n-------");
            send(&mut client, b"e-------");
            assert_eq!(receive(&mut client), b"e-------");
            send(&mut client, b"x-------");
            assert!(is_ended(&mut client));
        },
    );
}

#[test]
fn a_half_closed_client_still_gets_its_replies() {
    with_echo(
        settings(),
        |_| {},
        |connect| {
            let mut client = connect();
            send(&mut client, b"e-------");
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(receive(&mut client), b"e-------");
            assert!(is_ended(&mut client));
        },
    );
}

#[test]
fn bad_lengths_end_one_connection_and_no_other() {
    with_echo(
        settings(),
        |_| {},
        |connect| {
            let mut good = connect();
            for length in [-1, i32::MIN, 0, 3, (8 << 20) + 1, i32::MAX] {
                let mut bad = connect();
                bad.write_all(&length.to_be_bytes()).unwrap();
                assert!(is_ended(&mut bad), "length {length}");
                send(&mut good, b"e-still-here");
                assert_eq!(receive(&mut good), b"e-still-here");
            }
        },
    );
}

#[test]
fn stalled_announcers_cost_the_others_nothing() {
    let sweeps = std::cell::Cell::new(0);
    // Sweeps run as fast as they can here; the stalled must go, the waiting must not.
    let sweep = move |core: &NetCore<Echo>| {
        sweeps.set(sweeps.get() + 1);
        core.sweep(Duration::from_millis(sweeps.get()));
    };
    with_echo(settings(), sweep, |connect| {
        let stalled: Vec<StdStream> = (0..90)
            .map(|_| {
                let mut client = connect();
                client.write_all(&(8_i32 << 20).to_be_bytes()).unwrap();
                client.write_all(&vec![1; 100_000]).unwrap();
                client
            })
            .collect();
        let mut client = connect();
        for turn in 0..20 {
            send(&mut client, b"e-small-one");
            assert_eq!(receive(&mut client), b"e-small-one", "turn {turn}");
        }
        // Larger than the lane that the stalled ones fill: gets through because they are closed.
        let body = vec![b'e'; 6 << 20];
        let mut writer = client.try_clone().unwrap();
        let sent = body.clone();
        let sender = thread::spawn(move || send(&mut writer, &sent));
        assert!(receive(&mut client) == body);
        sender.join().unwrap();
        drop(stalled);
    });
}

/// Sweeps once whenever it is asked for, so that what clients do between two sweeps hangs on no clock. Who asks hears how
/// many connections were open before.
fn sweep_when_asked() -> (impl Fn(&NetCore<Echo>) + Send, impl Fn() -> usize + Send + Clone) {
    let (asked, done, open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let (wanted, swept, seen) = (asked.clone(), done.clone(), open.clone());
    let sweep = move |core: &NetCore<Echo>| {
        let number = swept.load(Ordering::Acquire);
        if wanted.load(Ordering::Acquire) > number {
            seen.store(core.open(), Ordering::Release);
            core.sweep(Duration::from_secs(number));
            swept.store(number + 1, Ordering::Release);
        }
    };
    let ask = move || {
        let number = asked.fetch_add(1, Ordering::AcqRel) + 1;
        while done.load(Ordering::Acquire) < number {
            thread::sleep(Duration::from_millis(1));
        }
        open.load(Ordering::Acquire)
    };
    (sweep, ask)
}

/// Whether the answer to `body` comes within a minute of the sweeper's time, in which `meanwhile` is called at each sweep.
fn is_answered(mut client: StdStream, body: Vec<u8>, ask: &impl Fn() -> usize, mut meanwhile: impl FnMut()) -> bool {
    let answered = thread::spawn(move || {
        // Who is closed hears of it while he writes.
        let sent = client.write_all(&[&(body.len() as i32).to_be_bytes()[..], &body].concat());
        let mut seen = vec![0; 4 + body.len()];
        sent.and_then(|()| client.read_exact(&mut seen)).is_ok()
    });
    for _ in 0..60 {
        if answered.is_finished() {
            break;
        }
        meanwhile();
        ask();
    }
    answered.is_finished() && answered.join().unwrap()
}

#[test]
fn requests_that_trickle_go_when_others_have_waited_for_their_memory() {
    let (sweep, ask) = sweep_when_asked();
    with_echo(settings(), sweep, move |connect| {
        // Each announces 8 MiB, sends a part of it at once, and from then on a little more than what counts as silence.
        let mut trickling: Vec<StdStream> = (0..3).map(|_| connect()).collect();
        for client in &mut trickling {
            client.write_all(&(8_i32 << 20).to_be_bytes()).unwrap();
            client.write_all(&vec![1; 3 << 20]).unwrap();
        }
        let trickle = move || {
            for client in &mut trickling {
                // An error is what they deserve.
                let _ = client.write_all(&[1; 8192]);
            }
        };
        assert!(is_answered(connect(), vec![b'e'; 6 << 20], &ask, trickle), "those who trickle keep the memory");
    });
}

#[test]
fn requests_that_trickle_go_on_while_nobody_waits() {
    let (sweep, ask) = sweep_when_asked();
    with_echo(settings(), sweep, move |connect| {
        let mut slow = connect();
        let body = vec![b'e'; 100_000];
        slow.write_all(&(body.len() as i32).to_be_bytes()).unwrap();
        for part in body.chunks(1000) {
            slow.write_all(part).unwrap();
            ask();
        }
        assert!(receive(&mut slow) == body);
    });
}

#[test]
fn requests_that_wait_as_long_as_their_client_likes_go_when_others_have_waited_for_their_memory() {
    for large in [false, true] {
        let (sweep, ask) = sweep_when_asked();
        let settings = NetSettings { small_request_bytes: 12_000, ..settings() };
        with_echo(settings, sweep, move |connect| {
            // One that waits for ever, behind which another waits for its turn; and one whose client does not read. What
            // they hold is nearly all there is.
            let mut parked = connect();
            let mut unread = connect();
            let behind = if large { vec![b'e'; 6 << 20] } else { vec![b'e'; 5_000] };
            let holder = if large { vec![b'k'; 20_000] } else { vec![b'k'; 5_000] };
            send(&mut parked, &holder);
            let mut quiet = parked.try_clone().unwrap();
            let of_parked = behind.clone();
            let first = thread::spawn(move || {
                let _ = quiet.write_all(&[&(of_parked.len() as i32).to_be_bytes()[..], &of_parked].concat());
            });
            for _ in 0..3 {
                send(&mut unread, b"b-------");
            }
            let mut deaf = unread.try_clone().unwrap();
            let of_deaf = behind.clone();
            let second = thread::spawn(move || {
                let _ = deaf.write_all(&[&(of_deaf.len() as i32).to_be_bytes()[..], &of_deaf].concat());
            });
            assert!(is_answered(connect(), behind, &ask, || {}), "they keep the memory (large: {large})");
            for holder in [parked, unread] {
                // Those that were closed have no connection to end.
                let _ = holder.shutdown(std::net::Shutdown::Both);
            }
            first.join().unwrap();
            second.join().unwrap();
        });
    }
}

/// Whether so many bytes come.
fn gets(client: &mut StdStream, bytes: usize) -> bool {
    client.read_exact(&mut vec![0; bytes]).is_ok()
}

#[test]
fn clients_that_do_not_read_are_idle_and_get_all_of_it_when_they_do() {
    let sweeps = std::cell::Cell::new(0);
    let sweep = move |core: &NetCore<Echo>| {
        sweeps.set(sweeps.get() + 1);
        // An hour in a few hundred sweeps.
        core.sweep(Duration::from_secs(10 * sweeps.get()));
    };
    let settings = NetSettings { idle_max: Duration::MAX, ..settings() };
    with_echo(settings, sweep, |connect| {
        let mut deaf: Vec<StdStream> = (0..12)
            .map(|_| {
                let mut client = connect();
                (0..8).for_each(|_| send(&mut client, b"b-------"));
                client
            })
            .collect();
        // In the time of the sweeper that is well beyond half a minute, and all of them are unread together.
        thread::sleep(Duration::from_millis(200));
        for client in &mut deaf {
            assert!(gets(client, 8 * (4 << 20)), "cut off");
        }
    });
}

#[test]
fn silence_ends_idle_connections_and_those_that_do_not_read_alike() {
    let (sweep, ask) = sweep_when_asked();
    let settings = NetSettings { idle_max: Duration::from_secs(20), ..settings() };
    with_echo(settings, sweep, move |connect| {
        let mut deaf = connect();
        for _ in 0..8 {
            send(&mut deaf, b"b-------");
        }
        // The first reply is on its way, and goes as far as the kernel's buffers let it.
        let mut begun = [0];
        deaf.read_exact(&mut begun).unwrap();
        let mut idle = connect();
        send(&mut idle, b"e-------");
        assert_eq!(receive(&mut idle), b"e-------");
        assert!((0..10_000).any(|_| ask() == 0), "somebody is not closed");
        assert!(is_ended(&mut idle));
        // What lies in the kernel's buffers is dropped with the connection.
        assert!(!gets(&mut deaf, 8 * (4 << 20) - begun.len()));
    });
}

#[test]
fn when_the_memory_for_replies_is_used_up_the_largest_holder_goes_and_nobody_else() {
    // Room for the small ones, and not for 4 MiB more.
    let replies = ReplyMemory::new(1, 1 << 20, 6 << 20);
    let settings = NetSettings { replies, idle_max: Duration::MAX, stream: small_send_buffer(), ..settings() };
    let sweeps = std::cell::Cell::new(0);
    let sweep = move |core: &NetCore<Echo>| {
        sweeps.set(sweeps.get() + 1);
        core.sweep(Duration::from_millis(sweeps.get()));
    };
    with_echo(settings, sweep, |connect| {
        // 4 MiB is held for the first; 1 MiB for each of the others, of which all but one fit beside it.
        let mut large = connect();
        send(&mut large, b"b-------");
        let mut small: Vec<StdStream> = (0..3).map(|_| connect()).collect();
        let body = vec![b'e'; 1 << 20];
        thread::sleep(Duration::from_millis(50));
        for client in &mut small {
            send(client, &body);
            thread::sleep(Duration::from_millis(50));
        }
        let mut seen = vec![0; 4 << 20];
        assert!(large.read_exact(&mut seen).is_err(), "it held most");
        for client in &mut small {
            assert!(receive(client) == body, "one that holds little was closed");
        }
    });
}

#[test]
fn the_first_reply_that_is_not_read_counts_and_is_waited_for() {
    let replies = ReplyMemory::new(1, 1 << 20, 1 << 20);
    let settings = NetSettings { replies: replies.clone(), stream: small_send_buffer(), ..settings() };
    let (busy, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (told_busy, told_seen) = (busy.clone(), seen.clone());
    let look = move |core: &NetCore<Echo>| {
        told_busy.store(core.busy(), Ordering::SeqCst);
        told_seen.fetch_add(1, Ordering::SeqCst);
    };
    with_echo(settings, look, move |connect| {
        let mut client = connect();
        let look = || {
            // The second look from here on has begun behind this.
            let before = seen.load(Ordering::SeqCst);
            while seen.load(Ordering::SeqCst) < before + 2 {
                thread::sleep(Duration::from_millis(1));
            }
            (busy.load(Ordering::SeqCst), replies.held())
        };
        // Until one of them finds the buffers in between full, and stays.
        let body = [b'e'; 4000];
        let unread = (1..5000_usize).find(|_| {
            send(&mut client, &body);
            // Time for it to be received and answered.
            (0..10).for_each(|_| _ = look());
            look().0 == 1
        });
        let unread = unread.expect("it is waited for");
        assert!(look().1 >= 2000, "{} bytes are held", look().1);
        for _ in 0..unread {
            assert_eq!(receive(&mut client), body);
        }
        assert!((0..1000).any(|_| look() == (0, 0)), "all of it is read");
    });
}

#[test]
fn a_connection_that_was_quiet_for_long_is_served_as_before() {
    let sweeps = std::cell::Cell::new(0);
    let sweep = move |core: &NetCore<Echo>| {
        sweeps.set(sweeps.get() + 1);
        core.sweep(Duration::from_secs(10 * sweeps.get()));
    };
    let settings = NetSettings { idle_max: Duration::MAX, ..settings() };
    with_echo(settings, sweep, |connect| {
        let mut client = connect();
        for body in [&b"e-one---"[..], &[b'e'; 20_000], b"e-two---", &[b'e'; 16_380]] {
            send(&mut client, body);
            assert!(receive(&mut client) == body);
            // Several sweeps, each of which takes the buffer away.
            thread::sleep(Duration::from_millis(20));
        }
    });
}

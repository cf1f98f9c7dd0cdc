//! A link to a peer of a few lines, in the simulator.

use std::{cell::Cell, future::Future, rc::Rc, time::Duration};

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::*;
use crate::{
    io::{
        Io, Outbox, Stream, join_all,
        sim::{Network, Simulation},
    },
    protocol::frame,
};

const PORT: u16 = 9093;
const PATIENCE: Duration = Duration::from_secs(2);

/// What the peer does with a frame.
type Serve = Rc<dyn Fn(&[u8]) -> Answer>;

enum Answer {
    Bytes(Vec<u8>),
    Silence,
    HangUp,
}

/// The answer to a Heartbeat v0: its number and a code.
fn heartbeat(asked: &[u8], code: i16) -> Answer {
    let id = i32::from_be_bytes(asked[4..8].try_into().expect("a head has one"));
    let answer = HeartbeatResponse::default().with_error_code(code);
    Answer::Bytes(frame::reply(id, 0, &answer).expect("it fits").to_vec())
}

async fn send(stream: &Stream, bytes: Vec<u8>) {
    let mut outbox = Outbox::default();
    outbox.push(vec![bytes.into()]);
    while outbox.unsent_bytes() > 0 {
        if std::future::poll_fn(|context| stream.poll_send(context, &mut outbox)).await.is_err() {
            return;
        }
    }
}

async fn serve(stream: Stream, serve: Serve) {
    let mut received = Vec::new();
    loop {
        match std::future::poll_fn(|context| stream.poll_recv(context, 1)).await {
            Ok(some) if !some.is_empty() => received.extend_from_slice(some.as_slice()),
            Ok(_) | Err(_) => return,
        }
        while let Some(length) = received.first_chunk().copied().map(u32::from_be_bytes) {
            if received.len() < 4 + length as usize {
                break;
            }
            let asked: Vec<u8> = received.drain(..4 + length as usize).skip(4).collect();
            match serve(&asked) {
                Answer::Bytes(bytes) => send(&stream, bytes).await,
                Answer::Silence => {}
                Answer::HangUp => return,
            }
        }
    }
}

/// Runs a body on a node with a link to another one, which serves so.
fn linked<T: 'static, F: Future<Output = T> + 'static>(
    network: Network,
    answer: impl Fn(&[u8]) -> Answer + 'static,
    body: impl FnOnce(Io, Link) -> F + 'static,
) -> T {
    let sim = Simulation::new(1);
    sim.set_network(network);
    let bound = sim.bind(0, PORT).expect("it is free");
    bound.open().expect("it is ours");
    let address = bound.address().expect("it has one");
    let answer: Serve = Rc::new(answer);
    sim.spawn_on(0, 0, |io| async move {
        let incoming = bound.attach(&io);
        loop {
            let stream = incoming.next().await.expect("it comes").attach(&io);
            io.spawner.spawn(serve(stream, answer.clone()));
        }
    });
    sim.block_on(1, 0, move |io| {
        let link = Link::new(&io, "a broker", &address.ip().to_string(), address.port());
        body(io, link)
    })
}

async fn ask(link: &Link) -> Result<i16, LinkError> {
    link.request(&HeartbeatRequest::default(), 0, PATIENCE).await.map(|answer| answer.error_code)
}

#[test]
fn requests_are_answered_in_their_order() {
    let bad = Network { pieces_one_in: 1, slow_one_in: 2, ..Network::default() };
    for network in [Network::default(), bad] {
        let served = Cell::new(0);
        let answer = move |asked: &[u8]| {
            served.set(served.get() + 1);
            heartbeat(asked, served.get())
        };
        let told = linked(network, answer, |_, link| async move { join_all((0..20).map(|_| ask(&link))).await });
        assert_eq!(told, (1..=20).map(Ok).collect::<Vec<_>>());
    }
}

#[test]
fn a_link_that_was_lost_is_opened_anew() {
    let served = Cell::new(0);
    let answer = move |asked: &[u8]| {
        served.set(served.get() + 1);
        if served.get() == 2 { Answer::HangUp } else { heartbeat(asked, served.get()) }
    };
    let told =
        linked(
            Network::default(),
            answer,
            |_, link| async move { [ask(&link).await, ask(&link).await, ask(&link).await] },
        );
    assert_eq!(told, [Ok(1), Err(LinkError::Lost), Ok(3)]);
}

#[test]
fn who_does_not_answer_is_not_waited_for() {
    let served = Cell::new(0);
    let answer = move |asked: &[u8]| {
        served.set(served.get() + 1);
        if served.get() == 1 { Answer::Silence } else { heartbeat(asked, served.get()) }
    };
    let told = linked(Network::default(), answer, |io, link| async move {
        let before = io.clock.now();
        let first = ask(&link).await;
        (first, io.clock.now().since(before), ask(&link).await)
    });
    assert_eq!((told.0, told.2), (Err(LinkError::TimedOut), Ok(2)));
    assert!(told.1 >= PATIENCE && told.1 < PATIENCE * 2, "{:?}", told.1);
}

#[test]
fn what_is_no_answer_ends_the_connection() {
    for bad in [
        // Shorter than a head, longer than may be, of a negative length, of another request, cut off, with something behind.
        b"\0\0\0\x02\0\0".to_vec(),
        b"\x7f\xff\xff\xff\0\0\0\0".to_vec(),
        b"\xff\xff\xff\xff\0\0\0\0".to_vec(),
        b"\0\0\0\x06\0\0\0\x63\0\0".to_vec(),
        b"\0\0\0\x05\0\0\0\0\0".to_vec(),
        b"\0\0\0\x07\0\0\0\0\0\0\0".to_vec(),
    ] {
        let told = linked(
            Network::default(),
            move |_| Answer::Bytes(bad.clone()),
            |_, link| async move { [ask(&link).await, ask(&link).await] },
        );
        assert_eq!(told, [Err(LinkError::Malformed); 2]);
    }
}

#[test]
fn a_long_answer_comes_as_it_was_sent() {
    for length in [0, 10, 16 << 10, (16 << 10) + 1, 3 << 20] {
        let answer = move |_: &[u8]| {
            let mut bytes = (length as u32).to_be_bytes().to_vec();
            bytes.extend((0..length).map(|index: usize| (index % 251) as u8));
            Answer::Bytes(bytes)
        };
        let lengths = linked(Network::default(), answer, |_, link| async move {
            let frame = || bytes::Bytes::from_static(b"\0\0\0\0\0\0\0\0");
            let answers = join_all([link.exchange(frame(), PATIENCE), link.exchange(frame(), PATIENCE)]).await;
            answers.into_iter().map(|answer| answer.map(|bytes| bytes.to_vec())).collect::<Vec<_>>()
        });
        let expected: Vec<u8> = (0..length).map(|index: usize| (index % 251) as u8).collect();
        assert!(lengths == [Ok(expected.clone()), Ok(expected)], "{length} bytes");
    }
}

#[test]
fn nobody_there_is_told_from_no_way_there() {
    let sim = Simulation::new(1);
    let told = sim.block_on(1, 0, |io| async move {
        let refused = Link::new(&io, "a broker", "10.0.0.1", PORT);
        let unknown = Link::new(&io, "a broker", "no.such.host", PORT);
        [ask(&refused).await, ask(&unknown).await]
    });
    assert_eq!(told, [Err(LinkError::Refused), Err(LinkError::Unreachable)]);
}

#[test]
fn there_is_a_bound_on_what_waits() {
    let told = linked(
        Network::default(),
        |_| Answer::Silence,
        |_, link| async move { join_all((0..300).map(|_| ask(&link))).await },
    );
    assert!(told.contains(&Err(LinkError::Busy)), "{told:?}");
}

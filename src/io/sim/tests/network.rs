//! Simulated connections: what all streams do, on good and on bad networks; and what a cut and a kill do.

use std::{future::poll_fn, io, time::Duration};

use super::*;
use crate::io::{
    Outbox, Stream,
    sim::{Network, Simulation},
    stream::conformance,
};

const PORT: u16 = 9092;

/// Both ends of a connection between two nodes, on the first one's core.
fn with_connection<F: Future<Output = ()> + 'static>(
    seed: u64,
    network: Network,
    body: impl FnOnce(Io, Stream, Stream) -> F + 'static,
) {
    let sim = Simulation::new(seed);
    sim.set_network(network);
    let bound = sim.bind(0, PORT).expect("it is free");
    bound.open().expect("it is ours");
    let address = bound.address().expect("it has one");
    let here = sim.connect(1, address);
    sim.block_on(0, 0, |io| async move {
        let here = here.await.expect("somebody listens");
        let there = bound.attach(&io).next().await.expect("it comes").attach(&io);
        body(io, here, there).await;
    });
}

fn bad() -> Network {
    Network { pieces_one_in: 2, slow_one_in: 2, ..Network::default() }
}

#[test]
fn simulated_connections_do_what_every_stream_does() {
    for seed in 0..24 {
        for network in [Network::default(), bad()] {
            let with = |body| with_connection(seed, network.clone(), body);
            type Body = fn(Io, Stream, Stream) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;
            let bodies: [Body; 5] = [
                |_, here, there| Box::pin(conformance::all_of_it_arrives(here, there)),
                |_, here, there| Box::pin(conformance::a_receiver_that_rests_misses_nothing(here, there)),
                |_, here, there| Box::pin(conformance::both_directions_end_as_they_are_told(here, there)),
                |io, here, there| Box::pin(conformance::what_is_not_taken_is_told(io, here, there)),
                |io, here, there| Box::pin(conformance::a_detached_stream_goes_on(io, here, there)),
            ];
            bodies.into_iter().for_each(with);
        }
    }
    with_connection(1, Network::default(), |_, here, there| {
        conformance::who_does_not_read_makes_the_sender_wait(here, there)
    });
}

async fn send(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut outbox = Outbox::default();
    outbox.push(vec![bytes.to_vec().into()]);
    while outbox.unsent_bytes() > 0 {
        poll_fn(|context| stream.poll_send(context, &mut outbox)).await?;
    }
    Ok(())
}

/// What comes until the end, and whether that was an orderly one.
async fn receive_all(stream: &Stream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match poll_fn(|context| stream.poll_recv(context, 1)).await {
            Ok(received) if received.is_empty() => return (all, true),
            Ok(received) => all.extend_from_slice(received.as_slice()),
            Err(_) => return (all, false),
        }
    }
}

#[test]
fn a_cut_comes_at_any_byte_and_ends_both_ways() {
    let mut lengths = std::collections::BTreeSet::new();
    let mut orderly = 0;
    for seed in 0..60 {
        let network = Network { cut_one_in: 1, cut_bytes_max: 100, ..bad() };
        let sim = Simulation::new(seed);
        sim.set_network(network);
        let bound = sim.bind(0, PORT).expect("it is free");
        bound.open().expect("it is ours");
        let here = sim.connect(1, bound.address().expect("it has one"));
        let (length, end) = sim.block_on(0, 0, |io| async move {
            let here = here.await.expect("somebody listens");
            let there = bound.attach(&io).next().await.expect("it comes").attach(&io);
            let sent: Vec<u8> = (0..200).collect();
            // Which way is cut is the seed's; whoever sends on hears of it.
            let echo = async {
                let (mut all, mut orderly) = (Vec::new(), None);
                while orderly.is_none() {
                    match poll_fn(|context| there.poll_recv(context, 1)).await {
                        Ok(received) if received.is_empty() => orderly = Some(true),
                        Ok(received) => {
                            all.extend_from_slice(received.as_slice());
                            // Whoever cannot send hears of it, and may have received more.
                            let _cut = send(&there, received.as_slice()).await;
                        }
                        Err(_) => orderly = Some(false),
                    }
                }
                drop(there);
                (all, orderly == Some(true))
            };
            let sending = async {
                while send(&here, &sent[..20]).await.is_ok() {
                    io.clock.sleep(Duration::from_micros(50)).await;
                }
                receive_all(&here).await
            };
            let (there, here) = futures_lite::future::zip(echo, sending).await;
            (there.0.len().min(here.0.len()), there.1)
        });
        assert!(length <= 100, "seed {seed}: {length} bytes");
        lengths.insert(length);
        orderly += usize::from(end);
    }
    assert!(lengths.len() > 20, "{lengths:?}");
    assert!((5..55).contains(&orderly), "{orderly} of 60 look as if they had been closed");
}

#[test]
fn whoever_is_killed_closes_what_he_had_and_his_address() {
    let sim = Simulation::new(3);
    let bound = sim.bind(0, PORT).expect("it is free");
    let address = bound.address().expect("it has one");
    assert!(sim.bind(0, PORT).is_err(), "it is taken");
    let refused = sim.connect(1, address);
    assert!(sim.block_on(1, 0, |_| refused).is_err(), "it is not open");
    bound.open().expect("it is ours");
    sim.spawn_on(0, 0, |io| async move {
        let incoming = bound.attach(&io);
        let accepted = incoming.next().await.expect("it comes").attach(&io);
        std::future::pending::<()>().await;
        drop((incoming, accepted));
    });
    let connected = [sim.connect(1, address), sim.connect(1, address)];
    let killer = sim.clone();
    let ends = sim.block_on(1, 0, |io| async move {
        let [accepted, waiting] = connected;
        let (accepted, waiting) = (accepted.await.expect("open"), waiting.await.expect("open"));
        io.clock.sleep(Duration::from_millis(1)).await;
        killer.kill(0);
        let ends = [receive_all(&accepted).await, receive_all(&waiting).await];
        (ends, killer.connect(1, address).await.is_err())
    });
    assert_eq!(ends, ([(vec![], true), (vec![], false)], true));
    sim.bind(0, PORT).expect("it is free again");
}

//! Over the simulated network: bytes that come late, in any pieces, or not at all.

use std::{cell::Cell, future::poll_fn, io, sync::Arc};

use super::{core::SWEEP_PERIOD, *};
use crate::{
    io::{
        Outbox, Stream,
        sim::{Network, Simulation},
    },
    net::accept::OpenListener,
};

const BROKER: usize = 0;
const CLIENTS: usize = 1;

/// An echo on a node of its own.
struct World {
    sim: Simulation,
    core: Rc<NetCore<Echo>>,
    limits: Arc<ConnectionLimits>,
    address: std::net::SocketAddr,
    /// The sweeper's time.
    swept: Cell<Duration>,
}

impl World {
    fn new(seed: u64, network: Network, settings: NetSettings) -> Self {
        let sim = Simulation::new(seed);
        sim.set_network(network);
        let io = sim.io(BROKER, 0);
        let core = NetCore::new(Echo::default(), settings, &io, |_| unreachable!("there is one core"));
        let limits = ConnectionLimits::new(100, 100, 1);
        let bound = sim.bind(BROKER, 9092).expect("it is free");
        let address = bound.address().expect("it has one");
        let (serving, taken) = (limits.clone(), core.clone());
        sim.spawn_on(BROKER, 0, |io| async move {
            let open = OpenListener::open(vec![bound]).expect("it is ours");
            let _accepting = open.accept(ListenerKind::Clients, 0, &serving, &io, move |accepted| taken.take(accepted));
            std::future::pending::<()>().await;
        });
        sim.run_for(Duration::from_millis(1));
        Self { sim, core, limits, address, swept: Cell::default() }
    }

    fn connect(&self) -> Rc<Client> {
        let stream = self.sim.connect(CLIENTS, self.address);
        self.wait(async { Rc::new(Client(stream.await.expect("it is open"))) })
    }

    /// Runs until the client's future is done.
    fn wait<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.sim.block_on(CLIENTS, 0, |_| future)
    }

    /// So many seconds go by, and as many looks of the sweeper.
    fn sweep(&self, seconds: u64) {
        for _ in 0..seconds {
            self.sim.run_for(SWEEP_PERIOD);
            self.swept.set(self.swept.get() + SWEEP_PERIOD);
            self.core.sweep(self.swept.get());
        }
    }

    /// Nobody is connected any more, and every ticket is back.
    fn is_quiet(&self) -> bool {
        self.sim.run_for(Duration::from_secs(1));
        self.core.open() == 0 && self.limits.open() == 0
    }
}

struct Client(Stream);

impl Client {
    async fn send_raw(&self, bytes: Vec<u8>) -> io::Result<()> {
        let mut outbox = Outbox::default();
        outbox.push(vec![bytes.into()]);
        while outbox.unsent_bytes() > 0 {
            poll_fn(|context| self.0.poll_send(context, &mut outbox)).await?;
        }
        Ok(())
    }

    async fn send(&self, body: &[u8]) -> io::Result<()> {
        self.send_raw(framed(body)).await
    }

    /// So many bytes of what comes; fewer if that ends.
    async fn receive(&self, bytes: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(bytes);
        while all.len() < bytes {
            match poll_fn(|context| self.0.poll_recv_into(context, &mut all, bytes)).await {
                Ok(received) if received > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
        all
    }

    async fn is_ended(&self) -> bool {
        self.receive(1).await.is_empty()
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes()[..], body].concat()
}

/// A good network, and one on which everything is slow and in pieces.
fn networks() -> [Network; 2] {
    [Network::default(), Network { pieces_one_in: 1, slow_one_in: 3, ..Network::default() }]
}

fn on_all_networks(run: impl Fn(u64, Network)) {
    for seed in 0..8 {
        networks().into_iter().for_each(|network| run(seed, network));
    }
}

#[test]
fn half_a_frame_and_then_silence_is_idle() {
    on_all_networks(|seed, network| {
        let settings = NetSettings { idle_max: Duration::from_secs(20), ..settings() };
        let world = World::new(seed, network, settings);
        let whole = framed(b"e-half-of-this");
        // Up to nothing of it, within its length, behind that, and one byte short of it; and of one that is large.
        let mut starts: Vec<Vec<u8>> = [0, 2, 4, 9, whole.len() - 1].map(|length| whole[..length].to_vec()).into();
        starts.push([&1_000_000_i32.to_be_bytes()[..], &[b'e'; 30_000]].concat());
        let clients: Vec<_> = starts.iter().map(|_| world.connect()).collect();
        for (client, start) in clients.iter().zip(starts) {
            let client = client.clone();
            world.wait(async move { client.send_raw(start).await }).expect("sent");
        }
        world.sweep(19);
        assert_eq!(world.core.open(), clients.len(), "seed {seed}");
        world.sweep(3);
        for client in &clients {
            let client = client.clone();
            assert!(world.wait(async move { client.is_ended().await }), "seed {seed}");
        }
        assert!(world.is_quiet(), "seed {seed}");
    });
}

#[test]
fn whoever_does_not_read_keeps_nothing_from_others() {
    on_all_networks(|seed, network| {
        let world = World::new(seed, Network { slow_one_in: 0, ..network }, settings());
        let (deaf, other) = (world.connect(), world.connect());
        let sender = deaf.clone();
        world.wait(async move { sender.send(b"b-------").await }).expect("sent");
        world.sim.run_for(Duration::from_secs(1));
        assert_eq!(world.core.busy(), 1, "seed {seed}: what the other one reads is on its way");
        let asker = other.clone();
        let answered = world.wait(async move {
            for turn in 0..50_u8 {
                let body = [b'e', turn, 0, 0, 0, 0, 0, turn];
                asker.send(&body).await.expect("sent");
                assert_eq!(asker.receive(12).await, framed(&body));
            }
            true
        });
        assert!(answered && world.core.busy() == 1, "seed {seed}");
        // It is all there when it is asked for, whatever pieces it was sent in.
        let whole: Vec<u8> = big_reply().iter().flat_map(|piece| piece.to_vec()).collect();
        let reader = deaf.clone();
        let received = world.wait(async move { reader.receive(4 << 20).await });
        assert!(received == whole, "seed {seed}");
        drop((deaf, other));
        assert!(world.is_quiet(), "seed {seed}");
    });
}

#[test]
fn a_body_that_is_cut_gives_its_memory_back() {
    on_all_networks(|seed, network| {
        let world = World::new(seed, Network { slow_one_in: 0, ..network }, settings());
        for _ in 0..10 {
            // More than half of what all large requests may have together.
            let client = world.connect();
            let start = [&(8_i32 << 20).to_be_bytes()[..], &vec![b'e'; 4 << 20]].concat();
            world.wait(async move { client.send_raw(start).await }).expect("sent");
        }
        assert!(world.is_quiet(), "seed {seed}: a cut connection is still there");
        let client = world.connect();
        let body = vec![b'e'; 8 << 20];
        let (sender, sent) = (client.clone(), body.clone());
        world.sim.spawn_on(CLIENTS, 0, |_| async move { sender.send(&sent).await.expect("sent") });
        let reader = client.clone();
        let received = world.wait(async move { reader.receive(4 + (8 << 20)).await });
        assert!(received == framed(&body), "seed {seed}");
    });
}

#[test]
fn requests_that_come_together_are_answered_in_their_order() {
    on_all_networks(|seed, network| {
        let world = World::new(seed, network, settings());
        let client = world.connect();
        // Some pipeline, one waits for one behind it; one fills a buffer's end, one is large.
        let bodies =
            [&b"w-first "[..], b"p-second", b"r-third ", b"e-fourth", &[b'e'; 16_000], &[b'e'; 40_000], b"p-last  "];
        let together: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        let sender = client.clone();
        let sent = together.clone();
        world.sim.spawn_on(CLIENTS, 0, |_| async move { sender.send_raw(sent).await.expect("sent") });
        let reader = client.clone();
        let received = world.wait(async move { reader.receive(together.len()).await });
        let expected: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        assert!(received == expected, "seed {seed}");
    });
}

#[test]
fn a_reply_goes_out_in_pieces_while_its_client_reads_slowly() {
    on_all_networks(|seed, network| {
        let world = World::new(seed, Network { buffer_bytes: 3000, slow_one_in: 0, ..network }, settings());
        let client = world.connect();
        let whole: Vec<u8> = big_reply().iter().flat_map(|piece| piece.to_vec()).collect();
        let reader = client.clone();
        let received = world.sim.block_on(CLIENTS, 0, |io| async move {
            reader.send(b"b-------").await.expect("sent");
            let mut all = Vec::new();
            while all.len() < 200_000 {
                all.extend(reader.receive(2000).await);
                io.clock.sleep(Duration::from_micros(200)).await;
            }
            all
        });
        assert!(whole.starts_with(&received), "seed {seed}");
        assert_eq!(world.core.busy(), 1, "seed {seed}: the rest is not sent");
        // It goes with its connection.
        drop(client);
        assert!(world.is_quiet(), "seed {seed}");
    });
}

#[test]
fn whatever_byte_a_connection_is_cut_at_nothing_of_it_stays() {
    for seed in 0..100 {
        let network = Network { pieces_one_in: 2, cut_one_in: 1, cut_bytes_max: 40_000, ..Network::default() };
        let world = World::new(seed, network, settings());
        for _ in 0..3 {
            let client = world.connect();
            world.wait(async move {
                for body in [&b"e-small--"[..], &[b'p'; 15_000], &[b'e'; 30_000], b"k-for-ever"] {
                    if client.send(body).await.is_err() || client.receive(4 + body.len()).await != framed(body) {
                        return;
                    }
                }
                panic!("a connection that was to be cut is not");
            });
        }
        assert!(world.is_quiet(), "seed {seed}");
    }
}

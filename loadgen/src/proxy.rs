//! A proxy that delays replies by a known amount: the gate's own error rates are measured with it. Both arms of a
//! calibration go through one, so that the proxy itself is no shift.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{rng::Rng, sys};

const BUFFER_BYTES: usize = 256 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);
/// Shorter delays are spun away: a sleep would overshoot them.
const SPIN_BELOW_NS: u64 = 60_000;
const SPIN_LAST_NS: u64 = 50_000;

/// What is added to replies.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, serde::Serialize)]
pub struct Delays {
    /// To every reply.
    pub uniform_ns: u64,
    /// To one reply in `tail_every`; 0 for none.
    pub tail_every: u64,
    pub tail_ns: u64,
    pub seed: u64,
}

/// A running proxy in front of one broker; it ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(upstream: &str, delays: Delays) -> io::Result<Self> {
        let upstream = upstream.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => {
                        number += 1;
                        // A connection that cannot be carried is closed; the client tries again.
                        let _ = carry(client, &upstream, delays, number);
                    }
                    Err(_) => std::thread::sleep(ACCEPT_PAUSE),
                }
            }
        };
        let thread = std::thread::Builder::new().name("proxy".to_owned()).spawn(body)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Nothing depends on how it ended.
            let _ = thread.join();
        }
    }
}

/// One thread a direction; they end with the connection.
fn carry(client: TcpStream, upstream: &str, delays: Delays, number: u64) -> io::Result<()> {
    let broker = TcpStream::connect(upstream)?;
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_client, to_client) = (client.try_clone()?, client);
    let (from_broker, to_broker) = (broker.try_clone()?, broker);
    let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
    spawn("proxy-up").spawn(move || copy(from_client, to_broker, |_| 0))?;
    let mut rng = Rng::new(delays.seed, number);
    let delay = move |_| {
        let tail = delays.tail_every > 0 && rng.below(delays.tail_every) == 0;
        delays.uniform_ns + if tail { delays.tail_ns } else { 0 }
    };
    spawn("proxy-down").spawn(move || copy(from_broker, to_client, delay))?;
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut delay: impl FnMut(usize) -> u64) {
    sys::tighten_timers();
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        wait(delay(count));
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // The other direction ends too; it may have ended already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn wait(delay_ns: u64) {
    let until = sys::monotonic_ns() + delay_ns;
    if delay_ns > SPIN_BELOW_NS {
        std::thread::sleep(Duration::from_nanos(delay_ns - SPIN_LAST_NS));
    }
    while delay_ns > 0 && sys::monotonic_ns() < until {
        std::hint::spin_loop();
    }
}

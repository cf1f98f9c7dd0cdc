//! A blocking connection for what is not measured: metadata, topics, producer ids, groups.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use bytes::Buf;

use crate::{
    client::{
        error::ClientError,
        throttle::Throttled,
        versions::Versions,
        wire::{Wire, WireError, decode_body},
    },
    sys,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 << 10;

/// One connection that waits for each reply.
pub struct Link {
    address: String,
    stream: TcpStream,
    wire: Wire<()>,
    timeout: Duration,
    /// The broker wants silence until then.
    silent_until: Instant,
}

/// All addresses of `host:port`; the error says what is wrong with it.
pub fn resolve(address: &str) -> Result<Vec<SocketAddr>, ClientError> {
    let unreachable = |error| ClientError::Unreachable { address: address.to_owned(), error };
    let found: Vec<SocketAddr> = address.to_socket_addrs().map_err(unreachable)?.collect();
    if found.is_empty() {
        let error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(unreachable(error));
    }
    Ok(found)
}

impl Link {
    /// Connects and does the handshake. `timeout` bounds each later call.
    pub fn connect(address: &str, client_id: &str, timeout: Duration) -> Result<Self, ClientError> {
        let stream = connect_any(address)?;
        let now = Instant::now();
        let wire = Wire::new(client_id);
        let mut link = Self { address: address.to_owned(), stream, wire, timeout, silent_until: now };
        let deadline = now + CONNECT_TIMEOUT;
        link.flush(deadline, "the handshake")?;
        while link.wire.versions().is_none() {
            link.receive(deadline, "the handshake")?;
            if link.next_reply()?.is_some() {
                return Err(link.garbled("a reply before the handshake"));
            }
            link.flush(deadline, "the handshake")?;
        }
        let asked = link.versions().throttle_time_ms;
        link.silent_until = Instant::now() + Duration::from_millis(asked as u64);
        Ok(link)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn versions(&self) -> &Versions {
        self.wire.versions().expect("connect returns after the handshake")
    }

    /// Sends the request at the newest version in common and waits for its reply, after any silence that was asked for.
    pub fn call<R: Throttled>(&mut self, what: &'static str, request: &R) -> Result<R::Response, ClientError> {
        let version = self.versions().pick::<R>()?;
        self.call_at(what, version, request)
    }

    pub fn call_at<R: Throttled>(
        &mut self,
        what: &'static str,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        self.keep_silence(what)?;
        self.wire.send((), version, request, true).map_err(ClientError::Unencodable)?;
        let deadline = Instant::now() + self.timeout;
        self.flush(deadline, what)?;
        loop {
            if let Some(body) = self.next_reply()? {
                let response = decode_body::<R>(&body, version).map_err(|error| self.garbled(&error.to_string()))?;
                self.silent_until = Instant::now() + R::silence(version, &response);
                return Ok(response);
            }
            self.receive(deadline, what)?;
        }
    }

    /// Waits for the end of the silence, unless it is longer than a call may take.
    fn keep_silence(&self, during: &'static str) -> Result<(), ClientError> {
        let silence = self.silent_until.saturating_duration_since(Instant::now());
        if silence > self.timeout {
            return Err(ClientError::Throttled { address: self.address.clone(), during, silence });
        }
        std::thread::sleep(silence);
        Ok(())
    }

    /// Replaces the bound on each call; a JoinGroup waits for the whole rebalance.
    pub fn wait_at_most(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    fn next_reply(&mut self) -> Result<Option<bytes::Bytes>, ClientError> {
        match self.wire.next_reply() {
            Ok(reply) => Ok(reply.map(|reply| reply.body)),
            Err(WireError::NotKafka(hint)) => Err(ClientError::NotKafka { address: self.address.clone(), hint }),
            Err(error) => Err(self.garbled(&error.to_string())),
        }
    }

    fn garbled(&self, detail: &str) -> ClientError {
        ClientError::Garbled { address: self.address.clone(), detail: detail.to_owned() }
    }

    fn flush(&mut self, deadline: Instant, during: &'static str) -> Result<(), ClientError> {
        while !self.wire.output.is_empty() {
            self.arm(deadline, during)?;
            match self.stream.write(&self.wire.output) {
                Ok(count) => self.wire.output.advance(count),
                Err(error) => self.translate(error, during)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant, during: &'static str) -> Result<(), ClientError> {
        self.arm(deadline, during)?;
        let room = self.wire.input_room(READ_BYTES);
        match sys::receive(&self.stream, room) {
            Ok(0) => Err(ClientError::Closed { address: self.address.clone(), during }),
            Ok(_) => Ok(()),
            Err(error) => self.translate(error, during),
        }
    }

    fn arm(&self, deadline: Instant, during: &'static str) -> Result<(), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timed_out = || ClientError::TimedOut { address: self.address.clone(), during };
        if left.is_zero() {
            return Err(timed_out());
        }
        let armed = self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.set_write_timeout(Some(left)));
        armed.map_err(|_| timed_out())
    }

    fn translate(&self, error: io::Error, during: &'static str) -> Result<(), ClientError> {
        let address = self.address.clone();
        match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(ClientError::TimedOut { address, during }),
            _ => Err(ClientError::Closed { address, during }),
        }
    }
}

fn connect_any(address: &str) -> Result<TcpStream, ClientError> {
    let mut last = None;
    for candidate in resolve(address)? {
        match TcpStream::connect_timeout(&candidate, CONNECT_TIMEOUT) {
            Ok(stream) => {
                // Without it small requests wait for the peer's delayed acknowledgement; it cannot fail on a connected socket.
                if let Err(error) = stream.set_nodelay(true) {
                    last = Some(error);
                    continue;
                }
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    Err(ClientError::Unreachable {
        address: address.to_owned(),
        error: last.unwrap_or_else(|| io::ErrorKind::NotFound.into()),
    })
}

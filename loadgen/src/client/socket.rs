//! A `Wire` on a non-blocking TCP socket in somebody's epoll.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
};

use bytes::{Buf, BytesMut};

use crate::{
    client::wire::Wire,
    sys::{self, Epoll, Interest},
};

const READ_BYTES: usize = 64 << 10;
/// Reads of one connection before others get their turn.
const READS_MAX: usize = 16;
/// Output buffers above this are given back after they are written.
const OUTPUT_KEPT_BYTES: usize = 4 << 20;

/// One connection. The token is its name in the epoll.
pub struct Socket<T> {
    pub wire: Wire<T>,
    stream: TcpStream,
    token: u64,
    connected: bool,
    waits_for_write: bool,
}

impl<T> Socket<T> {
    /// Starts to connect; requests may be queued at once, they leave after the handshake.
    pub fn connect(address: SocketAddr, client_id: &str, token: u64, epoll: &Epoll) -> io::Result<Self> {
        let stream = sys::connect_start(address)?;
        epoll.add(&stream, token, Interest::ReadWrite)?;
        Ok(Self { wire: Wire::new(client_id), stream, token, connected: false, waits_for_write: true })
    }

    /// Sends what is queued, as far as the socket takes it.
    pub fn flush(&mut self, epoll: &Epoll) -> io::Result<()> {
        if !self.connected {
            return Ok(());
        }
        while !self.wire.output.is_empty() {
            match self.stream.write(&self.wire.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.wire.output.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.watch_writes(epoll, true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.wire.output.capacity() > OUTPUT_KEPT_BYTES {
            self.wire.output = BytesMut::new();
        }
        self.watch_writes(epoll, false)
    }

    /// The socket can be written: either the connect has ended or there is room again.
    pub fn on_writable(&mut self, epoll: &Epoll) -> io::Result<()> {
        if !self.connected {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            self.connected = true;
        }
        self.flush(epoll)
    }

    /// Reads what has arrived, a bounded amount; replies are then taken from `wire`.
    /// # Errors  `UnexpectedEof` when the peer has closed.
    pub fn on_readable(&mut self) -> io::Result<()> {
        for _ in 0..READS_MAX {
            let room = self.wire.input_room(READ_BYTES);
            let wanted = room.capacity() - room.len();
            match sys::receive(&self.stream, room) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) if count < wanted => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn watch_writes(&mut self, epoll: &Epoll, wanted: bool) -> io::Result<()> {
        if self.waits_for_write != wanted {
            let interest = if wanted { Interest::ReadWrite } else { Interest::Read };
            epoll.modify(&self.stream, self.token, interest)?;
            self.waits_for_write = wanted;
        }
        Ok(())
    }
}

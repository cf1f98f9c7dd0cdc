//! `ringtail-bare`: the least that a durable produce can cost on a machine. One thread, one ring: receives, checks each batch's
//! CRC-32C, copies it twice (into memory for readers and into a block), writes one block for all that came meanwhile, answers.
//! No partitions, no rules, no recovery: a floor to measure brokers against, not a broker. All but Produce is answered by the null
//! broker of `ringtail-loadgen`, which therefore drives this, Ringtail and Kafka alike.

mod frames;
mod ring;

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt,
};

use bytes::{Bytes, BytesMut};
use ringtail_loadgen::null_broker::{Desk, Manners};

use crate::{
    frames::{Produce, is_produce},
    ring::{Block, Event, PAGE_BYTES, Ring},
};

const USAGE: &str = "ringtail-bare PORT JOURNAL [flush|write]: the journal is made anew; flush writes with O_DSYNC";
/// Written in a circle, over blocks that the file system has already given.
const JOURNAL_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 4 << 20;
/// A block begins with the CRC-32C of what follows.
const BLOCK_HEAD_BYTES: usize = 64;
const TAIL_BYTES: usize = 4 << 20;
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Who leaves more answers unread is refused.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (port, path, sync) = match words[..] {
        [port, path] | [port, path, "flush"] => (port, path, libc::O_DSYNC),
        [port, path, "write"] => (port, path, 0),
        _ => return Err(io::Error::other(USAGE)),
    };
    let port: u16 = port.parse().map_err(|_| io::Error::other(USAGE))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let desk = Desk::new(listener.local_addr()?, Manners::default());
    let ring = Ring::start(listener, journal(path, sync)?)?;
    Bare::new(desk).serve(ring)
}

fn journal(path: &str, sync: i32) -> io::Result<File> {
    fs::write(path, vec![0; JOURNAL_BYTES])?;
    File::open(path)?.sync_all()?;
    OpenOptions::new().write(true).custom_flags(libc::O_DIRECT | sync).open(path)
}

/// What has arrived and what is to leave on a connection.
#[derive(Default)]
struct Peer {
    /// The beginning of a request whose rest is to come.
    input: Vec<u8>,
    output: Vec<u8>,
}

struct Bare {
    desk: Desk,
    peers: HashMap<u64, Peer>,
    /// Connections with something to send.
    ready: Vec<u64>,
    /// Connections that sent what is not a request.
    refused: Vec<u64>,
    tail: Box<[u8]>,
    tail_at: usize,
    filling: Block,
    filled: usize,
    /// The block that is not written at the moment.
    spare: Option<Block>,
    position: usize,
    next_offset: i64,
    /// Answers of the block that fills, and of the one that is written.
    waiting: Vec<(u64, Vec<u8>)>,
    in_flight: Vec<(u64, Vec<u8>)>,
}

impl Bare {
    fn new(desk: Desk) -> Self {
        Self {
            desk,
            peers: HashMap::new(),
            ready: Vec::new(),
            refused: Vec::new(),
            tail: vec![0; TAIL_BYTES].into_boxed_slice(),
            tail_at: 0,
            filling: Block::new(BLOCK_BYTES),
            filled: BLOCK_HEAD_BYTES,
            spare: Some(Block::new(BLOCK_BYTES)),
            position: 0,
            next_offset: 0,
            waiting: Vec::new(),
            in_flight: Vec::new(),
        }
    }

    fn serve(mut self, ring: &mut Ring) -> io::Result<()> {
        loop {
            ring.turn(|event| self.on_event(event))?;
            // Answers first, then the next block: both leave with the next turn's system call.
            for connection in std::mem::take(&mut self.ready) {
                if let Some(peer) = self.peers.get_mut(&connection)
                    && !peer.output.is_empty()
                    && ring.is_free(connection)
                {
                    ring.send(connection, std::mem::take(&mut peer.output))?;
                }
            }
            for connection in self.refused.drain(..) {
                eprintln!("connection {connection} sent something else than a request that is known here");
                ring.close(connection);
            }
            if ring.is_disk_free() && !self.waiting.is_empty() {
                self.write(ring)?;
            }
        }
    }

    fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Received { connection, bytes } => {
                if self.on_bytes(connection, bytes).is_none() {
                    self.refused.push(connection);
                }
            }
            Event::Closed { connection } => {
                self.peers.remove(&connection);
            }
            Event::Sent { connection } => self.ready.push(connection),
            Event::Written(block) => {
                self.spare = Some(block);
                for (connection, answer) in self.in_flight.drain(..) {
                    if let Some(peer) = self.peers.get_mut(&connection) {
                        peer.output.extend_from_slice(&answer);
                        self.ready.push(connection);
                    }
                }
            }
        }
    }

    /// None: not what is understood here.
    fn on_bytes(&mut self, connection: u64, bytes: &[u8]) -> Option<()> {
        let peer = self.peers.entry(connection).or_default();
        if peer.output.len() > OUTPUT_BYTES_MAX {
            return None;
        }
        let mut input = std::mem::take(&mut peer.input);
        if input.is_empty() {
            let rest = self.on_frames(connection, bytes)?;
            input.extend_from_slice(rest);
        } else {
            input.extend_from_slice(bytes);
            let rest = self.on_frames(connection, &input)?.len();
            input.drain(..input.len() - rest);
        }
        self.peers.entry(connection).or_default().input = input;
        Some(())
    }

    /// Takes every whole frame; what is left is the beginning of the next one.
    fn on_frames<'a>(&mut self, connection: u64, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > FRAME_BYTES_MAX {
                return None;
            }
            let Some((frame, rest)) = rest.split_at_checked(length) else { break };
            if is_produce(frame) {
                self.produce(connection, frame)?
            } else {
                self.answer(connection, frame)?
            }
            bytes = rest;
        }
        Some(bytes)
    }

    fn produce(&mut self, connection: u64, frame: &[u8]) -> Option<()> {
        let produce = Produce::read(frame).filter(Produce::is_intact)?;
        let batch = produce.batch;
        if self.tail_at + batch.len() > self.tail.len() {
            self.tail_at = 0;
        }
        self.tail[self.tail_at..][..batch.len()].copy_from_slice(batch);
        self.tail_at += batch.len();
        // Nobody sends more than fits between two writes in a closed loop; who does is refused.
        self.filling.bytes().get_mut(self.filled..)?.get_mut(..batch.len())?.copy_from_slice(batch);
        self.filled += batch.len();
        self.waiting.push((connection, produce.answer(self.next_offset)));
        self.next_offset += produce.records();
        Some(())
    }

    fn answer(&mut self, connection: u64, frame: &[u8]) -> Option<()> {
        let mut reply = BytesMut::zeroed(4);
        if self.desk.answer(Bytes::copy_from_slice(frame), &mut reply).ok()? {
            let length = (reply.len() - 4) as u32;
            reply[..4].copy_from_slice(&length.to_be_bytes());
            self.peers.entry(connection).or_default().output.extend_from_slice(&reply);
            self.ready.push(connection);
        }
        Some(())
    }

    fn write(&mut self, ring: &mut Ring) -> io::Result<()> {
        let Some(spare) = self.spare.take() else { return Ok(()) };
        let mut block = std::mem::replace(&mut self.filling, spare);
        let length = self.filled.next_multiple_of(PAGE_BYTES);
        let bytes = &mut block.bytes()[..length];
        bytes[self.filled..].fill(0);
        let sum = crc32c::crc32c(&bytes[BLOCK_HEAD_BYTES..]).to_be_bytes();
        bytes[..4].copy_from_slice(&sum);
        if self.position + length > JOURNAL_BYTES {
            self.position = 0;
        }
        ring.write(block, length, self.position as u64)?;
        self.position += length;
        self.filled = BLOCK_HEAD_BYTES;
        std::mem::swap(&mut self.waiting, &mut self.in_flight);
        Ok(())
    }
}

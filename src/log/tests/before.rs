//! Directories that were written before formats had versions: they still open, and everything is in them.
//!
//! A line for each file: its path, its length, and its bytes up to the zeros at its end in hex, `+n` for n zeros.

use std::path::Path;

use super::{DIRECTORY, Rig, bytes_of, key, live, story::settings};
use crate::{
    base::{Offset, ProducerEpoch, ProducerId},
    io::{Io, sim::Simulation},
    log::LogConfig,
    protocol::batch::{batches, crc_ok},
};

const CRASHED: &str = include_str!("before/crashed.txt");
const STOPPED: &str = include_str!("before/stopped.txt");

fn bytes_of_tokens<'a>(tokens: impl Iterator<Item = &'a str>, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    for token in tokens {
        match token.strip_prefix('+') {
            Some(zeros) => bytes.resize(bytes.len() + zeros.parse::<usize>().unwrap(), 0),
            None => bytes.extend((0..token.len() / 2).map(|at| u8::from_str_radix(&token[2 * at..][..2], 16).unwrap())),
        }
    }
    bytes.resize(length, 0);
    bytes
}

async fn lay_down(io: &Io, text: &str) {
    for line in text.lines() {
        let mut tokens = line.split_whitespace();
        let path = Path::new(tokens.next().unwrap());
        let length = tokens.next().unwrap().parse().unwrap();
        io.disk.create_dir_all(path.parent().unwrap()).await.unwrap();
        io.disk.write_file(path, &bytes_of_tokens(tokens, length), true).await.unwrap();
    }
    io.disk.sync_filesystem_of(Path::new(DIRECTORY)).await.unwrap();
}

#[test]
fn directories_without_versions_open_and_have_everything() {
    for (what, text) in [("crashed", CRASHED), ("stopped", STOPPED)] {
        let sim = Simulation::new(1);
        // Twice: the second life reads what the first one has made of it.
        for life in 0..2 {
            sim.block_on(0, 0, move |io| async move {
                if life == 0 {
                    lay_down(&io, text).await;
                }
                let rig = Rig::open(&io, &settings(), &live(key(1), "t", &LogConfig::default())).await.unwrap();
                let log = rig.core_log.log(key(1)).unwrap();
                assert_eq!(log.log_end_offset(), Offset(5), "{what}");
                let read = log.read(Offset(0), 1 << 20, Offset(5), true).await.unwrap();
                let bytes = bytes_of(&read.slices);
                let found: Vec<_> = batches(&bytes).map(Result::unwrap).collect();
                assert!(found.iter().all(|batch| crc_ok(batch.bytes)), "{what}");
                let sequences: Vec<i32> = found.iter().map(|batch| batch.header.base_sequence).collect();
                assert_eq!(sequences, [0, 1, 2, 3, 4], "{what}");
                let producer = (found[0].header.producer_id, found[0].header.producer_epoch);
                assert_eq!(producer, (ProducerId(7), ProducerEpoch(1)), "{what}");
                let states = rig.states.borrow();
                assert_eq!(states[&key(1)].epochs.export(), "0\n1\n0 0\n", "{what}");
                assert_eq!(states[&key(1)].producers.export().len(), 56, "{what}: one producer is known");
            });
            sim.power_cut(0);
        }
    }
}

//! What things cost in memory: validating a batch nothing for a good one and little for a hostile one, a change of the metadata
//! what has changed.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::Bytes;
use ringtail::internals::{
    base::{Timestamp, TopicId},
    metadata::{Change, Image},
    partition::{CompressionPolicy, TopicRules, validate},
    protocol::{
        batch::{BatchBuilder, Header, seal},
        compression::Compression,
        metadata_records::{MetadataRecord, PartitionRecord},
    },
};
use uuid::Uuid;

const NOW: Timestamp = 1_700_000_000_000;
/// LZ4 blocks take up to 8 MiB (legacy frames), held twice while one is turned into the next.
const LARGEST_MAX: usize = 17 << 20;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// Counts what the current thread asks for.
struct Counting;

fn note(bytes: usize) {
    COUNT.set(COUNT.get() + 1);
    LARGEST.set(LARGEST.get().max(bytes));
}

// SAFETY: every call goes to the system's allocator as it came; counting touches only constant-initialised
// thread-locals without destructors, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(bytes);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(old, layout, bytes) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn batch(codec: Compression, records: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compressed(codec, codec.default_level());
    for index in 0..records {
        let value = format!("value {index} of a record that is a hundred bytes long or so, like many a log line is");
        let headers = [Header { key: b"trace", value: Some(b"0123456789abcdef") }];
        builder.push_with_headers(NOW + index, Some(&index.to_be_bytes()), Some(value.as_bytes()), headers.into_iter());
    }
    builder.build().to_vec()
}

#[test]
fn a_good_batch_costs_no_allocation_and_no_copy() {
    let sent = Bytes::from(batch(Compression::None, 1000));
    let frame = sent.clone();
    let rules = TopicRules { compacted: true, ..TopicRules::default() };
    COUNT.set(0);
    let valid = validate(frame, &rules, 9, NOW);
    let count = COUNT.get();
    let valid = valid.expect("a good batch");
    assert_eq!(count, 0);
    assert_eq!(valid.bytes.as_ptr(), sent.as_ptr());
}

/// Small and fast; good enough to pick bytes.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn a_batch_compressed_anew_takes_what_comes_out_and_not_what_it_is_made_of() {
    let mut builder = BatchBuilder::new().compressed(Compression::Zstd, 1);
    for index in 0..24 {
        builder.push(NOW + index, None, Some(&vec![index as u8; 1 << 20]));
    }
    let sent = builder.build();
    assert!(sent.len() < 100_000, "{} bytes for 24 MiB", sent.len());
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd, Compression::None] {
        let compression = CompressionPolicy::Fixed { codec, level: codec.default_level() };
        let rules = TopicRules { compression, max_message_bytes: 4 << 20, ..TopicRules::default() };
        LARGEST.set(0);
        let seen = validate(sent.clone(), &rules, 9, NOW);
        let largest = LARGEST.get();
        assert_eq!(seen.is_ok(), codec != Compression::None, "{codec:?}: 24 MiB are more than the topic takes");
        assert!(largest <= 4 << 20, "{codec:?}: {largest} bytes asked for at once");
    }
}

#[test]
fn hostile_batches_never_panic_and_ask_for_little() {
    let gzip = CompressionPolicy::Fixed { codec: Compression::Gzip, level: 1 };
    let rules = [TopicRules::default(), TopicRules { compression: gzip, ..TopicRules::default() }];
    for codec in Compression::ALL {
        let good = batch(codec, 20);
        let mut accepted = 0;
        for seed in 0..4000 {
            let mut dice = Dice(seed);
            let mut bad = good.clone();
            for _ in 0..=dice.roll(3) {
                // Half of the time behind the header: into the codec's own frame.
                let from = if dice.roll(2) == 0 { 0 } else { 61 };
                let at = from + dice.roll(bad.len() - from);
                bad[at] = [0, 1, 0x7f, 0x80, 0xff, dice.roll(256) as u8][dice.roll(6)];
            }
            if dice.roll(8) == 0 {
                bad.truncate(61 + dice.roll(bad.len() - 61));
            }
            seal(&mut bad);
            LARGEST.set(0);
            let seen = validate(Bytes::from(bad), &rules[dice.roll(2)], 9, NOW);
            accepted += usize::from(seen.is_ok());
            assert!(LARGEST.get() <= LARGEST_MAX, "{codec:?} seed {seed}: {} bytes asked for", LARGEST.get());
        }
        // Some mutations hit a value: both outcomes are there, so the test tests something.
        assert!((1..4000).contains(&accepted), "{codec:?}: {accepted} accepted");
    }
}

fn topic(number: u128) -> [MetadataRecord; 2] {
    let topic_id = TopicId(Uuid::from_u128(number));
    let partition =
        PartitionRecord { topic_id, replicas: vec![1], isr: vec![1], leader: 1, ..PartitionRecord::default() };
    [MetadataRecord::Topic { name: format!("a.topic.{number}"), topic_id }, MetadataRecord::Partition(partition)]
}

fn apply(image: &mut Image, number: u128) {
    let mut change = Change::of(image);
    change.apply(&topic(number)).expect("it fits");
    *image = change.finish().0;
}

#[test]
fn a_new_topic_costs_the_same_beside_ten_others_and_beside_ten_thousand() {
    let cost = |topics| {
        let mut image = Image::default();
        (0..topics).for_each(|number| apply(&mut image, number));
        // The cores have what was there before.
        let shared = image.clone();
        COUNT.set(0);
        LARGEST.set(0);
        apply(&mut image, topics);
        let cost = (COUNT.get(), LARGEST.get());
        assert_eq!((shared.topic_count() + 1, image.topic_count()), (image.topic_count(), topics as usize + 1));
        cost
    };
    let ((few, _), (many, largest)) = (cost(10), cost(10_000));
    assert!(many <= 3 * few && largest <= 16 << 10, "{few} allocations, and {many} of up to {largest} bytes");
}

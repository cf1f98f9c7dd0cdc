//! Records cost no allocation of their own: only batches and requests do.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ringtail_loadgen::{
    measure::{Recorder, Window},
    produce::{
        Answer, Producer, Settings,
        picker::{Payload, Picker},
    },
    records::compress::Codec,
    rng::Rng,
    schedule::{Arrival, Schedule},
    workload::{Partitioner, sizes::Sizes},
};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; only a counter is moved besides.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const SECOND: u64 = 1_000_000_000;
const RECORDS_PER_BATCH: u64 = 100;

/// Allocations and acknowledged records of the second of two seconds at 100,000 records/s.
fn second_of(records_per_batch: u32) -> (u64, u64) {
    let settings = Settings {
        partitions: 1,
        sizes: Sizes::Fixed(100),
        keys: 0,
        partitioner: Partitioner::Sticky,
        payload: Payload::new(1, 1.0, 100),
        batch_bytes: 1 << 20,
        batch_records: records_per_batch,
        request_bytes: 1 << 20,
        linger_ns: SECOND,
        codec: Codec::None,
        in_flight: 5,
        acks: -1,
        idempotence: false,
        timeout_ns: 30 * SECOND,
        run: 1,
        wall_offset_ns: 0,
    };
    let schedule = Schedule::open(Arrival::Constant, 100_000.0, None, (0, 2 * SECOND), 0.0, Rng::new(1, 1));
    let mut producer = Producer::new(0, Arc::new(settings), None, schedule, Picker::new(Rng::new(1, 2), 1), None);
    producer.set_leaders(&[Some(1)], 0);
    producer.connected(1, 0);
    let mut recorder = Recorder::new(Window { start: 0, end: 2 * SECOND });
    let answer = [Answer { partition: 0, code: 0, base_offset: 0 }];
    let mut before = (0, 0);
    for now in (0..2 * SECOND).step_by(100_000) {
        if now == SECOND {
            before = (ALLOCATIONS.load(Ordering::Relaxed), recorder.measured.counters.acked_records);
        }
        producer.advance(now, &mut recorder);
        while producer.next_request(1, now, &mut recorder).is_some() {
            producer.on_reply(1, now, &answer, &mut recorder);
        }
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before.0;
    (allocations, recorder.measured.counters.acked_records - before.1)
}

#[test]
fn records_cost_no_allocation_of_their_own() {
    let (allocations, records) = second_of(RECORDS_PER_BATCH as u32);
    assert!((99_000..=101_000).contains(&records), "{records}");
    let per_batch = allocations as f64 / (records / RECORDS_PER_BATCH) as f64;
    assert!(per_batch <= 8.0, "{allocations} allocations for {records} records: {per_batch} a batch");
    // Ten times the records a batch: as many allocations a batch as before.
    let (allocations, records) = second_of(10 * RECORDS_PER_BATCH as u32);
    let per_larger = allocations as f64 / (records / RECORDS_PER_BATCH / 10) as f64;
    assert!(per_larger <= per_batch + 1.0, "{per_larger} a batch of 1,000, {per_batch} a batch of 100");
}

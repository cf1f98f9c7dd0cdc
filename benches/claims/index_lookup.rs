//! Where a read begins: offset to position and timestamp to offset in a segment's index of the largest size.

use ringtail::internals::log::SegmentIndex;

use crate::case::Case;

const BATCHES: u32 = 100_000;
const BATCH_BYTES: u32 = 10_000;
const LOOKUPS: u32 = 64;

pub fn cases() -> Vec<Case> {
    let index = full();
    let copy = index.clone();
    vec![
        Case::new("index_lookup/64_offsets", move || {
            (0..LOOKUPS).map(|number| index.position(spread(number)) as usize).fold(0, usize::wrapping_add)
        }),
        Case::new("index_lookup/64_timestamps", move || {
            (0..LOOKUPS).map(|number| copy.offset_for(i64::from(spread(number))) as usize).fold(0, usize::wrapping_add)
        }),
    ]
}

/// A gigabyte of batches: the index has been thinned out several times.
fn full() -> SegmentIndex {
    let mut index = SegmentIndex::new(4096);
    for batch in 0..BATCHES {
        index.note(batch, batch * BATCH_BYTES, BATCH_BYTES, (i64::from(batch), batch));
    }
    index
}

/// Offsets all over the segment, in no order.
fn spread(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b9) % BATCHES
}

use super::*;
use crate::{
    base::{LeaderEpoch, Offset, ProducerEpoch, ProducerId},
    protocol::compression::{Compression, StreamFeed},
};

fn sample() -> Vec<u8> {
    let mut builder = BatchBuilder::new()
        .at(Offset(70), LeaderEpoch(4))
        .producer(ProducerId(9), ProducerEpoch(1), i32::MAX - 1)
        .transactional(true);
    builder.push(1000, Some(b"key"), Some(b"value"));
    let headers = [Header { key: b"h", value: Some(b"1") }, Header { key: b"h", value: None }];
    builder.push_with_headers(990, None, None, headers.into_iter());
    builder.push(1010, Some(b""), Some(b""));
    builder.build().to_vec()
}

#[test]
fn a_built_batch_reads_back() {
    let batch = sample();
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(crc_ok(&batch) && header.is_transactional() && !header.is_control());
    assert_eq!(header.encode(), batch[..HEADER_BYTES]);
    let info = BatchInfo::of(&header);
    assert_eq!((info.base_offset, info.last_offset, info.next_offset()), (Offset(70), Offset(72), Offset(73)));
    assert_eq!((info.base_sequence, info.last_sequence), (i32::MAX - 1, 0));
    assert_eq!((info.max_timestamp, info.record_count, info.bytes as usize), (1010, 3, batch.len()));
    let records: Vec<_> = Records::new(&batch[HEADER_BYTES..], 3).map(Result::unwrap).collect();
    let timestamps: Vec<_> = records.iter().map(|record| header.base_timestamp + record.timestamp_delta).collect();
    assert_eq!(timestamps, [1000, 990, 1010]);
    assert_eq!((records[0].key, records[0].value), (Some(&b"key"[..]), Some(&b"value"[..])));
    assert_eq!((records[1].key, records[1].value), (None, None));
    assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), Some(&b""[..])));
    let headers: Vec<_> = records[1].headers.map(|header| (header.key, header.value)).collect();
    assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (b"h", None)], "keys may repeat");
}

#[test]
fn the_codec_crate_reads_what_we_build() {
    let batch = sample();
    let mut bytes = bytes::Bytes::from(batch);
    let set = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).unwrap();
    let seen: Vec<_> = set.records.iter().map(|record| (record.offset, record.timestamp, record.key.clone())).collect();
    let key = |key: &'static str| Some(bytes::Bytes::from_static(key.as_bytes()));
    assert_eq!(seen, [(70, 1000, key("key")), (71, 990, None), (72, 1010, key(""))]);
}

#[test]
fn stamping_needs_no_new_crc() {
    let mut batch = sample();
    stamp(&mut batch, Offset(123_456), LeaderEpoch(7));
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(crc_ok(&batch));
    assert_eq!((header.base_offset, header.leader_epoch), (Offset(123_456), LeaderEpoch(7)));
    set_timestamp(&mut batch, TimestampType::LogAppendTime, 55);
    let header = BatchHeader::parse(&batch).unwrap();
    assert!(crc_ok(&batch) && header.is_transactional());
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, 55));
}

#[test]
fn walking_ends_at_what_is_no_batch() {
    let batch = sample();
    for (name, tail, expected) in [
        ("nothing", Vec::new(), None),
        ("zeros", vec![0; 4096], Some(BatchError::BadLength(0))),
        ("half a header", batch[..30].to_vec(), Some(BatchError::Truncated { needed: HEADER_BYTES })),
        ("half a batch", batch[..70].to_vec(), Some(BatchError::Truncated { needed: batch.len() })),
    ] {
        let log = [&batch[..], &batch, &tail].concat();
        let mut walk = batches(&log);
        let seen: Vec<_> = walk.by_ref().map(|view| view.map(|view| view.bytes)).collect();
        let mut wanted = vec![Ok(&batch[..]), Ok(&batch)];
        wanted.extend(expected.map(Err));
        assert_eq!(seen, wanted, "{name}");
        assert_eq!(walk.position(), 2 * batch.len(), "{name}");
    }
}

/// Small and fast; good enough to pick bytes. The seed is the test's only input.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// The two readers of records agree, and neither panics, whatever the bytes.
#[test]
fn mutated_records_never_panic() {
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let mut batch = sample();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(batch.len());
            batch[at] = [0, 1, 0x7f, 0x80, 0xff, dice.roll(256) as u8][dice.roll(6)];
        }
        for view in batches(&batch) {
            let Ok(view) = view else { break };
            let info = BatchInfo::of(&view.header);
            let _ = (info.next_offset(), info.at(Offset(i64::MAX), LeaderEpoch(0)));
        }
        let body = &batch[HEADER_BYTES..];
        let read =
            Records::new(body, 3).try_fold(0, |count, record| record.map(|record| count + record.headers.count()));
        let mut plain = SliceFeed::new(body);
        let mut streamed = StreamFeed::new(Compression::None, body, body.len()).unwrap();
        let walked = walk(&mut plain);
        assert_eq!(walked, walk(&mut streamed), "seed {seed}");
        assert_eq!(walked.is_ok(), read.is_ok(), "seed {seed}");
    }
}

fn walk<F: Feed>(feed: &mut F) -> Result<Vec<RecordShape>, BatchError> {
    let shapes = (0..3).map(|_| next_shape(feed)).collect::<Result<_, _>>()?;
    if feed.at_end()? { Ok(shapes) } else { Err(BatchError::BadRecord("bytes after the last record")) }
}

use expect_test::{Expect, expect};

use super::*;
use crate::protocol::{
    batch::{BatchBuilder, BatchHeader, HEADER_BYTES, Records, seal, write_record},
    compression::{compress, decompress},
};

const NOW: Timestamp = 1_000_000_000_000;

fn rules() -> TopicRules {
    TopicRules { timestamp_before_max_ms: 5000, timestamp_after_max_ms: 1000, ..TopicRules::default() }
}

fn log_append() -> TopicRules {
    TopicRules { timestamp_type: TimestampType::LogAppendTime, ..rules() }
}

fn compacted() -> TopicRules {
    TopicRules { compacted: true, ..rules() }
}

fn into(codec: Compression) -> TopicRules {
    TopicRules { compression: CompressionPolicy::Fixed { codec, level: codec.default_level() }, ..rules() }
}

/// Three records with keys, at `NOW`, `NOW` + 2 and `NOW` + 1.
fn three(codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compressed(codec, codec.default_level());
    for (delta, key) in [(0, "a"), (2, "b"), (1, "c")] {
        builder.push(NOW + delta, Some(key.as_bytes()), Some(b"value"));
    }
    builder.build().to_vec()
}

/// A batch whose records take the given (timestamp delta, offset delta), with keys.
fn raw(codec: Compression, count: i32, records: &[(i64, i32)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (timestamp, offset) in records {
        write_record(&mut body, *timestamp, *offset, Some(b"k"), Some(b"v"), std::iter::empty());
    }
    with_body(codec, count, &body)
}

fn with_body(codec: Compression, count: i32, body: &[u8]) -> Vec<u8> {
    let mut template = BatchBuilder::new().compressed(codec, codec.default_level());
    template.push(NOW, Some(b"k"), None);
    let mut batch = template.build()[..HEADER_BYTES].to_vec();
    compress(codec, codec.default_level(), body, &mut batch);
    let length = (batch.len() - 12) as i32;
    patched(batch, &[(8, &length.to_be_bytes()), (23, &(count - 1).to_be_bytes()), (57, &count.to_be_bytes())])
}

/// The batch with some bytes replaced, and the CRC made right again.
fn patched(mut batch: Vec<u8>, patches: &[(usize, &[u8])]) -> Vec<u8> {
    for (at, bytes) in patches {
        batch[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    seal(&mut batch);
    batch
}

fn outcome(batch: &[u8], topic: &TopicRules, version: i16) -> String {
    match validate(Bytes::copy_from_slice(batch), topic, version, NOW) {
        Ok(valid) => {
            assert!(crc_ok(&valid.bytes));
            let header = BatchHeader::parse(&valid.bytes).unwrap();
            let body = decompress(header.compression, &valid.bytes[HEADER_BYTES..], 1 << 20).unwrap();
            let offsets: Vec<_> =
                Records::new(&body, header.record_count).map(|record| record.unwrap().offset_delta).collect();
            format!(
                "ok {} max={} {:?} {} offsets={offsets:?}",
                if batch.starts_with(&valid.bytes) { "as sent" } else { "rewritten" },
                header.max_timestamp - NOW,
                header.timestamp_type(),
                header.compression.name(),
            )
        }
        Err(refusal) => {
            let mut text = format!("{:?}", refusal.code);
            if let Some(message) = refusal.message {
                text += &format!("\n{message}");
            }
            for (index, error) in refusal.record_errors {
                text += &format!("\n  {index}: {}", error.unwrap_or_default());
            }
            text
        }
    }
}

/// One line a case, longer where records are at fault.
fn check(cases: &[(&str, Vec<u8>, TopicRules, i16)], expected: &Expect) {
    let lines: Vec<_> = cases
        .iter()
        .map(|(name, batch, topic, version)| format!("{name}: {}", outcome(batch, topic, *version)))
        .collect();
    expected.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn the_outside_of_a_batch() {
    let good = three(Compression::None);
    let twice = [good.clone(), good.clone()].concat();
    let mut bad_crc = good.clone();
    *bad_crc.last_mut().unwrap() ^= 1;
    let magic = |magic: u8| patched(good.clone(), &[(16, &[magic])]);
    check(
        &[
            ("good", good.clone(), rules(), 9),
            ("good, v3", good.clone(), rules(), 3),
            ("nothing", Vec::new(), rules(), 9),
            ("cut off", good[..good.len() - 1].to_vec(), rules(), 9),
            ("two batches", twice, rules(), 9),
            ("half a batch behind", [&good[..], &good[..40]].concat(), rules(), 9),
            ("a bad length behind", [&good[..], &[0; 20]].concat(), rules(), 9),
            ("magic 0", magic(0), rules(), 9),
            ("magic 1", magic(1), rules(), 9),
            ("magic 3", magic(3), rules(), 9),
            ("length 0", patched(good.clone(), &[(8, &[0; 4])]), rules(), 9),
            ("length -1", patched(good.clone(), &[(8, &[255; 4])]), rules(), 9),
            ("length 48", patched(good.clone(), &[(8, &48_i32.to_be_bytes())])[..60].to_vec(), rules(), 9),
            ("wrong crc", bad_crc, rules(), 9),
            ("base offset 1", patched(good.clone(), &[(0, &1_i64.to_be_bytes())]), rules(), 9),
            ("codec 5", patched(good.clone(), &[(21, &[0, 5])]), rules(), 9),
            ("control", patched(good.clone(), &[(21, &[0, 0x20])]), rules(), 9),
            ("count 2", patched(good.clone(), &[(57, &2_i32.to_be_bytes())]), rules(), 9),
            ("count -1", patched(good.clone(), &[(57, &[255; 4])]), rules(), 9),
            ("count 0", with_body(Compression::None, 0, &[]), rules(), 9),
            ("producer, no sequence", patched(good.clone(), &[(43, &7_i64.to_be_bytes())]), rules(), 9),
            ("zstd, v6", three(Compression::Zstd), rules(), 6),
            ("zstd, v7", three(Compression::Zstd), rules(), 7),
            ("delete horizon", patched(good.clone(), &[(21, &[0, 0x40])]), rules(), 9),
        ],
        &expect![[r#"
            good: ok as sent max=2 CreateTime uncompressed offsets=[0, 1, 2]
            good, v3: ok as sent max=2 CreateTime uncompressed offsets=[0, 1, 2]
            nothing: InvalidRecord
            cut off: InvalidRecord
            two batches: InvalidRecord
            half a batch behind: ok as sent max=2 CreateTime uncompressed offsets=[0, 1, 2]
            a bad length behind: CorruptMessage
            magic 0: InvalidRecord
            magic 1: InvalidRecord
            magic 3: CorruptMessage
            length 0: CorruptMessage
            length -1: CorruptMessage
            length 48: CorruptMessage
            wrong crc: CorruptMessage
            base offset 1: InvalidRecord
            codec 5: UnsupportedCompressionType
            control: InvalidRecord
            count 2: InvalidRecord
            count -1: InvalidRecord
            count 0: InvalidRecord
            producer, no sequence: InvalidRecord
            zstd, v6: UnsupportedCompressionType
            zstd, v7: ok as sent max=2 CreateTime zstd offsets=[0, 1, 2]
            delete horizon: ok as sent max=2 CreateTime uncompressed offsets=[0, 1, 2]
        "#]],
    );
}

#[test]
fn sizes() {
    let good = three(Compression::None);
    let limit = |max_message_bytes, segment_bytes| TopicRules { max_message_bytes, segment_bytes, ..rules() };
    // Three small records grow when they are framed by a codec.
    let grown = outcome(&good, &TopicRules { max_message_bytes: good.len(), ..into(Compression::Gzip) }, 9);
    let mut zeros = Vec::new();
    write_record(&mut zeros, 0, 0, None, Some(&vec![0; SCANNED_BYTES_MAX]), std::iter::empty());
    let bomb = with_body(Compression::Zstd, 1, &zeros);
    assert!(bomb.len() < 100_000, "a bomb is small: {}", bomb.len());
    for (name, seen, expected) in [
        ("just right", outcome(&good, &limit(good.len(), good.len()), 9), "ok as sent"),
        ("message", outcome(&good, &limit(good.len() - 1, 1 << 20), 9), "MessageTooLarge"),
        ("segment", outcome(&good, &limit(1 << 20, good.len() - 1), 9), "RecordListTooLarge"),
        ("after compression", grown, "MessageTooLarge"),
        ("bomb", outcome(&bomb, &rules(), 9), "MessageTooLarge"),
        ("bomb to be compressed anew", outcome(&bomb, &into(Compression::Gzip), 9), "MessageTooLarge"),
    ] {
        assert!(seen.starts_with(expected), "{name}: {seen}");
    }
}

#[test]
fn records_inside() {
    use Compression::{Gzip, Lz4, None as Plain, Snappy, Zstd};
    let record = |bytes: &[u8]| with_body(Plain, 1, bytes);
    let mut cases = vec![
        ("fewer than counted", raw(Plain, 3, &[(0, 0), (0, 1)]), rules(), 9),
        ("more than counted", raw(Plain, 1, &[(0, 0), (0, 1)]), rules(), 9),
        ("negative length", record(&[1]), rules(), 9),
        ("length too short", record(&[12, 0, 0, 0, 2, b'k', 1, 0]), rules(), 9),
        ("length too long", record(&[20, 0, 0, 0, 2, b'k', 1, 0]), rules(), 9),
        ("key longer than record", record(&[14, 0, 0, 0, 200, 1, 1, 0]), rules(), 9),
        ("key length -2", record(&[12, 0, 0, 0, 3, 1, 0]), rules(), 9),
        ("headers -1", record(&[12, 0, 0, 0, 1, 1, 1]), rules(), 9),
        ("headers 2^31-1", record(&[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]), rules(), 9),
        ("null header key", record(&[16, 0, 0, 0, 1, 1, 2, 1, 1]), rules(), 9),
        ("offset delta of 6 bytes", record(&[22, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 1, 1, 0]), rules(), 9),
        ("record attributes", record(&[12, 9, 0, 0, 1, 1, 0]), rules(), 9),
        ("offsets 0 2", raw(Plain, 2, &[(0, 0), (0, 2)]), rules(), 9),
    ];
    for codec in [Gzip, Snappy, Lz4, Zstd] {
        let name = |text: &str| -> &'static str { format!("{text} {}", codec.name()).leak() };
        let mut garbage = three(codec);
        garbage[HEADER_BYTES..].fill(0xab);
        seal(&mut garbage);
        let mut rest = three(codec);
        rest.truncate(HEADER_BYTES + 12);
        let length = (rest.len() - 12) as i32;
        cases.push((name("good"), three(codec), rules(), 9));
        cases.push((name("garbage in"), garbage, rules(), 9));
        cases.push((name("cut off inside"), patched(rest, &[(8, &length.to_be_bytes())]), rules(), 9));
        cases.push((name("offsets 0 2 in"), raw(codec, 2, &[(0, 0), (0, 2)]), rules(), 9));
        cases.push((name("more than counted in"), raw(codec, 1, &[(0, 0), (0, 1)]), rules(), 9));
        cases.push((name("fewer than counted in"), raw(codec, 3, &[(0, 0), (0, 1)]), rules(), 9));
        cases.push((name("from plain to"), three(Plain), into(codec), 9));
        cases.push((name("to gzip from"), three(codec), into(Gzip), 9));
        cases.push((name("to plain from"), three(codec), into(Plain), 9));
    }
    check(
        &cases,
        &expect![[r#"
        fewer than counted: InvalidRecord
        more than counted: InvalidRecord
        negative length: InvalidRecord
        length too short: InvalidRecord
        length too long: InvalidRecord
        key longer than record: InvalidRecord
        key length -2: ok as sent max=0 CreateTime uncompressed offsets=[0]
        headers -1: InvalidRecord
        headers 2^31-1: InvalidRecord
        null header key: InvalidRecord
        offset delta of 6 bytes: InvalidRecord
        record attributes: ok as sent max=0 CreateTime uncompressed offsets=[0]
        offsets 0 2: ok rewritten max=0 CreateTime uncompressed offsets=[0, 1]
        good gzip: ok as sent max=2 CreateTime gzip offsets=[0, 1, 2]
        garbage in gzip: InvalidRecord
        cut off inside gzip: InvalidRecord
        offsets 0 2 in gzip: ok rewritten max=0 CreateTime gzip offsets=[0, 1]
        more than counted in gzip: InvalidRecord
        fewer than counted in gzip: InvalidRecord
        from plain to gzip: ok rewritten max=2 CreateTime gzip offsets=[0, 1, 2]
        to gzip from gzip: ok as sent max=2 CreateTime gzip offsets=[0, 1, 2]
        to plain from gzip: ok rewritten max=2 CreateTime uncompressed offsets=[0, 1, 2]
        good snappy: ok as sent max=2 CreateTime snappy offsets=[0, 1, 2]
        garbage in snappy: InvalidRecord
        cut off inside snappy: InvalidRecord
        offsets 0 2 in snappy: ok rewritten max=0 CreateTime snappy offsets=[0, 1]
        more than counted in snappy: InvalidRecord
        fewer than counted in snappy: InvalidRecord
        from plain to snappy: ok rewritten max=2 CreateTime snappy offsets=[0, 1, 2]
        to gzip from snappy: ok rewritten max=2 CreateTime gzip offsets=[0, 1, 2]
        to plain from snappy: ok rewritten max=2 CreateTime uncompressed offsets=[0, 1, 2]
        good lz4: ok as sent max=2 CreateTime lz4 offsets=[0, 1, 2]
        garbage in lz4: InvalidRecord
        cut off inside lz4: InvalidRecord
        offsets 0 2 in lz4: ok rewritten max=0 CreateTime lz4 offsets=[0, 1]
        more than counted in lz4: InvalidRecord
        fewer than counted in lz4: InvalidRecord
        from plain to lz4: ok rewritten max=2 CreateTime lz4 offsets=[0, 1, 2]
        to gzip from lz4: ok rewritten max=2 CreateTime gzip offsets=[0, 1, 2]
        to plain from lz4: ok rewritten max=2 CreateTime uncompressed offsets=[0, 1, 2]
        good zstd: ok as sent max=2 CreateTime zstd offsets=[0, 1, 2]
        garbage in zstd: InvalidRecord
        cut off inside zstd: InvalidRecord
        offsets 0 2 in zstd: ok rewritten max=0 CreateTime zstd offsets=[0, 1]
        more than counted in zstd: InvalidRecord
        fewer than counted in zstd: InvalidRecord
        from plain to zstd: ok rewritten max=2 CreateTime zstd offsets=[0, 1, 2]
        to gzip from zstd: ok rewritten max=2 CreateTime gzip offsets=[0, 1, 2]
        to plain from zstd: ok rewritten max=2 CreateTime uncompressed offsets=[0, 1, 2]
    "#]],
    );
}

#[test]
fn timestamps_and_keys() {
    use Compression::{Gzip, None as Plain};
    let lying = patched(three(Plain), &[(35, &(NOW + 77).to_be_bytes())]);
    let log_append_bit = |max: i64| patched(three(Plain), &[(21, &[0, 8]), (35, &max.to_be_bytes())]);
    let at = |deltas: &[i64]| {
        let mut builder = BatchBuilder::new();
        for delta in deltas {
            builder.push(NOW + delta, Some(b"k"), None);
        }
        builder.build().to_vec()
    };
    let keyless = |codec| {
        let mut builder = BatchBuilder::new().compressed(codec, codec.default_level());
        builder.push(NOW, None, Some(b"0"));
        builder.push(NOW, Some(b""), Some(b"1"));
        builder.push(NOW, None, Some(b"2"));
        builder.push(NOW, None, None);
        builder.push(NOW + 9999, None, None);
        builder.build().to_vec()
    };
    let mut few = BatchBuilder::new();
    few.push(NOW, None, Some(b"0"));
    few.push(NOW, Some(b"k"), Some(b"1"));
    for _ in 0..3 {
        few.push(NOW, None, None);
    }
    let few = few.build().to_vec();
    let mut none = BatchBuilder::new();
    none.push(-1, None, None);
    let none = none.build().to_vec();
    check(
        &[
            ("max timestamp is worked out", lying.clone(), rules(), 9),
            ("log append time", three(Plain), log_append(), 9),
            ("log append time, gzip", three(Gzip), log_append(), 9),
            (
                "log append time, rebuilt",
                three(Plain),
                TopicRules { timestamp_type: TimestampType::LogAppendTime, ..into(Gzip) },
                9,
            ),
            ("log append time, anything goes", at(&[-99_999, 99_999]), log_append(), 9),
            ("create time limits", at(&[-5000, 1000]), rules(), 9),
            ("create time beyond", at(&[-5001, 0, 1001]), rules(), 9),
            ("no timestamp", none.clone(), rules(), 9),
            ("no timestamp, log append", none, log_append(), 9),
            ("client sets log append time", log_append_bit(NOW), rules(), 9),
            ("client sets log append time -1", log_append_bit(-1), rules(), 9),
            ("client sets log append time 0", log_append_bit(0), rules(), 9),
            ("client sets log append time, so does the topic", log_append_bit(NOW), log_append(), 9),
            ("null keys", few.clone(), rules(), 9),
            ("null keys, compacted", few, compacted(), 9),
            ("null keys and a late one, compacted", keyless(Plain), compacted(), 9),
            ("the same, gzip", keyless(Gzip), compacted(), 9),
        ],
        &expect![[r#"
            max timestamp is worked out: ok rewritten max=2 CreateTime uncompressed offsets=[0, 1, 2]
            log append time: ok rewritten max=0 LogAppendTime uncompressed offsets=[0, 1, 2]
            log append time, gzip: ok rewritten max=0 LogAppendTime gzip offsets=[0, 1, 2]
            log append time, rebuilt: ok rewritten max=0 LogAppendTime gzip offsets=[0, 1, 2]
            log append time, anything goes: ok rewritten max=0 LogAppendTime uncompressed offsets=[0, 1]
            create time limits: ok as sent max=1000 CreateTime uncompressed offsets=[0, 1]
            create time beyond: InvalidTimestamp
            One or more records have been rejected due to invalid timestamp
              0: Timestamp 999999994999 of message with offset 0 is out of range. The timestamp should be within [999999995000, 1000000001000]
              2: Timestamp 1000000001001 of message with offset 2 is out of range. The timestamp should be within [999999995000, 1000000001000]
            no timestamp: ok as sent max=-1000000000001 CreateTime uncompressed offsets=[0]
            no timestamp, log append: ok rewritten max=0 LogAppendTime uncompressed offsets=[0]
            client sets log append time: ok rewritten max=0 CreateTime uncompressed offsets=[0, 1, 2]
            client sets log append time -1: InvalidTimestamp
            One or more records have been rejected due to invalid timestamp
              0: Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.
              1: Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.
              2: Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.
            client sets log append time 0: InvalidTimestamp
            One or more records have been rejected due to invalid timestamp
              0: Timestamp 0 of message with offset 0 is out of range. The timestamp should be within [999999995000, 1000000001000]
              1: Timestamp 0 of message with offset 1 is out of range. The timestamp should be within [999999995000, 1000000001000]
              2: Timestamp 0 of message with offset 2 is out of range. The timestamp should be within [999999995000, 1000000001000]
            client sets log append time, so does the topic: InvalidTimestamp
            One or more records have been rejected due to invalid timestamp
              0: Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.
              1: Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.
              2: Invalid timestamp type in message. Producer should not set timestamp type to LogAppendTime.
            null keys: ok as sent max=0 CreateTime uncompressed offsets=[0, 1, 2, 3, 4]
            null keys, compacted: InvalidRecord
            One or more records have been rejected due to 4 record errors in total, and only showing the first three errors at most: [RecordError(batchIndex=0, message='Compacted topic cannot accept message without key'), RecordError(batchIndex=2, message='Compacted topic cannot accept message without key'), RecordError(batchIndex=3, message='Compacted topic cannot accept message without key')]
              0: Compacted topic cannot accept message without key
              2: Compacted topic cannot accept message without key
              3: Compacted topic cannot accept message without key
              4: Compacted topic cannot accept message without key
            null keys and a late one, compacted: InvalidRecord
            One or more records have been rejected due to 4 record errors in total, and only showing the first three errors at most: [RecordError(batchIndex=0, message='Compacted topic cannot accept message without key'), RecordError(batchIndex=2, message='Compacted topic cannot accept message without key'), RecordError(batchIndex=3, message='Compacted topic cannot accept message without key')]
              0: Compacted topic cannot accept message without key
              2: Compacted topic cannot accept message without key
              3: Compacted topic cannot accept message without key
              4: Compacted topic cannot accept message without key
            the same, gzip: InvalidRecord
            One or more records have been rejected due to 4 record errors in total, and only showing the first three errors at most: [RecordError(batchIndex=0, message='Compacted topic cannot accept message without key'), RecordError(batchIndex=2, message='Compacted topic cannot accept message without key'), RecordError(batchIndex=3, message='Compacted topic cannot accept message without key')]
              0: Compacted topic cannot accept message without key
              2: Compacted topic cannot accept message without key
              3: Compacted topic cannot accept message without key
              4: Compacted topic cannot accept message without key
        "#]],
    );
}

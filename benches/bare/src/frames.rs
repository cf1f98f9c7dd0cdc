//! Produce (key 0), version 13, read and answered by hand: one batch of one partition a request, as `ringtail-loadgen` sends them.

/// The version that `ringtail-loadgen` speaks with a broker that knows it, with topic ids (KIP-516).
const VERSION: u16 = 13;
const CRC_AT: usize = 17;
const SUMMED_FROM: usize = 21;
/// The head of a batch; its last four bytes are the record count.
const HEAD_BYTES: usize = 61;

/// A Produce request of one batch.
#[derive(Debug, PartialEq)]
pub struct Produce<'a> {
    correlation_id: [u8; 4],
    topic_id: [u8; 16],
    partition: [u8; 4],
    pub batch: &'a [u8],
}

/// Whether a frame, without its length, is one that `Produce::read` is for.
pub fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&[0, 0])
}

impl<'a> Produce<'a> {
    /// None: another version, several batches, no acks asked for, or not a request at all.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let mut rest = frame;
        let [_, _, high, low] = take(&mut rest)?;
        if u16::from_be_bytes([high, low]) != VERSION {
            return None;
        }
        let correlation_id = take(&mut rest)?;
        let client_id = i16::from_be_bytes(take(&mut rest)?);
        skip(&mut rest, usize::try_from(client_id).unwrap_or(0))?;
        let _header_tags @ [0] = take(&mut rest)? else { return None };
        // Null is 0, and another length is one more than it is.
        let transactional_id = varint(&mut rest)?;
        skip(&mut rest, transactional_id.saturating_sub(1))?;
        let acks = i16::from_be_bytes(take(&mut rest)?);
        let [_timeout_ms @ .., topics] = take::<5>(&mut rest)?;
        let topic_id = take(&mut rest)?;
        let [partitions, partition @ ..] = take::<5>(&mut rest)?;
        let length = varint(&mut rest)?.checked_sub(1)?;
        let batch = rest.get(..length)?;
        let one_batch = topics == 2 && partitions == 2 && length > HEAD_BYTES;
        (one_batch && acks != 0).then_some(Self { correlation_id, topic_id, partition, batch })
    }

    /// Whether the batch's CRC-32C is the one that it names.
    pub fn is_intact(&self) -> bool {
        self.batch[CRC_AT..SUMMED_FROM] == crc32c::crc32c(&self.batch[SUMMED_FROM..]).to_be_bytes()
    }

    /// How many records the batch says it has.
    pub fn records(&self) -> i64 {
        let count = &self.batch[HEAD_BYTES - 4..HEAD_BYTES];
        count.iter().fold(0, |count, byte| count << 8 | i64::from(*byte))
    }

    /// The whole answer with its length.
    pub fn answer(&self, base_offset: i64) -> Vec<u8> {
        let mut reply = Vec::with_capacity(96);
        reply.extend_from_slice(&[0; 4]);
        reply.extend_from_slice(&self.correlation_id);
        // The header's tags; one topic.
        reply.extend_from_slice(&[0, 2]);
        reply.extend_from_slice(&self.topic_id);
        reply.push(2);
        reply.extend_from_slice(&self.partition);
        reply.extend_from_slice(&[0; 2]);
        reply.extend_from_slice(&base_offset.to_be_bytes());
        // No time of append; the log starts at 0.
        reply.extend_from_slice(&(-1_i64).to_be_bytes());
        reply.extend_from_slice(&0_i64.to_be_bytes());
        // No errors of records, no message; the tags of partition and topic; no throttling; the tags of the response.
        reply.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let length = (reply.len() - 4) as u32;
        reply[..4].copy_from_slice(&length.to_be_bytes());
        reply
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

/// An unsigned varint of at most four bytes: no frame is longer.
fn varint(rest: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for place in 0..4 {
        let [byte] = take(rest)?;
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(batch: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 13, 1, 2, 3, 4, 0, 1, b'c', 0, 0, 0xff, 0xff, 0, 0, 3, 0xe8, 2];
        frame.extend_from_slice(&[7; 16]);
        frame.extend_from_slice(&[2, 0, 0, 0, 5]);
        frame.extend_from_slice(&[(batch.len() + 1) as u8]);
        frame.extend_from_slice(batch);
        frame.extend_from_slice(&[0, 0, 0]);
        frame
    }

    #[test]
    fn a_request_is_read_and_answered_and_a_cut_or_bent_one_is_not() {
        let mut batch = [9; 80];
        batch[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&[0, 0, 1, 2]);
        let sum = crc32c::crc32c(&batch[SUMMED_FROM..]).to_be_bytes();
        batch[CRC_AT..SUMMED_FROM].copy_from_slice(&sum);
        let frame = request(&batch);
        let produce = Produce::read(&frame).expect("a request");
        assert_eq!((produce.partition, produce.batch, produce.records()), ([0, 0, 0, 5], &batch[..], 258));
        assert!(produce.is_intact());
        let answer = produce.answer(77);
        assert_eq!(answer[..4], (answer.len() as u32 - 4).to_be_bytes());
        assert_eq!(answer[4..10], [1, 2, 3, 4, 0, 2]);
        let end = frame.len() - 3;
        assert!((0..end).all(|cut| Produce::read(&frame[..cut]).is_none()));
        batch[70] ^= 1;
        assert!(!Produce::read(&request(&batch)).expect("a request").is_intact());
        assert_eq!(Produce::read(&request(&batch[..20])), None);
    }
}

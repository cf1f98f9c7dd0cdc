//! The answer to a fetch, written around the records: they are not copied, and not even touched.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use kafka_protocol::{messages::FetchResponse, protocol::HeaderVersion};

use crate::{
    api::{
        Outcome,
        call::{code, storage_error_for, throttle_time_ms},
    },
    base::ErrorCode,
    io::Slice,
    partition::fetch_session::TopicRef,
    protocol::frame,
    replica::Fetched,
};

/// The last version whose clients do not know KAFKA_STORAGE_ERROR (KIP-112).
const LAST_WITHOUT_STORAGE_ERROR: i16 = 5;

/// One topic of the answer.
pub(super) struct TopicAnswer {
    /// As the client calls it: by name up to v12, by id from v13 on.
    pub topic: TopicRef,
    /// Index and what was read.
    pub partitions: Vec<(i32, Fetched)>,
}

/// An answer in the making.
pub(super) struct Reply {
    correlation_id: i32,
    version: i16,
    /// Whether aborted transactions are listed: none so far, but then as an empty list, not as null.
    read_committed: bool,
    error: Option<ErrorCode>,
    /// For how long the client is not read from.
    mute: Duration,
    /// 0: no session.
    pub session_id: i32,
    /// The topics.
    pub topics: Vec<TopicAnswer>,
}

impl Reply {
    /// An empty answer.
    pub fn new(correlation_id: i32, version: i16, read_committed: bool) -> Self {
        Self {
            correlation_id,
            version,
            read_committed,
            error: None,
            mute: Duration::ZERO,
            session_id: 0,
            topics: Vec::new(),
        }
    }

    /// The client is not read from for so long.
    pub fn mute(&mut self, time: Duration) {
        self.mute = time;
    }

    /// The whole fetch is refused.
    pub fn refuse(mut self, error: ErrorCode) -> Outcome {
        self.error = Some(error);
        self.topics.clear();
        self.encode()
    }

    /// Writes the answer. Two pieces per partition with records: what stands before them, and they themselves.
    pub fn encode(self) -> Outcome {
        let flexible = self.version >= 12;
        let mut out = Writer {
            head: frame::start_reply(self.correlation_id, FetchResponse::header_version(self.version), 256),
            cuts: Vec::new(),
            record_bytes: 0,
            flexible,
        };
        out.head.put_i32(throttle_time_ms(self.mute));
        if self.version >= 7 {
            out.head.put_i16(code(self.error));
            out.head.put_i32(self.session_id);
        }
        out.count(self.topics.len());
        for topic in self.topics {
            match &topic.topic {
                TopicRef::Name(name) => out.text(name),
                TopicRef::Id(id) => out.head.put_slice(id.0.as_bytes()),
            }
            out.count(topic.partitions.len());
            for (index, fetched) in topic.partitions {
                out.partition(self.version, index, self.read_committed, fetched);
            }
            out.no_tags();
        }
        out.no_tags();
        Outcome::Reply(out.finish(), self.mute)
    }
}

struct Writer {
    head: BytesMut,
    /// Records, and after how many bytes of `head` they go out.
    cuts: Vec<(usize, Vec<Slice>)>,
    record_bytes: usize,
    flexible: bool,
}

impl Writer {
    fn partition(&mut self, version: i16, index: i32, read_committed: bool, fetched: Fetched) {
        self.head.put_i32(index);
        let error = fetched.error.map(|error| storage_error_for(version, LAST_WITHOUT_STORAGE_ERROR, error));
        self.head.put_i16(code(error));
        self.head.put_i64(fetched.high_watermark.0);
        self.head.put_i64(fetched.last_stable_offset.0);
        if version >= 5 {
            self.head.put_i64(fetched.log_start_offset.0);
        }
        // Kafka writes an empty list for what it does not know, and null for what it refuses.
        let unknown = matches!(fetched.error, Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId));
        if unknown || (read_committed && fetched.error.is_none()) {
            self.count(0);
        } else {
            self.null_list();
        }
        if version >= 11 {
            self.head.put_i32(-1); // preferred read replica
        }
        self.records(fetched.records);
        match fetched.diverging.filter(|_| version >= 12) {
            Some((epoch, end_offset)) => {
                self.uvarint(1); // one tagged field,
                self.uvarint(0); // the diverging epoch,
                self.uvarint(13); // of 4 + 8 + 1 bytes.
                self.head.put_i32(epoch.0);
                self.head.put_i64(end_offset.0);
                self.no_tags();
            }
            None => self.no_tags(),
        }
    }

    fn records(&mut self, records: Vec<Slice>) {
        let bytes: usize = records.iter().map(|slice| slice.len()).sum();
        if self.flexible {
            self.uvarint(bytes as u32 + 1);
        } else {
            self.head.put_i32(bytes as i32);
        }
        if bytes > 0 {
            self.record_bytes += bytes;
            self.cuts.push((self.head.len(), records));
        }
    }

    fn finish(self) -> Vec<Slice> {
        let head = frame::finish_reply(self.head, self.record_bytes);
        let mut pieces = Vec::with_capacity(2 * self.cuts.len() + 1);
        let mut from = 0;
        for (upto, records) in self.cuts {
            pieces.push(head.slice(from..upto).into());
            pieces.extend(records.into_iter().filter(|slice| !slice.is_empty()));
            from = upto;
        }
        if from < head.len() {
            pieces.push(head.slice(from..).into());
        }
        pieces
    }

    fn count(&mut self, count: usize) {
        if self.flexible { self.uvarint(count as u32 + 1) } else { self.head.put_i32(count as i32) }
    }

    fn null_list(&mut self) {
        if self.flexible { self.uvarint(0) } else { self.head.put_i32(-1) }
    }

    /// A topic's name as the request had it, so it fits into two bytes of length where there are only two.
    fn text(&mut self, text: &str) {
        if self.flexible {
            self.uvarint(text.len() as u32 + 1)
        } else {
            self.head.put_i16(text.len() as i16)
        }
        self.head.put_slice(text.as_bytes());
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.head.put_u8(0);
        }
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.head.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.head.put_u8(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::{
        TopicName,
        fetch_response::{EpochEndOffset, FetchableTopicResponse, PartitionData},
    };
    use uuid::Uuid;

    use super::*;
    use crate::base::{LeaderEpoch, Offset, TopicId};

    fn fetched(records: &[&'static [u8]]) -> Fetched {
        Fetched {
            high_watermark: Offset(1 << 40),
            last_stable_offset: Offset(77),
            log_start_offset: Offset(3),
            bytes: records.iter().map(|records| records.len()).sum(),
            records: records.iter().map(|records| Bytes::from_static(records).into()).collect(),
            ..Fetched::default()
        }
    }

    fn partitions() -> Vec<(i32, Fetched)> {
        static LONG: [u8; 20_000] = [7; 20_000];
        let diverging = Some((LeaderEpoch(5), Offset(900)));
        vec![
            (0, fetched(&[b"one batch", &LONG, b"another"])),
            (1, fetched(&[])),
            (2, Fetched::refused(ErrorCode::OffsetOutOfRange)),
            (3, Fetched { diverging, ..fetched(&[]) }),
            (4, Fetched::refused(ErrorCode::UnknownTopicOrPartition)),
            (5, Fetched::refused(ErrorCode::KafkaStorageError)),
            (300, fetched(&[b"last"])),
        ]
    }

    /// What the codec says for the same answer.
    fn codec(version: i16, read_committed: bool) -> Bytes {
        let partition = |(index, fetched): (i32, Fetched)| {
            let unknown = fetched.error == Some(ErrorCode::UnknownTopicOrPartition);
            let records: Vec<u8> = fetched.records.iter().flat_map(|slice| slice.to_vec()).collect();
            let error = match fetched.error {
                // Clients up to v5 take it for final.
                Some(ErrorCode::KafkaStorageError) if version <= 5 => Some(ErrorCode::NotLeaderOrFollower),
                error => error,
            };
            let mut data = PartitionData::default()
                .with_partition_index(index)
                .with_error_code(code(error))
                .with_high_watermark(fetched.high_watermark.0)
                .with_last_stable_offset(fetched.last_stable_offset.0)
                .with_log_start_offset(fetched.log_start_offset.0)
                .with_aborted_transactions((unknown || (read_committed && fetched.error.is_none())).then(Vec::new))
                .with_preferred_read_replica((-1).into())
                .with_records(Some(records.into()));
            if let Some((epoch, end)) = fetched.diverging.filter(|_| version >= 12) {
                data.diverging_epoch = EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0);
            }
            data
        };
        let topic = |name: &'static str, partitions| {
            let topic = FetchableTopicResponse::default().with_partitions(partitions);
            if version >= 13 {
                topic.with_topic_id(Uuid::from_u128(9))
            } else {
                topic.with_topic(TopicName(kafka_protocol::protocol::StrBytes::from_static_str(name)))
            }
        };
        let response =
            FetchResponse::default().with_session_id(if version >= 7 { 12 } else { 0 }).with_responses(vec![
                topic("t", partitions().into_iter().map(partition).collect()),
                topic("empty", vec![]),
            ]);
        frame::reply(41, version, &response).expect("encodes")
    }

    #[test]
    fn answers_are_the_codec_s_byte_for_byte() {
        for (version, read_committed) in (4..=18).flat_map(|version| [(version, false), (version, true)]) {
            let topic = |name: &str, partitions| {
                let id = TopicRef::Id(TopicId(Uuid::from_u128(9)));
                TopicAnswer { topic: if version >= 13 { id } else { TopicRef::Name(name.into()) }, partitions }
            };
            let mut reply = Reply::new(41, version, read_committed);
            reply.session_id = 12;
            reply.topics = vec![topic("t", partitions()), topic("empty", vec![])];
            let Outcome::Reply(pieces, _) = reply.encode() else { panic!("an answer") };
            assert_eq!(pieces.len(), 2 + 3 + 1 + 1, "head, three slices, head, a slice, tail");
            let whole: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            assert_eq!(whole, codec(version, read_committed), "v{version} read_committed {read_committed}");
        }
    }

    #[test]
    fn a_refusal_has_no_topics() {
        let refusal = |version| {
            let Outcome::Reply(pieces, _) = Reply::new(1, version, false).refuse(ErrorCode::FetchSessionIdNotFound)
            else {
                panic!("an answer")
            };
            pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>()
        };
        assert_eq!(refusal(7), b"\0\0\0\x12\0\0\0\x01\0\0\0\0\0\x46\0\0\0\0\0\0\0\0");
        assert_eq!(refusal(12), b"\0\0\0\x11\0\0\0\x01\0\0\0\0\0\0\x46\0\0\0\0\x01\0");
    }
}

//! What voters send one another, as bytes. Raft's messages are taken apart and put together field by field, with every
//! length and number checked: nothing that comes from a network is parsed by its protobuf.

use ::raft::{
    CAMPAIGN_TRANSFER,
    eraftpb::{Entry, Message, MessageType, Snapshot},
};

use super::entry;
use crate::{
    base::BrokerId,
    protocol::primitives::{DecodeError, Reader, Writer},
};

/// The longest packet. An entry is sent whole, and a snapshot in pieces.
pub const PACKET_BYTES_MAX: usize = entry::BYTES_MAX + 64 * 1024;
/// The longest piece of a snapshot.
pub const PIECE_BYTES_MAX: usize = if cfg!(test) { 1024 } else { 256 * 1024 };
/// The largest snapshot that is asked for: the records of some millions of partitions.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// The highest index and offset: room to count on from, whatever is added.
pub const NUMBER_MAX: u64 = 1 << 60;
/// The highest term: an epoch in Kafka is an `i32`, and counts on from here.
pub const TERM_MAX: u64 = i32::MAX as u64 - 1;

const VERSION: i8 = 1;
/// An entry of a message takes at least its term and its length.
const ENTRY_BYTES_MIN: usize = 12;

/// Why a packet is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes mean nothing.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// More bytes than any packet has.
    #[error("{0} bytes")]
    Length(usize),
    /// Another version of these packets.
    #[error("version {0} of the voters' packets")]
    Version(i8),
    /// The sender has another list of voters.
    #[error("the sender has another controller.quorum.voters")]
    OtherVoters,
    /// The sender is none of the voters, or not who it says.
    #[error("broker {0} is no other voter")]
    Stranger(BrokerId),
    /// A field that nobody would send.
    #[error("{0}")]
    Field(&'static str),
}

/// What stands before every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of the list of voters: brokers that have another one are another quorum.
    pub quorum: u32,
    /// Of the disk that the sender writes to.
    pub from_disk: u64,
    /// Of the disk that the sender has last heard of at the receiver; 0 if it has heard of none.
    pub to_disk: u64,
}

/// What one voter says to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// A message of raft's.
    Raft(Message),
    /// The sender's disk is empty: how far are you?
    Question,
    /// The answer to a question.
    Answer(Answer),
    /// Asks for a piece of a snapshot.
    Want(Mark, u64),
    /// A piece of a snapshot.
    Piece(Piece),
    /// The snapshot that was asked for is there no more.
    Gone(Mark),
}

/// How far a voter's disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The term that it has reached.
    pub term: u64,
    /// The last entry of its log: term, then index.
    pub last: (u64, u64),
}

/// An entry, by the term in which it was proposed and where it lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The last entry in the snapshot.
    pub mark: Mark,
    /// Where it begins.
    pub position: u64,
    /// The length of the whole.
    pub total: u64,
    /// Never empty.
    pub bytes: Vec<u8>,
}

/// Writes a packet.
pub fn encode(head: &Head, packet: &Packet) -> Vec<u8> {
    let mut out = Writer::new();
    out.i8(VERSION);
    out.i32(head.quorum as i32);
    out.i64(head.from_disk as i64);
    out.i64(head.to_disk as i64);
    match packet {
        Packet::Raft(message) => {
            out.i8(0);
            write_message(&mut out, message);
        }
        Packet::Question => out.i8(1),
        Packet::Answer(Answer { term, last }) => {
            out.i8(2);
            [*term, last.0, last.1].into_iter().for_each(|number| write_number(&mut out, number));
        }
        Packet::Want(mark, position) => {
            out.i8(3);
            write_mark(&mut out, *mark);
            write_number(&mut out, *position);
        }
        Packet::Piece(Piece { mark, position, total, bytes }) => {
            out.i8(4);
            write_mark(&mut out, *mark);
            write_number(&mut out, *position);
            write_number(&mut out, *total);
            out.bytes(bytes);
        }
        Packet::Gone(mark) => {
            out.i8(5);
            write_mark(&mut out, *mark);
        }
    }
    out.into_vec()
}

/// Reads a packet. Who is named as sender and receiver of a message is not looked at here.
/// # Errors  Bytes that no voter with these voters would send.
pub fn decode(bytes: &[u8], quorum: u32) -> Result<(Head, Packet), Malformed> {
    if bytes.len() > PACKET_BYTES_MAX {
        return Err(Malformed::Length(bytes.len()));
    }
    let mut reader = Reader::new(bytes);
    let version = reader.i8()?;
    if version != VERSION {
        return Err(Malformed::Version(version));
    }
    if reader.i32()? as u32 != quorum {
        return Err(Malformed::OtherVoters);
    }
    let head = Head { quorum, from_disk: reader.i64()? as u64, to_disk: reader.i64()? as u64 };
    if head.from_disk == 0 {
        return Err(Malformed::Field("a disk without a number"));
    }
    let packet = match reader.i8()? {
        0 => Packet::Raft(read_message(&mut reader)?),
        1 => Packet::Question,
        2 => Packet::Answer(Answer {
            term: read_term(&mut reader)?,
            last: (read_term(&mut reader)?, read_number(&mut reader)?),
        }),
        3 => Packet::Want(read_mark(&mut reader)?, read_number(&mut reader)?),
        4 => Packet::Piece(read_piece(&mut reader)?),
        5 => Packet::Gone(read_mark(&mut reader)?),
        _ => return Err(Malformed::Field("an unknown kind of packet")),
    };
    reader.end()?;
    Ok((head, packet))
}

fn write_number(out: &mut Writer, number: u64) {
    debug_assert!(number <= NUMBER_MAX, "{number} is no index");
    out.i64(number as i64);
}

fn read_number(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    match u64::try_from(reader.i64()?) {
        Ok(number) if number <= NUMBER_MAX => Ok(number),
        Ok(_) | Err(_) => Err(Malformed::Field("a number out of range")),
    }
}

fn read_flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.i8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::Field("a flag that is neither")),
    }
}

fn read_term(reader: &mut Reader<'_>) -> Result<u64, Malformed> {
    let term = read_number(reader)?;
    if term > TERM_MAX { Err(Malformed::Field("a term out of range")) } else { Ok(term) }
}

fn write_mark(out: &mut Writer, mark: Mark) {
    write_number(out, mark.term);
    write_number(out, mark.index);
}

fn read_mark(reader: &mut Reader<'_>) -> Result<Mark, Malformed> {
    Ok(Mark { term: read_term(reader)?, index: read_number(reader)? })
}

fn read_piece(reader: &mut Reader<'_>) -> Result<Piece, Malformed> {
    let (mark, position, total) = (read_mark(reader)?, read_number(reader)?, read_number(reader)?);
    let bytes = reader.bytes()?;
    let fits = position.checked_add(bytes.len() as u64).is_some_and(|end| end <= total);
    if bytes.is_empty() || bytes.len() > PIECE_BYTES_MAX || !fits || total > SNAPSHOT_BYTES_MAX {
        return Err(Malformed::Field("a piece that does not lie in its snapshot"));
    }
    Ok(Piece { mark, position, total, bytes: bytes.to_vec() })
}

/// The kinds of messages that cross the network, each with its number there. All others a voter only says to itself.
const KINDS: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

#[cfg(test)]
pub fn kinds() -> [MessageType; 10] {
    KINDS
}

/// The number of a kind on the wire; none if it does not cross the network.
pub fn kind(of: MessageType) -> Option<usize> {
    KINDS.iter().position(|kind| *kind == of)
}

fn write_message(out: &mut Writer, message: &Message) {
    let kind = kind(message.get_msg_type()).expect("only what crosses the network is sent");
    out.i8(kind as i8);
    out.bool(message.reject);
    out.bool(message.context[..] == *CAMPAIGN_TRANSFER);
    for number in numbers(message) {
        write_number(out, number);
    }
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let metadata = message.get_snapshot().get_metadata();
        write_mark(out, Mark { term: metadata.term, index: metadata.index });
        write_number(out, end_offset(message.get_snapshot()));
    }
    out.array_count(message.get_entries().len());
    for entry in message.get_entries() {
        write_number(out, entry.term);
        out.bytes(&entry.data);
    }
}

fn numbers(message: &Message) -> [u64; 8] {
    let Message { from, to, term, log_term, index, commit, commit_term, reject_hint, .. } = message;
    [*from, *to, *term, *log_term, *index, *commit, *commit_term, *reject_hint]
}

fn read_message(reader: &mut Reader<'_>) -> Result<Message, Malformed> {
    let kind = usize::try_from(reader.i8()?).ok().and_then(|kind| KINDS.get(kind).copied());
    let kind = kind.ok_or(Malformed::Field("an unknown kind of message"))?;
    let mut message = Message::default();
    message.set_msg_type(kind);
    message.reject = read_flag(reader)?;
    if read_flag(reader)? {
        message.context = CAMPAIGN_TRANSFER.into();
    }
    message.from = read_number(reader)?;
    message.to = read_number(reader)?;
    message.term = read_term(reader)?;
    message.log_term = read_term(reader)?;
    message.index = read_number(reader)?;
    message.commit = read_number(reader)?;
    message.commit_term = read_term(reader)?;
    message.reject_hint = read_number(reader)?;
    if message.term == 0 {
        return Err(Malformed::Field("a message of no term"));
    }
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let mark = read_mark(reader)?;
        if mark.index == 0 || mark.term == 0 || mark.term > message.term {
            return Err(Malformed::Field("a snapshot of nothing, or of what is to come"));
        }
        message.set_snapshot(snapshot(mark, read_number(reader)?));
    }
    read_entries(reader, &mut message)?;
    Ok(message)
}

/// Entries follow one another, and none is of a later term than the message.
fn read_entries(reader: &mut Reader<'_>, message: &mut Message) -> Result<(), Malformed> {
    let count = reader.array_count(ENTRY_BYTES_MIN)?;
    if count > 0 && message.get_msg_type() != MessageType::MsgAppend {
        return Err(Malformed::Field("entries in a message that has none"));
    }
    let (mut index, mut term) = (message.index, message.log_term);
    let mut entries = Vec::new();
    for _ in 0..count {
        let mut entry = Entry::default();
        index += 1;
        entry.index = index;
        entry.term = read_term(reader)?;
        if entry.term == 0 || entry.term < term || entry.term > message.term {
            return Err(Malformed::Field("an entry of a term that does not fit"));
        }
        term = entry.term;
        let data = reader.bytes()?;
        if entry::records(data).is_none() {
            return Err(Malformed::Field("an entry that is no batch of metadata records"));
        }
        entry.data = data.to_vec().into();
        entries.push(entry);
    }
    message.set_entries(entries.into());
    Ok(())
}

/// A snapshot as raft sees it: where it ends in raft's log and in that of the metadata. Its records travel by themselves.
pub fn snapshot(mark: Mark, end_offset: u64) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = mark.index;
    snapshot.mut_metadata().term = mark.term;
    snapshot.data = end_offset.to_be_bytes().to_vec().into();
    snapshot
}

/// Where a snapshot ends in the log of the metadata.
pub fn end_offset(snapshot: &Snapshot) -> u64 {
    snapshot.data[..].try_into().map(u64::from_be_bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { quorum: 0xfeed_beef, from_disk: u64::MAX, to_disk: 7 };

    fn message(kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.from, message.to, message.term, message.log_term) = (1, 2, 9, 5);
        (message.index, message.commit, message.commit_term, message.reject_hint) = (40, 30, 4, 39);
        message.reject = true;
        message
    }

    fn packets() -> Vec<Packet> {
        let plain = KINDS.iter().filter(|kind| **kind != MessageType::MsgSnapshot);
        let mut packets: Vec<Packet> = plain.map(|kind| message(*kind)).map(Packet::Raft).collect();
        let mut append = message(MessageType::MsgAppend);
        let entries = [(5, entry::tests::data(2)), (5, Vec::new()), (8, entry::tests::data(1))];
        let entries = entries.into_iter().enumerate().map(|(place, (term, data))| {
            let mut entry = Entry::default();
            (entry.index, entry.term, entry.data) = (41 + place as u64, term, data.into());
            entry
        });
        append.set_entries(entries.collect::<Vec<_>>().into());
        packets.push(Packet::Raft(append));
        let mut snapshots = message(MessageType::MsgSnapshot);
        snapshots.set_snapshot(snapshot(Mark { term: 3, index: 12 }, 77));
        packets.push(Packet::Raft(snapshots));
        let mut vote = message(MessageType::MsgRequestVote);
        vote.context = CAMPAIGN_TRANSFER.into();
        packets.push(Packet::Raft(vote));
        let mark = Mark { term: 3, index: 12 };
        packets.extend([
            Packet::Question,
            Packet::Answer(Answer { term: 4, last: (3, 12) }),
            Packet::Want(mark, 1 << 20),
            Packet::Piece(Piece { mark, position: 5, total: 9, bytes: vec![1, 2, 3, 4] }),
            Packet::Gone(mark),
        ]);
        packets
    }

    #[test]
    fn what_is_written_reads_back() {
        for packet in packets() {
            let bytes = encode(&HEAD, &packet);
            assert_eq!(decode(&bytes, HEAD.quorum), Ok((HEAD, packet)));
        }
    }

    #[test]
    fn no_byte_may_be_missing_and_none_may_follow() {
        for packet in packets() {
            let mut bytes = encode(&HEAD, &packet);
            for length in 0..bytes.len() {
                assert!(decode(&bytes[..length], HEAD.quorum).is_err(), "{packet:?} cut at {length}");
            }
            bytes.push(0);
            assert!(decode(&bytes, HEAD.quorum).is_err(), "{packet:?} and a byte");
        }
    }

    /// Whatever is changed, it is refused, or it is a packet that could have been sent.
    #[test]
    fn no_bit_makes_more_than_an_error() {
        for packet in packets() {
            let bytes = encode(&HEAD, &packet);
            for byte in 0..bytes.len() {
                for bit in 0..8 {
                    let mut damaged = bytes.clone();
                    damaged[byte] ^= 1 << bit;
                    if let Ok((head, packet)) = decode(&damaged, HEAD.quorum) {
                        assert_eq!(encode(&head, &packet), damaged, "bit {bit} of byte {byte}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_nobody_sends_is_refused() {
        let forged = |packet: &Packet| decode(&encode(&HEAD, packet), HEAD.quorum).expect_err("forged");
        let mut of_no_term = message(MessageType::MsgHeartbeat);
        of_no_term.term = 0;
        assert_eq!(forged(&Packet::Raft(of_no_term)), Malformed::Field("a message of no term"));
        let mut late = message(MessageType::MsgHeartbeat);
        late.term = TERM_MAX + 1;
        assert_eq!(forged(&Packet::Raft(late)), Malformed::Field("a term out of range"));
        for (kind, term, data, why) in [
            (MessageType::MsgHeartbeat, 9, Vec::new(), "entries in a message that has none"),
            (MessageType::MsgAppend, 10, Vec::new(), "an entry of a term that does not fit"),
            (MessageType::MsgAppend, 4, Vec::new(), "an entry of a term that does not fit"),
            (MessageType::MsgAppend, 9, vec![1], "an entry that is no batch of metadata records"),
        ] {
            let mut message = message(kind);
            let mut entry = Entry::default();
            (entry.term, entry.data) = (term, data.into());
            message.set_entries(vec![entry].into());
            assert_eq!(forged(&Packet::Raft(message)), Malformed::Field(why));
        }
        for (term, index) in [(0, 5), (3, 0), (10, 5)] {
            let mut of_nothing = message(MessageType::MsgSnapshot);
            of_nothing.set_snapshot(snapshot(Mark { term, index }, 0));
            let why = "a snapshot of nothing, or of what is to come";
            assert_eq!(forged(&Packet::Raft(of_nothing)), Malformed::Field(why));
        }
        let mark = Mark::default();
        for (position, total, bytes) in [(0, 0, Vec::new()), (6, 9, vec![0; 4]), (0, SNAPSHOT_BYTES_MAX + 1, vec![0])] {
            let why = Malformed::Field("a piece that does not lie in its snapshot");
            assert_eq!(forged(&Packet::Piece(Piece { mark, position, total, bytes })), why);
        }
        // Voters are the same for ever, and no entry changes that: its kind does not travel.
        let mut change = message(MessageType::MsgAppend);
        let mut entry = Entry::default();
        entry.set_entry_type(::raft::eraftpb::EntryType::EntryConfChange);
        (entry.index, entry.term, entry.data) = (41, 9, vec![8, 1, 16, 3].into());
        change.set_entries(vec![entry].into());
        let why = "an entry that is no batch of metadata records";
        assert_eq!(forged(&Packet::Raft(change)), Malformed::Field(why));
        assert_eq!(decode(&encode(&HEAD, &Packet::Question), 1), Err(Malformed::OtherVoters));
        assert_eq!(decode(&vec![0; PACKET_BYTES_MAX + 1], 1), Err(Malformed::Length(PACKET_BYTES_MAX + 1)));
    }
}

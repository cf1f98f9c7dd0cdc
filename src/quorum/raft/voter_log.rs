//! Raft's log on the disk: one file of blocks, each written with one write that is durable when it is done, and never again.
//!
//! A block is a head (what it is, a sum, the disk's number, the block's number, its length), records, and zeros up to the
//! alignment of direct I/O. Only the last block may be torn, since the next one is written when it is durable: it is cut
//! off at the start. The log gets shorter by being written anew, in one block, as another file that takes the name.

use std::{
    io,
    path::{Path, PathBuf},
};

use ::raft::eraftpb::{Entry, HardState};
use tracing::warn;

use super::{
    entry,
    store::{Base, Store},
    voting::{Joined, Seat},
    wire::{Mark, NUMBER_MAX, TERM_MAX},
};
use crate::{
    base::{BrokerId, Offset},
    io::{ALIGNMENT, File, Io, OpenOptions, align_up},
    protocol::primitives::{DecodeError, Reader, Writer},
};

const FILE: &str = "quorum.log";
const MAGIC: i32 = 0x5254_514c;
const VERSION: i8 = 1;
/// Magic, sum, disk, block, length.
const HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 4;
/// Where the bytes begin that the sum covers.
const SUM_START: usize = 8;

/// Why the log cannot be used. The voter must not start: it would vote as if it had never voted.
#[derive(Debug, thiserror::Error)]
pub enum VoterLogError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is damaged at byte {position}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        position: u64,
        /// How that shows.
        what: &'static str,
    },
    /// The file is another quorum's.
    #[error("{} is of voter {found_me} among {found:?}, and controller.quorum.voters says {me} among {voters:?}", path.display())]
    OtherVoters {
        /// The file.
        path: PathBuf,
        /// Who wrote it.
        found_me: BrokerId,
        /// Which voters there were then.
        found: Vec<BrokerId>,
        /// Who reads it.
        me: BrokerId,
        /// Which voters there are now.
        voters: Vec<BrokerId>,
    },
}

/// A record of the log.
enum Record<'a> {
    /// The first one: whose log this is.
    Owner { me: BrokerId, voters: Vec<BrokerId> },
    /// The log begins anew behind an entry.
    Base(Base),
    /// Term, vote, and what is committed.
    HardState(HardState),
    /// An entry; those from its index on that came before it are gone.
    Entry { mark: Mark, data: &'a [u8] },
    /// The voter has heard from all others how far they are.
    Joined(Joined),
}

/// What one write adds.
#[derive(Debug, Default)]
pub struct Addition<'a> {
    /// The log begins anew, before anything else.
    pub base: Option<Base>,
    /// Entries.
    pub entries: &'a [Entry],
    /// Term, vote, and what is committed.
    pub hard_state: Option<HardState>,
    /// How far the others were.
    pub joined: Option<Joined>,
}

/// What a log says.
pub struct Restored {
    /// Hard state and entries.
    pub store: Store,
    /// Absent while the voter has not heard from all others.
    pub joined: Option<Joined>,
}

/// The open log. One task writes to it.
pub struct VoterLog {
    io: Io,
    path: PathBuf,
    owner: Vec<u8>,
    file: File,
    disk: u64,
    position: u64,
    next_block: u64,
}

impl VoterLog {
    /// Opens a voter's log, or makes it.
    /// # Errors  `Io`, `Damaged`, `OtherVoters`.
    pub async fn open(io: &Io, seat: &Seat) -> Result<(Self, Restored), VoterLogError> {
        let path = seat.directory.join(FILE);
        let failed = |error| VoterLogError::Io { path: path.clone(), error };
        io.disk.create_dir_all(&seat.directory).await.map_err(failed)?;
        if let Some(above) = seat.directory.parent() {
            io.disk.sync_dir(above).await.map_err(failed)?;
        }
        let owner = payload(&[Record::Owner { me: seat.me, voters: seat.voters.clone() }]);
        if !io.disk.exists(&path).await {
            // Never 0, which stands for a disk that is not known.
            let disk = io.rand.next_u64().max(1);
            io.disk.replace_file(&path, &block(disk, 0, &owner)).await.map_err(failed)?;
        }
        let bytes = io.disk.read_file(&path).await.map_err(failed)?;
        let read = read(&path, &bytes, seat)?;
        let file = reopened(io, &path).await.map_err(failed)?;
        if read.end < bytes.len() as u64 {
            warn!(path = %path.display(), position = read.end, "the last write to the quorum's log was cut short; it did not count yet");
            // What is left of it must not look like damage before the end, once something is written there.
            file.truncate(read.end).await.map_err(failed)?;
            file.sync().await.map_err(failed)?;
        }
        let (disk, position, next_block) = (read.disk, read.end, read.next_block);
        let log = Self { io: io.clone(), path, owner, file, disk, position, next_block };
        Ok((log, Restored { store: read.store, joined: read.joined }))
    }

    /// The number that this disk was given when its log was made: a wiped one has another.
    pub fn disk(&self) -> u64 {
        self.disk
    }

    /// How long the log is.
    pub fn bytes(&self) -> u64 {
        self.position
    }

    /// Where the log lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds to the log. What is added is durable when this is done.
    /// # Errors  The operating system's; then nothing is known of what was to be added, and the process must end.
    pub async fn append(&mut self, addition: &Addition<'_>) -> io::Result<()> {
        let mut records = Vec::with_capacity(addition.entries.len() + 3);
        records.extend(addition.base.map(Record::Base));
        records.extend(addition.entries.iter().map(of_entry));
        records.extend(addition.hard_state.clone().map(Record::HardState));
        records.extend(addition.joined.map(Record::Joined));
        let bytes = block(self.disk, self.next_block, &payload(&records));
        let mut buffer = self.io.disk.allocate(bytes.len());
        buffer.as_mut().copy_from_slice(&bytes);
        self.file.write(buffer.share(), self.position).await?;
        self.position += bytes.len() as u64;
        self.next_block += 1;
        Ok(())
    }

    /// Writes the log anew with what is left of it.
    /// # Errors  The operating system's; then one of the two is there, and the process must end, since which is not known.
    pub async fn rewrite(&mut self, store: &Rewritten, joined: Option<Joined>) -> io::Result<()> {
        let mut records = vec![Record::Base(store.base)];
        records.extend(store.entries.iter().map(of_entry));
        records.push(Record::HardState(store.hard_state.clone()));
        records.extend(joined.map(Record::Joined));
        let mut all = self.owner.clone();
        all.extend_from_slice(&payload(&records));
        let bytes = block(self.disk, 0, &all);
        self.io.disk.replace_file(&self.path, &bytes).await?;
        self.file = reopened(&self.io, &self.path).await?;
        (self.position, self.next_block) = (bytes.len() as u64, 1);
        Ok(())
    }
}

/// What is left of a log that gets shorter.
pub struct Rewritten {
    /// Where it begins.
    pub base: Base,
    /// Everything behind that.
    pub entries: Vec<Entry>,
    /// Term, vote, and what is committed.
    pub hard_state: HardState,
}

async fn reopened(io: &Io, path: &Path) -> io::Result<File> {
    io.disk.open(path, OpenOptions { create: false, durable: true }).await
}

fn of_entry(entry: &Entry) -> Record<'_> {
    Record::Entry { mark: Mark { term: entry.term, index: entry.index }, data: &entry.data }
}

fn block(disk: u64, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Writer::new();
    out.i32(MAGIC);
    out.i32(0);
    out.i64(disk as i64);
    out.i64(number as i64);
    out.bytes(payload);
    let mut bytes = out.into_vec();
    let sum = crc32c::crc32c(&bytes[SUM_START..]);
    bytes[4..SUM_START].copy_from_slice(&sum.to_be_bytes());
    bytes.resize(align_up(bytes.len()), 0);
    bytes
}

fn payload(records: &[Record<'_>]) -> Vec<u8> {
    let mut out = Writer::new();
    for record in records {
        match record {
            Record::Owner { me, voters } => {
                out.i8(0);
                out.i8(VERSION);
                out.i32(me.0);
                out.array_count(voters.len());
                voters.iter().for_each(|voter| out.i32(voter.0));
            }
            Record::Base(Base { mark, end_offset }) => {
                out.i8(1);
                [mark.term as i64, mark.index as i64, end_offset.0].into_iter().for_each(|number| out.i64(number));
            }
            Record::HardState(HardState { term, vote, commit, .. }) => {
                out.i8(2);
                [term, vote, commit].into_iter().for_each(|number| out.i64(*number as i64));
            }
            Record::Entry { mark, data } => {
                out.i8(3);
                out.i64(mark.term as i64);
                out.i64(mark.index as i64);
                out.bytes(data);
            }
            Record::Joined(Joined(mark)) => {
                out.i8(4);
                out.i64(mark.term as i64);
                out.i64(mark.index as i64);
            }
        }
    }
    out.into_vec()
}

struct Read {
    disk: u64,
    store: Store,
    joined: Option<Joined>,
    /// Where the last whole block ends.
    end: u64,
    next_block: u64,
}

fn read(path: &Path, bytes: &[u8], seat: &Seat) -> Result<Read, VoterLogError> {
    let damaged =
        |position: usize, what| VoterLogError::Damaged { path: path.to_owned(), position: position as u64, what };
    let Some((first, length)) = whole(bytes) else { return Err(damaged(0, "its first block is not whole")) };
    let mut read = Read { disk: first.disk, store: Store::new(seat.raft_ids()), joined: None, end: 0, next_block: 0 };
    if first.number != 0 {
        return Err(damaged(0, "its first block is another one"));
    }
    let mut position = 0;
    let mut next = Some((first, length));
    while let Some((found, length)) =
        next.filter(|(found, _)| found.disk == read.disk && found.number == read.next_block)
    {
        let is_first = position == 0;
        read_payload(&mut read, found.payload, seat, path, is_first)?.map_err(|what| damaged(position, what))?;
        position += length;
        read.next_block += 1;
        next = whole(&bytes[position..]);
    }
    // The last write may be torn. What was durable before it is not.
    for later in (position..bytes.len()).step_by(ALIGNMENT) {
        if whole(&bytes[later..]).is_some_and(|(found, _)| found.disk == read.disk && found.number >= read.next_block) {
            return Err(damaged(position, "a later block is whole"));
        }
    }
    read.end = position as u64;
    let hard_state = read.store.hard_state();
    let last = read.store.last();
    if hard_state.commit > last.index || hard_state.commit < read.store.base().mark.index || hard_state.term < last.term
    {
        return Err(damaged(
            position,
            "it ends before what it says is committed, or in a term that it has not reached",
        ));
    }
    Ok(read)
}

struct Block<'a> {
    disk: u64,
    number: u64,
    payload: &'a [u8],
}

/// The block at the start of `bytes` with its padded length, if it is whole.
fn whole(bytes: &[u8]) -> Option<(Block<'_>, usize)> {
    let mut reader = Reader::new(bytes);
    if reader.i32().ok()? != MAGIC {
        return None;
    }
    let sum = reader.i32().ok()? as u32;
    let (disk, number) = (reader.i64().ok()? as u64, reader.i64().ok()? as u64);
    let payload = reader.bytes().ok()?;
    let end = HEAD_BYTES + payload.len();
    let length = align_up(end);
    (length <= bytes.len() && crc32c::crc32c(&bytes[SUM_START..end]) == sum)
        .then_some((Block { disk, number, payload }, length))
}

/// Takes the records of a block. The inner error is about the records, the outer about whose they are.
fn read_payload(
    read: &mut Read,
    payload: &[u8],
    seat: &Seat,
    path: &Path,
    is_first: bool,
) -> Result<Result<(), &'static str>, VoterLogError> {
    let mut reader = Reader::new(payload);
    let mut expects_owner = is_first;
    while reader.left() > 0 {
        let record = match read_record(&mut reader) {
            Ok(Some(record)) => record,
            Ok(None) | Err(_) => return Ok(Err("a record that means nothing")),
        };
        match record {
            Record::Owner { me, voters } if expects_owner => {
                expects_owner = false;
                if me != seat.me || voters != seat.voters {
                    let (path, found_me, found) = (path.to_owned(), me, voters);
                    let (me, voters) = (seat.me, seat.voters.clone());
                    return Err(VoterLogError::OtherVoters { path, found_me, found, me, voters });
                }
            }
            record => {
                if let Err(what) = take(read, record, expects_owner) {
                    return Ok(Err(what));
                }
            }
        }
    }
    Ok(if expects_owner { Err("a log of nobody") } else { Ok(()) })
}

fn take(read: &mut Read, record: Record<'_>, expects_owner: bool) -> Result<(), &'static str> {
    if expects_owner {
        return Err("a log of nobody");
    }
    let is_in_range = |mark: Mark| mark.term <= TERM_MAX && mark.index <= NUMBER_MAX;
    match record {
        Record::Owner { .. } => return Err("an owner in the midst of a log"),
        Record::Base(base) => {
            if !is_in_range(base.mark) || base.end_offset < Offset::ZERO || base.end_offset.0 as u64 > NUMBER_MAX {
                return Err("a beginning out of range");
            }
            read.store.replace(base);
        }
        Record::HardState(hard_state) => {
            if hard_state.term > TERM_MAX || hard_state.commit > NUMBER_MAX {
                return Err("a term out of range");
            }
            read.store.set_hard_state(hard_state);
        }
        Record::Entry { mark, data } => {
            let last = read.store.last();
            let follows = mark.index > read.store.base().mark.index && mark.index <= last.index + 1;
            let term_before = read.store.term_of(mark.index.saturating_sub(1)).unwrap_or_default();
            if !is_in_range(mark) || !follows || mark.term < term_before || entry::record_count(data).is_none() {
                return Err("an entry that does not fit");
            }
            let data = data.to_vec().into();
            read.store.append(&[Entry { term: mark.term, index: mark.index, data, ..Entry::default() }]);
        }
        Record::Joined(joined) => {
            if !is_in_range(joined.0) {
                return Err("a term out of range");
            }
            read.joined = Some(joined);
        }
    }
    Ok(())
}

fn read_record<'a>(reader: &mut Reader<'a>) -> Result<Option<Record<'a>>, DecodeError> {
    let number = |reader: &mut Reader<'a>| reader.i64().map(|number| number as u64);
    let mark = |reader: &mut Reader<'a>| Ok::<_, DecodeError>(Mark { term: number(reader)?, index: number(reader)? });
    Ok(Some(match reader.i8()? {
        0 => {
            if reader.i8()? != VERSION {
                return Ok(None);
            }
            let me = BrokerId(reader.i32()?);
            let count = reader.array_count(4)?;
            let voters = (0..count).map(|_| reader.i32().map(BrokerId)).collect::<Result<_, _>>()?;
            Record::Owner { me, voters }
        }
        1 => Record::Base(Base { mark: mark(reader)?, end_offset: Offset(reader.i64()?) }),
        2 => {
            let (term, vote, commit) = (number(reader)?, number(reader)?, number(reader)?);
            Record::HardState(HardState { term, vote, commit, ..HardState::default() })
        }
        3 => Record::Entry { mark: mark(reader)?, data: reader.bytes()? },
        4 => Record::Joined(Joined(mark(reader)?)),
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::sim::Simulation;

    fn seat() -> Seat {
        Seat {
            me: BrokerId(2),
            voters: [1, 2, 3].map(BrokerId).to_vec(),
            directory: "data/quorum".into(),
            snapshots: "data/__cluster_metadata-0".into(),
            settings: Default::default(),
        }
    }

    fn entry(index: u64, term: u64, records: usize) -> Entry {
        let data = if records == 0 { Vec::new() } else { entry::tests::data(records) };
        Entry { index, term, data: data.into(), ..Entry::default() }
    }

    fn hard_state(term: u64, vote: u64, commit: u64) -> Option<HardState> {
        Some(HardState { term, vote, commit, ..HardState::default() })
    }

    fn told(restored: &Restored) -> String {
        let store = &restored.store;
        let HardState { term, vote, commit, .. } = store.hard_state();
        let base = store.base();
        let (first, end) = (base.mark.index + 1, store.end_offset());
        let entries: Vec<_> = store.from(first).map(|(entry, _)| format!("{}@{}", entry.index, entry.term)).collect();
        let joined = restored.joined.map_or_else(|| "alone".to_owned(), |Joined(mark)| format!("{mark:?}"));
        format!("term {term} vote {vote} commit {commit}, {} to {end}, {entries:?}, {joined}", base.end_offset)
    }

    const FILE_PATH: &str = "data/quorum/quorum.log";

    async fn write(io: &Io) {
        let (mut log, restored) = VoterLog::open(io, &seat()).await.expect("made");
        assert_eq!(told(&restored), "term 0 vote 0 commit 0, 0 to 0, [], alone");
        let joined = Some(Joined(Mark { term: 1, index: 2 }));
        log.append(&Addition { joined, hard_state: hard_state(1, 2, 0), ..Addition::default() }).await.expect("room");
        let entries = [entry(1, 1, 0), entry(2, 1, 3), entry(3, 1, 200)];
        log.append(&Addition { entries: &entries, ..Addition::default() }).await.expect("room");
        let entries = [entry(3, 2, 1)];
        log.append(&Addition { entries: &entries, hard_state: hard_state(2, 3, 2), ..Addition::default() })
            .await
            .expect("room");
    }

    const WRITTEN: &str = "term 2 vote 3 commit 2, 0 to 4, [\"1@1\", \"2@1\", \"3@2\"], Mark { term: 1, index: 2 }";

    #[test]
    fn what_is_written_reads_back_also_when_it_was_written_anew() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            write(&io).await;
            let (mut log, restored) = VoterLog::open(&io, &seat()).await.expect("whole");
            assert_eq!(told(&restored), WRITTEN);
            let disk = log.disk();
            let base = restored.store.ending_at(Offset(3), 2).expect("there");
            let entries = restored.store.from(3).map(|(entry, _)| entry.clone()).collect();
            let left = Rewritten { base, entries, hard_state: restored.store.hard_state().clone() };
            log.rewrite(&left, restored.joined).await.expect("room");
            log.append(&Addition { entries: &[entry(4, 2, 2)], ..Addition::default() }).await.expect("room");
            let (mut log, restored) = VoterLog::open(&io, &seat()).await.expect("whole");
            let anew = "term 2 vote 3 commit 2, 3 to 6, [\"3@2\", \"4@2\"], Mark { term: 1, index: 2 }";
            assert_eq!((told(&restored).as_str(), log.disk()), (anew, disk));
            let base = Base { mark: Mark { term: 2, index: 30 }, end_offset: Offset(70) };
            let hard_state = hard_state(2, 3, 30);
            log.append(&Addition { base: Some(base), hard_state, ..Addition::default() }).await.expect("room");
            let (_, restored) = VoterLog::open(&io, &seat()).await.expect("whole");
            assert!(told(&restored).contains("commit 30, 70 to 70, []"), "{}", told(&restored));
        });
    }

    /// The last write, cut anywhere, counts or does not; and what comes next is read back.
    #[test]
    fn a_torn_tail_is_cut_off() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            write(&io).await;
            let path = Path::new(FILE_PATH);
            let whole = io.disk.read_file(path).await.expect("there");
            let last = whole.len() - ALIGNMENT;
            let end = whole.iter().rposition(|byte| *byte != 0).expect("not only padding") + 1;
            for length in (last..whole.len()).step_by(64) {
                for fill in [0, 0xff] {
                    let mut bytes = whole[..length].to_vec();
                    bytes.resize(whole.len(), fill);
                    io.disk.write_file(path, &bytes, true).await.expect("written");
                    let (mut log, restored) = VoterLog::open(&io, &seat()).await.expect("torn");
                    let is_whole = bytes[..end] == whole[..end];
                    assert_eq!(told(&restored) == WRITTEN, is_whole, "cut at {length}");
                    if !is_whole {
                        assert!(told(&restored).contains("\"3@1\""), "{}", told(&restored));
                        let hard_state = hard_state(5, 1, 3);
                        log.append(&Addition { hard_state, ..Addition::default() }).await.expect("room");
                        let (_, restored) = VoterLog::open(&io, &seat()).await.expect("whole");
                        assert!(told(&restored).starts_with("term 5 vote 1 commit 3"), "{}", told(&restored));
                    }
                }
            }
        });
    }

    /// Only the last write may be torn: a bit that is wrong before it is damage, and is told with the file's name.
    #[test]
    fn damage_before_the_last_write_is_refused() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            write(&io).await;
            let path = Path::new(FILE_PATH);
            let whole = io.disk.read_file(path).await.expect("there");
            let last = whole.len() - ALIGNMENT;
            for byte in (0..last).filter(|byte| byte % ALIGNMENT < 60 || byte % 97 == 0) {
                let mut bytes = whole.clone();
                bytes[byte] ^= 1 << (byte % 8);
                io.disk.write_file(path, &bytes, true).await.expect("written");
                match VoterLog::open(&io, &seat()).await {
                    Ok((_, restored)) => assert_eq!(told(&restored), WRITTEN, "byte {byte} is padding"),
                    Err(error) => assert!(error.to_string().contains("quorum.log is damaged at byte"), "{error}"),
                }
            }
            io.disk.write_file(path, &[], true).await.expect("written");
            assert!(VoterLog::open(&io, &seat()).await.is_err(), "an empty file is no new log");
        });
    }

    /// What raft would panic about is told with words.
    #[test]
    fn what_is_committed_must_be_there() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            let (mut log, _) = VoterLog::open(&io, &seat()).await.expect("made");
            log.append(&Addition { hard_state: hard_state(3, 1, 8), ..Addition::default() }).await.expect("room");
            let error = VoterLog::open(&io, &seat()).await.err().expect("it ends before that").to_string();
            assert!(error.contains("it ends before what it says is committed"), "{error}");
        });
    }

    #[test]
    fn a_log_of_other_voters_is_refused() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            write(&io).await;
            let more = Seat { voters: [1, 2, 3, 4, 5].map(BrokerId).to_vec(), ..seat() };
            for other in [more, Seat { me: BrokerId(1), ..seat() }] {
                let error = VoterLog::open(&io, &other).await.err().expect("refused").to_string();
                assert!(error.contains("controller.quorum.voters says"), "{error}");
            }
        });
    }
}

//! All that is to be done to one file, said at once.

use std::{
    io::{self, ErrorKind},
    ops::Range,
    path::PathBuf,
};

use super::{ALIGNMENT, SharedBuffer};

/// One of the files of [`Disk::write_files`](super::Disk::write_files).
pub struct FileWrite {
    /// The file; made if it is not there.
    pub path: PathBuf,
    /// What must be true of its directory, if that is not known to be there.
    pub mark: Option<DirectoryMark>,
    /// From the file's length and the one that is needed to the one that it gets, with space for all of it. Asked only
    /// if the file is too short.
    pub grown: fn(u64, u64) -> u64,
    /// What is written, ascending.
    pub pieces: Vec<PieceWrite>,
}

/// Whose a directory is: a small file in it. If the directory is not there, both are made; if it is there, the file must
/// hold these very bytes.
pub struct DirectoryMark {
    /// The small file, in the directory in question.
    pub path: PathBuf,
    /// All that it holds.
    pub bytes: Vec<u8>,
}

/// A part of a buffer, on its way into a file.
pub struct PieceWrite {
    /// Where it goes, in bytes; aligned.
    pub position: u64,
    /// Where it lies.
    pub buffer: SharedBuffer,
    /// The part, aligned; bytes that are not published yet may be among it.
    pub range: Range<usize>,
}

/// One of the files of [`Disk::leave_files`](super::Disk::leave_files).
pub struct FileLeft {
    /// The file; made if it is not there.
    pub path: PathBuf,
    /// How it is left.
    pub left: Left,
}

/// How a file is to be when nothing more is done to it.
pub enum Left {
    /// Cut to this length in bytes.
    Cut(u64),
    /// Written anew: these bytes and no others.
    Whole(Vec<u8>),
}

impl PieceWrite {
    pub(super) fn end(&self) -> u64 {
        self.position + self.range.len() as u64
    }
}

impl FileWrite {
    /// The length that the file must have at least.
    pub(super) fn needed(&self) -> u64 {
        self.pieces.iter().map(PieceWrite::end).max().unwrap_or_default()
    }

    /// Bytes that are to be written.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(|piece| piece.range.len()).sum()
    }

    /// # Errors  `InvalidInput`
    pub(super) fn check(&self) -> io::Result<()> {
        let wrong = self.pieces.iter().find(|piece| {
            let range = &piece.range;
            let aligned = range.start.is_multiple_of(ALIGNMENT) && range.end.is_multiple_of(ALIGNMENT);
            let inside = range.start <= range.end && range.end <= piece.buffer.len();
            let fits = piece.position.checked_add(range.len() as u64).is_some_and(|end| i64::try_from(end).is_ok());
            !aligned || !piece.position.is_multiple_of(ALIGNMENT as u64) || !inside || !fits
        });
        let Some(PieceWrite { position, buffer, range }) = wrong else { return Ok(()) };
        let what = format!("write of {range:?} at {position} from a buffer of {}", buffer.len());
        Err(io::Error::new(ErrorKind::InvalidInput, what))
    }
}

impl DirectoryMark {
    pub(super) fn is_another(&self) -> io::Error {
        let what = format!("{} is not what this directory should have", self.path.display());
        io::Error::new(ErrorKind::AlreadyExists, what)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::io::{
        Io, OpenOptions,
        sim::{Faults, Simulation},
    };

    const BLOCK: usize = 4096;

    fn in_blocks(_: u64, needed: u64) -> u64 {
        needed.next_multiple_of(65536)
    }

    fn not_asked(_: u64, _: u64) -> u64 {
        unreachable!("the file is long enough")
    }

    /// More than any disk has.
    fn too_much(_: u64, _: u64) -> u64 {
        1 << 62
    }

    fn piece(io: &Io, fill: u8, blocks: usize, position: u64) -> PieceWrite {
        let mut buffer = io.disk.allocate(blocks * BLOCK);
        buffer.as_mut().fill(fill);
        PieceWrite { position, buffer: buffer.share(), range: 0..blocks * BLOCK }
    }

    fn write(
        path: &Path,
        mark: Option<DirectoryMark>,
        grown: fn(u64, u64) -> u64,
        pieces: Vec<PieceWrite>,
    ) -> FileWrite {
        FileWrite { path: path.to_owned(), mark, grown, pieces }
    }

    fn outcomes(results: &[io::Result<u64>]) -> Vec<Result<u64, ErrorKind>> {
        results.iter().map(|result| result.as_ref().copied().map_err(io::Error::kind)).collect()
    }

    /// The first byte of each block.
    async fn blocks(io: &Io, path: &Path) -> Vec<u8> {
        let file = io.disk.open(path, OpenOptions::default()).await.expect("the file is there");
        let length = usize::try_from(file.len().await.expect("an open file")).expect("a test's size");
        let bytes = file.read(0, length).await.expect("all of it");
        bytes.chunks(BLOCK).map(|block| block[0]).collect()
    }

    async fn files_are_made_grown_and_written(io: Io, root: PathBuf) {
        let disk = &io.disk;
        let (new, known) = (root.join("new"), root.join("known"));
        disk.create_dir_all(&known).await.unwrap();
        let mark = |text: &str| Some(DirectoryMark { path: new.join("mark"), bytes: text.into() });

        let results = disk
            .write_files(vec![
                write(&new.join("early"), None, in_blocks, vec![piece(&io, 9, 1, 0)]),
                write(&new.join("a"), mark("ours"), in_blocks, vec![piece(&io, 1, 1, 0), piece(&io, 2, 2, 4096)]),
                write(&new.join("b"), mark("theirs"), in_blocks, vec![piece(&io, 3, 1, 0)]),
                write(&known.join("c"), None, in_blocks, vec![piece(&io, 4, 1, 8192), piece(&io, 5, 17, 65536)]),
                write(&known.join("d"), None, in_blocks, vec![piece(&io, 6, 1, 100)]),
                write(&known.join("e"), None, too_much, vec![piece(&io, 7, 1, 0)]),
                write(
                    &known.join("f"),
                    Some(DirectoryMark { path: known.join("m"), bytes: vec![] }),
                    in_blocks,
                    vec![],
                ),
            ])
            .await;
        let mut outcomes_found = outcomes(&results);
        let full = outcomes_found.remove(5).unwrap_err();
        assert!([ErrorKind::StorageFull, ErrorKind::FileTooLarge].contains(&full), "{full:?}");
        let expected = [
            Err(ErrorKind::NotFound),
            Ok(65536),
            Err(ErrorKind::AlreadyExists),
            Ok(3 * 65536),
            Err(ErrorKind::InvalidInput),
            Err(ErrorKind::AlreadyExists),
        ];
        assert_eq!(outcomes_found, expected);
        assert_eq!(disk.read_file(&new.join("mark")).await.unwrap(), b"ours");
        assert_eq!(blocks(&io, &new.join("a")).await[..5], [1, 2, 2, 0, 0]);
        let c = blocks(&io, &known.join("c")).await;
        assert_eq!(
            (&c[..4], &c[15..18], &c[31..]),
            (&[0, 0, 4, 0][..], &[0, 5, 5][..], &[5, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..])
        );
        assert!(blocks(&io, &known.join("e")).await.is_empty(), "a file that cannot grow stays as long as it was");
        let names: Vec<String> = disk.read_dir(&known).await.unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["c", "e"], "what is refused is not begun");

        // Again, into what is there: a part of a buffer, and no growth where there is room.
        let mut part = piece(&io, 8, 3, 4096);
        part.range = BLOCK..2 * BLOCK;
        let again = disk
            .write_files(vec![
                write(&new.join("a"), mark("ours"), not_asked, vec![part]),
                write(&known.join("c"), None, too_much, vec![piece(&io, 9, 1, 3 * 65536)]),
            ])
            .await;
        assert_eq!(outcomes(&again)[0], Ok(65536));
        assert!(again[1].is_err());
        assert_eq!(blocks(&io, &new.join("a")).await[..4], [1, 8, 2, 0]);
        assert_eq!(blocks(&io, &known.join("c")).await, c, "what was there before is there still");
    }

    async fn files_are_left_as_they_are_to_be(io: Io, root: PathBuf) {
        let disk = &io.disk;
        disk.create_dir_all(&root).await.unwrap();
        let whole = |name: &str, text: &str| FileLeft { path: root.join(name), left: Left::Whole(text.into()) };
        let cut = |name: &str, length| FileLeft { path: root.join(name), left: Left::Cut(length) };
        disk.write_file(&root.join("long"), b"to be cut and to be replaced", true).await.unwrap();
        disk.write_file(&root.join("old"), b"to be replaced", true).await.unwrap();
        let files = vec![cut("long", 9), cut("new", 0), whole("old", "now"), whole("empty", ""), cut("longer", 5)];
        disk.leave_files(files).await.unwrap();
        let mut found = Vec::new();
        for entry in disk.read_dir(&root).await.unwrap() {
            found.push((disk.read_file(&root.join(&entry.name)).await.unwrap(), entry.name));
        }
        let found: Vec<_> = found.iter().map(|(bytes, name)| (name.as_str(), bytes.as_slice())).collect();
        let wanted: [(&str, &[u8]); 5] =
            [("empty", b""), ("long", b"to be cut"), ("longer", &[0; 5]), ("new", b""), ("old", b"now")];
        assert_eq!(found, wanted);

        let files = vec![whole("before", "is there"), whole("nowhere/a", ""), whole("behind", "is not")];
        let (place, error) = disk.leave_files(files).await.unwrap_err();
        assert_eq!((place, error.kind()), (1, ErrorKind::NotFound));
        assert!(disk.exists(&root.join("before")).await && !disk.exists(&root.join("behind")).await);
    }

    #[test]
    fn files_are_left_as_they_are_to_be_in_the_simulator() {
        let sim = Simulation::new(3);
        sim.block_on(0, 0, |io| files_are_left_as_they_are_to_be(io, "data".into()));
    }

    #[cfg(feature = "glommio")]
    #[test]
    fn files_are_left_as_they_are_to_be_on_this_machine() {
        on_this_machine("left-files", files_are_left_as_they_are_to_be);
    }

    #[cfg(feature = "glommio")]
    fn on_this_machine<F: Future<Output = ()> + 'static>(
        name: &str,
        body: impl FnOnce(Io, PathBuf) -> F + Copy + Send + 'static,
    ) {
        use crate::io::glommio::{Door, start};
        for door in [Door::Ring, Door::Glommio] {
            let root = std::env::temp_dir().join(format!("ringtail-io-{}-{name}", std::process::id()));
            let body = std::cell::Cell::new(Some({
                let root = root.clone();
                move |io| body(io, root)
            }));
            let executors = start(&[None], 64 * 1024, door, |_| body.take().expect("one core")).unwrap();
            let result = executors.join().remove(0);
            std::fs::remove_dir_all(&root).unwrap();
            result.unwrap();
        }
    }

    #[test]
    fn files_are_made_grown_and_written_in_the_simulator() {
        let sim = Simulation::new(1);
        sim.set_faults(0, Faults { capacity: 1 << 20, ..Faults::default() });
        sim.block_on(0, 0, |io| files_are_made_grown_and_written(io, "data".into()));
    }

    #[cfg(feature = "glommio")]
    #[test]
    fn files_are_made_grown_and_written_on_this_machine() {
        on_this_machine("whole-files", files_are_made_grown_and_written);
    }

    #[test]
    fn a_full_disk_keeps_what_it_had() {
        let sim = Simulation::new(2);
        sim.set_faults(0, Faults { capacity: 100_000, ..Faults::default() });
        sim.block_on(0, 0, |io| async move {
            let path = Path::new("f");
            let file = |position| vec![write(path, None, in_blocks, vec![piece(&io, 1, 1, position)])];
            assert_eq!(outcomes(&io.disk.write_files(file(0)).await), [Ok(65536)]);
            let free = io.disk.free_bytes(Path::new(".")).await.unwrap();
            assert_eq!(outcomes(&io.disk.write_files(file(65536)).await), [Err(ErrorKind::StorageFull)]);
            assert_eq!(io.disk.free_bytes(Path::new(".")).await.unwrap(), free);
            assert_eq!(blocks(&io, path).await.len(), 16);
        });
    }
}

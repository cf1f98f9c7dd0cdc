//! Writing a checkpoint in pieces: the images of ten thousand partitions are many megabytes, and no budget counts them.

use std::{io, path::Path};

use super::{CHECKPOINT_MAGIC, CheckpointHead};
use crate::{
    io::{Buffer, File, Io, OpenOptions},
    log::{pace::Pace, settings::BLOCK_BYTES, wire::Put},
};

/// What is held of the file at any time.
const PIECE_BYTES: usize = 256 << 10;

/// Writes a checkpoint over whatever the file holds; its bytes (not its name) are durable afterwards. A crash may leave a
/// part of it, which its sum tells.
/// # Errors  The system's.
pub async fn write_checkpoint(
    io: &Io,
    path: &Path,
    head: &CheckpointHead<'_>,
    images: &[impl AsRef<[u8]>],
) -> io::Result<()> {
    let head = head.encode(images.len());
    // The sum comes first in the file, so the images are gone through twice: writing it at the end would need the first
    // block once more, and the memory for it until then.
    let mut pace = Pace::new(io);
    let mut sum = crc32c::crc32c(&head);
    for image in images {
        sum = crc32c::crc32c_append(sum, image.as_ref());
        pace.step().await;
    }
    let mut front = Vec::with_capacity(8);
    front.put_u32(CHECKPOINT_MAGIC.versioned);
    front.put_u32(sum);
    let file = io.disk.open(path, OpenOptions { create: true, durable: false }).await?;
    let mut pieces = Pieces { io, file, position: 0, piece: None };
    pieces.add(&front).await?;
    pieces.add(&head).await?;
    for image in images {
        pieces.add(image.as_ref()).await?;
    }
    pieces.finish().await
}

/// A file on its way to the disk, piece by piece.
struct Pieces<'a> {
    io: &'a Io,
    file: File,
    /// Where the piece goes.
    position: u64,
    /// What is not written yet, with the bytes of it that are used.
    piece: Option<(Buffer, usize)>,
}

impl Pieces<'_> {
    async fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (buffer, used) = self.piece.get_or_insert_with(|| (self.io.disk.allocate(PIECE_BYTES), 0));
            let part = bytes.len().min(PIECE_BYTES - *used);
            buffer.as_mut()[*used..*used + part].copy_from_slice(&bytes[..part]);
            *used += part;
            bytes = &bytes[part..];
            if *used == PIECE_BYTES {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        let Some((mut buffer, used)) = self.piece.take() else { return Ok(()) };
        buffer.truncate(used.next_multiple_of(BLOCK_BYTES));
        self.file.write(buffer.share(), self.position).await?;
        self.position += used as u64;
        Ok(())
    }

    /// Cuts off what pads the last block, and what an earlier checkpoint had behind it.
    async fn finish(mut self) -> io::Result<()> {
        self.write().await?;
        self.file.truncate(self.position).await?;
        self.file.sync().await?;
        self.file.close().await
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc, time::Duration};

    use super::*;
    use crate::{io::sim::Simulation, log::checkpoint::encode_checkpoint};

    const HEAD: CheckpointHead<'_> =
        CheckpointHead { incarnation: &[7; 16], core: 3, generation: 8, first_sequence: 99 };

    fn images(count: usize, bytes: usize) -> Vec<Vec<u8>> {
        (0..count).map(|number| vec![number as u8; bytes + number % 7]).collect()
    }

    #[test]
    fn the_file_is_what_it_would_be_if_it_were_made_in_memory() {
        Simulation::new(1).block_on(0, 0, |io| async move {
            let path = Path::new("a.checkpoint");
            let around = PIECE_BYTES - 49;
            // Each over the one before, which is longer or shorter.
            for (count, bytes) in
                [(100, 9000), (0, 0), (3, 5), (1, around - 1), (1, around), (1, around + 1), (1, 4047)]
            {
                let images = images(count, bytes);
                write_checkpoint(&io, path, &HEAD, &images).await.unwrap();
                let found = io.disk.read_file(path).await.unwrap();
                assert!(found == encode_checkpoint(&HEAD, &images), "{count} images of {bytes} bytes");
            }
        });
    }

    #[test]
    fn however_long_it_is_two_pieces_are_held_at_the_most_and_others_have_their_turns() {
        const COUNT: usize = 64;
        Simulation::new(2).block_on(0, 0, |io| async move {
            let (most, turns, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let before = io.disk.live_bytes();
            let witness = (io.clone(), most.clone(), turns.clone(), done.clone());
            io.spawner.spawn(async move {
                let (io, most, turns, done) = witness;
                while !done.get() {
                    most.set((io.disk.live_bytes() - before).max(most.get()));
                    turns.set(turns.get() + 1);
                    io.clock.sleep(Duration::from_micros(1)).await;
                }
            });
            write_checkpoint(&io, Path::new("a.checkpoint"), &HEAD, &images(COUNT, PIECE_BYTES)).await.unwrap();
            done.set(true);
            assert!((PIECE_BYTES..=2 * PIECE_BYTES).contains(&most.get()), "{} bytes were held", most.get());
            assert!(turns.get() > COUNT, "{} turns of others", turns.get());
        });
    }
}

//! The file that says up to where everything is done with. `format` tells how it is laid out.

use std::io;

use crate::error::Error;
use crate::format::{BLOCK_BYTES, Block, BlockKind};
use crate::spool::Position;
use crate::storage::{Directory, OpenFile};

const NAME: &str = "cursor";

/// The distance between the two blocks, in bytes: a sector or a page of any disk at hand, at least.
const SLOT_BYTES: u64 = 4096;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Everything before it was acknowledged or dropped.
    pub(crate) front: Position,
    /// Every line of a lower ordinal was synced, or counted as lost.
    pub(crate) synced_line: u64,
}

#[derive(Debug)]
pub(crate) struct Cursor<F> {
    file: Option<F>,
    // The name of a new file may be lost in a crash.
    is_named: bool,
    stored: Option<Checkpoint>,
    // Of the next block.
    count: u64,
}

impl<F: OpenFile> Cursor<F> {
    /// Reads the file, if there is a usable one, and does not touch it.
    pub(crate) fn load<D>(directory: &D, identity: &str) -> Result<Self, Error>
    where
        D: Directory<File = F>,
    {
        let mut cursor = Self {
            file: None,
            is_named: true,
            stored: None,
            count: 0,
        };
        let file = match directory.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(cursor),
            Err(error) => return Err(Error::io(directory, "open", NAME)(error)),
        };
        for slot in [0, 1] {
            let mut block = [0; BLOCK_BYTES];
            file.read_at(&mut block, slot * SLOT_BYTES)
                .map_err(Error::io(directory, "read", NAME))?;
            let numbers = Block::decode(BlockKind::Cursor, &block, identity);
            let Some([count, rest @ ..]) = numbers.ours(directory, NAME, identity)? else {
                continue;
            };
            if cursor.stored.is_none() || count >= cursor.count {
                let [segment, offset, line, synced_line] = rest;
                let front = Position::new(segment, offset, line);
                cursor.stored = Some(Checkpoint { front, synced_line });
                cursor.count = count + 1;
            }
        }
        Ok(cursor)
    }

    /// What the file says; `None` where there is none, or nothing sound in it.
    pub(crate) fn stored(&self) -> Option<Checkpoint> {
        self.stored
    }

    /// Makes the file say `checkpoint`, durably. After an error it says that or what it said before.
    pub(crate) fn store<D>(
        &mut self,
        directory: &D,
        identity: &str,
        checkpoint: Checkpoint,
    ) -> Result<(), Error>
    where
        D: Directory<File = F>,
    {
        if self.stored == Some(checkpoint) && self.is_named {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file,
            None => match directory.edit(NAME) {
                Ok(file) => self.file.insert(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let created = directory.create(NAME);
                    let file = created.map_err(Error::io(directory, "create", NAME))?;
                    self.is_named = false;
                    // Both places have their disk space from here on, so that the cursor moves on a full disk, too.
                    file.write_all_at(&[0; SLOT_BYTES as usize + BLOCK_BYTES], 0)
                        .map_err(Error::io(directory, "write", NAME))?;
                    self.file.insert(file)
                }
                Err(error) => return Err(Error::io(directory, "open", NAME)(error)),
            },
        };
        let Position {
            segment,
            offset,
            line,
            ..
        } = checkpoint.front;
        let numbers = [self.count, segment, offset, line, checkpoint.synced_line];
        let block = Block::encode(BlockKind::Cursor, numbers, identity);
        // A write that failed is made again in the same place: the other one has what still holds.
        file.write_all_at(&block, self.count % 2 * SLOT_BYTES)
            .map_err(Error::io(directory, "write", NAME))?;
        file.sync().map_err(Error::io(directory, "sync", NAME))?;
        if !self.is_named {
            let synced = directory.sync();
            synced.map_err(|error| Error::directory(directory, "sync", error))?;
            self.is_named = true;
        }
        self.count += 1;
        self.stored = Some(checkpoint);
        Ok(())
    }
}

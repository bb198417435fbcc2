//! Whose spool a directory is, and what waits in it: for people, and for a relay that finds one that no destination has.
//!
//! A destination that is renamed or removed leaves its directory behind, named by a UID that says nothing to anybody. So
//! there is a note in it, and [`Survey`] reads that, without the lock and without touching anything.

use std::io;
use std::path::Path;

use crate::cursor::Cursor;
use crate::error::Error;
use crate::format::{BLOCK_BYTES, Block, BlockKind, segment_sequence};
use crate::spool::Spool;
use crate::storage::{Directory, Disk, OpenFile};

const NAME: &str = "owner";

/// What is read of the note, in bytes: an identity, and a namespace and a name of Kubernetes, fit many times.
const NOTE_BYTES_MAX: usize = 4096;

/// What is in a spool's directory, as far as it can be told without opening the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The name that [`Spool::set_owner`] noted; `None` if there is no note.
    pub owner: Option<String>,
    /// The destination's UID; `None` if nothing says it.
    pub identity: Option<String>,
    /// The bytes of its segments.
    pub bytes: u64,
    /// The lines that wait, as of the last sync; `None` if nothing sound says how many.
    pub lines: Option<u64>,
}

impl Survey {
    /// Looks at the directory at `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_in(&Disk::existing(path))
    }

    /// Whether something may wait in it.
    pub fn holds_lines(&self) -> bool {
        self.bytes > 0 && self.lines != Some(0)
    }

    fn read_in<D: Directory>(directory: &D) -> Result<Self, Error> {
        let names = directory.names();
        let names = names.map_err(|error| Error::directory(directory, "read", error))?;
        let mut survey = Self::default();
        for name in names.iter().filter(|name| segment_sequence(name).is_some()) {
            let file = directory.open(name);
            let length = file.and_then(|file| file.length());
            survey.bytes += length.map_err(Error::io(directory, "read", name))?;
        }
        if let Some(note) = read_note(directory)? {
            (survey.owner, survey.identity) = (note.owner, note.identity);
        }
        if survey.identity.is_none() {
            survey.identity = identity_of_cursor(directory)?;
        }
        if let Some(identity) = &survey.identity {
            let stored = Cursor::load(directory, identity)?.stored();
            survey.lines = stored.map(|at| at.synced_line.saturating_sub(at.front.line));
        }
        Ok(survey)
    }
}

impl<D: Directory> Spool<D> {
    /// Notes for people whose spool this is: `owner` is the destination's name.
    ///
    /// # Errors
    /// It cannot be written. The spool works all the same.
    pub fn set_owner(&mut self, owner: &str) -> Result<(), Error> {
        let (directory, identity) = self.place();
        let note = format!("destination: {owner}\nidentity: {identity}\n");
        let file = match directory.edit(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let created = directory.create(NAME);
                created.map_err(Error::io(directory, "create", NAME))?
            }
            Err(error) => return Err(Error::io(directory, "open", NAME)(error)),
        };
        file.write_all_at(note.as_bytes(), 0)
            .and_then(|()| file.set_len(note.len() as u64))
            .map_err(Error::io(directory, "write", NAME))
    }
}

#[derive(Default)]
struct Note {
    owner: Option<String>,
    identity: Option<String>,
}

fn read_note<D: Directory>(directory: &D) -> Result<Option<Note>, Error> {
    let file = match directory.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(directory, "open", NAME)(error)),
    };
    let mut bytes = vec![0; NOTE_BYTES_MAX];
    let length = file.read_at(&mut bytes, 0);
    bytes.truncate(length.map_err(Error::io(directory, "read", NAME))?);
    let text = String::from_utf8_lossy(&bytes);
    // A note that a crash tore, or that a person changed, says as much as can be made of it.
    let field = |name: &str| {
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
        (!value.is_empty()).then(|| value.to_owned())
    };
    Ok(Some(Note {
        owner: field("destination"),
        identity: field("identity"),
    }))
}

// Blocks carry the identity; one that is asked for another tells it.
fn identity_of_cursor<D: Directory>(directory: &D) -> Result<Option<String>, Error> {
    match Cursor::load(directory, "") {
        Err(Error::OtherIdentity { found, .. }) => return Ok(Some(found)),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let names = directory.names();
    let names = names.map_err(|error| Error::directory(directory, "read", error))?;
    for name in names.iter().filter(|name| segment_sequence(name).is_some()) {
        let mut block = [0; BLOCK_BYTES];
        let file = directory.open(name);
        file.and_then(|file| file.read_at(&mut block, 0))
            .map_err(Error::io(directory, "read", name))?;
        if let Block::OtherIdentity(found) = Block::decode(BlockKind::Segment, &block, "") {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Limits, UnixSeconds, WhenFull};
    use crate::storage::Memory;

    const NOW: UnixSeconds = UnixSeconds(1_000_000);

    fn open(memory: &Memory) -> Spool<Memory> {
        let limits = Limits {
            bytes_max: 1 << 20,
            age_max: None,
            segment_bytes: 2_000,
            when_full: WhenFull::DropNewest,
        };
        Spool::open_in(memory.clone(), "uid", limits, NOW).unwrap()
    }

    #[test]
    fn a_spool_that_nobody_has_says_whose_it_is_and_what_waits() {
        let memory = Memory::default();
        let mut spool = open(&memory);
        spool.set_owner("metrics/a").unwrap();
        spool.append(b"a 1 1\nb 1 1\n", 2).unwrap();
        spool.append(b"c 1 1\n", 1).unwrap();
        let mut bytes = Vec::new();
        let batch = spool.read(&mut bytes, 1).unwrap().unwrap();
        spool.acknowledge(batch.end);
        spool.sync(NOW).unwrap();
        let figures = spool.figures();
        drop(spool);
        let expected = Survey {
            owner: Some("metrics/a".into()),
            identity: Some("uid".into()),
            bytes: figures.bytes,
            lines: Some(1),
        };
        assert_eq!(Survey::read_in(&memory).unwrap(), expected);
        assert!(expected.holds_lines());
        // A name that became shorter leaves nothing behind.
        open(&memory).set_owner("b").unwrap();
        let owner = Survey::read_in(&memory).unwrap().owner;
        assert_eq!(owner.as_deref(), Some("b"));
    }

    #[test]
    fn without_a_note_the_files_say_whose_they_are() {
        let memory = Memory::default();
        let mut spool = open(&memory);
        spool.append(b"a 1 1\n", 1).unwrap();
        let unsynced = Survey::read_in(&memory).unwrap();
        assert_eq!(
            (unsynced.identity.as_deref(), unsynced.lines),
            (Some("uid"), None)
        );
        assert!(unsynced.holds_lines());
        spool.sync(NOW).unwrap();
        let synced = Survey::read_in(&memory).unwrap();
        assert_eq!(
            (synced.owner, synced.identity.as_deref(), synced.lines),
            (None, Some("uid"), Some(1))
        );
    }

    #[test]
    fn an_empty_directory_holds_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let survey = Survey::read(parent.path()).unwrap();
        assert_eq!(survey, Survey::default());
        assert!(!survey.holds_lines());
        assert!(Survey::read(&parent.path().join("nowhere")).is_err());
    }
}

//! The files of a spool, byte by byte. Numbers are little-endian.
//!
//! **Files.** `NNNNNNNNNNNNNNNN.segment` holds lines; the name is the segment's sequence number in 16 hexadecimal digits.
//! `cursor` says what is done with. `lock` is empty and locked while a process uses the directory. `owner` tells people in two
//! lines, `destination: NAME` and `identity: UID`, whose spool it is. Other files are left alone.
//! Every opening begins a new segment with its first batch, so a file that was there before is only read, and cut once.
//!
//! **Blocks.** A segment begins with a block of 512 bytes, and the cursor is made of two: 8 bytes of magic, which tell the
//! two kinds apart; the version of the format, which is 1 (32 bits); the length of the identity (32 bits); five numbers
//! (64 bits each); the identity, which is the UID of the destination, padded with zeros; and in the last 8 bytes the XXH64
//! of the 504 before them, with seed 0. The numbers of a segment are its sequence number, the ordinal of its first line and
//! the time at which it began; the other two are 0. A sound block of another identity or version means that the directory is
//! not ours to touch; a block that is not sound says nothing, and a segment can be read without.
//!
//! **Records.** After the block come records, one for each batch. A record is 48 bytes and then the batch, whole lines, each
//! with its newline, as they were given. The 48 bytes: 8 of magic; the length of the batch in bytes (32 bits); the number of
//! its lines (32 bits); the ordinal of its first line (64 bits); the time (64 bits); the XXH64 of the batch, with seed 0; and
//! the XXH64 of the 40 bytes before. The seed of that one comes from the identity, the segment's sequence number and the
//! record's place in the file. So neither a record that was moved, nor one of another spool, nor lines that look like a
//! record, are taken for one; and a length is believed only after the checksum over it is right.
//!
//! **Ordinals.** Lines are numbered in the order in which they were appended, over all segments, and for ever. Where the
//! ordinal of a record is not the one that follows from the record before, the difference is the number of lines lost
//! between them, exactly, whatever it was that lost them.
//!
//! **Damage.** Where there is no sound record header, the reader looks for the next: the magic, and then the checksum, at any
//! place up to the end of the file. The magic has bytes that are in no line of Graphite, so that there is little to look at
//! twice. Under a sound header with a wrong batch, only this record is lost.
//!
//! **Cursor.** The file has room for two blocks, at 0 and at 4096, so that no sector holds parts of both. Writes alternate
//! between them and the first of the five numbers counts them: a torn write damages the older of the two, and what the other
//! says still holds. The other numbers are the segment, the offset and the ordinal up to which all is done with, and the
//! ordinal up to which lines were synced: if the segments end before that one, lines were lost, and it says how many.

use memchr::memmem;
use twox_hash::XxHash64;

use crate::error::Error;
use crate::limits::UnixSeconds;
use crate::storage::Directory;

/// The version of all this.
pub(crate) const VERSION: u32 = 1;

/// The length of the longest identity, in bytes.
pub const IDENTITY_BYTES_MAX: usize = BLOCK_CHECKSUM_AT - BLOCK_IDENTITY_AT;

/// The length of the longest batch, in bytes: 16 MiB. It bounds what a record makes the reader allocate.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// The length of a block, in bytes. Records begin after it.
pub(crate) const BLOCK_BYTES: usize = 512;

const BLOCK_NUMBERS_AT: usize = 16;
const BLOCK_IDENTITY_AT: usize = BLOCK_NUMBERS_AT + 5 * 8;
const BLOCK_CHECKSUM_AT: usize = BLOCK_BYTES - 8;

/// The length of what stands before a batch, in bytes.
pub(crate) const RECORD_HEADER_BYTES: usize = 48;

const RECORD_CHECKSUM_AT: usize = RECORD_HEADER_BYTES - 8;

const RECORD_MAGIC: [u8; 8] = *b"\xffrecord\xfe";

/// Sequence numbers, offsets and ordinals stay below it.
const NUMBER_MAX: u64 = u64::MAX / 2;

const SEGMENT_SUFFIX: &str = ".segment";

/// The two kinds of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    Segment,
    Cursor,
}

impl BlockKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Segment => *b"\xffcwspool",
            Self::Cursor => *b"\xffcwcursr",
        }
    }
}

/// What a block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// It is ours.
    Numbers([u64; 5]),
    /// It belongs to another destination.
    OtherIdentity(String),
    /// It is in another format.
    OtherVersion(u32),
    /// Nothing: it is torn, rotten or of another kind.
    Damaged,
}

impl Block {
    pub(crate) fn encode(kind: BlockKind, numbers: [u64; 5], identity: &str) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..8].copy_from_slice(&kind.magic());
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&(identity.len() as u32).to_le_bytes());
        for (i, number) in numbers.into_iter().enumerate() {
            block[BLOCK_NUMBERS_AT + 8 * i..][..8].copy_from_slice(&number.to_le_bytes());
        }
        block[BLOCK_IDENTITY_AT..][..identity.len()].copy_from_slice(identity.as_bytes());
        let checksum = XxHash64::oneshot(0, &block[..BLOCK_CHECKSUM_AT]);
        block[BLOCK_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    pub(crate) fn decode(kind: BlockKind, block: &[u8; BLOCK_BYTES], identity: &str) -> Self {
        let checksum = XxHash64::oneshot(0, &block[..BLOCK_CHECKSUM_AT]);
        if block[..8] != kind.magic() || number(block, BLOCK_CHECKSUM_AT) != checksum {
            return Self::Damaged;
        }
        match half_number(block, 8) {
            VERSION => {}
            other => return Self::OtherVersion(other),
        }
        let length = half_number(block, 12) as usize;
        match block[BLOCK_IDENTITY_AT..BLOCK_CHECKSUM_AT].get(..length) {
            Some(found) if found == identity.as_bytes() => {}
            Some(found) => {
                return Self::OtherIdentity(String::from_utf8_lossy(found).into_owned());
            }
            None => return Self::Damaged,
        }
        let numbers = std::array::from_fn(|i| number(block, BLOCK_NUMBERS_AT + 8 * i));
        // So that there always is room for a next one.
        match numbers.iter().all(|number| *number <= NUMBER_MAX) {
            true => Self::Numbers(numbers),
            false => Self::Damaged,
        }
    }

    /// The numbers, `None` if the block is damaged.
    ///
    /// # Errors
    /// The block, which was read from the file `name`, shows that the directory is not ours to touch.
    pub(crate) fn ours<D: Directory>(
        self,
        directory: &D,
        name: &str,
        identity: &str,
    ) -> Result<Option<[u64; 5]>, Error> {
        let path = directory.path().join(name);
        match self {
            Self::Numbers(numbers) => Ok(Some(numbers)),
            Self::Damaged => Ok(None),
            Self::OtherVersion(found) => Err(Error::OtherVersion { path, found }),
            Self::OtherIdentity(found) => Err(Error::OtherIdentity {
                path,
                found,
                expected: identity.to_owned(),
            }),
        }
    }
}

/// What stands before a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// At most [`BATCH_BYTES_MAX`], and at least as many as there are lines.
    pub(crate) batch_bytes: u32,
    /// At least one.
    pub(crate) lines: u32,
    pub(crate) first_line: u64,
    pub(crate) written: UnixSeconds,
    batch_checksum: u64,
}

impl RecordHeader {
    /// The header of a batch that is valid.
    pub(crate) fn of(batch: &[u8], lines: u32, first_line: u64, written: UnixSeconds) -> Self {
        Self {
            batch_bytes: batch.len() as u32,
            lines,
            first_line,
            written,
            batch_checksum: XxHash64::oneshot(0, batch),
        }
    }

    /// Whether a batch may be this long.
    pub(crate) fn is_batch(bytes: u64, lines: u64) -> bool {
        (1..=bytes).contains(&lines) && bytes <= BATCH_BYTES_MAX as u64
    }

    pub(crate) fn encode(&self, seed: RecordSeed) -> [u8; RECORD_HEADER_BYTES] {
        let mut header = [0; RECORD_HEADER_BYTES];
        header[..8].copy_from_slice(&RECORD_MAGIC);
        header[8..12].copy_from_slice(&self.batch_bytes.to_le_bytes());
        header[12..16].copy_from_slice(&self.lines.to_le_bytes());
        header[16..24].copy_from_slice(&self.first_line.to_le_bytes());
        header[24..32].copy_from_slice(&self.written.0.to_le_bytes());
        header[32..40].copy_from_slice(&self.batch_checksum.to_le_bytes());
        let checksum = XxHash64::oneshot(seed.0, &header[..RECORD_CHECKSUM_AT]);
        header[RECORD_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        header
    }

    /// The header, or `None` if it is damaged.
    pub(crate) fn decode(header: &[u8; RECORD_HEADER_BYTES], seed: RecordSeed) -> Option<Self> {
        let checksum = XxHash64::oneshot(seed.0, &header[..RECORD_CHECKSUM_AT]);
        if header[..8] != RECORD_MAGIC || number(header, RECORD_CHECKSUM_AT) != checksum {
            return None;
        }
        let decoded = Self {
            batch_bytes: half_number(header, 8),
            lines: half_number(header, 12),
            first_line: number(header, 16),
            written: UnixSeconds(number(header, 24)),
            batch_checksum: number(header, 32),
        };
        let is_possible = Self::is_batch(decoded.batch_bytes.into(), decoded.lines.into())
            && decoded.first_line <= NUMBER_MAX;
        is_possible.then_some(decoded)
    }

    /// Whether `batch` is the one that the header was made for.
    pub(crate) fn fits(&self, batch: &[u8]) -> bool {
        batch.len() == self.batch_bytes as usize
            && XxHash64::oneshot(0, batch) == self.batch_checksum
    }

    /// The length of header and batch.
    pub(crate) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.batch_bytes)
    }

    /// The ordinal of the line after the last one.
    pub(crate) fn next_line(&self) -> u64 {
        self.first_line + u64::from(self.lines)
    }

    /// Where in `bytes` the next header may begin, if anywhere.
    pub(crate) fn find_magic(bytes: &[u8]) -> Option<usize> {
        memmem::find(bytes, &RECORD_MAGIC)
    }
}

/// What ties a record to its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordSeed(u64);

impl RecordSeed {
    pub(crate) fn new(identity: &str, sequence: u64, offset: u64) -> Self {
        let segment = XxHash64::oneshot(sequence, identity.as_bytes());
        Self(segment.wrapping_add(offset))
    }
}

/// The file of a segment.
pub(crate) fn segment_name(sequence: u64) -> String {
    format!("{sequence:016x}{SEGMENT_SUFFIX}")
}

/// The sequence number of a segment's file, `None` for other files.
pub(crate) fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    let is_ours = name == segment_name(sequence) && sequence <= NUMBER_MAX;
    is_ours.then_some(sequence)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |number| u64::from_le_bytes(*number))
}

fn half_number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |number| u32::from_le_bytes(*number))
}

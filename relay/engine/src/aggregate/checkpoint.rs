//! Buckets as bytes, so that they outlive a graceful restart.
//!
//! A checkpoint is written once, when a relay stops, from the merged buckets of all workers, and read once, when it starts;
//! it does not matter which worker gets which bucket back. The reader must then remove the file, or a crash would bring the
//! same points back once more. Numbers are little-endian, doubles by their bits, strings behind their lengths in 32 bits.
//!
//! First come the seven bytes `cwaggr\n` and the version, one byte, which is 1. Then come the rules that have open buckets:
//! their number in 32 bits, and for each one its id, its interval in seconds (32 bits) and the set of its needs (8 bits, as
//! in `accumulator`). These decide whether a bucket fits the rule that now has the id; the rest of a rule may have changed.
//!
//! Then come the buckets: their number in 32 bits, and for each one the place of its rule among those above (32 bits), its
//! output name, its start (32 bits), the number of its points (64 bits) and their sum (a double). What follows is there only
//! if the rule needs it, in this order: the values, as many as there are points; the least and the greatest value; the last
//! value; timestamp (32 bits) and value of the oldest and of the newest point; the value from
//! which distances are taken, their sum and the sum of their squares.
//!
//! Stamps are not kept: every point of a checkpoint is older than any that comes after it.
//!
//! At the end stands the FNV-1a hash, 64 bits wide, of all bytes before it. It tells torn and rotten files from sound ones;
//! what it lets pass is checked all the same, so that no input makes the reader panic or ask for more memory than a few times
//! the input's length.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accumulator::{Accumulator, End, Ends, Last, Need, Needs, Part, Range, Spread};
use super::{Partial, Rule, Rules};

const MAGIC: [u8; 7] = *b"cwaggr\n";

const VERSION: u8 = 1;

/// What the stamp of a point becomes.
const OLDEST_STAMP: u64 = 0;

/// Why bytes are not a checkpoint that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptCheckpoint {
    /// It does not begin like one.
    #[error("not a checkpoint of aggregates")]
    Foreign,
    /// A later release wrote it.
    #[error("a checkpoint of version {0}, which this release does not know")]
    Version(u8),
    /// It is torn or has changed.
    #[error("the checksum of the checkpoint is wrong")]
    Checksum,
    /// The checksum is right, but the content cannot be.
    #[error("the checkpoint makes no sense {bytes_left} bytes before its checksum")]
    Malformed {
        /// How many bytes were not read yet.
        bytes_left: usize,
    },
}

/// What a checkpoint held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Buckets of rules that are there, for [`super::Buckets::restore`].
    pub buckets: Vec<Partial>,
    /// Buckets of rules that are gone, or that no longer hold what these buckets hold.
    pub leftovers: Vec<Leftover>,
}

/// A bucket that nothing can be done with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The id of its rule.
    pub rule: Arc<str>,
    /// Its output name, as it was interned.
    pub name: Vec<u8>,
    /// Its first second.
    pub start: u32,
    /// How many points are lost with it.
    pub points: u64,
}

/// Puts buckets into bytes: those of all workers, merged.
pub fn encode(buckets: &[Partial]) -> Vec<u8> {
    let mut places: BTreeMap<(&str, u32, Needs), u32> = buckets
        .iter()
        .map(|bucket| (key(&bucket.rule), 0))
        .collect();
    let mut out = Vec::from(MAGIC);
    out.push(VERSION);
    write_count(&mut out, places.len());
    for (place, ((id, interval_seconds, needs), value)) in places.iter_mut().enumerate() {
        *value = place as u32;
        write_text(&mut out, id.as_bytes());
        out.extend(interval_seconds.to_le_bytes());
        out.push(needs.bits());
    }
    write_count(&mut out, buckets.len());
    for bucket in buckets {
        out.extend(places[&key(&bucket.rule)].to_le_bytes());
        write_text(&mut out, &bucket.name);
        out.extend(bucket.start.to_le_bytes());
        out.extend(bucket.accumulator.count.to_le_bytes());
        write_doubles(&mut out, &[bucket.accumulator.sum]);
        for part in &bucket.accumulator.parts {
            write_part(&mut out, part);
        }
    }
    let checksum = checksum(&out);
    out.extend(checksum.to_le_bytes());
    out
}

/// Reads buckets back, each for the rule of `rules` that has its rule's id.
///
/// # Errors
/// Nothing of the bytes can be used; the relay starts without them.
pub fn decode(bytes: &[u8], rules: &Rules) -> Result<Restored, CorruptCheckpoint> {
    let rest = bytes
        .strip_prefix(&MAGIC)
        .ok_or(CorruptCheckpoint::Foreign)?;
    match rest.first() {
        None => return Err(CorruptCheckpoint::Foreign),
        Some(&VERSION) => {}
        Some(version) => return Err(CorruptCheckpoint::Version(*version)),
    }
    let (content, hash) = rest.split_last_chunk().ok_or(CorruptCheckpoint::Checksum)?;
    if u64::from_le_bytes(*hash) != checksum(&bytes[..bytes.len() - hash.len()]) {
        return Err(CorruptCheckpoint::Checksum);
    }
    let mut reader = Reader {
        left: content.get(1..).ok_or(CorruptCheckpoint::Checksum)?,
    };
    reader.read(rules).ok_or(CorruptCheckpoint::Malformed {
        bytes_left: reader.left.len(),
    })
}

/// Makes the checksum right for bytes that were tampered with, so that tests reach what lies behind it.
#[cfg(test)]
pub(super) fn mend(bytes: &mut [u8]) {
    let (content, hash) = bytes.split_last_chunk_mut().expect("eight bytes at least");
    *hash = checksum(content).to_le_bytes();
}

// What a bucket must have in common with a rule.
fn key(rule: &Rule) -> (&str, u32, Needs) {
    (rule.id(), rule.interval_seconds(), rule.needs())
}

fn write_part(out: &mut Vec<u8>, part: &Part) {
    match part {
        Part::Values(values) => write_doubles(out, values),
        Part::Range(range) => write_doubles(out, &[range.min, range.max]),
        Part::Last(last) => write_doubles(out, &[last.value]),
        Part::Ends(ends) => {
            for end in [ends.oldest, ends.newest] {
                out.extend(end.timestamp.to_le_bytes());
                write_doubles(out, &[end.value]);
            }
        }
        Part::Spread(spread) => {
            write_doubles(out, &[spread.origin, spread.distances, spread.squares]);
        }
    }
}

fn write_doubles(out: &mut Vec<u8>, values: &[f64]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    write_count(out, text.len());
    out.extend_from_slice(text);
}

fn write_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("buckets and names are bounded far below four billion");
    out.extend(count.to_le_bytes());
}

// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

// So many points that reckoning with them cannot overflow, and more than there will be.
const POINTS_MAX: u64 = 1 << 53;

// What is left to read. Every method is `None` where the bytes end or make no sense.
struct Reader<'a> {
    left: &'a [u8],
}

// A rule as a checkpoint has it.
struct KeptRule<'a> {
    id: &'a str,
    interval_seconds: u32,
    needs: Needs,
    now: Option<&'a Arc<Rule>>,
}

impl<'a> Reader<'a> {
    fn read(&mut self, rules: &'a Rules) -> Option<Restored> {
        let mut kept = Vec::new();
        for _ in 0..self.u32()? {
            kept.push(self.rule(rules)?);
        }
        let mut restored = Restored::default();
        let mut points: u64 = 0;
        for _ in 0..self.u32()? {
            let rule = kept.get(self.u32()? as usize)?;
            let name = self.text()?;
            let start = self.u32()?;
            if start % rule.interval_seconds != 0 {
                return None;
            }
            let accumulator = self.accumulator(rule, start)?;
            points = points.checked_add(accumulator.count)?;
            if points > POINTS_MAX {
                return None;
            }
            match rule.now {
                Some(now) => restored.buckets.push(Partial {
                    rule: Arc::clone(now),
                    name: name.into(),
                    start,
                    accumulator,
                }),
                None => restored.leftovers.push(Leftover {
                    rule: rule.id.into(),
                    name: name.to_vec(),
                    start,
                    points: accumulator.count,
                }),
            }
        }
        self.left.is_empty().then_some(restored)
    }

    fn rule(&mut self, rules: &'a Rules) -> Option<KeptRule<'a>> {
        let id = str::from_utf8(self.text()?).ok()?;
        let interval_seconds = self.u32().filter(|seconds| *seconds > 0)?;
        let [bits] = self.array()?;
        let needs = Needs::from_bits(bits)?;
        let same_id = rules.find(id).map(|index| rules.get(index));
        Some(KeptRule {
            id,
            interval_seconds,
            needs,
            now: same_id.filter(|rule| key(rule) == (id, interval_seconds, needs)),
        })
    }

    fn accumulator(&mut self, rule: &KeptRule<'_>, start: u32) -> Option<Accumulator> {
        let count = self.u64().filter(|count| *count > 0)?;
        let sum = self.double()?;
        let end = start.saturating_add(rule.interval_seconds - 1);
        let mut parts = Vec::new();
        for need in rule.needs.iter() {
            parts.push(match need {
                Need::Values => Part::Values(self.values(count)?),
                Need::Range => Part::Range(Range {
                    min: self.finite()?,
                    max: self.finite()?,
                }),
                Need::Last => Part::Last(Last {
                    stamp: OLDEST_STAMP,
                    value: self.finite()?,
                }),
                Need::Ends => Part::Ends(self.ends(start, end)?),
                // The sums overflow where values are very great.
                Need::Spread => Part::Spread(Spread {
                    origin: self.finite()?,
                    distances: self.double()?,
                    squares: self.double()?,
                }),
            });
        }
        Some(Accumulator {
            count,
            sum,
            parts: parts.into(),
        })
    }

    // Those of a bucket that reaches from `first` to `last`.
    fn ends(&mut self, first: u32, last: u32) -> Option<Ends> {
        let ends = Ends {
            oldest: self.end()?,
            newest: self.end()?,
        };
        let timestamps = [first, ends.oldest.timestamp, ends.newest.timestamp, last];
        timestamps.is_sorted().then_some(ends)
    }

    fn values(&mut self, count: u64) -> Option<Vec<f64>> {
        let bytes = usize::try_from(count).ok()?.checked_mul(size_of::<f64>())?;
        let mut values = Reader {
            left: self.bytes(bytes)?,
        };
        (0..count).map(|_| values.finite()).collect()
    }

    fn end(&mut self) -> Option<End> {
        Some(End {
            timestamp: self.u32()?,
            stamp: OLDEST_STAMP,
            value: self.finite()?,
        })
    }

    fn finite(&mut self) -> Option<f64> {
        self.double().filter(|value| value.is_finite())
    }

    fn double(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.bytes(length as usize)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(*array)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, left) = self.left.split_at_checked(count)?;
        self.left = left;
        Some(bytes)
    }
}

//! What was decided of names, so that it is decided once.
//!
//! A decision is a number: a reason to drop, that the line is untidy, or the place of a way, where it may stand together
//! with a new name. Names share ways, and there are few; new names are each one name's own, and are kept only for names that
//! the cache keeps. All of it is bounded, and belongs to one table: with another one, or when the bound is reached, it is
//! forgotten and decided anew.

use std::collections::HashMap;
use std::sync::Arc;

use crate::aggregate::OutputId;
use crate::cache::{Decision, NameCache, NameHash};
use crate::judge::{Judgement, Way};
use crate::name::Name;
use crate::{Reason, Table};

/// Decisions below this are reasons to drop; then comes this; then places of ways; then places of new names.
pub(super) const UNTIDY: Decision = Reason::ALL.len() as Decision;
const WAYS: Decision = UNTIDY + 1;
const RENAMED: Decision = 1 << 24;
/// The way and the new name of the line at work, which are not kept.
const TRANSIENT: Decision = Decision::MAX;

/// Ways that are told apart, at most: as many as there are numbers for.
const WAYS_MAX: usize = (RENAMED - WAYS) as usize / 2;

/// What all ways may take, in bytes, as reckoned.
const WAYS_BYTES_MAX: usize = 64 << 20;

/// The longest new name that is kept, in bytes.
const NEW_NAME_BYTES_MAX: usize = 1024;

/// New names are kept in chunks of this size, in bytes, so that forgetting a million of them takes no time.
const CHUNK_BYTES: usize = 1 << 20;

/// What was decided of names.
#[derive(Debug)]
pub(super) struct Memory {
    cache: NameCache,
    ways: Ways,
    new_names: NewNames,
    // What new names may take, in bytes.
    new_names_bytes_max: usize,
    found: Judgement,
    transient_way: usize,
}

/// All ways that names of a table have.
#[derive(Debug, Default)]
pub(super) struct Ways {
    list: Vec<KnownWay>,
    places: HashMap<Arc<Way>, usize, foldhash::quality::RandomState>,
    bytes: usize,
}

/// A way, and what is remembered beside it.
#[derive(Debug)]
pub(super) struct KnownWay {
    pub(super) way: Arc<Way>,
    /// The ids of the outputs that its points go into, in the order of the feeds, once they are known.
    pub(super) outputs: Box<[Option<OutputId>]>,
}

/// Where a line goes, and under which name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Going<'a> {
    /// The place of the way.
    pub(super) way: usize,
    /// `None`: under the name that it came with.
    pub(super) new_name: Option<&'a [u8]>,
}

#[derive(Debug, Default)]
struct NewNames {
    list: Vec<NewName>,
    chunks: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
struct NewName {
    way: u32,
    chunk: u32,
    start: u32,
    length: u32,
}

impl Memory {
    /// Remembers names in `bytes_max` bytes, and new names in as many.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            cache: NameCache::new(bytes_max),
            ways: Ways::default(),
            new_names: NewNames::default(),
            new_names_bytes_max: bytes_max,
            found: Judgement::default(),
            transient_way: 0,
        }
    }

    /// Makes sure that there is room for the decisions of another block. Places of ways are good until this is called.
    pub(super) fn make_room(&mut self) {
        let is_full = self.ways.list.len() >= WAYS_MAX
            || self.ways.bytes >= WAYS_BYTES_MAX
            || self.new_names.bytes() > self.new_names_bytes_max.max(CHUNK_BYTES);
        if is_full {
            self.forget();
        }
    }

    /// What ways and new names take, in bytes, as reckoned.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.ways.bytes + self.new_names.bytes()
    }

    pub(super) fn forget(&mut self) {
        self.cache.begin_epoch();
        self.ways = Ways::default();
        self.new_names = NewNames::default();
    }

    pub(super) fn cache(&self) -> &NameCache {
        &self.cache
    }

    /// What becomes of a canonical line with this name.
    pub(super) fn decide(&mut self, table: &Table, hash: NameHash, name: &[u8]) -> Decision {
        if let Some(decision) = self.cache.get(hash, name) {
            return decision;
        }
        let is_kept = self.cache.admits(hash, name);
        let decision = match table.validation.names.check(name) {
            Ok(Name::Clean) => self.judge(table, name, is_kept),
            Ok(Name::Untidy) => UNTIDY,
            Err(reason) => reason as Decision,
        };
        if is_kept && decision != TRANSIENT {
            self.cache.put(hash, name, decision);
        }
        decision
    }

    /// What becomes of a line that was taken apart. A dot that its name still begins with was the second one; as the first
    /// one of a canonical line it would have to be stripped, so such a name's decisions are not kept.
    pub(super) fn decide_tidied(&mut self, table: &Table, name: &[u8]) -> Decision {
        if name.first() != Some(&b'.') && !name.is_empty() {
            return self.decide(table, self.cache.hash(name), name);
        }
        match table.validation.names.check_tidied(name) {
            Ok(()) => self.judge(table, name, false),
            Err(reason) => reason as Decision,
        }
    }

    /// Where a line goes that is not dropped.
    pub(super) fn going(&self, decision: Decision) -> Going<'_> {
        match decision {
            TRANSIENT => Going {
                way: self.transient_way,
                new_name: self.found.new_name(),
            },
            RENAMED.. => {
                let (way, name) = self.new_names.get((decision - RENAMED) as usize);
                Going {
                    way,
                    new_name: Some(name),
                }
            }
            _ => Going {
                way: (decision - WAYS) as usize,
                new_name: None,
            },
        }
    }

    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    pub(super) fn way_mut(&mut self, place: usize) -> &mut KnownWay {
        &mut self.ways.list[place]
    }

    fn judge(&mut self, table: &Table, name: &[u8], is_kept: bool) -> Decision {
        if let Err(reason) = table.judge(name, &mut self.found) {
            return reason as Decision;
        }
        let way = self.ways.place_of(&self.found.way);
        let Some(new_name) = self.found.new_name() else {
            return WAYS + way as Decision;
        };
        if is_kept && new_name.len() <= NEW_NAME_BYTES_MAX {
            return RENAMED + self.new_names.add(way, new_name) as Decision;
        }
        self.transient_way = way;
        TRANSIENT
    }
}

impl KnownWay {
    /// Whether points go into aggregates.
    pub(super) fn is_fed(&self) -> bool {
        !self.way.feeds.is_empty()
    }
}

impl Ways {
    pub(super) fn get(&self, place: usize) -> &KnownWay {
        &self.list[place]
    }

    fn place_of(&mut self, way: &Way) -> usize {
        if let Some(place) = self.places.get(way) {
            return *place;
        }
        let place = self.list.len();
        let way = Arc::new(way.clone());
        self.bytes += way.bytes();
        self.list.push(KnownWay {
            outputs: vec![None; way.feeds.len()].into(),
            way: Arc::clone(&way),
        });
        self.places.insert(way, place);
        place
    }
}

impl NewNames {
    fn add(&mut self, way: usize, name: &[u8]) -> usize {
        let has_room = |chunk: &Vec<u8>| chunk.len() + name.len() <= CHUNK_BYTES;
        if !self.chunks.last().is_some_and(has_room) {
            self.chunks.push(Vec::with_capacity(CHUNK_BYTES));
        }
        let chunk = self.chunks.len() - 1;
        let start = self.chunks[chunk].len();
        self.chunks[chunk].extend_from_slice(name);
        self.list.push(NewName {
            way: way as u32,
            chunk: chunk as u32,
            start: start as u32,
            length: name.len() as u32,
        });
        self.list.len() - 1
    }

    fn get(&self, place: usize) -> (usize, &[u8]) {
        let NewName {
            way,
            chunk,
            start,
            length,
        } = self.list[place];
        let range = start as usize..(start + length) as usize;
        (way as usize, &self.chunks[chunk as usize][range])
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK_BYTES + self.list.capacity() * size_of::<NewName>()
    }
}

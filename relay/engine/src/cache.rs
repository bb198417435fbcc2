//! From a series name to what was decided about it, for names that were seen before.
//!
//! Names repeat every interval, so nearly every line's name has been judged already. A look-up costs one hash and two
//! places in memory, both of which can be asked for early ([`NameCache::prefetch_set`], [`NameCache::prefetch_name`]).
//!
//! * Exact: a hit compares the whole name. A crafted collision can only push a name out of its set of four; it never makes
//!   a chain and never gives a wrong answer. The hash has a random key besides.
//! * Bounded in bytes, names included. It begins small and grows with the names, by doubling.
//! * Scan-resistant: a name is let in when it is missed for the second time, so a burst of names that come once leaves the
//!   working set alone; and what makes room is a name that was not hit lately.
//! * Decisions belong to an epoch. A new table begins a new one: the names stay, their decisions are made anew.

use std::hash::BuildHasher as _;

use crate::simd::prefetch;

/// The longest name that is kept, in bytes; what is longer is judged each time.
const NAME_BYTES_MAX: usize = 1024;

const WAYS: usize = 4;

/// Ways at first.
const SLOTS_MIN: usize = 256;

/// What one way takes, in bytes.
const SLOT_BYTES: usize = size_of::<Set>() / WAYS;

/// Names missed once that are noted, at most; twice as many bytes.
const MISSED_ONCE_MAX: usize = 1 << 20;

/// What the allocator is reckoned to need beside a name.
const ALLOCATION_BYTES: usize = 16;

/// Sets that are looked through for room at a time, so that one look-up does not pay for all.
const SWEEP_SETS: usize = 64;

/// What was decided about a name; what the number means is the caller's business.
pub(crate) type Decision = u32;

/// The hash of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameHash(u64);

/// Names and decisions.
#[derive(Debug)]
pub(crate) struct NameCache {
    sets: Box<[Set]>,
    // Short forms of the hashes of names that were missed once, each where its hash says.
    missed_once: Box<[u16]>,
    // Names that are in here, what they take, and what all of this may take.
    names: usize,
    name_bytes: usize,
    bytes_max: usize,
    // Where the next sweep for room begins.
    hand: usize,
    // A linear congruential generator's state.
    coin: u64,
    epoch: u16,
    hasher: foldhash::quality::RandomState,
}

// Names whose hashes lead to the same place. Laid out as declared: what a look-up reads first is in one cache line, and what
// it reads then in the other one that a set begins.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Set {
    tags: [u32; WAYS],
    decisions: [Decision; WAYS],
    // Of the decision; 0 where the way is free.
    epochs: [u16; WAYS],
    // Hit since it was let in or last swept over.
    is_hit: [bool; WAYS],
    names: [Box<[u8]>; WAYS],
}

impl NameHash {
    fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn short(self) -> u16 {
        // Zero is what a place holds that was never written.
        (self.0 >> 48) as u16 | 1
    }
}

impl NameCache {
    /// A cache that takes `bytes_max` bytes at most, or 32 KiB if that is less.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.max(32 << 10);
        let missed_once = (bytes_max / 128).next_power_of_two().min(MISSED_ONCE_MAX);
        Self {
            sets: empty_sets(SLOTS_MIN),
            missed_once: vec![0; missed_once].into(),
            names: 0,
            name_bytes: 0,
            bytes_max,
            hand: 0,
            coin: 0,
            epoch: 1,
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// Makes every decision void.
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // Epochs that are used again must not bring decisions back.
            self.sets.fill_with(Set::default);
            (self.names, self.name_bytes) = (0, 0);
            self.epoch = 1;
        }
    }

    pub(crate) fn hash(&self, name: &[u8]) -> NameHash {
        NameHash(self.hasher.hash_one(name))
    }

    /// Asks for the set that [`NameCache::get`] will look through.
    pub(crate) fn prefetch_set(&self, hash: NameHash) {
        prefetch(&self.sets, self.set_index(hash));
    }

    /// Asks for the name that [`NameCache::get`] will compare.
    pub(crate) fn prefetch_name(&self, hash: NameHash) {
        let set = &self.sets[self.set_index(hash)];
        if let Some(way) = set.tags.iter().position(|tag| *tag == hash.tag()) {
            prefetch(&set.names[way], 0);
        }
    }

    /// What was decided about `name` in this epoch.
    pub(crate) fn get(&mut self, hash: NameHash, name: &[u8]) -> Option<Decision> {
        let epoch = self.epoch;
        let index = self.set_index(hash);
        let set = &mut self.sets[index];
        let way = set.find(hash, name)?;
        set.is_hit[way] = true;
        (set.epochs[way] == epoch).then_some(set.decisions[way])
    }

    /// Whether a name that [`NameCache::get`] did not find is to be kept: it is there already, with a decision that is void,
    /// or it was missed before. To be asked once for each miss.
    pub(crate) fn admits(&mut self, hash: NameHash, name: &[u8]) -> bool {
        let is_there = self.sets[self.set_index(hash)].find(hash, name).is_some();
        is_there || self.was_missed(hash) && name.len() <= NAME_BYTES_MAX
    }

    /// Keeps what was decided about `name`, which is admitted.
    pub(crate) fn put(&mut self, hash: NameHash, name: &[u8], decision: Decision) {
        let index = self.set_index(hash);
        if let Some(way) = self.sets[index].find(hash, name) {
            self.sets[index].decisions[way] = decision;
            self.sets[index].epochs[way] = self.epoch;
            return;
        }
        self.make_room(cost(name));
        self.place(hash, name.into(), decision, self.epoch);
        // With more names, sets that are full become common; names take about as much again as their slots.
        if self.names > self.slots() / 2 && 4 * self.slots() * SLOT_BYTES <= self.bytes_max {
            self.grow();
        }
    }

    fn slots(&self) -> usize {
        self.sets.len() * WAYS
    }

    // What all of this takes, in bytes.
    fn bytes(&self) -> usize {
        self.slots() * SLOT_BYTES + self.missed_once.len() * size_of::<u16>() + self.name_bytes
    }

    fn place(&mut self, hash: NameHash, name: Box<[u8]>, decision: Decision, epoch: u16) {
        let index = self.set_index(hash);
        let way = self.sets[index].victim();
        self.free(index, way);
        let set = &mut self.sets[index];
        set.tags[way] = hash.tag();
        set.decisions[way] = decision;
        set.epochs[way] = epoch;
        set.is_hit[way] = false;
        self.names += 1;
        self.name_bytes += cost(&name);
        set.names[way] = name;
    }

    fn grow(&mut self) {
        let slots = 2 * self.slots();
        let before = std::mem::replace(&mut self.sets, empty_sets(slots));
        (self.names, self.name_bytes, self.hand) = (0, 0, 0);
        for set in before {
            for (way, name) in set.names.into_iter().enumerate() {
                if set.epochs[way] != 0 {
                    self.place(self.hash(&name), name, set.decisions[way], set.epochs[way]);
                }
            }
        }
    }

    // Whether the name was missed before; if not, notes that it was now. Of two names that share a place one is noted by the
    // toss of a coin, or they would keep each other out for ever.
    fn was_missed(&mut self, hash: NameHash) -> bool {
        self.coin = self
            .coin
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let mask = self.missed_once.len() - 1;
        let noted = &mut self.missed_once[hash.0 as usize & mask];
        if *noted == hash.short() {
            return true;
        }
        if *noted == 0 || self.coin >> 63 == 0 {
            *noted = hash.short();
        }
        false
    }

    fn set_index(&self, hash: NameHash) -> usize {
        hash.0 as usize & (self.sets.len() - 1)
    }

    fn free(&mut self, index: usize, way: usize) {
        let set = &mut self.sets[index];
        if set.epochs[way] != 0 {
            let name = std::mem::take(&mut set.names[way]);
            set.epochs[way] = 0;
            self.names -= 1;
            self.name_bytes -= cost(&name);
        }
    }

    // Frees names that were not hit since the last sweep, until there is room for one of `bytes`.
    fn make_room(&mut self, bytes: usize) {
        while self.bytes() + bytes > self.bytes_max {
            for _ in 0..SWEEP_SETS {
                for way in 0..WAYS {
                    if !std::mem::take(&mut self.sets[self.hand].is_hit[way]) {
                        self.free(self.hand, way);
                    }
                }
                self.hand = (self.hand + 1) & (self.sets.len() - 1);
            }
        }
    }
}

impl Set {
    fn find(&self, hash: NameHash, name: &[u8]) -> Option<usize> {
        (0..WAYS).find(|way| {
            self.tags[*way] == hash.tag() && self.epochs[*way] != 0 && *self.names[*way] == *name
        })
    }

    // The way to be used next: one that is free, or one that was not hit lately.
    fn victim(&mut self) -> usize {
        if let Some(way) = self.epochs.iter().position(|epoch| *epoch == 0) {
            return way;
        }
        let unhit = self.is_hit.iter().position(|is_hit| !is_hit);
        unhit.unwrap_or_else(|| {
            self.is_hit = [false; WAYS];
            0
        })
    }
}

fn empty_sets(slots: usize) -> Box<[Set]> {
    std::iter::repeat_with(Set::default)
        .take(slots / WAYS)
        .collect()
}

// What a name takes in memory.
fn cost(name: &[u8]) -> usize {
    name.len() + ALLOCATION_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(cache: &mut NameCache, name: &str, decision: Decision) -> Option<Decision> {
        let hash = cache.hash(name.as_bytes());
        let found = cache.get(hash, name.as_bytes());
        if found.is_none() && cache.admits(hash, name.as_bytes()) {
            cache.put(hash, name.as_bytes(), decision);
        }
        found
    }

    #[test]
    fn a_name_is_let_in_when_it_is_missed_for_the_second_time() {
        let mut cache = NameCache::new(0);
        assert_eq!(see(&mut cache, "a", 7), None);
        assert_eq!(see(&mut cache, "a", 7), None);
        assert_eq!(see(&mut cache, "a", 8), Some(7));
        assert_eq!(see(&mut cache, "b", 8), None);
    }

    #[test]
    fn a_new_epoch_voids_decisions_and_keeps_names() {
        let mut cache = NameCache::new(0);
        see(&mut cache, "a", 1);
        see(&mut cache, "a", 1);
        for epoch in 0..70_000 {
            cache.begin_epoch();
            let found = see(&mut cache, "a", epoch);
            assert_eq!(found, None, "epoch {epoch}");
        }
        assert_eq!(see(&mut cache, "a", 0), Some(69_999));
    }

    #[test]
    fn a_burst_of_names_that_come_once_leaves_the_working_set_alone() {
        let mut cache = NameCache::new(4 << 20);
        let working_set: Vec<String> = (0..5000)
            .map(|n| format!("servers.web{n}.cpu.user"))
            .collect();
        for _ in 0..16 {
            working_set.iter().for_each(|name| {
                see(&mut cache, name, 1);
            });
        }
        let hits = |cache: &mut NameCache| {
            working_set
                .iter()
                .filter(|name| see(cache, name, 1).is_some())
                .count()
        };
        let before = hits(&mut cache);
        assert!(before > 4900, "{before}");
        for n in 0..1_000_000 {
            see(&mut cache, &format!("burst.{n}"), 2);
        }
        let after = hits(&mut cache);
        assert!(after > before - 100, "{before} before, {after} after");
    }

    #[test]
    fn a_cache_takes_no_more_than_it_may() {
        let bytes_max = 1 << 20;
        let mut cache = NameCache::new(bytes_max);
        for pass in 0..4 {
            for n in 0..20_000 {
                see(&mut cache, &format!("{n}.{}", "x".repeat(n % 900)), pass);
                assert!(cache.bytes() <= bytes_max);
            }
        }
        let of = |cache: &NameCache| {
            cache
                .sets
                .iter()
                .flat_map(|set| set.epochs)
                .filter(|epoch| *epoch != 0)
                .count()
        };
        assert_eq!(cache.names, of(&cache));
        let held: usize = cache
            .sets
            .iter()
            .flat_map(|set| &set.names)
            .map(|name| name.len())
            .sum();
        assert_eq!(cache.name_bytes, held + cache.names * ALLOCATION_BYTES);
        assert!(cache.bytes() > bytes_max / 2, "the room is used");
    }

    #[test]
    fn a_cache_that_grows_forgets_nothing() {
        let mut cache = NameCache::new(16 << 20);
        let names: Vec<String> = (0..50_000).map(|n| format!("servers.web{n}.cpu")).collect();
        let seen = |cache: &mut NameCache| {
            let decisions = names.iter().zip(0..);
            decisions
                .filter(|(name, n)| see(cache, name, *n) == Some(*n))
                .count()
        };
        for _ in 0..16 {
            seen(&mut cache);
        }
        let hits = seen(&mut cache);
        assert!(hits > 48_000, "{hits}");
        assert!(cache.slots() >= 65_536);
    }
}

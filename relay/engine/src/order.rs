//! The newest timestamp of each series, for those who refuse points that come out of order.
//!
//! All workers share it, for points of one series may come in at any of them. Memory is bounded: where many series meet in
//! one place, the one whose point is the oldest is forgotten, and its next point is taken whatever its timestamp. A series is
//! known by a hash of 64 bits, keyed at random: to be taken for another one is as unlikely as a fault of memory.

use std::hash::BuildHasher as _;
use std::sync::{Mutex, OnceLock, PoisonError};

const WAYS: usize = 4;

/// Locks; a power of two.
const SHARDS: usize = 64;

/// The newest timestamp of each series.
#[derive(Debug)]
pub struct NewestPoints {
    // Nothing is allocated before a point is to be judged.
    shards: OnceLock<Box<[Mutex<Shard>]>>,
    sets_per_shard: usize,
    hasher: foldhash::quality::RandomState,
}

#[derive(Debug)]
struct Shard(Box<[Set]>);

// Series whose hashes lead to the same place. A hash of zero is a free place.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Set {
    hashes: [u64; WAYS],
    timestamps: [u32; WAYS],
}

impl NewestPoints {
    /// Takes `bytes_max` bytes at most, rounded down to a power of two, or 4 KiB if that is less; 64 bytes hold four series.
    pub fn new(bytes_max: usize) -> Self {
        let sets = (bytes_max / size_of::<Set>()).max(SHARDS);
        Self {
            shards: OnceLock::new(),
            sets_per_shard: 1 << (sets / SHARDS).ilog2(),
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// Whether a point is newer than the newest one of its series so far; if so, it is that from now on.
    pub(crate) fn take(&self, name: &[u8], timestamp: u32) -> bool {
        let hash = self.hasher.hash_one(name) | 1;
        let shards = self.shards.get_or_init(|| {
            let empty = || Shard(vec![Set::default(); self.sets_per_shard].into());
            (0..SHARDS).map(|_| Mutex::new(empty())).collect()
        });
        // The lowest bit says nothing.
        let (shard, place) = ((hash >> 1) as usize % SHARDS, (hash >> 7) as usize);
        let mut shard = shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let set = &mut shard.0[place & (self.sets_per_shard - 1)];
        set.take(hash, timestamp)
    }
}

impl Set {
    fn take(&mut self, hash: u64, timestamp: u32) -> bool {
        if let Some(way) = self.hashes.iter().position(|known| *known == hash) {
            let is_newer = timestamp > self.timestamps[way];
            if is_newer {
                self.timestamps[way] = timestamp;
            }
            return is_newer;
        }
        let age = |way: &usize| (self.hashes[*way] != 0, self.timestamps[*way]);
        if let Some(way) = (0..WAYS).min_by_key(age) {
            self.hashes[way] = hash;
            self.timestamps[way] = timestamp;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // carbon-relay-ng's vectors; it refuses a first point at 0 besides.
    #[test]
    fn a_point_must_be_newer_than_the_newest_of_its_series() {
        let newest = NewestPoints::new(0);
        for (name, timestamp, expected) in [
            ("a", 10, true),
            ("a", 10, false),
            ("a", 9, false),
            ("a", 11, true),
            ("b", 5, true),
            ("b", 0, false),
            ("a", 10, false),
        ] {
            let taken = newest.take(name.as_bytes(), timestamp);
            assert_eq!(taken, expected, "{name} {timestamp}");
        }
    }

    #[test]
    fn of_too_many_series_the_one_with_the_oldest_point_is_forgotten() {
        let mut set = Set::default();
        for series in 1..=4 {
            assert!(set.take(series, 100 + series as u32));
        }
        assert!(!set.take(1, 101));
        assert!(set.take(5, 100));
        assert!(set.take(1, 50));
        assert!(!set.take(2, 102));
    }
}

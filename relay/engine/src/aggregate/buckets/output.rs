//! One output's open buckets, and the memory that all of them share.

use std::sync::Arc;

use crate::aggregate::accumulator::{Accumulator, Point};
use crate::aggregate::{Observed, Partial, Rule, RuleIndex};

/// The room for values that a bucket gets when it needs more than the first.
const VALUES_FIRST: usize = 4;

/// A rule and an output name.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) rule: RuleIndex,
    pub(super) name: Arc<[u8]>,
    /// In ascending order; few.
    pub(super) open: Vec<Bucket>,
    /// When a flush first found it without a bucket.
    pub(super) idle_since: Option<u32>,
}

/// The points of one interval.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) start: u32,
    /// The last second of it.
    pub(super) end: u32,
    pub(super) accumulator: Accumulator,
}

/// The memory that may be used.
#[derive(Debug)]
pub(in crate::aggregate) struct Room {
    bytes: usize,
    bytes_max: usize,
    values_max: usize,
}

impl Output {
    /// Where the bucket of a timestamp is, or belongs.
    pub(super) fn place_of(&self, timestamp: u32) -> usize {
        self.open.partition_point(|bucket| bucket.end < timestamp)
    }

    pub(super) fn insert(&mut self, place: usize, bucket: Bucket) {
        self.idle_since = None;
        self.open.insert(place, bucket);
    }

    /// Moves the oldest `count` buckets to `taken`.
    pub(super) fn take(
        &mut self,
        count: usize,
        rule: &Arc<Rule>,
        room: &mut Room,
        taken: &mut Vec<Partial>,
    ) {
        taken.extend(self.open.drain(..count).map(|bucket| {
            room.give(bucket.bytes());
            Partial {
                rule: Arc::clone(rule),
                name: Arc::clone(&self.name),
                start: bucket.start,
                accumulator: bucket.accumulator,
            }
        }));
        if self.open.is_empty() {
            // What a burst of old timestamps needed is not kept.
            self.open.shrink_to(4);
        }
    }
}

impl Bucket {
    pub(super) fn has(&self, timestamp: u32) -> bool {
        self.start <= timestamp && timestamp <= self.end
    }

    pub(super) fn observe(&mut self, point: Point, room: &mut Room) -> Observed {
        match self.accumulator.observe(point, room) {
            true => Observed::Taken,
            false => Observed::Full,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.accumulator.bytes()
    }
}

impl Room {
    pub(super) fn new(bytes_max: usize, values_max: usize) -> Self {
        Self {
            bytes: 0,
            bytes_max,
            values_max,
        }
    }

    pub(super) fn used(&self) -> usize {
        self.bytes
    }

    /// Makes room for one value more, if there may be one.
    pub(in crate::aggregate) fn make_for_one(&mut self, values: &mut Vec<f64>) -> bool {
        if values.len() >= self.values_max {
            return false;
        }
        if values.len() < values.capacity() {
            return true;
        }
        let wanted = (values.len() * 2).max(VALUES_FIRST).min(self.values_max);
        let more = wanted - values.len();
        let is_room = self.take(more * size_of::<f64>());
        if is_room {
            values.reserve_exact(more);
        }
        is_room
    }

    /// Charges memory that is about to be used, if there is so much.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let is_room = bytes <= self.bytes_max.saturating_sub(self.bytes);
        if is_room {
            self.charge(bytes);
        }
        is_room
    }

    /// Charges memory that is used in any case.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    pub(super) fn give(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }
}

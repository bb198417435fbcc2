//! One worker's open buckets.
//!
//! An output is a rule and an output name, interned once; then a point costs an index, a look at the newest bucket and an
//! addition. Whoever holds an [`OutputId`] need not give it back: an output that has had no bucket for long is dropped, and
//! ids carry the generation of their place, so that an old one is told from the id of what stands there since.

mod output;

use std::collections::HashMap;
use std::sync::Arc;

use super::accumulator::{Accumulator, Point};
use super::{Partial, RuleIndex, Rules};
use output::{Bucket, Output};

pub(super) use output::Room;

/// What one worker may hold, and when it lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many buckets may be open.
    pub buckets_max: usize,
    /// What buckets, their values and the output names may take in memory, in bytes, as reckoned from their sizes.
    pub bytes_max: usize,
    /// How many values one bucket may hold for percentiles.
    pub values_max: usize,
    /// How many seconds after the present a point may lie and still open a bucket.
    pub future_seconds_max: u32,
    /// An output that has had no bucket for this many seconds is dropped.
    pub idle_seconds: u32,
}

impl Default for Limits {
    /// 100,000 buckets in 64 MiB, with 100,000 values in each; points up to an hour in the future; a quarter of an hour idle.
    fn default() -> Self {
        Self {
            buckets_max: 100_000,
            bytes_max: 64 << 20,
            values_max: 100_000,
            future_seconds_max: 3600,
            idle_seconds: 900,
        }
    }
}

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Observed {
    /// It is in its bucket.
    Taken,
    /// Refused: it would have opened a bucket that was due already.
    Late,
    /// Refused: it would have opened a bucket too far in the future.
    Future,
    /// Refused: no room for a bucket, or for another value in its bucket.
    Full,
    /// Refused: the value is NaN or infinite.
    NotFinite,
    /// Nothing was done: the output is gone. Intern it again and observe once more.
    Gone,
}

/// How far a flush has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flush {
    /// All that was due is taken.
    Finished,
    /// There may be more: call again.
    Unfinished,
}

/// An output in the [`Buckets`] that gave this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputId {
    place: u32,
    generation: u32,
}

/// The open buckets of one worker.
#[derive(Debug)]
pub struct Buckets {
    rules: Rules,
    // By the place of a rule: places of its outputs, by their names.
    places: Vec<Places>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    buckets: usize,
    buckets_max: usize,
    room: Room,
    future_seconds_max: u32,
    idle_seconds: u32,
    // When a flush began last. What was due then is not opened again, even where a worker's time is a little behind; where
    // the clock was set back, this ends with the next flush.
    flushed_at: u32,
    // How far the flush that is under way has come; zero if none is.
    flushed_slots: usize,
}

type Places = HashMap<Arc<[u8]>, u32, foldhash::quality::RandomState>;

#[derive(Debug, Default)]
struct Slot {
    // Rises when the output goes.
    generation: u32,
    output: Option<Output>,
}

// What an output is reckoned at beside its name: its slot, its entry in the map and what the allocator adds.
const OUTPUT_BYTES: usize = size_of::<Slot>() + 64;

impl Buckets {
    /// No buckets.
    pub fn new(rules: Rules, limits: Limits) -> Self {
        Self {
            places: rules.iter().map(|_| Places::default()).collect(),
            rules,
            slots: Vec::new(),
            free: Vec::new(),
            buckets: 0,
            buckets_max: limits.buckets_max,
            room: Room::new(limits.bytes_max, limits.values_max),
            future_seconds_max: limits.future_seconds_max,
            idle_seconds: limits.idle_seconds,
            flushed_at: 0,
            flushed_slots: 0,
        }
    }

    /// The id of an output, which is new or known. `name` is what the rule's template came to, with [`super::FUNCTION_MARK`]
    /// where the function's name belongs. `None`: there is no room for it.
    ///
    /// # Panics
    /// `rule` is of another table than the one that [`Buckets::change_rules`] was last given, and beyond this one's end.
    pub fn intern(&mut self, rule: RuleIndex, name: &[u8]) -> Option<OutputId> {
        if let Some(place) = self.places[rule.get()].get(name) {
            return Some(self.id(*place));
        }
        let is_room = self.slots.len() < u32::MAX as usize && self.room.take(output_bytes(name));
        is_room.then(|| self.add_output(rule, name))
    }

    /// Takes a point into its bucket. `now` is in seconds since 1970, `stamp` greater for what was received later, by any
    /// worker.
    #[inline]
    pub fn observe(
        &mut self,
        id: OutputId,
        timestamp: u32,
        value: f64,
        now: u32,
        stamp: u64,
    ) -> Observed {
        let point = Point {
            timestamp,
            value,
            stamp,
        };
        let Some(output) = self
            .slots
            .get_mut(id.place as usize)
            .filter(|slot| slot.generation == id.generation)
            .and_then(|slot| slot.output.as_mut())
        else {
            return Observed::Gone;
        };
        if !value.is_finite() {
            return Observed::NotFinite;
        }
        // Nearly every point belongs to the newest bucket.
        if let Some(newest) = output.open.last_mut()
            && newest.has(timestamp)
        {
            return newest.observe(point, &mut self.room);
        }
        self.observe_elsewhere(id, point, now)
    }

    /// Moves the buckets that are due to the end of `taken`, in no order, and lets go of outputs that were idle for long.
    /// After about `most` buckets it stops, so that lines need not wait for a great flush; the next call goes on, for the
    /// time at which this one began. All workers are to be given the same `now`, and all that they give is to be merged: a
    /// worker's share of a bucket is not its value.
    pub fn take_due(&mut self, now: u32, most: usize, taken: &mut Vec<Partial>) -> Flush {
        if self.flushed_slots == 0 {
            self.flushed_at = now;
        }
        let now = self.flushed_at;
        let taken_before = taken.len();
        while self.flushed_slots < self.slots.len() && taken.len() - taken_before < most.max(1) {
            self.take_due_of(self.flushed_slots, now, taken);
            self.flushed_slots += 1;
        }
        self.buckets -= taken.len() - taken_before;
        if self.flushed_slots < self.slots.len() {
            return Flush::Unfinished;
        }
        self.flushed_slots = 0;
        Flush::Finished
    }

    /// Takes all buckets out, due or not: for a checkpoint.
    pub fn take_all(&mut self) -> Vec<Partial> {
        self.take_of(|_| true)
    }

    /// Goes over to the rules of another table. Buckets, outputs and ids of rules that are there again, by id, with the same
    /// interval and with functions that need the same, stay. The buckets of all others are given back, for the caller to
    /// merge with those of the other workers and to write at once.
    pub fn change_rules(&mut self, rules: Rules) -> Vec<Partial> {
        let successors: Vec<Option<RuleIndex>> = self
            .rules
            .iter()
            .map(|(_, rule)| rules.successor(rule))
            .collect();
        let taken = self.take_of(|index| successors[index.get()].is_none());
        for place in 0..self.slots.len() {
            if let Some(output) = &mut self.slots[place].output {
                match successors[output.rule.get()] {
                    Some(index) => output.rule = index,
                    None => drop(self.free_slot(place)),
                }
            }
        }
        let mut places: Vec<Places> = rules.iter().map(|_| Places::default()).collect();
        for (old, successor) in self.places.drain(..).zip(&successors) {
            if let Some(index) = successor {
                places[index.get()] = old;
            }
        }
        self.places = places;
        self.rules = rules;
        taken
    }

    /// Takes in a bucket from a checkpoint, merging it into the one that is open. It may be due already: the next
    /// [`Buckets::take_due`] takes it. Returns [`Observed::Taken`], [`Observed::Full`], or [`Observed::Gone`] if its rule is
    /// not among those here.
    pub fn restore(&mut self, partial: Partial) -> Observed {
        let Some(index) = self.rules.successor(&partial.rule) else {
            return Observed::Gone;
        };
        let Some(id) = self.intern(index, &partial.name) else {
            return Observed::Full;
        };
        let mut bucket = Bucket {
            start: partial.start,
            end: self.rules.get(index).bucket_end(partial.start),
            accumulator: partial.accumulator,
        };
        let output = self.slots[id.place as usize].output.as_mut();
        let output = output.expect("it was interned above");
        let place = output.place_of(bucket.start);
        match output.open.get_mut(place) {
            Some(open) if open.has(bucket.start) => {
                let apart = open.bytes() + bucket.bytes();
                if !self.room.take(bucket.bytes()) {
                    return Observed::Full;
                }
                open.accumulator.merge(&mut bucket.accumulator);
                self.room.give(apart);
                self.room.charge(open.bytes());
            }
            _ if self.buckets == self.buckets_max || !self.room.take(bucket.bytes()) => {
                return Observed::Full;
            }
            _ => {
                self.buckets += 1;
                output.insert(place, bucket);
            }
        }
        Observed::Taken
    }

    /// How many buckets are open.
    pub fn open(&self) -> usize {
        self.buckets
    }

    /// How many outputs are interned.
    pub fn outputs(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// What buckets, values and names take in memory, in bytes, as reckoned.
    pub fn bytes(&self) -> usize {
        self.room.used()
    }

    fn add_output(&mut self, rule: RuleIndex, name: &[u8]) -> OutputId {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let name: Arc<[u8]> = name.into();
        self.places[rule.get()].insert(Arc::clone(&name), place);
        self.slots[place as usize].output = Some(Output {
            rule,
            name,
            open: Vec::new(),
            idle_since: None,
        });
        self.id(place)
    }

    fn id(&self, place: u32) -> OutputId {
        OutputId {
            place,
            generation: self.slots[place as usize].generation,
        }
    }

    // A point that is not for the newest bucket: for another one, or for one that it opens.
    #[cold]
    fn observe_elsewhere(&mut self, id: OutputId, point: Point, now: u32) -> Observed {
        let output = self.slots[id.place as usize].output.as_mut();
        let output = output.expect("the caller looked at it");
        let place = output.place_of(point.timestamp);
        if let Some(bucket) = output.open.get_mut(place)
            && bucket.has(point.timestamp)
        {
            return bucket.observe(point, &mut self.room);
        }
        let rule = self.rules.get(output.rule);
        let start = rule.bucket_start(point.timestamp);
        if rule.due(start) <= u64::from(now.max(self.flushed_at)) {
            return Observed::Late;
        }
        if point.timestamp > now.saturating_add(self.future_seconds_max) {
            return Observed::Future;
        }
        if self.buckets == self.buckets_max {
            return Observed::Full;
        }
        let bucket = Bucket {
            start,
            end: rule.bucket_end(start),
            accumulator: Accumulator::begin(rule.needs(), point),
        };
        if !self.room.take(bucket.bytes()) {
            return Observed::Full;
        }
        self.buckets += 1;
        output.insert(place, bucket);
        Observed::Taken
    }

    fn take_due_of(&mut self, place: usize, now: u32, taken: &mut Vec<Partial>) {
        let Some(output) = &mut self.slots[place].output else {
            return;
        };
        let rule = self.rules.get(output.rule);
        let is_due = |bucket: &Bucket| rule.due(bucket.start) <= u64::from(now);
        let due = output.open.partition_point(is_due);
        output.take(due, rule, &mut self.room, taken);
        if output.open.is_empty() {
            let idle_since = *output.idle_since.get_or_insert(now);
            if now.saturating_sub(idle_since) >= self.idle_seconds
                && let Some(output) = self.free_slot(place)
            {
                self.places[output.rule.get()].remove(&output.name);
            }
        }
    }

    fn take_of(&mut self, is_wanted: impl Fn(RuleIndex) -> bool) -> Vec<Partial> {
        let mut taken = Vec::new();
        for output in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.output.as_mut())
        {
            if is_wanted(output.rule) {
                let all = output.open.len();
                output.take(all, self.rules.get(output.rule), &mut self.room, &mut taken);
            }
        }
        self.buckets -= taken.len();
        taken
    }

    // Takes an output out of its slot, so that no id is good for it.
    fn free_slot(&mut self, place: usize) -> Option<Output> {
        let slot = &mut self.slots[place];
        let output = slot.output.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(place as u32);
        self.room.give(output_bytes(&output.name));
        Some(output)
    }
}

fn output_bytes(name: &[u8]) -> usize {
    OUTPUT_BYTES + name.len()
}

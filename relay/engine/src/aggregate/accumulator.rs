//! What is held of the points of one bucket: no more than its rule's functions need, and such that two shares of a bucket
//! make the whole.

mod part;

use super::buckets::Room;
use super::percentile::median;
use super::{PercentileDefinition, Statistic};
pub(super) use part::{End, Ends, Last, Part, Range, Spread};

/// A point as a bucket sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) timestamp: u32,
    /// Finite.
    pub(super) value: f64,
    /// Greater for a point that was received later; points of one worker may share one.
    pub(super) stamp: u64,
}

/// The points of one bucket, at least one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Accumulator {
    pub(super) count: u64,
    pub(super) sum: f64,
    /// One for each need of the rule, in the order of [`Need`]; without one nothing is allocated.
    pub(super) parts: Box<[Part]>,
}

/// The kinds of [`Part`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The first, so that whether there is room for a value is known before anything changes.
    Values,
    Range,
    Last,
    Ends,
    Spread,
}

/// A set of needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Needs(u8);

impl Needs {
    pub(super) fn of(statistics: &[Statistic]) -> Self {
        let needs = statistics.iter().filter_map(|statistic| match statistic {
            Statistic::Avg | Statistic::Count | Statistic::Sum => None,
            Statistic::Delta | Statistic::Max | Statistic::Min => Some(Need::Range),
            Statistic::Derive => Some(Need::Ends),
            Statistic::Last => Some(Need::Last),
            Statistic::Stdev => Some(Need::Spread),
            Statistic::Median | Statistic::Percentile(_) => Some(Need::Values),
        });
        Self(needs.fold(0, |bits, need| bits | need.bit()))
    }

    /// The set as [`Needs::bits`] gave it, unless there is a need in it that is not known.
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        let known = Need::ALL.iter().fold(0, |known, need| known | need.bit());
        (bits & !known == 0).then_some(Self(bits))
    }

    /// Bit `i` is the need at place `i` of [`Need::ALL`].
    pub(super) fn bits(self) -> u8 {
        self.0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Need> {
        let all = Need::ALL.into_iter();
        all.filter(move |need| self.0 & need.bit() != 0)
    }
}

impl Need {
    pub(super) const ALL: [Self; 5] = [
        Self::Values,
        Self::Range,
        Self::Last,
        Self::Ends,
        Self::Spread,
    ];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl Accumulator {
    /// Begins a bucket with its first point.
    pub(super) fn begin(needs: Needs, point: Point) -> Self {
        Self {
            count: 1,
            sum: point.value,
            parts: needs.iter().map(|need| Part::begin(need, point)).collect(),
        }
    }

    /// Takes a point in, unless there is no room for its value.
    pub(super) fn observe(&mut self, point: Point, room: &mut Room) -> bool {
        if let Some(Part::Values(values)) = self.parts.first_mut()
            && !room.make_for_one(values)
        {
            return false;
        }
        self.count += 1;
        self.sum += point.value;
        for part in &mut self.parts {
            part.observe(point);
        }
        true
    }

    /// Takes in another share of the same bucket, which has the same needs.
    pub(super) fn merge(&mut self, other: &mut Self) {
        self.count += other.count;
        self.sum += other.sum;
        let others = std::mem::take(&mut other.parts);
        for (part, other_part) in self.parts.iter_mut().zip(others) {
            part.merge(other_part, other.count as f64);
        }
    }

    /// What it takes in memory beside itself.
    pub(super) fn bytes(&self) -> usize {
        let values = match self.parts.first() {
            Some(Part::Values(values)) => values.capacity() * size_of::<f64>(),
            _ => 0,
        };
        size_of_val(&*self.parts) + values
    }

    /// Puts the values in the order that [`Accumulator::value`] relies on.
    pub(super) fn sort_values(&mut self) {
        if let Some(Part::Values(values)) = self.parts.first_mut() {
            values.sort_unstable_by(f64::total_cmp);
        }
    }

    /// What the points come to, if they come to anything. The values are sorted, and the rule needs what `statistic` needs.
    pub(super) fn value(
        &self,
        statistic: Statistic,
        definition: PercentileDefinition,
    ) -> Option<f64> {
        let count = self.count as f64;
        match statistic {
            Statistic::Avg => return Some(self.sum / count),
            Statistic::Count => return Some(count),
            Statistic::Sum => return Some(self.sum),
            Statistic::Delta
            | Statistic::Derive
            | Statistic::Last
            | Statistic::Max
            | Statistic::Min
            | Statistic::Stdev
            | Statistic::Median
            | Statistic::Percentile(_) => {}
        }
        self.parts.iter().find_map(|part| match (part, statistic) {
            (Part::Values(values), Statistic::Median) => Some(median(values)),
            (Part::Values(values), Statistic::Percentile(percentile)) => {
                Some(definition.value(percentile, values))
            }
            (Part::Range(range), Statistic::Delta) => Some(range.max - range.min),
            (Part::Range(range), Statistic::Max) => Some(range.max),
            (Part::Range(range), Statistic::Min) => Some(range.min),
            (Part::Last(last), Statistic::Last) => Some(last.value),
            (Part::Ends(ends), Statistic::Derive) => ends.derive(),
            (Part::Spread(spread), Statistic::Stdev) => Some(spread.deviation(count)),
            _ => None,
        })
    }
}

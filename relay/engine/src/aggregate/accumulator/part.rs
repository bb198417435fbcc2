//! What functions need beyond count and sum, each kind such that two shares of a bucket make the whole.

use super::{Need, Point};

/// What one need asks to be held.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::aggregate) enum Part {
    /// Every value.
    Values(Vec<f64>),
    Range(Range),
    Last(Last),
    Ends(Ends),
    Spread(Spread),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::aggregate) struct Range {
    pub(in crate::aggregate) min: f64,
    pub(in crate::aggregate) max: f64,
}

/// The point that was received last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::aggregate) struct Last {
    pub(in crate::aggregate) stamp: u64,
    pub(in crate::aggregate) value: f64,
}

/// The points with the oldest and with the newest timestamp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::aggregate) struct Ends {
    pub(in crate::aggregate) oldest: End,
    pub(in crate::aggregate) newest: End,
}

/// The first that was received of the points with one timestamp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::aggregate) struct End {
    pub(in crate::aggregate) timestamp: u32,
    pub(in crate::aggregate) stamp: u64,
    pub(in crate::aggregate) value: f64,
}

/// Sums over the distances from one of the points. Whole numbers stay exact; and because that point's own distance from the
/// mean is part of the deviation sought, cancellation costs no more digits than the number of points has, which cannot be
/// said of sums over the values themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::aggregate) struct Spread {
    pub(in crate::aggregate) origin: f64,
    pub(in crate::aggregate) distances: f64,
    pub(in crate::aggregate) squares: f64,
}

impl Part {
    pub(super) fn begin(need: Need, point: Point) -> Self {
        match need {
            Need::Values => Self::Values(vec![point.value]),
            Need::Range => Self::Range(Range::of(point)),
            Need::Last => Self::Last(Last::of(point)),
            Need::Ends => Self::Ends(Ends::of(point)),
            Need::Spread => Self::Spread(Spread {
                origin: point.value,
                distances: 0.0,
                squares: 0.0,
            }),
        }
    }

    pub(super) fn observe(&mut self, point: Point) {
        match self {
            Self::Values(values) => values.push(point.value),
            Self::Range(range) => range.merge(Range::of(point)),
            Self::Last(last) => last.merge(Last::of(point)),
            Self::Ends(ends) => ends.merge(Ends::of(point)),
            Self::Spread(spread) => spread.observe(point.value),
        }
    }

    // `other_count` is how many points the other share has.
    pub(super) fn merge(&mut self, other: Self, other_count: f64) {
        match (self, other) {
            (Self::Values(values), Self::Values(mut others)) => values.append(&mut others),
            (Self::Range(range), Self::Range(other)) => range.merge(other),
            (Self::Last(last), Self::Last(other)) => last.merge(other),
            (Self::Ends(ends), Self::Ends(other)) => ends.merge(other),
            (Self::Spread(spread), Self::Spread(other)) => spread.merge(other, other_count),
            _ => unreachable!("shares of one bucket have the same needs"),
        }
    }
}

impl Range {
    fn of(point: Point) -> Self {
        Self {
            min: point.value,
            max: point.value,
        }
    }

    fn merge(&mut self, other: Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

impl Last {
    fn of(point: Point) -> Self {
        Self {
            stamp: point.stamp,
            value: point.value,
        }
    }

    // Of two with the same stamp the other one: that is the order within a worker.
    fn merge(&mut self, other: Self) {
        if other.stamp >= self.stamp {
            *self = other;
        }
    }
}

impl Ends {
    fn of(point: Point) -> Self {
        let end = End {
            timestamp: point.timestamp,
            stamp: point.stamp,
            value: point.value,
        };
        Self {
            oldest: end,
            newest: end,
        }
    }

    fn merge(&mut self, other: Self) {
        if other.oldest.timestamp < self.oldest.timestamp || other.oldest.precedes(self.oldest) {
            self.oldest = other.oldest;
        }
        if other.newest.timestamp > self.newest.timestamp || other.newest.precedes(self.newest) {
            self.newest = other.newest;
        }
    }

    /// The change per second, unless there is one timestamp only.
    pub(super) fn derive(&self) -> Option<f64> {
        let (oldest, newest) = (self.oldest, self.newest);
        match newest.timestamp - oldest.timestamp {
            0 => None,
            seconds => Some((newest.value - oldest.value) / f64::from(seconds)),
        }
    }
}

impl End {
    // Whether it has the other one's timestamp and was received earlier.
    fn precedes(self, other: Self) -> bool {
        self.timestamp == other.timestamp && self.stamp < other.stamp
    }
}

impl Spread {
    fn observe(&mut self, value: f64) {
        let distance = value - self.origin;
        self.distances += distance;
        self.squares += distance * distance;
    }

    // Moves the other one's distances to this origin, and adds.
    fn merge(&mut self, other: Self, other_count: f64) {
        let moved = other.origin - self.origin;
        self.distances += other.distances + other_count * moved;
        self.squares += other.squares + moved * (2.0 * other.distances + other_count * moved);
    }

    /// The standard deviation of all `count` points.
    pub(super) fn deviation(&self, count: f64) -> f64 {
        let variance = (self.squares - self.distances * self.distances / count) / count;
        // Rounding may take it just below zero; but NaN, where a sum overflowed, must stay what it is.
        match variance < 0.0 {
            true => 0.0,
            false => variance.sqrt(),
        }
    }
}

//! What became of lines: the fixed reasons, and how many fell under each.

use std::ops::AddAssign;

/// Why a line was dropped. Metrics carry [`Reason::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Longer than the listener's limit; it was skipped to the next newline.
    LineTooLong,
    /// Nothing but whitespace.
    Blank,
    /// Not three fields: name, value, timestamp.
    FieldCount,
    /// The connection ended within the line, and not by a clean close.
    Truncated,
    /// Its beginning was long, and there was no room to keep it until the rest came.
    NoRoom,
    /// More came from its address than the listener's `maxLinesPerSecondPerSource`, in datagrams.
    RateLimited,
    /// A frame that is longer than the listener's limit: its points are not known, and it counts as one.
    FrameTooLong,
    /// A frame, or the rest of a compressed stream, that cannot be read, and counts as one.
    FrameInvalid,
    /// Something in a frame that is not a name with a timestamp and a value.
    PointInvalid,
    /// The name is empty, or nothing but a dot.
    NameEmpty,
    /// A byte of the name is not ASCII.
    NameNonAscii,
    /// The name has a NUL byte in it.
    NameNul,
    /// The name has a character other than letters, digits, `_`, `-` and dots before its tags (level Strict).
    NameIllegalCharacter,
    /// The name has two dots in a row (level Strict).
    NameEmptyNode,
    /// What follows the name's first `;` is not `tag=value` pairs.
    TagsInvalid,
    /// A metrics2.0 name that has both `=` and `_is_`.
    Metrics20Mixed,
    /// A metrics2.0 name without a unit tag.
    Metrics20NoUnit,
    /// A metrics2.0 name without an mtype tag.
    Metrics20NoMtype,
    /// A metrics2.0 name with no tag beside unit and mtype.
    Metrics20TooFewTags,
    /// The value is not a decimal number, or beyond what a double holds.
    ValueInvalid,
    /// The value is NaN or infinite.
    ValueNotFinite,
    /// The timestamp is not seconds since 1970 that fit in 32 bits, `-1` or `N`.
    TimestampInvalid,
    /// The timestamp lies further in the past than the Relay's `maxPast`.
    TimestampPast,
    /// The timestamp lies further in the future than the Relay's `maxFuture`.
    TimestampFuture,
    /// The point is not newer than the one before it in its series.
    OutOfOrder,
    /// A blocklist has the name.
    Blocklisted,
    /// What rewriters made of the name is no name.
    RewrittenInvalid,
    /// An aggregator keeps it from routes, but what its output comes to is no name.
    AggregateInvalid,
    /// An aggregator keeps it from routes, but its bucket was due already.
    AggregatePast,
    /// An aggregator keeps it from routes, but its bucket lies too far in the future.
    AggregateFuture,
    /// An aggregator keeps it from routes, but there is no room for it.
    AggregateFull,
    /// No route took it.
    Unrouted,
}

impl Reason {
    /// Every reason, in the order of a line's way.
    pub const ALL: [Self; 32] = [
        Self::LineTooLong,
        Self::Blank,
        Self::FieldCount,
        Self::Truncated,
        Self::NoRoom,
        Self::RateLimited,
        Self::FrameTooLong,
        Self::FrameInvalid,
        Self::PointInvalid,
        Self::NameEmpty,
        Self::NameNonAscii,
        Self::NameNul,
        Self::NameIllegalCharacter,
        Self::NameEmptyNode,
        Self::TagsInvalid,
        Self::Metrics20Mixed,
        Self::Metrics20NoUnit,
        Self::Metrics20NoMtype,
        Self::Metrics20TooFewTags,
        Self::ValueInvalid,
        Self::ValueNotFinite,
        Self::TimestampInvalid,
        Self::TimestampPast,
        Self::TimestampFuture,
        Self::OutOfOrder,
        Self::Blocklisted,
        Self::RewrittenInvalid,
        Self::AggregateInvalid,
        Self::AggregatePast,
        Self::AggregateFuture,
        Self::AggregateFull,
        Self::Unrouted,
    ];

    /// The reason as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LineTooLong => "line_too_long",
            Self::Blank => "blank",
            Self::FieldCount => "field_count",
            Self::Truncated => "truncated",
            Self::NoRoom => "no_room",
            Self::RateLimited => "rate_limited",
            Self::FrameTooLong => "frame_too_long",
            Self::FrameInvalid => "frame_invalid",
            Self::PointInvalid => "point_invalid",
            Self::NameEmpty => "name_empty",
            Self::NameNonAscii => "name_non_ascii",
            Self::NameNul => "name_nul",
            Self::NameIllegalCharacter => "name_illegal_character",
            Self::NameEmptyNode => "name_empty_node",
            Self::TagsInvalid => "tags_invalid",
            Self::Metrics20Mixed => "metrics20_mixed",
            Self::Metrics20NoUnit => "metrics20_no_unit",
            Self::Metrics20NoMtype => "metrics20_no_mtype",
            Self::Metrics20TooFewTags => "metrics20_too_few_tags",
            Self::ValueInvalid => "value_invalid",
            Self::ValueNotFinite => "value_not_finite",
            Self::TimestampInvalid => "timestamp_invalid",
            Self::TimestampPast => "timestamp_past",
            Self::TimestampFuture => "timestamp_future",
            Self::OutOfOrder => "out_of_order",
            Self::Blocklisted => "blocklisted",
            Self::RewrittenInvalid => "rewritten_invalid",
            Self::AggregateInvalid => "aggregate_invalid",
            Self::AggregatePast => "aggregate_past",
            Self::AggregateFuture => "aggregate_future",
            Self::AggregateFull => "aggregate_full",
            Self::Unrouted => "unrouted",
        }
    }
}

/// How many lines came in and what became of them. `received = forwarded + absorbed + dropped`, always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lines that came in.
    pub received: u64,
    /// Lines that at least one destination was given.
    pub forwarded: u64,
    /// Lines that went into an aggregate and no further.
    pub absorbed: u64,
    dropped: [u64; Reason::ALL.len()],
}

impl Tally {
    /// Lines dropped for `reason`.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Counts a line that came in and was dropped for `reason`.
    pub fn drop_line(&mut self, reason: Reason) {
        self.drop_lines(reason, 1);
    }

    /// Counts lines that came in and were dropped for `reason`.
    pub fn drop_lines(&mut self, reason: Reason, lines: u64) {
        self.received += lines;
        self.dropped[reason as usize] += lines;
    }

    // For a line that was counted as received.
    pub(crate) fn count_drop(&mut self, reason: Reason) {
        self.dropped[reason as usize] += 1;
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.received += other.received;
        self.forwarded += other.forwarded;
        self.absorbed += other.absorbed;
        for (sum, more) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.as_str());
        }
    }
}

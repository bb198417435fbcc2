//! What a spool may grow to, and the time as it is told.

use std::time::Duration;

/// A moment by the wall clock, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

impl UnixSeconds {
    /// The seconds since `earlier`; 0 if that is later.
    pub(crate) fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The bounds of a spool. They may change while there is data on disk: see [`Spool::set_limits`](crate::Spool::set_limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk, those of the segments' headers included, the cursor's 8 KiB not.
    pub bytes_max: u64,
    /// The age at which lines are dropped; `None` keeps them for ever. Files go as a whole, so lines are up to a sixteenth
    /// of this, and at least a second, older when they go.
    pub age_max: Option<Duration>,
    /// The size at which a new segment begins, in bytes. Disk space comes back by whole segments. More than a quarter of
    /// `bytes_max` is taken as that; one larger batch is a segment of its own.
    pub segment_bytes: u64,
    /// What gives way at `bytes_max`.
    pub when_full: WhenFull,
}

impl Limits {
    /// The size of a segment, where nobody asks for another: 64 MiB. Replaying one frees its space after a second or so.
    pub const SEGMENT_BYTES: u64 = 64 << 20;

    /// Where a new segment begins.
    pub(crate) fn segment_end(&self) -> u64 {
        self.segment_bytes.min(self.bytes_max / 4)
    }

    /// Whether lines of this age, in seconds, are too old.
    pub(crate) fn is_too_old(&self, age: u64) -> bool {
        self.age_max.is_some_and(|limit| age > limit.as_secs())
    }

    /// Whether a segment whose first line is of this age, in seconds, takes no more.
    pub(crate) fn is_segment_too_old(&self, age: u64) -> bool {
        self.age_max.is_some_and(|limit| age > limit.as_secs() / 16)
    }
}

/// What gives way when a spool is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The new batch.
    DropNewest,
    /// The oldest segments.
    DropOldest,
}

//! What is counted.

/// Why a line that was offered to the spool does not come out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The spool had reached its `bytes_max`.
    Full,
    /// The file system had no space left, or the quota none.
    DiskFull,
    /// It waited for longer than `age_max`.
    AgedOut,
    /// It was synced once, and is not on disk any more, or not as it was written.
    Damaged,
    /// It could not be written for another reason.
    Io,
}

impl Loss {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Full,
        Self::DiskFull,
        Self::AgedOut,
        Self::Damaged,
        Self::Io,
    ];

    /// The loss as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "spool_full",
            Self::DiskFull => "disk_full",
            Self::AgedOut => "spool_aged_out",
            Self::Damaged => "spool_damaged",
            Self::Io => "spool_io",
        }
    }
}

/// A spool's figures at one moment. Those that count began with 0 when it was opened, and always
/// `recovered + offered = acknowledged + waiting + dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lines found when the spool was opened, those that turn out to be damaged included.
    pub recovered: u64,
    /// Lines that append was called with.
    pub offered: u64,
    /// Lines that were acknowledged.
    pub acknowledged: u64,
    /// Lines dropped, by [`Loss`].
    pub dropped: [u64; Loss::ALL.len()],
    /// Lines that wait, those read and not yet acknowledged included.
    pub waiting: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// How long the oldest waiting line has waited, in seconds. It may be too much by as much as `Limits::age_max` says.
    pub oldest_seconds: Option<u64>,
    /// Bytes that were skipped because no record could be made out of them, those after the last whole record included.
    pub damaged_bytes: u64,
}

impl Figures {
    /// Lines dropped for this reason.
    pub fn dropped(&self, loss: Loss) -> u64 {
        self.dropped[loss as usize]
    }

    /// Counts `lines` under a reason.
    pub(crate) fn drop_lines(&mut self, loss: Loss, lines: u64) {
        self.dropped[loss as usize] += lines;
    }
}

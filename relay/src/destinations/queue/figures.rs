//! What one queue has counted.

/// A queue's figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Lines that workers brought.
    pub(crate) offered: u64,
    /// Lines that were given to the destination once more, because their connection broke.
    pub(crate) resent: u64,
    /// Lines whose bytes were handed over, but for those from the spool.
    pub(crate) sent_from_memory: u64,
    /// Bytes that were handed over, those from the spool included.
    pub(crate) bytes_sent: u64,
    /// Those from the spool; what is sent again from there counts again.
    pub(crate) bytes_replayed: u64,
    /// Lines dropped, by [`Loss`].
    pub(crate) dropped: [u64; Loss::ALL.len()],
    /// Lines from the spool that the destination refused for good, and that the spool counts as handed over.
    pub(crate) refused_from_spool: u64,
    /// Lines that were handed over, and that the destination's settings leave out of what its server gets.
    pub(crate) left_out: u64,
    /// Lines that wait, those with senders included.
    pub(crate) queue_lines: u64,
    /// Their bytes.
    pub(crate) queue_bytes: u64,
    /// The spool's.
    pub(crate) spool: relay_spool::Figures,
    /// The spool is not open, or not yet: what waits on disk is not known.
    pub(crate) spool_is_unknown: bool,
    /// Lanes, but for those that have left.
    pub(crate) lanes: usize,
    /// Those that have a connection.
    pub(crate) connected: usize,
    /// Whether failover gives any of them lines.
    pub(crate) live: bool,
}

impl Figures {
    /// Lines whose bytes were handed over.
    pub(crate) fn sent(&self) -> u64 {
        let sent = self.sent_from_memory + self.spool.acknowledged;
        // A spool that was opened anew after a fault begins to count anew.
        sent.saturating_sub(self.refused_from_spool)
    }

    /// Lines that were lost because the relay stopped.
    pub(crate) fn lost_at_shutdown(&self) -> u64 {
        self.dropped[Loss::Shutdown as usize]
    }

    /// Whether every lane has its connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected == self.lanes
    }
}

/// Why a destination did not get a line that was forwarded to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The queue was full.
    QueueFull,
    /// The destination was removed, and what waited for it could not be handed over in time.
    Removed,
    /// The destination will never take it.
    Rejected,
    /// The relay stopped, and what waited could not be handed over in time.
    Shutdown,
}

impl Loss {
    pub(crate) const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::Removed,
        Self::Rejected,
        Self::Shutdown,
    ];

    /// The loss as a metric label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Removed => "removed",
            Self::Rejected => "rejected",
            Self::Shutdown => "shutdown",
        }
    }
}

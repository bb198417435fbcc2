//! How one destination stands at one moment: what metrics, `/destinations` and reports are made of.

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use super::connection::Described;
use super::link;
use super::queue::{Chunk, Figures, Loss, Queue};
use super::sink::DeadLetters;

/// A destination of the snapshot in force.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) settings: relay_engine::Destination,
    pub(crate) queue: Arc<Queue>,
    pub(crate) dead_letters: Option<Arc<DeadLetters>>,
}

/// How a destination stands.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// `namespace/name`.
    pub(crate) name: Arc<str>,
    pub(crate) state: State,
    pub(crate) figures: Figures,
    pub(crate) link: link::Figures,
    pub(crate) queue_bytes_max: u64,
    /// 0 where nothing is to wait on disk.
    pub(crate) spool_bytes_max: u64,
    pub(crate) dead_letter_bytes: u64,
    pub(crate) dead_letter_bytes_max: u64,
    id: Arc<str>,
    endpoint: String,
}

/// Whether a destination takes its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It takes what it is given.
    Connected,
    /// Nothing has failed, and there is no connection yet.
    Connecting,
    /// It is connected, and takes less than comes for it.
    Slow,
    /// There is no connection, or not all that there should be, and the last try failed.
    Down,
}

impl State {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Connecting => "connecting",
            Self::Slow => "slow",
            Self::Down => "down",
        }
    }
}

impl Known {
    /// What the destination refused for good, as text; empty where nothing is kept.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn dead_letters(&self) -> io::Result<Vec<u8>> {
        self.dead_letters
            .as_ref()
            .map_or(Ok(Vec::new()), |dead| dead.read())
    }

    /// Has what the destination refused for good sent again. Returns how many lines that are.
    ///
    /// # Errors
    /// The file cannot be read or removed.
    pub(crate) fn replay_dead_letters(&self) -> io::Result<u64> {
        let Some(dead_letters) = &self.dead_letters else {
            return Ok(0);
        };
        let mut replayed = 0;
        dead_letters.empty(|lines| {
            let chunk = Chunk::of(lines);
            let lines = chunk.lines;
            let is_taken = lines == 0 || self.queue.resend([chunk].into());
            replayed = if is_taken { lines } else { 0 };
            is_taken
        })?;
        Ok(replayed)
    }

    pub(crate) fn standing(&self) -> Standing {
        let figures = self.queue.figures();
        let link = self.queue.links();
        let spool = self.settings.spool.as_ref();
        Standing {
            name: Arc::clone(&self.settings.name),
            state: match (figures.is_connected(), link.has_failed) {
                (true, _) if self.queue.is_slow() => State::Slow,
                (true, _) => State::Connected,
                (false, false) => State::Connecting,
                (false, true) => State::Down,
            },
            figures,
            link,
            queue_bytes_max: self.settings.queue.bytes_max as u64,
            spool_bytes_max: spool.map_or(0, |spool| spool.bytes_max),
            dead_letter_bytes: self.dead_letters.as_ref().map_or(0, |dead| dead.bytes()),
            dead_letter_bytes_max: self.settings.dead_letter_bytes_max,
            id: Arc::clone(&self.settings.id),
            endpoint: Described(&self.settings.endpoint).to_string(),
        }
    }
}

impl Standing {
    /// Lines dropped, by reason, those without a line included.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Figures { dropped, spool, .. } = self.figures;
        let in_memory = Loss::ALL.map(|loss| (loss.as_str(), dropped[loss as usize]));
        let on_disk = relay_spool::Loss::ALL.map(|loss| (loss.as_str(), spool.dropped(loss)));
        in_memory.into_iter().chain(on_disk)
    }

    /// As `/destinations` has it. Times are in seconds since 1970.
    pub(crate) fn to_json(&self) -> Value {
        let Self { figures, link, .. } = self;
        let dropped = self.dropped().filter(|(_, lines)| *lines > 0);
        let last_error = link
            .last_failure
            .as_ref()
            .map(|failure| json!({"message": failure.message, "time": failure.at.0}));
        json!({
            "destination": &*self.name,
            "id": &*self.id,
            "endpoint": self.endpoint,
            "state": self.state.as_str(),
            "live": figures.live,
            "lastError": last_error,
            "queue": {
                "lines": figures.queue_lines,
                "bytes": figures.queue_bytes,
                "maxBytes": self.queue_bytes_max,
            },
            "spool": {
                "open": !figures.spool_is_unknown,
                "lines": figures.spool.waiting,
                "bytes": figures.spool.bytes,
                "maxBytes": self.spool_bytes_max,
                "oldestSeconds": figures.spool.oldest_seconds,
            },
            "deadLetters": {
                "bytes": self.dead_letter_bytes,
                "maxBytes": self.dead_letter_bytes_max,
            },
            "connections": {
                "wanted": figures.lanes,
                "open": figures.connected,
                "made": link.connects,
                "failed": link.connect_failures,
                "broken": link.breaks,
                "unacknowledgedBytes": link.unacknowledged,
            },
            "lines": {
                "offered": figures.offered,
                "sent": figures.sent(),
                "recovered": figures.spool.recovered,
                "resent": figures.resent,
                "replayed": figures.spool.acknowledged,
                "leftOut": figures.left_out,
                "dropped": dropped.collect::<std::collections::BTreeMap<_, _>>(),
            },
        })
    }
}

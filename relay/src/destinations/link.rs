//! What is known of the connections of one lane: how often they were made and failed, why last, and what is under way
//! on them. The sender tells it, a few times in the life of a connection; metrics and reports read it.

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use relay_engine::UnixSeconds;
use tokio::net::TcpStream;

use super::outq::unacknowledged;
use crate::clock;

/// A connection that broke before this was not a good one: the destination is down, although it lets one in.
const GOOD_CONNECTION: Duration = Duration::from_secs(5);

/// What is kept of an error's text, in characters.
const MESSAGE_CHARS_MAX: usize = 256;

/// The connections of one lane, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Link(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    figures: Figures,
    // Weak, so that looking at a connection never keeps it open.
    sockets: Vec<Weak<TcpStream>>,
}

/// A link's figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Connections that were made.
    pub(crate) connects: u64,
    /// Tries to connect that failed.
    pub(crate) connect_failures: u64,
    /// Connections that broke.
    pub(crate) breaks: u64,
    /// Nothing good has happened since the last failure.
    pub(crate) has_failed: bool,
    /// The last failure of either kind.
    pub(crate) last_failure: Option<Failure>,
    /// Bytes on open connections that the other side's kernel has not acknowledged.
    pub(crate) unacknowledged: usize,
}

/// Why there was no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// At most [`MESSAGE_CHARS_MAX`] characters.
    pub(crate) message: String,
    pub(crate) at: UnixSeconds,
}

impl Link {
    /// A connection was made, over `socket` if it is one.
    pub(crate) fn connected(&self, socket: Option<Weak<TcpStream>>) {
        let mut state = self.lock();
        state.figures.connects += 1;
        state.figures.has_failed = false;
        state.sockets.retain(|socket| socket.strong_count() > 0);
        state.sockets.extend(socket);
    }

    /// No connection could be made.
    pub(crate) fn failed(&self, error: &impl fmt::Display) {
        let mut state = self.lock();
        state.figures.connect_failures += 1;
        state.figures.has_failed = true;
        state.figures.last_failure = Some(Failure::of(error));
    }

    /// A connection broke that had `lasted` so long.
    pub(crate) fn broke(&self, error: &io::Error, lasted: Duration) {
        let mut state = self.lock();
        state.figures.breaks += 1;
        state.figures.has_failed |= lasted < GOOD_CONNECTION;
        state.figures.last_failure = Some(Failure::of(error));
    }

    /// How the connections are. Asks the kernel about each.
    pub(crate) fn figures(&self) -> Figures {
        let state = self.lock();
        let sockets = state.sockets.iter().filter_map(Weak::upgrade);
        Figures {
            unacknowledged: sockets.map(|socket| unacknowledged(&*socket)).sum(),
            ..state.figures.clone()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    /// Adds those of other connections. That they failed last is told if they `are_wanted`.
    pub(crate) fn add(&mut self, other: Self, are_wanted: bool) {
        self.connects += other.connects;
        self.connect_failures += other.connect_failures;
        self.breaks += other.breaks;
        self.has_failed |= other.has_failed && are_wanted;
        self.unacknowledged += other.unacknowledged;
        let at = |failure: &Option<Failure>| failure.as_ref().map(|failure| failure.at);
        if at(&other.last_failure) >= at(&self.last_failure) {
            self.last_failure = other.last_failure;
        }
    }
}

impl Failure {
    fn of(error: &impl fmt::Display) -> Self {
        Self {
            message: error.to_string().chars().take(MESSAGE_CHARS_MAX).collect(),
            at: clock::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;

    use super::*;

    fn refused() -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionRefused, "é".repeat(1_000))
    }

    #[test]
    fn failures_count_until_a_connection_is_made() {
        let link = Link::default();
        link.failed(&refused());
        let figures = link.figures();
        assert_eq!((figures.connect_failures, figures.has_failed), (1, true));
        let message = figures.last_failure.unwrap().message;
        assert_eq!(message.chars().count(), MESSAGE_CHARS_MAX);
        link.connected(None);
        let figures = link.figures();
        assert_eq!((figures.connects, figures.has_failed), (1, false));
        assert!(figures.last_failure.is_some());
    }

    #[test]
    fn a_connection_that_breaks_at_once_is_a_failure_and_one_that_lasted_is_not() {
        let link = Link::default();
        link.connected(None);
        link.broke(&refused(), GOOD_CONNECTION);
        assert!(!link.figures().has_failed);
        link.broke(&refused(), Duration::from_secs(1));
        let figures = link.figures();
        assert_eq!((figures.breaks, figures.has_failed), (2, true));
    }

    #[tokio::test]
    async fn what_is_under_way_is_asked_of_connections_that_are_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = Arc::new(TcpStream::connect(address).await.unwrap());
        let link = Link::default();
        link.connected(Some(Arc::downgrade(&stream)));
        // Nobody reads: in the end the other side's kernel takes no more.
        while stream.try_write(&[0; 1 << 20]).is_ok() {}
        assert!(link.figures().unacknowledged > 0);
        drop(stream);
        assert_eq!(link.figures().unacknowledged, 0);
    }
}

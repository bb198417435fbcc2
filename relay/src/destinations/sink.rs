//! Servers that say what they took: lines are handed over in batches, one at a time on each connection, and count as sent
//! when the server has said so.
//!
//! ```text
//! chunks in hand ─▶ batch ─▶ server ─┬─ taken: the next one
//!                     ▲              ├─ later: wait, and the same lines again
//!                     │              ├─ stopped: the same, but seldom, until somebody changes something
//!                     └── halves ◀───┴─ never: which lines are at fault? These go to the dead letters
//! ```

mod amqp;
mod cloud_watch;
mod dead_letters;
mod grafana_net;
mod http;
mod kafka;
mod pub_sub;
mod rejections;
mod remote_write;
mod series;

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use relay_engine::{Sink, SinkKind};
use tokio::time::Instant;

pub(crate) use dead_letters::DeadLetters;
use rejections::Rejections;

use super::in_hand::InHand;
use super::queue::Lane;

/// A batch takes no more lines when it has this many bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How often a server is asked, at most, to find out which lines of a batch are at fault.
const ASKED_MAX: usize = 64;

/// How long the log is silent about more of the same.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// How long it is until a server that has stopped taking lines is asked again.
const STOPPED_WAIT: Duration = Duration::from_secs(60);

/// A connection to a server that says what it took.
pub(crate) struct Connection {
    server: Server,
    settings: Arc<Sink>,
    rejections: Rejections,
    // Lines that are handed over together.
    batch: Vec<u8>,
    // When the first line came that is not in a batch yet.
    waits_since: Option<Instant>,
}

enum Server {
    RemoteWrite(Box<remote_write::Client>),
    Kafka(Box<kafka::Client>),
    GrafanaNet(Box<grafana_net::Client>),
    Amqp(Box<amqp::Client>),
    PubSub(Box<pub_sub::Client>),
    CloudWatch(Box<cloud_watch::Client>),
}

/// Why lines were not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server cannot take them now.
    Later {
        error: io::Error,
        /// How long it wants to be left alone, if it said so.
        after: Option<Duration>,
    },
    /// It will take nothing until somebody changes something, here or there.
    Stopped(String),
    /// It will never take these.
    Never(String),
}

/// What became of lines that were taken.
#[derive(Debug, Default)]
struct Taken {
    /// Lines that the destination's settings leave out, or the server.
    left_out: u64,
    /// Those that have no place on the server. The others are there.
    refused: Refused,
}

// Lines by where they stand among those that were sent, and why each is refused.
type Refused = Vec<(Range<usize>, &'static str)>;

impl Connection {
    /// Finds out whether the server is there. `number` says which of the destination's connections it is,
    /// from 0.
    pub(crate) async fn open(
        settings: &Arc<Sink>,
        destination: Arc<str>,
        number: u32,
        dead_letters: Option<Arc<DeadLetters>>,
    ) -> io::Result<Self> {
        let server = match &settings.kind {
            SinkKind::RemoteWrite(to) => {
                Server::RemoteWrite(Box::new(remote_write::Client::open(to, settings).await?))
            }
            SinkKind::Kafka(to) => {
                Server::Kafka(Box::new(kafka::Client::open(to, settings).await?))
            }
            SinkKind::Amqp(to) => Server::Amqp(Box::new(amqp::Client::open(to, settings).await?)),
            SinkKind::PubSub(to) => {
                Server::PubSub(Box::new(pub_sub::Client::open(to, settings, number).await?))
            }
            SinkKind::CloudWatch(to) => {
                Server::CloudWatch(Box::new(cloud_watch::Client::open(to, settings).await?))
            }
            SinkKind::GrafanaNet(to) => {
                let client = grafana_net::Client::open(to, settings, number == 0);
                Server::GrafanaNet(Box::new(client.await?))
            }
        };
        Ok(Self {
            server,
            settings: Arc::clone(settings),
            rejections: Rejections::new(destination, dead_letters),
            batch: Vec::new(),
            waits_since: None,
        })
    }

    /// Whether it is what a destination with these settings wants.
    pub(crate) fn is_for(&self, settings: &Sink) -> bool {
        *self.settings == *settings
    }

    /// Whether it is good for another try when the server did not take something. What speaks HTTP connects by itself.
    pub(crate) fn outlives_refusals(&self) -> bool {
        match self.server {
            Server::RemoteWrite(_)
            | Server::GrafanaNet(_)
            | Server::PubSub(_)
            | Server::CloudWatch(_) => true,
            Server::Kafka(_) | Server::Amqp(_) => false,
        }
    }

    /// Resolves when the server ends the connection. What speaks HTTP has none, and Kafka's clients connect by themselves.
    pub(crate) async fn broken(&self) -> io::Error {
        match &self.server {
            Server::Amqp(client) => client.broken().await,
            Server::RemoteWrite(_)
            | Server::GrafanaNet(_)
            | Server::PubSub(_)
            | Server::CloudWatch(_)
            | Server::Kafka(_) => std::future::pending().await,
        }
    }

    /// Until when what is in hand waits for more; `None`: it goes now.
    pub(crate) fn waits_until(&mut self, in_hand: &InHand, lane: &Lane) -> Option<Instant> {
        let since = *self.waits_since.get_or_insert_with(Instant::now);
        let until = since + self.settings.batch.wait;
        let is_due = in_hand.lines() >= self.settings.batch.lines_max as u64
            || in_hand.bytes() >= BATCH_BYTES_MAX.min(lane.in_hand_max())
            || until <= Instant::now();
        (!is_due).then_some(until)
    }

    /// Hands over as much of what is in hand as fits in a batch. It is sent when this resolves, or what of it is not taken is
    /// among the dead letters. If it is cut short, the server may have the lines and get them again.
    pub(crate) async fn write(&mut self, in_hand: &mut InHand, lane: &Lane) -> Result<(), Refusal> {
        self.batch.clear();
        in_hand.copy_lines(
            self.settings.batch.lines_max,
            BATCH_BYTES_MAX,
            &mut self.batch,
        );
        let mut asked = 0;
        // What has yet to be handed over, the first part last.
        let mut parts = vec![(0, self.batch.len())];
        while let Some((begin, end)) = parts.pop() {
            let lines = &self.batch[begin..end];
            asked += 1;
            match self.server.send(lines).await {
                Ok(Taken { left_out, refused }) => {
                    lane.leave_out(left_out);
                    self.rejections.keep(lines, &refused).await;
                    let mut at = 0;
                    for (range, _) in refused {
                        in_hand.advance(range.start - at, lane);
                        in_hand.reject(range.len(), lane);
                        at = range.end;
                    }
                    in_hand.advance(lines.len() - at, lane);
                }
                Err(Refusal::Never(why)) => match middle(lines).filter(|_| asked < ASKED_MAX) {
                    Some(middle) => {
                        parts.push((begin + middle, end));
                        parts.push((begin, begin + middle));
                    }
                    None => {
                        self.rejections.keep(lines, &[(0..lines.len(), &why)]).await;
                        in_hand.reject(lines.len(), lane);
                    }
                },
                Err(refusal) => return Err(refusal),
            }
        }
        self.waits_since = None;
        Ok(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Server {
    async fn send(&mut self, lines: &[u8]) -> Result<Taken, Refusal> {
        match self {
            Self::RemoteWrite(client) => client.send(lines).await,
            Self::Kafka(client) => client.send(lines).await,
            Self::GrafanaNet(client) => client.send(lines).await,
            Self::Amqp(client) => client.send(lines).await,
            Self::PubSub(client) => client.send(lines).await,
            Self::CloudWatch(client) => client.send(lines).await,
        }
    }
}

impl Refusal {
    pub(crate) fn later(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Later {
            error: io::Error::other(error),
            after: None,
        }
    }

    /// How long to wait in any case until the next try.
    pub(crate) fn wait_min(&self) -> Duration {
        match self {
            Self::Later { after, .. } => after.unwrap_or_default(),
            Self::Stopped(_) => STOPPED_WAIT,
            Self::Never(_) => Duration::ZERO,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later { error, .. } => error.fmt(f),
            Self::Stopped(why) => write!(f, "stopped until something is changed: {why}"),
            Self::Never(why) => write!(f, "refused for good: {why}"),
        }
    }
}

// When the log says again what happens over and over.
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_due(&mut self) -> bool {
        let is_due = self.0.is_none_or(|told_at| told_at.elapsed() >= TOLD_AGAIN);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

// In a pod it is the pod's.
fn host_name() -> String {
    let host = rustix::system::uname();
    host.nodename().to_string_lossy().into_owned()
}

// An error with what is behind it, which is what says what happened.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

// Where lines can be parted, about in the middle; `None`: there is but one.
fn middle(lines: &[u8]) -> Option<usize> {
    let (_, second) = lines.split_at(lines.len() / 2);
    let half = lines.len() - second.len();
    let after = memchr::memchr(b'\n', second).map(|newline| half + newline + 1);
    let before = memchr::memrchr(b'\n', &lines[..half]).map(|newline| newline + 1);
    after.filter(|end| *end < lines.len()).or(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_parted_as_long_as_there_are_two() {
        assert_eq!(middle(b"a 1 1\n"), None);
        assert_eq!(middle(b"a 1 1\nb 2 2\n"), Some(6));
        assert_eq!(middle(b"a 1 1\nb 2 2\nc 3 3\n"), Some(12));
        assert_eq!(middle(b"a 1 1\nbbbbbbbbbbbbbbbb 2 2\n"), Some(6));
        assert_eq!(middle(b"aaaaaaaaaaaaaaaaaa 1 1\nb 2 2\n"), Some(23));
    }
}

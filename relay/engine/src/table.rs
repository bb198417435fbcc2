//! `Snapshot` → [`Table`]: the one definition of a valid configuration. The operator calls it before it publishes, the relay
//! before it swaps.

mod listener;
mod load;
mod shadow;
mod sink;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_proto::{ObjectRef, Snapshot};

use crate::aggregate;
use crate::aggregator::Aggregators;
use crate::lane::{DestinationIndex, Lane, LaneIndex};
use crate::name::NameRules;
use crate::pattern_set::PatternSet;
use crate::rewrite;
use crate::route::{Distribution, Routes};
use crate::{Reason, UnixSeconds};

pub use listener::{
    AmqpQueue, AmqpSource, Compression, Format, Framed, ListenAddress, Listener, ListenerTls,
    Plaintext, Protocol,
};
pub use shadow::{Shadowed, shadowed};
pub use sink::{
    Amqp, AmqpServer, Batch, CloudWatch, Credential, Credentials, GoogleAccess, GrafanaNet, Kafka,
    KafkaPayload, Partitioning, PubSub, RemoteWrite, Sasl, SaslMechanism, Sink, SinkKind,
};

/// Everything that a fleet of relays runs on, checked and compiled. It never changes.
#[derive(Debug, Default)]
pub struct Table {
    // Tells tables apart: what an engine remembers is of one table.
    id: u64,
    listeners: Vec<Listener>,
    amqp_sources: Vec<AmqpSource>,
    drain_timeout: Duration,
    destinations: Vec<Destination>,
    // The destination of each lane.
    lanes: Vec<DestinationIndex>,
    pub(crate) validation: Validation,
    pub(crate) blocklist: PatternSet,
    // By the number of the pattern.
    pub(crate) blocklist_entries: Vec<BlocklistEntry>,
    // In the order of evaluation.
    pub(crate) rewriters: Vec<rewrite::Rule>,
    pub(crate) aggregators: Aggregators,
    pub(crate) routes: Routes,
}

/// Where an entry of a blocklist stands.
#[derive(Debug)]
pub(crate) struct BlocklistEntry {
    /// The Blocklist, as `namespace/name`.
    pub(crate) object: Arc<str>,
    pub(crate) index: usize,
}

/// What a line must be to be let in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Validation {
    pub(crate) names: NameRules,
    /// Whether values may be NaN or infinite.
    pub(crate) forwards_not_finite: bool,
    /// Whether a point must be newer than the one before it in its series.
    pub(crate) rejects_out_of_order: bool,
    /// How many seconds in the past or the future a timestamp may lie.
    pub(crate) past_max: Option<u64>,
    pub(crate) future_max: Option<u64>,
    /// Whether a tagged name is brought into the form in which Graphite stores it before any rule sees it.
    pub(crate) normalises_tags: bool,
}

/// How a carbon server is spoken to over TLS. What is in here is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    /// Who signs the server's certificate; `None`: one whom the system trusts.
    pub ca: Option<Pem>,
    /// What the relay shows of itself, if the server asks.
    pub identity: Option<Identity>,
    /// The name that the server's certificate must have.
    pub server_name: String,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that lead to its CA.
    pub certificate: Pem,
    /// The certificate's key.
    pub key: Pem,
}

/// Text in PEM, which may be a key: its `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Arc<[u8]>);

/// Who gets lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Stays the same over snapshots: what a relay keeps queues by.
    pub id: Arc<str>,
    /// `namespace/name`, for people and metrics.
    pub name: Arc<str>,
    /// Where they go. Where there are several servers, this is what they go by together.
    pub endpoint: Endpoint,
    /// Its connections; at least one, and no key twice.
    pub lanes: Vec<Lane>,
    /// What may wait.
    pub queue: Queue,
    /// What may wait on disk; `None` unless the queue spools.
    pub spool: Option<Spool>,
    /// What is sent again after a connection broke, in bytes.
    pub resend_bytes_max: usize,
    /// What is kept of lines that the server will never take, in bytes.
    pub dead_letter_bytes_max: u64,
    /// When a connection is closed and made anew; `None`: never.
    pub connection_age_max: Option<Duration>,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A carbon server.
    Carbon {
        /// Whom to connect to.
        address: Address,
        /// How long a connect may take.
        connect_timeout: Duration,
        /// How long a connection may take no byte.
        write_timeout: Duration,
        /// How the connection is encrypted, if it is.
        tls: Option<PeerTls>,
        /// What lines become on their way.
        form: CarbonForm,
    },
    /// A file that is appended to.
    File {
        /// Absolute.
        path: PathBuf,
        /// When it is put aside; `None`: never.
        rotation: Option<Rotation>,
    },
    /// A server that says what it took.
    Sink(Arc<Sink>),
}

/// When a file is put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// How large it becomes before that, in bytes. At least 64 KiB.
    pub bytes_max: u64,
    /// How many that were put aside are kept. At least 1.
    pub keep: u32,
}

/// What lines become on their way to a carbon server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarbonForm {
    /// A stream of lines, as they are.
    Plaintext,
    /// A stream of lines that is compressed.
    Compressed(Compression),
    /// Frames of points.
    Framed(Format),
    /// Datagrams of lines.
    Datagrams,
}

/// A host and a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// Not zero.
    pub port: u16,
}

/// What may wait in memory for a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// At least 65536.
    pub bytes_max: usize,
    /// What happens to a line when that is reached.
    pub when_full: WhenFull,
}

/// What happens to a line for a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped and counted.
    DropNewest,
    /// Its connection waits.
    Block,
    /// It waits on disk.
    Spool,
    /// The oldest are dropped and counted.
    DropOldest,
}

/// What may wait on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    /// At least 1 MiB.
    pub bytes_max: u64,
    /// `None`: lines are kept however old they are.
    pub age_max: Option<Duration>,
    /// `None`: as fast as the destination takes them.
    pub replay_lines_per_second: Option<u64>,
    /// 10 milliseconds to a minute.
    pub sync_interval: Duration,
}

/// A destination of a route that no line ever goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleTarget {
    /// The route.
    pub route: ObjectRef,
    /// The destination's place in it.
    pub target: usize,
}

/// Why a snapshot is not valid, by the resource that caused it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {message}")]
pub struct LoadError {
    /// The resource.
    pub object: ObjectRef,
    /// Where in its spec: "match.regex", "destinations[2].match.notRegex".
    pub field: String,
    /// What sort of fault it is.
    pub kind: LoadErrorKind,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// What sort of fault a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// A pattern does not compile or is too large.
    InvalidPattern,
    /// A value that cannot be used.
    UnsupportedValue,
}

impl Validation {
    /// Whether a line needs more than a look at its name.
    pub(crate) fn judges_points(&self) -> bool {
        self.rejects_out_of_order || self.past_max.is_some() || self.future_max.is_some()
    }

    /// Whether a timestamp is within the limits.
    pub(crate) fn check_age(&self, timestamp: u32, now: UnixSeconds) -> Result<(), Reason> {
        let timestamp = u64::from(timestamp);
        let is_over = |limit: Option<u64>, seconds: u64| limit.is_some_and(|limit| seconds > limit);
        if is_over(self.past_max, now.0.saturating_sub(timestamp)) {
            return Err(Reason::TimestampPast);
        }
        match is_over(self.future_max, timestamp.saturating_sub(now.0)) {
            true => Err(Reason::TimestampFuture),
            false => Ok(()),
        }
    }
}

impl Table {
    /// Checks and compiles a snapshot.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the snapshot.
    pub fn load(snapshot: &Snapshot) -> Result<Self, Vec<LoadError>> {
        load::load(snapshot)
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Where lines come in.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Where lines are fetched from.
    pub fn amqp_sources(&self) -> &[AmqpSource] {
        &self.amqp_sources
    }

    /// Who gets lines.
    pub fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// Every lane of every destination, in order; a [`LaneIndex`] counts here.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        let destinations = self.destinations.iter();
        destinations.flat_map(|destination| &destination.lanes)
    }

    pub(crate) fn destination_of(&self, lane: LaneIndex) -> &Destination {
        &self.destinations[self.lanes[lane.get()].get()]
    }

    /// How long a relay that was told to stop may take.
    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// Destinations of ConsistentHash routes that own no series, because the algorithm takes them for another one.
    pub fn idle_targets(&self) -> Vec<IdleTarget> {
        let Routes {
            first,
            unmatched_only,
        } = &self.routes;
        let routes = first.iter().chain(unmatched_only.iter());
        let idle = routes.flat_map(|(route, _)| {
            let members = match &route.distribution {
                Distribution::ConsistentHash(ring, _) => ring.idle_members(),
                Distribution::All
                | Distribution::FirstMatch
                | Distribution::RoundRobin
                | Distribution::Failover => Vec::new(),
            };
            let (namespace, name) = route.object.split_once('/').unwrap_or_default();
            members.into_iter().map(move |member| IdleTarget {
                route: ObjectRef::new("Route", namespace, name),
                target: member as usize,
            })
        });
        idle.collect()
    }

    /// Every aggregator, in the order of evaluation: its id and its `namespace/name`.
    pub fn aggregators(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        let rules = self.aggregators.rules().iter();
        rules.map(|(index, rule)| (rule.id(), &self.aggregators.get(index).object))
    }

    /// How aggregators put points together.
    pub fn aggregation(&self) -> &aggregate::Rules {
        self.aggregators.rules()
    }
}

impl Endpoint {
    // This one, but at another address.
    fn at(&self, other: Address) -> Self {
        let mut endpoint = self.clone();
        if let Self::Carbon { address, .. } = &mut endpoint {
            *address = other;
        }
        endpoint
    }

    /// Whether a connection to this one may stay when `other` takes its place: all is the same, but certificates and keys may
    /// have been renewed.
    pub fn is_renewed_by(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Carbon {
                    address,
                    connect_timeout,
                    write_timeout,
                    tls,
                    form,
                },
                Self::Carbon {
                    address: other_address,
                    connect_timeout: other_connect_timeout,
                    write_timeout: other_write_timeout,
                    tls: other_tls,
                    form: other_form,
                },
            ) => {
                address == other_address
                    && connect_timeout == other_connect_timeout
                    && write_timeout == other_write_timeout
                    && form == other_form
                    && match (tls, other_tls) {
                        (None, None) => true,
                        (Some(tls), Some(other)) => tls.is_renewed_by(other),
                        (None, Some(_)) | (Some(_), None) => false,
                    }
            }
            (Self::File { .. }, Self::File { .. }) => self == other,
            (Self::Sink(sink), Self::Sink(other)) => sink == other,
            (Self::Carbon { .. } | Self::File { .. } | Self::Sink(_), _) => false,
        }
    }
}

impl PeerTls {
    fn is_renewed_by(&self, other: &Self) -> bool {
        self.server_name == other.server_name
            && self.ca.is_some() == other.ca.is_some()
            && self.identity.is_some() == other.identity.is_some()
    }
}

impl Pem {
    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Pem {
    fn from(text: &[u8]) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests;

//! The Carbonway API, group `carbonway.io`, version `v1alpha1`: what people write.
//!
//! One file per kind. `///` comments here are what users read in `kubectl explain`; `//` comments are for us.
//! The CRD manifests in `yaml/` are made from these types, checked in, and proven fresh by a test (`make crds`).
//! No behaviour lives here beyond defaults, parsing and `Display`; meaning is given by `operator::compile`.

#![allow(
    unreachable_pub,
    reason = "KubeSchema derives a private copy of each struct, with its visibility"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn has its own type_ and priority; clippy takes them for one list"
)]

mod aggregator;
mod blocklist;
mod conditions;
mod destination;
mod fleet;
mod listener;
mod manifest;
mod matching;
mod namespaces;
mod quantity;
mod relay;
mod rewriter;
mod route;
mod sink;
mod status;
mod tls;

pub use aggregator::{Aggregator, AggregatorSpec, PercentileDefinition};
pub use blocklist::{Blocklist, BlocklistSpec};
pub use conditions::{ConditionType, Reason};
pub use destination::{
    Carbon, CarbonTransport, DeadLetter, Destination, DestinationSpec, Encoding, File, Queue,
    Resend, Rotate, ServiceRef, Spool, Sync, WhenFull,
};
pub use fleet::{
    DeletionPolicy, EphemeralSpool, FleetNetworkPolicy, NoSpool, Overrides, PersistentSpool,
    RelaySpool, Upgrade,
};
pub use listener::{
    AmqpQueue, AmqpSource, Compression, Framed, Listener, Plaintext, Transport, UnixSocket,
};
pub use manifest::{KINDS, all, to_yaml};
pub use matching::Match;
pub use namespaces::{
    AllowedFrom, AllowedNamespaces, LabelOperator, NamespaceExpression, NamespaceSelector,
    Namespaces,
};
pub use quantity::{Duration, QuantityError, Size};
pub use relay::{
    Drain, Metrics20Level, NotFinite, Relay, RelaySpec, TagForm, Validation, ValidationLevel,
};
pub use rewriter::{RewriteRule, Rewriter, RewriterSpec};
pub use route::{
    Algorithm, ConsistentHash, Distribution, HashKey, OnMatch, RelayRef, Route, RouteSpec, Target,
};
pub use sink::{
    Amqp, AmqpServer, Batch, CloudWatch, CloudWatchBatch, GrafanaNet, HttpAuth, HttpTls, Kafka,
    KafkaCompression, MappingAction, MappingRule, MatchType, MessageCompression, MessageEncoding,
    MetricData, Partitioning, PrometheusRemoteWrite, PubSub, Sasl, SaslMechanism,
};
pub use status::{Health, LastError, OrphanedSpool, OrphanedSpools, RelayProgress, Status};
pub use tls::{ListenerTls, PeerTls, SecretRef};

/// The API group of every kind here.
pub const GROUP: &str = "carbonway.io";

/// The label that makes a Relay the one that resources without `relayRefs` attach to, in its namespace.
pub const DEFAULT_RELAY_LABEL: &str = "carbonway.io/default";

/// The label on a relay pod that names its Relay.
pub const RELAY_LABEL: &str = "carbonway.io/relay";

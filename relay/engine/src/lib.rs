//! What happens to a line. Bytes and the time come in, decisions come out; there are no sockets, files, clocks or threads
//! here, so every run repeats.
//!
//! ```text
//! Snapshot ─▶ Table::load ─▶ Table ─┐
//!                                   ▼
//! block of lines ─▶ Engine::process ─▶ Outbox (bytes per destination) + Tally (what became of each line)
//! ```
//!
//! A line goes through the stages in one order, the one that [`Engine`] shows: parse, validate, blocklist, rewrite, aggregate, route.
//! What aggregators give comes back later, at routing ([`Engine::route_aggregates`])
//! Rules see the series name alone, tags included, never the value or the timestamp.
//!
//! Invariants: a [`Table`] never changes; `re2` alone reads regular expressions, `expression` and `pattern_set` compile them;
//! only `table` reads snapshot fields; every line that comes in ends as forwarded or as dropped under exactly one
//! [`Reason`].

#![warn(missing_docs)]

pub mod aggregate;
mod aggregator;
mod cache;
mod dfa;
mod explain;
mod expression;
mod gate;
mod glob;
mod judge;
mod lane;
mod line;
mod mapping;
mod name;
mod order;
mod outbox;
mod outcome;
mod pattern;
mod pattern_set;
mod process;
mod re2;
mod rewrite;
pub mod ring;
mod route;
mod schemas;
mod simd;
mod table;
mod tags;
mod template;

pub use explain::{AggregateStep, Explanation, Outcome, RouteStep, Step};
pub use lane::{Lane, LaneIndex, LaneKey};
pub use mapping::{Labels, Mapping};
pub use order::NewestPoints;
pub use outbox::Outbox;
pub use outcome::{Reason, Tally};
pub use process::{Engine, Limits, Moment, PointCounts, PointFate, Routed, UnixSeconds};
pub use schemas::StorageSchemas;
pub use table::{
    Address, Amqp, AmqpQueue, AmqpServer, AmqpSource, Batch, CarbonForm, CloudWatch, Compression,
    Credential, Credentials, Destination, Endpoint, Format, Framed, GoogleAccess, GrafanaNet,
    Identity, IdleTarget, Kafka, KafkaPayload, ListenAddress, Listener, ListenerTls, LoadError,
    LoadErrorKind, Partitioning, PeerTls, Pem, Plaintext, Protocol, PubSub, Queue, RemoteWrite,
    Rotation, Sasl, SaslMechanism, Shadowed, Sink, SinkKind, Spool, Table, WhenFull, shadowed,
};

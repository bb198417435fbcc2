//! What the tiers of tests stand on: the real binaries as child processes, and everything around them that a user would
//! have, made to be watched: a directory of resources, carbon servers that record bytes, senders, an operator.
//!
//! Whoever waits for something waits in [`eventually`], with a deadline and a sentence that says for what. Whatever
//! listens has a loopback address of its own ([`loopback`]), so tests run side by side on the ports that users know.

#![allow(
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

mod accounts;
mod apiserver;
mod clouds;
mod cluster;
mod directory;
mod eventually;
mod http;
mod http_output;
mod http_sink;
mod kafka;
mod ledger;
mod loopback;
mod metrics;
mod operator;
mod process;
mod prometheus;
mod python_carbon;
mod rabbitmq;
mod relay;
pub mod scenarios;
mod sender;
mod sink;
mod skip;
mod snapshot;
mod tls;

pub use accounts::{Accounts, DestinationAccounts};
pub use apiserver::ApiServer;
pub use clouds::{Aws, PROJECT, PubSub, clients, cloud};
pub use cluster::{Cluster, Kubectl};
pub use directory::{
    Directory, aggregator, blocklist, carbon, destination, file, object, relay, rewriter, route,
};
pub use eventually::{DEADLINE, eventually, unix_seconds};
pub use http::{Response, get, post};
pub use http_output::HttpOutput;
pub use http_sink::{Answer, HttpSink, Posted};
pub use kafka::{Kafka, Message};
pub use ledger::Ledger;
pub use loopback::own_address;
pub use metrics::Metrics;
pub use operator::Operator;
pub use process::{Finished, Process, binary, finish};
pub use prometheus::Prometheus;
pub use python_carbon::PythonCarbon;
pub use rabbitmq::RabbitMq;
pub use relay::{Credentials, Fleet, RelayProcess};
pub use rustix::process::Signal;
pub use sender::{Callers, Flood, Sender, numbered_line};
pub use sink::{Connection, Sink};
pub use skip::{skip, tools};
pub use snapshot::SnapshotBuilder;
pub use tls::{Authority, Identity, TlsConnection, TlsSender, TlsSink, secret};

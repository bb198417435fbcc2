//! The process tier: what Carbonway promises, seen from outside. The real binaries run here, over real sockets and files.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod aggregation;
mod amqp;
mod architecture;
mod bytes;
mod check;
mod cloud_watch;
mod delivery;
mod drops;
mod examples;
mod faults;
mod files;
mod grafana_net;
mod handover;
mod health;
mod http_sinks;
mod inputs;
mod kafka;
mod lanes;
mod limits;
mod outputs;
mod pressure;
mod pub_sub;
mod reload;
mod remote_write;
mod routing;
mod rules;
mod run;
mod shutdown;
mod sources;
mod spool;
mod sync;
mod tls;
mod whisper;

use std::collections::BTreeMap;

use harness::{Directory, RelayProcess, Sink, carbon, relay, route};

/// A relay that takes every line to one sink. `listener` says more about its listener.
fn relay_to(sink: &Sink, listener: &str) -> (RelayProcess, Directory) {
    let directory = Directory::of([
        relay(listener, ""),
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ]);
    (RelayProcess::run(&directory), directory)
}

/// Counts, as metrics have them by a label.
fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts
        .map(|(label, count)| (label.to_owned(), count))
        .into()
}

//! Snapshots, written by hand as an operator would publish them.

use std::net::SocketAddr;

use relay_proto::{
    Carbon, Destination, Distribution, Listener, Match, ObjectRef, Plaintext, Queue, Route, SCHEMA,
    Snapshot, Target, WhenFull, destination, listener,
};

/// A snapshot for the Relay default/edge, with a plaintext listener on port 2003.
#[derive(Clone, Debug)]
pub struct SnapshotBuilder(Snapshot);

impl SnapshotBuilder {
    /// A snapshot in which nothing is routed.
    #[expect(clippy::new_without_default, reason = "it is not the empty snapshot")]
    pub fn new() -> Self {
        let listener = Listener {
            name: "plain".into(),
            port: 2003,
            connections_max: 100,
            protocol: Some(listener::Protocol::Plaintext(Plaintext {
                line_bytes_max: 65536,
                idle_timeout_ms: 120_000,
                ..Plaintext::default()
            })),
            ..Listener::default()
        };
        Self(Snapshot {
            schema: SCHEMA,
            relay: Some(named("Relay", "edge")),
            listeners: vec![listener],
            drain_timeout_ms: 5_000,
            ..Snapshot::default()
        })
    }

    /// Adds a carbon server. Names are given in order.
    #[must_use]
    pub fn carbon(mut self, name: &str, address: SocketAddr) -> Self {
        self.0.destinations.push(Destination {
            source: Some(named("Destination", name)),
            id: format!("default/{name}"),
            queue: Some(Queue {
                bytes_max: 1 << 20,
                when_full: WhenFull::DropNewest.into(),
            }),
            endpoint: Some(destination::Endpoint::Carbon(Carbon {
                address: address.to_string(),
                connect_timeout_ms: 1_000,
                write_timeout_ms: 1_000,
                ..Carbon::default()
            })),
            ..Destination::default()
        });
        self
    }

    /// A Destination of Prometheus' remote-write protocol that shows who it is.
    pub fn remote_write(mut self, name: &str, address: SocketAddr, authorization: &str) -> Self {
        let kind = relay_proto::sink::Kind::RemoteWrite(relay_proto::RemoteWrite {
            url: format!("http://{address}/"),
            authorization: Some(relay_proto::Credential {
                value: authorization.into(),
                withheld: false,
            }),
            ..relay_proto::RemoteWrite::default()
        });
        self = self.carbon(name, address);
        if let Some(destination) = self.0.destinations.last_mut() {
            destination.endpoint = Some(relay_proto::destination::Endpoint::Sink(
                relay_proto::Sink {
                    batch_lines_max: 100,
                    timeout_ms: 10_000,
                    kind: Some(kind),
                    ..relay_proto::Sink::default()
                },
            ));
        }
        self
    }

    /// Adds a route for the names that match `regex`. Names are given in order.
    #[must_use]
    pub fn route(mut self, name: &str, regex: &str, destination: &str) -> Self {
        let target = Target {
            destination: Some(named("Destination", destination)),
            r#match: None,
            ..Target::default()
        };
        self.0.routes.push(Route {
            source: Some(named("Route", name)),
            r#match: Some(Match {
                regex: regex.into(),
                ..Match::default()
            }),
            distribution: Distribution::All.into(),
            targets: vec![target],
            ..Route::default()
        });
        self
    }

    /// The snapshot.
    pub fn build(self) -> Snapshot {
        self.0
    }
}

fn named(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "default", name)
}

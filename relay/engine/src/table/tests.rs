use relay_proto::{self as proto, Match, ObjectRef, Snapshot};

use super::*;

#[test]
fn all_errors_are_reported_at_once_with_their_objects_and_fields() {
    let regex = |regex: &str| {
        Some(Match {
            regex: regex.into(),
            ..Match::default()
        })
    };
    let target = |name: &str, pattern| proto::Target {
        destination: Some(ObjectRef::new("Destination", "d", name)),
        r#match: pattern,
        ..Default::default()
    };
    let snapshot = Snapshot {
        schema: 1,
        relay: Some(ObjectRef::new("Relay", "d", "edge")),
        listeners: vec![
            listener("plain", 2003, 65536),
            listener("plain", 2003, 65537),
            proto::Listener {
                protocol: None,
                connections_max: 0,
                ..listener("x", 70000, 64)
            },
        ],
        blocklists: vec![proto::Blocklist {
            source: Some(ObjectRef::new("Blocklist", "d", "b")),
            entries: vec![regex("ok").unwrap(), Match::default(), regex("(").unwrap()],
        }],
        destinations: vec![
            carbon("a", "graphite:2003"),
            carbon("a", "graphite:0"),
            proto::Destination {
                queue: None,
                endpoint: None,
                ..carbon("c", "")
            },
        ],
        routes: vec![
            proto::Route {
                source: Some(ObjectRef::new("Route", "d", "r")),
                r#match: regex("[z-a]"),
                targets: vec![target("a", regex("a{2,1}")), target("gone", None)],
                ..proto::Route::default()
            },
            proto::Route {
                source: Some(ObjectRef::new("Route", "d", "s")),
                distribution: proto::Distribution::All.into(),
                ..proto::Route::default()
            },
        ],
        drain_timeout_ms: 1,
    };
    let errors = Table::load(&snapshot).unwrap_err();
    let said: Vec<String> = errors.iter().map(LoadError::to_string).collect();
    assert_eq!(
        said,
        [
            "Relay d/edge: listeners[plain].name: 'plain' is there twice: names are unique",
            "Relay d/edge: listeners[plain].port: 2003 is there twice: give each listener its own",
            "Relay d/edge: listeners[plain].plaintext.maxLineBytes: 65537 is out of range: use 64 to 65536",
            "Relay d/edge: listeners[x].port: 70000 is not a port: use 1 to 65535",
            "Relay d/edge: listeners[x].maxConnections: 0 lets nobody in: use at least 1",
            "Relay d/edge: listeners[x].plaintext: no protocol is named: set plaintext",
            "Blocklist d/b: entries[1]: no condition is set, which would drop every line: set at least one",
            "Blocklist d/b: entries[2].regex: '(' is not a regular expression: unclosed group",
            "Destination d/a: metadata.name: the destination is there twice: names and ids are unique",
            "Destination d/a: carbon.address: 'graphite:0' is not an address: write host:port or [v6]:port",
            "Destination d/c: queue.maxBytes: 0 bytes are too few: use at least 64Ki",
            "Destination d/c: queue.whenFull: not known to this release: use DropNewest or Block",
            "Destination d/c: spec: no endpoint that this release knows: set carbon or file",
            "Route d/r: match.regex: '[z-a]' is not a regular expression: invalid character class range, the start must be <= the end",
            "Route d/r: destinations[0].match.regex: 'a{2,1}' is not a regular expression: invalid repetition count range, the start must be <= the end",
            "Route d/r: destinations[1].name: Destination d/gone is not in the snapshot",
            "Route d/r: distribution: not known to this release: use All, FirstMatch, RoundRobin, Failover or ConsistentHash",
            "Route d/s: destinations: the route goes nowhere: name at least one destination",
        ]
    );
    assert_eq!(errors[7].kind, LoadErrorKind::InvalidPattern);
    assert_eq!(errors[0].kind, LoadErrorKind::UnsupportedValue);
}

#[test]
fn a_snapshot_from_the_future_is_refused() {
    let errors = Table::load(&Snapshot {
        schema: 2,
        ..Snapshot::default()
    })
    .unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].field, "schema");
}

#[test]
fn addresses_are_host_and_port() {
    let load = |address: &str| {
        let destinations = vec![carbon("a", address)];
        let table = Table::load(&Snapshot {
            schema: 1,
            destinations,
            ..Snapshot::default()
        })
        .ok()?;
        match table.destinations()[0].endpoint.clone() {
            Endpoint::Carbon { address, .. } => Some((address.host.clone(), address.to_string())),
            Endpoint::File { .. } => None,
        }
    };
    for (address, host) in [
        ("graphite-0.graphite:2003", "graphite-0.graphite"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:65535", "::1"),
    ] {
        assert_eq!(load(address), Some((host.to_owned(), address.to_owned())));
    }
    for address in [
        "",
        "a",
        "a:",
        ":1",
        "a:0",
        "a:65536",
        "::1:2003",
        "[a]:1",
        "a b:1",
        "http://a:1",
    ] {
        assert_eq!(load(address), None, "{address}");
    }
}

fn listener(name: &str, port: u32, line_bytes_max: u32) -> proto::Listener {
    let plaintext = proto::Plaintext {
        line_bytes_max,
        idle_timeout_ms: 0,
    };
    proto::Listener {
        name: name.into(),
        port,
        connections_max: 1,
        protocol: Some(proto::listener::Protocol::Plaintext(plaintext)),
    }
}

fn carbon(name: &str, address: &str) -> proto::Destination {
    proto::Destination {
        source: Some(ObjectRef::new("Destination", "d", name)),
        id: name.into(),
        queue: Some(proto::Queue {
            bytes_max: 65536,
            when_full: proto::WhenFull::Block.into(),
        }),
        endpoint: Some(proto::destination::Endpoint::Carbon(proto::Carbon {
            address: address.into(),
            connect_timeout_ms: 1,
            write_timeout_ms: 1,
        })),
    }
}

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
            proto::Listener {
                tls: Some(proto::ListenerTls::default()),
                ..listener("y", 2004, 64)
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
        ..Snapshot::default()
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
            "Relay d/edge: listeners[x]: no protocol is named that this release knows: set plaintext, pickle, protobuf or amqp",
            "Relay d/edge: listeners[y].tls.certificate: there is none: name its Secret",
            "Blocklist d/b: entries[1]: no condition is set, which would drop every line: set at least one",
            "Blocklist d/b: entries[2].regex: '(' is not a regular expression: unclosed group at character 1: add a ')', or write \\( for the byte itself",
            "Destination d/a: metadata.name: the destination is there twice: names and ids are unique",
            "Destination d/a: carbon.address: 'graphite:0' is not an address: write host:port or [v6]:port",
            "Destination d/c: queue.maxBytes: 0 bytes are too few: use at least 64Ki",
            "Destination d/c: queue.whenFull: not known to this release: use Spool, DropNewest, DropOldest or Block",
            "Destination d/c: spec: no endpoint that this release knows: set another one, or upgrade the Relay's image",
            "Route d/r: match.regex: '[z-a]' is not a regular expression: the range 'z-a' ends below its start at character 2: swap the two",
            "Route d/r: destinations[0].match.regex: 'a{2,1}' is not a regular expression: '{2,1}' ends below its start at character 2: swap the two",
            "Route d/r: destinations[1].name: Destination d/gone is not in the snapshot",
            "Route d/r: distribution: not known to this release: use All, FirstMatch, RoundRobin, Failover or ConsistentHash",
            "Route d/s: destinations: the route goes nowhere: name at least one destination",
        ]
    );
    assert_eq!(errors[8].kind, LoadErrorKind::InvalidPattern);
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
            Endpoint::File { .. } | Endpoint::Sink(_) => None,
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
        ..proto::Plaintext::default()
    };
    proto::Listener {
        name: name.into(),
        port,
        connections_max: 1,
        protocol: Some(proto::listener::Protocol::Plaintext(plaintext)),
        ..proto::Listener::default()
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
            ..proto::Carbon::default()
        })),
        ..proto::Destination::default()
    }
}

#[test]
fn rewriters_and_aggregators_are_checked_field_by_field() {
    let rule = |name: &str, find, with: &str, max| proto::RewriteRule {
        name: name.into(),
        find,
        with: with.into(),
        max,
        unless: None,
    };
    let literal = |text: &str| Some(proto::rewrite_rule::Find::Literal(text.into()));
    let regex = |text: &str| Some(proto::rewrite_rule::Find::Regex(text.into()));
    let aggregator = |name: &str, regex: &str, output: &str| proto::Aggregator {
        source: Some(ObjectRef::new("Aggregator", "d", name)),
        id: name.into(),
        r#match: Some(Match {
            regex: regex.into(),
            ..Match::default()
        }),
        functions: vec!["Sum".into()],
        output: output.into(),
        interval_ms: 10_000,
        wait_ms: 10_000,
        ..proto::Aggregator::default()
    };
    let snapshot = Snapshot {
        schema: 1,
        relay: Some(ObjectRef::new("Relay", "d", "edge")),
        validation: Some(proto::Validation {
            level: 9,
            metrics20_level: proto::ValidationLevel::Strict.into(),
            not_finite: 9,
            ..proto::Validation::default()
        }),
        rewriters: vec![proto::Rewriter {
            source: Some(ObjectRef::new("Rewriter", "d", "r")),
            rules: vec![
                rule("a", literal(""), "", 0),
                rule("a", regex("("), "", 0),
                rule("b", regex("(x)"), "$1y", 1),
                rule("c", None, "", 0),
                proto::RewriteRule {
                    unless: Some(Match {
                        regex: ")".into(),
                        ..Match::default()
                    }),
                    ..rule("d", literal("x"), "y", 1)
                },
            ],
        }],
        aggregators: vec![
            aggregator("no-regex", "", "x"),
            aggregator("bad-regex", "(", "x"),
            aggregator("bad-group", "(x)", "$2"),
            aggregator("function", "(?P<function>x)", "x"),
            aggregator("no-output", "x", ""),
            proto::Aggregator {
                functions: vec!["Sum".into(), "P0".into()],
                ..aggregator("bad-function", "x", "x")
            },
            proto::Aggregator {
                wait_ms: 9_000,
                ..aggregator("short-wait", "x", "x")
            },
            proto::Aggregator {
                percentile_definition: "R5".into(),
                ..aggregator("definition", "x", "x")
            },
            aggregator("fine", "^(.*)$", "${function}.$1$$"),
        ],
        ..Snapshot::default()
    };
    let errors = Table::load(&snapshot).unwrap_err();
    let said: Vec<String> = errors.iter().map(LoadError::to_string).collect();
    assert_eq!(
        said,
        [
            "Relay d/edge: validation.level: not known to this release: use Strict, Medium or None",
            "Relay d/edge: validation.metrics20Level: not known to this release: use Medium or None",
            "Relay d/edge: validation.nan: not known to this release: use Drop or Forward",
            "Rewriter d/r: rules[0].literal: it is empty: name what is replaced",
            "Rewriter d/r: rules[1].name: 'a' is there twice: names are unique",
            "Rewriter d/r: rules[1].regex: '(' is not a regular expression: unclosed group at character 1: add a ')', or write \\( for the byte itself",
            "Rewriter d/r: rules[2].max: a regex is replaced wherever it matches: leave max out",
            "Rewriter d/r: rules[2].with: the regex has no group called '1y': write '${1}y' for group 1 and then 'y'",
            "Rewriter d/r: rules[3].literal: nothing is to be replaced: set literal or regex",
            "Rewriter d/r: rules[4].unless.regex: ')' is not a regular expression: unopened group at character 1: remove it, or write \\) for the byte itself",
            "Aggregator d/no-regex: match.regex: there is none: set one, its groups name the output",
            "Aggregator d/bad-regex: match.regex: '(' is not a regular expression: unclosed group at character 1: add a ')', or write \\( for the byte itself",
            "Aggregator d/bad-group: output: there is no group 2: the regex has 1",
            "Aggregator d/function: match.regex: ${function} stands for the function's name: call the group otherwise",
            "Aggregator d/no-output: output: it is empty: name the series that is made",
            "Aggregator d/bad-function: functions[1]: 'P0' is not a percentile: use P1 to P99.9, with at most one decimal, as in P95 or P99.9",
            "Aggregator d/short-wait: wait: 9s is not a wait for an interval of 10s: it counts from the start of the bucket, so use whole seconds from 10s to 31 days",
            "Aggregator d/definition: percentileDefinition: 'R5' is not a definition: use R6, R7 or NearestRank",
        ]
    );
}

fn identity(certificate: &str, key: &str) -> Option<proto::Identity> {
    Some(proto::Identity {
        certificate: certificate.into(),
        key: key.into(),
    })
}

fn tls_destination(address: &str, tls: proto::PeerTls) -> proto::Destination {
    let mut destination = carbon("a", address);
    if let Some(proto::destination::Endpoint::Carbon(carbon)) = &mut destination.endpoint {
        carbon.tls = Some(tls);
    }
    destination
}

fn endpoint(address: &str, tls: proto::PeerTls) -> Endpoint {
    let snapshot = Snapshot {
        schema: 1,
        destinations: vec![tls_destination(address, tls)],
        ..Snapshot::default()
    };
    Table::load(&snapshot).unwrap().destinations[0]
        .endpoint
        .clone()
}

#[test]
fn what_tls_is_made_of_is_carried_and_never_shown() {
    let listener = proto::Listener {
        tls: Some(proto::ListenerTls {
            identity: identity("chain", "hush"),
            client_ca: "clients".into(),
        }),
        ..listener("plain", 2003, 64)
    };
    let tls = proto::PeerTls {
        ca: "servers".into(),
        identity: identity("chain", "hush"),
        server_name: String::new(),
    };
    let snapshot = Snapshot {
        schema: 1,
        listeners: vec![listener],
        destinations: vec![tls_destination("[::1]:2003", tls)],
        ..Snapshot::default()
    };
    let table = Table::load(&snapshot).unwrap();
    let identity = Identity {
        certificate: b"chain".as_slice().into(),
        key: b"hush".as_slice().into(),
    };
    assert_eq!(
        table.listeners()[0].tls,
        Some(ListenerTls {
            identity: identity.clone(),
            client_ca: Some(b"clients".as_slice().into()),
        })
    );
    let Endpoint::Carbon { tls, .. } = &table.destinations()[0].endpoint else {
        panic!("it is a carbon server")
    };
    assert_eq!(
        *tls,
        Some(PeerTls {
            ca: Some(b"servers".as_slice().into()),
            identity: Some(identity.clone()),
            server_name: "::1".into(),
        })
    );
    assert_eq!(
        format!("{identity:?}"),
        "Identity { certificate: Pem(5 bytes), key: Pem(4 bytes) }"
    );
    let hush = format!("{:?}", b"hush".as_slice());
    let shown = format!("{snapshot:?} {table:?}");
    for secret in ["hush", &hush[1..hush.len() - 1]] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn renewed_certificates_leave_connections_alone_and_nothing_else_does() {
    let tls = proto::PeerTls {
        ca: "ca".into(),
        identity: identity("chain", "key"),
        server_name: "a".into(),
    };
    let before = endpoint("a:1", tls.clone());
    let renewed = proto::PeerTls {
        ca: "other ca".into(),
        identity: identity("other chain", "other key"),
        ..tls.clone()
    };
    let after = endpoint("a:1", renewed.clone());
    assert_ne!(before, after);
    assert!(before.is_renewed_by(&after));
    for (address, tls) in [
        ("b:1", renewed.clone()),
        (
            "a:1",
            proto::PeerTls {
                server_name: "b".into(),
                ..tls.clone()
            },
        ),
        (
            "a:1",
            proto::PeerTls {
                ca: Vec::new(),
                ..tls.clone()
            },
        ),
        (
            "a:1",
            proto::PeerTls {
                identity: None,
                ..tls
            },
        ),
    ] {
        let other = endpoint(address, tls);
        assert!(!before.is_renewed_by(&other), "{other:?}");
    }
    let file = Endpoint::File {
        rotation: None,
        path: "/tmp/x".into(),
    };
    assert!(!before.is_renewed_by(&file));
}

#[test]
fn what_a_listener_cannot_do_is_said_with_its_field() {
    use proto::listener::Protocol;
    let port = || listener("a", 2003, 1024);
    let udp = proto::Plaintext {
        line_bytes_max: 1024,
        transport: proto::Transport::Udp.into(),
        ..proto::Plaintext::default()
    };
    let unix = |path: &str| {
        Some(proto::UnixSocket {
            path: path.into(),
            mode: 0o660,
        })
    };
    let pickle = |frame_bytes_max| {
        Some(Protocol::Pickle(proto::Framed {
            frame_bytes_max,
            idle_timeout_ms: 0,
        }))
    };
    let cases = [
        (
            proto::Listener {
                unix_socket: unix("/run/a.sock"),
                ..port()
            },
            "port: there is a unixSocket as well: leave out one",
        ),
        (
            proto::Listener {
                port: 0,
                unix_socket: unix("a.sock"),
                ..port()
            },
            "unixSocket.path: 'a.sock' is not an absolute path of at most 100 bytes",
        ),
        (
            proto::Listener {
                protocol: pickle(17 << 20),
                ..port()
            },
            "pickle.maxFrameBytes: 17825792 bytes are out of range: use 64 to 16Mi",
        ),
        (
            proto::Listener {
                protocol: Some(Protocol::Plaintext(udp)),
                proxy_protocol: true,
                ..port()
            },
            "plaintext.transport: datagrams come to a port, not encrypted, not compressed and without a PROXY header: \
             leave out unixSocket, tls, compression and proxyProtocol, or give them a listener of their own",
        ),
        (
            proto::Listener {
                allowed_sources: vec!["10.0.0.0/8".into(), "10.0.0.0/33".into()],
                ..port()
            },
            "allowedSources[1]: '10.0.0.0/33' is not a network: write one such as 10.0.0.0/8 or 2001:db8::/32",
        ),
        (
            proto::Listener {
                compression: 99,
                ..port()
            },
            "compression: not known to this release: use Gzip, Lz4, Snappy or Zstd",
        ),
    ];
    for (listener, expected) in cases {
        let snapshot = Snapshot {
            schema: relay_proto::SCHEMA,
            relay: Some(ObjectRef::new("Relay", "d", "edge")),
            listeners: vec![listener],
            ..Snapshot::default()
        };
        let errors = Table::load(&snapshot).unwrap_err();
        let errors: Vec<String> = errors.iter().map(LoadError::to_string).collect();
        assert_eq!(errors, [format!("Relay d/edge: listeners[a].{expected}")]);
    }
}

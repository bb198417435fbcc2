use relay_proto::{self as proto, Match, ObjectRef, Snapshot};

use super::*;

const MOMENT: Moment<'static> = Moment {
    now: UnixSeconds(1_700_000_000),
    stamp: 0,
    is_live: &|_| true,
};
const LINE_BYTES_MAX: usize = 64;

#[test]
fn lines_are_forwarded_byte_for_byte_but_for_whitespace_and_a_leading_dot() {
    let table = load(&everything_to_a());
    let (tally, sent) = process(
        &table,
        b"foo.bar 1.50 1700000000\nfoo   1\t2\r\n.foo 1 2\na 1e5 123.9\n  b 1 2 \ncpu;host=a -0 1\n",
    );
    assert_eq!(
        sent,
        [(
            "d/a",
            "foo.bar 1.50 1700000000\nfoo 1 2\nfoo 1 2\na 1e5 123.9\nb 1 2\ncpu;host=a -0 1\n",
            6
        )]
    );
    assert_eq!((tally.received, tally.forwarded), (6, 6));
}

#[test]
fn now_becomes_the_time_of_arrival() {
    let (_, sent) = process(&load(&everything_to_a()), b"a 1 -1\nb 2 N\n");
    assert_eq!(sent, [("d/a", "a 1 1700000000\nb 2 1700000000\n", 2)]);
}

#[test]
fn every_line_ends_under_one_reason() {
    let mut snapshot = everything_to_a();
    snapshot.routes[0].r#match = Some(Match {
        prefix: "a".into(),
        ..Match::default()
    });
    snapshot.blocklists.push(proto::Blocklist {
        source: Some(ObjectRef::new("Blocklist", "d", "b")),
        entries: vec![Match {
            regex: "^blocked".into(),
            ..Match::default()
        }],
    });
    let too_long = format!("a.{} 1 2\n", "x".repeat(LINE_BYTES_MAX));
    let cases: [(&[u8], Reason); 13] = [
        (too_long.as_bytes(), Reason::LineTooLong),
        (b"\n", Reason::Blank),
        (b"a 1\n", Reason::FieldCount),
        (b". 1 2\n", Reason::NameEmpty),
        (b"a\xff 1 2\n", Reason::NameNonAscii),
        (b"a\0 1 2\n", Reason::NameNul),
        (b"a;b 1 2\n", Reason::TagsInvalid),
        (b"a=b.c.d 1 2\n", Reason::Metrics20NoUnit),
        (b"a x 2\n", Reason::ValueInvalid),
        (b"a nan 2\n", Reason::ValueNotFinite),
        (b"a 1 x\n", Reason::TimestampInvalid),
        (b"blocked 1 2\n", Reason::Blocklisted),
        (b"b 1 2\n", Reason::Unrouted),
    ];
    let table = load(&snapshot);
    for (line, reason) in cases {
        let (tally, sent) = process(&table, line);
        let mut expected = Tally::default();
        expected.drop_line(reason);
        assert_eq!((tally, sent), (expected, Vec::new()), "{}", reason.as_str());
    }
    let block: Vec<u8> = cases.iter().flat_map(|(line, _)| *line).copied().collect();
    let (tally, _) = process(&table, &block);
    let dropped: u64 = Reason::ALL
        .into_iter()
        .map(|reason| tally.dropped(reason))
        .sum();
    assert_eq!(
        (tally.received, tally.forwarded, tally.absorbed, dropped),
        (13, 0, 0, 13)
    );
}

#[test]
fn a_long_line_leaves_its_neighbours_alone() {
    let block = format!("a 1 2\na.{} 1 2\nb 1 2\n", "x".repeat(LINE_BYTES_MAX));
    let (tally, sent) = process(&load(&everything_to_a()), block.as_bytes());
    assert_eq!(sent, [("d/a", "a 1 2\nb 1 2\n", 2)]);
    assert_eq!(tally.dropped(Reason::LineTooLong), 1);
}

#[test]
fn routes_see_a_line_in_order_until_one_that_stops() {
    let mut snapshot = snapshot(&["a", "b", "c", "rest"]);
    snapshot.routes = vec![
        proto::Route {
            stop: true,
            ..route("1", "x.", &["a"])
        },
        route("2", "x.y", &["b"]),
        route("3", "z", &["b", "c"]),
        route("4", "z.", &["c", "a"]),
        proto::Route {
            unmatched_only: true,
            ..route("5", "", &["rest"])
        },
        proto::Route {
            unmatched_only: true,
            ..route("6", "", &["a"])
        },
    ];
    let (tally, sent) = process(&load(&snapshot), b"x.y 1 2\nz 1 2\nz.z 1 2\nother 1 2\n");
    assert_eq!(
        sent,
        [
            ("d/a", "x.y 1 2\nz.z 1 2\n", 2),
            ("d/b", "z 1 2\nz.z 1 2\n", 2),
            ("d/c", "z 1 2\nz.z 1 2\n", 2),
            ("d/rest", "other 1 2\n", 1),
        ]
    );
    assert_eq!((tally.received, tally.forwarded), (4, 4));
}

#[test]
fn first_match_takes_the_first_target_and_a_route_without_a_target_takes_nothing() {
    let mut snapshot = snapshot(&["a", "b", "rest"]);
    let mut targets = route("1", "", &["a", "b"]);
    targets.distribution = proto::Distribution::FirstMatch.into();
    targets.stop = true;
    targets.targets[0].r#match = Some(Match {
        prefix: "x.".into(),
        ..Match::default()
    });
    targets.targets[1].r#match = Some(Match {
        contains: "y".into(),
        ..Match::default()
    });
    let rest = proto::Route {
        unmatched_only: true,
        ..route("2", "", &["rest"])
    };
    snapshot.routes = vec![targets, rest];
    let (_, sent) = process(&load(&snapshot), b"x.y 1 2\ny 1 2\nz 1 2\n");
    assert_eq!(
        sent,
        [
            ("d/a", "x.y 1 2\n", 1),
            ("d/b", "y 1 2\n", 1),
            ("d/rest", "z 1 2\n", 1)
        ]
    );
}

#[test]
fn lines_with_the_same_way_stay_in_order() {
    let mut snapshot = snapshot(&["a", "b"]);
    snapshot.routes = vec![route("1", "", &["a"]), route("2", "x", &["b"])];
    let block = b"x 1 1\nx 1 2\ny 1 3\n x 1 4\nx 1 5\nbad\nx 1 6\n";
    let (_, sent) = process(&load(&snapshot), block);
    assert_eq!(
        sent,
        [
            ("d/a", "x 1 1\nx 1 2\ny 1 3\nx 1 4\nx 1 5\nx 1 6\n", 6),
            ("d/b", "x 1 1\nx 1 2\nx 1 4\nx 1 5\nx 1 6\n", 5),
        ]
    );
}

#[test]
fn round_robin_gives_each_line_to_the_next_target_that_matches() {
    let mut snapshot = snapshot(&["a", "b", "c"]);
    let mut route = route("1", "", &["a", "b", "c"]);
    route.distribution = proto::Distribution::RoundRobin.into();
    route.targets[1].r#match = Some(Match {
        prefix: "x".into(),
        ..Match::default()
    });
    snapshot.routes = vec![route];
    let (tally, sent) = process(
        &load(&snapshot),
        b"x 1 1\nx 1 2\nx 1 3\nx 1 4\ny 1 5\n y 1 6\n",
    );
    assert_eq!(
        sent,
        [
            ("d/a", "x 1 1\nx 1 4\ny 1 5\n", 3),
            ("d/b", "x 1 2\n", 1),
            ("d/c", "x 1 3\ny 1 6\n", 2),
        ]
    );
    assert_eq!(tally.forwarded, 6);
}

#[test]
fn failover_gives_lines_to_the_first_target_that_is_live() {
    let mut snapshot = snapshot(&["a", "b", "c"]);
    let mut failover = route("1", "", &["a", "b"]);
    failover.distribution = proto::Distribution::Failover.into();
    snapshot.routes = vec![failover, route("2", "x", &["b"])];
    let table = load(&snapshot);
    let mut engine = Engine::new(0);
    for (dead, a, b) in [
        (&[][..], Some("x 1 2\ny 1 2\n"), Some("x 1 2\n")),
        (&[0], None, Some("x 1 2\ny 1 2\n")),
        (&[0, 1], Some("x 1 2\ny 1 2\n"), Some("x 1 2\n")),
    ] {
        let is_live = |destination: DestinationIndex| !dead.contains(&destination.get());
        let moment = Moment {
            is_live: &is_live,
            ..MOMENT
        };
        let mut out = Outbox::default();
        engine.process(&table, b"x 1 2\ny 1 2\n", LINE_BYTES_MAX, moment, &mut out);
        let mut sent = [None, None, None];
        out.drain(|destination, bytes, _| {
            sent[destination.get()] = Some(String::from_utf8(bytes.clone()).unwrap());
        });
        assert_eq!(
            sent,
            [a.map(Into::into), b.map(Into::into), None],
            "{dead:?}"
        );
    }
}

#[test]
fn consistent_hash_gives_a_series_to_its_owners() {
    // carbon-relay-ng's vectors for three hosts.
    let mut snapshot = snapshot(&[]);
    snapshot.destinations = (1..=3)
        .map(|host| proto::Destination {
            source: Some(ObjectRef::new("Destination", "d", format!("g{host}"))),
            id: host.to_string(),
            queue: Some(proto::Queue {
                bytes_max: 1 << 20,
                when_full: proto::WhenFull::Block.into(),
            }),
            endpoint: Some(proto::destination::Endpoint::Carbon(proto::Carbon {
                address: format!("10.0.0.{host}:2003"),
                connect_timeout_ms: 1,
                write_timeout_ms: 1,
            })),
        })
        .collect();
    let mut sharing = route("1", "", &["g1", "g2", "g3"]);
    sharing
        .targets
        .iter_mut()
        .for_each(|target| target.r#match = None);
    sharing.distribution = proto::Distribution::ConsistentHash.into();
    sharing.consistent_hash = Some(proto::ConsistentHash {
        algorithm: "Carbon".into(),
        replication_factor: 1,
        ..proto::ConsistentHash::default()
    });
    snapshot.routes = vec![sharing];
    let block = b"a.b.c.d 1 2\nservers.web01.cpu.user 1 2\nfoo.bar;env=prod 1 2\nfoo 1 2\n";
    let (_, sent) = process(&load(&snapshot), block);
    assert_eq!(
        sent,
        [
            ("d/g1", "foo.bar;env=prod 1 2\n", 1),
            ("d/g2", "servers.web01.cpu.user 1 2\n", 1),
            ("d/g3", "a.b.c.d 1 2\nfoo 1 2\n", 2),
        ]
    );
    let refused = |change: &dyn Fn(&mut proto::Route)| {
        let mut snapshot = snapshot.clone();
        change(&mut snapshot.routes[0]);
        Table::load(&snapshot).unwrap_err().remove(0).field
    };
    let spec = |route: &mut proto::Route| route.consistent_hash.clone().unwrap();
    for (field, change) in [
        (
            "consistentHash.algorithm",
            (&|route: &mut proto::Route| route.consistent_hash = None)
                as &dyn Fn(&mut proto::Route),
        ),
        ("consistentHash.hashKey", &|route| {
            route.consistent_hash = Some(proto::ConsistentHash {
                hash_key: "x".into(),
                ..spec(route)
            });
        }),
        ("consistentHash.replicationFactor", &|route| {
            route.consistent_hash = Some(proto::ConsistentHash {
                replication_factor: 4,
                ..spec(route)
            });
        }),
        ("destinations[1].match", &|route| {
            route.targets[1].r#match = Some(Match::default())
        }),
    ] {
        assert_eq!(refused(change), field);
    }
}

fn process(table: &Table, block: &[u8]) -> (Tally, Vec<(&'static str, &'static str, u64)>) {
    let mut out = Outbox::default();
    let tally = Engine::new(0).process(table, block, LINE_BYTES_MAX, MOMENT, &mut out);
    let mut sent = Vec::new();
    out.drain(|destination, bytes, lines| {
        let name = table.destinations()[destination.get()]
            .name
            .to_string()
            .leak() as &str;
        let text = String::from_utf8(std::mem::take(bytes)).unwrap().leak() as &str;
        sent.push((name, text, lines));
    });
    sent.sort_unstable();
    (tally, sent)
}

fn load(snapshot: &Snapshot) -> Table {
    Table::load(snapshot).unwrap()
}

fn everything_to_a() -> Snapshot {
    let mut snapshot = snapshot(&["a"]);
    snapshot.routes = vec![route("all", "", &["a"])];
    snapshot
}

fn snapshot(destinations: &[&str]) -> Snapshot {
    let destinations = destinations.iter().map(|name| proto::Destination {
        source: Some(ObjectRef::new("Destination", "d", *name)),
        id: (*name).to_owned(),
        queue: Some(proto::Queue {
            bytes_max: 1 << 20,
            when_full: proto::WhenFull::DropNewest.into(),
        }),
        endpoint: Some(proto::destination::Endpoint::File(proto::File {
            path: "/x".into(),
        })),
    });
    Snapshot {
        schema: proto::SCHEMA,
        destinations: destinations.collect(),
        ..Snapshot::default()
    }
}

fn route(name: &str, prefix: &str, destinations: &[&str]) -> proto::Route {
    let targets = destinations.iter().map(|name| proto::Target {
        destination: Some(ObjectRef::new("Destination", "d", *name)),
        r#match: None,
        ..Default::default()
    });
    proto::Route {
        source: Some(ObjectRef::new("Route", "d", name)),
        r#match: Some(Match {
            prefix: prefix.into(),
            ..Match::default()
        }),
        distribution: proto::Distribution::All.into(),
        targets: targets.collect(),
        ..proto::Route::default()
    }
}

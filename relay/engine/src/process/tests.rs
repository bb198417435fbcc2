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
        let is_live = |lane: crate::LaneIndex| !dead.contains(&lane.get());
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
                ..proto::Carbon::default()
            })),
            ..proto::Destination::default()
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
            ..proto::File::default()
        })),
        ..proto::Destination::default()
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

fn rewriter(rules: Vec<(&str, &str, &str)>) -> proto::Rewriter {
    let rules = rules
        .into_iter()
        .map(|(name, regex, with)| proto::RewriteRule {
            name: name.into(),
            find: Some(proto::rewrite_rule::Find::Regex(regex.into())),
            with: with.into(),
            ..proto::RewriteRule::default()
        });
    proto::Rewriter {
        source: Some(ObjectRef::new("Rewriter", "d", "r")),
        rules: rules.collect(),
    }
}

fn aggregator(name: &str, regex: &str, output: &str, drop_raw: bool) -> proto::Aggregator {
    proto::Aggregator {
        source: Some(ObjectRef::new("Aggregator", "d", name)),
        id: name.into(),
        r#match: Some(Match {
            regex: regex.into(),
            ..Match::default()
        }),
        functions: vec!["Sum".into(), "Count".into()],
        output: output.into(),
        interval_ms: 10_000,
        wait_ms: 12_000,
        drop_raw,
        ..proto::Aggregator::default()
    }
}

// Runs blocks through one engine; what came out for destination `a`.
fn run(engine: &mut Engine, table: &Table, blocks: &[&[u8]]) -> (Tally, String) {
    let (mut out, mut tally, mut sent) = (Outbox::default(), Tally::default(), String::new());
    for block in blocks {
        tally += &engine.process(table, block, LINE_BYTES_MAX, MOMENT, &mut out);
        out.drain(|_, bytes, _| sent += str::from_utf8(bytes).unwrap());
    }
    (tally, sent)
}

fn flushed(engine: &mut Engine, now: u32) -> String {
    let mut taken = Vec::new();
    assert_eq!(engine.take_due(now, 100, &mut taken), Flush::Finished);
    let mut lines = Vec::new();
    let not_finite = aggregate::finish(aggregate::merge(taken), |line| line.write_line(&mut lines));
    assert_eq!(not_finite, 0);
    String::from_utf8(lines).unwrap()
}

#[test]
fn blocklists_see_a_name_before_rewriters_and_routes_after_them() {
    let mut snapshot = snapshot(&["a"]);
    snapshot.rewriters = vec![
        rewriter(vec![("x", "^dc1\\.", "ams."), ("y", "ams", "AMS")]),
        rewriter(vec![("x", "AMS\\.(.*)", "amsterdam.$1")]),
    ];
    let prefix = |prefix: &str| Match {
        prefix: prefix.into(),
        ..Match::default()
    };
    snapshot.blocklists = vec![proto::Blocklist {
        source: Some(ObjectRef::new("Blocklist", "d", "b")),
        entries: vec![prefix("dc1.bad"), prefix("amsterdam.blocked")],
    }];
    snapshot.routes = vec![route("1", "amsterdam.", &["a"])];
    let table = load(&snapshot);
    let mut engine = Engine::new(1 << 20);
    let block =
        b"dc1.web 1 2\ndc1.web  3\t4\ndc1.bad 1 2\ndc1.blocked 1 2\ndc2.web 1 2\n.dc1.a 1 2\n";
    // Each time with more of the names in memory.
    for _ in 0..4 {
        let (tally, sent) = run(&mut engine, &table, &[block]);
        assert_eq!(
            sent,
            "amsterdam.web 1 2\namsterdam.web 3 4\namsterdam.blocked 1 2\namsterdam.a 1 2\n"
        );
        let dropped = [Reason::Blocklisted, Reason::Unrouted].map(|reason| tally.dropped(reason));
        assert_eq!((tally.forwarded, dropped), (4, [1, 1]));
    }
}

#[test]
fn a_name_that_rewriters_spoil_is_dropped() {
    let mut snapshot = everything_to_a();
    snapshot.rewriters = vec![rewriter(vec![
        ("empty", "^gone$", ""),
        ("space", "^space$", "a b"),
        ("dot", "^dot$", ".a"),
        ("tags", "^tags$", "a;b"),
    ])];
    let table = load(&snapshot);
    let block = b"gone 1 2\nspace 1 2\ndot 1 2\ntags 1 2\nfine 1 2\n";
    let (tally, sent) = process(&table, block);
    assert_eq!(sent, [("d/a", "fine 1 2\n", 1)]);
    assert_eq!(tally.dropped(Reason::RewrittenInvalid), 4);
}

#[test]
fn points_go_into_aggregates_and_on_to_routes_unless_raw_ones_are_dropped() {
    let mut snapshot = everything_to_a();
    snapshot.aggregators = vec![
        aggregator("1", r"^raw\.(.*)\.h[0-9]+$", "agg.$1", false),
        aggregator("2", r"^raw\.(.*)\.h[0-9]+$", "by_host.${function}.$1", true),
        aggregator("3", r"^raw\.", "never", false),
    ];
    let table = load(&snapshot);
    let mut engine = Engine::new(1 << 20);
    let blocks: [&[u8]; 2] = [
        b"raw.x.h1 1 1699999990\nraw.x.h2 2 1699999993\nother 5 1699999990\nraw.x.h3  4.5 1699999999.7\n",
        b"raw.x.h1 1e1 N\nraw.y 7 1699999990\n",
    ];
    let (tally, sent) = run(&mut engine, &table, &blocks);
    assert_eq!(sent, "other 5 1699999990\nraw.y 7 1699999990\n");
    assert_eq!((tally.received, tally.forwarded, tally.absorbed), (6, 2, 4));
    assert_eq!(flushed(&mut engine, 1_700_000_001), "");
    assert_eq!(
        flushed(&mut engine, 1_700_000_002),
        "agg.x.sum 7.5 1699999990\nagg.x.count 3 1699999990\n".to_owned()
            + "by_host.sum.x 7.5 1699999990\nby_host.count.x 3 1699999990\n"
            + "never.sum 7 1699999990\nnever.count 1 1699999990\n"
    );
    // Late ones are refused by every aggregator; with the raw line dropped, that is the end of it.
    let (tally, sent) = run(
        &mut engine,
        &table,
        &[b"raw.x.h1 1 1699999990\nraw.y 1 1699999990\n"],
    );
    assert_eq!(sent, "raw.y 1 1699999990\n");
    assert_eq!(
        (tally.forwarded, tally.dropped(Reason::AggregatePast)),
        (1, 1)
    );
    assert_eq!(
        flushed(&mut engine, 1_700_000_012),
        "agg.x.sum 10 1700000000\nagg.x.count 1 1700000000\n".to_owned()
            + "by_host.sum.x 10 1700000000\nby_host.count.x 1 1700000000\n"
    );
    let counts = engine.take_point_counts();
    let taken_and_past = |counts: PointCounts| (counts[0], counts[1]);
    let counts: Vec<_> = counts
        .iter()
        .map(|(id, counts)| (&**id, taken_and_past(*counts)))
        .collect();
    assert_eq!(counts, [("1", (4, 1)), ("2", (4, 1)), ("3", (1, 1))]);
    assert_eq!(engine.take_point_counts(), []);
}

#[test]
fn a_line_that_aggregators_took_and_no_route_is_absorbed() {
    let mut snapshot = snapshot(&["a"]);
    snapshot.aggregators = vec![aggregator("1", "^raw", "all", false)];
    snapshot.routes = vec![route("1", "routed", &["a"])];
    let table = load(&snapshot);
    let block = b"raw 1 1700000000\nraw 1 1600000000\nother 1 1700000000\n";
    let (tally, _) = run(&mut Engine::new(0), &table, &[block]);
    assert_eq!((tally.absorbed, tally.dropped(Reason::Unrouted)), (1, 2));
}

#[test]
fn aggregators_see_rewritten_names_and_what_they_give_only_routes_see() {
    let mut snapshot = everything_to_a();
    snapshot.rewriters = vec![rewriter(vec![("a", "^raw", "cooked")])];
    snapshot.aggregators = vec![aggregator("1", "^(cooked.*)$", "$1", true)];
    let table = load(&snapshot);
    let mut engine = Engine::new(0);
    let (tally, _) = run(&mut engine, &table, &[b"raw.a 1 1700000000\n"]);
    assert_eq!(tally.absorbed, 1);
    let lines = flushed(&mut engine, 1_700_000_012);
    assert_eq!(
        lines,
        "cooked.a.sum 1 1700000000\ncooked.a.count 1 1700000000\n"
    );
    let mut out = Outbox::default();
    let routed = engine.route_aggregates(&table, lines.as_bytes(), MOMENT, &mut out);
    assert_eq!((routed.forwarded, routed.unrouted), (2, 0));
    let mut sent = String::new();
    out.drain(|_, bytes, _| sent += str::from_utf8(bytes).unwrap());
    assert_eq!(sent, lines);
    assert_eq!(flushed(&mut engine, 1_700_000_100), "");
}

#[test]
fn an_output_that_is_no_name_is_counted_and_dropped_only_if_the_raw_line_is() {
    let mut snapshot = everything_to_a();
    snapshot.aggregators = vec![aggregator("1", "^raw\\.(x?)", "$1", false)];
    let table = load(&snapshot);
    let mut engine = Engine::new(0);
    let (tally, sent) = run(&mut engine, &table, &[b"raw.a 1 1700000000\n"]);
    assert_eq!(
        (tally.forwarded, sent.as_str()),
        (1, "raw.a 1 1700000000\n")
    );
    let counts = engine.take_point_counts();
    assert_eq!(counts[0].1[PointFate::Invalid as usize], 1);
    snapshot.aggregators[0].drop_raw = true;
    let (tally, _) = run(&mut engine, &load(&snapshot), &[b"raw.a 1 1700000000\n"]);
    assert_eq!(tally.dropped(Reason::AggregateInvalid), 1);
}

#[test]
fn buckets_stay_open_over_a_new_table_and_are_given_back_when_their_aggregator_goes() {
    let mut snapshot = everything_to_a();
    snapshot.aggregators = vec![
        aggregator("kept", "^a", "kept", true),
        aggregator("gone", "^b", "gone", true),
    ];
    let mut engine = Engine::new(1 << 20);
    let block: &[u8] = b"a 1 1700000000\nb 1 1700000000\n";
    let (tally, _) = run(&mut engine, &load(&snapshot), &[block, block]);
    assert_eq!(tally.absorbed, 4);
    snapshot.aggregators = vec![
        aggregator("new", "^b", "new", true),
        aggregator("kept", "^a", "kept", true),
    ];
    let (tally, _) = run(&mut engine, &load(&snapshot), &[block, block]);
    assert_eq!(tally.absorbed, 4);
    // What is given back goes with the next flush, whenever that is.
    assert_eq!(
        flushed(&mut engine, 1_700_000_000),
        "gone.sum 2 1700000000\ngone.count 2 1700000000\n"
    );
    assert_eq!(
        flushed(&mut engine, 1_700_000_012),
        "kept.sum 4 1700000000\nkept.count 4 1700000000\nnew.sum 2 1700000000\nnew.count 2 1700000000\n"
    );
}

#[test]
fn validation_is_as_strict_as_the_relay_says() {
    let lines = b"a..b 1 2\na:b 1 2\na\xe9 1 2\nfoo=bar.x 1 2\na nan 2\nb Inf 2\n";
    let passed = |set: fn(&mut proto::Validation)| {
        let mut snapshot = everything_to_a();
        let validation = snapshot.validation.get_or_insert_default();
        set(validation);
        let mut out = Outbox::default();
        let table = load(&snapshot);
        Engine::new(0).process(&table, lines, LINE_BYTES_MAX, MOMENT, &mut out);
        let mut sent = Vec::new();
        out.drain(|_, bytes, _| sent = bytes.clone());
        sent.escape_ascii().to_string()
    };
    assert_eq!(passed(|_| {}), r"a..b 1 2\na:b 1 2\n");
    let strict = |v: &mut proto::Validation| v.level = proto::ValidationLevel::Strict.into();
    assert_eq!(passed(strict), "");
    let none = |v: &mut proto::Validation| v.level = proto::ValidationLevel::None.into();
    assert_eq!(passed(none), r"a..b 1 2\na:b 1 2\na\xe9 1 2\n");
    let any_metrics20 =
        |v: &mut proto::Validation| v.metrics20_level = proto::ValidationLevel::None.into();
    assert_eq!(passed(any_metrics20), r"a..b 1 2\na:b 1 2\nfoo=bar.x 1 2\n");
    let nan = |v: &mut proto::Validation| v.not_finite = proto::NotFinite::Forward.into();
    assert_eq!(passed(nan), r"a..b 1 2\na:b 1 2\na nan 2\nb Inf 2\n");
}

#[test]
fn points_that_are_too_old_too_new_or_out_of_order_are_dropped_before_any_rule() {
    let mut snapshot = everything_to_a();
    snapshot.blocklists = vec![proto::Blocklist {
        source: Some(ObjectRef::new("Blocklist", "d", "b")),
        entries: vec![Match {
            prefix: "blocked".into(),
            ..Match::default()
        }],
    }];
    snapshot.validation = Some(proto::Validation {
        past_max_ms: 60_000,
        future_max_ms: 10_000,
        reject_out_of_order: true,
        normalise_tags: true,
        ..proto::Validation::default()
    });
    let table = load(&snapshot);
    let mut engine = Engine::new(1 << 20);
    for (line, expected) in [
        ("a 1 1699999939", Err(Reason::TimestampPast)),
        ("a 1 1699999940", Ok("a 1 1699999940\n")),
        ("a 1 1700000011", Err(Reason::TimestampFuture)),
        ("a 1 1699999940", Err(Reason::OutOfOrder)),
        ("a  1 1699999940", Err(Reason::OutOfOrder)),
        ("a 1 N", Ok("a 1 1700000000\n")),
        ("a 1 1699999999", Err(Reason::OutOfOrder)),
        ("a 1 1700000010", Ok("a 1 1700000010\n")),
        ("t;b=1;a=2 1 1700000000", Ok("t;a=2;b=1 1 1700000000\n")),
        ("t;a=2;b=1 1 1700000000", Err(Reason::OutOfOrder)),
        ("blocked 1 1700000000", Err(Reason::Blocklisted)),
        ("blocked 1 1700000000", Err(Reason::OutOfOrder)),
        ("bad;k 1 1600000000", Err(Reason::TagsInvalid)),
    ] {
        let (tally, sent) = run(&mut engine, &table, &[format!("{line}\n").as_bytes()]);
        match expected {
            Ok(text) => assert_eq!(sent, text, "{line}"),
            Err(reason) => assert_eq!(tally.dropped(reason), 1, "{line}: {tally:?}"),
        }
    }
}

#[test]
fn the_last_refused_line_of_each_reason_can_be_asked_for() {
    let mut engine = Engine::new(0);
    let block = b"\nbad\na 1 2\nworse 1\na x 2\n";
    run(&mut engine, &load(&everything_to_a()), &[block]);
    let refused: Vec<_> = engine
        .take_refused()
        .map(|(reason, line)| (reason, str::from_utf8(&block[line]).unwrap()))
        .collect();
    assert_eq!(
        refused,
        [
            (Reason::Blank, ""),
            (Reason::FieldCount, "worse 1"),
            (Reason::ValueInvalid, "a x 2"),
        ]
    );
    assert_eq!(engine.take_refused().count(), 0);
}

#[test]
fn many_renamed_and_aggregated_names_do_not_take_more_than_their_room() {
    let mut snapshot = everything_to_a();
    snapshot.rewriters = vec![rewriter(vec![("a", "^", &"x".repeat(200))])];
    let table = load(&snapshot);
    let mut engine = Engine::new(1 << 15);
    for round in 0..3 {
        for part in 0..100 {
            let block: String = (0..200)
                .map(|i| format!("n{part}.{i} {round} 1\n"))
                .collect();
            // Twice, so that the names are kept.
            let (tally, sent) = run(&mut engine, &table, &[block.as_bytes(), block.as_bytes()]);
            assert_eq!(tally.forwarded, 400);
            let expected: String = block
                .lines()
                .map(|line| format!("{}{line}\n", "x".repeat(200)))
                .collect();
            assert_eq!(sent, expected.repeat(2));
        }
    }
    assert!(engine.memory.bytes() < 4 << 20, "{}", engine.memory.bytes());
}

use relay_proto::{self as proto, Match, ObjectRef, Snapshot};

use super::*;
use crate::UnixSeconds;

fn match_of(set: impl FnOnce(&mut Match)) -> Option<Match> {
    let mut conditions = Match::default();
    set(&mut conditions);
    Some(conditions)
}

fn destination(name: &str) -> proto::Destination {
    proto::Destination {
        source: Some(ObjectRef::new("Destination", "d", name)),
        id: name.to_owned(),
        queue: Some(proto::Queue {
            bytes_max: 1 << 20,
            when_full: proto::WhenFull::DropNewest.into(),
        }),
        endpoint: Some(proto::destination::Endpoint::Carbon(proto::Carbon {
            address: format!("{name}:2003"),
            connect_timeout_ms: 1,
            write_timeout_ms: 1,
            ..proto::Carbon::default()
        })),
        ..proto::Destination::default()
    }
}

fn route(name: &str, conditions: Option<Match>, destinations: &[&str]) -> proto::Route {
    let target = |name: &&str| proto::Target {
        destination: Some(ObjectRef::new("Destination", "d", *name)),
        ..proto::Target::default()
    };
    proto::Route {
        source: Some(ObjectRef::new("Route", "d", name)),
        r#match: conditions,
        distribution: proto::Distribution::All.into(),
        targets: destinations.iter().map(target).collect(),
        ..proto::Route::default()
    }
}

fn table() -> Table {
    let mut hashed = route(
        "hashed",
        match_of(|m| m.prefix = "servers.".into()),
        &["a", "b"],
    );
    hashed.distribution = proto::Distribution::ConsistentHash.into();
    hashed.consistent_hash = Some(proto::ConsistentHash {
        algorithm: "Carbon".into(),
        replication_factor: 1,
        ..proto::ConsistentHash::default()
    });
    hashed.stop = true;
    let mut rest = route("rest", None, &["b"]);
    rest.unmatched_only = true;
    let snapshot = Snapshot {
        schema: proto::SCHEMA,
        destinations: ["a", "b"].map(destination).into(),
        blocklists: vec![proto::Blocklist {
            source: Some(ObjectRef::new("Blocklist", "d", "noise")),
            entries: vec![
                match_of(|m| m.suffix = ".tmp".into()).unwrap(),
                match_of(|m| m.regex = "^debug".into()).unwrap(),
            ],
        }],
        rewriters: vec![proto::Rewriter {
            source: Some(ObjectRef::new("Rewriter", "d", "dc")),
            rules: vec![
                proto::RewriteRule {
                    name: "hosts".into(),
                    find: Some(proto::rewrite_rule::Find::Regex("^hosts\\.".into())),
                    with: "servers.".into(),
                    ..proto::RewriteRule::default()
                },
                proto::RewriteRule {
                    name: "spoil".into(),
                    find: Some(proto::rewrite_rule::Find::Literal("spoil".into())),
                    with: " ".into(),
                    unless: match_of(|m| m.contains = "keep".into()),
                    ..proto::RewriteRule::default()
                },
            ],
        }],
        aggregators: vec![proto::Aggregator {
            source: Some(ObjectRef::new("Aggregator", "d", "sums")),
            id: "sums".into(),
            r#match: match_of(|m| m.regex = "^raw\\.(.*)\\.h[0-9]+$".into()),
            functions: vec!["Sum".into(), "P95".into()],
            output: "agg.$1".into(),
            interval_ms: 10_000,
            wait_ms: 12_000,
            drop_raw: true,
            ..proto::Aggregator::default()
        }],
        routes: vec![
            hashed,
            route("web", match_of(|m| m.glob = "*.web.*".into()), &["a"]),
            rest,
        ],
        ..Snapshot::default()
    };
    Table::load(&snapshot).unwrap()
}

fn explained(line: &str) -> Explanation {
    let moment = Moment {
        now: UnixSeconds(1_700_000_000),
        stamp: 0,
        is_live: &|_| true,
    };
    table().explain(line.as_bytes(), 64, moment)
}

fn told(line: &str) -> Vec<String> {
    let step = |step: &Step| {
        let rule = step.rule.as_ref().map(|rule| format!("{rule}: "));
        format!("{} {}{}", step.stage, rule.unwrap_or_default(), step.text)
    };
    explained(line).steps.iter().map(step).collect()
}

#[test]
fn every_rule_on_the_way_says_what_it_did_and_why_not() {
    assert_eq!(
        told("hosts.web1.cpu  1 1700000001"),
        [
            "parse name 'hosts.web1.cpu', value 1, timestamp 1700000001",
            "validate let in",
            "blocklist d/noise entries[0]: match.suffix does not hold",
            "blocklist d/noise entries[1]: match.regex does not hold",
            "rewrite d/dc rules[0] 'hosts': 'hosts.web1.cpu' becomes 'servers.web1.cpu'",
            "rewrite d/dc rules[1] 'spoil': there is nothing to replace",
            "aggregate d/sums: match.regex does not hold",
            "route d/hashed: takes it, for d/b (key at 38713, point at 38789); stops",
        ]
    );
    let explanation = explained("hosts.web1.cpu  1 1700000001");
    assert_eq!(explanation.outcome, Outcome::Forwarded);
    assert_eq!(explanation.name.as_deref(), Some("servers.web1.cpu"));
    assert_eq!(explanation.routes[0].route, "d/hashed");
    assert_eq!(explanation.routes[0].destinations, explanation.destinations);
    assert_eq!(
        told("x.keep.spoil 1 N")[5],
        "rewrite d/dc rules[1] 'spoil': unless holds: left alone"
    );
    assert_eq!(
        told("other 1 2")[7..],
        [
            "route d/hashed: match.prefix does not hold",
            "route d/web: match.glob does not hold",
            "route d/rest: takes it, for d/b",
        ]
    );
}

#[test]
fn aggregates_tell_series_and_bucket() {
    let explanation = explained("raw.x.h1 2 1700000003");
    assert_eq!(explanation.outcome, Outcome::Absorbed);
    assert_eq!(
        explanation.aggregates,
        [AggregateStep {
            aggregator: "d/sums".into(),
            outputs: vec!["agg.x.sum".into(), "agg.x.p95".into()],
            bucket: 1_700_000_000,
            due: 1_700_000_012,
            drop_raw: true,
        }]
    );
    assert_eq!(
        told("raw.x.h1 2 1700000003").last().unwrap(),
        "aggregate d/sums: into agg.x.sum, agg.x.p95, bucket 1700000000, sent at 1700000012; the line goes no further"
    );
    let late = explained("raw.x.h1 2 1600000003");
    assert_eq!(
        (late.outcome, late.reason),
        (Outcome::Dropped, Some("aggregate_past"))
    );
}

#[test]
fn what_is_dropped_says_where_and_why() {
    for (line, reason, last) in [
        ("a b c d", "field_count", "parse refused: field_count"),
        ("a;b 1 2", "tags_invalid", "validate refused: tags_invalid"),
        (
            "debug 1 2",
            "blocklisted",
            "blocklist d/noise entries[1]: drops it",
        ),
        (
            "spoil 1 2",
            "rewritten_invalid",
            "rewrite ' ' is no name: field_count",
        ),
    ] {
        let explanation = explained(line);
        assert_eq!(
            (explanation.outcome, explanation.reason),
            (Outcome::Dropped, Some(reason))
        );
        assert_eq!(told(line).last().unwrap(), last);
    }
}

//! Apply these resources: expect this snapshot, these findings.

mod tenancy;
mod tls;

use proptest::prelude::*;
use relay_proto::rewrite_rule::Find;

use super::*;
use crate::fixture::{ALL, GRAPHITE, RELAY, apply};
use crate::inputs::Kind;

const REWRITER: &str = "
kind: Rewriter
metadata: {name: dc}
spec: {rules: [{name: dc, regex: '^dc1[.]', with: 'ams.'}]}
";

const AGGREGATOR: &str = "
kind: Aggregator
metadata: {name: totals, uid: 33-44}
spec: {match: {regex: '^raw[.](.*)'}, functions: [Sum], output: 'agg.$1', interval: 10s, wait: 12s}
";

#[test]
fn a_route_goes_to_the_default_relay_with_its_destination() {
    let compiled = apply(&[RELAY, GRAPHITE, ALL]);
    let snapshot = &compiled.fleets[&relay("edge")].snapshot;
    let listener = relay_proto::Listener {
        name: "plain".into(),
        port: 2003,
        connections_max: 10_000,
        protocol: Some(relay_proto::listener::Protocol::Plaintext(
            relay_proto::Plaintext {
                line_bytes_max: 65536,
                idle_timeout_ms: 120_000,
                transport: relay_proto::Transport::Tcp.into(),
            },
        )),
        ..relay_proto::Listener::default()
    };
    let graphite = relay_proto::ObjectRef::new("Destination", "d", "graphite");
    let expected = Snapshot {
        schema: 1,
        relay: Some(relay_proto::ObjectRef::new("Relay", "d", "edge")),
        listeners: vec![listener],
        drain_timeout_ms: 30_000,
        validation: Some(relay_proto::Validation {
            level: relay_proto::ValidationLevel::Medium.into(),
            metrics20_level: relay_proto::ValidationLevel::Medium.into(),
            not_finite: relay_proto::NotFinite::Drop.into(),
            ..Default::default()
        }),
        blocklists: vec![],
        rewriters: vec![],
        aggregators: vec![],
        routes: vec![relay_proto::Route {
            source: Some(relay_proto::ObjectRef::new("Route", "d", "all")),
            r#match: Some(relay_proto::Match::default()),
            stop: false,
            unmatched_only: false,
            distribution: relay_proto::Distribution::All.into(),
            targets: vec![relay_proto::Target {
                destination: Some(graphite.clone()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        destinations: vec![relay_proto::Destination {
            source: Some(graphite),
            id: "11-22".into(),
            queue: Some(relay_proto::Queue {
                bytes_max: 64 << 20,
                when_full: relay_proto::WhenFull::Spool.into(),
            }),
            spool: Some(relay_proto::Spool {
                bytes_max: 10 << 30,
                age_max_ms: 86_400_000,
                replay_lines_per_second: 0,
                sync_interval_ms: 1_000,
            }),
            dead_letter_bytes_max: 0,
            resend_bytes_max: 8 << 20,
            endpoint: Some(relay_proto::destination::Endpoint::Carbon(
                relay_proto::Carbon {
                    address: "graphite:2003".into(),
                    connections: 1,
                    connect_timeout_ms: 5_000,
                    write_timeout_ms: 30_000,
                    connection_age_max_ms: 3_600_000,
                    ..relay_proto::Carbon::default()
                },
            )),
        }],
    };
    assert_eq!(*snapshot, expected);
    assert_eq!(
        compiled.verdicts[&route("all")],
        Verdict {
            generation: 3,
            accepted: Finding::new(Reason::Accepted, "valid and attached to Relay d/edge"),
            resolved_refs: Finding::new(Reason::ResolvedRefs, "every reference resolves"),
            fleets: BTreeSet::from([relay("edge")]),
            warnings: Vec::new(),
        }
    );
    assert_eq!(compiled.verdicts.len(), 3);
}

#[test]
fn a_destination_without_uid_is_known_by_its_name() {
    let compiled = apply(&[RELAY, &GRAPHITE.replace(", uid: 11-22", ""), ALL]);
    assert_eq!(
        compiled.fleets[&relay("edge")].snapshot.destinations[0].id,
        "d/graphite"
    );
}

#[test]
fn routes_are_in_order_of_priority_then_name() {
    let numbered = |name: &str, priority: i32| {
        ALL.replace("name: all", &format!("name: {name}"))
            .replace("spec: {", &format!("spec: {{priority: {priority}, "))
    };
    let compiled = apply(&[
        RELAY,
        GRAPHITE,
        &numbered("b", 0),
        &numbered("a", 0),
        &numbered("z", 7),
        &numbered("y", -7),
    ]);
    assert_eq!(routes_of(&compiled, "edge"), ["z", "a", "b", "y"]);
}

#[test]
fn a_relay_says_what_lines_must_be() {
    let strict = RELAY.replace(
        "spec: {",
        "spec: {validation: {level: Strict, metrics20Level: None, nan: Forward, rejectOutOfOrder: true, \
         maxPast: 1h, maxFuture: 5m, tags: Normalised}, ",
    );
    assert_eq!(
        apply(&[&strict]).fleets[&relay("edge")].snapshot.validation,
        Some(relay_proto::Validation {
            level: relay_proto::ValidationLevel::Strict.into(),
            metrics20_level: relay_proto::ValidationLevel::None.into(),
            not_finite: relay_proto::NotFinite::Forward.into(),
            reject_out_of_order: true,
            past_max_ms: 3_600_000,
            future_max_ms: 300_000,
            normalise_tags: true,
        })
    );
    let compiled = apply(&[&strict.replace("5m", "0s")]);
    let finding = failure(&compiled, &relay("edge"));
    assert_eq!(finding.field.as_deref(), Some("validation.maxFuture"));
}

#[test]
fn a_rewriter_travels_with_its_rules_in_order() {
    let compiled = apply(&[
        RELAY,
        "
kind: Rewriter
metadata: {name: dc, generation: 2}
spec:
  rules:
  - {name: dc, regex: '^dc([0-9])[.]', with: 'ams${1}.'}
  - {name: a, literal: foo, with: '', max: 1, unless: {contains: keep}}
",
    ]);
    let rule = |name: &str, find, with: &str| relay_proto::RewriteRule {
        name: name.into(),
        find: Some(find),
        with: with.into(),
        ..Default::default()
    };
    let expected = relay_proto::Rewriter {
        source: Some(relay_proto::ObjectRef::new("Rewriter", "d", "dc")),
        rules: vec![
            rule("dc", Find::Regex("^dc([0-9])[.]".into()), "ams${1}."),
            relay_proto::RewriteRule {
                max: 1,
                unless: Some(relay_proto::Match {
                    contains: "keep".into(),
                    ..Default::default()
                }),
                ..rule("a", Find::Literal("foo".into()), "")
            },
        ],
    };
    assert_eq!(
        compiled.fleets[&relay("edge")].snapshot.rewriters,
        [expected]
    );
    assert_eq!(
        compiled.verdicts[&key(Kind::Rewriter, "dc")],
        Verdict {
            generation: 2,
            accepted: Finding::new(Reason::Accepted, "valid and attached to Relay d/edge"),
            resolved_refs: Finding::new(Reason::ResolvedRefs, "every reference resolves"),
            fleets: BTreeSet::from([relay("edge")]),
            warnings: Vec::new(),
        }
    );
}

#[test]
fn a_bad_rule_leaves_out_its_rewriter_alone() {
    use Reason::{InvalidPattern, UnsupportedValue};
    for (rule, reason, field) in [
        ("with: y", UnsupportedValue, "rules[1]"),
        (
            "literal: x, regex: x, with: y",
            UnsupportedValue,
            "rules[1]",
        ),
        (
            "literal: x, with: y, max: 0",
            UnsupportedValue,
            "rules[1].max",
        ),
        ("regex: '(', with: y", InvalidPattern, "rules[1].regex"),
        ("regex: (x), with: $1y", InvalidPattern, "rules[1].with"),
        (
            "literal: x, with: y, unless: {glob: '['}",
            InvalidPattern,
            "rules[1].unless.glob",
        ),
    ] {
        let bad = REWRITER
            .replace("name: dc}", "name: bad}")
            .replace("}]}", &format!("}}, {{name: b, {rule}}}]}}"));
        let compiled = apply(&[RELAY, GRAPHITE, ALL, REWRITER, &bad]);
        assert_eq!(rewriters_of(&compiled, "edge"), ["dc"]);
        assert_eq!(routes_of(&compiled, "edge"), ["all"]);
        let finding = failure(&compiled, &key(Kind::Rewriter, "bad"));
        assert_eq!(finding.reason, reason, "{rule}");
        assert_eq!(finding.field.as_deref(), Some(field), "{rule}");
        let good = &compiled.verdicts[&key(Kind::Rewriter, "dc")];
        assert_eq!(good.failure(), None);
    }
}

#[test]
fn a_bad_aggregator_is_left_out_alone() {
    for (good, bad, field) in [
        ("regex: '^raw[.](.*)'", "prefix: raw.", "match.regex"),
        ("agg.$1", "agg.$2", "output"),
        ("[Sum]", "[Sum, P100]", "functions[1]"),
        ("interval: 10s", "interval: 1500ms", "interval"),
        ("wait: 12s", "wait: 9s", "wait"),
    ] {
        let bad = AGGREGATOR
            .replace("name: totals, uid: 33-44", "name: bad")
            .replace(good, bad);
        let compiled = apply(&[RELAY, GRAPHITE, ALL, AGGREGATOR, &bad]);
        assert_eq!(aggregators_of(&compiled, "edge"), ["totals"]);
        assert_eq!(routes_of(&compiled, "edge"), ["all"]);
        let finding = failure(&compiled, &key(Kind::Aggregator, "bad"));
        assert_eq!(finding.field.as_deref(), Some(field), "{bad}");
        let good = &compiled.verdicts[&key(Kind::Aggregator, "totals")];
        assert_eq!(good.failure(), None);
    }
}

#[test]
fn an_aggregator_travels_whole() {
    let compiled = apply(&[
        RELAY,
        "
kind: Aggregator
metadata: {name: totals, uid: 33-44}
spec:
  match: {prefix: raw., regex: '^raw[.](.*)'}
  functions: [Sum, P99.9]
  output: 'agg.$1'
  interval: 1m
  wait: 90s
  dropRaw: true
  percentileDefinition: NearestRank
",
    ]);
    let expected = relay_proto::Aggregator {
        source: Some(relay_proto::ObjectRef::new("Aggregator", "d", "totals")),
        id: "33-44".into(),
        r#match: Some(relay_proto::Match {
            prefix: "raw.".into(),
            regex: "^raw[.](.*)".into(),
            ..Default::default()
        }),
        functions: vec!["Sum".into(), "P99.9".into()],
        output: "agg.$1".into(),
        interval_ms: 60_000,
        wait_ms: 90_000,
        drop_raw: true,
        percentile_definition: "NearestRank".into(),
    };
    assert_eq!(
        compiled.fleets[&relay("edge")].snapshot.aggregators,
        [expected]
    );
    assert_eq!(
        compiled.verdicts[&key(Kind::Aggregator, "totals")],
        Verdict {
            generation: 0,
            accepted: Finding::new(Reason::Accepted, "valid and attached to Relay d/edge"),
            resolved_refs: Finding::new(Reason::ResolvedRefs, "every reference resolves"),
            fleets: BTreeSet::from([relay("edge")]),
            warnings: Vec::new(),
        }
    );
}

#[test]
fn an_aggregator_has_defaults_and_without_uid_is_known_by_its_name() {
    let compiled = apply(&[RELAY, &AGGREGATOR.replace(", uid: 33-44", "")]);
    let snapshot = &compiled.fleets[&relay("edge")].snapshot;
    let [aggregator] = &snapshot.aggregators[..] else {
        panic!("one aggregator: {snapshot:?}")
    };
    assert_eq!(
        (
            aggregator.id.as_str(),
            aggregator.drop_raw,
            aggregator.percentile_definition.as_str()
        ),
        ("d/totals", false, "R6")
    );
}

#[test]
fn rewriters_and_aggregators_are_in_order_of_priority_then_name() {
    let mut manifests = vec![RELAY.to_owned()];
    for (name, priority) in [("b", 0), ("a", 0), ("z", 7), ("y", -7)] {
        for (manifest, own) in [
            (REWRITER, "name: dc}"),
            (AGGREGATOR, "name: totals, uid: 33-44}"),
        ] {
            manifests.push(
                manifest
                    .replace(own, &format!("name: {name}}}"))
                    .replace("spec: {", &format!("spec: {{priority: {priority}, ")),
            );
        }
    }
    let manifests: Vec<&str> = manifests.iter().map(String::as_str).collect();
    let compiled = apply(&manifests);
    assert_eq!(rewriters_of(&compiled, "edge"), ["z", "a", "b", "y"]);
    assert_eq!(aggregators_of(&compiled, "edge"), ["z", "a", "b", "y"]);
}

#[test]
fn rewriters_and_aggregators_attach_as_routes_do() {
    let named = RELAY.replace(
        "name: edge, labels: {carbonway.io/default: 'true'}",
        "name: core",
    );
    let on_both = |manifest: &str| {
        manifest.replace(
            "spec: {",
            "spec: {relayRefs: [{name: core}, {name: gone}], ",
        )
    };
    let compiled = apply(&[RELAY, &named, REWRITER, &on_both(AGGREGATOR)]);
    assert_eq!(rewriters_of(&compiled, "edge"), ["dc"]);
    assert_eq!(rewriters_of(&compiled, "core"), Vec::<String>::new());
    assert_eq!(aggregators_of(&compiled, "edge"), Vec::<String>::new());
    assert_eq!(aggregators_of(&compiled, "core"), ["totals"]);
    let verdict = &compiled.verdicts[&key(Kind::Aggregator, "totals")];
    assert_eq!(verdict.accepted.reason, Reason::Accepted);
    assert_eq!(verdict.resolved_refs.reason, Reason::NoMatchingRelay);

    let compiled = apply(&[REWRITER, AGGREGATOR]);
    for key in [key(Kind::Rewriter, "dc"), key(Kind::Aggregator, "totals")] {
        let verdict = &compiled.verdicts[&key];
        assert_eq!(verdict.accepted.reason, Reason::NoMatchingRelay, "{key}");
        assert_eq!(verdict.fleets, BTreeSet::new(), "{key}");
    }
}

#[test]
fn a_bad_pattern_leaves_out_its_route_alone() {
    let bad = ALL
        .replace("name: all", "name: bad")
        .replace("spec: {", "spec: {match: {regex: '('}, ");
    let compiled = apply(&[RELAY, GRAPHITE, ALL, &bad]);
    assert_eq!(routes_of(&compiled, "edge"), ["all"]);
    let verdict = &compiled.verdicts[&route("bad")];
    assert_eq!(verdict.accepted.reason, Reason::InvalidPattern);
    assert_eq!(verdict.accepted.field.as_deref(), Some("match.regex"));
    assert_eq!(verdict.fleets, BTreeSet::new());
    assert!(compiled.verdicts[&route("all")].failure().is_none());
}

#[test]
fn a_bad_blocklist_says_all_that_is_wrong_with_it() {
    let compiled = apply(&[
        RELAY,
        "
kind: Blocklist
metadata: {name: bad}
spec: {entries: [{prefix: ok.}, {regex: '('}, {notRegex: '['}, {}]}
",
    ]);
    let finding = &compiled.verdicts[&key(Kind::Blocklist, "bad")].accepted;
    assert_eq!(finding.reason, Reason::InvalidPattern);
    assert_eq!(finding.field.as_deref(), Some("entries[1].regex"));
    for other in ["spec.entries[2].notRegex: ", "spec.entries[3]: "] {
        assert!(finding.message.contains(other), "{}", finding.message);
    }
    assert_eq!(compiled.fleets[&relay("edge")].snapshot.blocklists, vec![]);
}

#[test]
fn a_bad_destination_takes_along_the_routes_that_name_it() {
    let bad = "
kind: Destination
metadata: {name: bad}
spec: {carbon: {address: nowhere}}
";
    let both = "
kind: Route
metadata: {name: both}
spec: {destinations: [{name: graphite}, {name: bad}]}
";
    let compiled = apply(&[RELAY, GRAPHITE, ALL, bad, both]);
    assert_eq!(routes_of(&compiled, "edge"), ["all"]);
    assert_eq!(
        failure(&compiled, &key(Kind::Destination, "bad")).field,
        Some("carbon.address".into())
    );
    assert_eq!(
        *failure(&compiled, &route("both")),
        Finding::at(
            "destinations[1].name",
            Reason::DestinationNotAccepted,
            "Destination d/bad is not accepted, so the whole route is left out: see its status",
        )
    );
    assert!(
        compiled.verdicts[&key(Kind::Destination, "graphite")]
            .failure()
            .is_none()
    );
}

#[test]
fn a_destination_that_nothing_names_is_checked_and_in_no_snapshot() {
    let bad = "
kind: Destination
metadata: {name: bad}
spec: {file: {path: relative}}
";
    let compiled = apply(&[RELAY, GRAPHITE, bad]);
    let graphite = &compiled.verdicts[&key(Kind::Destination, "graphite")];
    assert_eq!((graphite.failure(), graphite.fleets.len()), (None, 0));
    assert_eq!(
        failure(&compiled, &key(Kind::Destination, "bad")).reason,
        Reason::UnsupportedValue
    );
    assert_eq!(
        compiled.fleets[&relay("edge")].snapshot.destinations,
        vec![]
    );
}

#[test]
fn an_endpoint_must_be_one() {
    let neither = "
kind: Destination
metadata: {name: neither}
spec: {}
";
    let compiled = apply(&[neither]);
    assert_eq!(
        *failure(&compiled, &key(Kind::Destination, "neither")),
        Finding::new(
            Reason::UnsupportedValue,
            "set exactly one endpoint, such as carbon or file"
        )
    );
}

#[test]
fn a_route_that_names_a_missing_destination_is_left_out_whole() {
    let missing = ALL.replace("{name: graphite}", "{name: graphite}, {name: gone}");
    let compiled = apply(&[RELAY, GRAPHITE, &missing]);
    assert_eq!(routes_of(&compiled, "edge"), Vec::<String>::new());
    assert_eq!(
        *failure(&compiled, &route("all")),
        Finding::at(
            "destinations[1].name",
            Reason::DestinationNotFound,
            "Destination d/gone does not exist, so the whole route is left out: create it, or name another",
        )
    );
}

#[test]
fn an_object_without_relay_says_what_to_do() {
    let unlabelled = RELAY.replace("labels: {carbonway.io/default: 'true'}", "labels: {}");
    let compiled = apply(&[&unlabelled, GRAPHITE, ALL]);
    assert_eq!(
        *failure(&compiled, &route("all")),
        Finding::new(
            Reason::NoMatchingRelay,
            "no Relay in namespace d is labelled carbonway.io/default=true: label one, or name a Relay in \
             spec.relayRefs",
        )
    );
    let elsewhere = ALL.replace("spec: {", "spec: {relayRefs: [{name: core}], ");
    let compiled = apply(&[RELAY, GRAPHITE, &elsewhere]);
    assert_eq!(
        *failure(&compiled, &route("all")),
        Finding::at(
            "relayRefs",
            Reason::NoMatchingRelay,
            "Relay d/core does not exist: create it, or name one that exists",
        )
    );
}

#[test]
fn a_route_runs_on_those_of_its_relays_that_exist() {
    let both = ALL.replace(
        "spec: {",
        "spec: {relayRefs: [{name: core}, {name: edge}], ",
    );
    let compiled = apply(&[RELAY, GRAPHITE, &both]);
    assert_eq!(routes_of(&compiled, "edge"), ["all"]);
    let verdict = &compiled.verdicts[&route("all")];
    assert!(verdict.accepted.is_true());
    assert_eq!(verdict.resolved_refs.reason, Reason::NoMatchingRelay);
}

#[test]
fn of_two_default_relays_the_first_by_name_wins_and_the_other_runs_what_names_it() {
    let second = RELAY.replace("name: edge", "name: zone");
    let named = ALL
        .replace("name: all", "name: named")
        .replace("spec: {", "spec: {relayRefs: [{name: zone}], ");
    let compiled = apply(&[RELAY, &second, GRAPHITE, ALL, &named]);
    assert_eq!(routes_of(&compiled, "edge"), ["all"]);
    assert_eq!(routes_of(&compiled, "zone"), ["named"]);
    let finding = failure(&compiled, &relay("zone"));
    assert_eq!(finding.reason, Reason::Conflicted);
    assert!(finding.message.contains("Relay d/edge is labelled"));
    assert!(compiled.verdicts[&relay("edge")].failure().is_none());
}

#[test]
fn a_bad_relay_has_no_snapshot_and_its_neighbour_is_unharmed() {
    let bad = RELAY
        .replace(
            "name: edge, labels: {carbonway.io/default: 'true'}",
            "name: core",
        )
        .replace("2003", "-1");
    let both = ALL.replace(
        "spec: {",
        "spec: {relayRefs: [{name: core}, {name: edge}], ",
    );
    let compiled = apply(&[RELAY, &bad, GRAPHITE, &both]);
    assert_eq!(compiled.fleets.len(), 1);
    assert_eq!(routes_of(&compiled, "edge"), ["all"]);
    assert_eq!(
        *failure(&compiled, &relay("core")),
        Finding::at(
            "listeners[plain].port",
            Reason::UnsupportedValue,
            "-1 is negative: write a positive number"
        )
    );
    assert_eq!(
        failure(&compiled, &route("all")).reason,
        Reason::RelayNotAccepted
    );
}

#[test]
fn what_the_loader_says_of_a_listener_is_the_relays_finding() {
    let compiled = apply(&[&RELAY.replace("2003", "70000"), GRAPHITE, ALL]);
    assert_eq!(compiled.fleets.len(), 0);
    let finding = failure(&compiled, &relay("edge"));
    assert_eq!(finding.field.as_deref(), Some("listeners[plain].port"));
}

#[test]
fn namespaces_do_not_see_each_other() {
    let elsewhere = ALL.replace("name: all", "name: all, namespace: other");
    let compiled = apply(&[RELAY, GRAPHITE, &elsewhere]);
    assert_eq!(routes_of(&compiled, "edge"), Vec::<String>::new());
    let verdict = &compiled.verdicts[&Key::new(Kind::Route, "other", "all")];
    assert_eq!(verdict.accepted.reason, Reason::NoMatchingRelay);
    assert_eq!(verdict.resolved_refs.reason, Reason::DestinationNotFound);
}

proptest! {
    #[test]
    fn the_order_of_listing_does_not_reach_the_version(order in Just((0..16).collect::<Vec<usize>>()).prop_shuffle()) {
        let objects = many();
        let shuffled: Vec<&str> = order.iter().map(|i| objects[*i].as_str()).collect();
        let sorted: Vec<&str> = objects.iter().map(String::as_str).collect();
        prop_assert_eq!(apply(&shuffled), apply(&sorted));
    }
}

fn many() -> Vec<String> {
    let mut objects = vec![RELAY.to_owned(), RELAY.replace("edge", "zone")];
    for i in 0..5 {
        objects.push(
            GRAPHITE
                .replace("graphite", &format!("g{i}"))
                .replace("11-22", &format!("u{i}")),
        );
        let route = ALL.replace("name: all", &format!("name: r{i}"));
        objects.push(route.replace("name: graphite", &format!("name: g{}", 4 - i)));
    }
    for name in ["m", "k"] {
        objects.push(REWRITER.replacen("name: dc", &format!("name: {name}"), 1));
        objects.push(AGGREGATOR.replace("name: totals, uid: 33-44", &format!("name: {name}")));
    }
    objects
}

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, "d", name)
}

fn relay(name: &str) -> Key {
    key(Kind::Relay, name)
}

fn route(name: &str) -> Key {
    key(Kind::Route, name)
}

fn failure<'a>(compiled: &'a Compiled, key: &Key) -> &'a Finding {
    compiled.verdicts[key].failure().expect("a failure")
}

fn routes_of(compiled: &Compiled, name: &str) -> Vec<String> {
    let snapshot = &compiled.fleets[&relay(name)].snapshot;
    names(snapshot.routes.iter().map(|route| &route.source))
}

fn rewriters_of(compiled: &Compiled, name: &str) -> Vec<String> {
    let snapshot = &compiled.fleets[&relay(name)].snapshot;
    names(snapshot.rewriters.iter().map(|item| &item.source))
}

fn aggregators_of(compiled: &Compiled, name: &str) -> Vec<String> {
    let snapshot = &compiled.fleets[&relay(name)].snapshot;
    names(snapshot.aggregators.iter().map(|item| &item.source))
}

fn names<'a>(sources: impl Iterator<Item = &'a Option<relay_proto::ObjectRef>>) -> Vec<String> {
    sources
        .flatten()
        .map(|source| source.name.clone())
        .collect()
}

const SERVED: &str = "
kind: Destination
metadata: {name: graphite, uid: 11-22}
spec: {carbon: {service: {name: g, port: 12003}, connections: 2}}
";

const SLICE: &str = "
kind: EndpointSlice
metadata: {name: g-1, labels: {kubernetes.io/service-name: g}}
addressType: IPv4
ports: [{name: plain, port: 12003}]
endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: g-0}}, {addresses: [10.0.0.2]}]
";

fn carbon_of(compiled: &Compiled) -> relay_proto::Carbon {
    let fleet = compiled.fleets.values().next().unwrap();
    match fleet.snapshot.destinations[0].endpoint.clone() {
        Some(relay_proto::destination::Endpoint::Carbon(carbon)) => carbon,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_services_ready_endpoints_are_the_servers_of_a_destination() {
    let compiled = apply(&[RELAY, SERVED, ALL, SLICE]);
    let carbon = carbon_of(&compiled);
    assert_eq!(carbon.address, "g.d.svc:12003");
    assert_eq!(carbon.connections, 2);
    let members = carbon.members.unwrap().members;
    let members: Vec<_> = members.iter().map(|m| (&*m.name, &*m.address)).collect();
    assert_eq!(
        members,
        [("10.0.0.2", "10.0.0.2:12003"), ("g-0", "10.0.0.1:12003")]
    );
    let verdict = &compiled.verdicts[&Key::new(Kind::Destination, "d", "graphite")];
    assert!(verdict.failure().is_none());
}

#[test]
fn a_destination_whose_service_is_missing_stays_and_says_so() {
    let other_port = SLICE.replace("12003", "2004");
    for (manifests, reason, message) in [
        (
            vec![RELAY, SERVED, ALL],
            Reason::ServiceNotFound,
            "spec.carbon.service.name: Service d/g does not exist, or must not be read: create it; until then lines wait",
        ),
        (
            vec![RELAY, SERVED, ALL, &other_port],
            Reason::InvalidService,
            "spec.carbon.service.port: Service d/g has no port 12003: it has 2004; until then lines wait",
        ),
    ] {
        let compiled = apply(&manifests);
        assert_eq!(
            carbon_of(&compiled).members,
            Some(relay_proto::Members::default())
        );
        let verdict = &compiled.verdicts[&Key::new(Kind::Destination, "d", "graphite")];
        assert!(verdict.accepted.is_true());
        assert_eq!(verdict.resolved_refs.reason, reason);
        assert_eq!(verdict.resolved_refs.text(), message);
        let route = &compiled.verdicts[&Key::new(Kind::Route, "d", "all")];
        assert!(route.failure().is_none(), "{route:?}");
    }
}

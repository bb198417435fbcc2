//! What one bad object does: to itself, to the others, and how all is well again.

use std::net::TcpListener;

use harness::{
    RelayProcess, Sender, Sink, aggregator, blocklist, carbon, destination, object, relay,
    rewriter, route,
};

use crate::installation::{Condition, Installation, PODS};

fn condition(status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
    }
}

#[test]
fn a_bad_route_is_left_out_says_why_and_hurts_nobody_else() {
    let Some(installation) = Installation::new("bad-routes") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut relays = installation.start_relays();
    let sink = Sink::open();
    kubectl.apply(
        &[
            relay("", ""),
            carbon("sink", sink.address(), ""),
            route(
                "good",
                "match: {prefix: good.}, destinations: [{name: sink}]",
            ),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    let good_before = kubectl.get(&["route", "good"]);

    kubectl.apply(
        &[
            route(
                "pattern",
                "match: {regex: \"web.(\"}, destinations: [{name: sink}]",
            ),
            route(
                "target",
                "match: {prefix: gone.}, destinations: [{name: sink}, {name: gone}]",
            ),
            route(
                "orphan",
                "relayRefs: [{name: core}], destinations: [{name: sink}]",
            ),
            rewriter("group", "{name: a, regex: \"(x)\", with: $1y}"),
            aggregator(
                "group",
                "match: {regex: \"^raw[.]\"}, functions: [Sum], output: total.$1, interval: 1s, wait: 1s",
            ),
            destination("tiny", "file: {path: /tmp/x}, queue: {maxBytes: 1Ki}"),
            route(
                "tiny",
                "match: {prefix: tiny.}, destinations: [{name: tiny}]",
            ),
        ]
        .join("---\n"),
    );
    let accepted = installation.wait_for_reason("route/pattern", "Accepted", "InvalidPattern");
    assert_eq!(accepted.status, "False");
    assert!(
        accepted.message.starts_with("spec.match.regex: "),
        "{}",
        accepted.message
    );
    assert!(
        accepted.message.contains("unclosed group"),
        "{}",
        accepted.message
    );
    let ready = installation.condition("route/pattern", "Ready");
    assert_eq!(
        (&ready.status, &ready.reason),
        (&accepted.status, &accepted.reason)
    );
    assert_eq!(
        installation.condition("route/pattern", "Stalled").status,
        "True"
    );

    let resolved =
        installation.wait_for_reason("route/target", "ResolvedRefs", "DestinationNotFound");
    let message = "spec.destinations[1].name: Destination bad-routes/gone does not exist, so the whole route is left \
                   out: create it, or name another";
    assert_eq!(resolved, condition("False", "DestinationNotFound", message));
    let target = kubectl.get(&["route", "target"]);
    assert_eq!(
        Condition::of(&target, "Stalled"),
        None,
        "what it names may come"
    );

    let orphan = installation.wait_for_reason("route/orphan", "Accepted", "NoMatchingRelay");
    assert!(
        orphan
            .message
            .contains("Relay bad-routes/core does not exist"),
        "{}",
        orphan.message
    );
    for (object, field) in [
        ("rewriter/group", "spec.rules[0].with: "),
        ("aggregator/group", "spec.output: "),
    ] {
        let accepted = installation.wait_for_reason(object, "Accepted", "InvalidPattern");
        assert!(
            accepted.message.starts_with(field),
            "{object}: {}",
            accepted.message
        );
    }
    let tiny = installation.wait_for_reason("destination/tiny", "Accepted", "UnsupportedValue");
    assert!(
        tiny.message.starts_with("spec.queue.maxBytes: "),
        "{}",
        tiny.message
    );
    installation.wait_for_reason("route/tiny", "ResolvedRefs", "DestinationNotAccepted");

    assert_eq!(kubectl.get(&["route", "good"]), good_before);
    for relay in &relays {
        Sender::deliver(
            relay.address(),
            "good.a 1 1700000000\ngone.a 1 1700000000\n",
        );
        relay.settle(2);
    }
    assert_eq!(sink.wait_for_lines(2), ["good.a 1 1700000000"; 2]);

    kubectl.apply(
        &[
            route(
                "pattern",
                "match: {regex: \"^web\"}, destinations: [{name: sink}]",
            ),
            carbon("gone", sink.address(), ""),
            relay("", "")
                .replace("edge", "core")
                .replace("\"true\"", "\"false\""),
            destination("tiny", "file: {path: /tmp/x}, queue: {maxBytes: 64Ki}"),
        ]
        .join("---\n"),
    );
    for mended in [
        "route/pattern",
        "route/target",
        "destination/tiny",
        "route/tiny",
    ] {
        installation.wait_until_ready(&[mended]);
    }
    // that Relay has no pods
    installation.wait_for_reason("route/orphan", "Ready", "NoRelays");
    let pattern = kubectl.get(&["route", "pattern"]);
    assert_eq!(Condition::of(&pattern, "Stalled"), None);
}

#[test]
fn whatever_is_deleted_and_made_again_converges() {
    let Some(installation) = Installation::new("bad-deleted") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut relays = installation.start_relays();
    let sink = Sink::open();
    let objects = [
        ("relay/edge", relay("", "")),
        ("destination/sink", carbon("sink", sink.address(), "")),
        ("route/all", route("all", "destinations: [{name: sink}]")),
        ("blocklist/junk", blocklist("junk", "{prefix: junk.}")),
        (
            "rewriter/names",
            rewriter("names", "{name: dc, literal: dc1., with: ams.}"),
        ),
        (
            "aggregator/totals",
            aggregator(
                "totals",
                "match: {regex: \"^raw[.](.*)\"}, functions: [Sum], output: total.$1, interval: 1s, wait: 1s",
            ),
        ),
    ];
    let manifests: Vec<_> = objects.iter().map(|(_, yaml)| yaml.clone()).collect();
    kubectl.apply(&manifests.join("---\n"));
    installation.wait_until_ready(&["carbonway", "--all"]);
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    let mut expected = 0;
    for (object, yaml) in &objects {
        kubectl.run(&["delete", object]);
        // what depends on it says so
        match *object {
            "relay/edge" => {
                for orphan in [
                    "route/all",
                    "blocklist/junk",
                    "rewriter/names",
                    "aggregator/totals",
                ] {
                    installation.wait_for_reason(orphan, "Accepted", "NoMatchingRelay");
                }
            }
            "destination/sink" => {
                installation.wait_for_reason("route/all", "Ready", "DestinationNotFound");
            }
            "route/all" => {
                installation.wait_for_reason("destination/sink", "Programmed", "NotReferenced");
            }
            _ => {}
        }
        kubectl.apply(yaml);
        installation.wait_until_ready(&["carbonway", "--all"]);
        for relay in &relays {
            Sender::deliver(relay.address(), "junk.a 1 1700000000\nweb.a 1 1700000000\n");
            expected += 1;
        }
        sink.wait_for_lines(expected);
    }
    kubectl.run(&["delete", "carbonway", "--all"]);
    kubectl.apply(&manifests.join("---\n"));
    installation.wait_until_ready(&["carbonway", "--all"]);
    for relay in &relays {
        Sender::deliver(relay.address(), "junk.a 1 1700000000\nweb.a 1 1700000000\n");
        relay.settle(2 * objects.len() as u64 + 2);
    }
    assert_eq!(
        sink.wait_for_lines(expected + 2),
        vec!["web.a 1 1700000000"; expected + 2]
    );
}

#[test]
fn what_one_relay_pod_refuses_is_said_where_it_was_caused_and_nothing_else_suffers() {
    let Some(installation) = Installation::new("bad-refused") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut relays = installation.start_relays();
    let sink = Sink::open();
    kubectl.apply(
        &[
            relay("", ""),
            carbon("sink", sink.address(), ""),
            route("all", "destinations: [{name: sink}]"),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    let route_before = kubectl.get(&["route", "all"]);

    // somebody else has the port, on the second pod alone
    let taken = TcpListener::bind((relays[1].address().ip(), 2103)).unwrap();
    let plain = "{name: plain, port: 2003, plaintext: {}}";
    let more = "{name: more, port: 2103, plaintext: {}}";
    let spec = format!("listeners: [{plain}, {more}]");
    let two = object("Relay", "edge", &spec).replace(
        "{name: edge}",
        "{name: edge, labels: {carbonway.io/default: \"true\"}}",
    );
    kubectl.apply(&two);
    let rejected = installation.wait_for_reason("relay/edge", "Programmed", "Rejected");
    assert_eq!(rejected.status, "False");
    for fragment in [PODS[1], "spec.listeners[more].port"] {
        assert!(rejected.message.contains(fragment), "{}", rejected.message);
    }
    assert_eq!(
        installation.condition("relay/edge", "Stalled").status,
        "True"
    );
    assert_eq!(kubectl.get(&["route", "all"]), route_before);
    for relay in &relays {
        Sender::deliver(relay.address(), "web.a 1 1700000000\n");
    }
    sink.wait_for_lines(2);

    drop(taken);
    kubectl.apply(&two.replace("2103", "2203"));
    installation.wait_until_ready(&["relay/edge"]);
    for relay in &relays {
        Sender::deliver((relay.address().ip(), 2203).into(), "web.b 1 1700000000\n");
    }
    sink.wait_for_lines(4);
}

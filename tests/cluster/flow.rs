//! From `kubectl apply` to lines on the wire, through two relay processes.

use std::path::Path;

use harness::{
    DEADLINE, RelayProcess, Sender, Sink, aggregator, blocklist, carbon, eventually, relay,
    rewriter, route,
};
use serde_json::{Value, json};

use crate::installation::{Condition, Installation};

// A line with another name each time, so that nothing passes for something else.
fn send(relays: &[RelayProcess], name: &str) {
    for relay in relays {
        Sender::deliver(relay.address(), format!("{name} 1 1700000000\n"));
    }
}

#[test]
fn the_quickstart_becomes_ready_and_lines_flow_through_both_relays() {
    let Some(installation) = Installation::new("flow-quickstart") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut relays = installation.start_relays();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/quickstart");
    kubectl.run(&["apply", "--filename", &quickstart.to_string_lossy()]);
    installation.wait_until_ready(&["routes.carbonway.io", "--all"]);
    installation.wait_until_ready(&["carbonway", "--all"]);
    for object in [
        "relay/edge",
        "destination/stdout",
        "route/everything",
        "blocklist/junk",
        "rewriter/datacentres",
        "aggregator/totals",
    ] {
        let ready = Condition {
            status: "True".into(),
            reason: "Ready".into(),
            message: "active on 2/2 relay pods".into(),
        };
        assert_eq!(installation.condition(object, "Ready"), ready, "{object}");
    }
    for (object, row) in [
        ("route/everything", "everything True Ready 2/2 0 stdout"),
        ("rewriter/datacentres", "datacentres True Ready 2/2 0 dc1"),
        (
            "aggregator/totals",
            "totals True Ready 2/2 [\"Sum\"] 10s total.$1",
        ),
    ] {
        let table = kubectl.run(&["get", object, "--no-headers"]);
        let columns: Vec<_> = table.split_whitespace().collect();
        // but for the age
        assert_eq!(columns[..columns.len() - 1].join(" "), row);
    }

    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    send(&relays, "junk.anything");
    send(&relays, "servers.web1.cpu");
    for relay in &relays {
        let lines = eventually(DEADLINE, "the line on standard output", || {
            match relay.process.stdout() {
                lines if lines.is_empty() => Err("no line".into()),
                lines => Ok(lines),
            }
        });
        assert_eq!(lines, ["servers.web1.cpu 1 1700000000"]);
        relay.settle(2);
    }
}

#[test]
fn a_changed_route_sends_lines_elsewhere_and_its_neighbours_are_left_alone() {
    let Some(installation) = Installation::new("flow-change") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut relays = installation.start_relays();
    let [old, new, other] = [Sink::open(), Sink::open(), Sink::open()];
    let routes = |web: &str| {
        [
            route(
                "web",
                &format!("match: {{prefix: web.}}, destinations: [{{name: {web}}}]"),
            ),
            route("db", "match: {prefix: db.}, destinations: [{name: other}]"),
        ]
        .join("---\n")
    };
    kubectl.apply(
        &[
            relay("", ""),
            carbon("old", old.address(), ""),
            carbon("new", new.address(), ""),
            carbon("other", other.address(), ""),
            blocklist("junk", "{prefix: junk.}"),
            // so that all three destinations are in use, and stay so
            route(
                "rest",
                "match: {prefix: rest.}, destinations: [{name: old}, {name: new}]",
            ),
            routes("old"),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    send(&relays, "web.before");
    old.wait_for_lines(2);

    let neighbours = [
        "route/db",
        "route/rest",
        "destination/old",
        "destination/new",
        "blocklist/junk",
    ];
    let version = |object: &&str| kubectl.get(&[object])["metadata"]["resourceVersion"].clone();
    let before = neighbours.each_ref().map(version);
    kubectl.apply(&routes("new"));
    installation.wait_until_ready(&["route/web"]);
    send(&relays, "web.after");
    send(&relays, "db.after");
    assert_eq!(new.wait_for_lines(2), ["web.after 1 1700000000"; 2]);
    assert_eq!(other.wait_for_lines(2), ["db.after 1 1700000000"; 2]);
    assert_eq!(old.lines(), ["web.before 1 1700000000"; 2]);
    // the Relay tells of the new snapshot; when it has, all that was to be written was
    installation.wait_until_ready(&["relay/edge"]);
    assert_eq!(neighbours.each_ref().map(version), before, "{neighbours:?}");
}

#[test]
fn rewriters_and_aggregators_become_ready_and_ready_again_when_they_are_changed() {
    let Some(installation) = Installation::new("flow-rewritten") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let mut relays = installation.start_relays();
    let sink = Sink::open();
    let rules = |with: &str| {
        rewriter(
            "names",
            &format!("{{name: dc, literal: dc1., with: {with}}}"),
        )
    };
    let totals = |interval: &str| {
        let spec = "match: {regex: \"^raw[.](.*)\"}, functions: [Sum], output: total.$1, wait: 1m";
        aggregator("totals", &format!("{spec}, interval: {interval}"))
    };
    kubectl.apply(
        &[
            relay("", ""),
            carbon("sink", sink.address(), ""),
            route("all", "destinations: [{name: sink}]"),
            rules("ams."),
            totals("10s"),
        ]
        .join("---\n"),
    );
    installation.wait_until_ready(&["carbonway", "--all"]);
    let generation = |object: &str| {
        let object = kubectl.get(&[object]);
        let programmed = Condition::of(&object, "Programmed").expect("a condition");
        assert_eq!(programmed.message, "active on 2/2 relay pods");
        object["status"]["observedGeneration"].clone()
    };
    let objects = ["route/all", "rewriter/names", "aggregator/totals"];
    assert_eq!(objects.map(generation), [1, 1, 1]);
    relays.iter_mut().for_each(RelayProcess::wait_until_ready);
    send(&relays, "dc1.web");
    assert_eq!(sink.wait_for_lines(2), ["ams.web 1 1700000000"; 2]);
    kubectl.apply(&[rules("fra."), totals("20s")].join("---\n"));
    installation.wait_until_ready(&["carbonway", "--all"]);
    assert_eq!(objects.map(generation), [1, 2, 2]);
    send(&relays, "dc1.web");
    let mut lines = sink.wait_for_lines(4); // connection by connection
    lines.sort();
    assert_eq!(lines[2..], ["fra.web 1 1700000000"; 2]);
}

#[test]
fn an_event_tells_of_every_change_of_ready() {
    let Some(installation) = Installation::new("flow-events") else {
        return;
    };
    let kubectl = &installation.kubectl;
    let _relays = installation.start_relays();
    let sink = Sink::open();
    kubectl.apply(&[relay("", ""), carbon("sink", sink.address(), "")].join("---\n"));
    let versions = [
        ("destinations: [{name: sink}]", "Ready", "Normal"),
        (
            "match: {regex: \"(\"}, destinations: [{name: sink}]",
            "InvalidPattern",
            "Warning",
        ),
        (
            "match: {regex: \"a\"}, destinations: [{name: gone}]",
            "DestinationNotFound",
            "Warning",
        ),
        (
            "match: {regex: \"a\"}, destinations: [{name: sink}]",
            "Ready",
            "Normal",
        ),
    ];
    let mut told = Vec::new();
    for (spec, reason, kind) in versions {
        kubectl.apply(&route("web", spec));
        installation.wait_for_reason("route/web", "Ready", reason);
        told.push((json!(kind), json!(reason)));
        // one by one: events have no order
        eventually(DEADLINE, "the event", || {
            let events = events(&installation, "web");
            if events.len() < told.len() {
                Err(format!("{events:?}"))
            } else {
                Ok(())
            }
        });
    }
    let mut found: Vec<_> = events(&installation, "web")
        .iter()
        .map(|event| (event["type"].clone(), event["reason"].clone()))
        .collect();
    let sort = |events: &mut Vec<(Value, Value)>| events.sort_by_key(|event| format!("{event:?}"));
    sort(&mut found);
    sort(&mut told);
    assert_eq!(found, told);
    let note = |reason: &str| {
        let events = events(&installation, "web");
        let event = events.iter().find(|event| event["reason"] == reason);
        event
            .map(|event| event["note"].to_string())
            .unwrap_or_default()
    };
    assert!(
        note("InvalidPattern").contains("spec.match.regex"),
        "{}",
        note("InvalidPattern")
    );
    assert!(
        note("Ready").contains("active on 2/2 relay pods"),
        "{}",
        note("Ready")
    );
}

// The events about a Route, repeats counted each.
fn events(installation: &Installation, route: &str) -> Vec<Value> {
    let list = installation.kubectl.get(&["events.events.k8s.io"]);
    let events = list["items"].as_array().expect("kubectl gives a list");
    let about = |event: &&Value| {
        event["regarding"]["kind"] == "Route" && event["regarding"]["name"] == route
    };
    let repeat = |event: &Value| {
        let count = event["series"]["count"].as_u64().unwrap_or(1);
        vec![event.clone(); count as usize]
    };
    events.iter().filter(about).flat_map(repeat).collect()
}

//! How destinations stand, as a relay tells it: in metrics, at `/destinations`, and to its operator.

use std::fs;

use harness::{
    DEADLINE, Directory, Fleet, Operator, RelayProcess, Sender, Sink, SnapshotBuilder, carbon,
    eventually, relay, route,
};
use relay_proto::{DestinationState, Report, Spool, WhenFull};
use serde_json::{Value, json};

use crate::relay_to;

// A metric of the destination `a`.
fn metric(relay: &RelayProcess, name: &str) -> Option<f64> {
    let name = format!("carbonway_destination_{name}");
    relay.metrics().get(&name, &[("destination", "default/a")])
}

#[track_caller]
fn wait_for_destination(relay: &RelayProcess, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(DEADLINE, what, || {
        let a = relay.json("/destinations")["destinations"][0].clone();
        match is_so(&a) {
            true => Ok(a),
            false => Err(a.to_string()),
        }
    })
}

#[test]
fn without_a_cluster_what_a_status_would_say_is_logged_when_it_changes() {
    let mut sink = Sink::absent();
    let (relay, _directory) = relay_to(&sink, "");
    let said = [
        "degraded",
        "Destination default/a",
        "NotConnected",
        "refused",
    ];
    relay.process.wait_for_stderr(DEADLINE, 0, &said);
    let degraded = || {
        let conditions = relay.json("/conditions");
        let objects = conditions.as_array().unwrap().iter();
        let of_objects = objects.flat_map(|object| object["conditions"].as_array().unwrap());
        of_objects.filter(|one| one["type"] == "Degraded").count()
    };
    assert_eq!(degraded(), 1);
    sink.reopen();
    let over = ["no longer degraded", "Destination default/a"];
    relay.process.wait_for_stderr(DEADLINE, 0, &over);
    assert_eq!(degraded(), 0);
}

#[test]
fn a_destination_that_goes_and_comes_back_is_told_with_what_went_wrong() {
    let mut sink = Sink::absent();
    let (relay, _directory) = relay_to(&sink, "");
    let down = wait_for_destination(&relay, "a to be down", |a| a["state"] == "down");
    let why = down["lastError"]["message"].as_str().unwrap();
    assert!(why.contains("refused"), "{down}");
    assert!(down["lastError"]["time"].as_u64() > Some(1_700_000_000));
    assert_eq!(down["endpoint"], sink.address().to_string());
    assert!(metric(&relay, "connect_failures_total") >= Some(1.0));
    assert_eq!(metric(&relay, "connects_total"), Some(0.0));

    sink.reopen();
    let line = "a.b 1 1700000000\n";
    Sender::deliver(relay.address(), line);
    sink.wait_for_lines(1);
    let up = wait_for_destination(&relay, "the line to be counted", |a| {
        a["state"] == "connected" && a["lines"]["sent"] == 1
    });
    assert_eq!(up["connections"]["made"], 1);
    assert_eq!(up["lastError"]["message"], why);
    assert_eq!(metric(&relay, "bytes_sent_total"), Some(line.len() as f64));
    assert_eq!(metric(&relay, "queue_max_bytes"), Some(f64::from(64 << 20)));
    assert_eq!(metric(&relay, "spool_max_bytes"), Some(10_737_418_240.0));

    sink.close();
    let broken = wait_for_destination(&relay, "a to be down again", |a| a["state"] == "down");
    assert_eq!(broken["connections"]["broken"], 1);
    assert_eq!(metric(&relay, "connections_broken_total"), Some(1.0));
}

#[test]
fn a_destination_that_does_not_read_is_slow_and_has_bytes_under_way() {
    let sink = Sink::stuck();
    let directory = Directory::of([
        relay("", ""),
        carbon(
            "a",
            sink.address(),
            "queue: {maxBytes: 1Mi, whenFull: Block},",
        ),
        route("all", "destinations: [{name: a}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    relay.wait_for_connected("a", true);
    let mut sender = Sender::connect(relay.address());
    let stalled = sender.send_until_stalled("load.a", 64 << 20);
    let slow = wait_for_destination(&relay, "a to be slow", |a| a["state"] == "slow");
    assert!(
        slow["connections"]["unacknowledgedBytes"].as_u64() > Some(0),
        "{slow}"
    );
    assert!(metric(&relay, "unacknowledged_bytes") > Some(0.0));
    assert_eq!(metric(&relay, "connected"), Some(1.0));

    sink.resume();
    sender.send(&stalled.rest);
    relay.settle(stalled.begun);
    wait_for_destination(&relay, "all to have arrived", |a| {
        a["state"] == "connected" && a["connections"]["unacknowledgedBytes"] == 0
    });
}

fn start(operator: &Operator, state: &Directory) -> RelayProcess {
    RelayProcess::start_in(Fleet {
        operator: operator.address(),
        relay: "default/edge",
        pod: "edge-0",
        state: state.path(),
        credentials: None,
    })
}

fn state_of(report: &Report, name: &str) -> Option<DestinationState> {
    let mut destinations = report.destinations.iter();
    let named = |source: &relay_proto::ObjectRef| source.name == name;
    let found = destinations.find(|destination| destination.source.as_ref().is_some_and(named));
    found.map(|destination| destination.state())
}

#[test]
fn a_relay_tells_its_operator_how_its_destinations_stand_and_when_it_has_nothing_left() {
    let (mut operator, state, mut sink) = (Operator::start(), Directory::of([]), Sink::open());
    let snapshot = SnapshotBuilder::new()
        .carbon("a", sink.address())
        .route("all", "", "a");
    let mut snapshot = snapshot.build();
    let a = &mut snapshot.destinations[0];
    a.spool = Some(Spool {
        bytes_max: 1 << 20,
        sync_interval_ms: 50,
        ..Spool::default()
    });
    let queue = a.queue.as_mut().unwrap();
    queue.set_when_full(WhenFull::Spool);
    operator.publish(&snapshot);
    let mut relay = start(&operator, &state);
    relay.wait_until_ready();
    let is = |expected| move |report: &Report| state_of(report, "a") == Some(expected);
    operator.wait_for_report("a to be connected", is(DestinationState::Connected));
    sink.close();
    let down = operator.wait_for_report("a to be down", is(DestinationState::Down));
    let error = &down.destinations[0].error;
    assert!(
        error.contains("refused") || error.contains("closed by the peer"),
        "{down:?}"
    );

    Sender::deliver(relay.address(), "load.a 1 1\nload.a 2 1\n");
    let waiting = operator.wait_for_report("lines to wait for a while", |report| {
        report.spooled_lines == 2 && report.destinations[0].oldest_seconds >= 10
    });
    assert!(!waiting.drained, "{waiting:?}");
    // A new stream begins with how things stand.
    operator.go_away();
    let before = operator.heard().reports.len();
    operator.come_back();
    operator.wait_for_hellos(2);
    operator.wait_for_report("a report on the new stream", |report| {
        operator.heard().reports.len() > before && report.spooled_lines == 2
    });

    sink.reopen();
    operator.wait_for_report("a to be connected again", is(DestinationState::Connected));
    let drained = operator.wait_for_report("nothing to be left", |report| report.drained);
    assert_eq!((drained.spooled_lines, drained.spooled_bytes), (0, 0));
    assert_eq!(drained.destinations[0].error, "");
    assert_eq!(sink.wait_for_lines(2), ["load.a 1 1", "load.a 2 1"]);
}

#[test]
fn lines_on_disk_for_a_destination_that_is_gone_are_told_of_and_go_when_it_is_back() {
    let (mut sink, other) = (Sink::absent(), Sink::open());
    let state = Directory::of([]);
    let with = |name: &str, sink: &Sink| {
        [
            relay("", ""),
            carbon(name, sink.address(), "spool: {sync: {interval: 50ms}},"),
            route("all", &format!("destinations: [{{name: {name}}}]")),
        ]
        .join("---\n")
    };
    let directory = Directory::of([]);
    directory.write("resources.yaml", &with("a", &sink));
    let relay = RelayProcess::run_with_state(&directory, state.path());
    Sender::deliver(relay.address(), "load.a 1 1\nload.a 2 1\n");
    wait_for_destination(&relay, "the lines to be on disk", |a| {
        a["spool"]["lines"] == 2 && a["queue"]["lines"] == 0
    });
    let orphans = || relay.metrics().get("carbonway_orphaned_spools", &[]);
    assert_eq!(orphans(), Some(0.0));

    directory.write("resources.yaml", &with("b", &other));
    eventually(DEADLINE, "the spool to be found", || match orphans() {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let bytes = relay.metrics().get("carbonway_orphaned_spools_bytes", &[]);
    let orphan = json!({
        "destination": "default/a",
        "id": "default/a",
        "directory": "default%2Fa",
        "bytes": bytes.unwrap() as u64,
        "lines": 2,
    });
    assert!(bytes > Some(0.0));
    assert_eq!(
        relay.json("/destinations")["orphanedSpools"],
        json!([orphan])
    );
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["WARN", "default/a", "gone"]);
    let note = fs::read_to_string(state.file("spools/default%2Fa/owner")).unwrap();
    assert_eq!(note, "destination: default/a\nidentity: default/a\n");

    sink.reopen();
    directory.write("resources.yaml", &with("a", &sink));
    assert_eq!(sink.wait_for_lines(2), ["load.a 1 1", "load.a 2 1"]);
    eventually(DEADLINE, "no spool to be without", || match orphans() {
        Some(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

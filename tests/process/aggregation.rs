//! Many series into few: what comes out, what is kept over a restart, and what is counted.

use std::path::Path;

use harness::{
    DEADLINE, Directory, RelayProcess, Sender, Signal, Sink, aggregator, carbon, eventually, relay,
    route, unix_seconds,
};

use crate::counts;

// Points of hosts, summed and counted by what they are of, in buckets of a second that are sent when they end.
const BY_KIND: &str = "match: {regex: '^raw\\.(.*)\\.h[0-9]+$'}, functions: [Sum, Count], output: agg.$1, \
                       interval: 1s, wait: 1s, dropRaw: true";

fn directory(sink: &Sink, spec: &str) -> Directory {
    Directory::of([
        relay("", ""),
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
        aggregator("by-kind", spec),
    ])
}

// So many points, each of a host of its own with the value 1, measured at `at`.
fn points(count: u64, at: u64) -> String {
    (0..count)
        .map(|host| format!("raw.x.h{host} 1 {at}\n"))
        .collect()
}

// The lines of aggregates, sorted: which bucket's comes first is not promised.
fn aggregates(sink: &Sink, count: usize) -> Vec<String> {
    let mut lines = sink.wait_for_lines(count);
    lines.sort();
    lines
}

fn points_by_fate(relay: &RelayProcess) -> std::collections::BTreeMap<String, u64> {
    let of_it = |labels: &std::collections::BTreeMap<String, String>| {
        labels["aggregator"] == "default/by-kind"
    };
    let metrics = relay.metrics();
    metrics.counts_by("carbonway_aggregator_points_total", "fate", of_it)
}

#[test]
fn points_of_all_connections_come_out_as_one_value() {
    let sink = Sink::open();
    let directory = directory(&sink, BY_KIND);
    let relay = RelayProcess::run(&directory);
    // Far enough ahead for all of them to come in before it is due.
    let at = unix_seconds() + 3;
    let mut senders: Vec<Sender> = (0..4).map(|_| Sender::connect(relay.address())).collect();
    for sender in &mut senders {
        sender.send(points(1000, at));
    }
    senders.into_iter().for_each(Sender::close);
    assert_eq!(
        aggregates(&sink, 2),
        [
            format!("agg.x.count 4000 {at}"),
            format!("agg.x.sum 4000 {at}")
        ]
    );
    let accounts = relay.settle(4000);
    assert_eq!((accounts.forwarded, accounts.absorbed), (0, 4000));
    assert_eq!(points_by_fate(&relay), counts([("taken", 4000)]));
    assert_eq!(
        relay
            .metrics()
            .count("carbonway_aggregates_forwarded_total"),
        2
    );
    assert_eq!(sink.line_count(), 2);
}

#[test]
fn late_and_early_points_are_counted_and_dropped_only_where_the_raw_ones_are() {
    let sink = Sink::open();
    let kept = BY_KIND.replace("dropRaw: true", "dropRaw: false");
    let directory = directory(&sink, &kept);
    let relay = RelayProcess::run(&directory);
    let late = "raw.x.h1 1 1000000000\n";
    let early = format!("raw.x.h1 1 {}\n", unix_seconds() + 7200);
    Sender::deliver(relay.address(), late.to_owned() + &early);
    assert_eq!(
        sink.wait_for_lines(2).concat(),
        (late.to_owned() + &early).replace('\n', "")
    );
    let accounts = relay.settle(2);
    assert_eq!((accounts.forwarded, accounts.absorbed), (2, 0));
    eventually(DEADLINE, "points to be counted", || {
        let fates = points_by_fate(&relay);
        match fates == counts([("past", 1), ("future", 1)]) {
            true => Ok(()),
            false => Err(format!("{fates:?}")),
        }
    });

    directory.write(
        "resources.yaml",
        &[
            harness::relay("", ""),
            carbon("a", sink.address(), ""),
            route("all", "destinations: [{name: a}]"),
            aggregator("by-kind", BY_KIND),
        ]
        .join("---\n"),
    );
    eventually(DEADLINE, "raw lines to be dropped", || {
        let explained = relay.json("/explain?line=raw.x.h1+1+1000000000");
        match explained["reason"] == "aggregate_past" {
            true => Ok(()),
            false => Err(explained.to_string()),
        }
    });
    Sender::deliver(relay.address(), late.to_owned() + &early);
    let dropped = relay.dropped(4);
    assert_eq!(
        dropped,
        counts([("aggregate_past", 1), ("aggregate_future", 1)])
    );
}

#[test]
fn what_aggregators_give_goes_to_routes_only() {
    let sink = Sink::open();
    // What it gives is what it takes, so it would feed itself for ever.
    let directory = directory(
        &sink,
        "match: {regex: '^(raw.*)$'}, functions: [Sum], output: $1, interval: 1s, wait: 1s, dropRaw: true",
    );
    let relay = RelayProcess::run(&directory);
    let at = unix_seconds() + 2;
    Sender::deliver(relay.address(), format!("raw.a 2 {at}\nraw.a 3 {at}\n"));
    assert_eq!(sink.wait_for_lines(1), [format!("raw.a 5 {at}")]);
    // The next bucket, when all of the first have come out.
    let at = unix_seconds() + 2;
    Sender::deliver(relay.address(), format!("raw.a 7 {at}\n"));
    assert_eq!(sink.wait_for_lines(2)[1], format!("raw.a 7 {at}"));
    assert_eq!(relay.settle(3).absorbed, 3);
}

#[test]
fn open_buckets_outlive_a_restart() {
    let sink = Sink::open();
    let directory = directory(&sink, BY_KIND);
    let state = Directory::of([]);
    let mut relay = RelayProcess::run_with_state(&directory, state.path());
    let at = unix_seconds() + 5;
    Sender::deliver(relay.address(), points(100, at));
    relay.settle(100);
    relay.process.signal(Signal::TERM);
    assert!(relay.process.wait(DEADLINE).success());
    assert!(is_there(&state, "aggregates"));

    let relay = RelayProcess::run_with_state(&directory, state.path());
    assert!(!is_there(&state, "aggregates"));
    Sender::deliver(relay.address(), points(11, at));
    assert_eq!(
        aggregates(&sink, 2),
        [
            format!("agg.x.count 111 {at}"),
            format!("agg.x.sum 111 {at}")
        ]
    );
}

#[test]
fn without_a_place_to_keep_them_open_buckets_are_sent_at_the_end() {
    let sink = Sink::open();
    let directory = directory(&sink, BY_KIND);
    let mut relay = RelayProcess::run(&directory);
    let at = unix_seconds() + 600;
    Sender::deliver(relay.address(), points(100, at));
    relay.settle(100);
    relay.process.signal(Signal::TERM);
    assert!(relay.process.wait(DEADLINE).success());
    assert_eq!(
        aggregates(&sink, 2),
        [
            format!("agg.x.count 100 {at}"),
            format!("agg.x.sum 100 {at}")
        ]
    );
}

#[test]
fn a_damaged_file_of_buckets_is_put_aside_and_the_relay_runs() {
    let sink = Sink::open();
    let directory = directory(&sink, BY_KIND);
    let state = Directory::of([]);
    state.write("aggregates", "nonsense");
    let relay = RelayProcess::run_with_state(&directory, state.path());
    assert!(is_there(&state, "aggregates.damaged") && !is_there(&state, "aggregates"));
    Sender::deliver(relay.address(), "other 1 2\n");
    assert_eq!(sink.wait_for_lines(1), ["other 1 2"]);
}

#[test]
fn buckets_of_an_aggregator_that_goes_are_sent_at_once() {
    let sink = Sink::open();
    let directory = directory(&sink, BY_KIND);
    let relay = RelayProcess::run(&directory);
    let at = unix_seconds() + 600;
    Sender::deliver(relay.address(), points(3, at));
    relay.settle(3);
    directory.write(
        "resources.yaml",
        &[
            harness::relay("", ""),
            carbon("a", sink.address(), ""),
            route("all", "destinations: [{name: a}]"),
        ]
        .join("---\n"),
    );
    assert_eq!(
        aggregates(&sink, 2),
        [format!("agg.x.count 3 {at}"), format!("agg.x.sum 3 {at}")]
    );
}

fn is_there(directory: &Directory, name: &str) -> bool {
    Path::new(&directory.file(name)).exists()
}

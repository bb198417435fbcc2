//! What waits on disk: for destinations that are slow or away, over restarts and crashes of the relay.

use std::collections::BTreeSet;
use std::path::Path;

use harness::{
    DEADLINE, DestinationAccounts, Directory, RelayProcess, Sender, Signal, Sink, destination,
    eventually, relay, route,
};

// A relay that takes every line to each of these sinks, `a`, `b` and so on.
fn directory(sinks: &[&Sink], spec: &str) -> Directory {
    let directory = Directory::of([relay("", "")]);
    let names: Vec<String> = ('a'..).take(sinks.len()).map(String::from).collect();
    let mut objects = Vec::new();
    for (name, sink) in names.iter().zip(sinks) {
        // However slow the machine is, a sink that is stuck for a while is not given up.
        let carbon = format!(
            "carbon: {{address: \"{}\", writeTimeout: 10m}}",
            sink.address()
        );
        objects.push(destination(name, &format!("{spec} {carbon}")));
        objects.push(route(name, &format!("destinations: [{{name: {name}}}]")));
    }
    directory.write("more.yaml", &objects.join("---\n"));
    directory
}

fn run(directory: &Directory, state: &Directory) -> RelayProcess {
    RelayProcess::run_with_state(directory, state.path())
}

#[track_caller]
fn wait_for(
    relay: &RelayProcess,
    what: &str,
    mut is_so: impl FnMut(&DestinationAccounts) -> bool,
) -> DestinationAccounts {
    eventually(DEADLINE, what, || {
        let accounts = relay.accounts();
        accounts.balance()?;
        let a = accounts.destination("a");
        match is_so(&a) {
            true => Ok(a),
            false => Err(format!("{a:?}")),
        }
    })
}

// That a sink has every number, in whatever order.
#[track_caller]
fn assert_has_all(sink: &Sink, count: u64) {
    let values = sink.values();
    let distinct: BTreeSet<u64> = values["load.a"].iter().copied().collect();
    assert_eq!(distinct.len() as u64, count);
}

#[test]
fn lines_for_a_destination_that_is_away_outlive_a_crash_of_the_relay() {
    let mut sink = Sink::absent();
    let (directory, state) = (directory(&[&sink], ""), Directory::of([]));
    let mut relay = run(&directory, &state);
    let mut sender = Sender::connect(relay.address());
    sender.send_numbers("load.a", 0, 50_000);
    wait_for(&relay, "the lines to be on disk", |a| {
        a.spooled == 50_000 && a.queued == 0
    });
    // One sync later they outlive anything.
    let synced = std::time::Instant::now() + std::time::Duration::from_millis(1500);
    eventually(DEADLINE, "a sync", || match std::time::Instant::now() {
        now if now >= synced => Ok(()),
        _ => Err("not yet".to_owned()),
    });
    relay.process.kill();

    let relay = run(&directory, &state);
    let found = wait_for(&relay, "the lines to be found", |a| a.recovered > 0);
    assert_eq!(found.recovered, 50_000);
    sink.reopen();
    sink.wait_for_lines(50_000);
    assert_eq!(sink.values()["load.a"], (0..50_000).collect::<Vec<_>>());
    wait_for(&relay, "the spool to be empty", |a| {
        a.spooled == 0 && a.sent == 50_000
    });
}

// `lines` are far more than the queue and the kernels hold.
fn nobody_notices_a_slow_destination(queue: &str, lines: u64) {
    let (slow, fast) = (Sink::stuck(), Sink::open());
    let (directory, state) = (directory(&[&slow, &fast], queue), Directory::of([]));
    let relay = run(&directory, &state);
    relay.wait_for_connected("a", true);
    let mut sender = Sender::connect(relay.address());
    sender.send_numbers("load.a", 0, lines);
    fast.wait_for_lines(lines as usize);
    let waiting = wait_for(&relay, "lines to be spooled", |a| a.spooled > lines / 10);
    assert_eq!(waiting.dropped.len(), 0, "{waiting:?}");
    slow.resume();
    slow.wait_for_lines(lines as usize);
    assert_has_all(&slow, lines);
    let done = wait_for(&relay, "the spool to be empty", |a| {
        a.spooled == 0 && a.queued == 0
    });
    assert_eq!((done.sent, done.resent), (lines, 0));
    assert_eq!(relay.settle(lines).dropped.len(), 0);
}

#[test]
fn a_slow_destination_is_spooled_and_nobody_else_notices() {
    nobody_notices_a_slow_destination("queue: {maxBytes: 1Mi},", 1_000_000);
}

#[test]
fn a_slow_destination_is_spooled_however_small_its_queue_is() {
    nobody_notices_a_slow_destination("queue: {maxBytes: 64Ki},", 500_000);
}

#[test]
fn what_cannot_be_handed_over_when_the_relay_stops_waits_for_the_next() {
    let mut sink = Sink::absent();
    let (directory, state) = (directory(&[&sink], ""), Directory::of([]));
    let mut relay = run(&directory, &state);
    Sender::deliver(relay.address(), "load.a 0 1\nload.a 1 1\n");
    relay.process.signal(Signal::TERM);
    assert!(relay.process.wait(DEADLINE).success());
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["stopped", "lines_lost=0"]);

    let relay = run(&directory, &state);
    wait_for(&relay, "the lines to be found", |a| a.recovered == 2);
    sink.reopen();
    assert_eq!(sink.wait_for_lines(2), ["load.a 0 1", "load.a 1 1"]);
    assert!(Path::new(&state.file("spools")).is_dir());
}

#[test]
fn a_spool_that_is_full_drops_and_counts() {
    let mut sink = Sink::absent();
    let spec = "queue: {maxBytes: 64Ki}, spool: {maxBytes: 1Mi, sync: {interval: 50ms}},";
    let (directory, state) = (directory(&[&sink], spec), Directory::of([]));
    let relay = run(&directory, &state);
    let mut sender = Sender::connect(relay.address());
    const LINES: u64 = 200_000;
    sender.send_numbers("load.a", 0, LINES);
    let full = wait_for(&relay, "lines to be dropped", |a| {
        a.offered == LINES && a.queued == 0 && a.dropped.contains_key("spool_full")
    });
    assert_eq!(full.dropped.keys().collect::<Vec<_>>(), ["spool_full"]);
    assert_eq!(full.spooled + full.dropped["spool_full"], LINES);
    sink.reopen();
    wait_for(&relay, "the spool to be empty", |a| a.spooled == 0);
    sink.wait_for_lines(full.spooled as usize);
    // And there is room again.
    sender.send_numbers("load.b", 0, 10);
    sink.wait_for_lines(full.spooled as usize + 10);
}

#[test]
fn replay_keeps_to_its_rate_and_lets_live_lines_pass() {
    let mut sink = Sink::absent();
    let spec = "spool: {replayLinesPerSecond: 2000, sync: {interval: 50ms}},";
    let (directory, state) = (directory(&[&sink], spec), Directory::of([]));
    let relay = run(&directory, &state);
    let mut sender = Sender::connect(relay.address());
    sender.send_numbers("load.a", 0, 100_000);
    wait_for(&relay, "the lines to be on disk", |a| a.spooled == 100_000);
    sink.reopen();
    relay.wait_for_connected("a", true);
    sender.send_numbers("live", 0, 10);
    // Those that came last do not wait for the fifty seconds that the others take.
    eventually(DEADLINE, "live lines", || {
        match sink
            .text()
            .lines()
            .filter(|line| line.starts_with("live "))
            .count()
        {
            10 => Ok(()),
            lines => Err(format!("{lines} lines")),
        }
    });
    let still = relay.accounts().destination("a");
    assert!(still.spooled > 50_000, "{still:?}");
}

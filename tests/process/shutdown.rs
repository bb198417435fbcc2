//! SIGTERM.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{
    DEADLINE, Directory, Flood, RelayProcess, Sender, Signal, Sink, carbon, eventually, file,
    relay, route,
};

use crate::relay_to;

// A relay to one sink that may take this long to stop.
fn draining_within(sink: &Sink, timeout: &str) -> (RelayProcess, Directory) {
    let directory = Directory::of([
        relay("", &format!("drain: {{timeout: {timeout}}},")),
        carbon(
            "a",
            sink.address(),
            "queue: {maxBytes: 1Mi, whenFull: Block},",
        ),
        route("all", "destinations: [{name: a}]"),
    ]);
    (RelayProcess::run(&directory), directory)
}

// Tells it to stop, and waits until it has, in good order. Returns how long that took.
fn stop(relay: &mut RelayProcess, signal: Signal) -> Duration {
    let began = Instant::now();
    relay.process.signal(signal);
    assert_eq!(relay.process.wait(DEADLINE).code(), Some(0));
    began.elapsed()
}

#[test]
fn everything_that_was_sent_before_sigterm_arrives() {
    let sink = Sink::open();
    let (mut relay, _directory) = draining_within(&sink, "20s");
    // some have closed, some are silent, some go on sending
    let mut closed = Sender::connect(relay.address());
    let mut silent = Sender::connect(relay.address());
    let floods = ["load.a", "load.b"].map(|name| (name, Flood::start(relay.address(), name)));
    floods
        .iter()
        .for_each(|(_, flood)| flood.wait_for_more(20_000));
    closed.send_numbers("load.closed", 0, 1_000);
    drop(closed);
    silent.send_numbers("load.silent", 0, 1_000);
    let sent = floods.each_ref().map(|(name, flood)| (*name, flood.sent()));
    let took = stop(&mut relay, Signal::TERM);
    assert!(took < Duration::from_secs(20), "it took {took:?}");
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["lines_lost=0"]);
    floods
        .into_iter()
        .for_each(|(_, flood)| flood.wait_until_cut());
    sink.wait_until_closed();
    let values = sink.values();
    let finished = [("load.closed", 1_000), ("load.silent", 1_000)];
    for (name, sent) in sent.into_iter().chain(finished) {
        let values = &values[name];
        let arrived = values.len() as u64;
        assert!(arrived >= sent, "{name}: {arrived} of {sent} arrived");
        assert_eq!(*values, (0..arrived).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_relay_that_was_told_to_stop_is_alive_not_ready_and_takes_nobody_in() {
    let mut sink = Sink::absent();
    let (mut relay, _directory) = draining_within(&sink, "20s");
    Sender::deliver(relay.address(), "a 1 1\n");
    relay.process.signal(Signal::TERM);
    let soon = Duration::from_secs(10);
    eventually(soon, "the relay to be not ready", || {
        match relay.status("/readyz") {
            Some(503) => Ok(()),
            status => Err(format!("{status:?}")),
        }
    });
    eventually(soon, "the port to be closed", || {
        match TcpStream::connect(relay.address()) {
            Ok(_) => Err("it is open".into()),
            Err(_) => Ok(()),
        }
    });
    assert_eq!(
        (relay.status("/livez"), relay.status("/readyz")),
        (Some(200), Some(503))
    );
    // what it waited for comes back
    sink.reopen();
    assert_eq!(relay.process.wait(DEADLINE).code(), Some(0));
    assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
}

#[test]
fn a_relay_with_nothing_to_hand_over_stops_at_once() {
    let sink = Sink::open();
    let (mut relay, _directory) = relay_to(&sink, "");
    Sender::deliver(relay.address(), "a 1 1\n");
    let _idle = Sender::connect(relay.address());
    let took = stop(&mut relay, Signal::INT);
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
}

#[test]
fn a_file_that_nobody_reads_does_not_keep_a_relay_from_stopping() {
    let directory = Directory::of([
        relay("", "drain: {timeout: 1s},"),
        route("all", "destinations: [{name: fifo}]"),
    ]);
    let fifo = directory.file("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    directory.write("fifo.yaml", &file("fifo", &fifo));
    let mut relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a 1 1\nb 1 1\n");
    let took = stop(&mut relay, Signal::TERM);
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["lines_lost=2"]);
}

#[test]
fn lines_that_cannot_be_handed_over_in_time_are_counted_as_lost_and_said_so() {
    let sink = Sink::absent();
    let (mut relay, _directory) = draining_within(&sink, "1s");
    let mut sender = Sender::connect(relay.address());
    sender.send_numbers("load.a", 0, 1_234);
    eventually(DEADLINE, "the lines to be queued", || {
        match relay.accounts().destination("a") {
            a if a.queued == 1_234 => Ok(()),
            a => Err(format!("{a:?}")),
        }
    });
    let took = stop(&mut relay, Signal::TERM);
    assert!((1..=4).contains(&took.as_secs()), "it took {took:?}");
    relay.process.wait_for_stderr(
        DEADLINE,
        0,
        &["WARN", "default/a", "lines=1234", "shutdown"],
    );
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["lines_lost=1234"]);
}

#[test]
fn a_blocked_sender_does_not_keep_a_relay_from_stopping() {
    let sink = Sink::stuck();
    let directory = Directory::of([
        relay("", "drain: {timeout: 1s},"),
        carbon(
            "a",
            sink.address(),
            "queue: {maxBytes: 64Ki, whenFull: Block},",
        ),
        route("all", "destinations: [{name: a}]"),
    ]);
    let mut relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    sender.send_until_stalled("load.a", 64 << 20);
    let took = stop(&mut relay, Signal::TERM);
    assert!(took < Duration::from_secs(5), "it took {took:?}");
}

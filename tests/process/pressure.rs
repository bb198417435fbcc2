//! Senders that are too many, too slow, or never finish: the relay stays bounded and up.

use std::net::TcpStream;
use std::time::Duration;

use harness::{DEADLINE, Directory, RelayProcess, Sender, Sink, carbon, eventually, relay, route};

use crate::{counts, relay_to};

fn wait_for_metric(relay: &RelayProcess, name: &str, is_met: impl Fn(u64) -> bool) {
    eventually(DEADLINE, name, || match relay.metrics().count(name) {
        value if is_met(value) => Ok(()),
        value => Err(format!("it is {value}")),
    });
}

#[test]
fn thousands_of_lines_that_are_never_finished_take_a_bounded_part_of_memory() {
    const SENDERS: u64 = 4_000;
    let sink = Sink::open();
    // what has room is not to be dropped for want of a place in the queue
    let directory = Directory::of([
        relay("maxConnections: 5000, plaintext: {idleTimeout: 0s},", ""),
        carbon("a", sink.address(), "queue: {whenFull: Block},"),
        route("all", "destinations: [{name: a}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    let before = relay.peak_memory();
    let beginning = "x".repeat(60_000);
    let senders = (0..SENDERS).map(|_| {
        let mut sender = Sender::connect(relay.address());
        sender.send(&beginning);
        sender
    });
    let senders: Vec<Sender> = senders.collect();
    // 64 MiB have room for about 1,200 of these, beyond the 4 KiB that each may keep
    let dropped = || {
        let dropped = relay.accounts().dropped;
        dropped.get("no_room").copied().unwrap_or_default()
    };
    eventually(DEADLINE, "lines without room", || match dropped() {
        lines if lines > SENDERS - 1_300 => Ok(()),
        lines => Err(format!("{lines}")),
    });
    let taken = relay.peak_memory() - before;
    assert!(taken < 140 << 20, "{} MiB", taken >> 20);
    // who sends whole lines notices nothing, and who had no room may go on with the next line
    Sender::deliver(relay.address(), "a 1 1\n");
    sink.wait_for_lines(1);
    for mut sender in senders {
        sender.send(" 1 1\nb 1 1\n");
    }
    relay.settle(1 + 2 * SENDERS);
    // every beginning was let go of: there is room again
    let mut again = Sender::connect(relay.address());
    again.send(&beginning);
    again.send(" 2 2\n");
    let received = 2 + 2 * SENDERS;
    relay.settle(received);
    let without_room = dropped();
    assert!(without_room < SENDERS);
    sink.wait_for_lines((received - without_room) as usize);
    assert!(sink.text().ends_with(&format!("{beginning} 2 2\n")));
    assert_eq!(relay.dropped(received), counts([("no_room", without_room)]));
}

#[test]
fn a_sender_that_never_finishes_a_line_is_idle_however_often_it_sends() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "plaintext: {idleTimeout: 300ms},");
    let mut slow = Sender::connect(relay.address());
    let mut steady = Sender::connect(relay.address());
    let mut lines = 0;
    while !slow.is_closed() {
        slow.trickle("x");
        steady.send("a 1 1\n");
        lines += 1;
    }
    assert!(lines > 3, "it was closed at once");
    steady.send("b 1 1\n");
    sink.wait_for_lines(lines + 1);
    assert_eq!(relay.dropped(lines as u64 + 2), counts([("truncated", 1)]));
}

#[test]
fn connections_beyond_the_limit_are_refused_and_counted_and_others_stay() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "maxConnections: 100,");
    let mut first = Sender::connect(relay.address());
    let more: Vec<_> = (0..300)
        .map(|_| TcpStream::connect(relay.address()).unwrap())
        .collect();
    let refused = "carbonway_connections_refused_total";
    wait_for_metric(&relay, refused, |refused| refused == 201);
    first.send("a 1 1\n");
    sink.wait_for_lines(1);
    drop(more);
    wait_for_metric(&relay, "carbonway_connections", |open| open == 1);
    Sender::deliver(relay.address(), "b 1 1\n");
    sink.wait_for_lines(2);
}

#[test]
fn a_relay_without_file_descriptors_left_goes_on_and_takes_senders_in_when_it_has_some() {
    let sink = Sink::open();
    let directory = Directory::of([
        relay("", ""),
        carbon("a", sink.address(), "queue: {whenFull: DropNewest},"),
        route("all", "destinations: [{name: a}]"),
    ]);
    let relay = RelayProcess::run_with_files(&directory, 100);
    let mut first = Sender::connect(relay.address());
    first.send("a 1 1\n");
    sink.wait_for_lines(1);
    let more: Vec<_> = (0..200)
        .map(|_| TcpStream::connect(relay.address()).unwrap())
        .collect();
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["cannot accept a connection"]);
    let began = cpu_time(&relay);
    first.send("b 1 1\n");
    sink.wait_for_lines(2);
    // it does not spin: it says so a few times a second
    let said = relay.process.stderr().len();
    relay
        .process
        .wait_for_stderr(DEADLINE, said, &["cannot accept a connection"]);
    assert!(cpu_time(&relay) - began < Duration::from_secs(1));
    drop(more);
    let late = Sender::connect(relay.address());
    drop(late);
    Sender::deliver(relay.address(), "c 1 1\n");
    sink.wait_for_lines(3);
}

// What the process has used.
fn cpu_time(relay: &RelayProcess) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", relay.process.id())).unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

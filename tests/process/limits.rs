//! The bounds of a listener.

use harness::{DEADLINE, Sender, Sink, eventually};

use crate::{counts, relay_to};

#[test]
fn a_line_over_the_limit_is_skipped_to_the_next_newline_and_the_connection_stays() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "plaintext: {maxLineBytes: 64},");
    let longest = format!("{} 1 1", "x".repeat(60));
    let mut sender = Sender::connect(relay.address());
    sender.send(format!("{longest}\nx{longest}\na 1 1\n"));
    sink.wait_for_lines(2);
    // longer than anything that is buffered, and in pieces
    sender.send("y".repeat(1 << 20));
    sender.send(" 1 1\nb 1 1\n");
    sink.wait_for_lines(3);
    // cut by the end of the connection
    sender.send("z".repeat(100));
    sender.close();
    assert_eq!(sink.text(), format!("{longest}\na 1 1\nb 1 1\n"));
    assert_eq!(relay.dropped(6), counts([("line_too_long", 3)]));
}

#[test]
fn a_last_line_that_was_cut_by_a_reset_is_dropped_as_truncated() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let mut sender = Sender::connect(relay.address());
    sender.send("a 1 1\nb 1 17000");
    sink.wait_for_lines(1);
    sender.reset();
    assert_eq!(relay.dropped(2), counts([("truncated", 1)]));
    assert_eq!(sink.text(), "a 1 1\n");
}

#[test]
fn a_connection_that_is_idle_is_closed_and_its_last_line_is_truncated() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "plaintext: {idleTimeout: 200ms},");
    let mut silent = Sender::connect(relay.address());
    let mut stuck = Sender::connect(relay.address());
    stuck.send("a 1 1\nb 1 17000");
    silent.wait_until_closed();
    stuck.wait_until_closed();
    assert_eq!(relay.dropped(2), counts([("truncated", 1)]));
    assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
}

#[test]
fn an_idle_time_out_of_zero_is_none() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "plaintext: {idleTimeout: 0s},");
    let mut sender = Sender::connect(relay.address());
    sender.send("a 1 1\n");
    sink.wait_for_lines(1);
    assert!(!sender.is_closed());
    sender.send("b 1 1\n");
    sink.wait_for_lines(2);
    relay.settle(2);
}

#[test]
fn connections_over_the_limit_are_closed_at_once_and_counted() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "maxConnections: 2,");
    let mut senders = [0, 1].map(|_| Sender::connect(relay.address()));
    for (number, sender) in senders.iter_mut().enumerate() {
        sender.send("a 1 1\n");
        sink.wait_for_lines(number + 1);
    }
    for _ in 0..3 {
        Sender::connect(relay.address()).wait_until_closed();
    }
    let plain = [("listener", "plain")];
    let figure = |name: &str| relay.metrics().get(name, &plain);
    assert_eq!(figure("carbonway_connections_refused_total"), Some(3.0));
    assert_eq!(figure("carbonway_connections_accepted_total"), Some(2.0));

    let [first, mut second] = senders;
    second.send("b 1 1\n");
    sink.wait_for_lines(3);
    first.close();
    eventually(DEADLINE, "a place for another connection", || {
        let open = figure("carbonway_connections");
        if open == Some(1.0) {
            Ok(())
        } else {
            Err(format!("{open:?} are taken"))
        }
    });
    Sender::deliver(relay.address(), "c 1 1\n");
    assert_eq!(sink.wait_for_lines(4), ["a 1 1", "a 1 1", "b 1 1", "c 1 1"]);
    relay.settle(4);
}

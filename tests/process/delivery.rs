//! Destinations that go away, come back, refuse, and do not read.

use std::time::{Duration, Instant};

use harness::{
    DEADLINE, Directory, Flood, RelayProcess, Sender, Sink, carbon, eventually, numbered_line,
    relay, route,
};

use crate::{counts, relay_to};

fn numbers(end: u64) -> Vec<u64> {
    (0..end).collect()
}

#[test]
fn lines_wait_for_a_destination_that_is_away_and_arrive_in_order() {
    let mut sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let mut sender = Sender::connect(relay.address());
    sender.send_numbers("load.a", 0, 100);
    sink.wait_for_lines(100);
    sink.close();
    relay.wait_for_connected("a", false);
    sender.send_numbers("load.a", 100, 5_000);
    eventually(DEADLINE, "the lines to be queued", || {
        match relay.accounts().destination("a") {
            // what went over the connection that broke goes again
            a if a.queued == 5_000 && a.resent == 100 => Ok(()),
            a => Err(format!("{a:?}")),
        }
    });
    sink.reopen();
    sink.wait_for_lines(5_100);
    let expected = [numbers(100), numbers(5_000)].concat();
    assert_eq!(sink.values()["load.a"], expected);
    relay.settle(5_000);
}

#[test]
fn a_destination_that_is_not_there_at_first_is_served_once_it_is() {
    let mut sink = Sink::absent();
    let (relay, _directory) = relay_to(&sink, "");
    Sender::deliver(relay.address(), "a 1 1\nb 1 1\n");
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["WARN", "default/a", "refused"]);
    sink.reopen();
    assert_eq!(sink.wait_for_lines(2), ["a 1 1", "b 1 1"]);
    relay.settle(2);
}

#[test]
fn a_line_that_the_end_of_a_connection_cut_is_sent_again_whole() {
    let mut sink = Sink::stuck();
    let (relay, _directory) = relay_to(&sink, "");
    relay.wait_for_connected("a", true);
    let mut sender = Sender::connect(relay.address());
    // more than the kernels between take, so that the relay is in the middle of writing
    const LINES: u64 = 400_000;
    sender.send_numbers("load.a", 0, LINES);
    eventually(DEADLINE, "lines to wait in the relay", || {
        match relay.accounts() {
            accounts if accounts.received == LINES => Ok(()),
            accounts => Err(format!("{accounts:?}")),
        }
    });
    assert!(relay.accounts().destination("a").queued > 1_000);
    sink.pause_after(1_000_001);
    eventually(
        DEADLINE,
        "the sink to have read a million bytes",
        || match sink.text().len() {
            1_000_001 => Ok(()),
            bytes => Err(format!("{bytes} bytes")),
        },
    );
    sink.close();
    relay.wait_for_connected("a", false);
    sink.reopen();
    relay.settle(LINES);
    let last = numbered_line("load.a", LINES - 1);
    eventually(DEADLINE, "the last line", || {
        match sink.text().ends_with(&last) {
            true => Ok(()),
            false => Err(format!("{} lines", sink.line_count())),
        }
    });
    let [first, second] = &sink.connections()[..] else {
        panic!("there are other connections")
    };
    let first_lines = String::from_utf8(first.bytes.clone()).unwrap();
    let expected: String = (0..LINES)
        .map(|number| numbered_line("load.a", number))
        .collect();
    assert_eq!(first_lines, expected[..first_lines.len()]);
    // what the kernels held is lost with the connection, and goes again; every line is whole
    let second_lines = String::from_utf8(second.bytes.clone()).unwrap();
    let (begin, end) = expected.split_at(expected.len() - second_lines.len());
    assert_eq!(second_lines, end);
    assert!(
        begin.is_empty() || begin.ends_with('\n'),
        "the second connection begins within a line"
    );
    assert!(begin.len() <= first_lines.len(), "a gap");
}

#[test]
fn a_destination_that_takes_no_byte_in_time_is_connected_anew() {
    let sink = Sink::stuck();
    let directory = Directory::of([
        relay("", ""),
        route("all", "destinations: [{name: a}]"),
        harness::destination(
            "a",
            &format!(
                "carbon: {{address: \"{}\", writeTimeout: 200ms}}",
                sink.address()
            ),
        ),
    ]);
    let relay = RelayProcess::run(&directory);
    let flood = Flood::start(relay.address(), "load.a");
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["WARN", "default/a", "200ms"]);
    sink.wait_for_connections(2);
    let sent = flood.finish();
    sink.resume();
    relay.settle(sent);
}

// Two destinations, of which a is stuck. Lines of load.a go to both, those of load.b to b only.
fn beside_a_stuck_one(when_full: &str) -> (RelayProcess, [Sink; 2], Directory) {
    let sinks = [Sink::stuck(), Sink::open()];
    let queue = format!("queue: {{maxBytes: 64Ki, whenFull: {when_full}}},");
    let directory = Directory::of([
        relay("", ""),
        carbon("a", sinks[0].address(), &queue),
        carbon("b", sinks[1].address(), ""),
        route("a", "match: {prefix: load.a}, destinations: [{name: a}]"),
        route("b", "destinations: [{name: b}]"),
    ]);
    (RelayProcess::run(&directory), sinks, directory)
}

#[test]
fn what_a_full_queue_cannot_take_is_dropped_and_counted_and_nobody_else_notices() {
    let (relay, [stuck, other], _directory) = beside_a_stuck_one("DropNewest");
    let flood = Flood::start(relay.address(), "load.a");
    eventually(DEADLINE, "the queue to overflow", || {
        match relay.accounts().destination("a") {
            a if a.dropped.contains_key("queue_full") => Ok(()),
            a => Err(format!("{a:?}")),
        }
    });
    let sent = flood.finish();
    let full = relay.accounts();
    assert_eq!(full.balance(), Ok(()));
    assert_eq!((full.received, full.forwarded), (sent, sent));
    other.wait_for_lines(sent as usize);
    assert_eq!(other.values()["load.a"], numbers(sent));
    let queued = relay.metrics().get(
        "carbonway_destination_queue_bytes",
        &[("destination", "default/a")],
    );
    assert!(queued.is_some_and(|bytes| bytes <= 65536.0), "{queued:?}");

    stuck.resume();
    let a = relay.settle(sent).destination("a");
    assert_eq!((a.offered, a.sent + a.dropped["queue_full"]), (sent, sent));
    stuck.wait_for_lines(a.sent as usize);
    let values = &stuck.values()["load.a"];
    assert!(
        values.is_sorted_by(|earlier, later| earlier < later),
        "not in order"
    );
    // the oldest were kept
    assert_eq!(values[..1_000], numbers(1_000));
}

#[test]
fn a_full_queue_that_blocks_holds_up_those_who_need_it_and_nobody_else() {
    let (relay, [stuck, other], _directory) = beside_a_stuck_one("Block");
    let mut blocked = Sender::connect(relay.address());
    let stalled = blocked.send_until_stalled("load.a", 64 << 20);
    let mut free = Sender::connect(relay.address());
    free.send_numbers("load.b", 0, 10_000);
    let last = numbered_line("load.b", 9_999);
    eventually(
        DEADLINE,
        "the lines of the free connection",
        || match other.text().contains(&last) {
            true => Ok(()),
            false => Err(format!("{} lines", other.line_count())),
        },
    );
    assert_eq!(other.values()["load.b"], numbers(10_000));
    assert_eq!(relay.accounts().destination("a").dropped, counts([]));

    stuck.resume();
    blocked.send(&stalled.rest);
    blocked.send_numbers("load.a", stalled.begun, stalled.begun + 10);
    let sent = stalled.begun + 10;
    stuck.wait_for_lines(sent as usize);
    let accounts = relay.settle(sent + 10_000);
    assert_eq!(
        (accounts.forwarded, accounts.destination("a").sent),
        (sent + 10_000, sent)
    );
    assert_eq!(stuck.values()["load.a"], numbers(sent));
    other.wait_for_lines(sent as usize + 10_000);
    assert_eq!(other.values()["load.a"], numbers(sent));
}

#[test]
fn a_sender_that_a_full_queue_holds_up_is_let_go_when_an_edit_says_so() {
    for mended in [
        "queue: {maxBytes: 64Ki, whenFull: DropNewest},",
        "queue: {maxBytes: 512Mi, whenFull: Block},",
    ] {
        let (relay, [stuck, other], directory) = beside_a_stuck_one("Block");
        let mut blocked = Sender::connect(relay.address());
        let stalled = blocked.send_until_stalled("load.a", 64 << 20);
        let text = std::fs::read_to_string(directory.file("resources.yaml")).unwrap();
        directory.write(
            "resources.yaml",
            &text.replace("queue: {maxBytes: 64Ki, whenFull: Block},", mended),
        );
        blocked.send(&stalled.rest);
        blocked.close();
        other.wait_for_lines(stalled.begun as usize);
        assert_eq!(other.values()["load.a"], numbers(stalled.begun));
        stuck.resume();
        assert_eq!(relay.settle(stalled.begun).forwarded, stalled.begun);
    }
}

#[test]
fn a_sender_that_a_full_queue_holds_up_is_let_go_when_the_destination_is_removed() {
    let (relay, [_stuck, other], directory) = beside_a_stuck_one("Block");
    let mut blocked = Sender::connect(relay.address());
    let stalled = blocked.send_until_stalled("load.a", 64 << 20);
    let text = std::fs::read_to_string(directory.file("resources.yaml")).unwrap();
    directory.write(
        "resources.yaml",
        &text.replace("destinations: [{name: a}]", "destinations: [{name: b}]"),
    );
    let began = Instant::now();
    blocked.send(&stalled.rest);
    blocked.close();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        began.elapsed()
    );
    other.wait_for_lines(stalled.begun as usize);
    assert_eq!(other.values()["load.a"], numbers(stalled.begun));
    assert_eq!(relay.settle(stalled.begun).forwarded, stalled.begun);
}

#[test]
fn a_connection_is_made_anew_at_its_age_and_no_line_is_lost_or_sent_twice() {
    let sink = Sink::open();
    let directory = Directory::of([
        relay("", ""),
        format!(
            "apiVersion: carbonway.io/v1alpha1\n\
             kind: Destination\n\
             metadata: {{name: a}}\n\
             spec: {{carbon: {{address: '{}', maxConnectionAge: 1s}}, queue: {{whenFull: Block}}}}\n",
            sink.address()
        ),
        route("all", "destinations: [{name: a}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    let flood = Flood::start(relay.address(), "load.a");
    eventually(DEADLINE, "the third connection", || {
        match sink.connections().len() {
            connections @ 3.. => Ok(connections),
            connections => Err(connections.to_string()),
        }
    });
    let sent = flood.finish();
    let a = relay.settle(sent).destination("a");
    assert_eq!((a.sent, a.resent), (sent, 0));
    eventually(DEADLINE, "every line at the sink", || {
        match sink.line_count() as u64 {
            lines if lines >= sent => Ok(()),
            lines => Err(format!("{lines} of {sent}")),
        }
    });
    assert_eq!(sink.values()["load.a"], numbers(sent));
}

//! What goes out otherwise than as lines over TCP: read by a second relay, whose listener takes the same.

use std::net::SocketAddr;

use harness::{
    DEADLINE, Directory, Flood, RelayProcess, Sender, Signal, Sink, carbon, destination,
    eventually, numbered_line, object, relay, route,
};

// How a Destination sends, and how a listener takes that.
struct Form {
    destination: &'static str,
    listener: &'static str,
}

const STREAMS: [Form; 6] = [
    Form {
        destination: "encoding: Pickle",
        listener: "pickle: {}",
    },
    Form {
        destination: "encoding: Protobuf",
        listener: "protobuf: {}",
    },
    Form {
        destination: "compression: Gzip",
        listener: "plaintext: {}, compression: Gzip",
    },
    Form {
        destination: "compression: Lz4",
        listener: "plaintext: {}, compression: Lz4",
    },
    Form {
        destination: "compression: Snappy",
        listener: "plaintext: {}, compression: Snappy",
    },
    Form {
        destination: "compression: Zstd",
        listener: "plaintext: {}, compression: Zstd",
    },
];

const DATAGRAMS: Form = Form {
    destination: "transport: Udp",
    listener: "plaintext: {transport: Udp}",
};

impl Form {
    // What takes it, and sends lines on to the sink.
    fn second(&self, sink: &Sink) -> Directory {
        let listener = format!("listeners: [{{name: in, port: 2003, {}}}]", self.listener);
        let labels = "{name: edge, labels: {carbonway.io/default: \"true\"}}";
        Directory::of([
            object("Relay", "edge", &listener).replace("{name: edge}", labels),
            carbon("sink", sink.address(), ""),
            route("all", "destinations: [{name: sink}]"),
        ])
    }

    // What sends it.
    fn first(&self, second: SocketAddr, more: &str) -> Directory {
        let carbon = format!("carbon: {{address: \"{second}\", {}}}", self.destination);
        Directory::of([
            relay("", ""),
            destination("second", &format!("{more} {carbon}")),
            route("all", "destinations: [{name: second}]"),
        ])
    }
}

#[test]
fn every_form_arrives_as_the_lines_that_were_sent() {
    const LINES: u64 = 20_000;
    for form in &STREAMS {
        let sink = Sink::open();
        let second_directory = form.second(&sink);
        let second = RelayProcess::run(&second_directory);
        let first_directory = form.first(second.address(), "");
        let mut first = RelayProcess::run(&first_directory);
        let mut sender = Sender::connect(first.address());
        // one that is there before more come, then many
        sender.send_numbers("n;dc=ams", 0, 1);
        sink.wait_for_lines(1);
        sender.send_numbers("n;dc=ams", 1, LINES);
        sink.wait_for_lines(LINES as usize);
        let expected: Vec<_> = (0..LINES).collect();
        assert_eq!(sink.values()["n;dc=ams"], expected, "{}", form.destination);
        // and the end of the stream is a good one
        first.process.signal(Signal::TERM);
        assert_eq!(first.process.wait(DEADLINE).code(), Some(0));
        eventually(DEADLINE, "the connection to end", || {
            let connections = second.metrics();
            match connections.get("carbonway_connections", &[("listener", "in")]) {
                Some(0.0) => Ok(()),
                other => Err(format!("there are {other:?}")),
            }
        });
        assert_eq!(second.dropped(LINES), [].into());
    }
}

#[test]
fn datagrams_hold_what_fits_and_come_in_order() {
    const LINES: u64 = 500;
    let sink = Sink::open();
    let second_directory = DATAGRAMS.second(&sink);
    let second = RelayProcess::run(&second_directory);
    let first_directory = DATAGRAMS.first(second.address(), "");
    let first = RelayProcess::run(&first_directory);
    let lines: String = (0..LINES)
        .map(|number| numbered_line("n", number))
        .collect();
    Sender::deliver(first.address(), &lines);
    sink.wait_for_lines(LINES as usize);
    assert_eq!(sink.values()["n"], (0..LINES).collect::<Vec<_>>());
    let datagrams = second.metrics().get(
        "carbonway_listener_datagrams_received_total",
        &[("listener", "in")],
    );
    let fewest = lines.len() as u64 / 1432 + 1;
    let count = datagrams.unwrap() as u64;
    assert!((fewest..fewest * 2).contains(&count), "{count} of {fewest}");
    first.settle(LINES);
}

#[test]
fn datagrams_wait_while_nobody_is_there() {
    let sink = Sink::open();
    let second_directory = DATAGRAMS.second(&sink);
    let mut second = RelayProcess::run(&second_directory);
    second.process.kill();
    let first_directory = DATAGRAMS.first(second.address(), "");
    let first = RelayProcess::run(&first_directory);
    Sender::deliver(first.address(), "a 1 1\nb 2 2\n");
    eventually(DEADLINE, "the absence to be noticed", || {
        match first
            .metrics()
            .count("carbonway_destination_lines_resent_total")
        {
            0 => Err("it is not".to_owned()),
            _ => Ok(()),
        }
    });
    second.kill_and_run(&second_directory);
    eventually(DEADLINE, "both lines", || {
        let lines = sink.lines();
        let both = ["a 1 1", "b 2 2"];
        match both
            .iter()
            .all(|line| lines.iter().any(|found| found == line))
        {
            true => Ok(()),
            false => Err(format!("there is {lines:?}")),
        }
    });
}

#[test]
fn a_peer_that_is_killed_over_and_over_gets_everything() {
    const KILLS: usize = 3;
    for form in &STREAMS {
        let sink = Sink::open();
        let second_directory = form.second(&sink);
        let mut second = RelayProcess::run(&second_directory);
        let first_directory = form.first(second.address(), "");
        let first = RelayProcess::run(&first_directory);
        let flood = Flood::paced(first.address(), "n", 20_000);
        for _ in 0..KILLS {
            flood.wait_for_more(4000);
            second.kill_and_run(&second_directory);
        }
        flood.wait_for_more(4000);
        let sent = flood.finish();
        eventually(DEADLINE, "every line to arrive", || {
            let values = sink.values();
            let mut found = values.get("n").cloned().unwrap_or_default();
            found.sort_unstable();
            found.dedup();
            match found.len() as u64 {
                count if count == sent => Ok(()),
                count => Err(format!("{count} of {sent} did, {}", form.destination)),
            }
        });
    }
}

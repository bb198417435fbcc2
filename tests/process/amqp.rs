//! AMQP, out and in, with a real RabbitMQ.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use harness::{
    Authority, DEADLINE, Directory, Flood, RabbitMq, RelayProcess, Sender, Signal, Sink, carbon,
    destination, eventually, numbered_line, object, relay, route,
};
use tempfile::TempDir;

// A relay that takes messages with these settings, and sends all to the sink.
fn directory_from(rabbit: &RabbitMq, sink: &Sink, spec: &str) -> Directory {
    let source = format!(
        "{{name: q, amqp: {{address: \"{}\", {spec}}}}}",
        rabbit.address()
    );
    let edge = object("Relay", "edge", &format!("listeners: [{source}]"));
    let labels = "{name: edge, labels: {carbonway.io/default: \"true\"}}";
    Directory::of([
        edge.replace("{name: edge}", labels),
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ])
}

fn wait_for(relay: &RelayProcess, metric: &str, expected: u64) {
    eventually(DEADLINE, metric, || match relay.metrics().count(metric) {
        count if count == expected => Ok(()),
        count => Err(format!("it is {count}")),
    });
}

#[test]
fn messages_of_several_queues_become_lines_and_are_acknowledged() {
    let Some(rabbit) = RabbitMq::start() else {
        return;
    };
    let sink = Sink::open();
    let spec = "queues: [{name: web, bindingKeys: [\"servers.*.cpu\", \"jvm.#\"]}, {name: db, durable: false, \
        autoDelete: true, bindingKeys: [\"db.#\"]}]";
    let directory = directory_from(&rabbit, &sink, spec);
    let relay = RelayProcess::run(&directory);
    wait_for(&relay, "carbonway_consumer_connected", 1);
    rabbit.publish(
        "graphite",
        [
            ("servers.web1.cpu", "1 1700000000"),
            ("db.a", "2 2\n3 3\n"),
            ("jvm.heap.used", "bad\n4 4"),
        ],
    );
    let mut lines = sink.wait_for_lines(4);
    lines.sort();
    assert_eq!(
        lines,
        [
            "db.a 2 2",
            "db.a 3 3",
            "jvm.heap.used 4 4",
            "servers.web1.cpu 1 1700000000"
        ]
    );
    assert_eq!(relay.dropped(5), [("field_count".to_owned(), 1)].into());
    let refused = &relay.json("/refused")["field_count"][0];
    assert_eq!(refused["line"], "jvm.heap.used bad");
    wait_for(&relay, "carbonway_consumer_messages_acknowledged_total", 3);
    assert_eq!(rabbit.count("web"), 0);
    drop(relay);

    // whole lines, and a queue of somebody else's that is only bound
    rabbit.bind("metrics", "theirs", "none");
    let spec = "exchange: metrics, declare: false, metricNameInBody: true, prefetch: 10, \
        queues: [{name: theirs, declare: false}]";
    let directory = directory_from(&rabbit, &sink, spec);
    let relay = RelayProcess::run(&directory);
    wait_for(&relay, "carbonway_consumer_connected", 1);
    rabbit.publish("metrics", (0..50).map(|_| ("any.key", "a.b 1 1\nc.d 2 2")));
    sink.wait_for_lines(104);
    relay.settle(100);
    // a queue that is deleted is noticed; this one is not to be made, so it is waited for
    rabbit.delete("theirs");
    wait_for(&relay, "carbonway_consumer_connected", 0);
    let said = ["degraded", "Relay default/edge", "listener q", "NOT_FOUND"];
    relay.process.wait_for_stderr(DEADLINE, 0, &said);
    rabbit.bind("metrics", "theirs", "none");
    wait_for(&relay, "carbonway_consumer_connected", 1);
    rabbit.publish("metrics", [("any.key", "e.f 3 3")]);
    sink.wait_for_lines(105);
}

#[test]
fn connections_that_are_cut_and_a_relay_that_is_killed_lose_no_message() {
    const MESSAGES: usize = 3000;
    let Some(rabbit) = RabbitMq::start() else {
        return;
    };
    let mut sink = Sink::open();
    let spec = "metricNameInBody: true, queues: [{name: all}]";
    let directory = directory_from(&rabbit, &sink, spec);
    let state = TempDir::new().unwrap();
    let mut relay = RelayProcess::run_with_state(&directory, state.path());
    wait_for(&relay, "carbonway_consumer_connected", 1);
    let bodies: Vec<String> = (0..MESSAGES)
        .map(|number| numbered_line("n", number as u64))
        .collect();
    for (turn, bodies) in bodies.chunks(MESSAGES / 4).enumerate() {
        rabbit.publish("graphite", bodies.iter().map(|body| ("n", body.trim_end())));
        match turn {
            0 => rabbit.close_connections(),
            1 => sink.close(),
            2 => {
                // with lines in memory, on disk and at the broker
                relay.process.kill();
                relay = RelayProcess::run_with_state(&directory, state.path());
            }
            _ => sink.reopen(),
        }
    }
    eventually(DEADLINE, "every line", || {
        let mut values = sink.values().remove("n").unwrap_or_default();
        values.sort_unstable();
        values.dedup();
        match values.len() {
            MESSAGES => Ok(()),
            count => Err(format!("{count} of {MESSAGES} did")),
        }
    });
    eventually(DEADLINE, "all to be acknowledged", || {
        match rabbit.count("all") {
            0 => Ok(()),
            count => Err(format!("{count} wait")),
        }
    });
}

fn directory_to(rabbit: &RabbitMq, spec: &str) -> Directory {
    let to = format!("address: \"{}\", {spec}", rabbit.address());
    Directory::of([
        relay("", ""),
        destination("q", &format!("amqp: {{{to}}}")),
        route("all", "destinations: [{name: q}]"),
    ])
}

#[test]
fn lines_are_published_under_their_names_and_confirmed() {
    let Some(mut rabbit) = RabbitMq::start() else {
        return;
    };
    rabbit.bind("graphite", "web", "servers.*.cpu");
    rabbit.bind("whole", "all", "#");
    let directory = directory_to(&rabbit, "batch: {wait: 0s}, connections: 1");
    let relay = RelayProcess::run(&directory);
    let long = "n".repeat(256);
    Sender::deliver(
        relay.address(),
        format!("servers.web1.cpu 1.50 1700000000\n{long} 1 1\nother 2 2\nservers.web2.cpu 3 3\n"),
    );
    let accounts = relay.settle(4);
    assert_eq!(
        accounts.destinations["default/q"].dropped,
        [("rejected".to_owned(), 1)].into()
    );
    let expected = [
        ("servers.web1.cpu".to_owned(), "1.50 1700000000".to_owned()),
        ("servers.web2.cpu".to_owned(), "3 3".to_owned()),
    ];
    assert_eq!(rabbit.consume("web", 2), expected);
    // what no queue wants is told
    let left_out = "carbonway_destination_lines_left_out_total";
    assert_eq!(relay.metrics().count(left_out), 1);
    // and lapin does not do so with each message
    assert!(!relay.process.stderr().concat().contains("lapin"));
    // a connection that ends while nothing is sent is made again
    let connects = "carbonway_destination_connects_total";
    assert_eq!(relay.metrics().count(connects), 1);
    rabbit.close_connections();
    wait_for(&relay, connects, 2);
    drop(relay);

    // whole lines, while connections are cut and the broker is killed
    let spec = "exchange: whole, metricNameInBody: true, batch: {maxLines: 200, wait: 10ms}, connections: 2";
    let directory = directory_to(&rabbit, spec);
    let relay = RelayProcess::run(&directory);
    let flood = Flood::paced(relay.address(), "n", 300);
    flood.wait_for_more(300);
    rabbit.close_connections();
    flood.wait_for_more(300);
    rabbit.kill_and_restart();
    flood.wait_for_more(300);
    let sent = flood.finish();
    relay.settle(sent);
    eventually(DEADLINE, "every line to be in the queue", || {
        match rabbit.count("all") {
            count if count >= sent => Ok(()),
            count => Err(format!("{count} of {sent} are")),
        }
    });
    let count = rabbit.count("all") as usize;
    let bodies: BTreeSet<String> = rabbit
        .consume("all", count)
        .into_iter()
        .map(|(_, body)| body)
        .collect();
    assert_eq!(bodies.len() as u64, sent);
    assert!(bodies.contains("n 0 1700000000"));
}

// Established connections, counted where they begin.
fn connections_to(address: SocketAddr) -> usize {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("it is at an IPv4 address");
    };
    let to = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(ip.octets()),
        address.port()
    );
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let columns = table.lines().map(|line| line.split_ascii_whitespace());
    columns
        .filter(|columns| columns.clone().skip(2).take(2).eq([to.as_str(), "01"]))
        .count()
}

#[test]
fn a_broker_that_stands_still_or_is_short_of_memory_gets_everything_in_the_end() {
    let Some(rabbit) = RabbitMq::start() else {
        return;
    };
    rabbit.bind("graphite", "all", "#");
    let spec =
        "metricNameInBody: true, timeout: 2s, batch: {maxLines: 50, wait: 10ms}, connections: 2";
    let directory = directory_to(&rabbit, spec);
    let relay = RelayProcess::run(&directory);
    let flood = Flood::paced(relay.address(), "n", 300);
    flood.wait_for_more(300);
    rabbit.signal(Signal::STOP);
    relay.wait_for_connected("q", false);
    rabbit.signal(Signal::CONT);
    relay.wait_for_connected("q", true);
    flood.wait_for_more(300);
    rabbit.set_short_of_memory(true);
    eventually(DEADLINE, "the blocked connection to be told", || {
        let error =
            relay.json("/destinations")["destinations"][0]["lastError"]["message"].to_string();
        match error.contains("low on memory") {
            true => Ok(()),
            false => Err(error),
        }
    });
    // Each try is a new connection, and none is left behind, although the broker answers none of them.
    let failures = "carbonway_destination_connect_failures_total";
    let enough = relay.metrics().count(failures) + 4;
    eventually(DEADLINE, "more tries", || {
        match relay.metrics().count(failures) {
            count if count >= enough => Ok(()),
            count => Err(count.to_string()),
        }
    });
    eventually(DEADLINE, "connections to end", || {
        match connections_to(rabbit.address()) {
            0..=2 => Ok(()),
            count => Err(format!("{count} are open")),
        }
    });
    rabbit.set_short_of_memory(false);
    let sent = flood.finish();
    relay.settle(sent);
    // What came twice is there twice.
    let count = rabbit.count("all") as usize;
    let messages = rabbit.consume("all", count).into_iter();
    let bodies: BTreeSet<String> = messages.map(|(_, body)| body).collect();
    assert_eq!(bodies.len() as u64, sent);
}

#[test]
fn a_broker_that_does_not_let_us_in_is_told_of() {
    let Some(rabbit) = RabbitMq::start() else {
        return;
    };
    let directory = directory_to(&rabbit, "secret: {name: user}");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: user}\nstringData: {username: u, password: hush}\n";
    directory.write("secret.yaml", secret);
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "a 1 1\n");
    let last_error =
        || relay.json("/destinations")["destinations"][0]["lastError"]["message"].to_string();
    eventually(DEADLINE, "the refusal to be told", || {
        match last_error().contains("ACCESS_REFUSED") {
            true => Ok(()),
            false => Err(last_error()),
        }
    });
    assert!(!relay.process.stderr().concat().contains("hush"));
    // an exchange that is not there and is not to be made
    directory.write(
        "resources.yaml",
        &[
            harness::relay("", ""),
            destination(
                "q",
                &format!(
                    "amqp: {{address: \"{}\", exchange: none, declare: false}}",
                    rabbit.address()
                ),
            ),
            route("all", "destinations: [{name: q}]"),
        ]
        .join("---\n"),
    );
    eventually(
        DEADLINE,
        "the missing exchange to be told",
        || match last_error().contains("NOT_FOUND") {
            true => Ok(()),
            false => Err(last_error()),
        },
    );
    rabbit.bind("none", "q", "#");
    relay.settle(1);
    assert_eq!(rabbit.consume("q", 1).len(), 1);
}

#[test]
fn over_tls_both_sides_show_certificates_in_and_out() {
    let (authority, other) = (Authority::new(), Authority::new());
    let Some(rabbit) = RabbitMq::start_encrypted(&authority) else {
        return;
    };
    let server = format!(
        "address: \"{}\", tls: {{ca: {{name: ca}}, certificate: {{name: own}}}}",
        rabbit.encrypted_address()
    );
    // One relay publishes, and another one takes it.
    let sink = Sink::open();
    let queue = "queues: [{name: all, bindingKeys: [\"#\"]}]";
    let edge = object(
        "Relay",
        "edge",
        &format!("listeners: [{{name: q, amqp: {{{server}, {queue}}}}}]"),
    );
    let labels = "{name: edge, labels: {carbonway.io/default: \"true\"}}";
    let taking = Directory::of([
        edge.replace("{name: edge}", labels),
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ]);
    let publishing = Directory::of([
        relay("", ""),
        destination("q", &format!("amqp: {{{server}, batch: {{wait: 0s}}}}")),
        route("all", "destinations: [{name: q}]"),
    ]);
    for directory in [&taking, &publishing] {
        directory.write("own.yaml", &authority.identity("relay").secret("own"));
    }
    taking.write("ca.yaml", &authority.secret("ca"));
    publishing.write("ca.yaml", &other.secret("ca"));
    let taker = RelayProcess::run(&taking);
    wait_for(&taker, "carbonway_consumer_connected", 1);
    let publisher = RelayProcess::run(&publishing);
    Sender::deliver(publisher.address(), "a.b 1 1700000000\n");
    eventually(DEADLINE, "the unknown authority to be told", || {
        let error =
            publisher.json("/destinations")["destinations"][0]["lastError"]["message"].to_string();
        match error.contains("UnknownIssuer") {
            true => Ok(()),
            false => Err(error),
        }
    });
    publishing.write("ca.yaml", &authority.secret("ca"));
    publisher.settle(1);
    assert_eq!(sink.wait_for_lines(1), ["a.b 1 1700000000"]);
}

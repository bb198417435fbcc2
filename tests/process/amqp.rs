//! AMQP, out and in, with a real RabbitMQ.

use std::collections::BTreeSet;

use harness::{
    DEADLINE, Directory, Flood, RabbitMq, RelayProcess, Sender, destination, eventually, relay,
    route,
};

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
    drop(relay);

    // whole lines, while connections are cut and the broker is killed
    let spec = "exchange: whole, metricNameInBody: true, batch: {maxLines: 200, wait: 10ms}, connections: 2";
    let directory = directory_to(&rabbit, spec);
    let relay = RelayProcess::run(&directory);
    let flood = Flood::paced(relay.address(), "n", 2000);
    flood.wait_for_more(1000);
    rabbit.close_connections();
    flood.wait_for_more(1000);
    rabbit.kill_and_restart();
    flood.wait_for_more(1000);
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

//! Files that change while lines flow.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use harness::{
    DEADLINE, Directory, Flood, RelayProcess, Sender, Sink, carbon, eventually, relay, route,
};

const BLOCK: &str = "queue: {maxBytes: 1Mi, whenFull: Block},";

#[track_caller]
fn wait_for_more_lines(sink: &Sink, count: usize) {
    let goal = sink.line_count() + count;
    eventually(DEADLINE, "more lines at a sink", || {
        match sink.line_count() {
            lines if lines >= goal => Ok(()),
            lines => Err(format!("{lines} of {goal}")),
        }
    });
}

#[test]
fn no_line_and_no_connection_is_lost_while_destinations_come_change_and_go() {
    let [a, b, c] = [0; 3].map(|_| Sink::open());
    let directory = Directory::of([relay("", ""), carbon("a", a.address(), BLOCK)]);
    directory.write("routes.yaml", &route("all", "destinations: [{name: a}]"));
    let relay = RelayProcess::run(&directory);
    let floods = ["load.a", "load.b"].map(|name| (name, Flood::start(relay.address(), name)));
    wait_for_more_lines(&a, 5_000);

    // b joins a: two files, of which either may be seen first
    directory.write("b.yaml", &carbon("b", b.address(), BLOCK));
    directory.write(
        "routes.yaml",
        &route("all", "destinations: [{name: a}, {name: b}]"),
    );
    wait_for_more_lines(&b, 5_000);
    // a leaves
    directory.write("routes.yaml", &route("all", "destinations: [{name: b}]"));
    eventually(DEADLINE, "a to have left", || {
        let destinations = relay.accounts().destinations;
        if destinations.contains_key("default/a") {
            Err(format!("{destinations:?}"))
        } else {
            Ok(())
        }
    });
    // b moves to where c is
    directory.write("b.yaml", &carbon("b", c.address(), BLOCK));
    wait_for_more_lines(&c, 5_000);
    // a route that has nothing to do with it comes and goes
    directory.write(
        "more.yaml",
        &route("more", "match: {prefix: other.}, destinations: [{name: a}]"),
    );
    wait_for_more_lines(&c, 5_000);
    directory.remove("more.yaml");
    wait_for_more_lines(&c, 5_000);
    assert_eq!(relay.status("/readyz"), Some(200));

    let sent = floods.map(|(name, flood)| (name, flood.finish()));
    let accounts = relay.settle(sent.iter().map(|(_, sent)| sent).sum());
    let plain = [("listener", "plain")];
    let accepted = relay
        .metrics()
        .get("carbonway_connections_accepted_total", &plain);
    assert_eq!(accepted, Some(2.0));
    a.wait_until_closed();
    let to_b = accounts.destination("b").sent as usize;
    eventually(DEADLINE, "all that was sent to b", || {
        match b.line_count() + c.line_count() {
            lines if lines >= to_b => Ok(()),
            lines => Err(format!("{lines} of {to_b} lines")),
        }
    });
    // edits that do not concern a connection leave it alone
    assert_eq!((b.connections().len(), c.connections().len()), (1, 1));
    let [a, b, c] = [a, b, c].map(|sink| sink.values());
    for (name, sent) in sent {
        let [a, b, c] = [&a, &b, &c].map(|sink| sink[name].as_slice());
        let run = |values: &[u64]| values.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        assert!(run(a) && run(b) && run(c), "{name}: a gap, or a line twice");
        assert_eq!((a[0], c[c.len() - 1]), (0, sent - 1), "{name}");
        assert!(b[0] <= a[a.len() - 1] + 1, "{name}: a gap between a and b");
        assert_eq!(b[b.len() - 1] + 1, c[0], "{name}: between b and c");
    }
}

#[test]
fn an_edit_takes_effect_on_open_connections() {
    let [a, b] = [0; 2].map(|_| Sink::open());
    let directory = Directory::of([
        relay("", ""),
        carbon("a", a.address(), ""),
        carbon("b", b.address(), ""),
    ]);
    directory.write("routes.yaml", &route("all", "destinations: [{name: a}]"));
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    sender.send("one 1 1\n");
    a.wait_for_lines(1);
    directory.write("routes.yaml", &route("all", "destinations: [{name: b}]"));
    wait_for_applied(&relay, 2);
    sender.send("two 2 2\n");
    assert_eq!(b.wait_for_lines(1), ["two 2 2"]);
    assert_eq!(a.lines(), ["one 1 1"]);
    relay.settle(2);
}

fn wait_for_applied(relay: &RelayProcess, count: u64) {
    eventually(
        DEADLINE,
        &format!("{count} snapshots to be applied"),
        || match relay.metrics().count("carbonway_snapshots_applied_total") {
            applied if applied >= count => Ok(()),
            applied => Err(format!("{applied} were")),
        },
    );
}

#[test]
fn a_listener_can_be_added_without_touching_the_others() {
    let sink = Sink::open();
    let directory = Directory::of([
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ]);
    directory.write("relay.yaml", &relay("", ""));
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    sender.send("one 1 1\n");
    sink.wait_for_lines(1);
    let more = harness::relay("", "").replace(
        "listeners: [",
        "listeners: [{name: more, port: 2103, plaintext: {}}, ",
    );
    directory.write("relay.yaml", &more);
    wait_for_applied(&relay, 2);
    let other = std::net::SocketAddr::from((relay.address().ip(), 2103));
    Sender::deliver(other, "two 2 2\n");
    sender.send("three 3 3\n");
    let mut lines = sink.wait_for_lines(3);
    lines.sort();
    assert_eq!(lines, ["one 1 1", "three 3 3", "two 2 2"]);
    relay.settle(3);
    let received = relay
        .metrics()
        .counts_by("carbonway_lines_received_total", "listener", |_| true);
    assert_eq!(received, crate::counts([("more", 1), ("plain", 2)]));
}

#[test]
fn a_listener_that_is_removed_lets_go_of_its_senders_and_loses_nothing_that_they_had_sent() {
    let sink = Sink::open();
    let directory = Directory::of([
        carbon("a", sink.address(), BLOCK),
        route("all", "destinations: [{name: a}]"),
    ]);
    directory.write("relay.yaml", &relay("", ""));
    let relay = RelayProcess::run(&directory);
    let flood = Flood::start(relay.address(), "load.a");
    let mut silent = Sender::connect(relay.address());
    silent.send("silent 1 1\n");
    wait_for_more_lines(&sink, 5_000);
    let sent = flood.sent();
    let moved = harness::relay("", "").replace("port: 2003", "port: 2103");
    directory.write("relay.yaml", &moved);
    let began = Instant::now();
    silent.wait_until_closed();
    flood.wait_until_cut();
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "it took {:?}",
        began.elapsed()
    );
    let received = relay.accounts().received;
    assert!(
        received > sent,
        "{received} lines received, {sent} sent before the edit"
    );
    relay.settle(received);
    let other = std::net::SocketAddr::from((relay.address().ip(), 2103));
    Sender::deliver(other, "moved 1 1\n");
    relay.settle(received + 1);
}

#[test]
fn a_config_map_is_followed_as_the_kubelet_swaps_it() {
    let [a, b] = [0; 2].map(|_| Sink::open());
    let directory = Directory::of([
        relay("", ""),
        carbon("a", a.address(), ""),
        carbon("b", b.address(), ""),
    ]);
    let version = |name: &str, text: &str| {
        fs::create_dir(directory.file(name)).unwrap();
        fs::write(directory.file(name).join("routes.yaml"), text).unwrap();
        symlink(name, directory.file("..data_tmp")).unwrap();
        fs::rename(directory.file("..data_tmp"), directory.file("..data")).unwrap();
    };
    version("..1", &route("all", "destinations: [{name: a}]"));
    symlink("..data/routes.yaml", directory.file("routes.yaml")).unwrap();
    let relay = RelayProcess::run(&directory);
    Sender::deliver(relay.address(), "one 1 1\n");
    assert_eq!(a.wait_for_lines(1), ["one 1 1"]);
    version("..2", &route("all", "destinations: [{name: b}]"));
    wait_for_applied(&relay, 2);
    Sender::deliver(relay.address(), "two 2 2\n");
    assert_eq!(b.wait_for_lines(1), ["two 2 2"]);
    relay.settle(2);
}

#[test]
fn a_broken_edit_is_refused_and_traffic_goes_on_as_before() {
    let [a, b] = [0; 2].map(|_| Sink::open());
    let directory = Directory::of([
        relay("", ""),
        carbon("a", a.address(), ""),
        carbon("b", b.address(), ""),
    ]);
    directory.write("routes.yaml", &route("all", "destinations: [{name: a}]"));
    let relay = RelayProcess::run(&directory);
    let mut sender = Sender::connect(relay.address());
    let broken: [(&str, &[&str]); 4] = [
        (
            "match: {regex: '(abc'}, destinations: [{name: b}]",
            &["routes.yaml", "Route default/all", "match.regex"],
        ),
        (
            "destinations: [{name: nowhere}]",
            &[
                "routes.yaml",
                "Route default/all",
                "destinations[0].name",
                "nowhere",
            ],
        ),
        (
            "destination: [{name: b}]",
            &["routes.yaml", "Route default/all", "destination"],
        ),
        ("destinations: [{name: b}", &["routes.yaml"]),
    ];
    for (number, (spec, words)) in broken.into_iter().enumerate() {
        let said = relay.process.stderr().len();
        directory.write("routes.yaml", &route("all", spec));
        relay.process.wait_for_stderr(DEADLINE, said, words);
        assert_eq!(relay.status("/readyz"), Some(200), "{spec}");
        sender.send(format!("a {number} 1\n"));
        a.wait_for_lines(number + 1);
    }
    assert_eq!(
        relay.metrics().count("carbonway_snapshots_applied_total"),
        1
    );
    directory.write("routes.yaml", &route("all", "destinations: [{name: b}]"));
    wait_for_applied(&relay, 2);
    sender.send("mended 1 1\n");
    assert_eq!(b.wait_for_lines(1), ["mended 1 1"]);
    assert_eq!(a.lines(), ["a 0 1", "a 1 1", "a 2 1", "a 3 1"]);
    relay.settle(5);
}

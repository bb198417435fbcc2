//! Destinations with several connections, and those that are a Service.

use std::collections::{BTreeMap, BTreeSet};

use harness::{
    DEADLINE, Directory, RelayProcess, Sender, Sink, destination, eventually, numbered_line, relay,
    route,
};

const SERIES: u64 = 50;

// The EndpointSlice of Service g, with these sinks as its ready endpoints.
fn slice(sinks: &[(&str, &Sink)]) -> String {
    let endpoint = |(pod, sink): &(&str, &Sink)| {
        let address = sink.address().ip();
        format!("{{addresses: [{address}], targetRef: {{kind: Pod, name: {pod}}}}}")
    };
    let endpoints: Vec<String> = sinks.iter().map(endpoint).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: g-1, labels: {{kubernetes.io/service-name: g}}}}
addressType: IPv4
ports: [{{port: 2003}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}

fn relay_to_service(sinks: &[(&str, &Sink)], spec: &str) -> (RelayProcess, Directory) {
    let directory = Directory::of([
        relay("", ""),
        destination(
            "g",
            &format!("{spec} carbon: {{service: {{name: g, port: 2003}}}}"),
        ),
        route("all", "destinations: [{name: g}]"),
    ]);
    directory.write("slice.yaml", &slice(sinks));
    (RelayProcess::run(&directory), directory)
}

fn send(sender: &mut Sender, numbers: std::ops::Range<u64>) {
    let mut text = String::new();
    for number in numbers {
        for series in 0..SERIES {
            text += &numbered_line(&format!("load.s{series}"), number);
        }
    }
    sender.send(text);
}

fn series_of(sink: &Sink) -> BTreeSet<String> {
    sink.values().into_keys().collect()
}

fn wait_for_sum(sinks: &[&Sink], lines: u64) {
    eventually(DEADLINE, "every line", || {
        match sinks
            .iter()
            .map(|sink| sink.line_count() as u64)
            .sum::<u64>()
        {
            sum if sum >= lines => Ok(()),
            sum => Err(format!("{sum} of {lines}")),
        }
    });
}

// Every number of every series, over all sinks, whatever the order.
fn assert_all_arrived(sinks: &[&Sink], numbers: u64) {
    let mut arrived: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (series, values) in sinks.iter().flat_map(|sink| sink.values()) {
        arrived.entry(series).or_default().extend(values);
    }
    assert_eq!(arrived.len() as u64, SERIES);
    for (series, values) in arrived {
        assert_eq!(values, (0..numbers).collect(), "{series}");
    }
}

#[test]
fn a_series_is_always_on_one_of_several_connections_and_in_order() {
    let sink = Sink::open();
    let carbon = format!(
        "carbon: {{address: \"{}\", connections: 4}}",
        sink.address()
    );
    let directory = Directory::of([
        relay("", ""),
        destination("a", &carbon),
        route("all", "destinations: [{name: a}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    sink.wait_for_connections(4);
    let mut sender = Sender::connect(relay.address());
    send(&mut sender, 0..200);
    let lines = 200 * SERIES;
    sink.wait_for_lines(lines as usize);
    let mut seen = BTreeSet::new();
    for connection in sink.connections() {
        let text = String::from_utf8(connection.bytes).unwrap();
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        for line in text.lines() {
            let (series, rest) = line.split_once(' ').unwrap();
            let number: u64 = rest.split(' ').next().unwrap().parse().unwrap();
            let next = numbers.entry(series).or_default();
            assert_eq!(number, *next, "{series} is out of order");
            *next += 1;
        }
        assert!(!numbers.is_empty(), "a connection with nothing to do");
        for (series, count) in numbers {
            assert_eq!(count, 200, "{series} is on two connections");
            assert!(
                seen.insert(series.to_owned()),
                "{series} is on two connections"
            );
        }
    }
    relay.settle(lines);
    let metrics = relay.metrics();
    let of_a = [("destination", "default/a")];
    let open = metrics.get("carbonway_destination_connections", &of_a);
    assert_eq!(open, Some(4.0));
}

#[test]
fn the_ready_endpoints_of_a_service_share_its_series() {
    let sinks = [0; 3].map(|_| Sink::open());
    let [a, b, c] = [0, 1, 2].map(|index| &sinks[index]);
    let (relay, directory) = relay_to_service(&[("g-0", a), ("g-1", b)], "");
    let mut sender = Sender::connect(relay.address());
    send(&mut sender, 0..10);
    wait_for_sum(&[a, b], 10 * SERIES);
    let (at_a, at_b) = (series_of(a), series_of(b));
    assert!(at_a.is_disjoint(&at_b) && !at_a.is_empty() && !at_b.is_empty());

    // a third one comes: it takes over series of both, and none moves between these two
    directory.write("slice.yaml", &slice(&[("g-0", a), ("g-1", b), ("g-2", c)]));
    c.wait_for_connections(1);
    send(&mut sender, 10..20);
    wait_for_sum(&[a, b, c], 20 * SERIES);
    assert!(!series_of(c).is_empty());
    assert_eq!((series_of(a), series_of(b)), (at_a, at_b));

    // one leaves: the others get its series, and its connection ends in good order
    directory.write("slice.yaml", &slice(&[("g-1", b), ("g-2", c)]));
    a.wait_until_closed();
    send(&mut sender, 20..30);
    wait_for_sum(&[a, b, c], 30 * SERIES);
    assert_all_arrived(&[a, b, c], 30);
    let accounts = relay.settle(30 * SERIES);
    assert_eq!(accounts.destination("g").resent, 0);
}

#[test]
fn lines_wait_while_a_service_has_no_ready_endpoint() {
    let sink = Sink::open();
    let (relay, directory) = relay_to_service(&[], "");
    let mut sender = Sender::connect(relay.address());
    send(&mut sender, 0..10);
    eventually(DEADLINE, "the lines to wait", || {
        match relay.accounts().destination("g") {
            g if g.queued + g.spooled == 10 * SERIES => Ok(()),
            g => Err(format!("{g:?}")),
        }
    });
    directory.write("slice.yaml", &slice(&[("g-0", &sink)]));
    sink.wait_for_lines(10 * SERIES as usize);
    assert_all_arrived(&[&sink], 10);
    relay.settle(10 * SERIES);
}

#[test]
fn what_waits_for_an_endpoint_that_dies_and_goes_is_sent_to_the_others() {
    for spec in [
        "queue: {whenFull: DropNewest},",
        "queue: {whenFull: Spool},",
    ] {
        let [alive, mut dead] = [0; 2].map(|_| Sink::open());
        let (relay, directory) = relay_to_service(&[("g-0", &alive), ("g-1", &dead)], spec);
        let mut sender = Sender::connect(relay.address());
        send(&mut sender, 0..10);
        wait_for_sum(&[&alive, &dead], 10 * SERIES);
        dead.close();
        relay.wait_for_connected("g", false);
        send(&mut sender, 10..20);
        directory.write("slice.yaml", &slice(&[("g-0", &alive)]));
        // with what had gone to the dead one last, which may not have been read
        eventually(DEADLINE, "the lines at the one that is left", || {
            let values = alive.values();
            match values.len() as u64 == SERIES
                && values.values().all(|values| values.contains(&19))
            {
                true => Ok(()),
                false => Err(format!("{} series", values.len())),
            }
        });
        assert_all_arrived(&[&alive, &dead], 20);
        let accounts = relay.settle(20 * SERIES);
        assert!(accounts.destination("g").resent > 0, "{accounts:?}");
    }
}

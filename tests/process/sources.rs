//! Who sends: the addresses that may, what each may send, and the headers that tell of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use harness::{
    DEADLINE, Directory, RelayProcess, Sender, Sink, carbon, eventually, numbered_line, object,
    route,
};

use crate::counts;

const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

// A relay with a listener of these settings, which sends all to the sink.
fn relay(sink: &Sink, settings: &str) -> (Directory, RelayProcess) {
    let listener = format!("{{name: in, port: 2003, {settings}}}");
    let edge = object("Relay", "edge", &format!("listeners: [{listener}]"));
    let labels = "{name: edge, labels: {carbonway.io/default: \"true\"}}";
    let directory = Directory::of([
        edge.replace("{name: edge}", labels),
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    (directory, relay)
}

fn wait_for_count(relay: &RelayProcess, name: &str, expected: f64) {
    eventually(DEADLINE, name, || {
        match relay.metrics().get(name, &[("listener", "in")]) {
            Some(count) if count == expected => Ok(()),
            other => Err(format!("it is {other:?}")),
        }
    });
}

fn proxy_v2(source: [u8; 4], port: u16) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    let addresses = [&source[..], &[127, 0, 0, 1], &port.to_be_bytes(), &[7, 211]].concat();
    [&signature[..], &[0x21, 0x11, 0, 12], &addresses].concat()
}

#[test]
fn only_who_is_in_an_allowed_network_may_send() {
    let sink = Sink::open();
    let (_directory, relay) = relay(
        &sink,
        "plaintext: {transport: TcpAndUdp}, allowedSources: [127.0.0.2/32, 10.0.0.0/8]",
    );
    Sender::connect(relay.address()).wait_until_closed();
    Sender::connect_from(OTHER, relay.address()).send("a 1 1\n");
    for (source, line) in [(IpAddr::from([127, 0, 0, 1]), "b 2 2"), (OTHER, "c 3 3")] {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.send_to(line.as_bytes(), relay.address()).unwrap();
    }
    let mut lines = sink.wait_for_lines(2);
    lines.sort();
    assert_eq!(lines, ["a 1 1", "c 3 3"]);
    wait_for_count(&relay, "carbonway_listener_sources_refused_total", 2.0);
    relay.settle(2);
}

#[test]
fn a_proxy_header_tells_where_a_connection_comes_from() {
    let sink = Sink::open();
    let settings = "plaintext: {}, proxyProtocol: true, allowedSources: [10.1.0.0/16]";
    let (_directory, relay) = relay(&sink, settings);
    let mut old = Sender::connect(relay.address());
    // in pieces, as a network may cut it
    for piece in [
        "PROX",
        "Y TCP4 10.1.2.3 127.0.0.1 4321 2003\r",
        "\na 1 1\nbad\n",
    ] {
        old.trickle(piece);
    }
    sink.wait_for_lines(1);
    let mut new = Sender::connect(relay.address());
    new.send(proxy_v2([10, 1, 2, 4], 4321));
    new.send("worse\nb 2 2\n");
    sink.wait_for_lines(2);
    let refused = &relay.json("/refused")["field_count"];
    let told = |index: usize| {
        let refused = &refused[index];
        (refused["line"].as_str(), refused["source"].as_str())
    };
    let mut all = [told(0), told(1)];
    all.sort();
    assert_eq!(
        all,
        [
            (Some("bad"), Some("10.1.2.3:4321")),
            (Some("worse"), Some("10.1.2.4:4321")),
        ]
    );
    // a stranger, and somebody who has none
    let mut stranger = Sender::connect(relay.address());
    stranger.send(proxy_v2([10, 2, 0, 1], 4321));
    stranger.wait_until_closed();
    wait_for_count(&relay, "carbonway_listener_sources_refused_total", 1.0);
    let mut none = Sender::connect(relay.address());
    none.send("servers.web1.cpu 1 1\n");
    none.wait_until_closed();
    wait_for_count(
        &relay,
        "carbonway_listener_proxy_headers_invalid_total",
        1.0,
    );
    // what a load balancer's health check does
    drop(Sender::connect(relay.address()));
    relay.settle(4);
}

#[test]
fn an_address_has_so_many_connections_and_others_have_theirs() {
    let sink = Sink::open();
    let (_directory, relay) = relay(&sink, "plaintext: {}, maxConnectionsPerSource: 2");
    let mut open: Vec<Sender> = (0..2).map(|_| Sender::connect(relay.address())).collect();
    for sender in &mut open {
        sender.send("a 1 1\n");
    }
    sink.wait_for_lines(2);
    Sender::connect(relay.address()).wait_until_closed();
    Sender::connect_from(OTHER, relay.address()).send("b 2 2\n");
    sink.wait_for_lines(3);
    wait_for_count(&relay, "carbonway_connections_refused_total", 1.0);
    // a place that is left is taken again
    open.pop().unwrap().close();
    eventually(DEADLINE, "a place", || {
        let mut sender = Sender::connect(relay.address());
        sender.trickle("c 3 3\n");
        match sender.is_closed() {
            true => Err("there is none".to_owned()),
            false => Ok(()),
        }
    });
    sink.wait_for_lines(4);
}

#[test]
fn who_sends_too_fast_over_a_connection_is_slowed_down_and_loses_nothing() {
    const LINES: u64 = 3000;
    let sink = Sink::open();
    let (_directory, relay) = relay(&sink, "plaintext: {}, maxLinesPerSecondPerSource: 1000");
    let begun = Instant::now();
    let mut sender = Sender::connect(relay.address());
    // in pieces, so that what is read at once is not all of it
    for first in (0..LINES).step_by(100) {
        sender.send_numbers("slow", first, first + 100);
        sink.wait_for_lines(first as usize + 100);
    }
    // A thousand may come at once, and the rest as the limit says.
    assert!(
        begun.elapsed() > Duration::from_millis(1900),
        "{:?}",
        begun.elapsed()
    );
    relay.settle(LINES);
}

#[test]
fn datagrams_beyond_the_limit_are_dropped_and_counted() {
    let sink = Sink::open();
    let (_directory, relay) = relay(
        &sink,
        "plaintext: {transport: TcpAndUdp}, maxLinesPerSecondPerSource: 1",
    );
    let send = |source: IpAddr, lines: &str| {
        let socket = UdpSocket::bind(SocketAddr::new(source, 0)).unwrap();
        socket.send_to(lines.as_bytes(), relay.address()).unwrap();
    };
    let source = IpAddr::from([127, 0, 0, 1]);
    let many: String = (0..100)
        .map(|number| numbered_line("many", number))
        .collect();
    // the first is taken whole, and then no more for a long time
    send(source, &many);
    sink.wait_for_lines(100);
    send(source, "a 1 1\nb 2 2");
    send(OTHER, "c 3 3");
    sink.wait_for_lines(101);
    assert_eq!(relay.dropped(103), counts([("rate_limited", 2)]));
}

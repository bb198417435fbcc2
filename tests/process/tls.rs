//! TLS, in and out.

use std::time::{Duration, Instant};

use harness::{
    Authority, DEADLINE, Directory, Identity, RelayProcess, Sender, Sink, TlsSender, TlsSink,
    carbon, destination, eventually, numbered_line, relay, route, secret,
};

use crate::counts;

const ALL: &str = "destinations: [{name: a}]";
const SERVER: &str = "tls: {certificate: {name: relay}},";
const MUTUAL: &str = "tls: {certificate: {name: relay}, clientCa: {name: clients}},";

// A relay whose listener speaks TLS, and that takes every line to one sink. `secrets` are in a file of their own.
fn tls_relay_to(sink: &Sink, listener: &str, secrets: &[String]) -> (RelayProcess, Directory) {
    let directory = Directory::of([
        relay(listener, ""),
        carbon("a", sink.address(), ""),
        route("all", ALL),
    ]);
    directory.write("secrets.yaml", &secrets.join("---\n"));
    (RelayProcess::run(&directory), directory)
}

// A relay that takes every line to one server behind TLS, whose certificate is for the host "graphite".
fn relay_to_tls(sink: &TlsSink, tls: &str, secrets: &[String]) -> (RelayProcess, Directory) {
    let address = sink.address();
    let spec = format!(
        "carbon: {{address: \"{address}\", writeTimeout: 1s, tls: {{serverName: graphite, {tls}}}}}"
    );
    let directory = Directory::of([relay("", ""), destination("a", &spec), route("all", ALL)]);
    directory.write("secrets.yaml", &secrets.join("---\n"));
    (RelayProcess::run(&directory), directory)
}

fn failed_handshakes(relay: &RelayProcess) -> u64 {
    relay
        .metrics()
        .count("carbonway_tls_handshakes_failed_total")
}

#[track_caller]
fn wait_for_failed_handshakes(relay: &RelayProcess, count: u64) {
    eventually(DEADLINE, "handshakes to fail", || {
        match failed_handshakes(relay) {
            failed if failed == count => Ok(()),
            failed => Err(format!("{failed} of {count} did")),
        }
    });
}

#[test]
fn senders_are_served_over_tls() {
    let (authority, sink) = (Authority::new(), Sink::open());
    let identity = authority.identity("relay");
    let (relay, _directory) = tls_relay_to(&sink, SERVER, &[identity.secret("relay")]);
    let mut sender = TlsSender::connect(relay.address(), &authority, None).unwrap();
    assert_eq!(sender.shown(), Some(identity.der()));
    let lines: String = (0..20_000).map(|n| numbered_line("load.a", n)).collect();
    sender.send(&lines);
    sender.send("last.line 1 1");
    sender.close();
    sink.wait_for_lines(20_001);
    assert_eq!(sink.text(), format!("{lines}last.line 1 1\n"));
    relay.settle(20_001);
    assert_eq!(failed_handshakes(&relay), 0);
}

#[test]
fn a_stream_that_is_cut_is_not_taken_for_one_that_has_ended() {
    let (authority, sink) = (Authority::new(), Sink::open());
    let secrets = [authority.identity("relay").secret("relay")];
    let (relay, _directory) = tls_relay_to(&sink, SERVER, &secrets);
    let mut sender = TlsSender::connect(relay.address(), &authority, None).unwrap();
    sender.send("a 1 1\nb 1 17000");
    sender.cut();
    assert_eq!(relay.dropped(2), counts([("truncated", 1)]));
    assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
}

#[test]
fn senders_without_a_certificate_of_the_right_ca_are_refused() {
    let [authority, clients, others] = [0; 3].map(|_| Authority::new());
    let sink = Sink::open();
    let secrets = [
        authority.identity("relay").secret("relay"),
        clients.secret("clients"),
    ];
    let (relay, _directory) = tls_relay_to(&sink, MUTUAL, &secrets);
    let connect = |identity: Option<&Identity>| {
        TlsSender::connect(relay.address(), &authority, identity).unwrap()
    };
    let mut good = connect(Some(&clients.identity("sender")));
    good.send("a 1 1\n");
    good.close();
    assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
    let nobody = connect(None).wait_until_refused();
    assert!(nobody.contains("CertificateRequired"), "{nobody}");
    let stranger = connect(Some(&others.identity("sender"))).wait_until_refused();
    assert!(stranger.contains("UnknownCA"), "{stranger}");
    wait_for_failed_handshakes(&relay, 2);
    relay.settle(1);
}

#[test]
fn a_renewed_certificate_is_for_new_connections_and_leaves_the_others_alone() {
    let (authority, sink) = (Authority::new(), Sink::open());
    let [before, after] = [0; 2].map(|_| authority.identity("relay"));
    let (relay, directory) = tls_relay_to(&sink, SERVER, &[before.secret("relay")]);
    let connect = || TlsSender::connect(relay.address(), &authority, None).unwrap();
    let mut old = connect();
    old.send("a 1 1\n");
    sink.wait_for_lines(1);
    directory.write("secrets.yaml", &after.secret("relay"));
    let mut new = eventually(DEADLINE, "the new certificate to be shown", || {
        let sender = connect();
        match sender.shown() {
            shown if shown == Some(after.der()) => Ok(sender),
            _ => Err("the old one is".to_owned()),
        }
    });
    assert_eq!(old.shown(), Some(before.der()));
    old.send("b 1 1\n");
    sink.wait_for_lines(2);
    new.send("c 1 1\n");
    assert_eq!(sink.wait_for_lines(3), ["a 1 1", "b 1 1", "c 1 1"]);
    old.close();
    new.close();
    relay.settle(3);
}

#[test]
fn what_is_not_encrypted_is_refused_and_counted() {
    let (authority, sink) = (Authority::new(), Sink::open());
    let secrets = [authority.identity("relay").secret("relay")];
    let (relay, _directory) = tls_relay_to(&sink, SERVER, &secrets);
    let mut sender = Sender::connect(relay.address());
    sender.send("a 1 1\n");
    wait_for_failed_handshakes(&relay, 1);
    relay.settle(0);
    assert_eq!(sink.text(), "");
}

#[test]
fn a_handshake_without_end_is_cut_and_holds_nobody_up() {
    let (authority, sink) = (Authority::new(), Sink::open());
    let listener = format!("maxConnections: 2, {SERVER}");
    let secrets = [authority.identity("relay").secret("relay")];
    let (relay, _directory) = tls_relay_to(&sink, &listener, &secrets);
    let began = Instant::now();
    let mut silent = Sender::connect(relay.address());
    let mut sender = TlsSender::connect(relay.address(), &authority, None).unwrap();
    sender.send("a 1 1\n");
    sink.wait_for_lines(1);
    // both places are taken, one of them by the handshake
    Sender::connect(relay.address()).wait_until_closed();
    assert_eq!(failed_handshakes(&relay), 0);
    silent.wait_until_closed();
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9), "{took:?}");
    wait_for_failed_handshakes(&relay, 1);
    sender.send("b 1 1\n");
    assert_eq!(sink.wait_for_lines(2), ["a 1 1", "b 1 1"]);
}

#[test]
fn a_carbon_server_is_spoken_to_over_tls() {
    let authority = Authority::new();
    let sink = TlsSink::open(&authority.identity("graphite"), None);
    let (relay, _directory) = relay_to_tls(&sink, "ca: {name: ca}", &[authority.secret("ca")]);
    let lines: String = (0..50_000).map(|n| numbered_line("load.a", n)).collect();
    Sender::deliver(relay.address(), &lines);
    relay.settle(50_000);
    relay.process.signal(harness::Signal::TERM);
    sink.wait_until_closed();
    assert_eq!(sink.connections().len(), 1);
    assert!(sink.text() == lines, "every line came once and in order");
}

#[test]
fn nothing_is_sent_to_a_server_of_another_ca_or_name() {
    let [authority, other] = [0; 2].map(|_| Authority::new());
    for (host, wrong) in [("graphite", &other), ("elsewhere", &authority)] {
        let sink = TlsSink::open(&authority.identity(host), None);
        let (relay, directory) = relay_to_tls(&sink, "ca: {name: ca}", &[wrong.secret("ca")]);
        Sender::deliver(relay.address(), "a 1 1\n");
        sink.wait_for_failed_handshakes(2);
        let accounts = relay.accounts();
        let destination = &accounts.destinations["default/a"];
        assert_eq!((destination.sent, destination.queued), (0, 1));
        assert_eq!(sink.connections(), []);
        if host == "graphite" {
            directory.write("secrets.yaml", &authority.secret("ca"));
            assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
            relay.settle(1);
        }
    }
}

#[test]
fn a_server_that_wants_a_certificate_gets_every_line_once_it_has_one() {
    let [authority, clients] = [0; 2].map(|_| Authority::new());
    let sink = TlsSink::open(&authority.identity("graphite"), Some(&clients));
    let stranger = authority.identity("relay");
    let secrets = |identity: &Identity| [authority.secret("ca"), identity.secret("relay")];
    let tls = "ca: {name: ca}, certificate: {name: relay}";
    let (relay, directory) = relay_to_tls(&sink, tls, &secrets(&stranger));
    let lines: String = (0..1_000).map(|n| numbered_line("load.a", n)).collect();
    Sender::deliver(relay.address(), &lines);
    // the relay has shaken hands by then, and must not take that for an agreement
    sink.wait_for_failed_handshakes(2);
    assert_eq!(relay.accounts().destinations["default/a"].sent, 0);
    let identity = clients.identity("relay");
    directory.write("secrets.yaml", &secrets(&identity).join("---\n"));
    sink.wait_for_lines(1_000);
    relay.settle(1_000);
    assert_eq!(sink.text(), lines);
    assert_eq!(sink.connections()[0].shown, Some(identity.der()));
}

#[test]
fn a_renewed_certificate_leaves_the_connection_to_a_server_alone() {
    let authority = Authority::new();
    let sink = TlsSink::open(&authority.identity("graphite"), Some(&authority));
    let [before, after] = [0; 2].map(|_| authority.identity("relay"));
    let secrets = |identity: &Identity| [authority.secret("ca"), identity.secret("relay")];
    let tls = "ca: {name: ca}, certificate: {name: relay}";
    let (relay, directory) = relay_to_tls(&sink, tls, &secrets(&before));
    Sender::deliver(relay.address(), "a 1 1\n");
    sink.wait_for_lines(1);
    let applied = || relay.metrics().count("carbonway_snapshots_applied_total");
    let snapshots = applied();
    directory.write("secrets.yaml", &secrets(&after).join("---\n"));
    eventually(
        DEADLINE,
        "the new certificate to be applied",
        || match applied() {
            now if now > snapshots => Ok(()),
            now => Err(format!("{now} snapshots were")),
        },
    );
    Sender::deliver(relay.address(), "b 1 1\n");
    assert_eq!(sink.wait_for_lines(2), ["a 1 1", "b 1 1"]);
    let shown: Vec<_> = sink
        .connections()
        .into_iter()
        .map(|connection| connection.shown)
        .collect();
    assert_eq!(shown, [Some(before.der())]);
}

#[test]
fn a_server_that_takes_nothing_any_more_is_given_up_and_what_it_did_not_take_comes_again() {
    let authority = Authority::new();
    let sink = TlsSink::open(&authority.identity("graphite"), None);
    let (relay, _directory) = relay_to_tls(&sink, "ca: {name: ca}", &[authority.secret("ca")]);
    Sender::deliver(relay.address(), "a 1 1\n");
    sink.wait_for_lines(1);
    sink.pause();
    // more than the kernels of both sides hold
    let lines: String = (0..500_000).map(|n| numbered_line("load.a", n)).collect();
    Sender::deliver(relay.address(), &lines);
    relay.wait_for_connected("a", false);
    let sent = relay.accounts().destinations["default/a"].sent;
    assert!((1..500_001).contains(&sent), "{sent}");
    sink.resume();
    relay.settle(500_001);
    eventually(DEADLINE, "the last line", || {
        match sink.text().ends_with(&numbered_line("load.a", 499_999)) {
            true => Ok(()),
            false => Err(format!("{} bytes came", sink.text().len())),
        }
    });
    let mut numbers = vec![false; 500_000];
    for connection in sink.connections() {
        let text = String::from_utf8(connection.bytes).unwrap();
        // a connection that was given up may end within a line, which comes again
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        for line in whole.lines().filter(|line| *line != "a 1 1") {
            let number = line.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(format!("{line}\n"), numbered_line("load.a", number));
            numbers[number as usize] = true;
        }
    }
    assert_eq!(numbers.iter().position(|came| !came), None);
}

#[test]
fn a_secret_that_cannot_be_used_is_named_and_never_shown() {
    let authority = Authority::new();
    let [identity, other] = [0; 2].map(|_| authority.identity("relay"));
    let sink = Sink::open();
    let (relay, directory) = tls_relay_to(&sink, SERVER, &[identity.secret("relay")]);
    let entries = [
        ("tls.crt", &*identity.certificate),
        ("tls.key", &*other.key),
    ];
    directory.write("secrets.yaml", &secret("relay", &entries));
    let fault = "spec.listeners[plain].tls.certificate.name: Secret default/relay: tls.key is not the key of the \
                 certificate in tls.crt";
    eventually(DEADLINE, "the fault to be told", || {
        let log = relay.process.stderr().join("\n");
        if log.contains(fault) {
            Ok(())
        } else {
            Err(log)
        }
    });
    // the last good table stays
    let mut sender = TlsSender::connect(relay.address(), &authority, None).unwrap();
    sender.send("a 1 1\n");
    assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
    let told = [
        relay.process.stderr().join("\n"),
        relay.json("/conditions").to_string(),
        relay.json("/refused").to_string(),
        relay.json("/explain?line=a%201%201").to_string(),
    ];
    for key in [identity.key, other.key] {
        let inside = key.lines().nth(1).unwrap();
        assert!(!told.iter().any(|text| text.contains(inside)), "{told:?}");
    }
}

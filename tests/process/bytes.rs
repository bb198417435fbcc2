//! What comes out for what went in, byte by byte.

use harness::{Accounts, DestinationAccounts, Flood, Sender, Sink, unix_seconds};

use crate::relay_to;

#[test]
fn lines_are_forwarded_byte_for_byte_with_one_space_between_fields() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let cases = [
        (
            "servers.web1.cpu 1 1700000000\n",
            "servers.web1.cpu 1 1700000000\n",
        ),
        ("foo   1\t2\r\n", "foo 1 2\n"),
        (" \t foo\x0b1\x0c2 \n", "foo 1 2\n"),
        ("foo 1 2\r\n", "foo 1 2\n"),
        (".foo 1 2\n", "foo 1 2\n"),
        ("..foo 1 2\n", ".foo 1 2\n"),
        // value and timestamp are text
        (
            "a +1.50e+03 0001700000000.750\n",
            "a +1.50e+03 0001700000000.750\n",
        ),
        ("a -0 0\n", "a -0 0\n"),
        ("a 1e100 4294967295\n", "a 1e100 4294967295\n"),
        ("a .5 123.9\n", "a .5 123.9\n"),
        // names
        ("sys.cpu;host=a 1 2\n", "sys.cpu;host=a 1 2\n"),
        ("cpu;host=a;dc=b 1 2\n", "cpu;host=a;dc=b 1 2\n"),
        ("foo.bar=baz 1 2\n", "foo.bar=baz 1 2\n"),
        ("foo..bar.ba::z{}\"' 1 2\n", "foo..bar.ba::z{}\"' 1 2\n"),
        (
            "unit=B.mtype=gauge.x=y 1 2\n",
            "unit=B.mtype=gauge.x=y 1 2\n",
        ),
        (
            "unit_is_B.mtype_is_gauge.x_is_y 1 2\n",
            "unit_is_B.mtype_is_gauge.x_is_y 1 2\n",
        ),
    ];
    let sent: String = cases.iter().map(|(sent, _)| *sent).collect();
    let expected: String = cases.iter().map(|(_, expected)| *expected).collect();
    Sender::deliver(relay.address(), sent);
    sink.wait_for_lines(cases.len());
    assert_eq!(sink.text(), expected);
    relay.settle(cases.len() as u64);
}

#[test]
fn a_timestamp_that_asks_for_now_gets_it() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let before = unix_seconds();
    Sender::deliver(relay.address(), "a 1 -1\nb 2 N\n");
    let lines = sink.wait_for_lines(2);
    let after = unix_seconds();
    for (line, begin) in lines.iter().zip(["a 1 ", "b 2 "]) {
        let timestamp = line
            .strip_prefix(begin)
            .and_then(|seconds| seconds.parse().ok());
        let timestamp: u64 = timestamp.unwrap_or_else(|| panic!("{line}"));
        assert!(
            (before..=after).contains(&timestamp),
            "{line}, not {before} to {after}"
        );
    }
    relay.settle(2);
}

#[test]
fn a_line_may_come_in_pieces() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let text = "servers.web1.cpu 1 1700000000\r\nservers.web2.cpu;dc=a 2.5 1700000001\n";
    let mut sender = Sender::connect(relay.address());
    for byte in text.as_bytes() {
        sender.send([*byte]);
    }
    sink.wait_for_lines(2);
    assert_eq!(sink.text(), text.replace('\r', ""));
    relay.settle(2);
}

#[test]
fn a_last_line_without_a_newline_counts_when_the_sender_closes_in_good_order() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    Sender::deliver(relay.address(), "a 1 1\nb 2 2");
    sink.wait_for_lines(2);
    assert_eq!(sink.text(), "a 1 1\nb 2 2\n");
    relay.settle(2);
}

#[test]
fn every_line_of_a_series_arrives_once_and_in_order() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let floods =
        ["load.a", "load.b", "load.c"].map(|name| (name, Flood::start(relay.address(), name)));
    floods
        .iter()
        .for_each(|(_, flood)| flood.wait_for_more(30_000));
    let sent = floods.map(|(name, flood)| (name, flood.finish()));
    let total = sent.iter().map(|(_, sent)| sent).sum();
    let a = DestinationAccounts {
        offered: total,
        sent: total,
        ..DestinationAccounts::default()
    };
    let expected = Accounts {
        received: total,
        forwarded: total,
        destinations: [("default/a".into(), a)].into(),
        ..Accounts::default()
    };
    assert_eq!(relay.settle(total), expected);
    sink.wait_for_lines(total as usize);
    let values = sink.values();
    for (name, sent) in sent {
        assert_eq!(values[name], (0..sent).collect::<Vec<_>>(), "{name}");
    }
}

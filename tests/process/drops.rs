//! Lines that are dropped, each counted under one reason. Vectors of carbon-relay-ng, at its level medium.

use harness::{Accounts, Sender, Sink};

use crate::{counts, relay_to};

const BAD: [(&str, &[u8]); 52] = [
    ("blank", b""),
    ("blank", b"\r"),
    ("blank", b" \t "),
    ("field_count", b"foo"),
    ("field_count", b"foo 1"),
    ("field_count", b"foo 1 2 3"),
    ("name_empty", b". 1 2"),
    ("name_non_ascii", b"foo..bar.b\xbdz 1 2"),
    ("name_non_ascii", b"foo.bar;k=\xbdz 1 2"),
    ("name_non_ascii", "caf\u{e9}.cpu 1 2".as_bytes()),
    ("name_nul", b"foo..bar.b\0z 1 2"),
    ("name_nul", b"foo.bar;k=\0z 1 2"),
    ("tags_invalid", b"foo.bar; 1 2"),
    ("tags_invalid", b"foo.bar;k 1 2"),
    ("tags_invalid", b"foo.bar;k= 1 2"),
    ("tags_invalid", b"foo.bar;k!=v 1 2"),
    ("tags_invalid", b"foo.bar;k=v;;k2=v2 1 2"),
    ("tags_invalid", b"foo.bar;!=v 1 2"),
    ("tags_invalid", b"foo.bar;!k=v 1 2"),
    ("tags_invalid", b"foo.bar;k=v; 1 2"),
    ("tags_invalid", b"foo.bar;k=v;= 1 2"),
    ("tags_invalid", b"foo.bar;k=v;k2= 1 2"),
    ("tags_invalid", b"foo.bar;;k=v 1 2"),
    ("tags_invalid", b"foo.bar;k=v= 1 2"),
    ("tags_invalid", b"foo.bar;k=v;k2==v2 1 2"),
    ("tags_invalid", b";k=v 1 2"),
    ("metrics20_mixed", b"foo=bar_is_b.unit=B.mtype=c 1 2"),
    ("metrics20_no_unit", b"this_is_x.cpu 1 2"),
    ("metrics20_no_unit", b"service=a.mtype=gauge.x=y 1 2"),
    ("metrics20_no_mtype", b"unit=B.x=y.z=a 1 2"),
    ("metrics20_no_mtype", b"unit_is_B.x_is_y.z_is_a 1 2"),
    ("metrics20_too_few_tags", b"unit=B.mtype=gauge 1 2"),
    ("value_invalid", b"a z1 1"),
    ("value_invalid", b"a ++1 1"),
    ("value_invalid", b"a 0x1p-2 1"),
    ("value_invalid", b"a 1_000 1"),
    ("value_invalid", b"a 1e400 1"),
    ("value_invalid", b"a 1,5 1"),
    ("value_not_finite", b"a NaN 1"),
    ("value_not_finite", b"a nan 1"),
    ("value_not_finite", b"a inf 1"),
    ("value_not_finite", b"a -Infinity 1"),
    ("timestamp_invalid", b"a 1 123abc"),
    ("timestamp_invalid", b"a 1 1e9"),
    ("timestamp_invalid", b"a 1 nan"),
    ("timestamp_invalid", b"a 1 -2"),
    ("timestamp_invalid", b"a 1 4294967296"),
    ("timestamp_invalid", b"a 1 1.2.3"),
    ("timestamp_invalid", b"a 1 0x10"),
    ("timestamp_invalid", b"a 1 n"),
    // the first thing that is wrong gives the reason
    ("name_non_ascii", b"b\xbdz;k 1 2"),
    ("field_count", b"b\xbdz 1"),
];

#[test]
fn a_bad_line_is_dropped_for_one_reason_and_those_around_it_are_not() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let mut expected = Accounts::default();
    for (reason, line) in BAD {
        let sent = [b"before 1 1\n", line, b"\nafter 1 1\n"].concat();
        Sender::deliver(relay.address(), sent);
        expected.received += 3;
        expected.forwarded += 2;
        *expected.dropped.entry(reason.into()).or_default() += 1;
        let mut accounts = relay.settle(expected.received);
        accounts.destinations.clear();
        assert_eq!(accounts, expected, "{}", String::from_utf8_lossy(line));
    }
    sink.wait_for_lines(BAD.len() * 2);
    assert_eq!(sink.text(), "before 1 1\nafter 1 1\n".repeat(BAD.len()));
}

#[test]
fn every_reason_is_shown_before_it_is_needed() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "");
    let metrics = relay.metrics();
    let shown: Vec<_> = metrics.samples("carbonway_lines_dropped_total").collect();
    for reason in BAD.map(|(reason, _)| reason).into_iter().chain([
        "line_too_long",
        "truncated",
        "no_room",
        "blocklisted",
        "unrouted",
    ]) {
        let sample = metrics.get("carbonway_lines_dropped_total", &[("reason", reason)]);
        assert_eq!(sample, Some(0.0), "{reason}: {shown:?}");
    }
    assert_eq!(relay.dropped(0), counts([]));
}

//! Validation, rewriting, and how people find out what became of a line.

use std::process::Command;

use harness::{
    Directory, RelayProcess, Sender, Sink, binary, blocklist, carbon, finish, get, relay, rewriter,
    route, unix_seconds,
};
use serde_json::{Value, json};

use crate::{counts, relay_to};

#[test]
fn rewriters_change_names_in_their_order() {
    let sink = Sink::open();
    let directory = Directory::of([
        relay("", ""),
        carbon("a", sink.address(), ""),
        route("ams", "match: {prefix: ams.}, destinations: [{name: a}]"),
        rewriter(
            "first",
            r"{name: dc, regex: '^dc1\.', with: 'west.'}, {name: x, literal: foo, with: bar, max: 1, unless: {contains: keep}}",
        ),
        rewriter(
            "second",
            r"{name: west, regex: '^west\.(?P<rest>.*)$', with: 'ams.$rest'}",
        ),
        blocklist("b", "{prefix: ams.blocked}, {prefix: dc1.blocked}"),
    ]);
    let relay = RelayProcess::run(&directory);
    Sender::deliver(
        relay.address(),
        "dc1.foo.foo 1 2\ndc1.foo.keep 1 2\ndc1.blocked 1 2\nwest.blocked 1 2\nother 1 2\n",
    );
    assert_eq!(
        sink.wait_for_lines(3),
        ["ams.bar.foo 1 2", "ams.foo.keep 1 2", "ams.blocked 1 2"]
    );
    assert_eq!(
        relay.dropped(5),
        counts([("blocklisted", 1), ("unrouted", 1)])
    );
}

#[test]
fn validation_is_what_the_relay_says() {
    let sink = Sink::open();
    let validation = "validation: {level: Strict, nan: Forward, rejectOutOfOrder: true, maxPast: 1h, maxFuture: 1h, tags: Normalised},";
    let directory = Directory::of([
        relay("", validation),
        carbon("a", sink.address(), ""),
        route("all", "destinations: [{name: a}]"),
    ]);
    let relay = RelayProcess::run(&directory);
    let now = unix_seconds();
    let lines = [
        format!("a.b;z=1;c=2 1 {now}"),
        format!("a..b 1 {now}"),
        format!("a:b 1 {now}"),
        format!("x nan {now}"),
        format!("a.b;c=2;z=1 1 {now}"),
        format!("old 1 {}", now - 7200),
        format!("new 1 {}", now + 7200),
        format!("x 1 {}", now + 1),
    ];
    Sender::deliver(relay.address(), lines.join("\n") + "\n");
    assert_eq!(
        sink.wait_for_lines(3),
        [
            format!("a.b;c=2;z=1 1 {now}"),
            format!("x nan {now}"),
            format!("x 1 {}", now + 1),
        ]
    );
    assert_eq!(
        relay.dropped(8),
        counts([
            ("name_empty_node", 1),
            ("name_illegal_character", 1),
            ("out_of_order", 1),
            ("timestamp_past", 1),
            ("timestamp_future", 1),
        ])
    );
}

#[test]
fn the_last_refused_lines_can_be_read_by_reason() {
    let sink = Sink::open();
    let (relay, _directory) = relay_to(&sink, "plaintext: {maxLineBytes: 64},");
    let mut sender = Sender::connect(relay.address());
    sender.send(format!("a b 2\nbadé {}\n", "x".repeat(70)));
    sender.send("a 1 2 3 4\nfine 1 2\nunfinished");
    assert_eq!(sink.wait_for_lines(1), ["fine 1 2"]);
    sender.reset();
    relay.settle(5);
    let refused = relay.json("/refused");
    let first = |reason: &str| refused[reason][0].clone();
    let source = first("value_invalid")["source"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(source.starts_with("127."), "{source}");
    let time = first("value_invalid")["time"].as_u64().unwrap();
    assert!(time.abs_diff(unix_seconds()) < 60, "{time}");
    assert_eq!(first("value_invalid")["line"], "a b 2");
    assert_eq!(first("value_invalid")["listener"], "plain");
    assert_eq!(first("field_count")["line"], "a 1 2 3 4");
    assert!(
        first("line_too_long")["line"]
            .as_str()
            .unwrap()
            .starts_with(r"bad\xc3\xa9 xxx")
    );
    assert_eq!(first("truncated")["line"], "unfinished");
    assert_eq!(refused.as_object().unwrap().len(), 4);
}

#[test]
fn explain_tells_the_way_of_a_line_offline_and_from_a_running_relay() {
    let sink = Sink::open();
    let directory = Directory::of([
        relay("", ""),
        carbon("a", sink.address(), ""),
        route(
            "web",
            "match: {glob: 'servers.web*.**'}, onMatch: Stop, destinations: [{name: a}]",
        ),
        route("rest", "unmatchedOnly: true, destinations: [{name: a}]"),
        rewriter("hosts", r"{name: x, regex: '^hosts\.', with: 'servers.'}"),
        blocklist("junk", "{suffix: .tmp}"),
    ]);
    let relay = RelayProcess::run(&directory);
    let explain = |line: &str, output: &str| {
        let mut command = Command::new(binary("carbonway"));
        let finished = finish(
            command
                .arg("explain")
                .arg(directory.path())
                .args([line, "--output", output]),
        );
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    let line = "hosts.web1.cpu 1 1700000000";
    let offline: Value = serde_json::from_str(&explain(line, "json")).unwrap();
    assert_eq!(offline["outcome"], "forwarded");
    assert_eq!(offline["name"], "servers.web1.cpu");
    assert_eq!(
        offline["routes"],
        json!([{"route": "default/web", "destinations": ["default/a"]}])
    );
    let running = relay.json("/explain?line=hosts.web1.cpu+1+1700000000");
    assert_eq!(running, offline);
    let text = get(
        relay.admin(),
        "/explain?line=hosts.web1.cpu+1+1700000000&output=text",
    )
    .unwrap();
    assert_eq!(text.body, explain(line, "text"));
    assert_eq!(
        explain(line, "text"),
        "* parse     name 'hosts.web1.cpu', value 1, timestamp 1700000000\n\
         * validate  let in\n\
         \x20 blocklist default/junk entries[0]: match.suffix does not hold\n\
         * rewrite   default/hosts rules[0] 'x': 'hosts.web1.cpu' becomes 'servers.web1.cpu'\n\
         * route     default/web: takes it, for default/a; stops\n\
         forwarded to default/a\n"
    );
    let dropped: Value = serde_json::from_str(&explain("a.tmp", "json")).unwrap();
    assert_eq!(
        (&dropped["outcome"], &dropped["reason"], &dropped["routes"]),
        (&json!("dropped"), &json!("blocklisted"), &json!([]))
    );
    let asked_wrongly = get(relay.admin(), "/explain").unwrap();
    assert_eq!(asked_wrongly.status, 400);
}

//! A relay and its operator: what it takes, what it refuses, and how it does without.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use harness::{
    DEADLINE, Directory, Fleet, HttpSink, Operator, RelayProcess, Sender, Sink, SnapshotBuilder,
    eventually,
};
use relay_proto::{Answer, ObjectError, ObjectRef, Version};

fn start(operator: &Operator, state: &Directory) -> RelayProcess {
    RelayProcess::start_in(Fleet {
        operator: operator.address(),
        relay: "default/edge",
        pod: "edge-0",
        state: state.path(),
        credentials: None,
    })
}

// Everything to one sink.
fn all_to(sink: &Sink) -> SnapshotBuilder {
    SnapshotBuilder::new()
        .carbon("a", sink.address())
        .route("all", "", "a")
}

fn ack(nonce: u64, version: Version) -> Answer {
    Answer {
        nonce,
        version: version.as_bytes().to_vec(),
        errors: Vec::new(),
    }
}

#[test]
fn a_relay_says_who_it_is_takes_what_is_offered_and_acknowledges_it() {
    let (operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    let mut relay = start(&operator, &state);
    let hello = operator.wait_for_hellos(1);
    assert_eq!(
        hello.relay,
        Some(ObjectRef::new("Relay", "default", "edge"))
    );
    assert_eq!(
        (&hello.pod[..], hello.schema_max),
        ("edge-0", relay_proto::SCHEMA)
    );
    assert_eq!(
        (&hello.active_version[..], hello.build.is_empty()),
        (&[][..], false)
    );
    assert_eq!(
        (relay.status("/livez"), relay.status("/readyz")),
        (Some(200), Some(503))
    );

    let version = operator.publish(&all_to(&sink).build());
    assert_eq!(operator.wait_for_answers(1), ack(1, version));
    relay.wait_until_ready();
    Sender::deliver(relay.address(), "servers.web1.cpu 1 1700000000\n");
    assert_eq!(sink.wait_for_lines(1), ["servers.web1.cpu 1 1700000000"]);
    relay.settle(1);
}

#[test]
fn a_new_snapshot_changes_where_lines_go_on_open_connections() {
    let (operator, state) = (Operator::start(), Directory::of([]));
    let (old, new) = (Sink::open(), Sink::open());
    operator.publish(&all_to(&old).build());
    let mut relay = start(&operator, &state);
    relay.wait_until_ready();
    let mut sender = Sender::connect(relay.address());
    sender.send("a.b 1 1\n");
    old.wait_for_lines(1);
    let snapshot = SnapshotBuilder::new()
        .carbon("b", new.address())
        .route("all", "", "b");
    let version = operator.publish(&snapshot.build());
    assert_eq!(operator.wait_for_answers(2), ack(2, version));
    sender.send("a.b 2 2\n");
    assert_eq!(new.wait_for_lines(1), ["a.b 2 2"]);
    assert_eq!(old.lines(), ["a.b 1 1"]);
    relay.settle(2);
}

#[test]
fn a_snapshot_that_cannot_be_loaded_is_refused_with_every_reason_and_the_old_one_stays() {
    let (operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    operator.publish(&all_to(&sink).build());
    let mut relay = start(&operator, &state);
    relay.wait_until_ready();

    let broken = all_to(&sink)
        .route("bad", "(abc", "a")
        .route("dangling", "", "nowhere");
    let refused = operator.publish(&broken.build());
    let answer = operator.wait_for_answers(2);
    assert_eq!((answer.nonce, &answer.version[..]), (2, refused.as_bytes()));
    let causes: Vec<_> = answer
        .errors
        .iter()
        .map(|error| (source(error), &error.field[..]))
        .collect();
    let expected = [
        ("Route default/bad", "match.regex"),
        ("Route default/dangling", "destinations[0].name"),
    ];
    assert_eq!(
        causes,
        expected.map(|(source, field)| (source.to_owned(), field))
    );
    assert!(
        answer.errors.iter().all(|error| !error.message.is_empty()),
        "{answer:?}"
    );

    assert_eq!(relay.status("/readyz"), Some(200));
    Sender::deliver(relay.address(), "a.b 1 1\n");
    assert_eq!(sink.wait_for_lines(1), ["a.b 1 1"]);
    relay.settle(1);
    let mended = operator.publish(&all_to(&sink).route("mended", "abc", "a").build());
    assert_eq!(operator.wait_for_answers(3), ack(3, mended));
}

#[test]
fn a_snapshot_from_a_newer_release_is_refused() {
    let (operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    let mut snapshot = all_to(&sink).build();
    snapshot.schema = relay_proto::SCHEMA + 1;
    let version = operator.publish(&snapshot);
    let relay = start(&operator, &state);
    let answer = operator.wait_for_answers(1);
    assert_eq!((answer.nonce, &answer.version[..]), (1, version.as_bytes()));
    assert_eq!(answer.errors.len(), 1, "{answer:?}");
    assert_eq!(relay.status("/readyz"), Some(503));
}

#[test]
fn a_port_that_is_taken_is_the_relay_resources_fault_and_the_old_snapshot_stays() {
    let (operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    operator.publish(&all_to(&sink).build());
    let mut relay = start(&operator, &state);
    relay.wait_until_ready();
    let _taken = TcpListener::bind((relay.address().ip(), 2103)).unwrap();
    let mut snapshot = all_to(&sink).build();
    let mut more = snapshot.listeners[0].clone();
    (more.name, more.port) = ("more".into(), 2103);
    snapshot.listeners.insert(0, more);
    operator.publish(&snapshot);
    let answer = operator.wait_for_answers(2);
    let causes: Vec<_> = answer
        .errors
        .iter()
        .map(|error| (source(error), &error.field[..]))
        .collect();
    assert_eq!(
        causes,
        [("Relay default/edge".to_owned(), "listeners[more].port")]
    );
    Sender::deliver(relay.address(), "a 1 1\n");
    assert_eq!(sink.wait_for_lines(1), ["a 1 1"]);
    relay.settle(1);
}

fn source(error: &ObjectError) -> String {
    error
        .source
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[test]
fn a_snapshot_that_was_damaged_on_the_way_is_refused() {
    let (mut operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    let good = operator.publish(&all_to(&sink).build());
    let mut relay = start(&operator, &state);
    relay.wait_until_ready();
    let bytes = b"not the bytes of that version".to_vec();
    operator.publish_bytes(Version::of(b"others"), bytes.into());
    let answer = operator.wait_for_answers(2);
    assert_eq!(answer.version, Version::of(b"others").as_bytes());
    assert_eq!(answer.errors.len(), 1, "{answer:?}");
    operator.go_away();
    operator.come_back();
    let hello = operator.wait_for_hellos(2);
    assert_eq!(hello.active_version, good.as_bytes());
}

#[test]
fn a_relay_that_comes_back_with_the_newest_version_is_offered_nothing() {
    let (mut operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    let version = operator.publish(&all_to(&sink).build());
    let mut relay = start(&operator, &state);
    operator.wait_for_answers(1);
    operator.go_away();
    relay.wait_until_ready();
    Sender::deliver(relay.address(), "a.b 1 1\n");
    assert_eq!(sink.wait_for_lines(1), ["a.b 1 1"]);
    assert_eq!(relay.status("/readyz"), Some(200));

    operator.come_back();
    assert_eq!(
        operator.wait_for_hellos(2).active_version,
        version.as_bytes()
    );
    let next = operator.publish(&all_to(&sink).route("more", "x", "a").build());
    assert_eq!(operator.wait_for_answers(2), ack(1, next));
    assert_eq!(operator.heard().offers, 2);
    relay.settle(1);
}

#[test]
fn a_relay_without_an_operator_serves_its_last_good_snapshot() {
    let (mut operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    let version = operator.publish(&all_to(&sink).build());
    let mut first = start(&operator, &state);
    operator.wait_for_answers(1);
    operator.go_away();
    first.process.kill();

    let mut second = start(&operator, &state);
    second.wait_until_ready();
    Sender::deliver(second.address(), "a.b 1 1\n");
    assert_eq!(sink.wait_for_lines(1), ["a.b 1 1"]);
    second.settle(1);
    operator.come_back();
    assert_eq!(
        operator.wait_for_hellos(2).active_version,
        version.as_bytes()
    );
}

#[test]
fn credentials_are_not_on_disk_and_lines_wait_for_them() {
    let (mut operator, state, sink) = (Operator::start(), Directory::of([]), HttpSink::open());
    let snapshot = SnapshotBuilder::new()
        .remote_write("a", sink.address(), "Bearer hush")
        .route("all", "", "a")
        .build();
    operator.publish(&snapshot);
    let mut first = start(&operator, &state);
    operator.wait_for_answers(1);
    first.wait_until_ready();
    operator.go_away();
    first.process.kill();
    let kept = fs::read(state.file("snapshot")).unwrap();
    let holds = |text: &[u8]| kept.windows(text.len()).any(|bytes| bytes == text);
    assert!(holds(b"http://") && !holds(b"hush"));

    let mut second = start(&operator, &state);
    second.wait_until_ready();
    Sender::deliver(second.address(), "a.b 1 1\n");
    eventually(DEADLINE, "the line to wait", || {
        match second.accounts().destinations["default/a"].offered {
            1 => Ok(()),
            other => Err(format!("{other} do")),
        }
    });
    operator.come_back();
    let posted = sink.wait_until("the line", |posted| !posted.is_empty());
    assert_eq!(posted[0].headers["authorization"], "Bearer hush");
    second.settle(1);
}

#[test]
fn a_refused_snapshot_does_not_become_the_last_good_one() {
    let (mut operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    let good = operator.publish(&all_to(&sink).build());
    let mut relay = start(&operator, &state);
    operator.wait_for_answers(1);
    operator.publish(&all_to(&sink).route("bad", "(abc", "a").build());
    operator.wait_for_answers(2);
    relay.process.kill();
    operator.go_away();
    let mut relay = start(&operator, &state);
    relay.wait_until_ready();
    operator.come_back();
    assert_eq!(operator.wait_for_hellos(2).active_version, good.as_bytes());
}

#[test]
fn a_relay_without_operator_or_snapshot_is_alive_and_not_ready() {
    let (mut operator, state) = (Operator::start(), Directory::of([]));
    operator.go_away();
    let relay = start(&operator, &state);
    eventually(DEADLINE, "the admin port", || {
        relay.status("/livez").ok_or("no answer".into())
    });
    assert_eq!(
        (relay.status("/livez"), relay.status("/readyz")),
        (Some(200), Some(503))
    );
    let sample = relay.metrics().get("carbonway_ready", &[]);
    assert_eq!(sample, Some(0.0));
}

#[test]
fn a_last_good_snapshot_that_was_damaged_is_ignored_and_said_so() {
    let (mut operator, state, sink) = (Operator::start(), Directory::of([]), Sink::open());
    operator.publish(&all_to(&sink).build());
    let mut relay = start(&operator, &state);
    operator.wait_for_answers(1);
    operator.go_away();
    relay.process.kill();
    damage(state.path());
    let relay = start(&operator, &state);
    relay
        .process
        .wait_for_stderr(DEADLINE, 0, &["WARN", "damaged"]);
    eventually(DEADLINE, "the admin port", || {
        relay.status("/livez").ok_or("no answer".into())
    });
    assert_eq!(relay.status("/readyz"), Some(503));
}

// Changes the last byte of every file.
fn damage(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let Some(last) = bytes.last_mut() else {
            continue;
        };
        *last ^= 0xff;
        fs::write(path, bytes).unwrap();
    }
}

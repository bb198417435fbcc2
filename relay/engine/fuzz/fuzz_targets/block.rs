//! Whatever bytes a sender sends: no panic, every line counted once, and only whole clean lines come out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use relay_engine::{Engine, Moment, Outbox, Reason, Table, UnixSeconds};
use relay_proto::{self as proto, ObjectRef, Snapshot};

fuzz_target!(|bytes: &[u8]| {
    let mut block = bytes.to_vec();
    block.push(b'\n');
    let mut out = Outbox::default();
    let table = Table::load(&everything_to_one()).expect("the snapshot is valid");
    let tally = Engine::new(0).process(&table, &block, 128, Moment { now: UnixSeconds(1_700_000_000), stamp: 0, is_live: &|_| true }, &mut out);
    let lines = block.iter().filter(|byte| **byte == b'\n').count() as u64;
    let dropped: u64 = Reason::ALL.into_iter().map(|reason| tally.dropped(reason)).sum();
    assert_eq!(tally.received, lines);
    assert_eq!(tally.received, tally.forwarded + tally.absorbed + dropped);
    let mut sent = 0;
    out.drain(|_, bytes, lines| {
        sent += lines;
        assert_eq!(bytes.last(), Some(&b'\n'));
        for line in bytes[..bytes.len() - 1].split(|byte| *byte == b'\n') {
            assert!(line.is_ascii() && !line.contains(&0));
            let fields: Vec<_> = line.split(|byte| byte.is_ascii_whitespace() || *byte == 0x0b).collect();
            assert_eq!(fields.len(), 3);
            assert!(fields.iter().all(|field| !field.is_empty()));
        }
    });
    assert_eq!(sent, tally.forwarded);
});

fn everything_to_one() -> Snapshot {
    let destination = ObjectRef::new("Destination", "d", "a");
    Snapshot {
        schema: proto::SCHEMA,
        destinations: vec![proto::Destination {
            source: Some(destination.clone()),
            id: "a".into(),
            queue: Some(proto::Queue {
                bytes_max: 1 << 20,
                when_full: proto::WhenFull::Block.into(),
            }),
            endpoint: Some(proto::destination::Endpoint::File(proto::File { path: "/x".into(), ..Default::default() })),
    ..proto::Destination::default()
}],
        routes: vec![proto::Route {
            distribution: proto::Distribution::All.into(),
            targets: vec![proto::Target { destination: Some(destination), ..Default::default() }],
            ..proto::Route::default()
        }],
        ..Snapshot::default()
    }
}

//! Tables of one route per match, each to a destination of its own.

use relay_engine::{Engine, Moment, Outbox, Table, UnixSeconds};
use relay_proto::{self as proto, Match, ObjectRef, Snapshot};

pub fn snapshot(matches: &[Match]) -> Snapshot {
    let object = |index: usize| ObjectRef::new("Destination", "d", &index.to_string());
    let destination = |index: usize| proto::Destination {
        source: Some(object(index)),
        id: index.to_string(),
        queue: Some(proto::Queue {
            bytes_max: 1 << 20,
            when_full: proto::WhenFull::Block.into(),
        }),
        endpoint: Some(proto::destination::Endpoint::File(proto::File { path: "/x".into(), ..Default::default() })),
        ..Default::default()
    };
    let route = |(index, conditions): (usize, &Match)| proto::Route {
        r#match: Some(conditions.clone()),
        distribution: proto::Distribution::All.into(),
        targets: vec![proto::Target { destination: Some(object(index)), ..Default::default() }],
        ..Default::default()
    };
    Snapshot {
        schema: proto::SCHEMA,
        destinations: (0..matches.len()).map(destination).collect(),
        // Names of any bytes.
        validation: Some(proto::Validation {
            level: proto::ValidationLevel::None.into(),
            metrics20_level: proto::ValidationLevel::None.into(),
            ..Default::default()
        }),
        routes: matches.iter().enumerate().map(route).collect(),
        ..Default::default()
    }
}

/// Whether a name reaches the routes as it is.
pub fn is_plain(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| !byte.is_ascii_whitespace() && *byte != 0x0b;
    !name.is_empty() && name[0] != b'.' && name.iter().all(is_plain)
}

/// Which of the routes take a line with this name.
pub fn taken(table: &Table, name: &[u8]) -> Vec<bool> {
    let block = [name, b" 1 1700000000\n"].concat();
    let mut out = Outbox::default();
    let moment = Moment { now: UnixSeconds(1), stamp: 0, is_live: &|_| true };
    let tally = Engine::new(0).process(table, &block, 1 << 20, moment, &mut out);
    let mut taken = vec![false; table.destinations().len()];
    out.drain(|destination, _, _| taken[destination.get()] = true);
    assert_eq!(tally.forwarded == 1, taken.contains(&true));
    taken
}

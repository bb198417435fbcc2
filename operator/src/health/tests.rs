use relay_proto::{ListenerReport, ObjectRef};

use super::*;
use crate::inputs::Kind;

#[test]
fn a_destination_that_nobody_spoke_of_has_no_standing() {
    let report = Reported::from(Report::default());
    assert_eq!(standing(&key(), [("a", &report)].into_iter()), None);
}

#[test]
fn one_that_takes_its_lines_is_not_degraded() {
    let fine = of(DestinationReport {
        spooled_lines: 120,
        spooled_bytes: 9_000,
        ..state(DestinationState::Connected)
    });
    let standing = standing(&key(), [("a", &fine), ("b", &fine)].into_iter()).unwrap();
    assert_eq!(
        standing,
        Standing {
            health: Health {
                connected_pods: "2/2".to_owned(),
                spooled_lines: 240,
                spooled_bytes: "18k".to_owned(),
                ..Health::default()
            },
            degraded: None,
        }
    );
}

#[test]
fn the_worst_of_what_pods_say_is_told() {
    let slow = of(state(DestinationState::Slow));
    let spooling = of(DestinationReport {
        oldest_seconds: 125,
        ..state(DestinationState::Connected)
    });
    let down = of(DestinationReport {
        error: "connection refused".to_owned(),
        error_time: 1_700_000_000,
        ..state(DestinationState::Down)
    });
    let dropping = of(DestinationReport {
        dropping: vec!["spool_full".to_owned(), "queue_full".to_owned()],
        ..state(DestinationState::Connected)
    });
    let mut pods = vec![("a", &spooling)];
    let mut said = |pod, reported| {
        pods.push((pod, reported));
        let standing = standing(&key(), pods.iter().copied()).unwrap();
        let degraded = standing.degraded.unwrap();
        (degraded.reason, degraded.message)
    };
    let waits = "it gets what comes in, and still has lines to get that wait on disk";
    assert_eq!(said("b", &spooling), (Reason::Spooling, waits.to_owned()));
    let less = "it takes less than comes for it from 1 of 3 relay pods";
    assert_eq!(said("c", &slow), (Reason::Slow, less.to_owned()));
    let refused = "1 of 4 relay pods cannot connect; d: connection refused";
    assert_eq!(said("d", &down), (Reason::NotConnected, refused.to_owned()));
    let dropped = "lines for it are dropped on 1 of 5 relay pods: queue_full, spool_full";
    assert_eq!(said("e", &dropping), (Reason::Dropping, dropped.to_owned()));
    let health = standing(&key(), pods.into_iter()).unwrap().health;
    assert_eq!(health.connected_pods, "4/5");
    assert_eq!((health.slow_pods, health.oldest.as_str()), (1, "2m"));
    assert_eq!(health.last_error.unwrap().pod, "d");
}

#[test]
fn one_listener_without_its_broker_speaks_for_all() {
    let down = |listeners: &[(&str, &str)]| {
        let listeners = listeners.iter().map(|(name, error)| ListenerReport {
            name: (*name).to_owned(),
            error: (*error).to_owned(),
        });
        Reported::from(Report {
            listeners_down: listeners.collect(),
            ..Report::default()
        })
    };
    let fine = down(&[]);
    assert_eq!(listeners_down([("a", &fine)].into_iter()), None);
    let one = down(&[("rabbit", "refused")]);
    let said = listeners_down([("a", &fine), ("b", &one), ("c", &one)].into_iter()).unwrap();
    assert_eq!(said.reason, Reason::NotConnected);
    assert_eq!(
        said.message,
        "listener rabbit: 2 of 3 relay pods get no messages from its broker; b: refused"
    );
    let endless = "x".repeat(1 << 20);
    let two = down(&[("rabbit", &endless), ("hare", &endless)]);
    let said = listeners_down([("a", &two)].into_iter()).unwrap().message;
    assert!(
        said.starts_with("listener hare and 1 more: 1 of 1 relay pods get"),
        "{said}"
    );
    assert!(said.len() < 512, "{}", said.len());
}

#[test]
fn what_a_pod_says_is_bounded() {
    let endless = of(DestinationReport {
        error: "x".repeat(1 << 20),
        dropping: (0..1000)
            .map(|number| format!("{number}{}", "x".repeat(100)))
            .collect(),
        spooled_bytes: u64::MAX,
        error_time: u64::MAX,
        ..state(DestinationState::Down)
    });
    let health = standing(&key(), [("a", &endless), ("b", &endless)].into_iter());
    let health = health.unwrap().health;
    assert_eq!(health.dropping.len(), REASONS_MAX);
    assert!(health.dropping.iter().all(|reason| reason.len() <= 64));
    assert_eq!(
        (health.last_error, health.spooled_bytes.as_str()),
        (None, "18000P")
    );
}

#[test]
fn orphaned_spools_are_summed_and_the_largest_named() {
    let orphan = |number: u64| OrphanedSpool {
        destination: format!("d/gone-{number}"),
        id: number.to_string(),
        bytes: 1_000_000 * number,
        ..OrphanedSpool::default()
    };
    let report = |numbers: std::ops::Range<u64>| Report {
        orphaned_spools_count: numbers.end - numbers.start,
        orphaned_spools_bytes: numbers.clone().map(|number| 1_000_000 * number).sum(),
        orphaned_spools: numbers.map(orphan).collect(),
        ..Report::default()
    };
    let [a, b] = [report(1..11), report(9..12)].map(Reported::from);
    let spools = orphaned_spools([&a, &b].into_iter()).unwrap();
    assert_eq!((spools.count, spools.bytes.as_str()), (11, "85M"));
    let named = spools.largest.iter();
    let named: Vec<_> = named
        .map(|spool| (spool.destination.as_str(), spool.pods, spool.bytes.as_str()))
        .collect();
    assert_eq!(
        named[..3],
        [
            ("d/gone-10", 2, "20M"),
            ("d/gone-9", 2, "18M"),
            ("d/gone-11", 1, "11M")
        ]
    );
    assert_eq!(named.len(), NAMED_MAX);
    assert_eq!(orphaned_spools([&Reported::default()].into_iter()), None);
}

fn key() -> Key {
    Key::new(Kind::Destination, "d", "graphite")
}

fn state(state: DestinationState) -> DestinationReport {
    DestinationReport {
        source: Some(ObjectRef::new("Destination", "d", "graphite")),
        state: state.into(),
        ..DestinationReport::default()
    }
}

fn of(destination: DestinationReport) -> Reported {
    Reported::from(Report {
        destinations: vec![destination],
        ..Report::default()
    })
}

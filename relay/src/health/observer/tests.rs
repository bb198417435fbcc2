use std::io;

use relay_engine::{Address, CarbonForm, Endpoint, WhenFull};
use relay_spool::Survey;

use super::*;
use crate::destinations::Known;
use crate::destinations::queue::{Lane, Loss, Queue};

#[test]
fn the_first_sample_is_reported_and_a_quiet_relay_has_nothing_to_add() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let a = connected("a");
    let first = observer.observe(start, &sample(&[&a])).unwrap();
    assert_eq!(states(&first), [("a", DestinationState::Connected)]);
    assert!(!first.drained);
    let more = seconds(1..60).filter_map(|at| observer.observe(start + at, &sample(&[&a])));
    let more: Vec<_> = more.collect();
    let drained = Report {
        drained: true,
        ..first
    };
    assert_eq!(more, [drained]);
}

#[test]
fn lines_that_are_on_their_way_are_no_news_and_keep_a_relay_from_being_drained() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let a = connected("a");
    let first = observer.observe(start, &sample(&[&a]));
    assert!(first.is_some());
    for at in seconds(1..60) {
        assert_eq!(a.lane.push(b"a 1 1\n", 1), 0);
        assert_eq!(observer.observe(start + at, &sample(&[&a])), None);
    }
}

#[test]
fn a_destination_that_fails_is_told_at_once_with_why_and_comes_first() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let (a, b) = (connected("a"), connected("b"));
    observer.observe(start, &sample(&[&a, &b]));
    b.lane.set_connected(false);
    // A connection that ended is made again at once, as a rule.
    let ended = observer.observe(start + SECOND, &sample(&[&a, &b]));
    assert_eq!(states(&ended.unwrap())[0].1, DestinationState::Connecting);
    b.lane.link().failed(&refused());
    let down = observer.observe(start + 2 * SECOND, &sample(&[&a, &b]));
    let down = down.unwrap();
    let expected = [
        ("b", DestinationState::Down),
        ("a", DestinationState::Connected),
    ];
    assert_eq!(states(&down), expected);
    assert_eq!(down.destinations[0].error, refused().to_string());
    let drained = observer.observe(start + 15 * SECOND, &sample(&[&a, &b]));
    assert!(drained.unwrap().drained);
    b.lane.link().failed(&refused());
    let again = observer.observe(start + 30 * SECOND, &sample(&[&a, &b]));
    assert_eq!(again, None);
    b.lane.set_connected(true);
    b.lane.link().connected(None);
    let up = observer.observe(start + 31 * SECOND, &sample(&[&a, &b]));
    assert_eq!(up.unwrap().destinations[1].error, "");
}

#[test]
fn a_listener_without_its_broker_is_told_at_once_and_another_reason_is_no_news() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    observer.observe(start, &sample(&[]));
    let down = |why: &str| Sample {
        listeners_down: vec![("rabbit".into(), why.into())],
        ..sample(&[])
    };
    let why = "x".repeat(ERROR_CHARS_MAX + 1);
    let told = observer.observe(start + SECOND, &down(&why)).unwrap();
    let listener = ListenerReport {
        name: "rabbit".to_owned(),
        error: why[1..].to_owned(),
    };
    assert_eq!(told.listeners_down, [listener]);
    let again = observer.observe(start + 2 * SECOND, &down("refused"));
    assert_eq!(again, None);
    let up = observer.observe(start + 3 * SECOND, &sample(&[]));
    assert_eq!(up.unwrap().listeners_down, []);
}

#[test]
fn a_burst_is_not_slow_and_what_stays_full_is() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let a = connected("a");
    let state = |report: Option<Report>| report.map(|report| states(&report)[0].1);
    observer.observe(start, &sample(&[&a]));
    assert_eq!(a.lane.push(&b"a 1 1\n".repeat(20_000), 20_000), 0);
    for at in seconds(1..6) {
        let report = observer.observe(start + at, &sample(&[&a]));
        // The queue is full, and lines were dropped.
        assert_ne!(state(report), Some(DestinationState::Slow));
    }
    let report = observer.observe(start + 6 * SECOND, &sample(&[&a]));
    assert_eq!(state(report), Some(DestinationState::Slow));
}

#[test]
fn lines_that_are_dropped_are_told_by_reason_until_none_were_for_a_while() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let a = connected("a");
    observer.observe(start, &sample(&[&a]));
    let dropping = |report: Option<Report>| report.unwrap().destinations[0].dropping.clone();
    a.lane.give_up_offered(b"a 1 1\n", Loss::QueueFull);
    let report = observer.observe(start + SECOND, &sample(&[&a]));
    assert_eq!(dropping(report), ["queue_full"]);
    let meanwhile = observer.observe(start + 10 * SECOND, &sample(&[&a]));
    assert_eq!(meanwhile, None);
    let report = observer.observe(start + 11 * SECOND, &sample(&[&a]));
    assert_eq!(dropping(report), [""; 0]);
}

#[test]
fn what_is_on_disk_is_told_with_two_digits_every_ten_seconds() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let a = connected("a");
    observer.observe(start, &sample(&[&a]));
    spooled(&a, 123_456, 4);
    assert_eq!(observer.observe(start + SECOND, &sample(&[&a])), None);
    let report = observer.observe(start + 10 * SECOND, &sample(&[&a]));
    let report = report.unwrap();
    assert_eq!(
        (report.spooled_lines, report.destinations[0].oldest_seconds),
        (120_000, 0)
    );
    spooled(&a, 129_999, 4);
    assert_eq!(observer.observe(start + 30 * SECOND, &sample(&[&a])), None);
    // Lines that wait for so long are no longer a burst.
    spooled(&a, 130_000, 12);
    let report = observer.observe(start + 31 * SECOND, &sample(&[&a]));
    assert_eq!(report.unwrap().destinations[0].oldest_seconds, 12);
}

#[test]
fn what_waits_for_a_destination_that_leaves_still_counts() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let a = connected("a");
    assert_eq!(a.lane.push(b"a 1 1\n", 1), 0);
    let mut leaving = Sample {
        leaving: vec![a.known.queue.figures()],
        ..sample(&[])
    };
    observer.observe(start, &leaving);
    assert_eq!(observer.observe(start + 20 * SECOND, &leaving), None);
    leaving.leaving.clear();
    let since = start + 21 * SECOND;
    assert_eq!(observer.observe(since, &leaving), None);
    let report = observer.observe(since + 10 * SECOND, &leaving);
    assert!(report.unwrap().drained);
}

#[test]
fn orphans_are_listed_to_a_limit_and_counted() {
    let (mut observer, start) = (Observer::default(), Instant::now());
    let orphan = |number: usize| Orphan {
        directory: format!("{number:02}"),
        survey: Survey {
            owner: Some("default/gone".into()),
            identity: Some("uid".into()),
            bytes: 1_234,
            lines: None,
        },
    };
    let with_orphans = Sample {
        orphans: (0..40).map(orphan).collect(),
        ..sample(&[])
    };
    let report = observer.observe(start, &with_orphans).unwrap();
    assert_eq!(
        (report.orphaned_spools.len(), report.orphaned_spools_count),
        (ORPHANS_MAX, 40)
    );
    assert_eq!(report.orphaned_spools_bytes, 49_000);
    let expected = OrphanedSpool {
        destination: "default/gone".into(),
        id: "uid".into(),
        directory: "00".into(),
        bytes: 1_200,
        lines: 0,
    };
    assert_eq!(report.orphaned_spools[0], expected);
}

#[test]
fn figures_are_rounded_down_and_never_to_nothing() {
    let rounded = [0, 1, 9, 10, 99, 101, 1_999, u64::MAX].map(rounded);
    let expected = [0, 1, 9, 10, 99, 100, 1_900, 18_000_000_000_000_000_000];
    assert_eq!(rounded, expected);
}

const SECOND: Duration = Duration::from_secs(1);

fn seconds(range: std::ops::Range<u32>) -> impl Iterator<Item = Duration> {
    range.map(|second| second * SECOND)
}

struct Connected {
    known: Known,
    lane: Arc<Lane>,
}

// A destination in the default namespace, with a queue of 64 KiB.
fn connected(name: &str) -> Connected {
    let queue = relay_engine::Queue {
        bytes_max: 64 << 10,
        when_full: WhenFull::DropNewest,
    };
    let settings = relay_engine::Destination {
        id: name.into(),
        name: format!("default/{name}").into(),
        endpoint: Endpoint::Carbon {
            address: Address {
                host: "localhost".into(),
                port: 1,
            },
            connect_timeout: SECOND,
            write_timeout: SECOND,
            tls: None,
            form: CarbonForm::Plaintext,
        },
        lanes: Vec::new(),
        queue,
        spool: None,
        dead_letter_bytes_max: 0,
        resend_bytes_max: 0,
        connection_age_max: None,
    };
    let queue = Arc::new(Queue::new(queue));
    let lane = queue.add_lane();
    lane.set_connected(true);
    let known = Known {
        settings,
        queue,
        dead_letters: None,
    };
    Connected { known, lane }
}

fn spooled(known: &Connected, waiting: u64, oldest_seconds: u64) {
    known.known.queue.set_spooled(relay_spool::Figures {
        waiting,
        oldest_seconds: Some(oldest_seconds),
        ..relay_spool::Figures::default()
    });
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

fn sample(known: &[&Connected]) -> Sample {
    Sample {
        standings: known.iter().map(|known| known.known.standing()).collect(),
        leaving: Vec::new(),
        orphans: Vec::new(),
        listeners_down: Vec::new(),
        open_buckets: 0,
        has_left: false,
    }
}

fn states(report: &Report) -> Vec<(&str, DestinationState)> {
    let destinations = report.destinations.iter();
    let state = |destination: &'_ DestinationReport| destination.state();
    destinations
        .map(|destination| {
            let source = destination.source.as_ref().unwrap();
            (source.name.as_str(), state(destination))
        })
        .collect()
}

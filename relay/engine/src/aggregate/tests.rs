use std::sync::Arc;
use std::time::Duration;

use super::*;

mod bounds;
mod model;
mod restart;

const NOW: u32 = 1_700_000_000;

const LIMITS: Limits = Limits {
    buckets_max: 100,
    bytes_max: 1 << 20,
    values_max: 100,
    future_seconds_max: 60,
    idle_seconds: 30,
};

// carbon-relay-ng's own vectors.
#[test]
fn functions_give_what_those_of_carbon_relay_ng_give() {
    let nist = [
        95.1772, 95.1567, 95.1937, 95.1959, 95.1442, 95.0610, 95.1591, 95.1195, 95.1065, 95.0925,
        95.1990, 95.1682,
    ];
    let in_order: Vec<u32> = (1..=12).collect();
    let cases: [(&[f64], &[u32], &str); 5] = [
        (
            &[1.0, 2.0, 5.0, 4.0, 3.0],
            &in_order,
            "avg 3, count 5, delta 4, derive 0.5, last 3, max 5, min 1, stdev 1.4142135623730951, sum 15, median 3, \
             p25 1.5, p50 3, p75 4.5, p90 5, p95 5, p99 5",
        ),
        (
            &[5.0, 4.0, 7.0, 4.0, 2.0, 5.0, 4.0, 9.0],
            &in_order,
            "avg 5, count 8, delta 7, derive 0.5714285714285714, last 9, max 9, min 2, stdev 2, sum 40, median 4.5, \
             p25 4, p50 4.5, p75 6.5, p90 9, p95 9, p99 9",
        ),
        (
            &[6.0, 2.0, 3.0, 1.0],
            &in_order,
            "avg 3, count 4, delta 5, derive -1.6666666666666667, last 1, max 6, min 1, stdev 1.8708286933869707, \
             sum 12, median 2.5, p25 1.25, p50 2.5, p75 5.25, p90 6, p95 6, p99 6",
        ),
        (
            &[7.0, 4.0, 5.0, 4.0, 9.0, 5.0, 4.0, 2.0],
            &[3, 2, 1, 4, 8, 6, 7, 5],
            "avg 5, count 8, delta 7, derive 0.5714285714285714, last 2, max 9, min 2, stdev 2, sum 40, median 4.5, \
             p25 4, p50 4.5, p75 6.5, p90 9, p95 9, p99 9",
        ),
        (
            &nist,
            &in_order,
            "avg 95.14779166666666, count 12, delta 0.13799999999999102, derive -0.0008181818181818492, last 95.1682, \
             max 95.199, min 95.061, stdev 0.04246679994091972, sum 1141.7735, median 95.1579, p25 95.10974999999999, \
             p50 95.1579, p75 95.189575, p90 95.19807, p95 95.199, p99 95.199",
        ),
    ];
    for (values, timestamps, expected) in cases {
        let rules = rules(&[("r", ALL, 60)]);
        let mut worker = Worker::new(&rules, LIMITS);
        for (value, timestamp) in values.iter().zip(timestamps) {
            worker.take("x", NOW / 60 * 60 + timestamp, *value);
        }
        let mut found = Vec::new();
        finish(worker.take_due(NOW + 60), |aggregate| {
            found.push((aggregate.statistic.to_string(), aggregate.value));
        });
        let expected = expected.split(", ").map(|text| {
            let (name, value) = text.split_once(' ').unwrap();
            (name.to_owned(), value.parse::<f64>().unwrap())
        });
        // The vectors' deviations are of two passes over the values, which differ by the last bit.
        let (stdev, rest): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|(name, _)| name == "stdev");
        let (expected_stdev, expected): (Vec<_>, Vec<_>) =
            expected.partition(|(name, _)| name == "stdev");
        assert_eq!(rest, expected);
        let error = stdev[0].1 / expected_stdev[0].1 - 1.0;
        assert!(error.abs() <= f64::EPSILON, "{stdev:?} {expected_stdev:?}");
    }
}

#[test]
fn an_aggregate_gets_the_start_of_its_bucket_and_is_written_when_that_is_due() {
    let rules = rules_with_wait(&[("r", &["Sum"], 10)], 12);
    let mut worker = Worker::new(&rules, LIMITS);
    worker.take("agg.x", NOW, 1.0);
    worker.take("agg.x", NOW + 3, 2.0);
    worker.take("agg.x", NOW + 9, 4.0);
    assert_eq!(lines(worker.take_due(NOW + 11)), [""; 0]);
    assert_eq!(lines(worker.take_due(NOW + 12)), ["agg.x 7 1700000000"]);
    assert_eq!(lines(worker.take_due(NOW + 30)), [""; 0]);
    assert_eq!(worker.buckets.open(), 0);
}

#[test]
fn names_get_the_function_where_the_mark_is_or_at_the_end_if_there_are_several() {
    for (functions, name, expected) in [
        (&["Sum"][..], "a", &["a"][..]),
        (&["Sum", "P99.9"], "a", &["a.sum", "a.p99_9"]),
        (&["Max"], "a.\0.b", &["a.max.b"]),
        (&["Max", "Min"], "\0.\0.b", &["max.max.b", "min.min.b"]),
    ] {
        let rules = rules(&[("r", functions, 10)]);
        let mut worker = Worker::new(&rules, LIMITS);
        worker.take(name, NOW, -1.5);
        let expected: Vec<String> = expected
            .iter()
            .map(|name| format!("{name} -1.5 1700000000"))
            .collect();
        assert_eq!(lines(worker.buckets.take_all()), expected);
    }
}

#[test]
fn values_are_short_and_exact_and_have_no_exponent() {
    for (value, text) in [
        (0.1 + 0.2, "0.30000000000000004".to_owned()),
        (1e21, format!("1{}", "0".repeat(21))),
        (-2.5e-7, "-0.00000025".to_owned()),
        (f64::MAX, format!("17976931348623157{}", "0".repeat(292))),
    ] {
        let rules = rules(&[("r", &["Sum"], 10)]);
        let mut worker = Worker::new(&rules, LIMITS);
        worker.take("x", NOW, value);
        assert_eq!(
            lines(worker.buckets.take_all()),
            [format!("x {text} 1700000000")]
        );
    }
}

#[test]
fn what_no_double_holds_is_counted_and_not_written() {
    let rules = rules(&[("r", &["Sum", "Avg", "Max", "Delta", "Stdev"], 10)]);
    let mut worker = Worker::new(&rules, LIMITS);
    for value in [f64::MAX, f64::MAX, -1.0] {
        worker.take("x", NOW, value);
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(worker.observe("x", NOW, value), Observed::NotFinite);
    }
    let mut written = Vec::new();
    let not_finite = finish(worker.buckets.take_all(), |aggregate| {
        written.push((aggregate.statistic, aggregate.value));
    });
    assert_eq!(not_finite, 3);
    assert_eq!(
        written,
        [(Statistic::Max, f64::MAX), (Statistic::Delta, f64::MAX)]
    );
}

#[test]
fn derive_of_a_single_timestamp_gives_nothing_and_of_equal_ones_the_first_received() {
    let rules = rules(&[("r", &["Derive"], 10)]);
    let mut worker = Worker::new(&rules, LIMITS);
    worker.take("x", NOW + 4, 5.0);
    worker.take("x", NOW + 4, 7.0);
    assert_eq!(lines(worker.buckets.take_all()), [""; 0]);
    worker.take("x", NOW + 4, 5.0);
    worker.take("x", NOW + 4, 7.0);
    worker.take("x", NOW + 8, 9.0);
    worker.take("x", NOW + 8, 100.0);
    assert_eq!(lines(worker.buckets.take_all()), ["x 1 1700000000"]);
}

#[test]
fn shares_of_all_workers_make_one_line_and_the_last_value_is_the_last_received() {
    let rules = rules(&[("r", &["Sum", "Last"], 10), ("s", &["Sum"], 10)]);
    let mut workers = [(); 3].map(|()| Worker::new(&rules, LIMITS));
    for (stamp, (worker, name, value)) in
        [(0, "x", 1.0), (2, "x", 2.0), (1, "x", 4.0), (1, "w", 8.0)]
            .into_iter()
            .enumerate()
    {
        workers[worker].stamp = stamp as u64;
        workers[worker].take(name, NOW, value);
    }
    let partials = workers
        .iter_mut()
        .flat_map(|worker| worker.take_due(NOW + 10));
    assert_eq!(
        lines(partials.collect()),
        [
            "w.sum 8 1700000000",
            "w.last 8 1700000000",
            "x.sum 7 1700000000",
            "x.last 4 1700000000"
        ]
    );
}

#[test]
fn points_that_one_worker_received_together_may_share_a_stamp() {
    let rules = rules(&[("r", &["Last", "Derive"], 10)]);
    let mut buckets = Buckets::new(rules.clone(), LIMITS);
    let id = buckets.intern(rules.find("r").unwrap(), b"x").unwrap();
    for (seconds, value) in [(0, 1.0), (0, 2.0), (4, 9.0), (4, 5.0)] {
        let observed = buckets.observe(id, NOW + seconds, value, NOW, 7);
        assert_eq!(observed, Observed::Taken);
    }
    assert_eq!(
        lines(buckets.take_all()),
        ["x.last 5 1700000000", "x.derive 2 1700000000"]
    );
}

#[test]
fn buckets_of_rules_that_stay_survive_a_change_of_the_table() {
    let before = rules(&[
        ("gone", &["Sum"], 10),
        ("stays", &["Sum"], 10),
        ("slower", &["Sum"], 10),
        ("more", &["Sum"], 10),
        ("other", &["Sum"], 10),
    ]);
    let after = rules(&[
        ("new", &["Sum"], 10),
        ("slower", &["Sum"], 20),
        ("other", &["Max"], 10),
        ("stays", &["Sum"], 10),
        ("more", &["Sum", "Avg"], 10),
    ]);
    let mut buckets = Buckets::new(before.clone(), LIMITS);
    let mut ids = Vec::new();
    for (index, rule) in before.iter() {
        let id = buckets.intern(index, rule.id().as_bytes()).unwrap();
        assert_eq!(buckets.observe(id, NOW, 1.0, NOW, 0), Observed::Taken);
        ids.push(id);
    }
    assert_eq!(
        lines(buckets.change_rules(after.clone())),
        ["gone", "other", "slower"].map(|name| format!("{name} 1 1700000000"))
    );
    let observed: Vec<Observed> = ids
        .into_iter()
        .map(|id| buckets.observe(id, NOW, 2.0, NOW, 0))
        .collect();
    assert_eq!(
        observed,
        [
            Observed::Gone,
            Observed::Taken,
            Observed::Gone,
            Observed::Taken,
            Observed::Gone
        ]
    );
    let known = buckets.outputs();
    buckets
        .intern(after.find("stays").unwrap(), b"stays")
        .unwrap();
    assert_eq!(buckets.outputs(), known);
    assert_eq!(
        lines(buckets.take_all()),
        [
            "more.sum 3 1700000000",
            "more.avg 1.5 1700000000",
            "stays 3 1700000000"
        ]
    );
}

#[test]
fn shares_by_two_versions_of_a_rule_are_merged_if_they_can_be() {
    let (sum, both, max) = (&["Sum"][..], &["Sum", "Avg"][..], &["Max"][..]);
    let mut partials = Vec::new();
    for functions in [sum, both, max] {
        let mut worker = Worker::new(&rules(&[("r", functions, 10)]), LIMITS);
        worker.take("x", NOW, 1.0);
        partials.extend(worker.buckets.take_all());
    }
    assert_eq!(lines(partials), ["x 2 1700000000", "x 1 1700000000"]);
}

/// Every function, so every need.
const ALL: &[&str] = &[
    "Avg",
    "Count",
    "Delta",
    "Derive",
    "Last",
    "Max",
    "Min",
    "Stdev",
    "Sum",
    "Median",
    "Percentiles",
];

/// One worker, for a table of one rule: `r`.
struct Worker {
    rules: Rules,
    buckets: Buckets,
    now: u32,
    stamp: u64,
}

impl Worker {
    fn new(rules: &Rules, limits: Limits) -> Self {
        Self {
            rules: rules.clone(),
            buckets: Buckets::new(rules.clone(), limits),
            now: NOW,
            stamp: 0,
        }
    }

    fn observe(&mut self, name: &str, timestamp: u32, value: f64) -> Observed {
        let rule = self.rules.find("r").unwrap();
        let id = self.buckets.intern(rule, name.as_bytes()).unwrap();
        self.stamp += 1;
        let stamp = self.stamp;
        self.buckets.observe(id, timestamp, value, self.now, stamp)
    }

    fn take_due(&mut self, now: u32) -> Vec<Partial> {
        take_due(&mut self.buckets, now)
    }

    fn take(&mut self, name: &str, timestamp: u32, value: f64) {
        let observed = self.observe(name, timestamp, value);
        assert_eq!(observed, Observed::Taken, "{name} {value} {timestamp}");
    }
}

/// Rules by id, functions and interval, whose buckets are due when they end.
fn rules(rules: &[(&str, &[&str], u64)]) -> Rules {
    rules_with_wait(rules, 0)
}

fn rules_with_wait(rules: &[(&str, &[&str], u64)], wait: u64) -> Rules {
    let rules = rules.iter().map(|(id, functions, interval)| {
        Rule::try_new(RuleSettings {
            id: Arc::from(*id),
            functions: functions.iter().map(|text| text.parse().unwrap()).collect(),
            percentile_definition: PercentileDefinition::R6,
            interval: Duration::from_secs(*interval),
            wait: Duration::from_secs(wait.max(*interval)),
        })
        .unwrap()
    });
    Rules::try_new(rules.collect()).unwrap()
}

/// A whole flush, a few buckets at a time.
fn take_due(buckets: &mut Buckets, now: u32) -> Vec<Partial> {
    let mut taken = Vec::new();
    while buckets.take_due(now, 2, &mut taken) == Flush::Unfinished {}
    taken
}

/// Lets everything go, and asserts that none of it is still charged.
fn assert_nothing_is_held(buckets: &mut Buckets, now: u32) {
    for now in [now, now + LIMITS.idle_seconds] {
        assert_eq!(take_due(buckets, now), []);
    }
    let held = (buckets.open(), buckets.outputs(), buckets.bytes());
    assert_eq!(held, (0, 0, 0));
}

fn lines(partials: Vec<Partial>) -> Vec<String> {
    let mut out = Vec::new();
    assert_eq!(
        finish(merge(partials), |aggregate| aggregate.write_line(&mut out)),
        0
    );
    let text = String::from_utf8(out).unwrap();
    text.lines().map(str::to_owned).collect()
}

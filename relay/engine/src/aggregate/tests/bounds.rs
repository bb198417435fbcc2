//! What is refused, what is let go, and what is not.

use super::*;

#[test]
fn a_late_point_is_refused_unless_its_bucket_is_still_open() {
    let rules = rules_with_wait(&[("r", &["Sum"], 10)], 12);
    let mut worker = Worker::new(&rules, LIMITS);
    worker.take("x", NOW, 1.0);
    worker.now = NOW + 12;
    assert_eq!(worker.observe("y", NOW + 9, 2.0), Observed::Late);
    assert_eq!(worker.observe("x", NOW + 9, 2.0), Observed::Taken);
    assert_eq!(lines(worker.take_due(NOW + 12)), ["x 3 1700000000"]);
    // A worker whose time is behind that of the flush does not write the bucket once more.
    worker.now = NOW + 11;
    assert_eq!(worker.observe("x", NOW + 9, 4.0), Observed::Late);
    assert_eq!(worker.observe("x", NOW + 10, 8.0), Observed::Taken);
}

#[test]
fn a_point_far_in_the_future_opens_no_bucket() {
    let rules = rules(&[("r", &["Sum"], 10)]);
    let mut worker = Worker::new(&rules, LIMITS);
    assert_eq!(worker.observe("x", NOW + 61, 1.0), Observed::Future);
    assert_eq!(worker.observe("x", u32::MAX, 1.0), Observed::Future);
    assert_eq!(worker.observe("x", NOW + 60, 1.0), Observed::Taken);
    assert_eq!(worker.observe("x", NOW + 61, 1.0), Observed::Taken);
    worker.now = u32::MAX;
    assert_eq!(worker.observe("x", u32::MAX, 1.0), Observed::Taken);
    assert_eq!(
        lines(worker.buckets.take_all()),
        ["x 2 1700000060", "x 1 4294967290"]
    );
}

#[test]
fn buckets_bytes_and_values_are_bounded() {
    let rules = rules(&[("r", &["Median"], 10)]);
    let mut worker = Worker::new(
        &rules,
        Limits {
            buckets_max: 2,
            values_max: 5,
            ..LIMITS
        },
    );
    worker.take("x", NOW, 1.0);
    worker.take("x", NOW + 10, 1.0);
    assert_eq!(worker.observe("x", NOW + 20, 1.0), Observed::Full);
    for value in 2..=5 {
        worker.take("x", NOW, f64::from(value));
    }
    assert_eq!(worker.observe("x", NOW, 6.0), Observed::Full);
    assert_eq!(
        lines(worker.buckets.take_all()),
        ["x 3 1700000000", "x 1 1700000010"]
    );

    let bytes_max = 4096;
    let mut worker = Worker::new(
        &rules,
        Limits {
            bytes_max,
            ..LIMITS
        },
    );
    let mut taken = 0;
    while worker.observe("x", NOW + taken % 60, 1.0) == Observed::Taken {
        taken += 1;
        assert!(worker.buckets.bytes() <= bytes_max);
    }
    assert!((200..500).contains(&taken), "{taken}");
    assert_eq!(
        worker
            .buckets
            .intern(rules.find("r").unwrap(), &[b'y'; 4000]),
        None
    );
    drop(worker.buckets.take_all());
    assert_eq!(worker.observe("x", NOW, 1.0), Observed::Taken);
}

#[test]
fn an_output_without_buckets_goes_after_a_while_and_its_id_is_never_anothers() {
    let rules = rules(&[("r", &["Sum"], 10)]);
    let mut worker = Worker::new(&rules, LIMITS);
    let rule = rules.find("r").unwrap();
    let gone = worker.buckets.intern(rule, b"x").unwrap();
    assert_eq!(worker.buckets.intern(rule, b"x"), Some(gone));
    for (now, outputs) in [(NOW, 1), (NOW + 29, 1), (NOW + 30, 0)] {
        assert_eq!(worker.take_due(now), []);
        assert_eq!(worker.buckets.outputs(), outputs, "{now}");
    }
    assert_eq!(worker.buckets.bytes(), 0);
    let other = worker.buckets.intern(rule, b"y").unwrap();
    let observed = |worker: &mut Worker, id| worker.buckets.observe(id, NOW + 30, 1.0, NOW, 0);
    assert_eq!(observed(&mut worker, gone), Observed::Gone);
    assert_eq!(observed(&mut worker, other), Observed::Taken);
    assert_eq!(lines(worker.take_due(NOW + 40)), ["y 1 1700000030"]);
    // Idle means without a bucket since, not for that long in all.
    worker.now = NOW + 60;
    worker.take("y", NOW + 60, 2.0);
    assert_eq!(lines(worker.take_due(NOW + 70)), ["y 2 1700000060"]);
    assert_eq!(worker.take_due(NOW + 99), []);
    assert_eq!(worker.buckets.outputs(), 1);
    assert_nothing_is_held(&mut worker.buckets, NOW + 100);
}

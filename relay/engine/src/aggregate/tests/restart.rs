//! Checkpoints: sound ones, old ones, rotten ones.

use proptest::prelude::*;

use super::checkpoint::{CorruptCheckpoint, Leftover, Restored, decode, encode};
use super::model::{LIMITS, tables};
use super::*;

#[test]
fn buckets_go_on_after_a_restart_where_they_left_off() {
    let rules = rules_with_wait(&[("r", ALL, 10)], 12);
    // Their deviation is exact whichever comes first.
    let values = [4.0, 2.0, 9.0, 4.0, 5.0, 4.0, 7.0, 5.0];
    let mut whole = Worker::new(&rules, LIMITS);
    let mut before = Worker::new(&rules, LIMITS);
    let mut after = Worker::new(&rules, LIMITS);
    for (seconds, value) in (0..).zip(values) {
        whole.take("x", NOW + seconds, value);
        let part = if seconds < 3 { &mut before } else { &mut after };
        part.take("x", NOW + seconds, value);
    }
    // Stamps begin anew, and the bucket is due already.
    let bytes = encode(&before.buckets.take_all());
    for partial in decode(&bytes, &rules).unwrap().buckets {
        assert_eq!(after.buckets.restore(partial), Observed::Taken);
    }
    assert_eq!(after.buckets.open(), 1);
    let expected = lines(whole.buckets.take_all());
    assert_eq!(lines(after.take_due(NOW + 1000)), expected);
    assert_eq!(expected.len(), 16);
    assert_nothing_is_held(&mut after.buckets, NOW + 1000);
}

#[test]
fn buckets_whose_rule_is_gone_or_holds_something_else_are_left_over() {
    let before = rules(&[
        ("gone", &["Sum"], 10),
        ("r", &["Sum"], 10),
        ("other", &["Sum"], 10),
        ("slower", &["Sum"], 10),
    ]);
    let after = rules(&[
        ("slower", &["Sum"], 20),
        ("other", &["Max"], 10),
        ("r", &["Avg"], 10),
    ]);
    let mut buckets = Buckets::new(before.clone(), LIMITS);
    for (index, rule) in before.iter() {
        let id = buckets.intern(index, rule.id().as_bytes()).unwrap();
        for value in [1.0, 2.0] {
            assert_eq!(buckets.observe(id, NOW, value, NOW, 0), Observed::Taken);
        }
    }
    let Restored {
        buckets: restored,
        leftovers,
    } = decode(&encode(&buckets.take_all()), &after).unwrap();
    let expected = ["gone", "other", "slower"].map(|id| Leftover {
        rule: id.into(),
        name: id.into(),
        start: NOW,
        points: 2,
    });
    assert_eq!(leftovers, expected);
    let mut elsewhere = Buckets::new(rules(&[("s", &["Avg"], 10)]), LIMITS);
    assert_eq!(elsewhere.restore(restored[0].clone()), Observed::Gone);
    assert_eq!(lines(restored), ["r 1.5 1700000000"]);
}

#[test]
fn restored_buckets_are_bounded_too() {
    let rules = rules(&[("r", &["Median"], 10)]);
    let mut worker = Worker::new(&rules, LIMITS);
    worker.take("x", NOW, 1.0);
    worker.take("y", NOW, 2.0);
    worker.take("z", NOW + 10, 2.0);
    let bytes = encode(&worker.buckets.take_all());
    let restored = |limits| {
        let mut buckets = Buckets::new(rules.clone(), limits);
        let partials = decode(&bytes, &rules).unwrap().buckets;
        let observed: Vec<Observed> = partials
            .into_iter()
            .map(|partial| buckets.restore(partial))
            .collect();
        (observed, buckets.open())
    };
    let (taken, full) = (Observed::Taken, Observed::Full);
    let buckets_max = 2;
    assert_eq!(
        restored(Limits {
            buckets_max,
            ..LIMITS
        }),
        (vec![taken, taken, full], 2)
    );
    let bytes_max = 0;
    assert_eq!(
        restored(Limits {
            bytes_max,
            ..LIMITS
        }),
        (vec![full, full, full], 0)
    );
}

#[test]
fn what_is_wrong_with_a_checkpoint_is_told() {
    let rules = rules(&[("r", &["Sum"], 10)]);
    let mut worker = Worker::new(&rules, LIMITS);
    worker.take("x", NOW, 1.0);
    let sound = encode(&worker.buckets.take_all());
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sound.clone();
        change(&mut bytes);
        decode(&bytes, &rules).unwrap_err()
    };
    assert_eq!(
        error(&|bytes| bytes.truncate(7)),
        CorruptCheckpoint::Foreign
    );
    assert_eq!(error(&|bytes| bytes[0] = b'x'), CorruptCheckpoint::Foreign);
    assert_eq!(error(&|bytes| bytes[7] = 2), CorruptCheckpoint::Version(2));
    assert_eq!(error(&|bytes| bytes[20] ^= 1), CorruptCheckpoint::Checksum);
    assert_eq!(
        error(&|bytes| bytes.truncate(8)),
        CorruptCheckpoint::Checksum
    );
    assert_eq!(
        error(&|bytes| bytes.truncate(bytes.len() - 1)),
        CorruptCheckpoint::Checksum
    );
    let longer = error(&|bytes| {
        bytes.push(0);
        checkpoint::mend(bytes);
    });
    assert_eq!(longer, CorruptCheckpoint::Malformed { bytes_left: 1 });
}

#[test]
fn content_that_cannot_be_is_refused_even_if_its_checksum_is_right() {
    let rules = rules(&[("r", &["Sum"], 10)]);
    let mut worker = Worker::new(&rules, LIMITS);
    worker.take("x", NOW, 1.0);
    let sound = encode(&worker.buckets.take_all());
    assert_eq!(sound.len(), 63);
    for (what, place, bytes) in [
        ("the number of rules", 8, &[2][..]),
        ("the length of the rule's id", 12, &[255, 255, 255, 255]),
        ("the rule's id", 16, &[0xff]),
        ("the interval", 17, &[0]),
        ("the needs", 21, &[0x20]),
        ("needs that nothing is held for", 21, &[1]),
        ("the number of buckets", 22, &[255, 255, 255, 255]),
        ("the bucket's rule", 26, &[1]),
        ("the bucket's start", 35, &[1]),
        ("no points", 39, &[0]),
        ("points that overflow", 46, &[1]),
    ] {
        let mut changed = sound.clone();
        changed[place..place + bytes.len()].copy_from_slice(bytes);
        checkpoint::mend(&mut changed);
        let error = decode(&changed, &rules);
        assert!(
            matches!(error, Err(CorruptCheckpoint::Malformed { .. })),
            "{what}: {error:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_restore_panic(
        points in prop::collection::vec((0_u32..30, -8_i32..8), 1..20),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        is_checksum_mended: bool,
    ) {
        let rules = tables()[0].clone();
        let mut buckets = Buckets::new(rules.clone(), LIMITS);
        for (place, (seconds, value)) in points.iter().enumerate() {
            let index = rules.iter().nth(place % 3).unwrap().0;
            let id = buckets.intern(index, b"x").unwrap();
            let observed = buckets.observe(id, NOW + seconds, f64::from(*value), NOW, place as u64);
            prop_assert_eq!(observed, Observed::Taken);
        }
        let sound = merge(buckets.take_all());
        let mut bytes = encode(&sound);
        for (place, byte) in &changes {
            let place = place.index(bytes.len());
            bytes[place] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if is_checksum_mended && bytes.len() > 8 {
            checkpoint::mend(&mut bytes);
        }
        let is_sound = bytes == encode(&sound);
        match decode(&bytes, &rules) {
            Ok(restored) => {
                prop_assert!(is_sound || is_checksum_mended);
                for partial in restored.buckets {
                    prop_assert_eq!(buckets.restore(partial), Observed::Taken);
                }
                finish(merge(buckets.take_all()), |_| ());
            }
            Err(_) => prop_assert!(!is_sound),
        }
    }

    #[test]
    fn bytes_that_are_no_checkpoint_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(
            decode(&bytes, &tables()[0]),
            Err(CorruptCheckpoint::Foreign)
        );
    }
}

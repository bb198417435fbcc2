//! Whatever is in a checkpoint: no panic, no more memory than a few times its length, and buckets that can be taken up again,
//! flushed, and put into a checkpoint that says the same.
//!
//! The checksum of every second input is made right, so that what it protects is tried as well.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use relay_engine::aggregate::checkpoint::{decode, encode};
use relay_engine::aggregate::{
    Buckets, Function, Limits, Observed, PercentileDefinition, Rule, RuleSettings, Rules, finish, merge,
};

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let rule = |id: &str, functions: &[&str]| Rule::try_new(RuleSettings {
        id: id.into(),
        functions: functions.iter().map(|name| name.parse::<Function>().expect("a function")).collect(),
        percentile_definition: PercentileDefinition::default(),
        interval: Duration::from_secs(10),
        wait: Duration::from_secs(12),
    })
    .expect("it is valid");
    let rules = vec![rule("a", &["Sum"]), rule("b", &["Median", "Max", "Last", "Derive", "Stdev"])];
    Rules::try_new(rules).expect("they differ")
});

fuzz_target!(|input: (bool, &[u8])| {
    let (is_mended, bytes) = input;
    let mut bytes = bytes.to_vec();
    if is_mended && let Some((content, hash)) = bytes.split_last_chunk_mut() {
        *hash = checksum(content).to_le_bytes();
    }
    let Ok(restored) = decode(&bytes, &RULES) else { return };
    let again = decode(&encode(&restored.buckets), &RULES).expect("what was written can be read");
    assert!(again.leftovers.is_empty());
    assert_eq!(encode(&again.buckets), encode(&restored.buckets));

    let mut buckets = Buckets::new(RULES.clone(), Limits::default());
    let points: u64 = restored.buckets.iter().map(|bucket| bucket.points()).sum();
    let mut taken_up = 0;
    for bucket in restored.buckets {
        let points = bucket.points();
        if buckets.restore(bucket) == Observed::Taken {
            taken_up += points;
        }
    }
    assert!(taken_up <= points);
    let merged = merge(buckets.take_all());
    assert_eq!(merged.iter().map(|bucket| bucket.points()).sum::<u64>(), taken_up);
    finish(merged, |aggregate| assert!(aggregate.value.is_finite()));
});

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

//! The jump hash of Lamping and Veach over a 64-bit FNV-1a, as carbon-c-relay does it (`consistent-hash.c`).

use std::cmp::Ordering;
use std::num::IntErrorKind;

use super::{Error, Member, hash};

/// The members in the order of their buckets: those with an instance by instance, then the others as they are named.
pub(super) fn buckets(members: &[Member<'_>]) -> Result<Box<[u32]>, Error> {
    let instances: Vec<Option<Instance<'_>>> = members
        .iter()
        .map(|member| member.instance.map(Instance::new))
        .collect();
    // Numbers and texts together may have no order: a sort would then return any, and an older relay's another one. A
    // member's bucket is the number of those before it; where two have one, there is no order.
    let mut buckets = vec![None; members.len()];
    for index in 0..members.len() {
        let is_before = |other: &usize| {
            let order = compare(&instances[*other], &instances[index]);
            order.then(other.cmp(&index)).is_lt()
        };
        let before = (0..members.len()).filter(is_before).count();
        if buckets[before].replace(index as u32).is_some() {
            return Err(Error::InstanceOrder);
        }
    }
    buckets
        .into_iter()
        .collect::<Option<_>>()
        .ok_or(Error::InstanceOrder)
}

struct Instance<'a> {
    text: &'a str,
    number: Option<i64>,
}

impl<'a> Instance<'a> {
    // As C's `strtol` reads it, which stops at the largest number.
    fn new(text: &'a str) -> Self {
        let number = match text.parse::<i64>() {
            Ok(number) => Some(number),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(i64::MAX),
            Err(error) if *error.kind() == IntErrorKind::NegOverflow => Some(i64::MIN),
            Err(_) => None,
        };
        Self { text, number }
    }
}

fn compare(one: &Option<Instance<'_>>, other: &Option<Instance<'_>>) -> Ordering {
    match (one, other) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(one), Some(other)) => match (one.number, other.number) {
            (Some(one), Some(other)) => one.cmp(&other),
            _ => one.text.cmp(other.text),
        },
    }
}

/// Appends the members that own `key`. `replicas` is at most the number of buckets.
pub(super) fn owners(buckets: &[u32], key: &[u8], replicas: usize, owners: &mut Vec<u32>) {
    let mut hash = hash::fnv1a_64(key);
    if replicas == 1 {
        owners.push(buckets[bucket(hash, buckets.len() as u32) as usize]);
        return;
    }
    // Each owner swaps places with the last of those left, so the owners gather at the end, the first one last.
    let begin = owners.len();
    owners.extend_from_slice(buckets);
    let left = &mut owners[begin..];
    for last in (0..left.len()).rev().take(replicas) {
        left.swap(bucket(hash, last as u32 + 1) as usize, last);
        hash = next(hash);
    }
    left.reverse();
    owners.truncate(begin + replicas);
}

/// The bucket of a hash, of `buckets`. With one more bucket it is the same or the new one.
pub(super) fn bucket(mut hash: u64, buckets: u32) -> u32 {
    let (mut bucket, mut jump) = (0, 0);
    while jump < i64::from(buckets) {
        bucket = jump;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        jump = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((hash >> 33) + 1) as f64)) as i64;
    }
    bucket as u32
}

// xorshift64*: another hash for the next replica.
fn next(mut hash: u64) -> u64 {
    hash ^= hash >> 12;
    hash ^= hash << 25;
    hash ^= hash >> 27;
    hash.wrapping_mul(2_685_821_657_736_338_717)
}

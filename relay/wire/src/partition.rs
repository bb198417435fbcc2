//! Which of a topic's partitions a series goes to: carbon-relay-ng's ways, and that of Kafka's own clients.

use std::hash::Hasher as _;

use twox_hash::XxHash64;

use crate::metric_data::Series;

/// How series are shared out among partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioning {
    /// All points of an organisation together.
    ByOrg,
    /// By the name without tags.
    BySeries,
    /// By name and tags, with a jump hash: when there are more partitions, few series move.
    BySeriesWithTags,
    /// By name and tags.
    BySeriesWithTagsFnv,
    /// By the whole series, as Kafka's clients do it with a message's key.
    Murmur2,
}

impl Partitioning {
    /// The partition of a series among `partitions`, which is at least 1. `whole` is the series as it came.
    pub fn partition(self, series: &Series, whole: &[u8], org_id: u32, partitions: u32) -> u32 {
        match self {
            Self::ByOrg => absolute(fnv1a([&org_id.to_le_bytes()[..]]), partitions),
            Self::BySeries => absolute(fnv1a([&*series.name]), partitions),
            Self::BySeriesWithTagsFnv => absolute(fnv1a(with_tags(series)), partitions),
            Self::BySeriesWithTags => {
                let mut hash = XxHash64::with_seed(0);
                with_tags(series).for_each(|part| hash.write(part));
                jump(hash.finish(), partitions)
            }
            Self::Murmur2 => by_key(whole, partitions),
        }
    }
}

/// The partition of a message with a key, as Kafka's own clients have it. `partitions` is at least 1.
pub fn by_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

fn with_tags(series: &Series) -> impl Iterator<Item = &[u8]> {
    let tags = series.tags.iter().filter(|tag| !tag.starts_with(b"name="));
    let tags = tags.flat_map(|tag| [&b";"[..], tag]);
    std::iter::once(&*series.name).chain(tags)
}

fn fnv1a<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = parts.into_iter().flatten();
    bytes.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

// The hash is a signed number, and what is left of it by division is taken without its sign.
fn absolute(hash: u32, partitions: u32) -> u32 {
    let rest = i64::from(hash.cast_signed()) % i64::from(partitions);
    rest.unsigned_abs() as u32
}

// "A Fast, Minimal Memory, Consistent Hash Algorithm", Lamping and Veach.
fn jump(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0_i64, 0_i64);
    while next < i64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let ratio = (1_u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * ratio) as i64;
    }
    bucket as u32
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(fnv1a([&b"foobar"[..]]), 0xbf9c_f968);
        assert_eq!(fnv1a([&b"foo"[..], b"bar"]), 0xbf9c_f968);
        // of Kafka's own tests
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
        // of go-jump's tests
        for (key, buckets, bucket) in [
            (1, 1, 0),
            (42, 57, 43),
            (0xdead_10cc, 1, 0),
            (0xdead_10cc, 666, 361),
            (256, 1024, 520),
        ] {
            assert_eq!(jump(key, buckets), bucket, "{key} of {buckets}");
        }
    }

    #[test]
    fn the_sign_of_a_hash_is_not_the_partitions() {
        assert_eq!(absolute(7, 3), 1);
        assert_eq!(absolute((-7_i32).cast_unsigned(), 3), 1);
        assert_eq!(absolute(i32::MIN.cast_unsigned(), 1000), 648);
    }

    #[test]
    fn every_way_shares_series_out_and_keeps_each_where_it_is() {
        for way in [
            Partitioning::BySeries,
            Partitioning::BySeriesWithTags,
            Partitioning::BySeriesWithTagsFnv,
            Partitioning::Murmur2,
        ] {
            let mut counts = [0; 8];
            for number in 0..8000 {
                let name = format!("servers.web{number}.cpu;dc=ams");
                let series = Series::new(name.as_bytes(), 1, 10).unwrap();
                let partition = way.partition(&series, name.as_bytes(), 1, 8);
                assert_eq!(partition, way.partition(&series, name.as_bytes(), 1, 8));
                counts[partition as usize] += 1;
            }
            assert!(
                counts.iter().all(|count| (800..1200).contains(count)),
                "{way:?}: {counts:?}"
            );
        }
    }
}

//! The hashes that keys and members go through.

use md5::{Digest as _, Md5};
use twox_hash::XxHash64;

/// How a key or a label becomes a position on a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyHash {
    /// The first two bytes of its MD5.
    Md5,
    /// Its 32-bit FNV-1a, the halves XOR-ed.
    Fnv1a,
}

impl KeyHash {
    pub(super) fn position(self, text: &[u8]) -> u16 {
        match self {
            Self::Md5 => {
                let digest = Md5::digest(text);
                u16::from_be_bytes([digest[0], digest[1]])
            }
            Self::Fnv1a => {
                let hash = fnv1a_32(text);
                (hash >> 16) as u16 ^ hash as u16
            }
        }
    }
}

// carbon-c-relay reads signed characters on x86, unsigned ones on ARM: beyond ASCII there is nothing to be equal to.
fn fnv1a_32(text: &[u8]) -> u32 {
    text.iter().fold(2_166_136_261, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(16_777_619)
    })
}

/// The 64-bit FNV-1a.
pub(super) fn fnv1a_64(text: &[u8]) -> u64 {
    text.iter().fold(14_695_981_039_346_656_037, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211)
    })
}

/// XXH64 with seed 0.
pub(super) fn xxh64(text: &[u8]) -> u64 {
    XxHash64::oneshot(0, text)
}

/// The end of SplitMix64: a bijection in which every bit of the input moves about half of the bits of the output.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Published vectors: RFC 1321, the FNV and xxHash authors' own, and SplitMix64 from seed 0.
    #[test]
    fn hashes_are_the_published_ones() {
        assert_eq!(KeyHash::Md5.position(b""), 0xd41d);
        assert_eq!(KeyHash::Md5.position(b"message digest"), 0xf96b);
        assert_eq!(fnv1a_32(b"foobar"), 0xbf9c_f968);
        assert_eq!(KeyHash::Fnv1a.position(b"foobar"), 0xbf9c ^ 0xf968);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
    }
}

//! The algorithms by name.

use std::fmt;
use std::str::FromStr;

/// Who decides on which member owns a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Python carbon's default, `ROUTER_HASH_TYPE = carbon_ch`.
    Carbon,
    /// carbon-relay-ng's `consistentHashing`.
    CarbonRelayNg,
    /// carbon-relay-ng's `consistentHashing-v2`, which is nearly carbon's: it does not move a member's point past another
    /// of the same member.
    CarbonRelayNgV2,
    /// carbon-c-relay's `carbon_ch`.
    CarbonCRelay,
    /// carbon-c-relay's `fnv1a_ch`.
    Fnv1aCRelay,
    /// Python carbon's `ROUTER_HASH_TYPE = fnv1a_ch`.
    Fnv1aCarbon,
    /// carbon-c-relay's `jump_fnv1a_ch`, and with one replica nanotube's `jump`.
    JumpFnv1a,
    /// Highest random weight; the best choice where no other relay must agree: the most even, it moves no key but those that
    /// a new member gets or a removed one had, and it does not depend on the order of the members.
    ///
    /// ```text
    /// identity = INSTANCE, or HOST:PORT, or [HOST]:PORT for IPv6
    /// score    = mix(XXH64(key) ^ XXH64(identity))             both with seed 0
    /// mix(z)   : z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9; z = (z ^ z >> 27) * 0x94d049bb133111eb; z ^ z >> 31
    /// ```
    ///
    /// The owners of a key are the members with the highest scores, highest first; of equal ones the first named. `mix` is
    /// the end of SplitMix64; products are taken modulo 2⁶⁴.
    Rendezvous,
}

/// A name that no algorithm has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not known to this release: use {}", names(&Algorithm::ALL))]
pub struct Unknown {
    /// As it was written.
    pub name: String,
}

impl Algorithm {
    /// Every algorithm, those of older relays first.
    pub const ALL: [Self; 8] = [
        Self::Carbon,
        Self::CarbonRelayNg,
        Self::CarbonRelayNgV2,
        Self::CarbonCRelay,
        Self::Fnv1aCRelay,
        Self::Fnv1aCarbon,
        Self::JumpFnv1a,
        Self::Rendezvous,
    ];

    /// The name in resources.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Carbon => "Carbon",
            Self::CarbonRelayNg => "CarbonRelayNg",
            Self::CarbonRelayNgV2 => "CarbonRelayNgV2",
            Self::CarbonCRelay => "CarbonCRelay",
            Self::Fnv1aCRelay => "Fnv1aCRelay",
            Self::Fnv1aCarbon => "Fnv1aCarbon",
            Self::JumpFnv1a => "JumpFnv1a",
            Self::Rendezvous => "Rendezvous",
        }
    }

    /// Whether it can put the replicas of a key on different hosts.
    pub const fn has_diverse_replicas(self) -> bool {
        match self {
            Self::Carbon | Self::Fnv1aCarbon | Self::Rendezvous => true,
            Self::CarbonRelayNg
            | Self::CarbonRelayNgV2
            | Self::CarbonCRelay
            | Self::Fnv1aCRelay
            | Self::JumpFnv1a => false,
        }
    }
}

impl FromStr for Algorithm {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
            .ok_or_else(|| Unknown {
                name: name.to_owned(),
            })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// "A, B or C".
fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<&str> = algorithms.iter().map(|a| a.as_str()).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

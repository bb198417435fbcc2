//! Consistent hashing: which members of a route own a key, as each of the older relays decides it, and in a way of our own.
//!
//! A [`Ring`] is built once, when a table is loaded, from the members in the order in which the route names them; a lookup
//! takes a key ([`HashKey::of`] a series name) and returns indexes into that order. Nothing here depends on anything else,
//! so all relays of a fleet agree, and so do relays of different releases: no result may ever change.
//!
//! | [`Algorithm`] | whose | a member's points, i = 0 to 99 | key | points at one position |
//! |---|---|---|---|---|
//! | `Carbon` | carbon's `carbon_ch` | MD5 of `('HOST', 'INSTANCE'):i` | MD5 | move up to the next free one |
//! | `CarbonRelayNg` | its `consistentHashing` | the same | MD5 | stay, by host, then instance |
//! | `CarbonRelayNgV2` | its `consistentHashing-v2` | the same | MD5 | move up past those of earlier members, 65535 to 0 |
//! | `CarbonCRelay` | carbon-c-relay's `carbon_ch` | the same | MD5 | fall to the first by host, then instance |
//! | `Fnv1aCRelay` | its `fnv1a_ch` | FNV-1a of `i-INSTANCE`, or `i-HOST:PORT` | FNV-1a | fall to the first by host, then port |
//! | `Fnv1aCarbon` | carbon's `fnv1a_ch` | FNV-1a of `i-INSTANCE` | FNV-1a | move up to the next free one |
//! | `JumpFnv1a` | carbon-c-relay's `jump_fnv1a_ch` | one bucket each, by instance | FNV-1a, 64 bits | |
//! | `Rendezvous` | ours, see [`Algorithm::Rendezvous`] | a score for each key | XXH64 | |
//!
//! Positions are 16 bits: the first two bytes of an MD5, or the halves of a 32-bit FNV-1a XOR-ed. Without an instance the
//! first five say `None`, without quotes, where it would stand. A key belongs to the first point at its position or above,
//! else to the first of all; replicas are the next members on the way up. carbon-relay-ng has no replicas: there, that rule
//! is ours.

mod algorithm;
mod error;
mod hash;
mod jump;
mod key;
mod points;
pub(crate) mod rendezvous;

use std::fmt;
use std::num::NonZeroU32;

pub use algorithm::{Algorithm, Unknown};
pub use error::{Error, Limit};
pub use key::HashKey;
pub(crate) use key::normalised;
pub use points::Point;

use hash::KeyHash;

/// How keys are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who decides.
    pub algorithm: Algorithm,
    /// How many members own a key. At most as many as there are.
    pub replication_factor: NonZeroU32,
    /// Whether the owners of a key must have different hosts: carbon's `DIVERSE_REPLICAS`, on there by default. Only
    /// `Carbon`, `Fnv1aCarbon` and `Rendezvous` know it.
    pub diverse_replicas: bool,
}

/// One that keys are shared out to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// As the configuration has it: a name that was not resolved, or an IP address, IPv6 without brackets.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// What tells members on one host apart, and keeps a member's keys when it moves to another host.
    pub instance: Option<&'a str>,
}

/// The owners of every key. It never changes.
#[derive(Debug)]
pub struct Ring {
    shape: Shape,
    replication_factor: usize,
    // Two members of one group never own a key together. By member.
    groups: Box<[u32]>,
}

#[derive(Debug)]
enum Shape {
    // Sorted by position.
    Points { hash: KeyHash, points: Box<[Point]> },
    // The member in each bucket.
    Jump { buckets: Box<[u32]> },
    // The hash of each member's identity.
    Rendezvous { identities: Box<[u64]> },
}

/// Where a key falls: why its first owner owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// On a ring of points.
    Ring {
        /// The key's position.
        key: u16,
        /// The position of the point that it belongs to; less than the key's if the ring was gone round.
        point: u32,
    },
    /// In a bucket of the jump hash.
    Jump {
        /// The key's hash.
        key: u64,
        /// Counted from 0, in the order of the instances.
        bucket: u32,
    },
    /// The highest of all members' scores.
    Rendezvous {
        /// The key's hash.
        key: u64,
        /// The first owner's score.
        score: u64,
    },
}

impl Ring {
    /// Shares the keys out to `members`, whose order counts.
    ///
    /// # Errors
    /// What the algorithm cannot do with these members, or does in a way that nobody can want.
    pub fn new(config: Config, members: &[Member<'_>]) -> Result<Self, Error> {
        Self::with_points(config, members, points::PER_MEMBER)
    }

    fn with_points(
        config: Config,
        members: &[Member<'_>],
        points_per_member: u32,
    ) -> Result<Self, Error> {
        let Config {
            algorithm,
            replication_factor,
            diverse_replicas,
        } = config;
        error::check_members(algorithm, members)?;
        if diverse_replicas && !algorithm.has_diverse_replicas() {
            return Err(Error::DiverseReplicas { algorithm });
        }
        let shape = match points::dialect(algorithm) {
            Some(dialect) => Shape::Points {
                hash: dialect.hash,
                points: dialect.points(members, points_per_member),
            },
            None if algorithm == Algorithm::JumpFnv1a => Shape::Jump {
                buckets: jump::buckets(members)?,
            },
            None => Shape::Rendezvous {
                identities: rendezvous::identities(members),
            },
        };
        let ring = Self {
            shape,
            replication_factor: replication_factor.get() as usize,
            groups: groups(members, diverse_replicas),
        };
        ring.check_replication_factor(members.len(), diverse_replicas)?;
        Ok(ring)
    }

    /// Appends the members that own `key`, first owner first, each once, as many as the replication factor. They are
    /// indexes into the members that the ring was built from.
    pub fn owners(&self, key: &[u8], owners: &mut Vec<u32>) {
        let begin = owners.len();
        match &self.shape {
            Shape::Points { hash, points } => {
                let first = points::find(points, hash.position(key));
                for point in points[first..].iter().chain(&points[..first]) {
                    if !self.is_taken(&owners[begin..], point.member) {
                        owners.push(point.member);
                        if owners.len() - begin == self.replication_factor {
                            break;
                        }
                    }
                }
            }
            Shape::Jump { buckets } => jump::owners(buckets, key, self.replication_factor, owners),
            Shape::Rendezvous { identities } => {
                let key = hash::xxh64(key);
                for _ in 0..self.replication_factor {
                    let best = rendezvous::best(identities, key, |member| {
                        !self.is_taken(&owners[begin..], member)
                    });
                    owners.extend(best.map(|(member, _)| member));
                }
            }
        }
    }

    /// Where `key` falls.
    pub fn position(&self, key: &[u8]) -> Position {
        match &self.shape {
            Shape::Points { hash, points } => {
                let key = hash.position(key);
                let point = points[points::find(points, key)].position;
                Position::Ring { key, point }
            }
            Shape::Jump { buckets } => {
                let key = hash::fnv1a_64(key);
                let bucket = jump::bucket(key, buckets.len() as u32);
                Position::Jump { key, bucket }
            }
            Shape::Rendezvous { identities } => {
                let key = hash::xxh64(key);
                let best = rendezvous::best(identities, key, |_| true);
                let score = best.map_or(0, |(_, score)| score);
                Position::Rendezvous { key, score }
            }
        }
    }

    /// The ring's points by position; none where the algorithm has no points.
    pub fn points(&self) -> &[Point] {
        match &self.shape {
            Shape::Points { points, .. } => points,
            Shape::Jump { .. } | Shape::Rendezvous { .. } => &[],
        }
    }

    /// The members that never own a key, because the algorithm takes them for another one: with carbon-c-relay's, those
    /// whose host and instance (`CarbonCRelay`) or whose instance (`Fnv1aCRelay`) is that of another member.
    pub fn idle_members(&self) -> Vec<u32> {
        let Shape::Points { points, .. } = &self.shape else {
            return Vec::new();
        };
        let mut is_idle = vec![true; self.groups.len()];
        for point in points {
            is_idle[point.member as usize] = false;
        }
        let members = 0..self.groups.len() as u32;
        members.filter(|member| is_idle[*member as usize]).collect()
    }

    // A handful of owners: a scan is faster than a set.
    fn is_taken(&self, owners: &[u32], member: u32) -> bool {
        let group = |member: u32| self.groups[member as usize];
        owners.iter().any(|owner| group(*owner) == group(member))
    }

    fn check_replication_factor(
        &self,
        members: usize,
        diverse_replicas: bool,
    ) -> Result<(), Error> {
        let idle = self.idle_members();
        let mut groups: Vec<u32> = (0..members as u32)
            .filter(|member| !idle.contains(member))
            .map(|member| self.groups[member as usize])
            .collect();
        groups.sort_unstable();
        groups.dedup();
        if self.replication_factor <= groups.len() {
            return Ok(());
        }
        Err(Error::ReplicationFactor {
            factor: self.replication_factor,
            fit: groups.len(),
            limit: match (diverse_replicas, idle.is_empty()) {
                (true, _) => Limit::Hosts,
                (false, true) => Limit::Members,
                (false, false) => Limit::Instances,
            },
        })
    }
}

// By host, or each member its own. A group is called by its first member.
fn groups(members: &[Member<'_>], by_host: bool) -> Box<[u32]> {
    let group = |index: usize| {
        let same_host = |other: &Member<'_>| other.host == members[index].host;
        match by_host {
            true => members.iter().position(same_host).unwrap_or(index) as u32,
            false => index as u32,
        }
    };
    (0..members.len()).map(group).collect()
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring { key, point } => write!(f, "position {key}, point {point}"),
            Self::Jump { key, bucket } => write!(f, "hash {key:016x}, bucket {bucket}"),
            Self::Rendezvous { key, score } => write!(f, "hash {key:016x}, score {score:016x}"),
        }
    }
}

#[cfg(test)]
mod tests;

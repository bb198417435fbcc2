//! Highest random weight, as [`super::Algorithm::Rendezvous`] defines it.

use super::{Member, hash};

/// What a member is known by, and stays known by when it moves.
pub(super) fn identity(member: &Member<'_>) -> String {
    match member.instance {
        Some(instance) => instance.to_owned(),
        None if member.host.contains(':') => format!("[{}]:{}", member.host, member.port),
        None => format!("{}:{}", member.host, member.port),
    }
}

/// The hash of each member's identity.
pub(super) fn identities(members: &[Member<'_>]) -> Box<[u64]> {
    let hashed = |member| self::hash(identity(member).as_bytes());
    members.iter().map(hashed).collect()
}

/// The hash of a key or an identity.
pub(crate) fn hash(text: &[u8]) -> u64 {
    hash::xxh64(text)
}

/// The member with the highest score for a key's hash among those that `may_own` it, and the score.
pub(crate) fn best(
    identities: &[u64],
    key: u64,
    may_own: impl Fn(u32) -> bool,
) -> Option<(u32, u64)> {
    let mut best = None;
    for (member, identity) in (0..).zip(identities) {
        let score = hash::mix(key ^ identity);
        if best.is_none_or(|(_, highest)| score > highest) && may_own(member) {
            best = Some((member, score));
        }
    }
    best
}

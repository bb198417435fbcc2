//! Members that cannot be hashed.

use super::points::MEMBERS_MAX;
use super::{Algorithm, Member, points, rendezvous};

/// Why keys cannot be shared out. The text says what is wrong and what to do about it, [`Error::field`] where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody to own a key.
    #[error("there is nobody to share the lines out to: name at least one destination")]
    NoMembers,
    /// More points than positions.
    #[error(
        "{members} are more than the {MEMBERS_MAX} that a ring has room for: use Rendezvous or JumpFnv1a"
    )]
    TooManyMembers {
        /// How many there are.
        members: usize,
    },
    /// A host that the relays do not all write in the same way.
    #[error(
        "the host '{host}' cannot be hashed: use printable ASCII without spaces, quotes and backslashes"
    )]
    Host {
        /// Whose.
        member: usize,
        /// The host.
        host: String,
    },
    /// An instance that the relays do not all write in the same way.
    #[error(
        "'{instance}' cannot be hashed: use printable ASCII without spaces, quotes and backslashes, or leave it out"
    )]
    Instance {
        /// Whose.
        member: usize,
        /// The instance.
        instance: String,
    },
    /// Two members that the algorithm does not tell apart.
    #[error(
        "{algorithm} cannot tell it from destinations[{first}], which has the same {same}: give each an instance of its own"
    )]
    Twins {
        /// The first of them.
        first: usize,
        /// The second.
        second: usize,
        /// Who cannot tell.
        algorithm: Algorithm,
        /// What they have in common.
        same: &'static str,
    },
    /// Instances of which each comes before another, so that none is first.
    #[error(
        "the instances have no order, for JumpFnv1a sorts two numbers by value, all else as text: use numbers alone or no numbers"
    )]
    InstanceOrder,
    /// More replicas than there are to own them.
    #[error("{factor} is more than the number of {limit}", limit = limit.described(*fit))]
    ReplicationFactor {
        /// What was asked for.
        factor: usize,
        /// How many fit.
        fit: usize,
        /// What ran out.
        limit: Limit,
    },
    /// An algorithm that does not look at hosts.
    #[error(
        "{algorithm} does not look at hosts: leave it out, or use Carbon, Fnv1aCarbon or Rendezvous"
    )]
    DiverseReplicas {
        /// Which one.
        algorithm: Algorithm,
    },
}

/// What there are too few of for the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Members.
    Members,
    /// Hosts.
    Hosts,
    /// Members that the algorithm tells apart.
    Instances,
}

impl Limit {
    // What it is, how many there are, and what to do about it.
    fn described(self, fit: usize) -> String {
        match self {
            Self::Members => format!("destinations, {fit}: lower it or name more destinations"),
            Self::Hosts => format!(
                "hosts, {fit}: lower it, name destinations on more hosts or leave diverseReplicas out"
            ),
            Self::Instances => format!(
                "different instances, {fit}: lower it or give each destination an instance of its own"
            ),
        }
    }
}

impl Error {
    /// Where in a route's spec: "destinations[2].instance".
    pub fn field(&self) -> String {
        match self {
            Self::NoMembers | Self::TooManyMembers { .. } | Self::InstanceOrder => {
                "destinations".to_owned()
            }
            Self::Host { member, .. } => format!("destinations[{member}]"),
            Self::Instance { member, .. } | Self::Twins { second: member, .. } => {
                format!("destinations[{member}].instance")
            }
            Self::ReplicationFactor { .. } => "consistentHash.replicationFactor".to_owned(),
            Self::DiverseReplicas { .. } => "consistentHash.diverseReplicas".to_owned(),
        }
    }
}

pub(super) fn check_members(algorithm: Algorithm, members: &[Member<'_>]) -> Result<(), Error> {
    if members.is_empty() {
        return Err(Error::NoMembers);
    }
    if members.len() > MEMBERS_MAX && points::dialect(algorithm).is_some() {
        return Err(Error::TooManyMembers {
            members: members.len(),
        });
    }
    for (index, member) in members.iter().enumerate() {
        if !is_hashable(member.host) {
            return Err(Error::Host {
                member: index,
                host: member.host.to_owned(),
            });
        }
        if let Some(instance) = member.instance.filter(|instance| !is_hashable(instance)) {
            return Err(Error::Instance {
                member: index,
                instance: instance.to_owned(),
            });
        }
    }
    check_twins(algorithm, members)
}

// Python escapes what a string literal cannot hold, C cuts at a NUL, and neither's configuration can hold a space.
fn is_hashable(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\'' | b'"' | b'\\');
    !text.is_empty() && text.bytes().all(fine)
}

fn check_twins(algorithm: Algorithm, members: &[Member<'_>]) -> Result<(), Error> {
    let (identity, same): (fn(&Member<'_>) -> String, _) = match algorithm {
        // carbon refuses them. carbon-relay-ng leaves their order, and so the owner of every key, to chance.
        Algorithm::Carbon | Algorithm::Fnv1aCarbon => (
            |member| points::tuple(member.host, member.instance),
            "host and instance",
        ),
        Algorithm::CarbonRelayNg => (
            |member| points::tuple(&points::host_before_colon(member.host), member.instance),
            "host and instance",
        ),
        Algorithm::Rendezvous => (rendezvous::identity, "instance, or host and port"),
        // Theirs work with twins: see `Ring::idle_members`.
        Algorithm::CarbonRelayNgV2
        | Algorithm::CarbonCRelay
        | Algorithm::Fnv1aCRelay
        | Algorithm::JumpFnv1a => return Ok(()),
    };
    let mut identities: Vec<(String, usize)> = members.iter().map(identity).zip(0..).collect();
    identities.sort_unstable();
    for pair in identities.windows(2) {
        if let [(one, first), (other, second)] = pair
            && one == other
        {
            return Err(Error::Twins {
                first: *first,
                second: *second,
                algorithm,
                same,
            });
        }
    }
    Ok(())
}

//! Rings of points: what six of the algorithms share, and the little in which they differ.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::hash::KeyHash;
use super::{Algorithm, Member};

/// Points of one member: what carbon has built in, and everybody else after it.
pub(super) const PER_MEMBER: u32 = 100;

/// So many members' points find a free position each. More would also be unfairly short of keys.
pub(super) const MEMBERS_MAX: usize = POSITIONS / PER_MEMBER as usize;

const POSITIONS: usize = 1 << 16;

/// A member's claim to the keys from the point below up to this position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// 0 to 65535, the same as keys have; above that, where carbon moved a point up from the last positions.
    pub position: u32,
    /// Whose it is.
    pub member: u32,
}

/// The ways of one relay.
pub(super) struct Dialect {
    pub(super) hash: KeyHash,
    // What is hashed for a member's point.
    label: fn(&Member<'_>, u32) -> String,
    collisions: Collisions,
}

// What becomes of points that hash to one position.
enum Collisions {
    // A point moves up to a position that no point has.
    MoveUp,
    // A point moves up, and from 65535 to 0, to a position that no earlier member's point has.
    MoveUpPastOthers,
    // They stay; the order of their members decides.
    Stay(fn(Member<'_>) -> Precedence<'_>),
    // All become those of the first member by that order.
    FirstTakesAll(fn(Member<'_>) -> Precedence<'_>),
}

// Which member comes first where points have one position; the lowest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Precedence<'a> {
    host: Cow<'a, str>,
    has_none: bool,
    instance: &'a str,
    port: u16,
}

/// The ways of an algorithm that has points.
pub(super) fn dialect(algorithm: Algorithm) -> Option<Dialect> {
    let (hash, label, collisions): (_, fn(&Member<'_>, u32) -> String, _) = match algorithm {
        Algorithm::Carbon => (KeyHash::Md5, carbon_label, Collisions::MoveUp),
        Algorithm::CarbonRelayNg => {
            let collisions = Collisions::Stay(carbon_relay_ng_precedence);
            (KeyHash::Md5, carbon_relay_ng_label, collisions)
        }
        Algorithm::CarbonRelayNgV2 => {
            let collisions = Collisions::MoveUpPastOthers;
            (KeyHash::Md5, carbon_relay_ng_label, collisions)
        }
        Algorithm::CarbonCRelay => {
            let collisions = Collisions::FirstTakesAll(c_relay_carbon_precedence);
            (KeyHash::Md5, c_relay_carbon_label, collisions)
        }
        Algorithm::Fnv1aCRelay => {
            let collisions = Collisions::FirstTakesAll(c_relay_fnv1a_precedence);
            (KeyHash::Fnv1a, c_relay_fnv1a_label, collisions)
        }
        Algorithm::Fnv1aCarbon => (KeyHash::Fnv1a, carbon_fnv1a_label, Collisions::MoveUp),
        Algorithm::JumpFnv1a | Algorithm::Rendezvous => return None,
    };
    Some(Dialect {
        hash,
        label,
        collisions,
    })
}

/// The index of the point that a key at `position` belongs to.
pub(super) fn find(points: &[Point], position: u16) -> usize {
    let position = u32::from(position);
    match points.partition_point(|point| point.position < position) {
        above_all if above_all == points.len() => 0,
        index => index,
    }
}

impl Dialect {
    /// All points, sorted by position. There are at most [`MEMBERS_MAX`] members.
    pub(super) fn points(&self, members: &[Member<'_>], per_member: u32) -> Box<[Point]> {
        let mut points: Vec<Point> = Vec::with_capacity(members.len() * per_member as usize);
        for (member, index) in members.iter().zip(0..) {
            points.extend((0..per_member).map(|i| Point {
                position: u32::from(self.hash.position((self.label)(member, i).as_bytes())),
                member: index,
            }));
        }
        match self.collisions {
            Collisions::MoveUp => {
                move_up(&mut points);
                points.sort_unstable();
            }
            Collisions::MoveUpPastOthers => {
                move_up_past_others(&mut points, per_member as usize);
                points.sort_unstable();
            }
            Collisions::Stay(precedence) => sort_by(&mut points, members, precedence),
            Collisions::FirstTakesAll(precedence) => {
                sort_by(&mut points, members, precedence);
                for i in 1..points.len() {
                    if points[i].position == points[i - 1].position {
                        points[i].member = points[i - 1].member;
                    }
                }
            }
        }
        points.into()
    }
}

// Points come in the order in which they were claimed. The last one stops below twice the number of positions, for there are
// no more points than positions.
fn move_up(points: &mut [Point]) {
    let mut is_claimed = vec![false; 2 * POSITIONS];
    for point in points {
        while is_claimed[point.position as usize] {
            point.position += 1;
        }
        is_claimed[point.position as usize] = true;
    }
}

fn move_up_past_others(points: &mut [Point], per_member: usize) {
    let mut is_claimed = vec![false; POSITIONS];
    for of_member in points.chunks_mut(per_member) {
        for point in of_member.iter_mut() {
            while is_claimed[point.position as usize] {
                point.position = (point.position + 1) % POSITIONS as u32;
            }
        }
        for point in of_member {
            is_claimed[point.position as usize] = true;
        }
    }
}

fn sort_by(
    points: &mut [Point],
    members: &[Member<'_>],
    precedence: fn(Member<'_>) -> Precedence<'_>,
) {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_cached_key(|member| precedence(members[*member]));
    let mut ranks = vec![0; members.len()];
    for (rank, member) in order.into_iter().enumerate() {
        ranks[member] = rank;
    }
    points.sort_by_key(|point| (point.position, ranks[point.member as usize]));
}

fn carbon_relay_ng_precedence(member: Member<'_>) -> Precedence<'_> {
    Precedence {
        host: host_before_colon(member.host),
        has_none: false,
        instance: member.instance.unwrap_or_default(),
        port: 0,
    }
}

fn c_relay_carbon_precedence(member: Member<'_>) -> Precedence<'_> {
    Precedence {
        host: Cow::Borrowed(member.host),
        has_none: member.instance.is_none(),
        instance: member.instance.unwrap_or_default(),
        port: 0,
    }
}

fn c_relay_fnv1a_precedence(member: Member<'_>) -> Precedence<'_> {
    Precedence {
        host: Cow::Borrowed(member.host),
        has_none: false,
        instance: "",
        port: member.port,
    }
}

/// A host and an instance as Python prints a tuple.
pub(super) fn tuple(host: &str, instance: Option<&str>) -> String {
    match instance {
        Some(instance) => format!("('{host}', '{instance}')"),
        None => format!("('{host}', None)"),
    }
}

/// The host as carbon-relay-ng takes it from an address: what is before the first colon, so that little is left of IPv6.
pub(super) fn host_before_colon(host: &str) -> Cow<'_, str> {
    match host.split_once(':') {
        Some((before, _)) => Cow::Owned(format!("[{before}")),
        None => Cow::Borrowed(host),
    }
}

fn carbon_label(member: &Member<'_>, i: u32) -> String {
    numbered(tuple(member.host, member.instance), i)
}

fn carbon_relay_ng_label(member: &Member<'_>, i: u32) -> String {
    numbered(tuple(&host_before_colon(member.host), member.instance), i)
}

fn numbered(mut label: String, i: u32) -> String {
    write!(label, ":{i}").expect("a string takes everything");
    label
}

fn c_relay_carbon_label(member: &Member<'_>, i: u32) -> String {
    cut(carbon_label(member, i))
}

fn c_relay_fnv1a_label(member: &Member<'_>, i: u32) -> String {
    cut(match member.instance {
        Some(instance) => format!("{i}-{instance}"),
        None => format!("{i}-{}:{}", member.host, member.port),
    })
}

// It writes into 256 bytes, the last of which is a NUL.
fn cut(mut label: String) -> String {
    label.truncate(255);
    label
}

fn carbon_fnv1a_label(member: &Member<'_>, i: u32) -> String {
    format!("{i}-{}", member.instance.unwrap_or("None"))
}

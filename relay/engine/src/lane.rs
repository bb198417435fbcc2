//! Lanes: the connections of a destination, among which its series are shared out.
//!
//! A destination has a lane for each connection to each of its servers. A series is always on the same lane, so its points
//! stay in order; when a server comes or goes, only series move that it gets or had. Every relay shares out in the same way.

use std::sync::Arc;

use crate::ring::rendezvous;
use crate::table::Endpoint;

/// The place of a lane in its table: lanes are counted through all destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneIndex(u32);

impl LaneIndex {
    /// The place in [`crate::Table::lanes`].
    pub fn get(self) -> usize {
        self.0 as usize
    }
}

/// The place of a destination in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DestinationIndex(pub(crate) u32);

impl DestinationIndex {
    /// The place in [`crate::Table::destinations`].
    pub(crate) fn get(self) -> usize {
        self.0 as usize
    }
}

/// One connection of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which it is: the server's name among those of the destination, and which of the connections to it.
    pub key: LaneKey,
    /// Where it goes; `None`: there is no server for now, and lines wait.
    pub endpoint: Option<Endpoint>,
}

/// What tells a destination's lanes apart. It stays the same over snapshots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneKey {
    /// The server's name; empty where there is but one.
    pub member: Arc<str>,
    /// From 0 on.
    pub connection: u32,
}

/// How the series of a destination are shared out among its lanes.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) destination: DestinationIndex,
    // The place of the first.
    first: u32,
    // What each is known by, hashed.
    identities: Box<[u64]>,
}

impl Lanes {
    /// The lanes of a destination, the first of which is in the place `first`.
    pub(crate) fn new(destination: DestinationIndex, first: usize, lanes: &[Lane]) -> Self {
        let identity = |lane: &Lane| {
            let LaneKey { member, connection } = &lane.key;
            rendezvous::hash(format!("{member}#{connection}").as_bytes())
        };
        Self {
            destination,
            first: first as u32,
            identities: lanes.iter().map(identity).collect(),
        }
    }

    /// The lane that a series is on.
    pub(crate) fn of(&self, series: &[u8]) -> LaneIndex {
        let lane = match self.identities.len() {
            0 | 1 => 0,
            _ => {
                let best = rendezvous::best(&self.identities, rendezvous::hash(series), |_| true);
                best.map_or(0, |(lane, _)| lane)
            }
        };
        LaneIndex(self.first + lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(members: &[&str], connections: u32) -> Vec<Lane> {
        let keys = members.iter().flat_map(|member| {
            (0..connections).map(|connection| LaneKey {
                member: (*member).into(),
                connection,
            })
        });
        keys.map(|key| Lane {
            key,
            endpoint: None,
        })
        .collect()
    }

    fn shares(lanes: &[Lane]) -> Vec<LaneKey> {
        let shared = Lanes::new(DestinationIndex(0), 7, lanes);
        let series = (0..10_000).map(|n| format!("servers.web{n}.cpu"));
        series
            .map(|name| lanes[shared.of(name.as_bytes()).get() - 7].key.clone())
            .collect()
    }

    #[test]
    fn series_are_shared_out_evenly_and_each_stays_where_it_is() {
        let lanes = lanes(&["a", "b", "c"], 4);
        let shares = shares(&lanes);
        for lane in &lanes {
            let series = shares.iter().filter(|key| **key == lane.key).count();
            assert!((700..970).contains(&series), "{series} of 833");
        }
    }

    #[test]
    fn a_server_that_comes_takes_series_and_moves_no_other() {
        let before = shares(&lanes(&["a", "b"], 2));
        let after = shares(&lanes(&["a", "b", "c"], 2));
        let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
        assert!((3000..3700).contains(&moved.len()), "{}", moved.len());
        assert!(moved.iter().all(|(_, to)| &*to.member == "c"));
    }
}

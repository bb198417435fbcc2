//! What the workers run on at one moment.

use std::sync::Arc;

use arc_swap::ArcSwap;
use relay_engine::{LaneIndex, Table};
use relay_proto::Version;

use crate::destinations::Producer;

/// A table, and its lanes' ends for workers in the same order. Workers load the plan anew for every block of lines, so a
/// new one is in force from the next block on.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) table: Table,
    pub(crate) producers: Vec<Arc<Producer>>,
    /// The version of the snapshot that it is made of; `None` before the first.
    pub(crate) version: Option<Version>,
}

impl Plan {
    pub(crate) fn producer(&self, lane: LaneIndex) -> &Arc<Producer> {
        &self.producers[lane.get()]
    }
}

/// The plan in force.
pub(crate) type ActivePlan = Arc<ArcSwap<Plan>>;

//! What the workers run on at one moment.

use std::sync::Arc;

use arc_swap::ArcSwap;
use relay_engine::{DestinationIndex, Table};
use relay_proto::Version;

use crate::destinations::Producer;

/// A table, and the queues of its destinations in the same order. Workers load the plan anew for every block of lines, so a
/// new one is in force from the next block on.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) table: Table,
    pub(crate) producers: Vec<Arc<Producer>>,
    /// The version of the snapshot that it is made of; `None` before the first.
    pub(crate) version: Option<Version>,
}

impl Plan {
    pub(crate) fn producer(&self, destination: DestinationIndex) -> &Arc<Producer> {
        &self.producers[destination.get()]
    }
}

/// The plan in force.
pub(crate) type ActivePlan = Arc<ArcSwap<Plan>>;

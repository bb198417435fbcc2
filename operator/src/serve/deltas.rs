//! What to send of a snapshot to a relay that has another: made once, and shared by all streams that need it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use relay_proto::{Delta, Version};

use crate::inputs::Key;
use crate::publish::{Publication, Published};

/// Snapshots of a fleet that are kept to be built on. A relay that has an older one is sent everything.
const SNAPSHOTS_MAX: usize = 4;
/// Deltas of a fleet that are kept.
const DELTAS_MAX: usize = 4;

/// Deltas of all fleets.
#[derive(Debug, Default)]
pub(super) struct Deltas(Mutex<BTreeMap<Key, Fleet>>);

#[derive(Debug, Default)]
struct Fleet {
    snapshots: VecDeque<(Version, Bytes)>,
    deltas: VecDeque<Made>,
}

#[derive(Debug)]
struct Made {
    version: Version,
    base: Option<Version>,
    delta: Arc<Delta>,
}

impl Deltas {
    /// What to send of `published`, the snapshot of `fleet` in `publication`, to a relay that has `base`.
    pub(super) fn get(
        &self,
        publication: &Publication,
        fleet: &Key,
        published: &Published,
        base: Option<Version>,
    ) -> Arc<Delta> {
        // Held while one is made, which takes milliseconds: the others who wait would make the same.
        let mut fleets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = fleets.entry(fleet.clone()).or_default();
        let is_new = of.remember(published);
        let delta = of.delta(published, base);
        if is_new {
            fleets.retain(|fleet, _| publication.fleets.contains_key(fleet));
        }
        delta
    }
}

impl Fleet {
    fn remember(&mut self, published: &Published) -> bool {
        let is_known = |(version, _): &(Version, Bytes)| *version == published.version;
        if self.snapshots.iter().any(is_known) {
            return false;
        }
        self.snapshots.truncate(SNAPSHOTS_MAX - 1);
        self.snapshots
            .push_front((published.version, published.encoded.clone()));
        true
    }

    fn delta(&mut self, published: &Published, base: Option<Version>) -> Arc<Delta> {
        let version = published.version;
        let known = self
            .snapshots
            .iter()
            .find(|(known, _)| Some(*known) == base);
        let base = known.map(|(version, encoded)| (*version, encoded));
        let base_version = base.map(|(version, _)| version);
        let is_it = |made: &&Made| made.version == version && made.base == base_version;
        if let Some(made) = self.deltas.iter().find(is_it) {
            return Arc::clone(&made.delta);
        }
        let delta = Arc::new(Delta::new((version, &published.encoded), base));
        self.deltas.truncate(DELTAS_MAX - 1);
        self.deltas.push_front(Made {
            version,
            base: base_version,
            delta: Arc::clone(&delta),
        });
        delta
    }
}

//! What all streams share: where each fleet stands with its newest snapshot, and what to send of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use relay_proto::Version;
use tokio::sync::watch;
use tokio::time::Instant;

use super::deltas::Deltas;
use super::waves::{StreamNumber, Turn, Wave};
use crate::inputs::Key;
use crate::publish::{Publication, Published};

/// The waves of all fleets.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) deltas: Deltas,
    state: Mutex<State>,
    // Others may have their turn now.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    waves: BTreeMap<Key, Wave>,
    streams: u64,
}

/// One stream's part in it.
#[derive(Debug)]
pub(super) struct Participant {
    rollout: Arc<Rollout>,
    fleet: Key,
    stream: StreamNumber,
    changed: watch::Receiver<()>,
}

impl Rollout {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            deltas: Deltas::default(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        })
    }

    /// One more stream of a relay of `fleet`.
    pub(super) fn join(self: &Arc<Self>, fleet: &Key) -> Participant {
        let mut state = self.lock();
        state.streams += 1;
        Participant {
            rollout: Arc::clone(self),
            fleet: fleet.clone(),
            stream: StreamNumber(state.streams),
            changed: self.changed.subscribe(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Participant {
    pub(super) fn deltas(&self) -> &Deltas {
        &self.rollout.deltas
    }

    /// What this relay, which runs `active`, is to be offered.
    pub(super) fn turn(
        &mut self,
        publication: &Publication,
        active: Option<Version>,
        newest: &Arc<Published>,
    ) -> Turn {
        self.changed.mark_unchanged();
        let mut state = self.rollout.lock();
        if !state.waves.contains_key(&self.fleet) {
            state
                .waves
                .retain(|fleet, _| publication.fleets.contains_key(fleet));
        }
        let wave = state.waves.entry(self.fleet.clone()).or_default();
        wave.turn(self.stream, active, newest, Instant::now())
    }

    /// Resolves when it may have its turn.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as this does.
        drop(self.changed.changed().await);
    }

    /// This relay runs `published`.
    pub(super) fn taken(&self, published: &Arc<Published>) {
        self.update(|wave, _| wave.taken(published));
    }

    /// This relay refused `version`.
    pub(super) fn refused(&self, version: Version) {
        self.update(|wave, stream| wave.refuse(stream, version));
    }

    fn update(&self, change: impl FnOnce(&mut Wave, StreamNumber) -> bool) {
        let mut state = self.rollout.lock();
        let wave = state.waves.entry(self.fleet.clone()).or_default();
        let is_news = change(wave, self.stream);
        drop(state);
        if is_news {
            self.rollout.changed.send_replace(());
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.update(Wave::left);
    }
}

//! Who gets lines: a queue per destination and a sender for each of its lanes, kept by their ids over snapshots.

pub(crate) mod carbon;
mod connection;
mod datagrams;
pub(crate) mod file;
mod in_hand;
mod link;
mod orphans;
mod outq;
pub(crate) mod queue;
pub(crate) mod sender;
mod sink;
pub(crate) mod spooler;
mod standing;
mod tls;
mod window;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Weak};

use relay_engine::{Endpoint, LaneKey};
use relay_proto::{ObjectError, ObjectRef};
use tokio::sync::{mpsc, watch};

pub(crate) use crate::destinations::orphans::Orphan;
use crate::destinations::queue::{Lane, Queue};
use crate::destinations::sender::Sender;
use crate::destinations::sink::DeadLetters;
use crate::destinations::spooler::{SpoolSource, Spooler};
pub(crate) use crate::destinations::standing::{Known, Standing, State};

/// The workers' end of a lane. Plans share it; when the last plan that has it goes, no line can come any more, the lane
/// closes, and its sender ends once it has handed over what waits.
#[derive(Debug)]
pub(crate) struct Producer(Arc<Lane>);

impl Deref for Producer {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.0
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The destinations of the active plan, by id.
#[derive(Debug, Default)]
pub(crate) struct Registry(BTreeMap<Arc<str>, Entry>);

#[derive(Debug)]
struct Entry {
    queue: Arc<Queue>,
    // Weak: plans keep producers alive, and nothing else may.
    lanes: BTreeMap<LaneKey, Weak<Producer>>,
    settings: watch::Sender<relay_engine::Destination>,
    spool: Option<SpoolSource>,
    dead_letters: Option<Arc<DeadLetters>>,
}

/// What is to be set to work.
#[derive(Debug, Default)]
pub(crate) struct New {
    pub(crate) senders: Vec<Sender>,
    pub(crate) spoolers: Vec<Spooler>,
}

/// What a registry makes destinations with.
pub(crate) struct Means<'a> {
    /// Where spools are kept, if anywhere.
    pub(crate) spools: Option<&'a Path>,
    /// Where dead letters are kept, if anywhere.
    pub(crate) dead_letters: Option<&'a Path>,
    /// Dropped by each sender and spooler when it is done.
    pub(crate) open: &'a mpsc::Sender<()>,
}

/// What a destination cannot be run on, of all of them.
pub(crate) fn faults(destinations: &[relay_engine::Destination]) -> Vec<ObjectError> {
    let faults = destinations.iter().filter_map(|destination| {
        let (endpoint, tls) = match &destination.endpoint {
            Endpoint::Carbon { tls, .. } => ("carbon", tls.as_ref()?),
            Endpoint::Sink(sink) => (sink.kind.field(), sink.tls.as_ref()?),
            Endpoint::File { .. } => return None,
        };
        let tls::Fault { field, message } = tls::check(tls).err()?;
        let (namespace, name) = destination.name.split_once('/').unwrap_or_default();
        Some(ObjectError {
            source: Some(ObjectRef::new("Destination", namespace, name)),
            field: format!("{endpoint}.tls.{field}"),
            message,
        })
    });
    faults.collect()
}

impl Registry {
    /// Makes the registry hold just `destinations`: those that are new get a queue, those that stay keep theirs, with new
    /// settings; and so do their lanes, each with a sender. What is to be set to work is appended to `new`. Returns a producer
    /// for each lane, in order.
    pub(crate) fn reconcile(
        &mut self,
        destinations: &[relay_engine::Destination],
        means: &Means<'_>,
        new: &mut New,
    ) -> Vec<Arc<Producer>> {
        let mut before = std::mem::take(&mut self.0);
        let mut producers = Vec::new();
        for destination in destinations {
            let mut entry = match before.remove(&destination.id) {
                Some(entry) => entry.renewed(destination),
                None => Entry::new(destination, means, new),
            };
            producers.extend(entry.reconcile(&destination.lanes, means, new));
            self.0.insert(Arc::clone(&destination.id), entry);
        }
        for entry in before.values() {
            entry.queue.remove();
        }
        producers
    }

    /// Those of `destinations` that it holds, with their queues.
    pub(crate) fn known(&self, destinations: &[relay_engine::Destination]) -> Vec<Known> {
        let known = destinations.iter().filter_map(|destination| {
            let Entry {
                queue,
                dead_letters,
                ..
            } = self.0.get(&destination.id)?;
            Some(Known {
                settings: destination.clone(),
                queue: Arc::clone(queue),
                dead_letters: dead_letters.clone(),
            })
        });
        known.collect()
    }
}

impl Entry {
    fn new(destination: &relay_engine::Destination, means: &Means<'_>, new: &mut New) -> Self {
        let queue = Arc::new(Queue::new(destination.queue));
        let (settings, changes) = watch::channel(destination.clone());
        let spool = means.spools.map(|directory| {
            let (source, spooler) =
                SpoolSource::new(&queue, changes, directory, means.open.clone());
            new.spoolers.push(spooler);
            source
        });
        let dead_letters = means.dead_letters.map(|directory| {
            let file = directory.join(spooler::directory_name(&destination.id));
            let bytes_max = destination.dead_letter_bytes_max;
            Arc::new(DeadLetters::new(file, bytes_max))
        });
        Self {
            queue,
            lanes: BTreeMap::new(),
            settings,
            spool,
            dead_letters,
        }
    }

    fn renewed(self, destination: &relay_engine::Destination) -> Self {
        self.queue.set_limits(destination.queue);
        if let Some(dead_letters) = &self.dead_letters {
            dead_letters.set_bytes_max(destination.dead_letter_bytes_max);
        }
        self.settings.send_if_modified(|current| {
            let changed = current != destination;
            current.clone_from(destination);
            changed
        });
        self
    }

    // New lanes come before others leave, so that there is always one that takes what these hold.
    fn reconcile(
        &mut self,
        lanes: &[relay_engine::Lane],
        means: &Means<'_>,
        new: &mut New,
    ) -> Vec<Arc<Producer>> {
        let mut before = std::mem::take(&mut self.lanes);
        let mut producers = Vec::with_capacity(lanes.len());
        for relay_engine::Lane { key, .. } in lanes {
            let kept = before.remove(key).and_then(|producer| producer.upgrade());
            let producer = kept.unwrap_or_else(|| {
                let lane = self.queue.add_lane();
                let spool = self.spool.as_ref().map(|spool| spool.handle(&lane));
                let changes = self.settings.subscribe();
                let open = means.open.clone();
                new.senders.push(Sender::new(
                    Arc::clone(&lane),
                    key.clone(),
                    changes,
                    spool,
                    self.dead_letters.clone(),
                    open,
                ));
                Arc::new(Producer(lane))
            });
            self.lanes.insert(key.clone(), Arc::downgrade(&producer));
            producers.push(producer);
        }
        for producer in before.values().filter_map(Weak::upgrade) {
            producer.leave();
        }
        producers
    }
}

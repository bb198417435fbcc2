//! Who gets lines: one queue and one sender per destination, kept by the destination's id over snapshots.

pub(crate) mod carbon;
pub(crate) mod file;
mod link;
mod orphans;
mod outq;
pub(crate) mod queue;
pub(crate) mod sender;
pub(crate) mod spooler;
mod standing;
mod window;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Weak};

use relay_engine::Endpoint;
use relay_proto::{ObjectError, ObjectRef};
use tokio::sync::{mpsc, watch};

pub(crate) use crate::destinations::orphans::Orphan;
use crate::destinations::queue::Queue;
use crate::destinations::sender::Sender;
pub(crate) use crate::destinations::standing::{Known, Standing, State};

/// The workers' end of a queue. Plans share it; when the last plan that has it goes, no line can come any more, the queue
/// closes, and its sender ends once it has handed over what waits.
#[derive(Debug)]
pub(crate) struct Producer(Arc<Queue>);

impl Producer {
    /// The queue, for those who look at it without adding to it.
    pub(crate) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.0)
    }
}

impl Deref for Producer {
    type Target = Queue;

    fn deref(&self) -> &Queue {
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
    // Weak: the plan keeps a producer alive, and nothing else may.
    producer: Weak<Producer>,
    settings: watch::Sender<relay_engine::Destination>,
}

/// What a destination cannot be run on, of all of them.
pub(crate) fn faults(destinations: &[relay_engine::Destination]) -> Vec<ObjectError> {
    let faults = destinations.iter().filter_map(|destination| {
        let tls = match &destination.endpoint {
            Endpoint::Carbon { tls, .. } => tls.as_ref()?,
            Endpoint::File { .. } => return None,
        };
        let carbon::Fault { field, message } = carbon::check(tls).err()?;
        let (namespace, name) = destination.name.split_once('/').unwrap_or_default();
        Some(ObjectError {
            source: Some(ObjectRef::new("Destination", namespace, name)),
            field: field.to_owned(),
            message,
        })
    });
    faults.collect()
}

impl Registry {
    /// Makes the registry hold just `destinations`: those that are new get a queue and a sender, which is appended to `new`
    /// to be set to work; those that stay keep theirs, with new settings. Returns a producer for each, in the same order.
    pub(crate) fn reconcile(
        &mut self,
        destinations: &[relay_engine::Destination],
        spools: Option<&Path>,
        open: &mpsc::Sender<()>,
        new: &mut Vec<Sender>,
    ) -> Vec<Arc<Producer>> {
        let mut before = std::mem::take(&mut self.0);
        let mut producers = Vec::with_capacity(destinations.len());
        for destination in destinations {
            let kept = before
                .remove(&destination.id)
                .and_then(|entry| Some((entry.producer.upgrade()?, entry.settings)));
            let (producer, settings) = match kept {
                Some((producer, settings)) => {
                    producer.set_limits(destination.queue);
                    settings.send_if_modified(|current| {
                        let changed = current != destination;
                        current.clone_from(destination);
                        changed
                    });
                    (producer, settings)
                }
                None => {
                    let queue = Arc::new(Queue::new(destination.queue));
                    let (settings, changes) = watch::channel(destination.clone());
                    let sender = Sender::new(Arc::clone(&queue), changes, spools, open.clone());
                    new.push(sender);
                    (Arc::new(Producer(queue)), settings)
                }
            };
            let entry = Entry {
                producer: Arc::downgrade(&producer),
                settings,
            };
            self.0.insert(Arc::clone(&destination.id), entry);
            producers.push(producer);
        }
        for producer in before.values().filter_map(|entry| entry.producer.upgrade()) {
            producer.remove();
        }
        producers
    }
}

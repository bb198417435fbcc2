//! Who is connected, and what each relay acknowledged, refused or reported: written by `serve`, read by `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::{OrphanedSpools, RELAY_LABEL};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource as _, ResourceExt as _};
use relay_proto::{ObjectError, SCHEMA, Version};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::compile::{Finding, Verdict};
use crate::conditions::{Progress, Rejection};
use crate::health::{self, Reported};
use crate::inputs::{Key, Kind};
use crate::publish::Publication;

/// Every relay that is connected, or was a moment ago.
#[derive(Debug)]
pub(crate) struct Roster {
    /// For how long a relay pod that lost its connection is taken to run what it acknowledged.
    reconnect_grace: Duration,
    relays: Mutex<Relays>,
    /// Something that statuses speak of changed.
    pub(crate) changed: Notify,
    /// A pod that is to go for good says that nothing waits in it.
    pub(crate) drained: Notify,
}

#[derive(Debug, Default)]
struct Relays {
    entries: BTreeMap<RelayPod, Entry>,
    streams: u64,
}

/// A relay pod; or a relay outside a cluster, which has a pod's name all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RelayPod {
    /// The Relay that it belongs to.
    pub(crate) fleet: Key,
    pub(crate) name: String,
}

#[derive(Debug)]
struct Entry {
    /// The newest stream of the pod.
    stream: u64,
    connection: Connection,
    /// The UID of the pod's object, once it was seen.
    uid: Option<String>,
    acknowledged: Option<Acknowledged>,
    /// What it refused, unless it acknowledged something since.
    refused: Option<Refused>,
    /// The newest schema that it reads, if that is not enough.
    reads: Option<u32>,
    /// What it reported last on this stream.
    reported: Option<Arc<Reported>>,
}

#[derive(Debug)]
enum Connection {
    /// Dropped when another stream of the same pod takes over, which ends the one that waits at the other end.
    Open(#[expect(dead_code, reason = "held for its drop")] oneshot::Sender<()>),
    LostAt(Instant),
}

/// What a relay runs.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    revision: u64,
    version: Version,
}

#[derive(Debug)]
struct Refused {
    revision: u64,
    /// What is wrong, by the object that caused it.
    errors: BTreeMap<Key, String>,
}

/// One relay's place in the roster, for as long as its stream is open.
#[derive(Debug)]
pub(crate) struct Place {
    roster: Arc<Roster>,
    pod: RelayPod,
    stream: u64,
    /// Ends when another stream of the same pod takes over.
    pub(crate) taken_over: oneshot::Receiver<()>,
}

impl Roster {
    pub(crate) fn new(reconnect_grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            reconnect_grace,
            relays: Mutex::default(),
            changed: Notify::new(),
            drained: Notify::new(),
        })
    }

    /// Gives `pod` a place; another stream that has it loses it. `active` is the version that the relay says it runs.
    pub(crate) fn join(self: &Arc<Self>, pod: RelayPod, active: Option<Version>) -> Place {
        let (open, taken_over) = oneshot::channel();
        let mut relays = self.lock();
        relays.streams += 1;
        let stream = relays.streams;
        let before = relays.entries.remove(&pod);
        // What it acknowledged counts for as long as it still runs that.
        let acknowledged = before
            .as_ref()
            .and_then(|entry| entry.acknowledged)
            .filter(|acknowledged| Some(acknowledged.version) == active);
        let (uid, refused) = before.map_or((None, None), |entry| (entry.uid, entry.refused));
        let entry = Entry {
            stream,
            connection: Connection::Open(open),
            uid,
            acknowledged,
            refused,
            reads: None,
            reported: None,
        };
        relays.entries.insert(pod.clone(), entry);
        drop(relays);
        self.changed.notify_one();
        Place {
            roster: Arc::clone(self),
            pod,
            stream,
            taken_over,
        }
    }

    /// How things stand, with `pods` as the API server has them.
    pub(crate) fn view(&self, pods: &[Arc<Pod>]) -> View {
        let known: BTreeMap<RelayPod, &Pod> = pods
            .iter()
            .filter_map(|pod| Some((RelayPod::of(pod)?, pod.as_ref())))
            .collect();
        let mut relays = self.lock();
        relays.entries.retain(|_, entry| match entry.connection {
            Connection::Open(_) => true,
            Connection::LostAt(at) => at.elapsed() < self.reconnect_grace,
        });
        let mut view = View::default();
        for pod in known
            .iter()
            .filter(|(_, pod)| is_live(pod))
            .map(|(pod, _)| pod)
        {
            let fleet = view.fleet(pod);
            fleet.is_in_cluster = true;
            fleet.pods.insert(pod.name.clone());
        }
        for (pod, entry) in &mut relays.entries {
            let object = known.get(pod);
            let counts = match (&entry.connection, object) {
                (Connection::Open(_), Some(object)) => {
                    entry.uid = object.uid();
                    is_live(object)
                }
                // A relay outside a cluster.
                (Connection::Open(_), None) => true,
                // A pod that was made anew has yet to say what it runs.
                (Connection::LostAt(_), Some(object)) => {
                    is_live(object) && entry.uid == object.uid()
                }
                (Connection::LostAt(_), None) => false,
            };
            if counts {
                let fleet = view.fleet(pod);
                fleet.pods.insert(pod.name.clone());
                fleet.heard.insert(pod.name.clone());
                if entry.acknowledged.is_some() || entry.refused.is_some() || entry.reads.is_some()
                {
                    fleet.known.insert(pod.name.clone());
                }
                if let Some(reported) = &entry.reported {
                    fleet
                        .reported
                        .push((pod.name.clone(), Arc::clone(reported)));
                }
                fleet
                    .acknowledged
                    .extend(entry.acknowledged.map(|acknowledged| acknowledged.revision));
                if let Some(newest) = entry.reads {
                    fleet.unable.get_or_insert((pod.name.clone(), newest));
                }
                if let Some(Refused { revision, errors }) = &entry.refused {
                    fleet
                        .refused
                        .push((pod.name.clone(), *revision, errors.clone()));
                }
            }
        }
        view
    }

    /// Whether a pod that is to go for good says that nothing waits in it.
    pub(crate) fn is_drained(&self, pod: &RelayPod) -> bool {
        let relays = self.lock();
        let entry = relays.entries.get(pod);
        let is_open = |entry: &&Entry| matches!(entry.connection, Connection::Open(_));
        let reported = entry
            .filter(is_open)
            .and_then(|entry| entry.reported.as_ref());
        reported.is_some_and(|reported| reported.is_drained)
    }

    /// How long until a relay that lost its connection no longer counts, if there is such a relay.
    pub(crate) fn until_next_loss(&self) -> Option<Duration> {
        let relays = self.lock();
        let left = relays
            .entries
            .values()
            .filter_map(|entry| match entry.connection {
                Connection::Open(_) => None,
                Connection::LostAt(at) => Some(self.reconnect_grace.saturating_sub(at.elapsed())),
            });
        left.min()
    }

    fn lock(&self) -> MutexGuard<'_, Relays> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RelayPod {
    fn of(pod: &Pod) -> Option<Self> {
        let namespace = pod.namespace()?;
        let relay = pod.labels().get(RELAY_LABEL)?.as_str();
        Some(Self {
            fleet: Key::new(Kind::Relay, namespace, relay),
            name: pod.name_any(),
        })
    }
}

// A pod that is going away or is over need not run anything new.
fn is_live(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    pod.meta().deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

impl Place {
    /// The relay runs `version`, which was published as `revision`.
    pub(crate) fn acknowledge(&self, revision: u64, version: Version) {
        self.update(|entry| {
            entry.acknowledged = Some(Acknowledged { revision, version });
            entry.refused = None;
        });
    }

    /// The relay refused what was published as `revision`, and runs what it ran before.
    pub(crate) fn refuse(&self, revision: u64, errors: &[ObjectError]) {
        let mut by_object = BTreeMap::new();
        for error in errors {
            let source = error.source.as_ref().and_then(Key::from_ref);
            // What the relay does not lay at a resource's door concerns the fleet as a whole.
            let key = source.unwrap_or_else(|| self.pod.fleet.clone());
            let text = match error.field.as_str() {
                "" => error.message.clone(),
                field => format!("spec.{field}: {}", error.message),
            };
            by_object.entry(key).or_insert(text);
        }
        self.update(|entry| {
            entry.refused = Some(Refused {
                revision,
                errors: by_object,
            });
        });
    }

    /// The relay reads snapshots up to schema `newest`, which is not enough.
    pub(crate) fn reads(&self, newest: u32) {
        self.update(|entry| entry.reads = Some(newest));
    }

    /// The relay says how its destinations stand.
    pub(crate) fn report(&self, reported: Reported) {
        let is_drained = reported.is_drained;
        self.update(|entry| entry.reported = Some(Arc::new(reported)));
        if is_drained {
            self.roster.drained.notify_one();
        }
    }

    fn update(&self, change: impl FnOnce(&mut Entry)) {
        let mut relays = self.roster.lock();
        if let Some(entry) = relays.entries.get_mut(&self.pod)
            && entry.stream == self.stream
        {
            change(entry);
        }
        drop(relays);
        self.roster.changed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.update(|entry| entry.connection = Connection::LostAt(Instant::now()));
    }
}

/// How things stand at one moment.
#[derive(Debug, Default)]
pub(crate) struct View {
    fleets: BTreeMap<Key, FleetView>,
}

#[derive(Debug, Default)]
struct FleetView {
    /// Some of its pods are objects, so that it is known who is missing.
    is_in_cluster: bool,
    /// Everyone who ought to run the fleet's snapshot.
    pods: BTreeSet<String>,
    /// Those who connected since this process began.
    heard: BTreeSet<String>,
    /// Those of whom it is known since then what they run of what this process published.
    known: BTreeSet<String>,
    /// The revisions that they run.
    acknowledged: Vec<u64>,
    /// The first pod that cannot read what this operator writes, and the newest schema that it reads.
    unable: Option<(String, u32)>,
    /// Pod, revision, what is wrong by object.
    refused: Vec<(String, u64, BTreeMap<Key, String>)>,
    /// Pod, and what it reported last.
    reported: Vec<(String, Arc<Reported>)>,
}

impl View {
    fn fleet(&mut self, pod: &RelayPod) -> &mut FleetView {
        self.fleets.entry(pod.fleet.clone()).or_default()
    }

    /// Whether everyone who ought to run the object is known, and has said since this process began what it runs.
    pub(crate) fn is_complete(&self, verdict: &Verdict) -> bool {
        let mut fleets = verdict.fleets.iter().map(|relay| self.fleets.get(relay));
        fleets.all(|fleet| {
            fleet.is_some_and(|fleet| fleet.is_in_cluster && fleet.pods == fleet.known)
        })
    }

    /// Whether every pod of these fleets that is connected has reported: before that nothing is known of how things stand, for
    /// relays report only after they have connected. Nobody being there counts if relays `had_time` to connect.
    pub(crate) fn have_reported<'a>(
        &self,
        fleets: impl IntoIterator<Item = &'a Key>,
        had_time: bool,
    ) -> bool {
        let fleets = fleets
            .into_iter()
            .filter_map(|relay| self.fleets.get(relay));
        let counts = fleets.map(|fleet| (fleet.heard.len(), fleet.reported.len()));
        let (heard, reported) =
            counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
        heard == reported && (heard > 0 || had_time)
    }

    /// How a Destination stands with the pods of its fleets that said so.
    pub(crate) fn standing(&self, key: &Key, verdict: &Verdict) -> Option<health::Standing> {
        let fleets = verdict.fleets.iter();
        let fleets = fleets.filter_map(|relay| self.fleets.get(relay));
        let reported = fleets.flat_map(|fleet| &fleet.reported);
        health::standing(
            key,
            reported.map(|(pod, reported)| (pod.as_str(), &**reported)),
        )
    }

    /// What is wrong with listeners of a Relay that fetch messages.
    pub(crate) fn listeners_down(&self, relay: &Key) -> Option<Finding> {
        let reported = &self.fleets.get(relay)?.reported;
        health::listeners_down(
            reported
                .iter()
                .map(|(pod, reported)| (pod.as_str(), &**reported)),
        )
    }

    /// What the pods of a Relay have on disk for Destinations that are gone.
    pub(crate) fn orphaned_spools(&self, relay: &Key) -> Option<OrphanedSpools> {
        let reported = &self.fleets.get(relay)?.reported;
        health::orphaned_spools(reported.iter().map(|(_, reported)| &**reported))
    }

    /// How far the pods of these Relays have come with the object.
    pub(crate) fn progress<'a>(
        &self,
        key: &Key,
        relays: impl IntoIterator<Item = &'a Key>,
        publication: &Publication,
    ) -> Progress {
        let mut progress = Progress::default();
        for relay in relays {
            let (Some(fleet), Some(since)) = (
                self.fleets.get(relay),
                publication
                    .fleets
                    .get(relay)
                    .and_then(|published| published.since(key)),
            ) else {
                continue;
            };
            progress.pods += fleet.pods.len();
            progress.active += fleet
                .acknowledged
                .iter()
                .filter(|revision| **revision >= since)
                .count();
            if let (None, Some((pod, newest))) = (&progress.unable, &fleet.unable) {
                progress.unable = Some(format!(
                    "{pod} reads snapshots up to schema {newest} and the operator writes {SCHEMA}: upgrade the relay, which \
                     goes on with what it has"
                ));
            }
            // Since then the object may have been mended.
            let rejection = fleet
                .refused
                .iter()
                .filter(|(_, revision, _)| *revision >= since)
                .find_map(|(pod, _, errors)| Some((pod, errors.get(key)?)));
            if let (None, Some((pod, message))) = (&progress.rejection, rejection) {
                progress.rejection = Some(Rejection {
                    pod: pod.clone(),
                    message: message.clone(),
                });
            }
        }
        progress
    }
}

#[cfg(test)]
mod tests;

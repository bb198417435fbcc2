//! Relays → the pods that run them, and what belongs to these. Done by the one who leads.
//!
//! ```text
//! Relay ─▶ objects (pure) ─▶ server-side apply ─▶ StatefulSet or Deployment, Services, …
//!            ▲      ▲
//!            │      └ the template that the workload has, as long as nothing that it was made of has changed
//!            └ scale (pure): how many pods, while those that are to go hand over what they hold
//! ```
//!
//! Level-triggered, as statuses are: whatever changed, all Relays are looked at, and what differs from what was applied is
//! applied. What has a Relay as its owner goes with it; the API server sees to that.

mod apply;
mod objects;
mod overrides;
mod scale;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::{RELAY_LABEL, Reason, Relay};
use kube::{Client, ResourceExt as _};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::compile::Finding;
use crate::inputs::{Key, Kind};
use crate::publish::Publications;
use crate::roster::{RelayPod, Roster};
use crate::watch::Stores;
use apply::{Applier, Fault};
use objects::{Live, Workload};
use scale::Leave;

pub(crate) use objects::{MANAGER, Settings};

/// Changes come in crowds.
const PAUSE: Duration = Duration::from_millis(100);
/// What failed, and pods that are to go, are looked at again after this.
const AGAIN: Duration = Duration::from_secs(5);
const REEVALUATE: Duration = Duration::from_secs(60);

/// Makes fleets. Run once.
pub(crate) struct Fleets {
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) stores: Arc<Stores>,
    pub(crate) publications: Publications,
    pub(crate) roster: Arc<Roster>,
    pub(crate) said: Arc<Said>,
}

/// What others hear of fleets.
#[derive(Debug)]
pub(crate) struct Said {
    /// The pods that are to go for good; `None` before that is known.
    leaving: watch::Sender<Option<BTreeSet<RelayPod>>>,
    troubles: Mutex<BTreeMap<Key, Troubles>>,
}

/// What a Relay's status says of its fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Troubles {
    /// Something cannot be made as the Relay says.
    pub(crate) not_applied: Option<Finding>,
    /// Pods are about to go.
    pub(crate) draining: Option<Finding>,
}

/// How many pods a Relay has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) replicas: i32,
    pub(crate) ready: i32,
    pub(crate) selector: String,
}

impl Said {
    pub(crate) fn new() -> Arc<Self> {
        let (leaving, _) = watch::channel(None);
        Arc::new(Self {
            leaving,
            troubles: Mutex::default(),
        })
    }

    /// The pods that are to go for good.
    pub(crate) fn leaving(&self) -> watch::Receiver<Option<BTreeSet<RelayPod>>> {
        self.leaving.subscribe()
    }

    /// What is to be said of a Relay's fleet.
    pub(crate) fn troubles(&self, relay: &Key) -> Troubles {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.get(relay).cloned().unwrap_or_default()
    }
}

/// How many pods the Relay has, as far as the watch knows; `None` if none were made for it.
pub(crate) fn size(relay: &Relay, stores: &Stores) -> Option<Size> {
    let status = match objects::workload(&relay.spec) {
        Workload::StatefulSet => {
            let status = find(&stores.stateful_sets.all(), relay)?.status.clone();
            status.map(|status| (status.replicas, status.ready_replicas))
        }
        Workload::Deployment => {
            let status = find(&stores.deployments.all(), relay)?.status.clone();
            status.map(|status| (status.replicas.unwrap_or(0), status.ready_replicas))
        }
    };
    let (replicas, ready) = status.unwrap_or_default();
    Some(Size {
        replicas,
        ready: ready.unwrap_or(0),
        selector: objects::selector(relay),
    })
}

impl Fleets {
    /// Makes fleets for ever.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut applier = Applier::new(self.client.clone());
        let mut leaves = BTreeMap::new();
        loop {
            self.publications.borrow_and_update();
            let is_known = self.stores.relays.is_listed()
                && self.stores.pods.is_listed()
                && self.stores.stateful_sets.is_listed()
                && self.stores.deployments.is_listed();
            let is_quiet = !is_known || self.look(&mut applier, &mut leaves).await;
            let wait = if is_quiet { REEVALUATE } else { AGAIN };
            tokio::select! {
                changed = self.publications.changed() => changed?,
                () = self.stores.fleets_changed.notified() => {}
                () = self.roster.drained.notified() => {}
                () = sleep(wait) => {}
            }
            sleep(PAUSE).await;
        }
    }

    // Looks at all Relays. Whether there is nothing left to do.
    async fn look(&self, applier: &mut Applier, leaves: &mut BTreeMap<Key, Leave>) -> bool {
        let relays = self.stores.relays.all();
        let relays: Vec<_> = relays
            .iter()
            .filter(|relay| relay.metadata.deletion_timestamp.is_none())
            .map(|relay| (Key::of(Kind::Relay, relay.as_ref()), relay))
            .collect();
        leaves.retain(|key, _| relays.iter().any(|(known, _)| known == key));
        let (mut troubles, mut leaving) = (BTreeMap::new(), BTreeSet::new());
        for (key, relay) in &relays {
            let leave = leaves.entry(key.clone()).or_default();
            let (trouble, pods) = self.look_at(key, relay, applier, leave).await;
            troubles.insert(key.clone(), trouble);
            leaving.extend(pods.into_iter().map(|name| RelayPod {
                fleet: key.clone(),
                name,
            }));
        }
        applier.forget_all_but(relays.iter().map(|(_, relay)| relay.uid()));
        let is_quiet = troubles
            .values()
            .all(|trouble| *trouble == Troubles::default());
        self.said.leaving.send_if_modified(|said| {
            let is_news = said.as_ref() != Some(&leaving);
            *said = Some(leaving);
            is_news
        });
        let mut said = self
            .said
            .troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *said, troubles.clone()) != troubles {
            self.stores.report_changed.notify_one();
        }
        is_quiet
    }

    // Brings one fleet to what its Relay says, as far as may be; and says who is to go.
    async fn look_at(
        &self,
        key: &Key,
        relay: &Relay,
        applier: &mut Applier,
        leave: &mut Leave,
    ) -> (Troubles, Vec<String>) {
        let (live, current) = self.live(relay);
        let there = self.pods(relay);
        let wanted = relay.spec.replicas.unwrap_or(1);
        // Pods of a workload that somebody took away go in good order too: once it is there again.
        let present = wanted.max(pods_of_a_stateful_set(relay, &there));
        let sizes = (current.unwrap_or(present), wanted);
        let pods: Vec<_> = goers(relay, sizes, &there, leave)
            .into_iter()
            .map(|name| {
                let fleet = key.clone();
                let pod = RelayPod { fleet, name };
                let is_drained = self.roster.is_drained(&pod);
                (pod.name, is_drained)
            })
            .collect();
        let is_ordered = objects::workload(&relay.spec) == Workload::StatefulSet;
        let step = leave.step(
            sizes,
            &pods,
            is_ordered,
            leave_timeout(relay),
            Instant::now(),
        );
        for pod in &step.overdue {
            warn!(relay = %key, pod, "a pod goes although lines may wait in it: it had until drain.leaveTimeout");
        }
        let replicas = step.replicas;
        if current.is_some_and(|current| current != replicas) {
            info!(relay = %key, replicas, "fleet changes size");
        }
        let objects = objects::objects(relay, &self.settings, &live, replicas);
        let not_applied = applier
            .apply(
                relay,
                &objects,
                &objects::unwanted(relay),
                current.is_none(),
            )
            .await
            .err();
        let troubles = Troubles {
            not_applied: not_applied.map(Fault::into_finding),
            draining: (!step.leaving.is_empty()).then(|| {
                let pods = step.leaving.join(", ");
                let message = format!("to go when nothing waits in them any more: {pods}");
                Finding::new(Reason::Draining, message)
            }),
        };
        // Those that may go stay told until they are gone.
        (troubles, pods.into_iter().map(|(pod, _)| pod).collect())
    }

    // The workload that there is, and how many pods it is to have.
    fn live(&self, relay: &Relay) -> (Live, Option<i32>) {
        match objects::workload(&relay.spec) {
            Workload::StatefulSet => {
                let found = find(&self.stores.stateful_sets.all(), relay);
                let spec = found.as_ref().and_then(|set| set.spec.as_ref());
                let template = spec.map(|spec| &spec.template);
                let replicas = spec.map(|spec| spec.replicas.unwrap_or(1));
                (live(found.as_deref(), template), replicas)
            }
            Workload::Deployment => {
                let found = find(&self.stores.deployments.all(), relay);
                let spec = found
                    .as_ref()
                    .and_then(|deployment| deployment.spec.as_ref());
                let template = spec.map(|spec| &spec.template);
                let replicas = spec.map(|spec| spec.replicas.unwrap_or(1));
                (live(found.as_deref(), template), replicas)
            }
        }
    }

    // The pods that there are.
    fn pods(&self, relay: &Relay) -> BTreeSet<String> {
        let all = self.stores.pods.all();
        all.iter()
            .filter(|pod| pod.namespace() == relay.namespace())
            .filter(|pod| pod.labels().get(RELAY_LABEL) == Some(&relay.name_any()))
            .map(|pod| pod.name_any())
            .collect()
    }
}

// Who is to go, the first to go first.
fn goers(
    relay: &Relay,
    (current, wanted): (i32, i32),
    there: &BTreeSet<String>,
    leave: &Leave,
) -> Vec<String> {
    match objects::workload(&relay.spec) {
        // One that is not there is about to be, and may have a volume; one that is there and need not be is on its way out.
        Workload::StatefulSet => {
            let name = objects::name(relay);
            let end = current.max(pods_of_a_stateful_set(relay, there));
            (wanted..end)
                .rev()
                .map(|ordinal| format!("{name}-{ordinal}"))
                .collect()
        }
        Workload::Deployment => {
            let mut names: Vec<_> = there.iter().cloned().collect();
            names.sort_by_key(|pod| !leave.has(pod));
            names.truncate(there.len().saturating_sub(wanted as usize));
            // There may be more for a while, when pods are replaced.
            if current <= wanted {
                names.retain(|pod| leave.may_go(pod));
            }
            names
        }
    }
}

// What waits on a node goes with the pod, so that one has as long as it takes.
fn leave_timeout(relay: &Relay) -> Option<Duration> {
    let timeout = Duration::from_millis(relay.spec.drain.leave_timeout.as_millis());
    relay.spec.spool.ephemeral.is_none().then_some(timeout)
}

// How many pods there are, by the last of them.
fn pods_of_a_stateful_set(relay: &Relay, there: &BTreeSet<String>) -> i32 {
    let name = objects::name(relay) + "-";
    let ordinals = there
        .iter()
        .filter_map(|pod| pod.strip_prefix(&name)?.parse::<i32>().ok());
    ordinals.max().map_or(0, |last| last + 1)
}

fn live<W: kube::ResourceExt>(
    workload: Option<&W>,
    template: Option<&impl serde::Serialize>,
) -> Live {
    let made_of =
        workload.and_then(|workload| workload.annotations().get(objects::TEMPLATE_ANNOTATION));
    Live {
        template: template
            .and_then(|template| serde_json::to_value(template).ok())
            .unwrap_or(Value::Null),
        made_of: made_of.cloned(),
    }
}

// The Relay's own: another one of its name may have had one too, which is about to be deleted.
fn find<W: kube::ResourceExt>(workloads: &[Arc<W>], relay: &Relay) -> Option<Arc<W>> {
    let name = objects::name(relay);
    let is_ours = |workload: &&Arc<W>| {
        workload.namespace() == relay.namespace()
            && workload.name_any() == name
            && apply::is_owned(workload.owner_references(), relay)
            && workload.meta().deletion_timestamp.is_none()
    };
    workloads.iter().find(is_ours).map(Arc::clone)
}

/// The labels of what is made here, for watches.
pub(crate) fn label() -> String {
    format!("app.kubernetes.io/managed-by={MANAGER}")
}

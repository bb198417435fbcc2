//! Verdicts and acknowledgements → the status of every object. The only writer of statuses and of events.
//!
//! Level-triggered: whatever changed, all objects are looked at, and those whose status differs from what it should be are
//! written, by server-side apply. So a write that failed, or that an outsider undid, is made again: at once when something
//! changes, and at the latest after [`REEVALUATE`].

mod desired;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::{Reason, RelayProgress, Status};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::object::HasStatus;
use kube::runtime::events::{Event, Recorder, Reporter};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::causes::causes;
use crate::compile::{Finding, Verdict};
use crate::fleet::{self, Said, Size, Troubles};
use crate::inputs::{Key, Kind};
use crate::metrics::{Metrics, Outcome};
use crate::publish::{Held, Publication, Publications};
use crate::roster::{Roster, View};
use crate::watch::{Store, Stores};

/// Who owns the fields that are written here.
const FIELD_MANAGER: &str = "carbonway-operator";
/// What a call to the API server may take; the client by itself retries for minutes.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls at the same time.
const CALLS_MAX: usize = 16;
/// Acknowledgements come in crowds, and one write for all of them is enough.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the figures of a status alone are worth a write.
const FIGURES_INTERVAL: Duration = Duration::from_secs(30);
/// Relays that a status names; an object names no more.
const RELAYS_MAX: usize = 16;
const REEVALUATE: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Writes statuses. Made and run once.
pub(crate) struct Report {
    pub(crate) client: Client,
    pub(crate) pod_name: String,
    pub(crate) reconnect_grace: Duration,
    pub(crate) stores: Arc<Stores>,
    pub(crate) publications: Publications,
    pub(crate) roster: Arc<Roster>,
    pub(crate) fleets: Arc<Said>,
    pub(crate) metrics: Arc<Metrics>,
}

/// What was written of an object.
struct Written {
    /// The resource version that was looked at when it was written, and the one that came of it: while the watch lags
    /// behind, the store still has the former.
    over: Option<String>,
    gave: Option<String>,
    at: Instant,
    status: Status,
}

/// A write to be made.
struct Write {
    key: Key,
    uid: Option<String>,
    over: Option<String>,
    status: Status,
    event: Option<Event>,
}

/// What statuses are made of, at one moment.
struct Moment {
    publication: Arc<Publication>,
    view: View,
    now: Timestamp,
    /// Relays had the time to connect since this process began.
    is_settled: bool,
    /// How many pods Relays have, and what is to be said of them.
    fleets: BTreeMap<Key, (Option<Size>, Troubles)>,
    /// How many objects were met that are not active on every relay pod concerned.
    unprogrammed: Cell<i64>,
}

impl Report {
    /// Reports for ever.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: Some(self.pod_name.clone()),
        };
        let events = Recorder::new(self.client.clone(), reporter);
        self.publications
            .wait_for(Option::is_some)
            .await
            .map_err(|_| anyhow::anyhow!("publishing ended"))?;
        let settled_at = Instant::now() + self.reconnect_grace;
        let mut written = BTreeMap::new();
        let mut retry = RETRY_FIRST;
        loop {
            let is_settled = settled_at <= Instant::now();
            let writes = self.due(is_settled, &mut written);
            let failures = self.write(writes, &events, &mut written).await;
            let mut wait = REEVALUATE;
            if failures > 0 {
                wait = retry;
                retry = REEVALUATE.min(retry * 2);
            } else {
                retry = RETRY_FIRST;
            }
            if !is_settled {
                wait = wait.min(settled_at.saturating_duration_since(Instant::now()));
            }
            // Nothing else tells when a relay is given up.
            if let Some(left) = self.roster.until_next_loss() {
                wait = wait.min(left);
            }
            tokio::select! {
                () = self.stores.report_changed.notified() => {}
                () = self.roster.changed.notified() => {}
                changed = self.publications.changed() => changed?,
                () = sleep(wait) => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// The writes that are to be made.
    fn due(&mut self, is_settled: bool, written: &mut BTreeMap<Key, Written>) -> Vec<Write> {
        let Some(publication) = self
            .publications
            .borrow_and_update()
            .as_ref()
            .map(Arc::clone)
        else {
            return Vec::new();
        };
        written.retain(|key, _| publication.verdicts.contains_key(key));
        let moment = Moment {
            publication,
            view: self.roster.view(&self.stores.pods.all()),
            now: Timestamp::now(),
            is_settled,
            fleets: self.fleets(),
            unprogrammed: Cell::default(),
        };
        let stores = &self.stores;
        let due = [
            moment.due(Kind::Relay, &stores.relays, written),
            moment.due(Kind::Destination, &stores.destinations, written),
            moment.due(Kind::Route, &stores.routes, written),
            moment.due(Kind::Blocklist, &stores.blocklists, written),
            moment.due(Kind::Rewriter, &stores.rewriters, written),
            moment.due(Kind::Aggregator, &stores.aggregators, written),
        ];
        self.metrics
            .unprogrammed_objects
            .set(moment.unprogrammed.get());
        due.into_iter().flatten().collect()
    }

    fn fleets(&self) -> BTreeMap<Key, (Option<Size>, Troubles)> {
        let relays = self.stores.relays.all();
        let fleets = relays.iter().map(|relay| {
            let key = Key::of(Kind::Relay, relay.as_ref());
            let troubles = self.fleets.troubles(&key);
            (key, (fleet::size(relay, &self.stores), troubles))
        });
        fleets.collect()
    }

    /// Makes the writes, and says how many failed.
    async fn write(
        &self,
        writes: Vec<Write>,
        events: &Recorder,
        written: &mut BTreeMap<Key, Written>,
    ) -> usize {
        let mut failures = 0;
        let mut results = stream::iter(writes)
            .map(|write| self.apply(write, events))
            .buffer_unordered(CALLS_MAX);
        while let Some(result) = results.next().await {
            match result {
                Applied::Written(key, status) => {
                    written.insert(key, *status);
                }
                Applied::Gone => {}
                Applied::Failed => failures += 1,
            }
            // Where this many fail, the others would too.
            if failures == CALLS_MAX {
                break;
            }
        }
        failures
    }

    async fn apply(&self, write: Write, events: &Recorder) -> Applied {
        let Write {
            key,
            uid,
            over,
            status,
            event,
        } = write;
        let resource = resource(key.kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        // With the UID, so that what was found of an object is not said of another one that took its name.
        let body = json!({
            "apiVersion": &resource.api_version,
            "kind": &resource.kind,
            "metadata": { "name": &key.name, "namespace": &key.namespace, "uid": &uid },
            "status": &status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let call = api.patch_status(&key.name, &params, &patch);
        let gave = match timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(object)) => object.resource_version(),
            Ok(Err(kube::Error::Api(refusal)))
                if refusal.is_not_found() || refusal.is_conflict() =>
            {
                debug!(object = %key, error = %refusal, "the object is gone");
                return Applied::Gone;
            }
            Ok(Err(error)) => {
                warn!(object = %key, error = causes(&error), "cannot write status, will be tried again");
                self.metrics.status_written(Outcome::Failure);
                return Applied::Failed;
            }
            Err(_) => {
                warn!(object = %key, "writing status took too long, will be tried again");
                self.metrics.status_written(Outcome::Failure);
                return Applied::Failed;
            }
        };
        self.metrics.status_written(Outcome::Success);
        if let Some(event) = event {
            self.tell(&event, &reference(&key, uid, &resource), events)
                .await;
        }
        let at = Instant::now();
        let written = Written {
            over,
            gave,
            at,
            status,
        };
        Applied::Written(key, Box::new(written))
    }

    // An event that cannot be written is lost: the status says the same.
    async fn tell(&self, event: &Event, reference: &ObjectReference, events: &Recorder) {
        let outcome = match timeout(CALL_TIMEOUT, events.publish(event, reference)).await {
            Ok(Ok(())) => Outcome::Success,
            Ok(Err(error)) => {
                warn!(
                    object = reference.name,
                    error = causes(&error),
                    "cannot write event"
                );
                Outcome::Failure
            }
            Err(_) => {
                warn!(object = reference.name, "writing an event took too long");
                Outcome::Failure
            }
        };
        self.metrics.event_written(outcome);
    }
}

enum Applied {
    Written(Key, Box<Written>),
    /// There is nobody to say it to.
    Gone,
    Failed,
}

impl Moment {
    fn due<K>(&self, kind: Kind, store: &Store<K>, written: &BTreeMap<Key, Written>) -> Vec<Write>
    where
        K: ResourceExt + HasStatus<Status = Status>,
    {
        let objects = store.all();
        let due = objects.iter().filter_map(|object| {
            let key = Key::of(kind, object.as_ref());
            // Another generation is about to be compiled.
            let verdict = self.publication.verdicts.get(&key)?;
            let is_compiled = object.meta().generation.unwrap_or(0) == verdict.generation;
            is_compiled.then(|| self.write(key, object.as_ref(), verdict, written))?
        });
        due.collect()
    }

    fn write<K>(
        &self,
        key: Key,
        object: &K,
        verdict: &Verdict,
        written: &BTreeMap<Key, Written>,
    ) -> Option<Write>
    where
        K: ResourceExt + HasStatus<Status = Status>,
    {
        let version = object.resource_version();
        let unseen = Status::default();
        let last = written.get(&key);
        let current = match last {
            Some(last) if last.over == version => &last.status,
            _ => object.status().unwrap_or(&unseen),
        };
        let status = self.desired(&key, verdict, current);
        let is_fixed = last
            .is_some_and(|last| last.gave == version && desired::is_same(&last.status, &status));
        let is_held = || {
            !self.is_settled
                && !self.view.is_complete(verdict)
                && desired::is_about_pods_alone(current, &status)
        };
        let is_soon = last.is_some_and(|last| last.at.elapsed() < FIGURES_INTERVAL);
        let is_patient = is_soon && desired::is_about_figures_alone(current, &status);
        if is_fixed || desired::is_same(current, &status) || is_held() || is_patient {
            return None;
        }
        Some(Write {
            uid: object.uid(),
            over: version,
            event: desired::event(current, &status),
            status,
            key,
        })
    }
}

impl Moment {
    // What the status of an object should be.
    fn desired(&self, key: &Key, verdict: &Verdict, current: &Status) -> Status {
        let mut progress = self.view.progress(key, &verdict.fleets, &self.publication);
        if progress.active < progress.pods {
            self.unprogrammed.set(self.unprogrammed.get() + 1);
        }
        let standing = match key.kind {
            Kind::Destination => self.view.standing(key, verdict),
            Kind::Relay | Kind::Route | Kind::Blocklist | Kind::Rewriter | Kind::Aggregator => None,
        };
        let health = standing.map(|standing| {
            progress.degraded = standing.degraded;
            standing.health
        });
        if key.kind == Kind::Relay {
            progress.degraded = self.view.listeners_down(key);
        }
        let fleet = self.fleets.get(key);
        if let Some((_, troubles)) = fleet {
            let not_applied = troubles.not_applied.clone();
            progress.degraded = not_applied.or(progress.degraded);
            progress.unfinished.clone_from(&troubles.draining);
        }
        if let Some(Held { routes, .. }) = self.publication.held.get(key) {
            let (published, now) = routes;
            let message = format!(
                "its relay pods go on with {published} routes, for only {now} are left at once: give them back, or wait for the operator's --shrink-hold"
            );
            progress.unfinished = Some(Finding::new(Reason::Held, message));
        }
        let mut status = desired::status(verdict, &progress, current, self.now);
        status.relays = self.by_relay(key, verdict);
        if let Some((Some(size), _)) = fleet {
            status.replicas = Some(size.replicas);
            status.ready_replicas = Some(size.ready);
            status.selector.clone_from(&size.selector);
        }
        if let Some(published) = self.publication.fleets.get(key) {
            status.snapshot_version = published.version.to_string();
        }
        if self.view.have_reported(&verdict.fleets, self.is_settled) {
            status.health = health;
            if key.kind == Kind::Relay {
                status.orphaned_spools = self.view.orphaned_spools(key);
            }
        } else if !verdict.fleets.is_empty() {
            desired::keep_health(&mut status, current, key.kind);
        }
        status
    }
}

impl Moment {
    // How far each Relay has come with an object that names it.
    fn by_relay(&self, key: &Key, verdict: &Verdict) -> Vec<RelayProgress> {
        let relays = match key.kind {
            Kind::Route | Kind::Blocklist | Kind::Rewriter | Kind::Aggregator => &verdict.fleets,
            // A Destination is in those of whoever may name it, of whom it is told nothing.
            Kind::Relay | Kind::Destination => return Vec::new(),
        };
        let relays = relays.iter().take(RELAYS_MAX);
        let progress = relays.map(|relay| RelayProgress {
            namespace: relay.namespace.clone(),
            name: relay.name.clone(),
            programmed_pods: self
                .view
                .progress(key, [relay], &self.publication)
                .to_string(),
        });
        progress.collect()
    }
}

fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Relay => ApiResource::erase::<crds::Relay>(&()),
        Kind::Destination => ApiResource::erase::<crds::Destination>(&()),
        Kind::Route => ApiResource::erase::<crds::Route>(&()),
        Kind::Blocklist => ApiResource::erase::<crds::Blocklist>(&()),
        Kind::Rewriter => ApiResource::erase::<crds::Rewriter>(&()),
        Kind::Aggregator => ApiResource::erase::<crds::Aggregator>(&()),
    }
}

fn reference(key: &Key, uid: Option<String>, resource: &ApiResource) -> ObjectReference {
    ObjectReference {
        api_version: Some(resource.api_version.clone()),
        kind: Some(resource.kind.clone()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

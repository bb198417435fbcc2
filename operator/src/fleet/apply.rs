//! Writes what belongs to a Relay, by server-side apply, if it is not as it was written last.
//!
//! Nothing is taken over that somebody else made: an object of that name without the Relay as its owner stays as it is, and the
//! Relay's status says so. Volumes grow by growing each claim, and then making the StatefulSet anew around its pods, since
//! what it makes claims of cannot be changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::{Reason, Relay};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch,
    PatchParams, PropagationPolicy,
};
use kube::{Client, ResourceExt as _};
use relay_proto::Version;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::objects::{self, MANAGER};
use crate::causes::causes;
use crate::compile::Finding;

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// What is not watched is applied again after this, in case somebody changed it.
const APPLY_AGAIN: Duration = Duration::from_secs(300);

/// Applies objects, and remembers which.
pub(super) struct Applier {
    client: Client,
    // By the Relay's UID, then by kind and name.
    applied: BTreeMap<String, BTreeMap<String, Applied>>,
}

struct Applied {
    digest: Version,
    at: Instant,
}

/// Why an object could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It is another's.
    #[error(
        "{0} exists and does not belong to this Relay: delete it, or give the Relay another name"
    )]
    Taken(String),
    /// The API server did not take it.
    #[error("{0} cannot be written: {1}")]
    Refused(String, String),
    /// It did not answer.
    #[error("{0} cannot be written: the API server took too long")]
    TimedOut(String),
}

impl Fault {
    pub(super) fn into_finding(self) -> Finding {
        Finding::new(Reason::FleetNotApplied, self.to_string())
    }
}

/// Whether an object belongs to a Relay.
pub(super) fn is_owned(owners: &[OwnerReference], relay: &Relay) -> bool {
    let uid = relay.uid();
    owners.iter().any(|owner| Some(&owner.uid) == uid.as_ref())
}

impl Applier {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            applied: BTreeMap::new(),
        }
    }

    /// Forgets what was applied for other Relays than these.
    pub(super) fn forget_all_but(&mut self, uids: impl Iterator<Item = Option<String>>) {
        let uids: BTreeSet<String> = uids.flatten().collect();
        self.applied.retain(|uid, _| uids.contains(uid));
    }

    /// Brings `objects` of a Relay about, as far as they differ from what was applied last; the last one in any case if it
    /// `is_missing`. Those that are `unwanted`, and are the Relay's, go.
    ///
    /// # Errors
    /// The first that could not be; those after it were not tried.
    pub(super) async fn apply(
        &mut self,
        relay: &Relay,
        objects: &[Value],
        unwanted: &[Value],
        is_missing: bool,
    ) -> Result<(), Fault> {
        for (index, object) in objects.iter().enumerate() {
            let of = Target::of(object);
            let must_be_made = is_missing && index + 1 == objects.len();
            if must_be_made || self.is_new(relay, object, &of) {
                self.write(relay, object, &of).await?;
                self.remember(relay, object, of);
            }
        }
        for object in unwanted {
            let of = Target::of(object);
            if self.is_new(relay, object, &of) {
                self.remove(relay, &of).await?;
                self.remember(relay, object, of);
            }
        }
        Ok(())
    }

    // Whether it is another than what was applied last, or that was long ago.
    fn is_new(&self, relay: &Relay, object: &Value, of: &Target) -> bool {
        let uid = relay.uid().unwrap_or_default();
        let applied = self.applied.get(&uid);
        let known = applied.and_then(|applied| applied.get(&of.label));
        known
            .is_none_or(|known| known.digest != digest(object) || known.at.elapsed() >= APPLY_AGAIN)
    }

    fn remember(&mut self, relay: &Relay, object: &Value, of: Target) {
        let uid = relay.uid().unwrap_or_default();
        let applied = Applied {
            digest: digest(object),
            at: Instant::now(),
        };
        self.applied
            .entry(uid)
            .or_default()
            .insert(of.label, applied);
    }

    async fn remove(&self, relay: &Relay, of: &Target) -> Result<(), Fault> {
        let namespace = relay.namespace().unwrap_or_default();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &of.resource);
        let live = call(of, api.get_opt(&of.name)).await?;
        if live.is_some_and(|live| is_owned(live.owner_references(), relay)) {
            call(of, api.delete(&of.name, &DeleteParams::default())).await?;
            info!(
                relay = relay.name_any(),
                namespace,
                object = of.label,
                "removed"
            );
        }
        Ok(())
    }

    async fn write(&self, relay: &Relay, object: &Value, of: &Target) -> Result<(), Fault> {
        let namespace = relay.namespace().unwrap_or_default();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &of.resource);
        let live = call(of, api.get_opt(&of.name)).await?;
        if let Some(live) = &live {
            if !is_owned(live.owner_references(), relay) {
                return Err(Fault::Taken(of.label.clone()));
            }
            if of.resource.kind == "StatefulSet" && has_smaller_volumes(&live.data, object) {
                self.grow(relay, object, of, &api).await?;
            }
        }
        let params = PatchParams::apply(MANAGER).force();
        call(of, api.patch(&of.name, &params, &Patch::Apply(object))).await?;
        if live.is_none() {
            info!(
                relay = relay.name_any(),
                namespace,
                object = of.label,
                "made"
            );
        }
        Ok(())
    }

    // Each claim of a pod, and then the StatefulSet, whose pods stay.
    async fn grow(
        &self,
        relay: &Relay,
        object: &Value,
        of: &Target,
        api: &Api<DynamicObject>,
    ) -> Result<(), Fault> {
        let namespace = relay.namespace().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let list = ListParams::default().labels(&objects::selector(relay));
        let size = size(object);
        for claim in call(of, claims.list(&list)).await? {
            let name = claim.name_any();
            let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            let claim = Target {
                label: format!("PersistentVolumeClaim {name}"),
                ..of.clone()
            };
            call(
                &claim,
                claims.patch(&name, &PatchParams::default(), &Patch::Merge(patch)),
            )
            .await?;
        }
        let delete = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Orphan),
            ..DeleteParams::default()
        };
        call(of, api.delete(&of.name, &delete)).await?;
        info!(relay = relay.name_any(), namespace, %size, "volumes grow");
        // It is there until its pods have been let go of.
        let gone = async {
            while call(of, api.get_opt(&of.name)).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        timeout(CALL_TIMEOUT, gone)
            .await
            .map_err(|_| Fault::TimedOut(of.label.clone()))?
    }
}

/// Which object it is.
#[derive(Clone)]
struct Target {
    resource: ApiResource,
    name: String,
    /// For people.
    label: String,
}

impl Target {
    fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
        let name = text(&object["metadata"]["name"]);
        Self {
            resource,
            label: format!("{kind} {name}"),
            name,
        }
    }
}

fn digest(object: &Value) -> Version {
    Version::of(object.to_string().as_bytes())
}

fn size(stateful_set: &Value) -> &Value {
    &stateful_set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
}

// The size only grows, so one that differs is smaller. A quantity may be written in several ways.
fn has_smaller_volumes(live: &Value, wanted: &Value) -> bool {
    let bytes = |value: &Value| {
        value
            .as_str()
            .and_then(|text| text.parse::<crds::Size>().ok())
    };
    matches!((bytes(size(live)), bytes(size(wanted))), (Some(live), Some(wanted)) if live < wanted)
}

async fn call<T>(of: &Target, call: impl Future<Output = kube::Result<T>>) -> Result<T, Fault> {
    let fault = match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(kube::Error::Api(refusal))) => {
            Fault::Refused(of.label.clone(), refusal.message.clone())
        }
        Ok(Err(error)) => Fault::Refused(of.label.clone(), causes(&error)),
        Err(_) => Fault::TimedOut(of.label.clone()),
    };
    warn!(error = %fault, "cannot make a fleet as its Relay says, will be tried again");
    Err(fault)
}

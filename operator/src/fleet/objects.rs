//! [`objects`]: a Relay → what its pods are made by. Pure.
//!
//! | object               | there      |                                                                  |
//! |----------------------|------------|------------------------------------------------------------------|
//! | ServiceAccount       | always     | whose tokens show the operator who a pod is                      |
//! | Service `…-relay`      | with ports | where senders connect                                            |
//! | Service `…-relay-pods` | always     | the pods' names, and an address for metrics                      |
//! | PodDisruptionBudget  | always     | one pod at a time                                                |
//! | NetworkPolicy        | if wanted  |                                                                  |
//! | StatefulSet          | persistent | pods with volumes                                                |
//! | Deployment           | otherwise  | pods without                                                     |
//!
//! Nothing that a snapshot can tell a running relay is in the pods' template, so a change of it restarts no pod: neither
//! listeners, whose ports only the Service names, nor, up to a point, the drain time-out.

use std::collections::BTreeSet;

use crds::{
    DeletionPolicy, FleetNetworkPolicy, Overrides, RELAY_LABEL, Relay, RelaySpec, Transport,
};
use kube::{Resource as _, ResourceExt as _};
use relay_proto::Version;
use serde_json::{Value, json};

use super::overrides::lay_over;
use crate::trust::AUDIENCE;

/// Names the operator in labels, and in what it owns of an object.
pub(crate) const MANAGER: &str = "carbonway-operator";
/// On a workload: what its pods' template was made of.
pub(crate) const TEMPLATE_ANNOTATION: &str = "carbonway.io/template";

/// How long a pod goes on after it was told to stop, so that load balancers have stopped sending to it.
const PRE_STOP_SECONDS: u64 = 5;
/// What a pod may take beyond that and its drain time-out; and what it may take in any case, so that most changes of the
/// time-out are none of the template. A relay exits when it is done.
const GRACE_SECONDS: u64 = 15;
const GRACE_SECONDS_MIN: u64 = 300;
/// For configuration and open buckets, where there is no spool.
const STATE_BYTES: &str = "1Gi";

/// What pods of all fleets have in common.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The image of relays that name none.
    pub(crate) image: String,
    /// What relays call this operator.
    pub(crate) operator: String,
}

/// Which workload runs the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    StatefulSet,
    Deployment,
}

/// What there is of a fleet's workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// Its pods' template, with what the API server added.
    pub(crate) template: Value,
    /// What that was made of.
    pub(crate) made_of: Option<String>,
}

/// What a Relay's pods are called, and all that belongs to them.
pub(crate) fn name(relay: &Relay) -> String {
    format!("{}-relay", relay.name_any())
}

/// The pods of a Relay, as a label selector.
pub(crate) fn selector(relay: &Relay) -> String {
    format!(
        "app.kubernetes.io/component=relay,app.kubernetes.io/name=carbonway,{RELAY_LABEL}={}",
        relay.name_any()
    )
}

/// The workload that a Relay takes.
pub(crate) fn workload(spec: &RelaySpec) -> Workload {
    match spec.spool.persistent {
        Some(_) => Workload::StatefulSet,
        None => Workload::Deployment,
    }
}

/// What there is to be for a Relay, with so many pods; the workload comes last.
pub(crate) fn objects(
    relay: &Relay,
    settings: &Settings,
    live: &Live,
    replicas: i32,
) -> Vec<Value> {
    let mut objects = vec![
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(relay, ""),
            "automountServiceAccountToken": false,
        }),
        pods_service(relay),
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(relay, ""),
            "spec": {
                "maxUnavailable": 1,
                // A pod that does not work anyway never holds up the draining of its node.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": match_labels(relay)},
            },
        }),
    ];
    objects.extend(service(relay));
    objects.extend(
        relay
            .spec
            .network_policy
            .as_ref()
            .map(|policy| network_policy(relay, policy)),
    );
    let (template, made_of) = template(relay, settings, live);
    objects.push(match workload(&relay.spec) {
        Workload::StatefulSet => stateful_set(relay, replicas, &template, &made_of),
        Workload::Deployment => deployment(relay, replicas, &template, &made_of),
    });
    objects
}

/// What a Relay may have had before it was changed, and does not have any more: each by its name.
pub(crate) fn unwanted(relay: &Relay) -> Vec<Value> {
    let mut unwanted = Vec::new();
    if service(relay).is_none() {
        unwanted.push(("v1", "Service"));
    }
    if relay.spec.network_policy.is_none() {
        unwanted.push(("networking.k8s.io/v1", "NetworkPolicy"));
    }
    let object = |(version, kind)| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name(relay)}});
    unwanted.into_iter().map(object).collect()
}

fn metadata(relay: &Relay, suffix: &str) -> Value {
    json!({
        "name": name(relay) + suffix,
        "namespace": relay.namespace(),
        "labels": labels(relay),
        "ownerReferences": [relay.controller_owner_ref(&())],
    })
}

fn labels(relay: &Relay) -> Value {
    let mut labels = match_labels(relay);
    labels["app.kubernetes.io/part-of"] = json!("carbonway");
    labels["app.kubernetes.io/managed-by"] = json!(MANAGER);
    labels
}

fn match_labels(relay: &Relay) -> Value {
    json!({
        "app.kubernetes.io/name": "carbonway",
        "app.kubernetes.io/component": "relay",
        (RELAY_LABEL): relay.name_any(),
    })
}

// A port that senders reach.
struct Port {
    name: String,
    number: i32,
    protocol: &'static str,
}

// Of a listener for connections and datagrams the latter has a name of its own, for names are unique.
fn ports(relay: &Relay) -> Vec<Port> {
    let listeners = &relay.spec.listeners;
    let mut names: BTreeSet<String> = listeners
        .iter()
        .map(|listener| listener.name.clone())
        .collect();
    let mut ports = Vec::new();
    for listener in listeners {
        let Some(number) = listener.port else {
            continue;
        };
        let transport = listener.plaintext.as_ref().map(|lines| lines.transport);
        let mut add = |name: &str, protocol| {
            let name = name.to_owned();
            ports.push(Port {
                name,
                number,
                protocol,
            });
        };
        match transport {
            None | Some(Transport::Tcp) => add(&listener.name, "TCP"),
            Some(Transport::Udp) => add(&listener.name, "UDP"),
            Some(Transport::TcpAndUdp) => {
                let mut udp_name = format!("{}-udp", listener.name);
                let mut tried = 0;
                while names.contains(&udp_name) {
                    tried += 1;
                    udp_name = format!("udp-{tried}");
                }
                add(&listener.name, "TCP");
                add(&udp_name, "UDP");
                names.insert(udp_name);
            }
        }
    }
    ports
}

// `None`: everybody who sends is on the pods' machines.
fn service(relay: &Relay) -> Option<Value> {
    let ports = ports(relay).into_iter().map(|port| {
        json!({"name": port.name, "port": port.number, "targetPort": port.number, "protocol": port.protocol})
    });
    let ports: Vec<Value> = ports.collect();
    if ports.is_empty() {
        return None;
    }
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(relay, ""),
        "spec": {"selector": match_labels(relay), "ports": ports},
    });
    lay_parts_over(&mut service, relay.spec.service_template.as_ref());
    Some(service)
}

fn pods_service(relay: &Relay) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(relay, "-pods"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": match_labels(relay),
            "ports": [{"name": "admin", "port": 8080, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn network_policy(relay: &Relay, policy: &FleetNetworkPolicy) -> Value {
    let FleetNetworkPolicy { senders, monitors } = policy;
    let ports: Vec<_> = ports(relay)
        .into_iter()
        .map(|port| json!({"port": port.number, "protocol": port.protocol}))
        .collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(relay, ""),
        "spec": {
            "podSelector": {"matchLabels": match_labels(relay)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": senders, "ports": ports},
                {"from": monitors, "ports": [{"port": 8080, "protocol": "TCP"}]},
            ],
        },
    })
}

fn stateful_set(relay: &Relay, replicas: i32, template: &Value, made_of: &str) -> Value {
    let (size, class) = match &relay.spec.spool.persistent {
        Some(spool) => (Some(spool.size), spool.storage_class_name.as_deref()),
        None => (None, None),
    };
    let mut claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "state", "labels": match_labels(relay)},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    });
    if let Some(class) = class {
        claim["spec"]["storageClassName"] = json!(class);
    }
    let when_deleted = match relay.spec.deletion_policy {
        DeletionPolicy::Retain => "Retain",
        DeletionPolicy::Delete => "Delete",
    };
    let mut metadata = metadata(relay, "");
    metadata["annotations"] = json!({(TEMPLATE_ANNOTATION): made_of});
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "serviceName": name(relay) + "-pods",
            // Relays do not wait for each other.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": match_labels(relay)},
            "template": template,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted, "whenScaled": "Retain"},
            "volumeClaimTemplates": [claim],
        },
    })
}

fn deployment(relay: &Relay, replicas: i32, template: &Value, made_of: &str) -> Value {
    let mut metadata = metadata(relay, "");
    metadata["annotations"] = json!({(TEMPLATE_ANNOTATION): made_of});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": match_labels(relay)},
            "template": template,
        },
    })
}

// The pods' template, and what it is made of. While that is the same the template stays as it is, whatever this release would
// make of it: so a new operator alone restarts no pod.
fn template(relay: &Relay, settings: &Settings, live: &Live) -> (Value, String) {
    let pinned = relay.spec.upgrade == crds::Upgrade::Manual;
    let image = relay.spec.image.as_deref();
    let made_of = made_of(
        relay,
        settings,
        image.or((!pinned).then_some(settings.image.as_str())),
    );
    if live.made_of.as_deref() == Some(&made_of) {
        return (live.template.clone(), made_of);
    }
    let containers = live.template["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten();
    let live_image = containers
        .filter(|container| container["name"] == "relay")
        .find_map(|container| container["image"].as_str())
        .filter(|_| pinned);
    let image = image.or(live_image).unwrap_or(&settings.image);
    (fresh_template(relay, settings, image), made_of)
}

// A digest of whatever of a Relay and of the settings is in its pods' template.
fn made_of(relay: &Relay, settings: &Settings, image: Option<&str>) -> String {
    let RelaySpec {
        spool,
        pod_template,
        ..
    } = &relay.spec;
    let ephemeral = (&spool.ephemeral, &spool.none);
    let parts = json!([
        settings.operator,
        image,
        ephemeral,
        grace_seconds(relay),
        pod_template
    ]);
    Version::of(parts.to_string().as_bytes()).to_string()
}

fn grace_seconds(relay: &Relay) -> u64 {
    let drain = relay.spec.drain.timeout.as_millis().div_ceil(1000);
    GRACE_SECONDS_MIN.max(PRE_STOP_SECONDS + drain + GRACE_SECONDS)
}

fn fresh_template(relay: &Relay, settings: &Settings, image: &str) -> Value {
    let mut template = json!({
        "metadata": {"labels": labels(relay)},
        "spec": {
            "serviceAccountName": name(relay),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": grace_seconds(relay),
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "topologySpreadConstraints": spread(relay),
            "containers": [container(relay, settings, image)],
            "volumes": volumes(relay, settings),
        },
    });
    lay_parts_over(&mut template, relay.spec.pod_template.as_ref());
    // By these it is known as the Relay's.
    lay_over(&mut template["metadata"]["labels"], &match_labels(relay));
    template
}

// Over nodes and zones, as far as there are several.
fn spread(relay: &Relay) -> Value {
    let keys = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];
    let constraint = |key| {
        json!({
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": match_labels(relay)},
        })
    };
    Value::from_iter(keys.map(constraint))
}

fn container(relay: &Relay, settings: &Settings, image: &str) -> Value {
    let mut arguments = vec![
        format!("--operator={}", settings.operator),
        format!(
            "--relay={}/{}",
            relay.namespace().unwrap_or_default(),
            relay.name_any()
        ),
        "--pod=$(POD_NAME)".to_owned(),
        "--state-dir=/var/lib/carbonway".to_owned(),
        "--admin-address=0.0.0.0:8080".to_owned(),
    ];
    if relay.spec.spool.none.is_some() {
        arguments.push("--no-spool".to_owned());
    }
    let mut mounts = vec![json!({"name": "state", "mountPath": "/var/lib/carbonway"})];
    if settings.is_trusted() {
        mounts.push(json!({"name": "ca", "mountPath": "/etc/carbonway/ca", "readOnly": true}));
        mounts.push(
            json!({"name": "token", "mountPath": "/var/run/secrets/carbonway", "readOnly": true}),
        );
    }
    // None of the probes asks about destinations or the operator: a restart would cure neither.
    json!({
        "name": "relay",
        "image": image,
        "args": arguments,
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": "admin", "containerPort": 8080, "protocol": "TCP"}],
        "startupProbe": {"httpGet": {"path": "/livez", "port": "admin"}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/livez", "port": "admin"}, "periodSeconds": 10, "timeoutSeconds": 3},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "admin"}, "periodSeconds": 2, "timeoutSeconds": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    })
}

fn volumes(relay: &Relay, settings: &Settings) -> Vec<Value> {
    let mut volumes = Vec::new();
    if relay.spec.spool.persistent.is_none() {
        let limit = relay
            .spec
            .spool
            .ephemeral
            .as_ref()
            .map(|spool| spool.size_limit.to_string());
        let limit = limit.as_deref().unwrap_or(STATE_BYTES);
        volumes.push(json!({"name": "state", "emptyDir": {"sizeLimit": limit}}));
    }
    if settings.is_trusted() {
        // The operator writes it; until then the relay runs on what it has.
        volumes
            .push(json!({"name": "ca", "configMap": {"name": "carbonway-ca", "optional": true}}));
        volumes.push(
            json!({"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                "audience": AUDIENCE,
                "path": "token",
                "expirationSeconds": 3600,
            }}]}}),
        );
    }
    volumes
}

// Only what people may change: the rest is what ties the object to its Relay.
fn lay_parts_over(object: &mut Value, over: Option<&Overrides>) {
    let Some(Overrides(over)) = over else { return };
    for field in ["labels", "annotations"] {
        if let Some(over) = over
            .get("metadata")
            .and_then(|metadata| metadata.get(field))
        {
            lay_over(&mut object["metadata"][field], over);
        }
    }
    if let Some(over) = over.get("spec") {
        lay_over(&mut object["spec"], over);
    }
}

impl Settings {
    fn is_trusted(&self) -> bool {
        self.operator.starts_with("https://")
    }
}

#[cfg(test)]
mod tests;

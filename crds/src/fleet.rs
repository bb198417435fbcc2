//! What the pods of a Relay are like.

use std::borrow::Cow;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Size;

/// Where relay pods keep what waits for Destinations, and with it the configuration that they start from. Exactly one is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.persistent), has(self.ephemeral), has(self.none)].exists_one(x, x)")
    .message("set exactly one of persistent, ephemeral and none"))]
pub struct RelaySpool {
    /// A volume for each pod, which outlives it. The pods are those of a StatefulSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<PersistentSpool>,
    /// Room on the node, which goes with the pod: also when it is replaced, as for another image. The pods are those of a
    /// Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<EphemeralSpool>,
    /// Nowhere: what has no room in memory is dropped and counted. The pods are those of a Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none: Option<NoSpool>,
}

impl Default for RelaySpool {
    fn default() -> Self {
        Self {
            persistent: Some(PersistentSpool {
                size: Size::from_mib(10 << 10),
                storage_class_name: None,
            }),
            ephemeral: None,
            none: None,
        }
    }
}

/// A volume for each pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PersistentSpool {
    /// How large each volume is. It may grow, where the StorageClass lets volumes grow, and never shrinks.
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) >= 0")
        .message("volumes do not shrink: keep the size, or a larger one"))]
    pub size: Size,
    /// Default: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// Room on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralSpool {
    /// How much a pod may take of it. One that takes more is evicted: let it exceed what spool.maxBytes of the Destinations
    /// add up to.
    pub size_limit: Size,
}

/// Nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoSpool {}

/// What becomes of the volumes when the Relay is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// They stay, with what waits in them.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// When pods get another release of the relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Upgrade {
    /// When image says so. Without image they keep the one that they were made with.
    #[default]
    Manual,
    /// With the operator.
    Automatic,
}

/// A NetworkPolicy for the pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetNetworkPolicy {
    /// Who may reach the listeners, as in ingress[].from of a NetworkPolicy. Default: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 64))]
    pub senders: Vec<Overrides>,
    /// Who may reach the admin port with metrics and probes; nodes always may. Default: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 64))]
    pub monitors: Vec<Overrides>,
}

/// A part of an object, as its own API has it. The API server checks it when the object is written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(pub Map<String, Value>);

impl JsonSchema for Overrides {
    fn schema_name() -> Cow<'static, str> {
        "Overrides".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

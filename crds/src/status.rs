//! The status that every kind has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is truly applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The generation that this status speaks of; -1 before the operator has seen the object.
    #[serde(default = "unobserved")]
    pub observed_generation: i64,
    /// Accepted, ResolvedRefs, Programmed and Ready, always; others only while they are true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// On how many relay pods this generation is active, of how many: "6/6".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub programmed_pods: String,
    /// The Relays that run it, with the relay pods of each on which this generation is active; at most 16 of them. Not on
    /// Relays and Destinations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["namespace".into(), "name".into()]))]
    #[schemars(length(max = 16))]
    pub relays: Vec<RelayProgress>,
    /// On a Relay, the version of the newest snapshot for its pods: a SHA-256 in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub snapshot_version: String,
    /// On a Relay, how many pods there are for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// On a Relay, how many of them are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// On a Relay, which pods those are, for autoscalers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub selector: String,
    /// On a Destination, how it stands with the relay pods that run it; not there before the first of them said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// On a Relay, what its pods have on disk for Destinations that are gone; not there if that is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphaned_spools: Option<OrphanedSpools>,
}

/// How far a Relay has come with an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayProgress {
    /// The Relay's namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// The Relay's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// On how many of its pods this generation is active, of how many: "2/3".
    #[schemars(length(max = 32))]
    pub programmed_pods: String,
}

/// How a Destination stands with all relay pods together. Figures are rounded down to two digits, and written every 30 seconds
/// at most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// How many relay pods are connected to it, of how many: "5/6".
    #[schemars(length(max = 32))]
    pub connected_pods: String,
    /// How many of these have more for it than it takes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub slow_pods: i64,
    /// Lines that wait for it on disk.
    #[serde(default)]
    pub spooled_lines: i64,
    /// What they take on disk, as a quantity: "1200M".
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub spooled_bytes: String,
    /// How long the oldest of them has waited: "12m". Not there below 10 seconds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub oldest: String,
    /// Why lines for it are being dropped, in the words of the metric carbonway_destination_lines_dropped_total.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub dropping: Vec<String>,
    /// Why it is not connected to one of those relay pods that cannot connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// Why a relay pod could not connect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// The relay pod.
    #[schemars(length(max = 253))]
    pub pod: String,
    /// What went wrong.
    #[schemars(length(max = 256))]
    pub message: String,
    /// When that was seen; not written anew while the same goes on.
    pub time: Time,
}

/// What relay pods have on disk for Destinations that are gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphanedSpools {
    /// For how many Destinations.
    pub count: i64,
    /// The bytes on disk, of all pods together, as a quantity.
    #[schemars(length(max = 32))]
    pub bytes: String,
    /// The largest of them.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 8))]
    pub largest: Vec<OrphanedSpool>,
}

/// What relay pods have on disk for one Destination that is gone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrphanedSpool {
    /// What it was called: namespace/name. Empty if nothing says it.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub destination: String,
    /// Its UID. Empty if nothing says it.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub uid: String,
    /// In how many relay pods.
    pub pods: i64,
    /// The bytes on disk, of all pods together, as a quantity.
    #[schemars(length(max = 32))]
    pub bytes: String,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            conditions: Vec::new(),
            programmed_pods: String::new(),
            relays: Vec::new(),
            snapshot_version: String::new(),
            replicas: None,
            ready_replicas: None,
            selector: String::new(),
            health: None,
            orphaned_spools: None,
        }
    }
}

fn is_zero(count: &i64) -> bool {
    *count == 0
}

const fn unobserved() -> i64 {
    -1
}

//! The status that every kind has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
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
    /// On a Relay, the version of the newest snapshot for its pods: a SHA-256 in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub snapshot_version: String,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            observed_generation: unobserved(),
            conditions: Vec::new(),
            programmed_pods: String::new(),
            snapshot_version: String::new(),
        }
    }
}

const fn unobserved() -> i64 {
    -1
}

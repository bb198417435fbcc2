//! `Relay`: a fleet of relay pods, and where lines come in.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Status};

/// A fleet of relay pods, and where lines come in. Routes and Blocklists attach to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "carbonway.io",
    version = "v1alpha1",
    kind = "Relay",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "cwrelay",
    category = "carbonway",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.programmedPods"
    ),
    printcolumn(
        name = "Listeners",
        type_ = "string",
        json_path = ".spec.listeners[*].port"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.listeners.all(a, self.listeners.exists_one(b, a.port == b.port))")
    .message("two listeners have the same port: give each its own"))]
pub struct RelaySpec {
    /// Where lines come in.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(min = 1, max = 16))]
    pub listeners: Vec<Listener>,
    /// What happens when a relay is told to stop.
    #[serde(default)]
    pub drain: Drain,
}

/// One socket that takes lines in. Exactly one protocol is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.plaintext)").message("name the protocol: set plaintext"))]
pub struct Listener {
    /// The listener's name, unique in the Relay; metrics carry it.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The port that every relay pod listens on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Graphite's line protocol over TCP.
    pub plaintext: Option<Plaintext>,
    /// Connections that one relay pod takes at the same time; more are closed at once and counted.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: i32,
}

fn default_max_connections() -> i32 {
    10_000
}

/// Graphite's line protocol over TCP: `name value timestamp`, ended by a newline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Plaintext {
    /// The longest line, in bytes without its newline; a longer one is skipped and counted, and the connection stays.
    #[schemars(range(min = 64, max = 65536))]
    pub max_line_bytes: i32,
    /// A connection that sent nothing for this long is closed. 0s: never.
    pub idle_timeout: Duration,
}

impl Default for Plaintext {
    fn default() -> Self {
        Self {
            max_line_bytes: 65536,
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// What happens when a relay is told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// How long it may take to hand over what it holds. The pod's termination grace period must be longer.
    pub timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
        }
    }
}

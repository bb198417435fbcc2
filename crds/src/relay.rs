//! `Relay`: a fleet of relay pods, and where lines come in.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AllowedNamespaces, DeletionPolicy, Duration, FleetNetworkPolicy, Listener, Overrides,
    RelaySpool, Status, Upgrade,
};

// Timestamps are whole seconds; and what travels to relays says with a zero that there is no limit.
const AT_LEAST_A_SECOND: &str = "duration(self) >= duration('1s')";
const AT_LEAST_A_SECOND_MESSAGE: &str = "write 1s or more, or leave it out for no limit";

/// A fleet of relay pods, and where lines come in. Routes, Blocklists, Rewriters and Aggregators attach to it.
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
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
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
#[x_kube(validation = Rule::new("self.listeners.all(a, !has(a.port) || self.listeners.exists_one(b, has(b.port) && a.port == b.port))")
    .message("two listeners have the same port: give each its own"))]
#[x_kube(validation = Rule::new("self.listeners.all(a, !has(a.unixSocket) || self.listeners.exists_one(b, has(b.unixSocket) && a.unixSocket.path == b.unixSocket.path))")
    .message("two listeners have the same unixSocket.path: give each its own"))]
pub struct RelaySpec {
    /// How many relay pods there are. Leave it to an autoscaler once one has it. Those that go hand over what they hold before
    /// that. 0: the operator makes none, and runs those that connect by themselves. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Where lines come in.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(min = 1, max = 16))]
    pub listeners: Vec<Listener>,
    /// Which namespaces may attach Routes, Blocklists, Rewriters and Aggregators to it. Default: its own.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
    /// What a line must be to be let in.
    #[serde(default)]
    pub validation: Validation,
    /// What happens when a relay is told to stop.
    #[serde(default)]
    pub drain: Drain,
    /// Where pods keep what waits for Destinations. Whether that is persistent cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("has(self.persistent) == has(oldSelf.persistent)")
        .message("what waits in the volumes would be left behind: make another Relay, and remove this one when it is drained"))]
    pub spool: RelaySpool,
    /// What becomes of the volumes when this Relay is deleted. Those of pods that went before stay in any case.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The image of the relay. Default: the operator's, of the time when the pods were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// When pods get another release of the relay.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// What is to be different in the pods: metadata and spec, as in a Pod's template. Lists of things with a name are merged
    /// by name; the container is named relay. null takes something away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<Overrides>,
    /// What is to be different in the Service that senders connect to: metadata and spec, as in a Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_template: Option<Overrides>,
    /// Makes a NetworkPolicy for the pods. Needs a network plugin that enforces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<FleetNetworkPolicy>,
}

/// What a line must be to be let in. Others are dropped and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// How strictly names are judged. Medium: ASCII without NUL, and well-formed tags. Strict: Medium, and nothing but letters,
    /// digits, _, - and single dots before the tags. None: any name is let in.
    #[serde(default)]
    pub level: ValidationLevel,
    /// How strictly metrics2.0 names are judged. Medium: ASCII without NUL, with a unit, an mtype and another tag. None: any
    /// name is let in.
    #[serde(default)]
    pub metrics20_level: Metrics20Level,
    /// What becomes of a line whose value is NaN or infinite. Drop: it is dropped and counted. Forward: it is forwarded, and
    /// Aggregators leave it out.
    #[serde(default)]
    pub nan: NotFinite,
    /// True: drops a point that is not newer than the one before it in its series.
    #[serde(default)]
    pub reject_out_of_order: bool,
    /// How far in the past a timestamp may lie; at least 1s. Default: however far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(AT_LEAST_A_SECOND).message(AT_LEAST_A_SECOND_MESSAGE))]
    pub max_past: Option<Duration>,
    /// How far in the future a timestamp may lie; at least 1s. Default: however far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(AT_LEAST_A_SECOND).message(AT_LEAST_A_SECOND_MESSAGE))]
    pub max_future: Option<Duration>,
    /// The form in which tagged names go on. AsReceived: byte for byte. Normalised: tags sorted as Graphite does, before any
    /// rule sees the name.
    #[serde(default)]
    pub tags: TagForm,
}

/// How strictly names are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValidationLevel {
    #[default]
    Medium,
    Strict,
    None,
}

/// How strictly metrics2.0 names are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Metrics20Level {
    #[default]
    Medium,
    None,
}

/// What becomes of a line whose value is NaN or infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NotFinite {
    #[default]
    Drop,
    Forward,
}

/// The form in which tagged names go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TagForm {
    #[default]
    AsReceived,
    Normalised,
}

/// What happens when a relay is told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Drain {
    /// How long it may take to hand over what it holds.
    pub timeout: Duration,
    /// How long a pod that is to go for good may take until nothing waits in it. After that it goes all the same; what waits in
    /// its volume stays there. One with an ephemeral spool has as long as it takes.
    pub leave_timeout: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            leave_timeout: Duration::from_secs(3600),
        }
    }
}

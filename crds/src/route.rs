//! `Route`: which lines go where.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Match, Status};

/// Which lines go where. A route takes a line when its match and that of at least one of its destinations hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "carbonway.io",
    version = "v1alpha1",
    kind = "Route",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "cwroute",
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
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Destinations",
        type_ = "string",
        json_path = ".spec.destinations[*].name"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RouteSpec {
    /// The Relays, in this namespace, that run this route. Default: the one labelled carbonway.io/default=true.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[schemars(length(max = 16))]
    pub relay_refs: Vec<RelayRef>,
    /// Routes with a higher priority see a line first; ties go by namespace, then name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Which lines. Default: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Whether routes after this one see a line that this one took.
    #[serde(default)]
    pub on_match: OnMatch,
    /// True: sees only lines that no other route took (a default route).
    #[serde(default)]
    pub unmatched_only: bool,
    /// Which of the destinations get a line.
    #[serde(default)]
    pub distribution: Distribution,
    /// Who gets the lines. The order has a meaning and is kept. A destination gets a line once, however many routes name it.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(min = 1, max = 256))]
    pub destinations: Vec<Target>,
}

/// A Relay in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelayRef {
    /// The Relay's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Destination in the same namespace, and which of the route's lines it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// The Destination's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Which of the route's lines. Default: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
}

/// Whether routes after this one see a line that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMatch {
    #[default]
    Continue,
    Stop,
}

/// Which of the destinations that match get a line: all of them, or the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Distribution {
    #[default]
    All,
    FirstMatch,
}

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
#[x_kube(validation = Rule::new("self.distribution == 'ConsistentHash' || !has(self.consistentHash)")
    .message("consistentHash is for distribution: ConsistentHash only"))]
#[x_kube(validation = Rule::new("self.distribution != 'ConsistentHash' || self.destinations.all(d, !has(d.match))")
    .message("with ConsistentHash the series alone decides: a destination cannot have a match"))]
#[x_kube(validation = Rule::new("self.distribution == 'ConsistentHash' || self.destinations.all(d, !has(d.instance))")
    .message("an instance is for distribution: ConsistentHash only"))]
pub struct RouteSpec {
    /// The Relays that run this route. Default: the one labelled carbonway.io/default=true in this namespace.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(a, self.exists_one(b, a == b))")
        .message("a Relay is named twice: name it once"))]
    #[schemars(length(max = 16))]
    pub relay_refs: Vec<RelayRef>,
    /// Routes with a higher priority see a line first; ties go by namespace, then name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Which lines. Default: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Whether routes after this one see a line that this one took. Continue: they do. Stop: they do not.
    #[serde(default)]
    pub on_match: OnMatch,
    /// True: sees only lines that no other route took (a default route).
    #[serde(default)]
    pub unmatched_only: bool,
    /// Which of the destinations get a line. All: every one that matches. FirstMatch: the first that matches. RoundRobin: of
    /// those that match, the next one for each line. Failover: of those that match, the first that takes lines; it gets them
    /// back once it has been up for a while. ConsistentHash: those that own the series.
    #[serde(default)]
    pub distribution: Distribution,
    /// How ConsistentHash shares series out.
    pub consistent_hash: Option<ConsistentHash>,
    /// Who gets the lines. The order has a meaning and is kept. A destination gets a line once, however many routes name it.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(min = 1, max = 256))]
    pub destinations: Vec<Target>,
}

/// A Relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RelayRef {
    /// The Relay's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the Relay must allow this one in its allowedNamespaces. Default: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
}

/// A Destination, and which of the route's lines it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// The Destination's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the Destination must allow this one in its allowedFrom. Default: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
    /// Which of the route's lines. Default: all.
    #[serde(rename = "match")]
    pub matches: Option<Match>,
    /// What tells destinations on one host apart when series are shared out, as the instance in carbon's DESTINATIONS.
    #[schemars(length(min = 1, max = 63))]
    pub instance: Option<String>,
}

/// How series are shared out. Destinations are members by the host and port of their address and by their instance, in the
/// order of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// Whose way it is: series go where that relay sends them. Carbon: carbon_ch of carbon. CarbonRelayNg, CarbonRelayNgV2:
    /// consistentHashing and consistentHashing-v2 of carbon-relay-ng. CarbonCRelay, Fnv1aCRelay, JumpFnv1a: carbon_ch, fnv1a_ch
    /// and jump_fnv1a_ch of carbon-c-relay. Fnv1aCarbon: fnv1a_ch of carbon. Rendezvous: one that moves the fewest series when
    /// destinations change.
    pub algorithm: Algorithm,
    /// How many destinations own a series.
    #[schemars(range(min = 1, max = 16))]
    pub replication_factor: i32,
    /// What of a series is hashed. Series: all of it, with its tags. Name: the part before the first ;. Normalised: all of it,
    /// tags sorted as Graphite does. Default: what the algorithm's own relay hashes, which is Name for CarbonCRelay, Fnv1aCRelay
    /// and JumpFnv1a, and Series for the others.
    // Not as an Option: that puts a null among the values, and kubectl refuses such a CRD.
    #[schemars(with = "HashKey")]
    pub hash_key: Option<HashKey>,
    /// Whether the owners of a series must have different hosts, as carbon's DIVERSE_REPLICAS. Carbon, Fnv1aCarbon and
    /// Rendezvous only.
    pub diverse_replicas: bool,
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            replication_factor: 1,
            hash_key: None,
            diverse_replicas: false,
        }
    }
}

/// A way to share series out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    #[default]
    Carbon,
    CarbonRelayNg,
    CarbonRelayNgV2,
    CarbonCRelay,
    Fnv1aCRelay,
    Fnv1aCarbon,
    JumpFnv1a,
    Rendezvous,
}

impl Algorithm {
    /// The text in `algorithm`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Carbon => "Carbon",
            Self::CarbonRelayNg => "CarbonRelayNg",
            Self::CarbonRelayNgV2 => "CarbonRelayNgV2",
            Self::CarbonCRelay => "CarbonCRelay",
            Self::Fnv1aCRelay => "Fnv1aCRelay",
            Self::Fnv1aCarbon => "Fnv1aCarbon",
            Self::JumpFnv1a => "JumpFnv1a",
            Self::Rendezvous => "Rendezvous",
        }
    }
}

/// What of a series is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HashKey {
    Series,
    Name,
    Normalised,
}

impl HashKey {
    /// The text in `hashKey`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Series => "Series",
            Self::Name => "Name",
            Self::Normalised => "Normalised",
        }
    }
}

/// Whether routes after this one see a line that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnMatch {
    #[default]
    Continue,
    Stop,
}

/// Which destinations get a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Distribution {
    #[default]
    All,
    FirstMatch,
    RoundRobin,
    Failover,
    ConsistentHash,
}

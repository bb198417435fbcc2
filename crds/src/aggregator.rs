//! `Aggregator`: makes one series of many.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Match, RelayRef, Status};

// A fraction of a second is told by its text, because `getMilliseconds` is not the same function everywhere.
const WHOLE_SECONDS: &str = "duration(self) >= duration('1s') && duration(self) <= duration('744h') && !self.contains('ms') && !self.contains('.')";
const WHOLE_SECONDS_MESSAGE: &str =
    "write whole seconds, minutes or hours without fractions, from 1s to 744h (31 days)";

/// Makes one series of many. It gathers the points of the series that its match takes in buckets of one interval, by the
/// point's own timestamp, and sends one value for each bucket and function. What it sends goes to Routes, as a line that came
/// in would, and through no Aggregator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "carbonway.io",
    version = "v1alpha1",
    kind = "Aggregator",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "cwagg",
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
    printcolumn(name = "Functions", type_ = "string", json_path = ".spec.functions"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".spec.interval"),
    printcolumn(name = "Output", type_ = "string", json_path = ".spec.output"),
    printcolumn(
        name = "Priority",
        type_ = "integer",
        json_path = ".spec.priority",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.wait) >= duration(self.interval)")
    .message("wait counts from the start of the bucket, so a shorter one would miss the bucket's end: make it at least the interval")
    .field_path(".wait"))]
pub struct AggregatorSpec {
    /// The Relays that run this aggregator. Default: the one labelled carbonway.io/default=true in this namespace.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(a, self.exists_one(b, a == b))")
        .message("a Relay is named twice: name it once"))]
    #[schemars(length(max = 16))]
    pub relay_refs: Vec<RelayRef>,
    /// Aggregators with a higher priority see a line first; ties go by namespace, then name. The order matters where dropRaw is
    /// set: a line that is taken then reaches no later Aggregator.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Which lines, by their rewritten names. Its regex is needed: the groups name the output.
    #[serde(rename = "match")]
    #[x_kube(validation = Rule::new("has(self.regex) && self.regex != ''")
        .message("the groups of a regex name the output: set regex, such as ^raw[.](.*)$")
        .field_path(".regex"))]
    pub matches: Match,
    /// What is made of the points of a bucket. Avg, Count, Last, Max, Min, Sum, Median: as they say. Delta: the largest value
    /// minus the smallest. Derive: the change per second from the oldest point to the newest. Stdev: the standard deviation of
    /// the population. P95, P99.9 and the like: that percentile. Percentiles: P25, P50, P75, P90, P95 and P99.
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[schemars(
        length(min = 1, max = 32),
        inner(
            length(max = 16),
            regex(
                pattern = r"^(Avg|Count|Delta|Derive|Last|Max|Min|Stdev|Sum|Median|Percentiles|P[1-9][0-9]?(\.[1-9])?)$"
            )
        )
    )]
    pub functions: Vec<String>,
    /// The name of what is sent. $1 or ${1} stands for the first group of match.regex, $name or ${name} for the group of that
    /// name, ${function} for the function's name in lower case, and $$ for a dollar sign. A name without braces is the longest
    /// run of letters, digits and _, so write ${1}x for the first group and an x. A group that does not exist is refused. With
    /// several functions .sum, .avg, .p95, .p99_9 (for P99.9) and so on is appended, unless ${function} is used.
    #[schemars(length(min = 1, max = 1024))]
    pub output: String,
    /// How long a bucket is: whole seconds, 1s to 744h (31 days).
    #[x_kube(validation = Rule::new(WHOLE_SECONDS).message(WHOLE_SECONDS_MESSAGE))]
    pub interval: Duration,
    /// From the start of a bucket until its value is sent: whole seconds, from the interval to 744h (31 days). Points that come
    /// later are too late and counted, so add to the interval what senders take to deliver.
    #[x_kube(validation = Rule::new(WHOLE_SECONDS).message(WHOLE_SECONDS_MESSAGE))]
    pub wait: Duration,
    /// True: a line that was taken goes no further, to no later Aggregator and to no Route.
    #[serde(default)]
    pub drop_raw: bool,
    /// What a percentile is. R6 and R7: a point between two values, as R's quantile types 6 (and carbon-relay-ng) and 7 (and most
    /// spreadsheets) have it. NearestRank: always one of the values.
    #[serde(default)]
    pub percentile_definition: PercentileDefinition,
}

/// What a percentile is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PercentileDefinition {
    #[default]
    R6,
    R7,
    NearestRank,
}

impl PercentileDefinition {
    /// The text in `percentileDefinition`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::R6 => "R6",
            Self::R7 => "R7",
            Self::NearestRank => "NearestRank",
        }
    }
}

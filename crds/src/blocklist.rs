//! `Blocklist`: lines to drop.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Match, RelayRef, Status};

/// Lines to drop, before anything else sees them. They are counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "carbonway.io",
    version = "v1alpha1",
    kind = "Blocklist",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "cwblock",
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
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.entries.all(e, (has(e.prefix) && e.prefix != '') || (has(e.notPrefix) && e.notPrefix != '') || (has(e.contains) && e.contains != '') || (has(e.notContains) && e.notContains != '') || (has(e.suffix) && e.suffix != '') || (has(e.regex) && e.regex != '') || (has(e.notRegex) && e.notRegex != '') || (has(e.glob) && e.glob != '') || (has(e.tags) && e.tags.size() > 0))")
    .message("an entry has no condition and would drop every line: set at least one of prefix, notPrefix, contains, notContains, suffix, regex, notRegex, glob, tags"))]
pub struct BlocklistSpec {
    /// The Relays that run this blocklist. Default: the one labelled carbonway.io/default=true in this namespace.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(a, self.exists_one(b, a == b))")
        .message("a Relay is named twice: name it once"))]
    #[schemars(length(max = 16))]
    pub relay_refs: Vec<RelayRef>,
    /// A line is dropped when any entry matches its name. An entry needs a condition: an empty one would drop everything.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(min = 1, max = 4096))]
    pub entries: Vec<Match>,
}

//! `Rewriter`: changes names.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{Match, RelayRef, Status};

/// Changes names. Blocklists see a name as it came; Aggregators and Routes see it rewritten.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "carbonway.io",
    version = "v1alpha1",
    kind = "Rewriter",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "cwrw",
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
    // A column shows the first of several.
    printcolumn(
        name = "First Rule",
        type_ = "string",
        json_path = ".spec.rules[0].name"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.rules.all(a, self.rules.exists_one(b, a.name == b.name))")
    .message("two rules have the same name: give each its own"))]
pub struct RewriterSpec {
    /// The Relays that run this rewriter. Default: the one labelled carbonway.io/default=true in this namespace.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = Rule::new("self.all(a, self.exists_one(b, a == b))")
        .message("a Relay is named twice: name it once"))]
    #[schemars(length(max = 16))]
    pub relay_refs: Vec<RelayRef>,
    /// Rewriters with a higher priority change a name first; ties go by namespace, then name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// What is changed. Each rule sees what the one before it made.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(min = 1, max = 256))]
    pub rules: Vec<RewriteRule>,
}

/// Replaces parts of a name. Exactly one of literal and regex is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.literal), has(self.regex)].exists_one(set, set)")
    .message("set exactly one of literal and regex"))]
#[x_kube(validation = Rule::new("!has(self.max) || has(self.literal)")
    .message("max is for a literal only: a regex replaces all that it matches, so leave max out"))]
pub struct RewriteRule {
    /// The rule's name, unique in the Rewriter.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The text that is replaced.
    #[schemars(length(min = 1, max = 1024))]
    pub literal: Option<String>,
    /// The regular expression (RE2 syntax, not anchored) whose every match is replaced.
    #[schemars(length(min = 1, max = 4096))]
    pub regex: Option<String>,
    /// What takes its place; may be empty. With a regex, $1 or ${1} stands for its first group, $name or ${name} for the group
    /// of that name, and $$ for a dollar sign. A name without braces is the longest run of letters, digits and _, so write
    /// ${1}x for the first group and an x. A group that does not exist is refused. With a literal, every character stands for
    /// itself.
    #[schemars(length(max = 1024))]
    pub with: String,
    /// How many occurrences of the literal are replaced, from the left; at least 1. Default: all.
    #[schemars(range(min = 1))]
    pub max: Option<i32>,
    /// Names that this rule leaves alone, as the rule before it made them. Default: none.
    #[x_kube(validation = Rule::new("(has(self.prefix) && self.prefix != '') || (has(self.notPrefix) && self.notPrefix != '') || (has(self.contains) && self.contains != '') || (has(self.notContains) && self.notContains != '') || (has(self.suffix) && self.suffix != '') || (has(self.regex) && self.regex != '') || (has(self.notRegex) && self.notRegex != '') || (has(self.glob) && self.glob != '') || (has(self.tags) && self.tags.size() > 0)")
        .message("no condition is set, which would leave every name alone: set at least one, or leave unless out"))]
    pub unless: Option<Match>,
}

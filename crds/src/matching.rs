//! The one `match` type.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Conditions on the series name (with its tags, never the value or the timestamp). All that are set must hold; an empty
/// match takes every line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Match {
    /// The name starts with this.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub prefix: String,
    /// The name does not start with this.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub not_prefix: String,
    /// The name has this somewhere in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub contains: String,
    /// The name does not have this anywhere in it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub not_contains: String,
    /// The name ends with this.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub suffix: String,
    /// This regular expression (not anchored) matches the name. It has RE2's syntax, as in Go: what that refuses is refused,
    /// such as looking around, back-references, \C and repetitions of more than 1000, and so is what is very large.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub regex: String,
    /// This regular expression (RE2 syntax, not anchored) does not match the name.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub not_regex: String,
    /// This glob matches the whole name: * and ? and [a-z] stop at dots, ** does not, {a,b} is a choice.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub glob: String,
    /// Conditions on tags, all of which must hold: dc=ams, dc!=ams, dc=~regex, dc!=~regex. A tag that is not there is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 2, max = 1024)), extend("x-kubernetes-list-type" = "atomic"))]
    pub tags: Vec<String>,
}

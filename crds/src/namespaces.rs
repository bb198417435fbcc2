//! Which namespaces may refer to an object of this one.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which namespaces may attach Routes, Blocklists, Rewriters and Aggregators to a Relay. All lines of a Relay meet all of them:
/// a Blocklist drops lines of every sender. What is no longer allowed is taken out at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)")
    .message("a selector is for from: Selector, which needs one"))]
pub struct AllowedNamespaces {
    /// Same: the Relay's own. All: every one. Selector: the Relay's own, and those whose labels are selected.
    #[serde(default)]
    pub from: Namespaces,
    /// The labels of namespaces; each has its name as kubernetes.io/metadata.name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Which namespaces may name a Destination in their Routes. What is no longer allowed is taken out at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.namespaces == 'Selector') == has(self.selector)")
    .message("a selector is for namespaces: Selector, which needs one"))]
pub struct AllowedFrom {
    /// Same: the Destination's own. All: every one. Selector: the Destination's own, and those whose labels are selected.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// The labels of namespaces; each has its name as kubernetes.io/metadata.name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Which namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Namespaces {
    /// The object's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// The object's own, and those whose labels are selected.
    Selector,
}

/// Selects namespaces by their labels, as a Kubernetes label selector: all of it must hold. An empty one selects every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels that a namespace must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 32),
        extend("additionalProperties" = { "type": "string", "maxLength": 63 })
    )]
    pub match_labels: BTreeMap<String, String>,
    /// What must hold of its labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<NamespaceExpression>,
}

/// What must hold of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)")
    .message("In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct NamespaceExpression {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// What is asked of it. NotIn also holds where it is missing.
    pub operator: LabelOperator,
    /// The values, for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// What is asked of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

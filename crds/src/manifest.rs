//! The CRD manifests, as the files in `yaml/` hold them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt as _;

use crate::{Aggregator, Blocklist, Destination, Relay, Rewriter, Route};

/// The kinds, in the order in which a reader meets them.
pub const KINDS: [&str; 6] = [
    "Relay",
    "Destination",
    "Route",
    "Blocklist",
    "Rewriter",
    "Aggregator",
];

/// Every CRD, in the order of [`KINDS`].
pub fn all() -> Vec<CustomResourceDefinition> {
    [
        Relay::crd(),
        Destination::crd(),
        Route::crd(),
        Blocklist::crd(),
        Rewriter::crd(),
        Aggregator::crd(),
    ]
    .map(finish)
    .into()
}

/// One CRD as its file in `yaml/`.
///
/// # Panics
/// Never: a CRD is plain data.
pub fn to_yaml(crd: &CustomResourceDefinition) -> String {
    let yaml = serde_saphyr::to_string(crd).expect("a CRD is plain data");
    format!("# Made from the Rust types by `make crds`; edit those.\n{yaml}")
}

// What the derive macro has no attribute for. An object that no operator has seen yet must not look healthy to kstatus,
// which compares generations: hence the default of its status. And `kubectl explain` begins with the root's description.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        refuse_nulls(root);
        let Some(properties) = root.properties.as_mut() else {
            continue;
        };
        root.description = properties
            .get("spec")
            .and_then(|spec| spec.description.clone());
        if let Some(JSONSchemaProps { default, .. }) = properties.get_mut("status") {
            *default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
        }
    }
    crd
}

// kube lets every int-or-string that has a default be null as well, which ours cannot be decoded from; and of an optional
// choice it makes null one of the values, which kubectl's validation does not take.
fn refuse_nulls(schema: &mut JSONSchemaProps) {
    if schema.x_kubernetes_int_or_string == Some(true) {
        schema.nullable = None;
    }
    if let Some(values) = &mut schema.enum_ {
        values.retain(|JSON(value)| !value.is_null());
    }
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .for_each(refuse_nulls);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        refuse_nulls(items);
    }
}

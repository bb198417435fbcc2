//! What tests apply: one Relay, one Destination and one Route, in namespace `d`.

use std::sync::Arc;

use kube::ResourceExt as _;
use serde::de::DeserializeOwned;

use crate::compile::{Compiled, compile};
use crate::inputs::{Inputs, Kind, Objects, Secret, SecretName, ServiceName};

pub(crate) const RELAY: &str = "
kind: Relay
metadata: {name: edge, labels: {carbonway.io/default: 'true'}}
spec: {listeners: [{name: plain, port: 2003, plaintext: {}}]}
";

pub(crate) const GRAPHITE: &str = "
kind: Destination
metadata: {name: graphite, uid: 11-22}
spec: {carbon: {address: 'graphite:2003'}}
";

pub(crate) const ALL: &str = "
kind: Route
metadata: {name: all, generation: 3}
spec: {destinations: [{name: graphite}]}
";

/// Compiles manifests, with `d` as the namespace of those that have none. A manifest begins with its kind.
pub(crate) fn apply(manifests: &[&str]) -> Compiled {
    let mut objects = Objects::default();
    for manifest in manifests {
        if manifest.starts_with("\nkind: Secret\n") {
            let object: k8s_openapi::api::core::v1::Secret =
                serde_saphyr::from_str(&format!("apiVersion: v1{manifest}")).unwrap();
            let name = SecretName {
                namespace: "d".to_owned(),
                name: object.name_any(),
            };
            objects.secrets.insert(name, Secret::of(&object));
            continue;
        }
        if manifest.starts_with("\nkind: EndpointSlice\n") {
            let slice: k8s_openapi::api::discovery::v1::EndpointSlice =
                serde_saphyr::from_str(&format!("apiVersion: discovery.k8s.io/v1{manifest}"))
                    .unwrap();
            let name = ServiceName::of_slice(&slice, "d").expect("a slice is a Service's");
            objects.services.entry(name).or_default().put_slice(&slice);
            continue;
        }
        if manifest.starts_with("\nkind: Namespace\n") {
            let namespace: k8s_openapi::api::core::v1::Namespace =
                serde_saphyr::from_str(&format!("apiVersion: v1{manifest}")).unwrap();
            let labels = namespace.labels().clone();
            objects.namespaces.insert(namespace.name_any(), labels);
            continue;
        }
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| manifest.starts_with(&format!("\nkind: {kind}\n")))
            .expect("a manifest begins with its kind");
        match kind {
            Kind::Relay => objects.relays.push(read(manifest)),
            Kind::Destination => objects.destinations.push(read(manifest)),
            Kind::Route => objects.routes.push(read(manifest)),
            Kind::Blocklist => objects.blocklists.push(read(manifest)),
            Kind::Rewriter => objects.rewriters.push(read(manifest)),
            Kind::Aggregator => objects.aggregators.push(read(manifest)),
        }
    }
    compile(&Inputs::new(objects))
}

fn read<K: DeserializeOwned>(manifest: &str) -> Arc<K> {
    let mut manifest = format!("apiVersion: carbonway.io/v1alpha1{manifest}");
    let mut metadata = manifest
        .lines()
        .filter(|line| line.starts_with("metadata:"));
    if !metadata.any(|line| line.contains("namespace:")) {
        manifest = manifest.replacen("metadata: {", "metadata: {namespace: d, ", 1);
    }
    Arc::new(serde_saphyr::from_str(&manifest).unwrap())
}

//! What tests apply: one Relay, one Destination and one Route, in namespace `d`.

use std::sync::Arc;

use crds::{Blocklist, Destination, Relay, Route};

use crate::compile::{Compiled, compile};
use crate::inputs::Inputs;

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

/// Compiles manifests, with `d` as the namespace of those that have none.
pub(crate) fn apply(manifests: &[&str]) -> Compiled {
    let (mut relays, mut destinations, mut routes, mut blocklists) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for manifest in manifests {
        let manifest = format!("apiVersion: carbonway.io/v1alpha1\n{manifest}");
        let manifest = match manifest.contains("namespace:") {
            true => manifest,
            false => manifest.replacen("metadata: {", "metadata: {namespace: d, ", 1),
        };
        if manifest.contains("kind: Relay") {
            relays.push(Arc::new(
                serde_saphyr::from_str::<Relay>(&manifest).unwrap(),
            ));
        } else if manifest.contains("kind: Destination") {
            destinations.push(Arc::new(
                serde_saphyr::from_str::<Destination>(&manifest).unwrap(),
            ));
        } else if manifest.contains("kind: Route") {
            routes.push(Arc::new(
                serde_saphyr::from_str::<Route>(&manifest).unwrap(),
            ));
        } else {
            blocklists.push(Arc::new(
                serde_saphyr::from_str::<Blocklist>(&manifest).unwrap(),
            ));
        }
    }
    compile(&Inputs::new(relays, destinations, routes, blocklists))
}

//! Which lines go where.

use std::num::NonZeroU32;
use std::sync::Arc;

use relay_proto as proto;

use super::destinations::Destinations;
use super::{Key, Loader, path};
use crate::ring::{self, HashKey, Ring};
use crate::route::{Distribution, Route, Routes, Target};
use crate::table::{Destination, Endpoint};

impl Loader {
    pub(super) fn routes(
        &mut self,
        routes: &[proto::Route],
        destinations: &Destinations<'_>,
    ) -> Routes {
        let (mut first, mut unmatched_only) = (Vec::new(), Vec::new());
        for route in routes {
            self.source = route.source.clone().unwrap_or_default();
            let pattern = self.pattern("match", route.r#match.as_ref());
            if route.targets.is_empty() {
                self.unsupported(
                    "destinations",
                    "the route goes nowhere: name at least one destination",
                );
            }
            let targets = self.targets(&route.targets, destinations);
            let distribution = self.distribution(route, &targets, &destinations.loaded);
            let list = if route.unmatched_only {
                &mut unmatched_only
            } else {
                &mut first
            };
            list.push((
                pattern,
                Route {
                    object: path(&self.source),
                    stop: route.stop,
                    distribution,
                    targets,
                },
            ));
        }
        Routes::new(first, unmatched_only)
    }

    fn distribution(
        &mut self,
        route: &proto::Route,
        targets: &[Target],
        destinations: &[Destination],
    ) -> Distribution {
        match route.distribution() {
            proto::Distribution::All => Distribution::All,
            proto::Distribution::FirstMatch => Distribution::FirstMatch,
            proto::Distribution::RoundRobin => Distribution::RoundRobin,
            proto::Distribution::Failover => Distribution::Failover,
            proto::Distribution::ConsistentHash => self
                .consistent_hash(route, targets, destinations)
                .unwrap_or(Distribution::All),
            proto::Distribution::Unspecified => {
                let known = "All, FirstMatch, RoundRobin, Failover or ConsistentHash";
                self.unsupported(
                    "distribution",
                    format!("not known to this release: use {known}"),
                );
                Distribution::All
            }
        }
    }

    // `None` after an error.
    fn consistent_hash(
        &mut self,
        route: &proto::Route,
        targets: &[Target],
        destinations: &[Destination],
    ) -> Option<Distribution> {
        if targets.is_empty() || targets.len() < route.targets.len() {
            // Said already; without its members there is no ring.
            return None;
        }
        let spec = route.consistent_hash.clone().unwrap_or_default();
        let algorithm = match spec.algorithm.parse::<ring::Algorithm>() {
            Ok(algorithm) => algorithm,
            Err(error) => return self.refuse("consistentHash.algorithm", error.to_string()),
        };
        let hash_key = match hash_key(&spec.hash_key, algorithm) {
            Some(hash_key) => hash_key,
            None => return self.refuse("consistentHash.hashKey", "use Series, Name or Normalised"),
        };
        let Some(replication_factor) = NonZeroU32::new(spec.replication_factor) else {
            return self.refuse("consistentHash.replicationFactor", "use 1 or more");
        };
        let mut members = Vec::with_capacity(targets.len());
        for (index, (target, message)) in targets.iter().zip(&route.targets).enumerate() {
            if message.r#match.is_some() {
                let field = format!("destinations[{index}].match");
                return self.refuse(
                    field,
                    "the series alone decides with ConsistentHash: leave it out",
                );
            }
            let Endpoint::Carbon { address, .. } =
                &destinations[target.lanes.destination.get()].endpoint
            else {
                let field = format!("destinations[{index}].name");
                return self.refuse(
                    field,
                    "a member of ConsistentHash needs a host: use a carbon destination",
                );
            };
            let instance = Some(message.instance.as_str()).filter(|text| !text.is_empty());
            members.push(ring::Member {
                host: &address.host,
                port: address.port,
                instance,
            });
        }
        let diverse_replicas = spec.diverse_replicas;
        let config = ring::Config {
            algorithm,
            replication_factor,
            diverse_replicas,
        };
        match Ring::new(config, &members) {
            Ok(ring) => Some(Distribution::ConsistentHash(ring, hash_key)),
            Err(error) => self.refuse(error.field(), error.to_string()),
        }
    }

    fn targets(
        &mut self,
        targets: &[proto::Target],
        destinations: &Destinations<'_>,
    ) -> Vec<Target> {
        let mut loaded = Vec::with_capacity(targets.len());
        for (index, target) in targets.iter().enumerate() {
            let at = format!("destinations[{index}]");
            let pattern = self.pattern(&format!("{at}.match"), target.r#match.as_ref());
            let named = target.destination.clone().unwrap_or_default();
            match destinations.lanes.get(&Key::of(&named)) {
                Some(lanes) => loaded.push(Target {
                    lanes: Arc::clone(lanes),
                    pattern,
                }),
                None => self.unsupported(
                    format!("{at}.name"),
                    format!("{named} is not in the snapshot"),
                ),
            }
        }
        loaded
    }
}

// What a route hashes; by default what the relay hashes whose algorithm it is.
fn hash_key(text: &str, algorithm: ring::Algorithm) -> Option<HashKey> {
    if !text.is_empty() {
        return HashKey::ALL.into_iter().find(|key| key.as_str() == text);
    }
    Some(match algorithm {
        ring::Algorithm::CarbonCRelay
        | ring::Algorithm::Fnv1aCRelay
        | ring::Algorithm::JumpFnv1a => HashKey::Name,
        ring::Algorithm::Carbon
        | ring::Algorithm::CarbonRelayNg
        | ring::Algorithm::CarbonRelayNgV2
        | ring::Algorithm::Fnv1aCarbon
        | ring::Algorithm::Rendezvous => HashKey::Series,
    })
}

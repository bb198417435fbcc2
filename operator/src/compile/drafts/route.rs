//! Route and Blocklist → their messages: the kinds that are made of matches.

use crds::{Blocklist, ConsistentHash, Distribution, HashKey, Match, OnMatch, Route};
use relay_proto as proto;

use crate::inputs::{Key, Kind};

pub(super) fn message(route: &Route, key: &Key) -> proto::Route {
    let spec = &route.spec;
    let distribution = match spec.distribution {
        Distribution::All => proto::Distribution::All,
        Distribution::FirstMatch => proto::Distribution::FirstMatch,
        Distribution::RoundRobin => proto::Distribution::RoundRobin,
        Distribution::Failover => proto::Distribution::Failover,
        Distribution::ConsistentHash => proto::Distribution::ConsistentHash,
    };
    let consistent_hash = (spec.distribution == Distribution::ConsistentHash)
        .then(|| consistent_hash(&spec.consistent_hash.clone().unwrap_or_default()));
    proto::Route {
        source: Some(key.to_ref()),
        r#match: Some(matches(&spec.matches)),
        stop: match spec.on_match {
            OnMatch::Continue => false,
            OnMatch::Stop => true,
        },
        unmatched_only: spec.unmatched_only,
        distribution: distribution.into(),
        targets: spec
            .destinations
            .iter()
            .zip(destinations(route))
            .map(|(target, destination)| proto::Target {
                destination: Some(destination.to_ref()),
                r#match: target.matches.as_ref().map(matches),
                instance: target.instance.clone().unwrap_or_default(),
            })
            .collect(),
        consistent_hash,
    }
}

fn consistent_hash(spec: &ConsistentHash) -> proto::ConsistentHash {
    proto::ConsistentHash {
        algorithm: spec.algorithm.as_str().to_owned(),
        // A factor that is none is refused by the relay's loader, as 0 is.
        replication_factor: u32::try_from(spec.replication_factor).unwrap_or(0),
        hash_key: spec.hash_key.map_or("", HashKey::as_str).to_owned(),
        diverse_replicas: spec.diverse_replicas,
    }
}

/// The Destinations that a route names, in its order.
pub(super) fn destinations(route: &Route) -> Vec<Key> {
    let namespace = route.metadata.namespace.as_deref().unwrap_or_default();
    route
        .spec
        .destinations
        .iter()
        .map(|target| {
            let namespace = target.namespace.as_deref().unwrap_or(namespace);
            Key::new(Kind::Destination, namespace, target.name.as_str())
        })
        .collect()
}

pub(super) fn blocklist(blocklist: &Blocklist, key: &Key) -> proto::Blocklist {
    proto::Blocklist {
        source: Some(key.to_ref()),
        entries: blocklist.spec.entries.iter().map(matches).collect(),
    }
}

pub(super) fn matches(conditions: &Match) -> proto::Match {
    proto::Match {
        prefix: conditions.prefix.clone(),
        not_prefix: conditions.not_prefix.clone(),
        contains: conditions.contains.clone(),
        not_contains: conditions.not_contains.clone(),
        regex: conditions.regex.clone(),
        not_regex: conditions.not_regex.clone(),
        suffix: conditions.suffix.clone(),
        glob: conditions.glob.clone(),
        tags: conditions.tags.clone(),
    }
}

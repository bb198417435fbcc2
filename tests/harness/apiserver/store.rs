//! What the double stores: objects, and the history of their changes that watches are served from.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A kind of object that the double serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resource {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
}

const fn ours(kind: &'static str, plural: &'static str) -> Resource {
    Resource {
        api_version: "carbonway.io/v1alpha1",
        kind,
        plural,
    }
}

/// Every kind that the operator watches, reads or writes.
pub(super) const RESOURCES: [Resource; 9] = [
    ours("Relay", "relays"),
    ours("Destination", "destinations"),
    ours("Route", "routes"),
    ours("Blocklist", "blocklists"),
    ours("Rewriter", "rewriters"),
    ours("Aggregator", "aggregators"),
    Resource {
        api_version: "v1",
        kind: "Pod",
        plural: "pods",
    },
    Resource {
        api_version: "v1",
        kind: "Secret",
        plural: "secrets",
    },
    Resource {
        api_version: "events.k8s.io/v1",
        kind: "Event",
        plural: "events",
    },
];

impl Resource {
    pub(super) fn of_kind(kind: &str) -> Option<Self> {
        RESOURCES.into_iter().find(|resource| resource.kind == kind)
    }
}

/// Which object: its kind, its namespace, its name.
pub(super) type Key = (Resource, String, String);

/// One change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) resource: Resource,
    pub(super) namespace: String,
    /// ADDED, MODIFIED or DELETED.
    pub(super) event: &'static str,
    pub(super) object: Value,
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotFound,
    Conflict,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    history: Vec<Change>,
    /// The last revision that the history no longer has.
    forgotten: u64,
}

impl Store {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// All objects of a kind, in one namespace or in all.
    pub(super) fn list(&self, resource: Resource, namespace: Option<&str>) -> Vec<Value> {
        let wanted = |(other, of, _): &Key| {
            *other == resource && namespace.is_none_or(|namespace| namespace == of)
        };
        let objects = self.objects.iter().filter(|(key, _)| wanted(key));
        objects.map(|(_, object)| object.clone()).collect()
    }

    /// The changes after a revision; `None` if they are no longer known.
    pub(super) fn changes_since(&self, revision: u64) -> Option<&[Change]> {
        if revision < self.forgotten {
            return None;
        }
        let first = self
            .history
            .partition_point(|change| change.revision <= revision);
        Some(&self.history[first..])
    }

    /// Creates an object or replaces all of it but its status, as `kubectl apply` would.
    pub(super) fn apply(&mut self, key: Key, mut object: Value) {
        let known = self.objects.get(&key).cloned();
        let generation = known.as_ref().map_or(0, |known| {
            let generation = known["metadata"]["generation"].as_u64().unwrap_or(0);
            generation - u64::from(known["spec"] == object["spec"])
        });
        object["apiVersion"] = json!(key.0.api_version);
        object["kind"] = json!(key.0.kind);
        object["metadata"]["namespace"] = json!(key.1);
        object["metadata"]["generation"] = json!(generation + 1);
        let birth = known.as_ref().map_or_else(
            || {
                json!({
                    "uid": format!("uid-{}", self.revision + 1),
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "status": object["status"].take(),
                })
            },
            |known| {
                let metadata = &known["metadata"];
                json!({
                    "uid": metadata["uid"],
                    "creationTimestamp": metadata["creationTimestamp"],
                    "status": known["status"],
                })
            },
        );
        object["metadata"]["uid"] = birth["uid"].clone();
        object["metadata"]["creationTimestamp"] = birth["creationTimestamp"].clone();
        object["status"] = birth["status"].clone();
        if key.0.api_version == ours("", "").api_version && object["status"].is_null() {
            object["status"] = json!({"observedGeneration": -1});
        }
        self.put(key, object);
    }

    /// Replaces an object's status with the one in `applied`: all of it belongs to one field manager.
    pub(super) fn apply_status(&mut self, key: Key, applied: &Value) -> Result<Value, Refusal> {
        let known = self.objects.get(&key).ok_or(Refusal::NotFound)?;
        for field in ["uid", "resourceVersion"] {
            let expected = &applied["metadata"][field];
            if !expected.is_null() && *expected != known["metadata"][field] {
                return Err(Refusal::Conflict);
            }
        }
        let mut object = known.clone();
        object["status"] = applied["status"].clone();
        Ok(self.put(key, object))
    }

    /// Creates an object, or changes it, as it is.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Value {
        let known = self.objects.get(&key);
        let event = if known.is_some() { "MODIFIED" } else { "ADDED" };
        if let Some(known) = known {
            object["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"].clone();
            if *known == object {
                return object; // no change, no revision
            }
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.record(&key, event, &object);
        self.objects.insert(key, object.clone());
        object
    }

    pub(super) fn delete(&mut self, key: &Key) -> Result<(), Refusal> {
        let object = self.objects.remove(key).ok_or(Refusal::NotFound)?;
        self.revision += 1;
        self.record(key, "DELETED", &object);
        Ok(())
    }

    /// Forgets all history, as etcd does when it is compacted.
    pub(super) fn compact(&mut self) {
        // a revision of its own, so that even a watch that has seen everything is behind
        self.revision += 1;
        self.forgotten = self.revision;
        self.history.clear();
    }

    fn record(&mut self, (resource, namespace, _): &Key, event: &'static str, object: &Value) {
        self.history.push(Change {
            revision: self.revision,
            resource: *resource,
            namespace: namespace.clone(),
            event,
            object: object.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Key {
        let resource = Resource::of_kind("Route").unwrap();
        (resource, "default".into(), "web".into())
    }

    fn spec(priority: i32) -> Value {
        json!({"metadata": {"name": "web"}, "spec": {"priority": priority}})
    }

    #[test]
    fn the_generation_follows_the_spec_and_the_revision_every_change() {
        let mut store = Store::default();
        store.apply(route(), spec(1));
        store.apply(route(), spec(1));
        assert_eq!(store.revision(), 1);
        store.apply(route(), spec(2));
        let status = json!({"status": {"observedGeneration": 2}});
        store.apply_status(route(), &status).unwrap();
        store.apply_status(route(), &status).unwrap();
        let metadata = &store.get(&route()).unwrap()["metadata"];
        assert_eq!(
            (&metadata["generation"], &metadata["resourceVersion"]),
            (&json!(2), &json!("3"))
        );
        let events = store.changes_since(0).unwrap().iter();
        let events: Vec<_> = events
            .map(|change| (change.revision, change.event))
            .collect();
        assert_eq!(events, [(1, "ADDED"), (2, "MODIFIED"), (3, "MODIFIED")]);
    }

    #[test]
    fn a_status_for_another_object_of_the_same_name_is_refused() {
        let mut store = Store::default();
        assert_eq!(
            store.apply_status(route(), &json!({})),
            Err(Refusal::NotFound)
        );
        store.apply(route(), spec(1));
        let other = json!({"metadata": {"uid": "other"}, "status": {}});
        assert_eq!(store.apply_status(route(), &other), Err(Refusal::Conflict));
    }

    #[test]
    fn forgotten_changes_are_not_passed_over_in_silence() {
        let mut store = Store::default();
        store.apply(route(), spec(1));
        store.compact();
        assert!(store.changes_since(1).is_none());
        assert!(
            store
                .changes_since(store.revision())
                .is_some_and(<[_]>::is_empty)
        );
    }
}

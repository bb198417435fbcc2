//! Reads a snapshot, field by field.

mod destinations;
mod listeners;
mod routes;
mod rules;
mod sinks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay_proto::{self as proto, ObjectRef, Snapshot};

use super::{BlocklistEntry, Identity, LoadError, LoadErrorKind, Pem, Table};
use crate::pattern::Pattern;
use crate::pattern_set::PatternSet;
use destinations::Destinations;

static NO_CONDITION: proto::Match = proto::Match {
    prefix: String::new(),
    not_prefix: String::new(),
    contains: String::new(),
    not_contains: String::new(),
    regex: String::new(),
    not_regex: String::new(),
    suffix: String::new(),
    glob: String::new(),
    tags: Vec::new(),
};

// 0 is the table that holds nothing.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

// As good as no validation in the snapshot.
static UNSPECIFIED: proto::Validation = proto::Validation {
    level: 0,
    metrics20_level: 0,
    not_finite: 0,
    reject_out_of_order: false,
    past_max_ms: 0,
    future_max_ms: 0,
    normalise_tags: false,
};

pub(super) fn load(snapshot: &Snapshot) -> Result<Table, Vec<LoadError>> {
    let mut loader = Loader::default();
    let table = loader.table(snapshot);
    if loader.errors.is_empty() {
        Ok(table)
    } else {
        Err(loader.errors)
    }
}

/// Collects errors, so that all of a snapshot's are reported at once.
#[derive(Default)]
struct Loader {
    errors: Vec<LoadError>,
    source: ObjectRef,
}

impl Loader {
    fn table(&mut self, snapshot: &Snapshot) -> Table {
        self.source = snapshot.relay.clone().unwrap_or_default();
        if snapshot.schema == 0 || snapshot.schema > proto::SCHEMA {
            let message = format!(
                "this release reads snapshots of schema 1 to {}, not {}: run the same release of operator and relay",
                proto::SCHEMA,
                snapshot.schema
            );
            self.unsupported("schema", message);
            return Table::default();
        }
        let listeners = self.listeners(&snapshot.listeners);
        let amqp_sources = self.amqp_sources(&snapshot.listeners);
        let drain_timeout = Duration::from_millis(snapshot.drain_timeout_ms);
        let validation = snapshot.validation.as_ref().unwrap_or(&UNSPECIFIED);
        let validation = self.validation(validation);
        let (mut entries, mut blocked) = (Vec::new(), Vec::new());
        for blocklist in &snapshot.blocklists {
            for (index, pattern) in self.blocklist(blocklist).into_iter().enumerate() {
                let object = path(&self.source);
                entries.push(BlocklistEntry { object, index });
                blocked.push(pattern);
            }
        }
        let destinations = self.destinations(&snapshot.destinations);
        let rewriters = self.rewriters(&snapshot.rewriters);
        let aggregators = self.aggregators(&snapshot.aggregators);
        let routes = self.routes(&snapshot.routes, &destinations);
        let Destinations {
            loaded, of_lanes, ..
        } = destinations;
        Table {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            listeners,
            amqp_sources,
            drain_timeout,
            destinations: loaded,
            lanes: of_lanes,
            validation,
            blocklist: PatternSet::new(blocked),
            blocklist_entries: entries,
            rewriters,
            aggregators,
            routes,
        }
    }

    fn invalid_pattern<T>(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Option<T> {
        self.error(field.into(), LoadErrorKind::InvalidPattern, message.into());
        None
    }

    fn refuse<T>(&mut self, field: impl Into<String>, message: impl Into<String>) -> Option<T> {
        self.unsupported(field, message);
        None
    }

    fn pattern(&mut self, field: &str, conditions: Option<&proto::Match>) -> Pattern {
        let Some(conditions) = conditions else {
            return Pattern::default();
        };
        Pattern::compile(conditions).unwrap_or_else(|error| {
            let field = format!("{field}.{}", error.field);
            self.error(field, LoadErrorKind::InvalidPattern, error.message);
            Pattern::default()
        })
    }

    fn unsupported(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.error(
            field.into(),
            LoadErrorKind::UnsupportedValue,
            message.into(),
        );
    }

    fn error(&mut self, field: String, kind: LoadErrorKind, message: String) {
        self.errors.push(LoadError {
            object: self.source.clone(),
            field,
            kind,
            message,
        });
    }
}

fn identity(identity: &proto::Identity) -> Identity {
    Identity {
        certificate: identity.certificate.as_slice().into(),
        key: identity.key.as_slice().into(),
    }
}

// Empty is none.
fn pem(text: &[u8]) -> Option<Pem> {
    (!text.is_empty()).then(|| text.into())
}

fn path(object: &ObjectRef) -> Arc<str> {
    format!("{}/{}", object.namespace, object.name).into()
}

// What tells one destination from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Key<'a> {
    fn of(object: &'a ObjectRef) -> Self {
        Self {
            namespace: &object.namespace,
            name: &object.name,
        }
    }
}

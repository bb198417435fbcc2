//! Destination → its message.

use std::collections::BTreeMap;

use crds::{Destination, Reason, WhenFull};
use relay_proto as proto;
use relay_proto::destination::Endpoint;

use super::tls::Secrets;
use crate::compile::Finding;
use crate::inputs::{Key, Secret, SecretName};

pub(super) fn message(
    object: &Destination,
    key: &Key,
    secrets: &BTreeMap<SecretName, Secret>,
) -> Result<proto::Destination, Finding> {
    let spec = &object.spec;
    let secrets = Secrets {
        all: secrets,
        namespace: &key.namespace,
    };
    let endpoint = match (&spec.carbon, &spec.file) {
        (Some(carbon), None) => Endpoint::Carbon(proto::Carbon {
            address: carbon.address.clone(),
            connect_timeout_ms: carbon.connect_timeout.as_millis(),
            write_timeout_ms: carbon.write_timeout.as_millis(),
            connection_age_max_ms: carbon.max_connection_age.as_millis(),
            tls: carbon
                .tls
                .as_ref()
                .map(|tls| secrets.carbon(tls, carbon))
                .transpose()?,
        }),
        (None, Some(file)) => Endpoint::File(proto::File {
            path: file.path.clone(),
        }),
        (None, None) | (Some(_), Some(_)) => {
            return Err(Finding::new(
                Reason::UnsupportedValue,
                "set exactly one endpoint: carbon or file",
            ));
        }
    };
    let when_full = match spec.queue.when_full {
        WhenFull::Spool => proto::WhenFull::Spool,
        WhenFull::DropNewest => proto::WhenFull::DropNewest,
        WhenFull::DropOldest => proto::WhenFull::DropOldest,
        WhenFull::Block => proto::WhenFull::Block,
    };
    Ok(proto::Destination {
        source: Some(key.to_ref()),
        // A destination that was deleted and made anew is another one: its queue must not be taken over.
        id: super::id(object, key),
        queue: Some(proto::Queue {
            bytes_max: spec.queue.max_bytes.bytes(),
            when_full: when_full.into(),
        }),
        endpoint: Some(endpoint),
        spool: (spec.queue.when_full == WhenFull::Spool).then(|| proto::Spool {
            bytes_max: spec.spool.max_bytes.bytes(),
            age_max_ms: spec.spool.max_age.as_millis(),
            // The resource has signed numbers; the schema keeps them above 0.
            replay_lines_per_second: spec
                .spool
                .replay_lines_per_second
                .map_or(0, i64::unsigned_abs),
            sync_interval_ms: spec.spool.sync.interval.as_millis(),
        }),
        resend_bytes_max: spec.resend.max_bytes.bytes(),
    })
}

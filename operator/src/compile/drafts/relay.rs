//! Relay → the beginning of its fleet's snapshot.

use crds::{Listener, Reason, Relay};
use relay_proto as proto;

use crate::compile::Finding;
use crate::inputs::Key;

pub(super) fn message(relay: &Relay, key: &Key) -> Result<proto::Snapshot, Finding> {
    let mut listeners = relay
        .spec
        .listeners
        .iter()
        .map(|listener| self::listener(listener, &format!("listeners[{}]", listener.name)))
        .collect::<Result<Vec<_>, _>>()?;
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(proto::Snapshot {
        schema: proto::SCHEMA,
        relay: Some(key.to_ref()),
        listeners,
        drain_timeout_ms: relay.spec.drain.timeout.as_millis(),
        ..proto::Snapshot::default()
    })
}

fn listener(listener: &Listener, field: &str) -> Result<proto::Listener, Finding> {
    let Some(plaintext) = &listener.plaintext else {
        return Err(Finding::at(
            field,
            Reason::UnsupportedValue,
            "the listener has no protocol: set plaintext",
        ));
    };
    Ok(proto::Listener {
        name: listener.name.clone(),
        port: count(listener.port, || format!("{field}.port"))?,
        connections_max: count(listener.max_connections, || {
            format!("{field}.maxConnections")
        })?,
        protocol: Some(proto::listener::Protocol::Plaintext(proto::Plaintext {
            line_bytes_max: count(plaintext.max_line_bytes, || {
                format!("{field}.plaintext.maxLineBytes")
            })?,
            idle_timeout_ms: plaintext.idle_timeout.as_millis(),
        })),
    })
}

// The resource has signed numbers, because API servers know no unsigned format. Ranges are the loader's business.
fn count(value: i32, field: impl Fn() -> String) -> Result<u32, Finding> {
    u32::try_from(value).map_err(|_| {
        Finding::at(
            field(),
            Reason::UnsupportedValue,
            format!("{value} is negative: write a positive number"),
        )
    })
}

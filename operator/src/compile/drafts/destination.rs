//! Destination → its message.

use crds::{Destination, Reason, WhenFull};
use relay_proto as proto;
use relay_proto::destination::Endpoint;

use crate::compile::Finding;
use crate::inputs::Key;

pub(super) fn message(object: &Destination, key: &Key) -> Result<proto::Destination, Finding> {
    let spec = &object.spec;
    let endpoint = match (&spec.carbon, &spec.file) {
        (Some(carbon), None) => Endpoint::Carbon(proto::Carbon {
            address: carbon.address.clone(),
            connect_timeout_ms: carbon.connect_timeout.as_millis(),
            write_timeout_ms: carbon.write_timeout.as_millis(),
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
        WhenFull::DropNewest => proto::WhenFull::DropNewest,
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
    })
}

//! The first message of a relay, checked.

use relay_proto::{Hello, SCHEMA, Version};
use tonic::Status;

use crate::inputs::{Key, Kind};
use crate::roster::RelayPod;

/// A Kubernetes name, in bytes.
const NAME_BYTES_MAX: usize = 253;

/// A hello that makes sense.
pub(super) struct Greeting {
    pub(super) pod: RelayPod,
    /// What the relay runs.
    pub(super) active: Option<Version>,
    pub(super) build: String,
    /// The newest schema that it reads, if that is not this operator's.
    pub(super) reads: Option<u32>,
    /// It was told to go for good.
    pub(super) is_leaving: bool,
}

impl Greeting {
    pub(super) fn read(hello: Hello) -> Result<Self, Status> {
        let fleet = hello
            .relay
            .as_ref()
            .and_then(Key::from_ref)
            .filter(|key| key.kind == Kind::Relay && is_name(&key.namespace) && is_name(&key.name))
            .ok_or_else(|| Status::invalid_argument("hello names no Relay"))?;
        if !is_name(&hello.pod) {
            return Err(Status::invalid_argument("hello names no pod"));
        }
        let active = match hello.active_version.as_slice() {
            [] => None,
            bytes => Some(
                Version::from_bytes(bytes)
                    .ok_or_else(|| Status::invalid_argument("hello's version is not 32 bytes"))?,
            ),
        };
        Ok(Self {
            pod: RelayPod {
                fleet,
                name: hello.pod,
            },
            active,
            reads: Some(hello.schema_max).filter(|newest| *newest < SCHEMA),
            is_leaving: hello.leaving,
            build: hello.build.chars().take(NAME_BYTES_MAX).collect(),
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
}

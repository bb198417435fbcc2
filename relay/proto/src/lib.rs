//! The contract between operator and relay: the [`Snapshot`] message and the sync service.
//!
//! The operator's `compile` makes snapshots, `relay_engine::table` alone reads them, and nothing else looks inside.
//! The bindings in `gen/` are made from `snapshot.proto`, checked in, and proven fresh by a test (`make proto`).
//! The service needs the feature `grpc`; without it this crate is plain messages.

mod delta;

use std::fmt;

use sha2::{Digest as _, Sha256};

#[allow(missing_docs, clippy::all, clippy::allow_attributes_without_reason, clippy::wildcard_enum_match_arm, unreachable_pub, reason = "generated")]
#[rustfmt::skip]
#[path = "gen/carbonway.v1.rs"]
mod generated;

pub use delta::{Assembly, Damage, Delta};
pub use generated::*;
pub use prost::{DecodeError, Message};

/// The newest [`Snapshot::schema`] that this release reads and writes.
pub const SCHEMA: u32 = 1;

/// The largest encoded snapshot that is sent or taken, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// What identifies a snapshot: the SHA-256 of its encoding. Displays as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u8; 32]);

impl Version {
    /// The version of an encoded snapshot.
    pub fn of(encoded: &[u8]) -> Self {
        Self(Sha256::digest(encoded).into())
    }

    /// The version's 32 bytes, as they travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The version in a message, or `None` if it is not 32 bytes long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl ObjectRef {
    /// The reference to `kind` `namespace`/`name`.
    pub fn new(
        kind: impl Into<String>,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

// By hand, so that no key ever gets into a log.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Snapshot {
    /// The canonical encoding, and its version.
    pub fn seal(&self) -> (Vec<u8>, Version) {
        let encoded = self.encode_to_vec();
        let version = Version::of(&encoded);
        (encoded, version)
    }
}

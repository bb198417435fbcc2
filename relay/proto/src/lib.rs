//! The contract between operator and relay: the [`Snapshot`] message and the sync service.
//!
//! The operator's `compile` makes snapshots, `relay_engine::table` alone reads them, and nothing else looks inside.
//! The bindings in `gen/` are made from `snapshot.proto`, checked in, and proven fresh by a test (`make proto`).
//! The service needs the feature `grpc`; without it this crate is plain messages.

mod delta;

use std::borrow::Cow;
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

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
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

impl destination::Endpoint {
    /// Whether what it needs to be let in was taken out.
    pub fn is_withheld(&self) -> bool {
        self.credential()
            .is_some_and(|credential| credential.withheld)
    }

    fn credential(&self) -> Option<&Credential> {
        let Self::Sink(sink) = self else { return None };
        match sink.kind.as_ref()? {
            sink::Kind::RemoteWrite(to) => to.authorization.as_ref(),
            sink::Kind::GrafanaNet(to) => to.authorization.as_ref(),
            sink::Kind::Kafka(to) => to.sasl.as_ref()?.password.as_ref(),
            sink::Kind::Amqp(to) => to.server.as_ref()?.password.as_ref(),
            sink::Kind::PubSub(to) => to.service_account_key.as_ref(),
            sink::Kind::CloudWatch(to) => to.secret_access_key.as_ref(),
        }
    }

    fn credential_mut(&mut self) -> Option<&mut Credential> {
        let Self::Sink(sink) = self else { return None };
        match sink.kind.as_mut()? {
            sink::Kind::RemoteWrite(to) => to.authorization.as_mut(),
            sink::Kind::GrafanaNet(to) => to.authorization.as_mut(),
            sink::Kind::Kafka(to) => to.sasl.as_mut()?.password.as_mut(),
            sink::Kind::Amqp(to) => to.server.as_mut()?.password.as_mut(),
            sink::Kind::PubSub(to) => to.service_account_key.as_mut(),
            sink::Kind::CloudWatch(to) => to.secret_access_key.as_mut(),
        }
    }
}

impl Listener {
    fn credential_mut(&mut self) -> Option<&mut Credential> {
        match self.protocol.as_mut()? {
            listener::Protocol::Amqp(source) => source.server.as_mut()?.password.as_mut(),
            listener::Protocol::Plaintext(_)
            | listener::Protocol::Pickle(_)
            | listener::Protocol::Protobuf(_) => None,
        }
    }
}

impl Snapshot {
    /// What of it may be on disk: all but credentials. Who loads that knows that they were there. `encoded` is its encoding.
    pub fn without_credentials<'e>(&self, encoded: &'e [u8]) -> Cow<'e, [u8]> {
        let mut kept = self.clone();
        let of_destinations = kept
            .destinations
            .iter_mut()
            .filter_map(|destination| destination.endpoint.as_mut())
            .filter_map(destination::Endpoint::credential_mut);
        let of_listeners = kept
            .listeners
            .iter_mut()
            .filter_map(Listener::credential_mut);
        let mut is_same = true;
        for credential in of_destinations.chain(of_listeners) {
            credential.value.clear();
            credential.withheld = true;
            is_same = false;
        }
        match is_same {
            true => Cow::Borrowed(encoded),
            false => Cow::Owned(kept.encode_to_vec()),
        }
    }

    /// The canonical encoding, and its version.
    pub fn seal(&self) -> (Vec<u8>, Version) {
        let encoded = self.encode_to_vec();
        let version = Version::of(&encoded);
        (encoded, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"hush";

    fn credential() -> Option<Credential> {
        Some(Credential {
            value: SECRET.to_vec(),
            withheld: false,
        })
    }

    fn server() -> Option<AmqpServer> {
        Some(AmqpServer {
            password: credential(),
            ..AmqpServer::default()
        })
    }

    #[test]
    fn what_is_kept_of_a_snapshot_has_no_credential_of_any_kind() {
        let kinds = [
            sink::Kind::RemoteWrite(RemoteWrite {
                authorization: credential(),
                ..RemoteWrite::default()
            }),
            sink::Kind::GrafanaNet(GrafanaNet {
                authorization: credential(),
                ..GrafanaNet::default()
            }),
            sink::Kind::Kafka(Kafka {
                sasl: Some(Sasl {
                    password: credential(),
                    ..Sasl::default()
                }),
                ..Kafka::default()
            }),
            sink::Kind::Amqp(Amqp {
                server: server(),
                ..Amqp::default()
            }),
            sink::Kind::PubSub(PubSub {
                service_account_key: credential(),
                ..PubSub::default()
            }),
            sink::Kind::CloudWatch(CloudWatch {
                secret_access_key: credential(),
                ..CloudWatch::default()
            }),
        ];
        let destinations = kinds.into_iter().map(|kind| Destination {
            endpoint: Some(destination::Endpoint::Sink(Sink {
                kind: Some(kind),
                ..Sink::default()
            })),
            ..Destination::default()
        });
        let snapshot = Snapshot {
            destinations: destinations.collect(),
            listeners: vec![Listener {
                protocol: Some(listener::Protocol::Amqp(AmqpSource {
                    server: server(),
                    ..AmqpSource::default()
                })),
                ..Listener::default()
            }],
            ..Snapshot::default()
        };
        let has_secret = |encoded: &[u8]| encoded.windows(SECRET.len()).any(|part| part == SECRET);
        let encoded = snapshot.encode_to_vec();
        let kept = snapshot.without_credentials(&encoded);
        assert!(has_secret(&encoded) && !has_secret(&kept));
        let kept = Snapshot::decode(&kept[..]).unwrap();
        for destination in kept.destinations {
            assert!(destination.endpoint.unwrap().is_withheld());
        }
    }
}

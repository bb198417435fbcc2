//! Servers that say what they took.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ClientTls;
use crate::mapping::Mapping;

/// A server that says what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// What kind of server.
    pub kind: SinkKind,
    /// How lines are put together.
    pub batch: Batch,
    /// How long it may take for one batch.
    pub timeout: Duration,
    /// How the connection is encrypted, if it is or its address says so.
    pub tls: Option<ClientTls>,
}

/// Lines that are handed over together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// At least 1.
    pub lines_max: usize,
    /// How long a line waits for others.
    pub wait: Duration,
}

/// What kind of server takes lines, and what it must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Prometheus' remote-write protocol, version 1.0.
    RemoteWrite(RemoteWrite),
}

/// Prometheus' remote-write protocol, version 1.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteWrite {
    /// With http or https.
    pub url: String,
    /// The value of the header of this name.
    pub authorization: Option<Credential>,
    /// Further headers, by name.
    pub headers: Vec<(String, String)>,
    /// What names become.
    pub mapping: Mapping,
}

/// What opens a door: its `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Arc<[u8]>);

impl Credential {
    /// Its content.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Credential {
    fn from(content: &[u8]) -> Self {
        Self(content.into())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

impl SinkKind {
    /// Its field in a Destination's spec.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::RemoteWrite(_) => "prometheusRemoteWrite",
        }
    }
}

/// Where it is, for people.
impl fmt::Display for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteWrite(to) => f.write_str(&to.url),
        }
    }
}

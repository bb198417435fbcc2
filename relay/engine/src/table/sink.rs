//! Servers that say what they took.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Address, Compression, PeerTls};
use crate::mapping::Mapping;
use crate::schemas::StorageSchemas;

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
    pub tls: Option<PeerTls>,
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
    /// A Kafka cluster.
    Kafka(Kafka),
    /// grafana.net.
    GrafanaNet(GrafanaNet),
    /// An exchange of AMQP 0-9-1.
    Amqp(Amqp),
    /// A topic of Google Cloud Pub/Sub.
    PubSub(PubSub),
    /// A namespace of Amazon CloudWatch.
    CloudWatch(CloudWatch),
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

/// A Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Those that are asked for the others: at least one, each `host:port`.
    pub brokers: Vec<String>,
    /// The topic, which must be there.
    pub topic: String,
    /// Whether brokers are spoken to over TLS.
    pub is_encrypted: bool,
    /// Who the relay says that it is.
    pub sasl: Option<Sasl>,
    /// What messages hold.
    pub payload: KafkaPayload,
    /// How messages are compressed: Gzip or Snappy.
    pub compression: Option<Compression>,
}

/// A user of a Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How the user shows that it is him.
    pub mechanism: SaslMechanism,
    /// The user.
    pub credentials: Credentials,
}

/// How a user shows that it is him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// What messages to Kafka hold, one message for each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KafkaPayload {
    /// The line, without its newline; the series is the key.
    Plaintext,
    /// Grafana's MetricData, without a key.
    MetricData {
        /// Not 0.
        org_id: u32,
        /// How often each series has a point.
        schemas: StorageSchemas,
        /// How series are shared out.
        partitioning: Partitioning,
    },
}

/// How series are shared out among partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitioning {
    /// All points of an organisation together.
    ByOrg,
    /// By the name without tags.
    BySeries,
    /// By name and tags, with a jump hash.
    BySeriesWithTags,
    /// By name and tags.
    BySeriesWithTagsFnv,
    /// As Kafka's own clients do it with a message's key.
    Murmur2,
}

/// grafana.net, or what speaks as it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrafanaNet {
    /// Ends in `/metrics`.
    pub url: String,
    /// The value of the header Authorization.
    pub authorization: Option<Credential>,
    /// Not 0.
    pub org_id: u32,
    /// How often each series has a point.
    pub schemas: StorageSchemas,
    /// storage-aggregation.conf, if the server is to be told.
    pub aggregation: Option<String>,
}

/// An exchange that a message is published to for each line, with the name as routing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amqp {
    /// The broker.
    pub server: AmqpServer,
    /// Its name.
    pub exchange: String,
    /// It is made if it is not there.
    pub declares: bool,
    /// The body is the whole line, and not just value and timestamp.
    pub has_name_in_body: bool,
}

/// A broker of AMQP 0-9-1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpServer {
    /// Where it is.
    pub address: Address,
    /// The virtual host.
    pub virtual_host: String,
    /// Whether it is spoken to over TLS.
    pub is_encrypted: bool,
    /// Who the relay says that it is; `None`: guest.
    pub credentials: Option<Credentials>,
}

/// A topic of Google Cloud Pub/Sub, to which a message is published for each batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PubSub {
    /// With http or https, and without a path.
    pub url: String,
    /// The project's ID.
    pub project: String,
    /// The topic's ID.
    pub topic: String,
    /// Messages hold pickles, and not lines.
    pub has_pickles: bool,
    /// They are compressed with gzip.
    pub is_compressed: bool,
    /// They have an ordering key, one for each connection of each relay.
    pub is_ordered: bool,
    /// Who the relay says that it is.
    pub access: GoogleAccess,
}

/// Who the relay says that it is, to Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoogleAccess {
    /// Nobody.
    Anonymous,
    /// The service account whose key this is, in JSON.
    Key(Credential),
    /// What it finds where it runs.
    Found,
}

/// A namespace of Amazon CloudWatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudWatch {
    /// With http or https, and without a path.
    pub url: String,
    /// AWS' region.
    pub region: String,
    /// CloudWatch's namespace.
    pub namespace: String,
    /// Those of every point, with their values.
    pub dimensions: Vec<(String, String)>,
    /// How finely points are kept, in seconds: 1 or 60.
    pub storage_resolution: u32,
    /// The access key, as a user and his password; `None`: what the relay finds where it runs.
    pub credentials: Option<Credentials>,
}

/// A user and his password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// His name.
    pub username: String,
    /// His password.
    pub password: Credential,
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
            Self::Kafka(_) => "kafka",
            Self::GrafanaNet(_) => "grafanaNet",
            Self::Amqp(_) => "amqp",
            Self::PubSub(_) => "pubSub",
            Self::CloudWatch(_) => "cloudWatch",
        }
    }
}

/// Where it is, for people.
impl fmt::Display for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteWrite(to) => f.write_str(&to.url),
            Self::Kafka(to) => write!(f, "{} at {}", to.topic, to.brokers.join(",")),
            Self::GrafanaNet(to) => f.write_str(&to.url),
            Self::Amqp(to) => write!(f, "{} at {}", to.exchange, to.server.address),
            Self::PubSub(to) => write!(f, "{}/{} at {}", to.project, to.topic, to.url),
            Self::CloudWatch(to) => write!(f, "{} at {}", to.namespace, to.url),
        }
    }
}

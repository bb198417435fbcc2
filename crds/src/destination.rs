//! `Destination`: who gets lines, and how much may wait for it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AllowedFrom, Amqp, CloudWatch, Compression, Duration, GrafanaNet, Kafka, PeerTls,
    PrometheusRemoteWrite, PubSub, Size, Status,
};

/// Who gets lines, and how much may wait for it. Exactly one endpoint is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "carbonway.io",
    version = "v1alpha1",
    kind = "Destination",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "cwdest",
    category = "carbonway",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.programmedPods"
    ),
    printcolumn(
        name = "Connected",
        type_ = "string",
        json_path = ".status.health.connectedPods"
    ),
    printcolumn(
        name = "Spooled",
        type_ = "string",
        json_path = ".status.health.spooledBytes"
    ),
    printcolumn(
        name = "Degraded",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Degraded')].reason"
    ),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.carbon.address"),
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = ".spec.carbon.service.name"
    ),
    printcolumn(
        name = "File",
        type_ = "string",
        json_path = ".spec.file.path",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.carbon), has(self.file), has(self.prometheusRemoteWrite), has(self.kafka), has(self.grafanaNet), has(self.amqp), has(self.pubSub), has(self.cloudWatch)].exists_one(set, set)")
    .message("set exactly one endpoint, such as carbon or file"))]
pub struct DestinationSpec {
    /// A carbon server, or another relay.
    pub carbon: Option<Carbon>,
    /// A file that lines are appended to.
    pub file: Option<File>,
    /// A server that takes Prometheus' remote-write protocol.
    pub prometheus_remote_write: Option<PrometheusRemoteWrite>,
    /// A Kafka cluster.
    pub kafka: Option<Kafka>,
    /// grafana.net, or what speaks as it does.
    pub grafana_net: Option<GrafanaNet>,
    /// A broker of AMQP 0-9-1, such as RabbitMQ.
    pub amqp: Option<Amqp>,
    /// A topic of Google Cloud Pub/Sub.
    pub pub_sub: Option<PubSub>,
    /// A namespace of Amazon CloudWatch.
    pub cloud_watch: Option<CloudWatch>,
    /// What is kept of lines that the server will never take. Carbon servers and files take everything.
    #[serde(default)]
    pub dead_letter: DeadLetter,
    /// What may wait in memory.
    #[serde(default)]
    pub queue: Queue,
    /// What may wait on disk, with whenFull: Spool.
    #[serde(default)]
    pub spool: Spool,
    /// What is sent again when a connection broke.
    #[serde(default)]
    pub resend: Resend,
    /// Which namespaces may name it in their Routes. Default: its own. Whoever may, may have its lines sent by any Relay, which
    /// then holds what its Secrets hold.
    #[serde(default)]
    pub allowed_from: AllowedFrom,
}

/// A carbon server, or the servers of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.address), has(self.service)].exists_one(set, set)")
    .message("set exactly one of address and service"))]
#[x_kube(validation = Rule::new("self.transport == 'Tcp' || (self.encoding == 'Plaintext' && !has(self.compression) && !has(self.tls))")
    .message("datagrams hold plaintext, not encrypted and not compressed: leave out encoding, compression and tls"))]
#[x_kube(validation = Rule::new("self.encoding == 'Plaintext' || !has(self.compression)")
    .message("only plaintext can be compressed: leave out compression or encoding"))]
pub struct Carbon {
    /// host:port, or [address]:port for IPv6. A host name is asked again at every connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 3, max = 261),
        regex(pattern = r"^(\[[0-9a-fA-F:.%a-z]+\]|[^:\[\]\s/]+):[0-9]{1,5}$")
    )]
    pub address: Option<String>,
    /// A Service: each of its ready endpoints is a server. Series are shared out among them by their names, in every relay in
    /// the same way; when an endpoint comes or goes, only series move that it gets or had. What waits for one that goes is sent
    /// to the others. With no ready endpoint, lines wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// What lines are sent as. Pickle and Protobuf send points in frames, up to 500 in each.
    #[serde(default)]
    pub encoding: Encoding,
    /// What they are sent over. Udp: datagrams of up to 1432 bytes, of which nobody says whether they arrived.
    #[serde(default)]
    pub transport: CarbonTransport,
    /// How the stream is compressed. Gzip and Lz4 are what carbon-c-relay's transports of these names read; its snappy is
    /// another one than ours, which is in frames. Default: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Connections to each server, 1 to 32; a series is always on one of them. Queue and resend are shared out among them.
    /// With a Service that has many endpoints there are fewer, so that there are at most 256 in all.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 32))]
    pub connections: i32,
    /// How long a connect may take; with TLS that includes the handshake.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// A connection that took no byte for this long is given up and made anew.
    #[serde(default = "default_write_timeout")]
    pub write_timeout: Duration,
    /// A connection is closed in good order and made anew at this age, or up to a tenth earlier, so that the host name is asked
    /// again and load balancers get their turn; 1s or more. 0s: never.
    #[serde(default = "default_max_connection_age")]
    #[x_kube(validation = Rule::new("duration(self) == duration('0s') || duration(self) >= duration('1s')")
        .message("write 1s or more, or 0s for a connection that may grow as old as it likes"))]
    pub max_connection_age: Duration,
    /// How the connection is encrypted. Default: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<PeerTls>,
}

/// What lines are sent as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// `name value timestamp`.
    #[default]
    Plaintext,
    /// Python's pickle, protocol 2.
    Pickle,
    /// carbon's protobuf.
    Protobuf,
}

/// What lines are sent over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CarbonTransport {
    #[default]
    Tcp,
    Udp,
}

/// A Service of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRef {
    /// The Service's name.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The Service's port. Without a cluster and without a Service among the resources: the port of its EndpointSlices.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

fn default_connections() -> i32 {
    1
}

fn default_max_connection_age() -> Duration {
    Duration::from_secs(3600)
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_write_timeout() -> Duration {
    Duration::from_secs(30)
}

/// A file that lines are appended to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.rotate) || !self.path.startsWith('/dev/')")
    .message("a device cannot be rotated: leave out rotate"))]
pub struct File {
    /// The absolute path on the relay. /dev/stdout is the relay's standard output.
    #[schemars(length(min = 2, max = 4096), regex(pattern = "^/"))]
    pub path: String,
    /// When the file is put aside and a new one begun. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
}

/// When a file is put aside: as PATH.1, and those that were put aside before as PATH.2 and so on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotate {
    /// How large the file becomes before that, in bytes; at least 64Ki. Up to a megabyte more may be in it.
    pub max_bytes: Size,
    /// How many that were put aside are kept; older ones are removed.
    #[serde(default = "default_rotate_keep")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: i32,
}

fn default_rotate_keep() -> i32 {
    5
}

/// What may wait in memory for a destination, in every relay pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Queue {
    /// The bytes that may wait; at least 64Ki.
    pub max_bytes: Size,
    /// What happens to a line for a full queue. Spool: it waits on disk, as does what waited in memory for longer than
    /// spool.sync.interval; a relay without a place for spools drops it and counts it. DropNewest: it is dropped and counted.
    /// DropOldest: those that waited longest are dropped and counted. Block: the connection that brought it waits until there
    /// is room, and so does its sender.
    pub when_full: WhenFull,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_bytes: Size::from_mib(64),
            when_full: WhenFull::Spool,
        }
    }
}

/// What happens to a line for a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenFull {
    Spool,
    DropNewest,
    DropOldest,
    Block,
}

/// What may wait for a destination on disk, in every relay pod. What comes in is sent first, what waits here beside it, in its
/// order. It outlives restarts; the data of a Destination that was removed is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Spool {
    /// The bytes on disk; at least 1Mi. With more, lines are dropped and counted.
    pub max_bytes: Size,
    /// Lines that are older are dropped and counted. 0s: none are.
    pub max_age: Duration,
    /// How fast what waits is sent, beside what comes in. Default: as fast as the destination takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub replay_lines_per_second: Option<i64>,
    /// When what was written outlives a crash.
    pub sync: Sync,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            max_bytes: Size::from_mib(10 << 10),
            max_age: Duration::from_secs(24 * 3600),
            replay_lines_per_second: None,
            sync: Sync::default(),
        }
    }
}

/// When what was written outlives a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sync {
    /// The longest time until then, 10ms to 1m: what a crash of the relay can take.
    pub interval: Duration,
}

impl Default for Sync {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
        }
    }
}

/// What is kept of lines that the server will never take, in every relay pod: in a file of its state directory, where they can
/// be read and sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLetter {
    /// The bytes that are kept; at most 10Gi. More are counted and not kept. 0: none are.
    pub max_bytes: Size,
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self {
            max_bytes: Size::from_mib(64),
        }
    }
}

/// What is sent again when a connection broke: what the peer's kernel had not acknowledged, and the bytes sent before that,
/// for a peer that was killed may not have read them. A point that comes twice does no harm, one that is missing does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resend {
    /// The bytes sent before; at most 256Mi. They are kept in memory while the connection lasts.
    pub max_bytes: Size,
}

impl Default for Resend {
    fn default() -> Self {
        Self {
            max_bytes: Size::from_mib(8),
        }
    }
}

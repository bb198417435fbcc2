//! One way for lines to come in to a `Relay`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sink::{default_exchange, default_true};
use crate::{AmqpServer, Duration, ListenerTls, Size};

/// One way for lines to come in. Exactly one protocol is set: plaintext, pickle, protobuf or amqp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.plaintext), has(self.pickle), has(self.protobuf), has(self.amqp)].exists_one(set, set)")
    .message("set exactly one protocol: plaintext, pickle, protobuf or amqp"))]
#[x_kube(validation = Rule::new("has(self.amqp) ? !has(self.port) && !has(self.unixSocket) : has(self.port) != has(self.unixSocket)")
    .message("set exactly one of port and unixSocket, and none with amqp"))]
#[x_kube(validation = Rule::new("!has(self.amqp) || (!has(self.tls) && !has(self.compression) && !self.proxyProtocol && self.allowedSources.size() == 0 && !has(self.maxConnectionsPerSource) && !has(self.maxLinesPerSecondPerSource))")
    .message("nobody connects to a listener of amqp: leave out tls, compression, proxyProtocol, allowedSources and limits per source; amqp.tls is how the broker is spoken to"))]
#[x_kube(validation = Rule::new("!has(self.plaintext) || self.plaintext.transport == 'Tcp' || (has(self.port) && !has(self.tls) && !has(self.compression) && !self.proxyProtocol)")
    .message("datagrams come to a port, not encrypted, not compressed and without a PROXY header: leave out unixSocket, tls, compression and proxyProtocol, or give them a listener of their own"))]
#[x_kube(validation = Rule::new("!has(self.unixSocket) || (!has(self.tls) && self.allowedSources.size() == 0 && !has(self.maxConnectionsPerSource) && !has(self.maxLinesPerSecondPerSource)) || self.proxyProtocol")
    .message("who connects to a unixSocket is on this machine and has no address: leave out tls, allowedSources and limits per source"))]
pub struct Listener {
    /// The listener's name, unique in the Relay; metrics carry it.
    #[schemars(
        length(min = 1, max = 59),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// The port that every relay pod listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// A unix socket that every relay pod listens on, in place of a port: for senders on the same machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unix_socket: Option<UnixSocket>,
    /// Graphite's line protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<Plaintext>,
    /// Python's pickle, as carbon's relays and carbon-relay-ng send it, behind its length in four bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pickle: Option<Framed>,
    /// carbon's protobuf, behind its length in four bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protobuf: Option<Framed>,
    /// Messages of a broker of AMQP 0-9-1, such as RabbitMQ. Every relay pod takes some of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amqp: Option<AmqpSource>,
    /// Connections that one relay pod takes at the same time; more are closed at once and counted.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: i32,
    /// The same for each address that connects. Default: no limit of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_source: Option<i32>,
    /// Lines a second that one relay pod takes from each address; a connection that brings more is read more slowly, datagrams
    /// beyond it are dropped and counted. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_lines_per_second_per_source: Option<i32>,
    /// Who may send, as networks: 10.0.0.0/8, 2001:db8::/32. Others are refused and counted. Default: everybody.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 2, max = 49),
            regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")
        )
    )]
    pub allowed_sources: Vec<String>,
    /// True: every connection begins with a PROXY header, version 1 or 2, which says where it comes from. That is believed, so
    /// let nobody but the load balancer connect.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// How what comes is compressed: as a gzip stream, LZ4 frames, Snappy's framing format or Zstandard frames. Default: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// How connections are encrypted. Default: they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
}

fn default_max_connections() -> i32 {
    10_000
}

/// Where a unix socket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnixSocket {
    /// The absolute path of the socket, in a directory that is there. A socket that is there already is replaced.
    #[schemars(length(min = 2, max = 100), regex(pattern = "^/.*[^/]$"))]
    pub path: String,
    /// The permissions of the socket, in octal.
    #[serde(default = "default_mode")]
    #[schemars(length(max = 4), regex(pattern = "^0?[0-7]{3}$"))]
    pub mode: String,
}

fn default_mode() -> String {
    "0666".to_owned()
}

/// Graphite's line protocol: `name value timestamp`, ended by a newline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Plaintext {
    /// What lines come over. A datagram holds whole lines, and its last needs no newline.
    pub transport: Transport,
    /// The longest line, in bytes without its newline; a longer one is skipped and counted, and the connection stays.
    #[schemars(range(min = 64, max = 65536))]
    pub max_line_bytes: i32,
    /// A connection on which no line was finished for this long is closed, also if bytes came. 0s: never.
    pub idle_timeout: Duration,
}

impl Default for Plaintext {
    fn default() -> Self {
        Self {
            transport: Transport::default(),
            max_line_bytes: 65536,
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// What lines come over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transport {
    /// Connections.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
    /// Both, on the same port.
    TcpAndUdp,
}

/// Points in frames: each is behind its length in four bytes, the highest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Framed {
    /// The longest frame, up to 16Mi. A connection that announces a longer one is closed, and that is counted.
    pub max_frame_bytes: Size,
    /// A connection on which no frame was finished for this long is closed, also if bytes came. 0s: never.
    pub idle_timeout: Duration,
}

impl Default for Framed {
    fn default() -> Self {
        Self {
            max_frame_bytes: Size::from_mib(16),
            idle_timeout: Duration::from_secs(120),
        }
    }
}

/// Messages of a broker of AMQP 0-9-1. A message is acknowledged when its lines were sent on, are on disk, or were dropped and
/// counted; until then the broker gives it to somebody else, should the relay pod go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmqpSource {
    /// The broker.
    #[serde(flatten)]
    pub server: AmqpServer,
    /// The exchange that queues are bound to.
    #[serde(default = "default_exchange")]
    #[schemars(length(min = 1, max = 255))]
    pub exchange: String,
    /// True: the exchange is made if it is not there, a durable one that goes by topic. False: it must be there.
    #[serde(default = "default_true")]
    pub declare: bool,
    /// The queues that messages are taken from.
    #[schemars(length(min = 1, max = 64))]
    pub queues: Vec<AmqpQueue>,
    /// False: the routing key is the name, and a body has lines of value and timestamp, as carbon has it. True: a body has whole
    /// lines, as carbon-relay-ng has it.
    #[serde(default)]
    pub metric_name_in_body: bool,
    /// Messages that the broker gives one relay pod before they are acknowledged.
    #[serde(default = "default_prefetch")]
    #[schemars(range(min = 1, max = 65535))]
    pub prefetch: i32,
    /// The longest line, in bytes without its newline; a longer one is skipped and counted.
    #[serde(default = "default_max_line_bytes")]
    #[schemars(range(min = 64, max = 65536))]
    pub max_line_bytes: i32,
}

fn default_prefetch() -> i32 {
    5000
}

fn default_max_line_bytes() -> i32 {
    Plaintext::default().max_line_bytes
}

/// A queue that messages are taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmqpQueue {
    /// The queue's name. All relay pods share what is in it.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
    /// What of the exchange it gets, as patterns of routing keys: * is one node, # any number. Default: everything. None: what
    /// it is bound to already.
    #[serde(default = "default_binding_keys")]
    #[schemars(length(max = 64), inner(length(max = 255)))]
    pub binding_keys: Vec<String>,
    /// True: the queue is made if it is not there. False: it must be there.
    #[serde(default = "default_true")]
    pub declare: bool,
    /// Whether the queue that is made outlives the broker.
    #[serde(default = "default_true")]
    pub durable: bool,
    /// Whether the queue that is made goes when nobody takes from it any more.
    #[serde(default)]
    pub auto_delete: bool,
}

fn default_binding_keys() -> Vec<String> {
    vec!["#".to_owned()]
}

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Compression {
    Gzip,
    Lz4,
    Snappy,
    Zstd,
}

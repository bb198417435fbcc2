//! Endpoints that say what they took: what they have in common, and each of them.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, SecretRef};

/// How lines are put together before they are handed over: one batch is under way on each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Batch {
    /// Lines in one batch, at most. A batch has fewer when they are 4 MiB, or a quarter of the connection's share of the queue.
    #[schemars(range(min = 1, max = 50_000))]
    pub max_lines: i32,
    /// How long a line waits for others that fill the batch, up to 1m.
    pub wait: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max_lines: 5000,
            wait: Duration::from_millis(500),
        }
    }
}

pub(crate) fn default_sink_connections() -> i32 {
    4
}

pub(crate) fn default_sink_timeout() -> Duration {
    Duration::from_secs(30)
}

/// Who the relay says that it is, to a server that speaks HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.basic), has(self.bearer)].exists_one(set, set)")
    .message("set exactly one of basic and bearer"))]
pub struct HttpAuth {
    /// The Secret with username and password, as in type kubernetes.io/basic-auth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<SecretRef>,
    /// The Secret with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<SecretRef>,
}

/// How a server is spoken to over TLS, 1.2 or 1.3. Its certificate must be for the host by which it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpTls {
    /// The Secret with the CAs, in ca.crt, one of which must have signed the server's certificate. Default: those that the
    /// relay's system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretRef>,
    /// The Secret with what the relay shows of itself to a server that asks: tls.crt and tls.key, as in type
    /// kubernetes.io/tls. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretRef>,
}

/// A server that takes Prometheus' remote-write protocol, version 1.0.
///
/// A series becomes one of Prometheus: every byte of its name that has no place in a metric's name becomes _, and so becomes
/// servers.web1.cpu;dc=ams the metric servers_web1_cpu with the label dc=ams. Mappings say it otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusRemoteWrite {
    /// Where samples are posted to: https://prometheus.example.com/api/v1/write.
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#\s]+[^#\s]*$"))]
    pub url: String,
    /// With https: how the server is spoken to. Default: its certificate must lead to a CA that the relay's system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// Who the relay says that it is. Default: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// Further headers, such as X-Scope-OrgID. Not for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), inner(length(max = 1024)))]
    pub headers: BTreeMap<String, String>,
    /// How names become names and labels: the first rule that matches holds. Default, and where none does: as said above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub mappings: Vec<MappingRule>,
    /// True: what no mapping matches is not sent, and counted as rejected.
    #[serde(default)]
    pub strict_match: bool,
    /// How lines are put together.
    #[serde(default)]
    pub batch: Batch,
    /// Connections, 1 to 32; a series is always on one of them, so its samples are in order.
    #[serde(default = "default_sink_connections")]
    #[schemars(range(min = 1, max = 32))]
    pub connections: i32,
    /// How long the server may take for one batch.
    #[serde(default = "default_sink_timeout")]
    pub timeout: Duration,
}

/// How names become names and labels, in graphite_exporter's dialect. The part of a name before its tags is what is matched;
/// tags become labels in any case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MappingRule {
    /// With matchType Glob: the whole name, where * is one node or a part of it. With Regex: an expression of RE2.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 4096))]
    pub r#match: String,
    /// What match is.
    #[serde(default)]
    pub match_type: MatchType,
    /// The metric's name: $1 or ${1} is what the first * or group matched. Not with action Drop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub name: String,
    /// Labels and their values, in which groups stand as in name. They win over tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), inner(length(max = 4096)))]
    pub labels: BTreeMap<String, String>,
    /// Drop: what matches is not sent, and counted as rejected.
    #[serde(default)]
    pub action: MappingAction,
}

/// What a mapping's match is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchType {
    #[default]
    Glob,
    Regex,
}

/// What becomes of what a mapping matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MappingAction {
    #[default]
    Map,
    Drop,
}

/// A Kafka cluster. A message is sent for each line, and counts as sent when all of its partition's replicas that are in sync
/// have it. Messages of a series are in order. What a broker had and did not say so comes twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kafka {
    /// Brokers that are asked for the others, each as host:port.
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 261)))]
    pub brokers: Vec<String>,
    /// The topic, which must be there.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// How brokers are spoken to over TLS: `{}` is enough where their certificates lead to a CA that the relay's system trusts.
    /// Default: they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// Who the relay says that it is. Default: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// What messages hold. Default: the line without its newline, with its series as the key, by which it has its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_data: Option<MetricData>,
    /// How messages are compressed. Default: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<KafkaCompression>,
    /// How lines are put together.
    #[serde(default)]
    pub batch: Batch,
    /// Connections to each broker, 1 to 32.
    #[serde(default = "default_one_connection")]
    #[schemars(range(min = 1, max = 32))]
    pub connections: i32,
    /// How long the cluster may take for one batch.
    #[serde(default = "default_sink_timeout")]
    pub timeout: Duration,
}

fn default_one_connection() -> i32 {
    1
}

/// How messages to Kafka are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaCompression {
    Gzip,
    Snappy,
}

/// A user of a Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sasl {
    /// How the user shows that it is him. Plain sends the password, so it wants TLS.
    pub mechanism: SaslMechanism,
    /// The Secret with username and password, as in type kubernetes.io/basic-auth.
    pub secret: SecretRef,
}

/// How a user shows that it is him.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// Points as Grafana's MetricData in MessagePack, as carbon-relay-ng's kafkaMdm sends them, without a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricData {
    /// The organisation that the points are of.
    #[serde(default = "default_org_id")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub org_id: i32,
    /// storage-schemas.conf as text: the first retention of a series says how often it has a point. Patterns are looked for in
    /// the series, tags included; one section must have the pattern .*
    #[schemars(length(min = 1, max = 65536))]
    pub storage_schemas: String,
    /// Which partition a series goes to.
    pub partitioning: Partitioning,
}

fn default_org_id() -> i32 {
    1
}

/// Which partition a series goes to: the first four as carbon-relay-ng has it, of the same names there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Partitioning {
    ByOrg,
    BySeries,
    BySeriesWithTags,
    BySeriesWithTagsFnv,
    /// As Kafka's own clients do it with a message's key.
    Murmur2,
}

/// grafana.net, or what speaks as it does: points as Grafana's MetricData over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrafanaNet {
    /// Where points are posted to: https://graphite.example.com/graphite/metrics. It ends in /metrics.
    #[schemars(
        length(max = 2048),
        regex(pattern = r"^https?://[^/?#\s]+(/[^?#\s]*)?/metrics/?$")
    )]
    pub url: String,
    /// With https: how the server is spoken to. Default: its certificate must lead to a CA that the relay's system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// The Secret with the API key, as token.
    pub api_key: SecretRef,
    /// The organisation that the points are of.
    #[serde(default = "default_org_id")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub org_id: i32,
    /// storage-schemas.conf as text: the first retention of a series says how often it has a point. Patterns are looked for in
    /// the series, tags included; one section must have the pattern .* The server is told of it, at the start and every 6 hours.
    #[schemars(length(min = 1, max = 65536))]
    pub storage_schemas: String,
    /// storage-aggregation.conf as text, of which the server is told. Default: it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 65536))]
    pub storage_aggregation: String,
    /// How lines are put together.
    #[serde(default)]
    pub batch: Batch,
    /// Connections, 1 to 32; a series is always on one of them, so its points are in order.
    #[serde(default = "default_sink_connections")]
    #[schemars(range(min = 1, max = 32))]
    pub connections: i32,
    /// How long the server may take for one batch.
    #[serde(default = "default_sink_timeout")]
    pub timeout: Duration,
}

/// A broker of AMQP 0-9-1, such as RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmqpServer {
    /// host:port, or [address]:port for IPv6. Brokers listen on 5672, and on 5671 with TLS.
    #[schemars(
        length(min = 3, max = 261),
        regex(pattern = r"^(\[[0-9a-fA-F:.%a-z]+\]|[^:\[\]\s/]+):[0-9]{1,5}$")
    )]
    pub address: String,
    /// The virtual host.
    #[serde(default = "default_virtual_host")]
    #[schemars(length(max = 255))]
    pub virtual_host: String,
    /// How the broker is spoken to over TLS: `{}` is enough where its certificate leads to a CA that the relay's system trusts.
    /// Default: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<HttpTls>,
    /// The Secret with username and password, as in type kubernetes.io/basic-auth. Default: guest, whose password is guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
}

fn default_virtual_host() -> String {
    "/".to_owned()
}

pub(crate) fn default_exchange() -> String {
    "graphite".to_owned()
}

pub(crate) fn default_true() -> bool {
    true
}

/// A broker of AMQP 0-9-1, such as RabbitMQ: a message is published for each line, with the name as routing key, so that
/// consumers bind by pattern. It is persistent, and counts as sent when the broker has confirmed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Amqp {
    /// The broker.
    #[serde(flatten)]
    pub server: AmqpServer,
    /// The exchange. Lines that no queue of it wants are counted as left out.
    #[serde(default = "default_exchange")]
    #[schemars(length(min = 1, max = 255))]
    pub exchange: String,
    /// True: the exchange is made if it is not there, a durable one that goes by topic. False: it must be there.
    #[serde(default = "default_true")]
    pub declare: bool,
    /// False: the body is value and timestamp, as carbon has it. True: it is the whole line, as carbon-relay-ng reads it.
    #[serde(default)]
    pub metric_name_in_body: bool,
    /// How lines are put together before they are published and their confirmation is waited for.
    #[serde(default)]
    pub batch: Batch,
    /// Connections, 1 to 32; a series is always on one of them, so its points are in order.
    #[serde(default = "default_one_connection")]
    #[schemars(range(min = 1, max = 32))]
    pub connections: i32,
    /// How long the broker may take for one batch.
    #[serde(default = "default_sink_timeout")]
    pub timeout: Duration,
}

/// A topic of Google Cloud Pub/Sub: a message is published for each batch, and its lines count as sent when the topic has it.
/// Pub/Sub hands messages to subscribers in any order unless both sides ask for it (see ordered), and may hand one over twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PubSub {
    /// The project's ID.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[a-z0-9][a-z0-9.:-]*$"))]
    pub project: String,
    /// The topic's ID; the topic must be there.
    #[schemars(
        length(min = 3, max = 255),
        regex(pattern = "^[a-zA-Z][a-zA-Z0-9._~+%-]*$")
    )]
    pub topic: String,
    /// What messages hold. The attribute content-type says it too: application/text, or application/python-pickle.
    #[serde(default)]
    pub encoding: MessageEncoding,
    /// How messages are compressed. The attribute codec says it too: gzip, or none.
    #[serde(default)]
    pub compression: MessageCompression,
    /// Whether messages have an ordering key, one for each connection of each relay, so that a subscription that asks for order
    /// (enableMessageOrdering) has every series in order. Pub/Sub takes up to 1 MB/s of a key, and wants the url of a region.
    #[serde(default)]
    pub ordered: bool,
    /// The server. Another one than Google's is that of a region or a private network, or an emulator: http://localhost:8085.
    #[serde(default = "default_pub_sub_url")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#\s]+$"))]
    pub url: String,
    /// The Secret with a service account's key, in key.json. Default: what the relay finds where it runs (the service account
    /// of its pod or machine, or what GOOGLE_APPLICATION_CREDENTIALS names), and nobody where the url is one of http.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// How lines are put together: a batch is a message.
    #[serde(default)]
    pub batch: Batch,
    /// Connections, 1 to 32.
    #[serde(default = "default_sink_connections")]
    #[schemars(range(min = 1, max = 32))]
    pub connections: i32,
    /// How long the server may take for one batch.
    #[serde(default = "default_sink_timeout")]
    pub timeout: Duration,
}

fn default_pub_sub_url() -> String {
    "https://pubsub.googleapis.com".to_owned()
}

/// What messages hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MessageEncoding {
    /// Lines, each with its newline.
    #[default]
    Plaintext,
    /// Frames of carbon's pickle protocol, each of up to 500 points.
    Pickle,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MessageCompression {
    #[default]
    Gzip,
    None,
}

/// A namespace of Amazon CloudWatch. The metric is the whole series, tags included: up to 255 characters of printable ASCII.
/// CloudWatch counts a point twice that it had and did not say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudWatch {
    /// The region: eu-west-1.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[a-z0-9-]+$"))]
    pub region: String,
    /// CloudWatch's namespace that the metrics are in.
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = "^[0-9A-Za-z._/# -][0-9A-Za-z._/# :-]*$")
    )]
    pub namespace: String,
    /// Dimensions of every metric: values by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        extend("maxProperties" = 30),
        inner(length(min = 1, max = 1024))
    )]
    pub dimensions: BTreeMap<String, String>,
    /// How finely CloudWatch keeps points, in seconds: 60, or 1, which costs more.
    #[serde(default = "default_storage_resolution")]
    #[schemars(extend("enum" = [1, 60]))]
    pub storage_resolution: i32,
    /// The server. Default: the region's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^/?#\s]+$"))]
    pub url: Option<String>,
    /// The Secret with an access key, in accessKeyId and secretAccessKey. Default: what the relay finds where it runs, in AWS'
    /// usual order (environment, shared files, the role of the pod's ServiceAccount, that of the container or machine).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRef>,
    /// How lines are put together: a batch is a request, which costs money.
    #[serde(default)]
    pub batch: CloudWatchBatch,
    /// Connections, 1 to 32; a series is always on one of them.
    #[serde(default = "default_one_connection")]
    #[schemars(range(min = 1, max = 32))]
    pub connections: i32,
    /// How long the server may take for one batch.
    #[serde(default = "default_sink_timeout")]
    pub timeout: Duration,
}

fn default_storage_resolution() -> i32 {
    60
}

/// How lines are put together for CloudWatch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudWatchBatch {
    /// Lines in one batch, at most: CloudWatch takes no more than 1000 at once.
    #[schemars(range(min = 1, max = 1000))]
    pub max_lines: i32,
    /// How long a line waits for others that fill the batch, up to 1m.
    pub wait: Duration,
}

impl Default for CloudWatchBatch {
    fn default() -> Self {
        Self {
            max_lines: 1000,
            wait: Duration::from_secs(10),
        }
    }
}

//! Servers that say what they took.

use std::sync::Arc;
use std::time::Duration;

use relay_proto::{self as proto, Message as _};

use super::destinations::client_tls;
use super::{LoadErrorKind, Loader};
use crate::expression::Finder;
use crate::mapping::{Mapping, Output, Rule};
use crate::schemas::StorageSchemas;
use crate::table::{
    Address, Amqp, AmqpServer, Batch, CloudWatch, Compression, Credentials, GoogleAccess,
    GrafanaNet, Kafka, KafkaPayload, Partitioning, PubSub, RemoteWrite, Sasl, SaslMechanism, Sink,
    SinkKind,
};
use crate::template::Template;

/// What keeps the memory for a batch bounded.
const BATCH_LINES_MAX: u32 = 50_000;
/// CloudWatch takes no more at once.
const CLOUD_WATCH_POINTS_MAX: u32 = 1000;
const BATCH_WAIT_MAX: Duration = Duration::from_secs(60);

/// Names of labels that have a meaning of their own.
const RESERVED: &str = "__";

impl Loader {
    /// `None` after an error.
    pub(super) fn sink(&mut self, sink: &proto::Sink) -> Option<Arc<Sink>> {
        let (host, kind) = match &sink.kind {
            Some(proto::sink::Kind::RemoteWrite(to)) => {
                let host = self.url_host("prometheusRemoteWrite.url", &to.url);
                (host, self.remote_write(to))
            }
            Some(proto::sink::Kind::Kafka(to)) => self.kafka(to)?,
            Some(proto::sink::Kind::Amqp(to)) => self.amqp(to)?,
            Some(proto::sink::Kind::GrafanaNet(to)) => {
                let host = self.url_host("grafanaNet.url", &to.url);
                (host, self.grafana_net(to)?)
            }
            Some(proto::sink::Kind::PubSub(to)) => {
                let host = self.url_host("pubSub.url", &to.url);
                (host, SinkKind::PubSub(self.pub_sub(to)))
            }
            Some(proto::sink::Kind::CloudWatch(to)) => {
                let host = self.url_host("cloudWatch.url", &to.url);
                (host, SinkKind::CloudWatch(self.cloud_watch(to)))
            }
            None => {
                let message = "no endpoint that this release knows: set another one, or upgrade the Relay's image";
                return self.refuse("spec", message);
            }
        };
        let field = kind.field();
        let lines_max = sink.batch_lines_max;
        let most = match kind {
            SinkKind::CloudWatch(_) => CLOUD_WATCH_POINTS_MAX,
            SinkKind::RemoteWrite(_)
            | SinkKind::Kafka(_)
            | SinkKind::GrafanaNet(_)
            | SinkKind::Amqp(_)
            | SinkKind::PubSub(_) => BATCH_LINES_MAX,
        };
        if !(1..=most).contains(&lines_max) {
            let message = format!("{lines_max} is out of range: use 1 to {most}");
            self.unsupported(format!("{field}.batch.maxLines"), message);
        }
        let wait = Duration::from_millis(sink.batch_wait_ms);
        if wait > BATCH_WAIT_MAX {
            let message = format!("{wait:?} is too long: use 1m or less");
            self.unsupported(format!("{field}.batch.wait"), message);
        }
        Some(Arc::new(Sink {
            kind,
            batch: Batch {
                lines_max: lines_max as usize,
                wait,
            },
            timeout: self.timeout(&format!("{field}.timeout"), sink.timeout_ms),
            tls: sink.tls.as_ref().map(|tls| client_tls(tls, &host)),
        }))
    }

    fn remote_write(&mut self, to: &proto::RemoteWrite) -> SinkKind {
        let mapping = self.mapping(to);
        let headers = to.headers.iter();
        let authorization = to.authorization.as_ref();
        SinkKind::RemoteWrite(RemoteWrite {
            url: to.url.clone(),
            authorization: authorization.map(|credential| credential.value.as_slice().into()),
            headers: headers
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
            mapping,
        })
    }

    // With the first broker's address: each must show a certificate for its own. `None` after an error.
    fn kafka(&mut self, to: &proto::Kafka) -> Option<(Address, SinkKind)> {
        let brokers: Vec<Address> = to
            .brokers
            .iter()
            .enumerate()
            .map(|(index, broker)| self.address(&format!("kafka.brokers[{index}]"), broker))
            .collect();
        let Some(first) = brokers.into_iter().next() else {
            return self.refuse("kafka.brokers", "there is none: name one or more");
        };
        let is_topic = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if to.topic.is_empty() || !to.topic.chars().all(is_topic) {
            let message = format!(
                "'{}' is not a topic: use letters, digits, ., _ and -",
                to.topic
            );
            self.unsupported("kafka.topic", message);
        }
        let sasl = match &to.sasl {
            Some(sasl) => Some(self.sasl(sasl)?),
            None => None,
        };
        let payload = match &to.metric_data {
            None => KafkaPayload::Plaintext,
            Some(data) => KafkaPayload::MetricData {
                org_id: self.org_id("kafka.metricData.orgId", data.org_id),
                schemas: self.schemas("kafka.metricData.storageSchemas", &data.storage_schemas)?,
                partitioning: self.partitioning(data.partitioning)?,
            },
        };
        let compression = self.compression("kafka.compression", to.compression);
        if let Some(Compression::Lz4 | Compression::Zstd) = compression {
            let message = "not with Kafka: use Gzip or Snappy, or leave it out";
            self.unsupported("kafka.compression", message);
        }
        let kind = SinkKind::Kafka(Kafka {
            brokers: to.brokers.clone(),
            topic: to.topic.clone(),
            is_encrypted: to.encrypted,
            sasl,
            payload,
            compression,
        });
        Some((first, kind))
    }

    fn sasl(&mut self, sasl: &proto::Sasl) -> Option<Sasl> {
        let mechanism = match sasl.mechanism() {
            proto::SaslMechanism::Plain => SaslMechanism::Plain,
            proto::SaslMechanism::ScramSha256 => SaslMechanism::ScramSha256,
            proto::SaslMechanism::ScramSha512 => SaslMechanism::ScramSha512,
            proto::SaslMechanism::Unspecified => {
                let message = "not known to this release: use Plain, ScramSha256 or ScramSha512";
                return self.refuse("kafka.sasl.mechanism", message);
            }
        };
        let password = sasl.password.as_ref();
        Some(Sasl {
            mechanism,
            credentials: Credentials {
                username: sasl.username.clone(),
                password: password.map_or(&[][..], |password| &password.value).into(),
            },
        })
    }

    fn partitioning(&mut self, partitioning: i32) -> Option<Partitioning> {
        use proto::Partitioning as Message;
        match partitioning.try_into() {
            Ok(Message::ByOrg) => Some(Partitioning::ByOrg),
            Ok(Message::BySeries) => Some(Partitioning::BySeries),
            Ok(Message::BySeriesWithTags) => Some(Partitioning::BySeriesWithTags),
            Ok(Message::BySeriesWithTagsFnv) => Some(Partitioning::BySeriesWithTagsFnv),
            Ok(Message::Murmur2) => Some(Partitioning::Murmur2),
            Ok(Message::Unspecified) | Err(_) => {
                let message = "not known to this release: use ByOrg, BySeries, BySeriesWithTags, BySeriesWithTagsFnv or Murmur2";
                self.refuse("kafka.metricData.partitioning", message)
            }
        }
    }

    // `None` after an error.
    fn grafana_net(&mut self, to: &proto::GrafanaNet) -> Option<SinkKind> {
        if !to.url.trim_end_matches('/').ends_with("/metrics") {
            let message = format!("'{}' does not end in /metrics, as grafana.net's do", to.url);
            self.unsupported("grafanaNet.url", message);
        }
        let authorization = to.authorization.as_ref();
        Some(SinkKind::GrafanaNet(GrafanaNet {
            url: to.url.trim_end_matches('/').to_owned(),
            authorization: authorization.map(|credential| credential.value.as_slice().into()),
            org_id: self.org_id("grafanaNet.orgId", to.org_id),
            schemas: self.schemas("grafanaNet.storageSchemas", &to.storage_schemas)?,
            aggregation: Some(to.storage_aggregation.clone()).filter(|text| !text.is_empty()),
        }))
    }

    // `None` after an error.
    fn amqp(&mut self, to: &proto::Amqp) -> Option<(Address, SinkKind)> {
        let server = self.amqp_server(to.server.as_ref(), "amqp")?;
        let address = server.address.clone();
        let kind = SinkKind::Amqp(Amqp {
            server,
            exchange: to.exchange.clone(),
            declares: to.declare,
            has_name_in_body: to.name_in_body,
        });
        Some((address, kind))
    }

    fn pub_sub(&mut self, to: &proto::PubSub) -> PubSub {
        for (field, id) in [("project", &to.project), ("topic", &to.topic)] {
            if id.is_empty()
                || !id
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'/')
            {
                let message = format!("'{id}' is no ID: use letters, digits, ., _, ~, +, % and -");
                self.unsupported(format!("pubSub.{field}"), message);
            }
        }
        let has_pickles = match to.encoding.try_into() {
            Ok(proto::Encoding::Unspecified) => false,
            Ok(proto::Encoding::Pickle) => true,
            Ok(proto::Encoding::Protobuf) | Err(_) => {
                let message = "not with Pub/Sub: use Plaintext or Pickle";
                self.unsupported("pubSub.encoding", message);
                false
            }
        };
        let compression = self.compression("pubSub.compression", to.compression);
        if !matches!(compression, None | Some(Compression::Gzip)) {
            let message = "not with Pub/Sub: use Gzip or None";
            self.unsupported("pubSub.compression", message);
        }
        PubSub {
            url: to.url.clone(),
            project: to.project.clone(),
            topic: to.topic.clone(),
            has_pickles,
            is_compressed: compression.is_some(),
            is_ordered: to.ordered,
            access: match &to.service_account_key {
                Some(key) => GoogleAccess::Key(key.value.as_slice().into()),
                None if to.url.starts_with("http:") => GoogleAccess::Anonymous,
                None => GoogleAccess::Found,
            },
        }
    }

    fn cloud_watch(&mut self, to: &proto::CloudWatch) -> CloudWatch {
        let storage_resolution = to.storage_resolution;
        if !matches!(storage_resolution, 1 | 60) {
            let message = format!("{storage_resolution} is not one of CloudWatch's: use 1 or 60");
            self.unsupported("cloudWatch.storageResolution", message);
        }
        for proto::Dimension { name, value } in &to.dimensions {
            let is_text = |text: &str| {
                !text.is_empty() && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
            };
            if !is_text(name) || name.starts_with(':') || name.len() > 255 || !is_text(value) {
                let message = "not a dimension: use printable ASCII, and no : in front";
                self.unsupported(format!("cloudWatch.dimensions[{name}]"), message);
            }
        }
        let key = to.secret_access_key.as_ref();
        CloudWatch {
            url: to.url.clone(),
            region: to.region.clone(),
            namespace: to.namespace.clone(),
            dimensions: to
                .dimensions
                .iter()
                .map(|dimension| (dimension.name.clone(), dimension.value.clone()))
                .collect(),
            storage_resolution,
            credentials: (!to.access_key_id.is_empty()).then(|| Credentials {
                username: to.access_key_id.clone(),
                password: key.map_or(&[][..], |key| &key.value).into(),
            }),
        }
    }

    /// `field` is where it is said. `None` after an error.
    pub(super) fn amqp_server(
        &mut self,
        server: Option<&proto::AmqpServer>,
        field: &str,
    ) -> Option<AmqpServer> {
        let Some(server) = server else {
            return self.refuse(format!("{field}.address"), "there is none: name a broker");
        };
        let password = server.password.as_ref();
        let credentials = (!server.username.is_empty()).then(|| Credentials {
            username: server.username.clone(),
            password: password.map_or(&[][..], |password| &password.value).into(),
        });
        Some(AmqpServer {
            address: self.address(&format!("{field}.address"), &server.address),
            virtual_host: server.virtual_host.clone(),
            is_encrypted: server.encrypted,
            credentials,
        })
    }

    fn org_id(&mut self, field: &str, org_id: u32) -> u32 {
        if org_id == 0 {
            self.unsupported(field, "0 is no organisation: use 1 or more");
        }
        org_id
    }

    fn schemas(&mut self, field: &str, text: &str) -> Option<StorageSchemas> {
        match StorageSchemas::parse(text) {
            Ok(schemas) => Some(schemas),
            Err(message) => self.refuse(field, message),
        }
    }

    fn mapping(&mut self, to: &proto::RemoteWrite) -> Mapping {
        let mut rules = Vec::with_capacity(to.mappings.len());
        let mut source = vec![u8::from(to.strict_match)];
        for (index, rule) in to.mappings.iter().enumerate() {
            rules.extend(
                self.mapping_rule(rule, &format!("prometheusRemoteWrite.mappings[{index}]")),
            );
            source.extend(rule.encode_length_delimited_to_vec());
        }
        Mapping::new(rules, to.strict_match, &source)
    }

    fn mapping_rule(&mut self, rule: &proto::MappingRule, field: &str) -> Option<Rule> {
        use proto::mapping_rule::Match;
        let (regex, is_glob) = match &rule.r#match {
            Some(Match::Glob(glob)) => (glob_regex(glob), true),
            Some(Match::Regex(regex)) => (regex.clone(), false),
            None => {
                let message =
                    "there is nothing to match that this release knows: write a glob or a regex";
                return self.refuse(format!("{field}.match"), message);
            }
        };
        let regex = match Finder::new(&regex) {
            Ok(regex) => regex,
            Err(message) => return self.invalid_pattern(format!("{field}.match"), message),
        };
        if rule.drop {
            return Some(Rule {
                regex,
                output: None,
            });
        }
        if rule.name.is_empty() {
            let message = "it is empty: name the metric, or set action: Drop";
            return self.refuse(format!("{field}.name"), message);
        }
        let mut labels = Vec::with_capacity(rule.labels.len());
        for proto::Header { name, value } in &rule.labels {
            let at = format!("{field}.labels[{name}]");
            let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
            let is_legal = name.starts_with(is_first)
                && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
                && !name.starts_with(RESERVED);
            if !is_legal {
                let message = "not a label: use letters, digits and _, no digit first and not __";
                return self.refuse(at, message);
            }
            let value = self.template(value, &regex, is_glob, at)?;
            labels.push((name.as_bytes().into(), value));
        }
        let name = self.template(&rule.name, &regex, is_glob, format!("{field}.name"))?;
        Some(Rule {
            output: Some(Output { name, labels }),
            regex,
        })
    }

    // With a glob, groups are numbers and end where these do.
    fn template(
        &mut self,
        text: &str,
        regex: &Finder,
        is_glob: bool,
        field: String,
    ) -> Option<Template> {
        let braced;
        let text = match is_glob {
            true => {
                braced = braced_numbers(text);
                &braced
            }
            false => text,
        };
        match Template::parse(text, regex, None) {
            Ok(template) => Some(template),
            Err(message) => {
                self.error(field, LoadErrorKind::InvalidPattern, message);
                None
            }
        }
    }

    // The host of a URL, as far as TLS wants to know.
    fn url_host(&mut self, field: &str, url: &str) -> Address {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        let authority =
            authority.filter(|authority| !authority.is_empty() && !authority.contains('@'));
        let Some(authority) = authority else {
            let message =
                format!("'{url}' is not a URL: write http://host/path or https://host/path");
            self.unsupported(field, message);
            return Address {
                host: String::new(),
                port: 0,
            };
        };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if url.starts_with("https") { 443 } else { 80 };
        match has_port {
            true => self.address(field, authority),
            false => self.address(field, &format!("{authority}:{port}")),
        }
    }
}

fn glob_regex(glob: &str) -> String {
    let parts: Vec<String> = glob.split('*').map(regex_syntax::escape).collect();
    format!("^{}$", parts.join("([^.]*)"))
}

// $1 → ${1}
fn braced_numbers(text: &str) -> String {
    let mut braced = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        braced += before;
        let digits = after
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(after.len());
        match (digits, after.strip_prefix('$')) {
            (_, Some(after)) => {
                braced += "$$";
                rest = after;
            }
            (0, None) => {
                braced.push('$');
                rest = after;
            }
            (_, None) => {
                braced += &format!("${{{}}}", &after[..digits]);
                rest = &after[digits..];
            }
        }
    }
    braced + rest
}

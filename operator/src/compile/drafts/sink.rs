//! Endpoints that say what they took → their messages.

use std::collections::BTreeMap;

use crds::{
    Amqp, AmqpServer, Batch, CloudWatch, CloudWatchBatch, Duration, GrafanaNet, HttpTls, Kafka,
    KafkaCompression, MappingAction, MappingRule, MatchType, MessageCompression, MessageEncoding,
    Partitioning, PeerTls, PrometheusRemoteWrite, PubSub, Reason, Sasl, SaslMechanism,
};
use relay_proto as proto;
use relay_proto::sink::Kind;

use super::secrets::{Secrets, credential};
use crate::compile::Finding;

pub(super) fn remote_write(
    to: &PrometheusRemoteWrite,
    secrets: &Secrets<'_>,
) -> Result<proto::Sink, Finding> {
    let tls = https(
        &to.url,
        to.tls.as_ref(),
        "prometheusRemoteWrite.tls",
        secrets,
    )?;
    let auth = to.auth.as_ref();
    let auth = auth.map(|auth| secrets.authorization(auth, "prometheusRemoteWrite.auth"));
    let kind = Kind::RemoteWrite(proto::RemoteWrite {
        url: to.url.clone(),
        authorization: auth.transpose()?,
        headers: headers(&to.headers),
        mappings: to.mappings.iter().map(mapping).collect(),
        strict_match: to.strict_match,
    });
    Ok(sink(kind, tls, &to.batch, to.connections, to.timeout))
}

pub(super) fn grafana_net(to: &GrafanaNet, secrets: &Secrets<'_>) -> Result<proto::Sink, Finding> {
    let tls = https(&to.url, to.tls.as_ref(), "grafanaNet.tls", secrets)?;
    let kind = Kind::GrafanaNet(proto::GrafanaNet {
        url: to.url.clone(),
        authorization: Some(secrets.bearer(&to.api_key, "grafanaNet.apiKey.name")?),
        // The schema keeps it above 0.
        org_id: to.org_id.unsigned_abs(),
        storage_schemas: to.storage_schemas.clone(),
        storage_aggregation: to.storage_aggregation.clone(),
    });
    Ok(sink(kind, tls, &to.batch, to.connections, to.timeout))
}

pub(super) fn kafka(to: &Kafka, secrets: &Secrets<'_>) -> Result<proto::Sink, Finding> {
    let tls = to.tls.as_ref();
    let first = to.brokers.first().map_or("", String::as_str);
    let tls = tls.map(|tls| self::tls(tls, host(first), "kafka.tls", secrets));
    let sasl = to.sasl.as_ref().map(|Sasl { mechanism, secret }| {
        let (username, password) = secrets.user(secret, "kafka.sasl.secret.name")?;
        let mechanism = match mechanism {
            SaslMechanism::Plain => proto::SaslMechanism::Plain,
            SaslMechanism::ScramSha256 => proto::SaslMechanism::ScramSha256,
            SaslMechanism::ScramSha512 => proto::SaslMechanism::ScramSha512,
        };
        Ok(proto::Sasl {
            mechanism: mechanism.into(),
            username: username.to_owned(),
            password: Some(credential(password.into())),
        })
    });
    let metric_data = to.metric_data.as_ref().map(|data| {
        let partitioning = match data.partitioning {
            Partitioning::ByOrg => proto::Partitioning::ByOrg,
            Partitioning::BySeries => proto::Partitioning::BySeries,
            Partitioning::BySeriesWithTags => proto::Partitioning::BySeriesWithTags,
            Partitioning::BySeriesWithTagsFnv => proto::Partitioning::BySeriesWithTagsFnv,
            Partitioning::Murmur2 => proto::Partitioning::Murmur2,
        };
        proto::MetricData {
            org_id: data.org_id.unsigned_abs(),
            storage_schemas: data.storage_schemas.clone(),
            partitioning: partitioning.into(),
        }
    });
    let compression = match to.compression {
        None => proto::Compression::Unspecified,
        Some(KafkaCompression::Gzip) => proto::Compression::Gzip,
        Some(KafkaCompression::Snappy) => proto::Compression::Snappy,
    };
    let kind = Kind::Kafka(proto::Kafka {
        brokers: to.brokers.clone(),
        topic: to.topic.clone(),
        encrypted: to.tls.is_some(),
        sasl: sasl.transpose()?,
        metric_data,
        compression: compression.into(),
    });
    Ok(sink(
        kind,
        tls.transpose()?,
        &to.batch,
        to.connections,
        to.timeout,
    ))
}

pub(super) fn amqp(to: &Amqp, secrets: &Secrets<'_>) -> Result<proto::Sink, Finding> {
    let (server, tls) = amqp_server(&to.server, "amqp", secrets)?;
    let kind = Kind::Amqp(proto::Amqp {
        server: Some(server),
        exchange: to.exchange.clone(),
        declare: to.declare,
        name_in_body: to.metric_name_in_body,
    });
    Ok(sink(kind, tls, &to.batch, to.connections, to.timeout))
}

pub(super) fn pub_sub(to: &PubSub, secrets: &Secrets<'_>) -> Result<proto::Sink, Finding> {
    let key = to.secret.as_ref();
    let key = key.map(|secret| secrets.service_account_key(secret, "pubSub.secret.name"));
    let encoding = match to.encoding {
        MessageEncoding::Plaintext => proto::Encoding::Unspecified,
        MessageEncoding::Pickle => proto::Encoding::Pickle,
    };
    let compression = match to.compression {
        MessageCompression::Gzip => proto::Compression::Gzip,
        MessageCompression::None => proto::Compression::Unspecified,
    };
    let kind = Kind::PubSub(proto::PubSub {
        url: to.url.clone(),
        project: to.project.clone(),
        topic: to.topic.clone(),
        encoding: encoding.into(),
        compression: compression.into(),
        service_account_key: key.transpose()?,
        ordered: to.ordered,
    });
    Ok(sink(kind, None, &to.batch, to.connections, to.timeout))
}

pub(super) fn cloud_watch(to: &CloudWatch, secrets: &Secrets<'_>) -> Result<proto::Sink, Finding> {
    let key = to.secret.as_ref();
    let key = key.map(|secret| secrets.access_key(secret, "cloudWatch.secret.name"));
    let (id, secret) = key.transpose()?.unwrap_or_default();
    let region = &to.region;
    let domain = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    let url = to.url.clone();
    let dimensions = to.dimensions.iter();
    let kind = Kind::CloudWatch(proto::CloudWatch {
        url: url.unwrap_or_else(|| format!("https://monitoring.{region}.{domain}")),
        region: region.clone(),
        namespace: to.namespace.clone(),
        dimensions: dimensions
            .map(|(name, value)| proto::Dimension {
                name: name.clone(),
                value: value.clone(),
            })
            .collect(),
        // The schema keeps it above 0.
        storage_resolution: to.storage_resolution.unsigned_abs(),
        access_key_id: id.to_owned(),
        secret_access_key: (!id.is_empty()).then(|| credential(secret.into())),
    });
    let CloudWatchBatch { max_lines, wait } = to.batch;
    let batch = Batch { max_lines, wait };
    Ok(sink(kind, None, &batch, to.connections, to.timeout))
}

/// `field` is where it is said.
pub(super) fn amqp_server(
    server: &AmqpServer,
    field: &str,
    secrets: &Secrets<'_>,
) -> Result<(proto::AmqpServer, Option<proto::PeerTls>), Finding> {
    let tls = server.tls.as_ref();
    let tls =
        tls.map(|tls| self::tls(tls, host(&server.address), &format!("{field}.tls"), secrets));
    let user = server.secret.as_ref();
    let user = user.map(|secret| secrets.user(secret, &format!("{field}.secret.name")));
    let (username, password) = user.transpose()?.unwrap_or_default();
    let password = (!username.is_empty()).then(|| credential(password.into()));
    let message = proto::AmqpServer {
        address: server.address.clone(),
        virtual_host: server.virtual_host.clone(),
        encrypted: server.tls.is_some(),
        username: username.to_owned(),
        password,
    };
    Ok((message, tls.transpose()?))
}

fn https(
    url: &str,
    tls: Option<&HttpTls>,
    field: &str,
    secrets: &Secrets<'_>,
) -> Result<Option<proto::PeerTls>, Finding> {
    if tls.is_some() && !url.starts_with("https://") {
        let message = "the url is not one of https: leave tls out, or write https";
        return Err(Finding::at(field, Reason::UnsupportedValue, message));
    }
    // The loader says whether it is a URL at all.
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let tls = tls.map(|tls| self::tls(tls, host(authority), field, secrets));
    tls.transpose()
}

fn tls(
    HttpTls { ca, certificate }: &HttpTls,
    host: &str,
    field: &str,
    secrets: &Secrets<'_>,
) -> Result<proto::PeerTls, Finding> {
    let tls = PeerTls {
        ca: ca.clone(),
        certificate: certificate.clone(),
        server_name: None,
    };
    secrets.client(&tls, host, field)
}

fn sink(
    kind: Kind,
    tls: Option<proto::PeerTls>,
    batch: &Batch,
    connections: i32,
    timeout: Duration,
) -> proto::Sink {
    proto::Sink {
        // The schema keeps both above 0.
        connections: connections.unsigned_abs(),
        batch_lines_max: batch.max_lines.unsigned_abs(),
        batch_wait_ms: batch.wait.as_millis(),
        timeout_ms: timeout.as_millis(),
        tls,
        kind: Some(kind),
    }
}

fn mapping(rule: &MappingRule) -> proto::MappingRule {
    use proto::mapping_rule::Match;
    proto::MappingRule {
        r#match: Some(match rule.match_type {
            MatchType::Glob => Match::Glob(rule.r#match.clone()),
            MatchType::Regex => Match::Regex(rule.r#match.clone()),
        }),
        name: rule.name.clone(),
        labels: headers(&rule.labels),
        drop: rule.action == MappingAction::Drop,
    }
}

fn headers(pairs: &BTreeMap<String, String>) -> Vec<proto::Header> {
    let header = |(name, value): (&String, &String)| proto::Header {
        name: name.clone(),
        value: value.clone(),
    };
    pairs.iter().map(header).collect()
}

// Without a port.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    }
    .trim_matches(['[', ']'])
}

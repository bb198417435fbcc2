//! Endpoints that say what they took → their messages.

use crds::{
    Batch, ClientTls, Duration, HttpTls, MappingAction, MappingRule, MatchType,
    PrometheusRemoteWrite, Reason,
};
use relay_proto as proto;

use super::secrets::Secrets;
use crate::compile::Finding;

pub(super) fn remote_write(
    to: &PrometheusRemoteWrite,
    secrets: &Secrets<'_>,
) -> Result<proto::Sink, Finding> {
    const FIELD: &str = "prometheusRemoteWrite";
    let host = url_host(&to.url);
    if to.tls.is_some() && !to.url.starts_with("https://") {
        return Err(Finding::at(
            "prometheusRemoteWrite.tls",
            Reason::UnsupportedValue,
            "the url is not one of https: leave tls out, or write https",
        ));
    }
    let tls = to.tls.as_ref();
    let tls = tls.map(|HttpTls { ca, certificate }| {
        let tls = ClientTls {
            ca: ca.clone(),
            certificate: certificate.clone(),
            server_name: None,
        };
        secrets.client(&tls, host, &format!("{FIELD}.tls"))
    });
    let auth = to.auth.as_ref();
    let auth = auth.map(|auth| secrets.authorization(auth, &format!("{FIELD}.auth")));
    let kind = proto::sink::Kind::RemoteWrite(proto::RemoteWrite {
        url: to.url.clone(),
        authorization: auth.transpose()?,
        headers: headers(&to.headers),
        mappings: to.mappings.iter().map(mapping).collect(),
        strict_match: to.strict_match,
    });
    Ok(sink(
        kind,
        tls.transpose()?,
        &to.batch,
        to.connections,
        to.timeout,
    ))
}

fn sink(
    kind: proto::sink::Kind,
    tls: Option<proto::ClientTls>,
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

fn headers(pairs: &std::collections::BTreeMap<String, String>) -> Vec<proto::Header> {
    let header = |(name, value): (&String, &String)| proto::Header {
        name: name.clone(),
        value: value.clone(),
    };
    pairs.iter().map(header).collect()
}

// As far as TLS wants to know. The loader says whether it is a URL at all.
fn url_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => authority,
    }
    .trim_matches(['[', ']'])
}

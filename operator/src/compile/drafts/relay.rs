//! Relay → the beginning of its fleet's snapshot.

use std::collections::BTreeMap;

use crds::{
    AmqpQueue, AmqpSource, Duration, Framed, Listener, Metrics20Level, NotFinite, Reason, Relay,
    TagForm, Transport, UnixSocket, Validation, ValidationLevel,
};
use relay_proto as proto;

use super::secrets::Secrets;
use super::sink;
use crate::compile::Finding;
use crate::inputs::{Key, Secret, SecretName};

pub(super) fn message(
    relay: &Relay,
    key: &Key,
    secrets: &BTreeMap<SecretName, Secret>,
) -> Result<proto::Snapshot, Finding> {
    let secrets = Secrets {
        all: secrets,
        namespace: &key.namespace,
    };
    let mut listeners = relay
        .spec
        .listeners
        .iter()
        .map(|listener| {
            let field = format!("listeners[{}]", listener.name);
            self::listener(listener, &field, &secrets)
        })
        .collect::<Result<Vec<_>, _>>()?;
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(proto::Snapshot {
        schema: proto::SCHEMA,
        relay: Some(key.to_ref()),
        listeners,
        drain_timeout_ms: relay.spec.drain.timeout.as_millis(),
        validation: Some(validation(&relay.spec.validation)?),
        ..proto::Snapshot::default()
    })
}

fn listener(
    listener: &Listener,
    field: &str,
    secrets: &Secrets<'_>,
) -> Result<proto::Listener, Finding> {
    let at = |name: &str| format!("{field}.{name}");
    let optional = |value: Option<i32>, name: &str| match value {
        Some(value) => count(value, || at(name)),
        None => Ok(0),
    };
    let unix_socket = listener.unix_socket.as_ref();
    Ok(proto::Listener {
        name: listener.name.clone(),
        port: optional(listener.port, "port")?,
        connections_max: count(listener.max_connections, || at("maxConnections"))?,
        protocol: Some(protocol(listener, field, secrets)?),
        tls: listener
            .tls
            .as_ref()
            .map(|tls| secrets.listener(tls, &at("tls")))
            .transpose()?,
        unix_socket: unix_socket
            .map(|socket| self::unix_socket(socket, at("unixSocket.mode")))
            .transpose()?,
        compression: super::compression(listener.compression).into(),
        proxy_protocol: listener.proxy_protocol,
        allowed_sources: listener.allowed_sources.clone(),
        connections_per_source_max: optional(
            listener.max_connections_per_source,
            "maxConnectionsPerSource",
        )?,
        lines_per_second_per_source: optional(
            listener.max_lines_per_second_per_source,
            "maxLinesPerSecondPerSource",
        )?,
    })
}

fn protocol(
    listener: &Listener,
    field: &str,
    secrets: &Secrets<'_>,
) -> Result<proto::listener::Protocol, Finding> {
    use proto::listener::Protocol;
    let Listener {
        plaintext,
        pickle,
        protobuf,
        amqp,
        ..
    } = listener;
    if let (Some(amqp), None, None, None) = (amqp, plaintext, pickle, protobuf) {
        return amqp_source(amqp, field, secrets).map(Protocol::Amqp);
    }
    match (plaintext, pickle, protobuf) {
        (Some(plaintext), None, None) => {
            let transport = match plaintext.transport {
                Transport::Tcp => proto::Transport::Tcp,
                Transport::Udp => proto::Transport::Udp,
                Transport::TcpAndUdp => proto::Transport::TcpAndUdp,
            };
            Ok(Protocol::Plaintext(proto::Plaintext {
                line_bytes_max: count(plaintext.max_line_bytes, || {
                    format!("{field}.plaintext.maxLineBytes")
                })?,
                idle_timeout_ms: plaintext.idle_timeout.as_millis(),
                transport: transport.into(),
            }))
        }
        (None, Some(pickle), None) => Ok(Protocol::Pickle(framed(pickle))),
        (None, None, Some(protobuf)) => Ok(Protocol::Protobuf(framed(protobuf))),
        _ => Err(Finding::at(
            field,
            Reason::UnsupportedValue,
            "the listener has no protocol, or more than one: set exactly one of plaintext, pickle and protobuf",
        )),
    }
}

fn framed(framed: &Framed) -> proto::Framed {
    proto::Framed {
        // What is beyond the range is for the loader to refuse.
        frame_bytes_max: u32::try_from(framed.max_frame_bytes.bytes()).unwrap_or(u32::MAX),
        idle_timeout_ms: framed.idle_timeout.as_millis(),
    }
}

fn unix_socket(socket: &UnixSocket, field: String) -> Result<proto::UnixSocket, Finding> {
    let mode = u32::from_str_radix(&socket.mode, 8).map_err(|_| {
        let message = format!("'{}' is not octal: write 0660, or the like", socket.mode);
        Finding::at(field, Reason::UnsupportedValue, message)
    })?;
    Ok(proto::UnixSocket {
        path: socket.path.clone(),
        mode,
    })
}

fn amqp_source(
    source: &AmqpSource,
    field: &str,
    secrets: &Secrets<'_>,
) -> Result<proto::AmqpSource, Finding> {
    let field = format!("{field}.amqp");
    let (server, tls) = sink::amqp_server(&source.server, &field, secrets)?;
    let queue = |queue: &AmqpQueue| proto::AmqpQueue {
        name: queue.name.clone(),
        binding_keys: queue.binding_keys.clone(),
        declare: queue.declare,
        durable: queue.durable,
        auto_delete: queue.auto_delete,
    };
    Ok(proto::AmqpSource {
        server: Some(server),
        tls,
        exchange: source.exchange.clone(),
        declare: source.declare,
        queues: source.queues.iter().map(queue).collect(),
        name_in_body: source.metric_name_in_body,
        prefetch: count(source.prefetch, || format!("{field}.prefetch"))?,
        line_bytes_max: count(source.max_line_bytes, || format!("{field}.maxLineBytes"))?,
    })
}

fn validation(spec: &Validation) -> Result<proto::Validation, Finding> {
    let level = match spec.level {
        ValidationLevel::Medium => proto::ValidationLevel::Medium,
        ValidationLevel::Strict => proto::ValidationLevel::Strict,
        ValidationLevel::None => proto::ValidationLevel::None,
    };
    let metrics20_level = match spec.metrics20_level {
        Metrics20Level::Medium => proto::ValidationLevel::Medium,
        Metrics20Level::None => proto::ValidationLevel::None,
    };
    let not_finite = match spec.nan {
        NotFinite::Drop => proto::NotFinite::Drop,
        NotFinite::Forward => proto::NotFinite::Forward,
    };
    Ok(proto::Validation {
        level: level.into(),
        metrics20_level: metrics20_level.into(),
        not_finite: not_finite.into(),
        reject_out_of_order: spec.reject_out_of_order,
        past_max_ms: limit(spec.max_past, "validation.maxPast")?,
        future_max_ms: limit(spec.max_future, "validation.maxFuture")?,
        normalise_tags: match spec.tags {
            TagForm::AsReceived => false,
            TagForm::Normalised => true,
        },
    })
}

// In the message 0 is no limit, which is not what somebody means who writes 0s.
fn limit(duration: Option<Duration>, field: &str) -> Result<u64, Finding> {
    match duration.map(Duration::as_millis) {
        None => Ok(0),
        Some(0) => Err(Finding::at(
            field,
            Reason::UnsupportedValue,
            "0s is no limit that a line could keep: write 1s or more, or leave it out for no limit",
        )),
        Some(ms) => Ok(ms),
    }
}

// The resource has signed numbers, because API servers know no unsigned format. Ranges are the loader's business.
fn count(value: i32, field: impl Fn() -> String) -> Result<u32, Finding> {
    u32::try_from(value).map_err(|_| {
        Finding::at(
            field(),
            Reason::UnsupportedValue,
            format!("{value} is negative: write a positive number"),
        )
    })
}

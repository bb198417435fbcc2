//! Where lines come in, and what they must be.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use relay_proto as proto;

use super::destinations::client_tls;
use super::{Loader, identity, pem};
use crate::name::{Level, NameRules};
use crate::table::listener::LINE_BYTES_MAX;
use crate::table::{
    AmqpQueue, AmqpSource, Compression, Format, Framed, ListenAddress, Listener, ListenerTls,
    Plaintext, Protocol, Validation,
};

/// What the path of a unix socket may be long: sun_path has 108 bytes, and a socket is made beside it first.
const UNIX_PATH_BYTES_MAX: usize = 100;

const FRAME_BYTES_MAX: usize = 16 << 20;

impl Loader {
    pub(super) fn listeners(&mut self, listeners: &[proto::Listener]) -> Vec<Listener> {
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        let mut loaded = Vec::new();
        for listener in listeners {
            // By name: the snapshot has them sorted, the resource as people wrote them.
            let at = |field: &str| format!("listeners[{}].{field}", listener.name);
            if !names.insert(&listener.name) {
                self.unsupported(
                    at("name"),
                    format!("'{}' is there twice: names are unique", listener.name),
                );
            }
            if let Some(proto::listener::Protocol::Amqp(_)) = listener.protocol {
                continue;
            }
            let Some((address, field)) = self.listen_address(listener, &at) else {
                continue;
            };
            if !addresses.insert((listener.port, address_path(&address))) {
                let message = "is there twice: give each listener its own";
                let message = match &address {
                    ListenAddress::Port(port) => format!("{port} {message}"),
                    ListenAddress::Unix { path, .. } => format!("{} {message}", path.display()),
                };
                self.unsupported(at(field), message);
            }
            if listener.connections_max == 0 {
                self.unsupported(at("maxConnections"), "0 lets nobody in: use at least 1");
            }
            let Some(protocol) = self.protocol(listener, &at) else {
                continue;
            };
            let compression = self.compression(at("compression"), listener.compression);
            let allowed_sources = self.allowed_sources(listener, &at);
            let tls = listener
                .tls
                .as_ref()
                .and_then(|tls| self.listener_tls(tls, &at));
            let connections_per_source = listener.connections_per_source_max as usize;
            let lines_per_second = listener.lines_per_second_per_source;
            let loaded_listener = Listener {
                name: listener.name.as_str().into(),
                address,
                connections_max: listener.connections_max as usize,
                protocol,
                tls,
                compression,
                has_proxy_header: listener.proxy_protocol,
                allowed_sources,
                connections_per_source_max: (connections_per_source > 0)
                    .then_some(connections_per_source),
                lines_per_second_per_source: (lines_per_second > 0).then_some(lines_per_second),
            };
            if loaded_listener.is_datagram() && needs_a_stream(&loaded_listener) {
                let message = "datagrams come to a port, not encrypted, not compressed and without a PROXY header: leave out \
                    unixSocket, tls, compression and proxyProtocol, or give them a listener of their own";
                self.unsupported(at("plaintext.transport"), message);
            }
            loaded.push(loaded_listener);
        }
        loaded
    }

    /// Those of the listeners that take messages from a broker. One whose credentials are not here is left out until they are.
    pub(super) fn amqp_sources(&mut self, listeners: &[proto::Listener]) -> Vec<AmqpSource> {
        let mut loaded = Vec::new();
        for listener in listeners {
            let Some(proto::listener::Protocol::Amqp(source)) = &listener.protocol else {
                continue;
            };
            let password = source
                .server
                .as_ref()
                .and_then(|server| server.password.as_ref());
            if password.is_some_and(|password| password.withheld) {
                continue;
            }
            let field = format!("listeners[{}].amqp", listener.name);
            let Some(server) = self.amqp_server(source.server.as_ref(), &field) else {
                continue;
            };
            if source.queues.is_empty() {
                self.unsupported(format!("{field}.queues"), "there is none: name one");
            }
            let prefetch = u16::try_from(source.prefetch)
                .ok()
                .filter(|prefetch| *prefetch > 0);
            if prefetch.is_none() {
                let message = format!("{} is out of range: use 1 to 65535", source.prefetch);
                self.unsupported(format!("{field}.prefetch"), message);
            }
            let line_bytes_max = source.line_bytes_max as usize;
            if !(64..=LINE_BYTES_MAX).contains(&line_bytes_max) {
                let message =
                    format!("{line_bytes_max} is out of range: use 64 to {LINE_BYTES_MAX}");
                self.unsupported(format!("{field}.maxLineBytes"), message);
            }
            let queue = |queue: &proto::AmqpQueue| AmqpQueue {
                name: queue.name.clone(),
                binding_keys: queue.binding_keys.clone(),
                declares: queue.declare,
                is_durable: queue.durable,
                is_auto_deleted: queue.auto_delete,
            };
            loaded.push(AmqpSource {
                name: listener.name.as_str().into(),
                tls: source
                    .tls
                    .as_ref()
                    .map(|tls| client_tls(tls, &server.address)),
                server,
                exchange: source.exchange.clone(),
                declares: source.declare,
                queues: source.queues.iter().map(queue).collect(),
                has_name_in_body: source.name_in_body,
                prefetch: prefetch.unwrap_or(1),
                line_bytes_max,
            });
        }
        loaded
    }

    // With the field that has it; `None` after an error.
    fn listen_address(
        &mut self,
        listener: &proto::Listener,
        at: &impl Fn(&str) -> String,
    ) -> Option<(ListenAddress, &'static str)> {
        if let Some(proto::UnixSocket { path, mode }) = &listener.unix_socket {
            let field = "unixSocket.path";
            if listener.port != 0 {
                self.unsupported(at("port"), "there is a unixSocket as well: leave out one");
            }
            if !path.starts_with('/') || path.contains('\0') || path.len() > UNIX_PATH_BYTES_MAX {
                let message = format!(
                    "'{path}' is not an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes"
                );
                self.unsupported(at(field), message);
                return None;
            }
            let (path, mode) = (path.into(), mode & 0o777);
            return Some((ListenAddress::Unix { path, mode }, field));
        }
        let port = u16::try_from(listener.port).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.unsupported(
                at("port"),
                format!("{} is not a port: use 1 to 65535", listener.port),
            );
        }
        Some((ListenAddress::Port(port.unwrap_or_default()), "port"))
    }

    // `None` after an error.
    fn protocol(
        &mut self,
        listener: &proto::Listener,
        at: &impl Fn(&str) -> String,
    ) -> Option<Protocol> {
        use proto::listener::Protocol as Message;
        match &listener.protocol {
            Some(Message::Plaintext(plaintext)) => self.plaintext(plaintext, at),
            Some(Message::Pickle(framed)) => {
                let framed = self.framed(framed, at("pickle.maxFrameBytes"));
                Some(Protocol::Framed(Format::Pickle, framed))
            }
            Some(Message::Protobuf(framed)) => {
                let framed = self.framed(framed, at("protobuf.maxFrameBytes"));
                Some(Protocol::Framed(Format::Protobuf, framed))
            }
            Some(Message::Amqp(_)) => None,
            None => {
                let message = "no protocol is named that this release knows: set plaintext, pickle, protobuf or amqp";
                self.unsupported(format!("listeners[{}]", listener.name), message);
                None
            }
        }
    }

    fn plaintext(
        &mut self,
        plaintext: &proto::Plaintext,
        at: &impl Fn(&str) -> String,
    ) -> Option<Protocol> {
        use proto::Transport;
        let line_bytes_max = plaintext.line_bytes_max as usize;
        if !(64..=LINE_BYTES_MAX).contains(&line_bytes_max) {
            let message = format!("{line_bytes_max} is out of range: use 64 to {LINE_BYTES_MAX}");
            self.unsupported(at("plaintext.maxLineBytes"), message);
        }
        let (is_stream, is_datagram) = match plaintext.transport.try_into() {
            Ok(Transport::Unspecified | Transport::Tcp) => (true, false),
            Ok(Transport::Udp) => (false, true),
            Ok(Transport::TcpAndUdp) => (true, true),
            Err(_) => {
                let message = "not known to this release: use Tcp, Udp or TcpAndUdp";
                return self.refuse(at("plaintext.transport"), message);
            }
        };
        Some(Protocol::Plaintext(Plaintext {
            is_stream,
            is_datagram,
            line_bytes_max,
            idle_timeout: timeout(plaintext.idle_timeout_ms),
        }))
    }

    fn framed(&mut self, framed: &proto::Framed, field: String) -> Framed {
        let frame_bytes_max = framed.frame_bytes_max as usize;
        if !(64..=FRAME_BYTES_MAX).contains(&frame_bytes_max) {
            let message = format!("{frame_bytes_max} bytes are out of range: use 64 to 16Mi");
            self.unsupported(field, message);
        }
        Framed {
            frame_bytes_max,
            idle_timeout: timeout(framed.idle_timeout_ms),
        }
    }

    pub(super) fn compression(
        &mut self,
        field: impl Into<String>,
        compression: i32,
    ) -> Option<Compression> {
        use proto::Compression as Message;
        match compression.try_into() {
            Ok(Message::Unspecified) => None,
            Ok(Message::Gzip) => Some(Compression::Gzip),
            Ok(Message::Lz4) => Some(Compression::Lz4),
            Ok(Message::Snappy) => Some(Compression::Snappy),
            Ok(Message::Zstd) => Some(Compression::Zstd),
            Err(_) => {
                let message = "not known to this release: use Gzip, Lz4, Snappy or Zstd";
                self.refuse(field, message)
            }
        }
    }

    fn allowed_sources(
        &mut self,
        listener: &proto::Listener,
        at: &impl Fn(&str) -> String,
    ) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (index, text) in listener.allowed_sources.iter().enumerate() {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(_) => {
                    let message = format!(
                        "'{text}' is not a network: write one such as 10.0.0.0/8 or 2001:db8::/32"
                    );
                    self.unsupported(at(&format!("allowedSources[{index}]")), message);
                }
            }
        }
        networks
    }

    // `None` after an error.
    fn listener_tls(
        &mut self,
        tls: &proto::ListenerTls,
        at: &impl Fn(&str) -> String,
    ) -> Option<ListenerTls> {
        let Some(shown) = &tls.identity else {
            return self.refuse(at("tls.certificate"), "there is none: name its Secret");
        };
        Some(ListenerTls {
            identity: identity(shown),
            client_ca: pem(&tls.client_ca),
        })
    }

    pub(super) fn validation(&mut self, validation: &proto::Validation) -> Validation {
        use proto::{NotFinite, ValidationLevel};
        let level = match validation.level.try_into() {
            Ok(ValidationLevel::Unspecified | ValidationLevel::Medium) => Level::Medium,
            Ok(ValidationLevel::Strict) => Level::Strict,
            Ok(ValidationLevel::None) => Level::None,
            Err(_) => {
                self.unsupported(
                    "validation.level",
                    "not known to this release: use Strict, Medium or None",
                );
                Level::Medium
            }
        };
        let any_metrics20 = match validation.metrics20_level.try_into() {
            Ok(ValidationLevel::Unspecified | ValidationLevel::Medium) => false,
            Ok(ValidationLevel::None) => true,
            Ok(ValidationLevel::Strict) | Err(_) => {
                self.unsupported(
                    "validation.metrics20Level",
                    "not known to this release: use Medium or None",
                );
                false
            }
        };
        let forwards_not_finite = match validation.not_finite.try_into() {
            Ok(NotFinite::Unspecified | NotFinite::Drop) => false,
            Ok(NotFinite::Forward) => true,
            Err(_) => {
                self.unsupported(
                    "validation.nan",
                    "not known to this release: use Drop or Forward",
                );
                false
            }
        };
        let limit = |ms: u64| (ms > 0).then(|| ms.div_ceil(1000));
        Validation {
            names: NameRules {
                level,
                any_metrics20,
            },
            forwards_not_finite,
            rejects_out_of_order: validation.reject_out_of_order,
            past_max: limit(validation.past_max_ms),
            future_max: limit(validation.future_max_ms),
            normalises_tags: validation.normalise_tags,
        }
    }
}

// Zero: never.
fn timeout(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn address_path(address: &ListenAddress) -> Option<PathBuf> {
    match address {
        ListenAddress::Port(_) => None,
        ListenAddress::Unix { path, .. } => Some(path.clone()),
    }
}

fn needs_a_stream(listener: &Listener) -> bool {
    matches!(listener.address, ListenAddress::Unix { .. })
        || listener.tls.is_some()
        || listener.compression.is_some()
        || listener.has_proxy_header
}

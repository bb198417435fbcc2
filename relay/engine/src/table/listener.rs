//! Where lines come in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{AmqpServer, Identity, PeerTls, Pem};

/// The longest line that any listener lets in, without its newline, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 65536;

/// One socket that takes lines in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Unique in the table.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ListenAddress,
    /// How many connections it takes at the same time.
    pub connections_max: usize,
    /// What senders speak.
    pub protocol: Protocol,
    /// How connections are encrypted, if they are.
    pub tls: Option<ListenerTls>,
    /// How what comes is compressed, if it is.
    pub compression: Option<Compression>,
    /// Whether connections begin with a PROXY header.
    pub has_proxy_header: bool,
    /// Whose connections and datagrams are taken; empty: everybody's.
    pub allowed_sources: Vec<IpNet>,
    /// How many connections one address may have at the same time.
    pub connections_per_source_max: Option<usize>,
    /// How many lines a second are taken from one address.
    pub lines_per_second_per_source: Option<u32>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// A port, of TCP, UDP or both.
    Port(u16),
    /// A unix socket.
    Unix {
        /// Where it is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// What senders speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Graphite's line protocol.
    Plaintext(Plaintext),
    /// Points in frames.
    Framed(Format, Framed),
}

/// Graphite's line protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plaintext {
    /// Whether connections are taken.
    pub is_stream: bool,
    /// Whether datagrams are taken.
    pub is_datagram: bool,
    /// The longest line without its newline, in bytes. 64 to 65536.
    pub line_bytes_max: usize,
    /// A connection on which no line was finished for this long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Python's pickle.
    Pickle,
    /// carbon's protobuf.
    Protobuf,
}

/// Points in frames, each behind its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed {
    /// The longest frame, in bytes. 64 bytes to 16 MiB.
    pub frame_bytes_max: usize,
    /// A connection on which no frame was finished for this long is closed; `None`: never.
    pub idle_timeout: Option<Duration>,
}

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A gzip stream.
    Gzip,
    /// LZ4 frames.
    Lz4,
    /// Snappy's framing format.
    Snappy,
    /// Zstandard frames.
    Zstd,
}

impl Listener {
    /// Whether connections are taken.
    pub fn is_stream(&self) -> bool {
        match self.protocol {
            Protocol::Plaintext(plaintext) => plaintext.is_stream,
            Protocol::Framed(..) => true,
        }
    }

    /// Whether datagrams are taken.
    pub fn is_datagram(&self) -> bool {
        match self.protocol {
            Protocol::Plaintext(plaintext) => plaintext.is_datagram,
            Protocol::Framed(..) => false,
        }
    }

    /// The longest line that is let in, without its newline, in bytes.
    pub fn line_bytes_max(&self) -> usize {
        match self.protocol {
            Protocol::Plaintext(plaintext) => plaintext.line_bytes_max,
            Protocol::Framed(..) => LINE_BYTES_MAX,
        }
    }

    /// A connection on which nothing was finished for this long is closed; `None`: never.
    pub fn idle_timeout(&self) -> Option<Duration> {
        match self.protocol {
            Protocol::Plaintext(plaintext) => plaintext.idle_timeout,
            Protocol::Framed(_, framed) => framed.idle_timeout,
        }
    }
}

/// How a listener speaks TLS. What is in here is not looked at: that is up to who speaks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// What the relay shows of itself.
    pub identity: Identity,
    /// Who signs the certificates that clients must show; `None`: they are asked for none.
    pub client_ca: Option<Pem>,
}

/// Messages of a broker of AMQP 0-9-1, which are lines that come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpSource {
    /// The listener's name, unique in the table.
    pub name: Arc<str>,
    /// The broker.
    pub server: AmqpServer,
    /// How it is spoken to over TLS, if it is and something is said of it.
    pub tls: Option<PeerTls>,
    /// What queues are bound to.
    pub exchange: String,
    /// The exchange is made if it is not there.
    pub declares: bool,
    /// At least one.
    pub queues: Vec<AmqpQueue>,
    /// A body has whole lines, and not just values and timestamps under its routing key.
    pub has_name_in_body: bool,
    /// Messages that are given before they are acknowledged.
    pub prefetch: u16,
    /// The longest line without its newline, in bytes. 64 to 65536.
    pub line_bytes_max: usize,
}

/// A queue that messages are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpQueue {
    /// Its name.
    pub name: String,
    /// Patterns of routing keys that it gets.
    pub binding_keys: Vec<String>,
    /// It is made if it is not there.
    pub declares: bool,
    /// Whether one that is made outlives the broker.
    pub is_durable: bool,
    /// Whether one that is made goes with the last that takes from it.
    pub is_auto_deleted: bool,
}

//! Who gets lines.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_proto as proto;

use super::{Key, Loader, identity, pem};
use crate::lane::{DestinationIndex, Lane, LaneKey, Lanes};
use crate::table::{
    Address, CarbonForm, Destination, Endpoint, Format, PeerTls, Queue, Rotation, Spool, WhenFull,
};

const SPOOL_BYTES_MIN: u64 = 1 << 20;
const SYNC_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(60);
const RESEND_BYTES_MAX: u64 = 256 << 20;
const ROTATE_BYTES_MIN: u64 = 64 << 10;
const ROTATE_KEEP_MAX: u32 = 1000;
const DEAD_LETTER_BYTES_MAX: u64 = 10 << 30;

/// What keeps the memory of a relay bounded: every lane has a queue's share, and what is sent again.
const CONNECTIONS_MAX: u32 = 32;
const MEMBERS_MAX: usize = 256;

/// All destinations of a snapshot.
pub(super) struct Destinations<'a> {
    pub(super) loaded: Vec<Destination>,
    /// The destination of each lane.
    pub(super) of_lanes: Vec<DestinationIndex>,
    /// By the resource.
    pub(super) lanes: BTreeMap<Key<'a>, Arc<Lanes>>,
}

impl Loader {
    pub(super) fn destinations<'a>(
        &mut self,
        destinations: &'a [proto::Destination],
    ) -> Destinations<'a> {
        let mut all = Destinations {
            loaded: Vec::with_capacity(destinations.len()),
            of_lanes: Vec::with_capacity(destinations.len()),
            lanes: BTreeMap::new(),
        };
        let (mut keys, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (index, destination) in (0..).map(DestinationIndex).zip(destinations) {
            self.source = destination.source.clone().unwrap_or_default();
            let key = destination.source.as_ref().map(Key::of).unwrap_or_default();
            let is_new = keys.insert(key) && ids.insert(&destination.id);
            if !is_new {
                self.unsupported(
                    "metadata.name",
                    "the destination is there twice: names and ids are unique",
                );
            }
            let queue = self.queue(destination.queue.as_ref());
            let endpoint = self.endpoint(destination.endpoint.as_ref());
            let lanes = self.lanes(destination.endpoint.as_ref(), &endpoint);
            let shared = Lanes::new(index, all.of_lanes.len(), &lanes);
            all.lanes.insert(key, Arc::new(shared));
            all.of_lanes.extend(lanes.iter().map(|_| index));
            all.loaded.push(Destination {
                id: destination.id.as_str().into(),
                name: format!("{}/{}", self.source.namespace, self.source.name).into(),
                endpoint,
                lanes,
                queue,
                spool: self.spool(destination, queue.when_full),
                resend_bytes_max: self.resend(destination.resend_bytes_max),
                dead_letter_bytes_max: self.dead_letter(destination.dead_letter_bytes_max),
                connection_age_max: connection_age_max(destination.endpoint.as_ref()),
            });
        }
        all
    }

    // At least one.
    fn lanes(
        &mut self,
        message: Option<&proto::destination::Endpoint>,
        endpoint: &Endpoint,
    ) -> Vec<Lane> {
        let lane = |member: &Arc<str>, connection, endpoint| Lane {
            key: LaneKey {
                member: Arc::clone(member),
                connection,
            },
            endpoint,
        };
        let nameless = Arc::from("");
        let (field, connections, members) = match message {
            Some(proto::destination::Endpoint::Carbon(carbon)) => {
                ("carbon", carbon.connections, carbon.members.as_ref())
            }
            Some(proto::destination::Endpoint::Sink(sink)) => ("spec", sink.connections, None),
            Some(proto::destination::Endpoint::File(_)) | None => ("spec", 1, None),
        };
        let connections = connections.max(1);
        if connections > CONNECTIONS_MAX {
            let message = format!("{connections} are too many: use at most {CONNECTIONS_MAX}");
            self.unsupported(format!("{field}.connections"), message);
        }
        let connections = 0..connections.min(CONNECTIONS_MAX);
        let Some(proto::Members { members }) = members else {
            let is_withheld = message.is_some_and(proto::destination::Endpoint::is_withheld);
            let server = (!is_withheld).then_some(endpoint);
            return connections
                .map(|number| lane(&nameless, number, server.cloned()))
                .collect();
        };
        let mut lanes = Vec::new();
        for (name, endpoint) in self.members(members, endpoint) {
            let of_member = connections
                .clone()
                .map(|number| lane(&name, number, Some(endpoint.clone())));
            lanes.extend(of_member);
        }
        if lanes.is_empty() {
            lanes.push(lane(&nameless, 0, None));
        }
        lanes
    }

    // Each with its endpoint.
    fn members(
        &mut self,
        members: &[proto::Member],
        endpoint: &Endpoint,
    ) -> Vec<(Arc<str>, Endpoint)> {
        if members.len() > MEMBERS_MAX {
            let message = format!(
                "{} servers are too many: use at most {MEMBERS_MAX}",
                members.len()
            );
            self.unsupported("carbon.service", message);
        }
        let mut names = BTreeSet::new();
        let mut loaded = Vec::new();
        for member in members.iter().take(MEMBERS_MAX) {
            if member.name.is_empty() || !names.insert(&member.name) {
                let message = format!("the server '{}' is there twice, or nameless", member.name);
                self.unsupported("carbon.service", message);
            }
            let address = self.address("carbon.service", &member.address);
            loaded.push((member.name.as_str().into(), endpoint.at(address)));
        }
        loaded
    }

    fn queue(&mut self, queue: Option<&proto::Queue>) -> Queue {
        let bytes_max = queue.map_or(0, |queue| queue.bytes_max);
        if bytes_max < 65536 {
            self.unsupported(
                "queue.maxBytes",
                format!("{bytes_max} bytes are too few: use at least 64Ki"),
            );
        }
        let when_full = match queue.map(proto::Queue::when_full) {
            Some(proto::WhenFull::DropNewest) => WhenFull::DropNewest,
            Some(proto::WhenFull::Block) => WhenFull::Block,
            Some(proto::WhenFull::Spool) => WhenFull::Spool,
            Some(proto::WhenFull::DropOldest) => WhenFull::DropOldest,
            Some(proto::WhenFull::Unspecified) | None => {
                self.unsupported(
                    "queue.whenFull",
                    "not known to this release: use Spool, DropNewest, DropOldest or Block",
                );
                WhenFull::DropNewest
            }
        };
        Queue {
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            when_full,
        }
    }

    fn spool(&mut self, destination: &proto::Destination, when_full: WhenFull) -> Option<Spool> {
        if when_full != WhenFull::Spool {
            return None;
        }
        let spool = destination.spool.unwrap_or_default();
        if spool.bytes_max < SPOOL_BYTES_MIN {
            let message = format!("{} bytes are too few: use at least 1Mi", spool.bytes_max);
            self.unsupported("spool.maxBytes", message);
        }
        let sync_interval = Duration::from_millis(spool.sync_interval_ms);
        if !SYNC_INTERVALS.contains(&sync_interval) {
            let message = format!("{sync_interval:?} is out of range: use 10ms to 1m");
            self.unsupported("spool.sync.interval", message);
        }
        let age_max = Duration::from_millis(spool.age_max_ms);
        let per_second = spool.replay_lines_per_second;
        Some(Spool {
            bytes_max: spool.bytes_max,
            age_max: (!age_max.is_zero()).then_some(age_max),
            replay_lines_per_second: (per_second > 0).then_some(per_second),
            sync_interval,
        })
    }

    fn resend(&mut self, bytes_max: u64) -> usize {
        if bytes_max > RESEND_BYTES_MAX {
            let message = format!("{bytes_max} bytes are too many: use at most 256Mi");
            self.unsupported("resend.maxBytes", message);
        }
        bytes_max.min(RESEND_BYTES_MAX) as usize
    }

    fn dead_letter(&mut self, bytes_max: u64) -> u64 {
        if bytes_max > DEAD_LETTER_BYTES_MAX {
            let message = format!("{bytes_max} bytes are too many: use at most 10Gi");
            self.unsupported("deadLetter.maxBytes", message);
        }
        bytes_max.min(DEAD_LETTER_BYTES_MAX)
    }

    fn endpoint(&mut self, endpoint: Option<&proto::destination::Endpoint>) -> Endpoint {
        match endpoint {
            Some(proto::destination::Endpoint::Carbon(carbon)) => {
                let address = self.address("carbon.address", &carbon.address);
                Endpoint::Carbon {
                    connect_timeout: self
                        .timeout("carbon.connectTimeout", carbon.connect_timeout_ms),
                    write_timeout: self.timeout("carbon.writeTimeout", carbon.write_timeout_ms),
                    tls: carbon.tls.as_ref().map(|tls| client_tls(tls, &address)),
                    form: self.carbon_form(carbon),
                    address,
                }
            }
            Some(proto::destination::Endpoint::File(file)) => {
                let path = PathBuf::from(&file.path);
                if !path.is_absolute() {
                    let message =
                        format!("'{}' is not an absolute path: begin it with /", file.path);
                    self.unsupported("file.path", message);
                }
                Endpoint::File {
                    path,
                    rotation: self.rotation(file),
                }
            }
            Some(proto::destination::Endpoint::Sink(sink)) => match self.sink(sink) {
                Some(sink) => Endpoint::Sink(sink),
                // That was said.
                None => Endpoint::File {
                    path: PathBuf::new(),
                    rotation: None,
                },
            },
            None => {
                self.unsupported(
                    "spec",
                    "no endpoint that this release knows: set another one, or upgrade the Relay's image",
                );
                Endpoint::File {
                    path: PathBuf::new(),
                    rotation: None,
                }
            }
        }
    }

    fn rotation(&mut self, file: &proto::File) -> Option<Rotation> {
        let (bytes_max, keep) = (file.rotate_bytes_max, file.rotate_keep);
        if bytes_max == 0 {
            return None;
        }
        if bytes_max < ROTATE_BYTES_MIN {
            let message = format!("{bytes_max} bytes are too few: use at least 64Ki");
            self.unsupported("file.rotate.maxBytes", message);
        }
        if !(1..=ROTATE_KEEP_MAX).contains(&keep) {
            let message = format!("{keep} is out of range: use 1 to {ROTATE_KEEP_MAX}");
            self.unsupported("file.rotate.keep", message);
        }
        Some(Rotation { bytes_max, keep })
    }

    fn carbon_form(&mut self, carbon: &proto::Carbon) -> CarbonForm {
        use proto::Encoding;
        let format = match carbon.encoding.try_into() {
            Ok(Encoding::Unspecified) => None,
            Ok(Encoding::Pickle) => Some(Format::Pickle),
            Ok(Encoding::Protobuf) => Some(Format::Protobuf),
            Err(_) => {
                let message = "not known to this release: use Plaintext, Pickle or Protobuf";
                self.refuse("carbon.encoding", message)
            }
        };
        let compression = self.compression("carbon.compression", carbon.compression);
        match (format, compression) {
            (None, None) if carbon.datagrams && carbon.tls.is_some() => {
                let message = "datagrams are not encrypted: leave out transport or tls";
                self.unsupported("carbon.transport", message);
                CarbonForm::Datagrams
            }
            (None, None) if carbon.datagrams => CarbonForm::Datagrams,
            (_, _) if carbon.datagrams => {
                let message = "datagrams hold plaintext that is not compressed: leave out transport, or encoding and compression";
                self.unsupported("carbon.transport", message);
                CarbonForm::Datagrams
            }
            (None, None) => CarbonForm::Plaintext,
            (None, Some(compression)) => CarbonForm::Compressed(compression),
            (Some(format), None) => CarbonForm::Framed(format),
            (Some(format), Some(_)) => {
                let message = "only plaintext can be compressed: leave out compression or encoding";
                self.unsupported("carbon.compression", message);
                CarbonForm::Framed(format)
            }
        }
    }

    pub(super) fn address(&mut self, field: &str, text: &str) -> Address {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let bracketed = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'));
            let host = match bracketed {
                Some(v6) => v6.parse::<std::net::Ipv6Addr>().ok().map(|_| v6)?,
                None if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) => return None,
                None => host,
            };
            let port = port.parse().ok().filter(|port| *port > 0)?;
            Some(Address {
                host: host.to_owned(),
                port,
            })
        });
        parsed.unwrap_or_else(|| {
            let message = format!("'{text}' is not an address: write host:port or [v6]:port");
            self.unsupported(field, message);
            Address {
                host: String::new(),
                port: 0,
            }
        })
    }

    pub(super) fn timeout(&mut self, field: &str, ms: u64) -> Duration {
        if ms == 0 {
            self.unsupported(field, "0s leaves no time at all: use 1ms or more");
        }
        Duration::from_millis(ms)
    }
}

/// Connections to a Kafka cluster: after that the topic may have other partitions.
const KAFKA_AGE_MAX: Duration = Duration::from_secs(3600);

// Of what has connections that end by themselves.
fn connection_age_max(endpoint: Option<&proto::destination::Endpoint>) -> Option<Duration> {
    match endpoint? {
        proto::destination::Endpoint::Carbon(carbon) => match carbon.connection_age_max_ms {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        },
        proto::destination::Endpoint::Sink(sink) => match sink.kind.as_ref()? {
            proto::sink::Kind::Kafka(_) => Some(KAFKA_AGE_MAX),
            proto::sink::Kind::RemoteWrite(_)
            | proto::sink::Kind::GrafanaNet(_)
            | proto::sink::Kind::Amqp(_)
            | proto::sink::Kind::PubSub(_)
            | proto::sink::Kind::CloudWatch(_) => None,
        },
        proto::destination::Endpoint::File(_) => None,
    }
}

pub(super) fn client_tls(tls: &proto::PeerTls, address: &Address) -> PeerTls {
    PeerTls {
        ca: pem(&tls.ca),
        identity: tls.identity.as_ref().map(identity),
        server_name: match tls.server_name.as_str() {
            "" => address.host.clone(),
            name => name.to_owned(),
        },
    }
}

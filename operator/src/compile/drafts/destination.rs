//! Destination → its message.

use std::collections::BTreeMap;

use crds::{
    Carbon, CarbonTransport, Destination, DestinationSpec, Encoding, Reason, ServiceRef, WhenFull,
};
use relay_proto as proto;
use relay_proto::destination::Endpoint;

use super::secrets::Secrets;
use super::sink;
use crate::compile::Finding;
use crate::inputs::{ENDPOINTS_MAX, Key, NoServers, Secret, SecretName, Service, ServiceName};

/// Connections of one Destination from one relay pod, at most.
const CONNECTIONS_MAX: usize = 256;

/// What a Destination refers to.
pub(super) struct References<'a> {
    pub(super) secrets: &'a BTreeMap<SecretName, Secret>,
    pub(super) services: &'a BTreeMap<ServiceName, Service>,
}

pub(super) fn message(
    object: &Destination,
    key: &Key,
    references: &References<'_>,
) -> Result<proto::Destination, Finding> {
    let spec = &object.spec;
    let endpoint = endpoint(spec, key, references)?;
    let when_full = match spec.queue.when_full {
        WhenFull::Spool => proto::WhenFull::Spool,
        WhenFull::DropNewest => proto::WhenFull::DropNewest,
        WhenFull::DropOldest => proto::WhenFull::DropOldest,
        WhenFull::Block => proto::WhenFull::Block,
    };
    Ok(proto::Destination {
        source: Some(key.to_ref()),
        // A destination that was deleted and made anew is another one: its queue must not be taken over.
        id: super::id(object, key),
        queue: Some(proto::Queue {
            bytes_max: spec.queue.max_bytes.bytes(),
            when_full: when_full.into(),
        }),
        spool: (spec.queue.when_full == WhenFull::Spool).then(|| proto::Spool {
            bytes_max: spec.spool.max_bytes.bytes(),
            age_max_ms: spec.spool.max_age.as_millis(),
            // The resource has signed numbers; the schema keeps them above 0.
            replay_lines_per_second: spec
                .spool
                .replay_lines_per_second
                .map_or(0, i64::unsigned_abs),
            sync_interval_ms: spec.spool.sync.interval.as_millis(),
        }),
        resend_bytes_max: spec.resend.max_bytes.bytes(),
        // Only these refuse lines.
        dead_letter_bytes_max: match endpoint {
            Endpoint::Sink(_) => spec.dead_letter.max_bytes.bytes(),
            Endpoint::Carbon(_) | Endpoint::File(_) => 0,
        },
        endpoint: Some(endpoint),
    })
}

// The only one that is set.
fn endpoint(
    spec: &DestinationSpec,
    key: &Key,
    references: &References<'_>,
) -> Result<Endpoint, Finding> {
    let secrets = Secrets {
        all: references.secrets,
        namespace: &key.namespace,
    };
    let mut endpoints = Vec::new();
    if let Some(carbon) = &spec.carbon {
        endpoints.push(Endpoint::Carbon(self::carbon(
            carbon, key, references, &secrets,
        )?));
    }
    if let Some(file) = &spec.file {
        let rotate = file.rotate.as_ref();
        endpoints.push(Endpoint::File(proto::File {
            path: file.path.clone(),
            rotate_bytes_max: rotate.map_or(0, |rotate| rotate.max_bytes.bytes()),
            // The schema keeps it above 0.
            rotate_keep: rotate.map_or(0, |rotate| rotate.keep.unsigned_abs()),
        }));
    }
    if let Some(to) = &spec.prometheus_remote_write {
        endpoints.push(Endpoint::Sink(sink::remote_write(to, &secrets)?));
    }
    if let Some(to) = &spec.kafka {
        endpoints.push(Endpoint::Sink(sink::kafka(to, &secrets)?));
    }
    if let Some(to) = &spec.grafana_net {
        endpoints.push(Endpoint::Sink(sink::grafana_net(to, &secrets)?));
    }
    if let Some(to) = &spec.amqp {
        endpoints.push(Endpoint::Sink(sink::amqp(to, &secrets)?));
    }
    if let Some(to) = &spec.pub_sub {
        endpoints.push(Endpoint::Sink(sink::pub_sub(to, &secrets)?));
    }
    if let Some(to) = &spec.cloud_watch {
        endpoints.push(Endpoint::Sink(sink::cloud_watch(to, &secrets)?));
    }
    let endpoint = endpoints.pop().filter(|_| endpoints.is_empty());
    endpoint.ok_or_else(|| {
        let message = "set exactly one endpoint, such as carbon or file";
        Finding::new(Reason::UnsupportedValue, message)
    })
}

fn carbon(
    carbon: &Carbon,
    key: &Key,
    references: &References<'_>,
    secrets: &Secrets<'_>,
) -> Result<proto::Carbon, Finding> {
    let (address, members) = match (&carbon.address, &carbon.service) {
        (Some(address), None) => (address.clone(), None),
        (None, Some(service)) => {
            let address = format!("{}.{}.svc:{}", service.name, key.namespace, service.port);
            let (members, _) = members(service, key, references.services);
            (address, Some(proto::Members { members }))
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err(Finding::at(
                "carbon",
                Reason::UnsupportedValue,
                "set exactly one of address and service",
            ));
        }
    };
    let tls = carbon.tls.as_ref();
    let tls = tls.map(|tls| secrets.client(tls, host(&address), "carbon.tls"));
    let tls = tls.transpose()?;
    let servers = members.as_ref().map_or(1, |members| members.members.len());
    Ok(proto::Carbon {
        connect_timeout_ms: carbon.connect_timeout.as_millis(),
        write_timeout_ms: carbon.write_timeout.as_millis(),
        connection_age_max_ms: carbon.max_connection_age.as_millis(),
        tls,
        // The schema keeps them above 0.
        connections: carbon
            .connections
            .unsigned_abs()
            .min((CONNECTIONS_MAX / servers.clamp(1, CONNECTIONS_MAX)) as u32),
        address,
        members,
        encoding: match carbon.encoding {
            Encoding::Plaintext => proto::Encoding::Unspecified,
            Encoding::Pickle => proto::Encoding::Pickle,
            Encoding::Protobuf => proto::Encoding::Protobuf,
        }
        .into(),
        datagrams: carbon.transport == CarbonTransport::Udp,
        compression: super::compression(carbon.compression).into(),
    })
}

/// What is wrong with what a Destination refers to, although its lines can wait for that to be put right.
pub(super) fn unresolved(
    object: &Destination,
    key: &Key,
    services: &BTreeMap<ServiceName, Service>,
) -> Option<Finding> {
    let service = object.spec.carbon.as_ref()?.service.as_ref()?;
    members(service, key, services).1
}

// The servers of a Service, and what is wrong with it.
fn members(
    service: &ServiceRef,
    key: &Key,
    services: &BTreeMap<ServiceName, Service>,
) -> (Vec<proto::Member>, Option<Finding>) {
    let name = ServiceName {
        namespace: key.namespace.clone(),
        name: service.name.clone(),
    };
    let servers = match services.get(&name) {
        Some(known) => known.servers(service.port),
        None => Err(NoServers::NotFound),
    };
    let servers = match servers {
        Ok(servers) => servers,
        Err(fault) => {
            let (field, reason) = match fault {
                NoServers::NotFound => ("carbon.service.name", Reason::ServiceNotFound),
                NoServers::NoPort { .. } => ("carbon.service.port", Reason::InvalidService),
            };
            let message = format!("{name} {fault}; until then lines wait");
            return (Vec::new(), Some(Finding::at(field, reason, message)));
        }
    };
    let too_many = (servers.len() > ENDPOINTS_MAX).then(|| {
        let message = format!(
            "{name} has {} ready endpoints: the first {ENDPOINTS_MAX} by name get lines",
            servers.len()
        );
        Finding::at("carbon.service.name", Reason::InvalidService, message)
    });
    let members = servers.into_iter().take(ENDPOINTS_MAX);
    let members = members.map(|(name, address)| proto::Member { name, address });
    (members.collect(), too_many)
}

// The address is the loader's business; of one that is none, any part will do.
fn host(address: &str) -> &str {
    let host = address
        .rsplit_once(':')
        .map_or(address, |(host, _port)| host);
    host.trim_matches(['[', ']'])
}

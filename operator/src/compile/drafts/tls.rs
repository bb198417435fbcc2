//! References to Secrets → certificates and keys, checked as a relay would.

use std::collections::BTreeMap;

use crds::{CarbonTls, ListenerTls, Reason, SecretRef};
use relay_proto as proto;
use relay_tls::{CA, CERTIFICATE, KEY};

use crate::compile::Finding;
use crate::inputs::{Secret, SecretName};

/// The Secrets that an object may refer to.
pub(super) struct Secrets<'a> {
    pub(super) all: &'a BTreeMap<SecretName, Secret>,
    pub(super) namespace: &'a str,
}

impl Secrets<'_> {
    /// `field` is the listener's `tls`.
    pub(super) fn listener(
        &self,
        tls: &ListenerTls,
        field: &str,
    ) -> Result<proto::ListenerTls, Finding> {
        let client_ca = tls.client_ca.as_ref();
        let client_ca = client_ca.map(|ca| self.authorities(ca, &format!("{field}.clientCa.name")));
        Ok(proto::ListenerTls {
            identity: Some(self.identity(&tls.certificate, &format!("{field}.certificate.name"))?),
            client_ca: client_ca.transpose()?.unwrap_or_default(),
        })
    }

    pub(super) fn carbon(
        &self,
        tls: &CarbonTls,
        address: &str,
    ) -> Result<proto::CarbonTls, Finding> {
        let ca = tls.ca.as_ref();
        let ca = ca.map(|ca| self.authorities(ca, "carbon.tls.ca.name"));
        let identity = tls.certificate.as_ref();
        let identity =
            identity.map(|identity| self.identity(identity, "carbon.tls.certificate.name"));
        let server_name = tls.server_name.as_deref();
        relay_tls::server_name(server_name.unwrap_or_else(|| host(address))).map_err(|error| {
            Finding::at(
                "carbon.tls.serverName",
                Reason::UnsupportedValue,
                format!("{error}: name the server as its certificate does"),
            )
        })?;
        Ok(proto::CarbonTls {
            ca: ca.transpose()?.unwrap_or_default(),
            identity: identity.transpose()?,
            server_name: server_name.unwrap_or_default().to_owned(),
        })
    }

    fn identity(&self, reference: &SecretRef, field: &str) -> Result<proto::Identity, Finding> {
        let certificate = self.entry(reference, CERTIFICATE, field)?;
        let key = self.entry(reference, KEY, field)?;
        relay_tls::identity(certificate, key)
            .map_err(|error| self.invalid(reference, field, &error.to_string()))?;
        Ok(proto::Identity {
            certificate: certificate.to_vec(),
            key: key.to_vec(),
        })
    }

    fn authorities(&self, reference: &SecretRef, field: &str) -> Result<Vec<u8>, Finding> {
        let certificates = self.entry(reference, CA, field)?;
        relay_tls::authorities(certificates)
            .map_err(|error| self.invalid(reference, field, &error.to_string()))?;
        Ok(certificates.to_vec())
    }

    fn entry(&self, reference: &SecretRef, key: &str, field: &str) -> Result<&[u8], Finding> {
        let name = self.name(reference);
        let secret = self.all.get(&name).ok_or_else(|| {
            let message = format!("{name} does not exist, or must not be read: create it");
            Finding::at(field, Reason::SecretNotFound, message)
        })?;
        secret
            .get(key)
            .ok_or_else(|| self.invalid(reference, field, &format!("there is no {key}")))
    }

    fn invalid(&self, reference: &SecretRef, field: &str, fault: &str) -> Finding {
        let message = format!("{}: {fault}", self.name(reference));
        Finding::at(field, Reason::InvalidSecret, message)
    }

    fn name(&self, reference: &SecretRef) -> SecretName {
        SecretName {
            namespace: self.namespace.to_owned(),
            name: reference.name.clone(),
        }
    }
}

// The address is the loader's business; of one that is none, any part will do.
fn host(address: &str) -> &str {
    let host = address
        .rsplit_once(':')
        .map_or(address, |(host, _port)| host);
    host.trim_matches(['[', ']'])
}

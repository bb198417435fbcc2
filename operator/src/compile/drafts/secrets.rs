//! References to Secrets → certificates, keys and credentials, checked as a relay would.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crds::{HttpAuth, ListenerTls, PeerTls, Reason, SecretRef};
use relay_proto as proto;
use relay_tls::{CA, CERTIFICATE, KEY};

use crate::compile::Finding;
use crate::inputs::{
    ACCESS_KEY_ID, PASSWORD, SECRET_ACCESS_KEY, SERVICE_ACCOUNT_KEY, Secret, SecretName, TOKEN,
    USERNAME,
};

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

    /// `field` is where the TLS of a connection to `host` is said.
    pub(super) fn client(
        &self,
        tls: &PeerTls,
        host: &str,
        field: &str,
    ) -> Result<proto::PeerTls, Finding> {
        let ca = tls.ca.as_ref();
        let ca = ca.map(|ca| self.authorities(ca, &format!("{field}.ca.name")));
        let identity = tls.certificate.as_ref();
        let identity =
            identity.map(|identity| self.identity(identity, &format!("{field}.certificate.name")));
        let server_name = tls.server_name.as_deref();
        relay_tls::server_name(server_name.unwrap_or(host)).map_err(|error| {
            Finding::at(
                format!("{field}.serverName"),
                Reason::UnsupportedValue,
                format!("{error}: name the server as its certificate does"),
            )
        })?;
        Ok(proto::PeerTls {
            ca: ca.transpose()?.unwrap_or_default(),
            identity: identity.transpose()?,
            server_name: server_name.unwrap_or_default().to_owned(),
        })
    }

    /// What goes into the header Authorization. `field` is where it is said.
    pub(super) fn authorization(
        &self,
        auth: &HttpAuth,
        field: &str,
    ) -> Result<proto::Credential, Finding> {
        match (&auth.basic, &auth.bearer) {
            (Some(basic), None) => {
                let at = format!("{field}.basic.name");
                let (username, password) = self.user(basic, &at)?;
                let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
                self.header(basic, &at, format!("Basic {pair}"))
            }
            (None, Some(bearer)) => self.bearer(bearer, &format!("{field}.bearer.name")),
            (None, None) | (Some(_), Some(_)) => {
                let message = "set exactly one of basic and bearer";
                Err(Finding::at(field, Reason::UnsupportedValue, message))
            }
        }
    }

    /// The same, of a token. `field` is where the Secret is named.
    pub(super) fn bearer(
        &self,
        reference: &SecretRef,
        field: &str,
    ) -> Result<proto::Credential, Finding> {
        let token = self.text(reference, TOKEN, field)?.trim();
        self.header(reference, field, format!("Bearer {token}"))
    }

    /// A user's name and password.
    pub(super) fn user(&self, reference: &SecretRef, field: &str) -> Result<(&str, &str), Finding> {
        Ok((
            self.text(reference, USERNAME, field)?,
            self.text(reference, PASSWORD, field)?,
        ))
    }

    /// The key of one of Google's service accounts.
    pub(super) fn service_account_key(
        &self,
        reference: &SecretRef,
        field: &str,
    ) -> Result<proto::Credential, Finding> {
        let key = self.text(reference, SERVICE_ACCOUNT_KEY, field)?;
        // What else there is, the relay's library wants to know.
        let parsed: Option<serde_json::Value> = serde_json::from_str(key).ok();
        if !parsed.is_some_and(|key| key["type"] == "service_account") {
            let fault = format!("{SERVICE_ACCOUNT_KEY} is not a service account's key in JSON");
            return Err(self.invalid(reference, field, &fault));
        }
        Ok(credential(key.into()))
    }

    /// One of AWS' access keys: its name, and what is secret of it.
    pub(super) fn access_key(
        &self,
        reference: &SecretRef,
        field: &str,
    ) -> Result<(&str, &str), Finding> {
        let id = self.text(reference, ACCESS_KEY_ID, field)?.trim();
        if id.is_empty() {
            let fault = format!("{ACCESS_KEY_ID} is empty");
            return Err(self.invalid(reference, field, &fault));
        }
        let secret = self.text(reference, SECRET_ACCESS_KEY, field)?;
        Ok((id, secret.trim()))
    }

    fn header(
        &self,
        reference: &SecretRef,
        field: &str,
        value: String,
    ) -> Result<proto::Credential, Finding> {
        if !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let fault = "what is in it cannot be in an HTTP header: use printable ASCII";
            return Err(self.invalid(reference, field, fault));
        }
        Ok(credential(value.into_bytes()))
    }

    fn text(&self, reference: &SecretRef, key: &str, field: &str) -> Result<&str, Finding> {
        let entry = self.entry(reference, key, field)?;
        str::from_utf8(entry)
            .map_err(|_| self.invalid(reference, field, &format!("{key} is not text")))
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

pub(super) fn credential(value: Vec<u8>) -> proto::Credential {
    proto::Credential {
        value,
        withheld: false,
    }
}

//! What is read of Secrets: certificates, keys and credentials, and of no other Secret than those that a resource refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crds::{Destination, Relay, SecretRef};
use k8s_openapi::ByteString;
use kube::ResourceExt as _;

use super::Objects;

/// Which Secret. Displays as `Secret default/relay-tls`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretName {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}

/// What is read of a Secret. Its `Debug` shows no content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(BTreeMap<&'static str, Vec<u8>>);

/// Where a user's name stands in a Secret, as in type kubernetes.io/basic-auth.
pub(crate) const USERNAME: &str = "username";
/// Where the password stands.
pub(crate) const PASSWORD: &str = "password";
/// Where a token stands.
pub(crate) const TOKEN: &str = "token";

/// Where the key of one of Google's service accounts stands, in JSON.
pub(crate) const SERVICE_ACCOUNT_KEY: &str = "key.json";
/// Where the name of one of AWS' access keys stands.
pub(crate) const ACCESS_KEY_ID: &str = "accessKeyId";
/// Where what is secret of it stands.
pub(crate) const SECRET_ACCESS_KEY: &str = "secretAccessKey";

/// All keys that are read of a Secret.
const KEYS: [&str; 9] = [
    relay_tls::CERTIFICATE,
    relay_tls::KEY,
    relay_tls::CA,
    USERNAME,
    PASSWORD,
    TOKEN,
    SERVICE_ACCOUNT_KEY,
    ACCESS_KEY_ID,
    SECRET_ACCESS_KEY,
];

impl Secret {
    /// Takes what is needed from a Secret.
    pub fn of(object: &k8s_openapi::api::core::v1::Secret) -> Self {
        let data = object.data.iter().flatten();
        let mut entries: BTreeMap<&str, &[u8]> = data
            .map(|(key, ByteString(value))| (key.as_str(), value.as_slice()))
            .collect();
        // As the API server merges it.
        let text = object.string_data.iter().flatten();
        entries.extend(text.map(|(key, value)| (key.as_str(), value.as_bytes())));
        let kept = KEYS.into_iter().filter_map(|key| {
            let value = entries.get(key)?;
            Some((key, value.to_vec()))
        });
        Self(kept.collect())
    }

    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Objects {
    /// The Secrets that resources refer to, whether they exist or not.
    pub fn secrets_wanted(&self) -> BTreeSet<SecretName> {
        let relays = self.relays.iter().flat_map(|relay| {
            let namespace = relay.namespace().unwrap_or_default();
            of_relay(relay).map(move |reference| (namespace.clone(), reference))
        });
        let destinations = self.destinations.iter().flat_map(|destination| {
            let namespace = destination.namespace().unwrap_or_default();
            of_destination(destination).map(move |reference| (namespace.clone(), reference))
        });
        relays
            .chain(destinations)
            .map(|(namespace, reference)| SecretName {
                namespace,
                name: reference.name.clone(),
            })
            .collect()
    }
}

fn of_relay(relay: &Relay) -> impl Iterator<Item = &SecretRef> {
    relay.spec.listeners.iter().flat_map(|listener| {
        let tls = listener.tls.as_ref();
        let broker = listener.amqp.as_ref().map(|amqp| &amqp.server);
        let broker_tls = broker.and_then(|broker| broker.tls.as_ref());
        let references = [
            tls.map(|tls| &tls.certificate),
            tls.and_then(|tls| tls.client_ca.as_ref()),
            broker.and_then(|broker| broker.secret.as_ref()),
            broker_tls.and_then(|tls| tls.ca.as_ref()),
            broker_tls.and_then(|tls| tls.certificate.as_ref()),
        ];
        references.into_iter().flatten()
    })
}

fn of_destination(destination: &Destination) -> impl Iterator<Item = &SecretRef> {
    let spec = &destination.spec;
    let (prometheus, kafka, grafana_net) = (
        spec.prometheus_remote_write.as_ref(),
        spec.kafka.as_ref(),
        spec.grafana_net.as_ref(),
    );
    let amqp = spec.amqp.as_ref().map(|to| &to.server);
    let tls = spec.carbon.iter().filter_map(|carbon| carbon.tls.as_ref());
    let tls = tls.flat_map(|tls| [tls.ca.as_ref(), tls.certificate.as_ref()]);
    let other_tls = [
        prometheus.and_then(|to| to.tls.as_ref()),
        kafka.and_then(|to| to.tls.as_ref()),
        grafana_net.and_then(|to| to.tls.as_ref()),
        amqp.and_then(|server| server.tls.as_ref()),
    ];
    let other_tls = other_tls.into_iter().flatten();
    let other_tls = other_tls.flat_map(|tls| [tls.ca.as_ref(), tls.certificate.as_ref()]);
    let auth = prometheus.and_then(|to| to.auth.as_ref());
    let credentials = [
        auth.and_then(|auth| auth.basic.as_ref()),
        auth.and_then(|auth| auth.bearer.as_ref()),
        kafka
            .and_then(|to| to.sasl.as_ref())
            .map(|sasl| &sasl.secret),
        grafana_net.map(|to| &to.api_key),
        amqp.and_then(|server| server.secret.as_ref()),
        spec.pub_sub.as_ref().and_then(|to| to.secret.as_ref()),
        spec.cloud_watch.as_ref().and_then(|to| to.secret.as_ref()),
    ];
    tls.chain(other_tls).chain(credentials).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_is_made_of_is_kept_and_not_shown() {
        let object = serde_saphyr::from_str(
            "
apiVersion: v1
kind: Secret
metadata: {name: a}
data: {tls.crt: aHVzaA==, tls.key: aHVzaA==, other: aHVzaA==}
stringData: {tls.key: quiet}
",
        );
        let secret = Secret::of(&object.unwrap());
        assert_eq!(
            (
                secret.get("tls.crt"),
                secret.get("tls.key"),
                secret.get("ca.crt"),
                secret.get("other")
            ),
            (
                Some(b"hush".as_slice()),
                Some(b"quiet".as_slice()),
                None,
                None
            )
        );
        assert_eq!(format!("{secret:?}"), r#"{"tls.crt", "tls.key"}"#);
    }
}

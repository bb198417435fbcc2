//! Keeps the certificate that relays are shown, and the CA that they believe, up to date: from an authority of our own, kept
//! in a Secret; or from a directory into which somebody else writes (cert-manager, through a mounted Secret).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use relay_tls::{CA, CERTIFICATE, KEY};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::accept::Certificate;
use super::authority::Authorities;
use crate::lease::LeaseName as ObjectName;
use crate::metrics::Metrics;
use crate::watch::Stores;

/// What relays believe is in a ConfigMap of this name, in the namespace of each Relay and of each relay pod.
const CONFIG_MAP: &str = "carbonway-ca";
/// The key of the Secret that holds the authorities.
const AUTHORITIES: &str = "authorities.json";
const FIELD_MANAGER: &str = "carbonway-operator";
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the certificate is looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often it is looked for namespaces that want to know, and tried again what failed.
const STEP: Duration = Duration::from_secs(1);

/// Where certificates come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// An authority of our own.
    Own {
        /// The Secret that it is kept in.
        secret: ObjectName,
        /// What relays call this operator.
        names: Vec<String>,
    },
    /// Files tls.crt, tls.key and ca.crt.
    Directory(PathBuf),
}

/// Keeps certificates up to date.
pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) source: Source,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) metrics: Arc<Metrics>,
}

// What is in force.
#[derive(Default)]
struct Known {
    bundle: String,
    // The CA that signed our certificate, and when that is to be made anew.
    signed_by: String,
    renew: u64,
    // What was read from files.
    files: Vec<u8>,
    // Namespaces that have the bundle.
    told: BTreeSet<String>,
}

impl Keeper {
    /// Does so for ever.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut known = Known::default();
        let mut due = Instant::now();
        loop {
            if due <= Instant::now() {
                match self.keep(&mut known).await {
                    Ok(()) => due += INTERVAL,
                    Err(error) => {
                        let error = format!("{error:#}");
                        warn!(error, "the certificate for relays is not up to date");
                    }
                }
            }
            if let Err(error) = self.tell(&mut known).await {
                let error = format!("{error:#}");
                warn!(error, "not every relay can be told whom to believe");
            }
            sleep(STEP).await;
        }
    }

    async fn keep(&self, known: &mut Known) -> anyhow::Result<()> {
        match &self.source {
            Source::Own { secret, names } => self.keep_own(secret, names, known).await,
            Source::Directory(directory) => self.read(directory, known),
        }
    }

    async fn keep_own(
        &self,
        secret: &ObjectName,
        names: &[String],
        known: &mut Known,
    ) -> anyhow::Result<()> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let authorities = timeout(CALL_TIMEOUT, self.authorities(secret, now)).await??;
        let signing = authorities.signing().unwrap_or_default();
        if known.signed_by != signing || now >= known.renew {
            let signed = authorities.sign(names, now)?;
            let signed = signed.ok_or_else(|| anyhow!("there is no authority"))?;
            let (certificate, key) = (signed.certificate.as_bytes(), signed.key.as_bytes());
            self.show(certificate, key)?;
            known.signed_by = signing.to_owned();
            known.renew = signed.renew;
            info!(?names, "a certificate for relays was made");
        }
        known.believe(authorities.bundle());
        Ok(())
    }

    // As they are kept, with what is due done and kept.
    async fn authorities(&self, name: &ObjectName, now: u64) -> anyhow::Result<Authorities> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &name.namespace);
        let found = api.get_opt(&name.name).await?;
        let mut data = found.as_ref().and_then(|secret| secret.data.clone());
        let kept = data.as_mut().and_then(|data| data.remove(AUTHORITIES));
        let mut authorities: Authorities = match kept {
            Some(ByteString(text)) => serde_json::from_slice(&text)
                .with_context(|| format!("Secret {}/{} has no authority that can be read: delete it, and relays connect again within minutes", name.namespace, name.name))?,
            None => Authorities::default(),
        };
        if !authorities.advance(now)? {
            return Ok(authorities);
        }
        let text = serde_json::to_vec(&authorities)?;
        let metadata = match found {
            // With its version: of two that write one fails, and looks again.
            Some(secret) => secret.metadata,
            None => ObjectMeta {
                name: Some(name.name.clone()),
                ..ObjectMeta::default()
            },
        };
        let secret = Secret {
            data: Some(BTreeMap::from([(AUTHORITIES.to_owned(), ByteString(text))])),
            type_: Some("carbonway.io/authorities".to_owned()),
            metadata,
            ..Secret::default()
        };
        let params = PostParams::default();
        match secret.resource_version() {
            Some(_) => drop(api.replace(&name.name, &params, &secret).await?),
            None => drop(api.create(&params, &secret).await?),
        }
        info!(secret = name.name, "the authority for relays was renewed");
        Ok(authorities)
    }

    fn read(&self, directory: &std::path::Path, known: &mut Known) -> anyhow::Result<()> {
        let read = |file: &str| {
            let path = directory.join(file);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let [certificate, key, ca] = [read(CERTIFICATE)?, read(KEY)?, read(CA)?];
        let files = [certificate.as_slice(), &key, &ca].concat();
        if files != known.files {
            relay_tls::authorities(&ca)?;
            self.show(&certificate, &key)?;
            known.files = files;
            known.believe(String::from_utf8(ca)?);
            info!("a certificate for relays was read");
        }
        Ok(())
    }

    fn show(&self, certificate: &[u8], key: &[u8]) -> anyhow::Result<()> {
        self.certificate.set(relay_tls::identity(certificate, key)?);
        let expires = relay_tls::expires(certificate).unwrap_or_default();
        let expiry = &self.metrics.certificate_expiry;
        expiry.set(i64::try_from(expires).unwrap_or(i64::MAX));
        Ok(())
    }

    // Writes the bundle where Relays and their pods are.
    async fn tell(&self, known: &mut Known) -> anyhow::Result<()> {
        if known.bundle.is_empty() {
            return Ok(());
        }
        let (relays, pods) = (self.stores.relays.all(), self.stores.pods.all());
        let of_relays = relays.iter().filter_map(|relay| relay.namespace());
        let of_pods = pods.iter().filter_map(|pod| pod.namespace());
        let namespaces: BTreeSet<String> = of_relays.chain(of_pods).collect();
        known
            .told
            .retain(|namespace| namespaces.contains(namespace));
        for namespace in namespaces {
            if known.told.contains(&namespace) {
                continue;
            }
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &namespace);
            let body = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CONFIG_MAP, "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER}},
                "data": {CA: known.bundle},
            });
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(&body);
            timeout(CALL_TIMEOUT, api.patch(CONFIG_MAP, &params, &patch))
                .await?
                .with_context(|| format!("cannot write ConfigMap {namespace}/{CONFIG_MAP}"))?;
            known.told.insert(namespace);
        }
        Ok(())
    }
}

impl Known {
    fn believe(&mut self, bundle: String) {
        if self.bundle != bundle {
            self.bundle = bundle;
            self.told.clear();
        }
    }
}

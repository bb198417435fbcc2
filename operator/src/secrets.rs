//! Keeps a copy of the Secrets that resources refer to, and of no others.
//!
//! They are read by name, each for itself, and again every [`INTERVAL`]. That takes the right to `get` them; to watch a single
//! one takes a right to read all. Nothing is published before each that is wanted was asked for, so that an operator that
//! starts leaves nothing out for want of a Secret that it has yet to read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::causes::causes;
use crate::inputs::{Secret, SecretName};
use crate::metrics::Metrics;
use crate::watch::Stores;

/// After this long a change of a Secret is known.
const INTERVAL: Duration = Duration::from_secs(10);
/// What a call to the API server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls at the same time.
const CALLS_MAX: usize = 8;
/// How often a Secret that was never read is asked for, and how soon again, before it counts as one that is not there.
const ATTEMPTS_MAX: u32 = 5;
const RETRY: Duration = Duration::from_secs(1);

/// The Secrets that resources refer to.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    // `None`: it does not exist, or must not be read.
    known: Mutex<Known>,
    wanted: Notify,
}

type Known = BTreeMap<SecretName, Option<Secret>>;

impl Secrets {
    /// Those that exist.
    pub(crate) fn all(&self) -> BTreeMap<SecretName, Secret> {
        let known = self.lock();
        let existing = known
            .iter()
            .filter_map(|(name, secret)| Some((name.clone(), secret.clone()?)));
        existing.collect()
    }

    /// Whether each of `wanted` was asked for. If not, that is done, and told as a change of what is compiled.
    pub(crate) fn have(&self, wanted: &BTreeSet<SecretName>) -> bool {
        let known = self.lock();
        let have = wanted.iter().all(|name| known.contains_key(name));
        if !have {
            self.wanted.notify_one();
        }
        have
    }

    // Whether something is different then.
    fn replace(&self, known: Known) -> bool {
        let mut current = self.lock();
        let is_changed = *current != known;
        *current = known;
        is_changed
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what is wanted, again and again. Ends never.
pub(crate) async fn run(
    client: Client,
    stores: Arc<Stores>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let mut failures: BTreeMap<SecretName, u32> = BTreeMap::new();
    loop {
        let wanted = stores.inputs().objects().secrets_wanted();
        failures.retain(|name, _| wanted.contains(name));
        let mut known = Known::new();
        let mut wait = INTERVAL;
        let mut reads = stream::iter(wanted)
            .map(|name| read(&client, name))
            .buffer_unordered(CALLS_MAX);
        while let Some((name, read)) = reads.next().await {
            let secret = match read {
                Ok(secret) => {
                    failures.remove(&name);
                    secret
                }
                Err(error) => {
                    metrics.watch_failed("Secret");
                    warn!(secret = %name, error, "cannot read a Secret, will be tried again");
                    let failures = failures.entry(name.clone()).or_default();
                    *failures += 1;
                    let before = stores.secrets.lock().get(&name).cloned();
                    if before.is_none() && *failures < ATTEMPTS_MAX {
                        wait = RETRY;
                        continue;
                    }
                    before.flatten()
                }
            };
            known.insert(name, secret);
        }
        if stores.secrets.replace(known) {
            stores.inputs_changed.notify_one();
        }
        tokio::select! {
            () = stores.secrets.wanted.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

// `None`: it does not exist.
async fn read(client: &Client, name: SecretName) -> (SecretName, Result<Option<Secret>, String>) {
    let api: Api<v1::Secret> = Api::namespaced(client.clone(), &name.namespace);
    let read = match timeout(CALL_TIMEOUT, api.get_opt(&name.name)).await {
        Ok(Ok(object)) => Ok(object.as_ref().map(Secret::of)),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_) => Err("it took too long".to_owned()),
    };
    (name, read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_had_when_it_was_asked_for() {
        let name = |name: &str| SecretName {
            namespace: "d".to_owned(),
            name: name.to_owned(),
        };
        let secrets = Secrets::default();
        let wanted = BTreeSet::from([name("a"), name("gone")]);
        assert!(secrets.have(&BTreeSet::new()));
        assert!(!secrets.have(&wanted));
        let known = Known::from([(name("a"), Some(Secret::default())), (name("gone"), None)]);
        assert!(secrets.replace(known.clone()));
        assert!(!secrets.replace(known));
        assert!(secrets.have(&wanted));
        assert_eq!(
            secrets.all(),
            BTreeMap::from([(name("a"), Secret::default())])
        );
    }
}

//! [`run`]: starts everything in order, owns every task, and ends when it is told to or when a task does.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::config::{Config, Tokens};
use crate::endpoints;
use crate::fleet::{Fleets, Said};
use crate::lease::Candidate;
use crate::metrics::Metrics;
use crate::namespaces;
use crate::publish::{self, Publications};
use crate::roster::Roster;
use crate::secrets;
use crate::serve::{self, Sync};
use crate::status::Report;
use crate::trust::{Certificate, Gate, Keeper};
use crate::watch::Stores;

/// How long connections may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the operator until `shutdown` is over.
///
/// Starts: the admin port, watches, reading what resources refer to, publishing; then, once this one leads, the sync port,
/// serving and reporting. Those who do not lead are warm, and refuse relays by not listening. Stops: reporting, publishing
/// and watches at once; then relays and the admin port are told, and waited for a little; then the lease is let go of.
///
/// # Errors
/// A port cannot be bound, a task ended that never should, or this one may lead no longer: stop, and let whoever started
/// this start it again.
pub async fn run(
    config: Config,
    client: Client,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut shutdown = pin!(shutdown);
    let admin_listener = bind("admin", config.admin_address).await?;
    // In two sets, because those that serve end by themselves.
    let mut tasks = Tasks::default();
    let (stop, stopping) = watch::channel(false);
    let warm = Warm::start(&config, &client, &mut tasks);
    let admin = Admin {
        stores: Arc::clone(&warm.stores),
        publications: warm.publications.clone(),
        metrics: Arc::clone(&warm.metrics),
    };
    tasks
        .servers
        .spawn(admin::run(admin_listener, admin, stopping.clone()));

    let elected = async {
        match &config.lease {
            Some(lease) => {
                let candidate = Candidate::new(client.clone(), lease, &config.pod_name);
                Some(candidate.elected().await)
            }
            None => None,
        }
    };
    let mut leader = tokio::select! {
        () = &mut shutdown => return tasks.stop(&stop).await,
        ended = tasks.failed() => return Err(ended),
        leader = elected => leader,
    };
    warm.metrics.leading.set(1);
    let ended = async {
        let sync_listener = bind("sync", config.sync_address).await?;
        warm.lead(&config, client, sync_listener, stopping, &mut tasks);
        let leading = async {
            match &mut leader {
                Some(leader) => leader.lead().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = &mut shutdown => Ok(()),
            ended = tasks.failed() => Err(ended),
            why = leading => Err(why),
        }
    };
    let ended = ended.await;
    info!("stopping");
    let stopped = tasks.stop(&stop).await;
    if let (Ok(()), Some(leader)) = (&ended, leader) {
        leader.resign().await;
    }
    ended.and(stopped)
}

/// What every operator does, whether it leads or not.
struct Warm {
    stores: Arc<Stores>,
    publications: Publications,
    metrics: Arc<Metrics>,
}

impl Warm {
    fn start(config: &Config, client: &Client, tasks: &mut Tasks) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (published, publications) = watch::channel(None);
        let workers = &mut tasks.workers;
        let stores = Stores::start(
            workers,
            client,
            config.namespace.as_deref(),
            &metrics,
            config.fleets.settings().is_some(),
        );
        let (shared, counted) = (|| Arc::clone(&stores), || Arc::clone(&metrics));
        workers.spawn(secrets::run(client.clone(), shared(), counted()));
        workers.spawn(endpoints::run(client.clone(), shared(), counted()));
        match config.namespace {
            // There is no other to allow.
            Some(_) => stores.namespaces.settle(),
            None => drop(workers.spawn(namespaces::run(client.clone(), shared(), counted()))),
        }
        let hold = Duration::from_millis(config.shrink_hold.as_millis());
        workers.spawn(publish::run(shared(), published, hold, counted()));
        Self {
            stores,
            publications,
            metrics,
        }
    }

    // Serves relays and reports.
    fn lead(
        self,
        config: &Config,
        client: Client,
        listener: TcpListener,
        stopping: watch::Receiver<bool>,
        tasks: &mut Tasks,
    ) {
        let grace = Duration::from_millis(config.reconnect_grace.as_millis());
        let roster = Roster::new(grace);
        let stores = Arc::clone(&self.stores);
        let said = Said::new();
        if let Some(settings) = config.fleets.settings() {
            let fleets = Fleets {
                client: client.clone(),
                settings,
                stores: Arc::clone(&stores),
                publications: self.publications.clone(),
                roster: Arc::clone(&roster),
                said: Arc::clone(&said),
            };
            tasks.workers.spawn(fleets.run());
        }
        let report = Report {
            fleets: Arc::clone(&said),
            client,
            pod_name: config.pod_name.clone(),
            reconnect_grace: grace,
            stores: self.stores,
            publications: self.publications.clone(),
            roster: Arc::clone(&roster),
            metrics: Arc::clone(&self.metrics),
        };
        let client = report.client.clone();
        tasks.workers.spawn(report.run());
        let certificate = config.trust.source().map(|source| {
            let certificate = Arc::<Certificate>::default();
            let keeper = Keeper {
                client: client.clone(),
                source,
                certificate: Arc::clone(&certificate),
                stores: Arc::clone(&stores),
                metrics: Arc::clone(&self.metrics),
            };
            tasks.workers.spawn(keeper.run());
            certificate
        });
        let asks = config.trust.tokens == Tokens::Review;
        let gate = certificate
            .as_ref()
            .filter(|_| asks)
            .map(|_| Arc::new(Gate::new(client, stores, Arc::clone(&self.metrics))));
        let service = Sync::new(
            gate,
            self.publications,
            roster,
            said.leaving(),
            self.metrics,
            stopping.clone(),
        );
        let serving = serve::run(listener, certificate, service, stopping);
        tasks.servers.spawn(serving);
    }
}

/// Everything that runs.
#[derive(Default)]
struct Tasks {
    workers: JoinSet<anyhow::Result<()>>,
    servers: JoinSet<anyhow::Result<()>>,
}

impl Tasks {
    // Resolves when one has ended that never should, with why.
    async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.workers.join_next() => ended,
            Some(ended) = self.servers.join_next() => ended,
        };
        match ended {
            Ok(Err(error)) => error.context("a task of the operator failed"),
            Err(error) => anyhow::Error::new(error).context("a task of the operator died"),
            Ok(Ok(())) => anyhow::anyhow!("a task of the operator ended"),
        }
    }

    async fn stop(mut self, stop: &watch::Sender<bool>) -> anyhow::Result<()> {
        self.workers.shutdown().await;
        stop.send_replace(true);
        let servers = &mut self.servers;
        if timeout(STOP_TIMEOUT, join_all(servers)).await.is_err() {
            warn!("connections that did not end in time are cut");
            servers.shutdown().await;
        }
        Ok(())
    }
}

/// Waits until `stopping` turns true, or `run` itself is gone.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _stopped = stopping.wait_for(|is_stopping| *is_stopping).await;
}

async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot bind the {what} address {address}"))?;
    // With the port that was given where 0 was asked for.
    let address = listener.local_addr()?;
    info!(%address, "{what} listening");
    Ok(listener)
}

async fn join_all(tasks: &mut JoinSet<anyhow::Result<()>>) {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "a server ended badly"),
            Err(error) => warn!(%error, "a server died"),
        }
    }
}

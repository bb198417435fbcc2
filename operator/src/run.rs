//! [`run`]: starts everything in order, owns every task, and ends when it is told to or when a task does.

use std::net::SocketAddr;
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
use crate::config::Config;
use crate::endpoints;
use crate::metrics::Metrics;
use crate::publish;
use crate::roster::Roster;
use crate::secrets;
use crate::serve::{self, Sync};
use crate::status::Report;
use crate::watch::Stores;

/// How long connections may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs the operator until `shutdown` is over.
///
/// Starts: ports, watches, reading Secrets and Services, publishing, serving, reporting. Stops: reporting, publishing and watches at once; then relays and
/// the admin port are told, and waited for a little.
///
/// # Errors
/// A port cannot be bound, or a task ended that never should: stop, and let whoever started this start it again.
pub async fn run(
    config: Config,
    client: Client,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let sync_listener = bind("sync", config.sync_address).await?;
    let admin_listener = bind("admin", config.admin_address).await?;
    let metrics = Arc::new(Metrics::new());
    let grace = Duration::from_millis(config.reconnect_grace.as_millis());
    let roster = Roster::new(grace);
    let (published, publications) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);

    // In two sets, because those that serve end by themselves.
    let mut workers = JoinSet::new();
    let mut servers = JoinSet::new();
    let namespace = config.namespace.as_deref();
    let stores = Stores::start(&mut workers, &client, namespace, &metrics);
    workers.spawn(secrets::run(
        client.clone(),
        Arc::clone(&stores),
        Arc::clone(&metrics),
    ));
    workers.spawn(endpoints::run(
        client.clone(),
        Arc::clone(&stores),
        Arc::clone(&metrics),
    ));
    workers.spawn(publish::run(
        Arc::clone(&stores),
        published,
        Arc::clone(&metrics),
    ));
    let report = Report {
        client,
        pod_name: config.pod_name,
        reconnect_grace: grace,
        stores: Arc::clone(&stores),
        publications: publications.clone(),
        roster: Arc::clone(&roster),
        metrics: Arc::clone(&metrics),
    };
    workers.spawn(report.run());
    let service = Sync::new(
        publications.clone(),
        roster,
        Arc::clone(&metrics),
        stopping.clone(),
    );
    servers.spawn(serve::run(sync_listener, service, stopping.clone()));
    let admin = Admin {
        stores,
        publications,
        metrics,
    };
    servers.spawn(admin::run(admin_listener, admin, stopping));

    let ended = tokio::select! {
        () = shutdown => Ok(()),
        ended = workers.join_next() => failure(ended),
        ended = servers.join_next() => failure(ended),
    };
    info!("stopping");
    workers.shutdown().await;
    stop.send_replace(true);
    if timeout(STOP_TIMEOUT, join_all(&mut servers)).await.is_err() {
        warn!("connections that did not end in time are cut");
        servers.shutdown().await;
    }
    ended
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

type Ended = Option<Result<anyhow::Result<()>, tokio::task::JoinError>>;

fn failure(ended: Ended) -> anyhow::Result<()> {
    match ended {
        Some(Ok(Err(error))) => Err(error.context("a task of the operator failed")),
        Some(Err(error)) => Err(anyhow::Error::new(error).context("a task of the operator died")),
        Some(Ok(Ok(()))) | None => Err(anyhow::anyhow!("a task of the operator ended")),
    }
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

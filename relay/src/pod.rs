//! [`run`]: a relay that is a pod of a fleet. Its snapshots come from the operator, and from what it kept of them.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use relay_proto::{ObjectRef, Version};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::control::{self, Offered};
use crate::last_good::LastGood;
use crate::{Config, Relay, bind_admin, serve_admin};

/// How long a relay that is to go for good still takes senders in after it said that it is not ready, so that load balancers
/// know.
const LEAVE_PAUSE: Duration = Duration::from_secs(5);

/// Runs a relay of a fleet until `shutdown` resolves: on the last good snapshot at first, then on what the operator offers.
///
/// # Errors
/// It cannot start, or a part of it that must not end has ended.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    info!(?config, "starting");
    let admin = bind_admin(config.admin_address)?;
    let last_good = LastGood::new(&config.state_dir);
    let (mut relay, active) = start(&config, &last_good).await?;
    let relay_ref = ObjectRef::new("Relay", &config.relay.namespace, &config.relay.name);
    let operator = control::Operator {
        address: config.operator,
        ca: config.operator_ca,
        token: config.token_file,
    };
    let (leave, mut leaving) = watch::channel(false);
    let (client, mut offers) =
        control::Client::new(operator, relay_ref, &config.pod, relay.reports(), leave)?;
    relay.is_to_be_connected(client.is_connected());
    let mut shutdown = std::pin::pin!(shutdown);
    let mut admin = std::pin::pin!(serve_admin(admin, relay.view(), axum::Router::new()));
    let mut client = std::pin::pin!(client.run(active));
    // When to let nobody in any more.
    let mut shut_at = None;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Ok(()) = leaving.changed() => {
                let leave = *leaving.borrow_and_update();
                info!(leave, "the operator says whether to go for good");
                relay.set_leaving(leave);
                shut_at = leave.then(|| Instant::now() + LEAVE_PAUSE);
                if !leave {
                    relay.set_shut(false).await;
                }
            }
            () = sleep_until(shut_at.unwrap_or_else(Instant::now)), if shut_at.is_some() => {
                shut_at = None;
                relay.set_shut(true).await;
            }
            served = &mut admin => return served.context("the admin port ended"),
            () = &mut client => anyhow::bail!("the operator's client ended"),
            () = relay.failed() => anyhow::bail!("a data thread ended"),
            Some(Offered { snapshot, version, encoded, reply }) = offers.recv() => {
                let kept = snapshot.without_credentials(&encoded);
                let applied = relay.apply(snapshot, version).await;
                if applied.is_ok() && let Err(error) = last_good.save(&kept) {
                    warn!(%error, "cannot save the snapshot; a restart without an operator would begin on an older one");
                }
                reply.send(applied);
            }
        }
    }
    let drained = tokio::select! {
        drained = relay.drain() => drained,
        served = &mut admin => return served.context("the admin port ended"),
    };
    info!(lines_lost = drained.lines_lost, "stopped");
    Ok(())
}

// Returns what it runs, too: the version and the bytes.
async fn start(
    config: &Config,
    last_good: &LastGood,
) -> anyhow::Result<(Relay, Option<(Version, Bytes)>)> {
    let mut relay = Relay::start(
        config.listen_address,
        config.threads(),
        Some(&config.state_dir),
    )?;
    if config.no_spool {
        relay = relay.without_spool();
    }
    if let Some((snapshot, version, encoded)) = last_good.load()? {
        info!(%version, "starting on the last good snapshot");
        // A refusal is logged by `apply`; the operator has a better one, and until then this relay is not ready.
        if relay.apply(snapshot, version).await.is_ok() {
            return Ok((relay, Some((version, encoded))));
        }
    }
    Ok((relay, None))
}

//! The admin port: `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::publish::Publications;
use crate::run::stopped;
use crate::watch::Stores;

/// What the admin port tells of.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) stores: Arc<Stores>,
    pub(crate) publications: Publications,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `stopping` turns true.
pub(crate) async fn run(
    listener: TcpListener,
    admin: Admin,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            stopped(&mut stopping).await;
        })
        .await?;
    Ok(())
}

// One that does not lead is ready all the same: it is warm.
async fn readyz(State(admin): State<Admin>) -> Response {
    let unlisted = admin.stores.unlisted();
    if !unlisted.is_empty() {
        let message = format!("waiting for the first list of: {}\n", unlisted.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    }
    if admin.publications.borrow().is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "compiling\n").into_response();
    }
    "ok\n".into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, open_metrics)], admin.metrics.text()).into_response()
}

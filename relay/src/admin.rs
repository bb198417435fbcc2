//! The admin port: is this relay alive, does it take lines, what has it counted, which lines did it refuse, how do
//! its destinations stand.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::destinations::{Known, Orphan};
use crate::worker::Phase;
use crate::{View, listen, metrics, reuseport};

/// Binds the admin port, beside a process that has it and is about to stop.
///
/// # Errors
/// The address cannot be had.
pub fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = listen::bind_tcp(address)
        .with_context(|| format!("cannot listen on {address}, the admin address"))?;
    info!(address = %listener.local_addr()?, "admin listening");
    Ok(listener)
}

/// Serves `/livez`, `/readyz`, `/metrics`, `/destinations`, `/dead-letters`, `/refused` and `/explain?line=…` of a relay, and
/// `more` beside them. Does not end by itself. When the relay stops, a process that has the port beside this one is asked instead.
///
/// # Errors
/// The listener failed.
pub async fn serve_admin(listener: TcpListener, view: View, more: Router) -> io::Result<()> {
    let (ready, refused, explained) = (view.clone(), view.clone(), view.clone());
    let (delivering, leaving) = (view.clone(), view.clone());
    let (keeping, replaying) = (view.clone(), view.clone());
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(async move || readyz(&ready)))
        .route("/metrics", get(async move || metrics(&view)))
        .route(
            "/destinations",
            get(async move || Json(destinations(&delivering))),
        )
        .route(
            "/dead-letters",
            get(async move |question| dead_letters(&keeping, question).await),
        )
        .route(
            "/dead-letters/replay",
            post(async move |question| replay(&replaying, question).await),
        )
        .route(
            "/refused",
            get(async move || Json(refused.refused.to_json())),
        )
        .route(
            "/explain",
            get(async move |question| explain(&explained, question)),
        )
        .merge(more);
    let socket = listener.as_fd().try_clone_to_owned()?;
    let leaving = async {
        leaving.reached(Phase::Reading).await;
        if let Err(error) = reuseport::give_way(&socket, 1) {
            warn!(%error, "the process that takes over may not be asked how it is");
        }
        drop(socket);
        std::future::pending().await
    };
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served,
        () = leaving => Ok(()),
    }
}

/// What `/explain` is asked.
#[derive(serde::Deserialize)]
struct Question {
    /// A line without its newline.
    line: String,
    /// `text` or `json`, which is the default.
    output: Option<String>,
}

fn explain(view: &View, question: Result<Query<Question>, QueryRejection>) -> Response {
    let Ok(Query(Question { line, output })) = question else {
        let usage = "ask for /explain?line=NAME+VALUE+TIMESTAMP, URL-encoded, and &output=text for people\n";
        return (StatusCode::BAD_REQUEST, usage).into_response();
    };
    let explanation = view.explain(line.as_bytes());
    match output.as_deref() {
        Some("text") => format!("{explanation}\n").into_response(),
        _ => Json(explanation).into_response(),
    }
}

// `{"destinations": [{"destination": "namespace/name", "state": …}, …], "orphanedSpools": [{"destination": …}, …]}`
fn destinations(view: &View) -> Value {
    let destinations = view.destinations();
    let destinations = destinations.iter().map(|known| known.standing().to_json());
    let orphans = view.shown().orphans.clone();
    json!({
        "destinations": destinations.collect::<Value>(),
        "orphanedSpools": orphans.iter().map(Orphan::to_json).collect::<Value>(),
    })
}

/// Which destination is asked about.
#[derive(serde::Deserialize)]
struct Which {
    /// `namespace/name`.
    destination: String,
}

// The lines of a destination's dead letters, and before each group of them why they are there.
async fn dead_letters(view: &View, which: Result<Query<Which>, QueryRejection>) -> Response {
    let known = match asked(view, which) {
        Ok(known) => known,
        Err(refusal) => return *refusal,
    };
    match spawn_blocking(move || known.dead_letters()).await {
        Ok(Ok(text)) => text.into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error.into()),
    }
}

// `{"lines": 5}`: they wait for the destination again.
async fn replay(view: &View, which: Result<Query<Which>, QueryRejection>) -> Response {
    let known = match asked(view, which) {
        Ok(known) => known,
        Err(refusal) => return *refusal,
    };
    let name = Arc::clone(&known.settings.name);
    match spawn_blocking(move || known.replay_dead_letters()).await {
        Ok(Ok(lines)) => {
            info!(destination = %name, lines, "dead letters are sent again");
            Json(json!({"lines": lines})).into_response()
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error.into()),
    }
}

fn asked(view: &View, which: Result<Query<Which>, QueryRejection>) -> Result<Known, Box<Response>> {
    let Ok(Query(Which { destination })) = which else {
        let usage = "ask with ?destination=NAMESPACE/NAME\n";
        return Err(Box::new((StatusCode::BAD_REQUEST, usage).into_response()));
    };
    let mut known = view.destinations().into_iter();
    known
        .find(|known| *known.settings.name == *destination)
        .ok_or_else(|| {
            let message = format!("there is no Destination {destination} here\n");
            Box::new((StatusCode::NOT_FOUND, message).into_response())
        })
}

fn failed(error: &io::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

fn readyz(view: &View) -> (StatusCode, &'static str) {
    match view.is_ready() {
        true => (StatusCode::OK, "ok\n"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "no snapshot yet, or draining\n",
        ),
    }
}

fn metrics(view: &View) -> impl IntoResponse + use<> {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics::encode(view) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

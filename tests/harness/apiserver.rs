//! A double of the Kubernetes API: the few calls that the operator makes, for machines without kube-apiserver.
//!
//! It lists and watches the kinds that the operator watches, takes statuses by server-side apply and events, and can fail
//! like the real one: refuse, close watches, forget history. It validates nothing and fills in no defaults.

use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};

mod call;
mod store;

use call::Call;
use store::{Change, Key, Refusal, Resource, Store};

use crate::own_address;

const BODY_BYTES_MAX: usize = 4 << 20;

/// A running double. It ends when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: Ipv4Addr,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    // Sent to after every change of the store. A new epoch closes every watch.
    epoch: watch::Sender<u64>,
    // How many requests are still to be refused.
    refusals: Mutex<u32>,
    // How many watches were told that they are too old.
    expired: AtomicU32,
    // How many requests were to write something.
    writes: AtomicU32,
}

impl ApiServer {
    /// Starts it, empty, on an address of its own.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start() -> Self {
        let address = own_address();
        let listener = TcpListener::bind((address, PORT)).expect("the address is free");
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            epoch: watch::Sender::new(0),
            refusals: Mutex::default(),
            expired: AtomicU32::new(0),
            writes: AtomicU32::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let server = thread::spawn(move || serve(listener, serving, stopped));
        Self {
            shared,
            address,
            directory: TempDir::new().expect("a temporary directory can be made"),
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// A kubeconfig for it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn kubeconfig(&self) -> PathBuf {
        let server = SocketAddr::from((self.address, PORT));
        let config =
            crate::cluster::kubeconfig(&format!("http://{server}"), None, "default", "any");
        let path = self.directory.path().join("kubeconfig");
        fs::write(&path, config.to_string()).expect("a kubeconfig can be written");
        path
    }

    /// Applies an object of one of the kinds it knows; the namespace is "default".
    ///
    /// # Panics
    /// If the kind is unknown, or there is no name.
    pub fn apply(&self, object: Value) {
        let kind = object["kind"].as_str().expect("an object has a kind");
        let name = object["metadata"]["name"].as_str();
        let key = key(kind, name.expect("an object has a name"));
        self.shared.store().apply(key, object);
        self.shared.notify();
    }

    /// Deletes an object.
    ///
    /// # Panics
    /// If there is none.
    pub fn delete(&self, kind: &str, name: &str) {
        let deleted = self.shared.store().delete(&key(kind, name));
        deleted.expect("what is deleted is there");
        self.shared.notify();
    }

    /// How many requests there were to write something.
    pub fn writes(&self) -> u32 {
        self.shared.writes.load(Ordering::Relaxed)
    }

    /// An object as it is stored.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        self.shared.store().get(&key(kind, name)).cloned()
    }

    /// The events that were written, by the object that they are about: reason and note.
    pub fn events(&self, kind: &str, name: &str) -> Vec<(String, String)> {
        let resource = Resource::of_kind("Event").expect("events are served");
        let events = self.shared.store().list(resource, None);
        let about = |event: &&Value| {
            event["regarding"]["kind"] == kind && event["regarding"]["name"] == name
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = events.iter().filter(about);
        events
            .map(|event| (text(&event["reason"]), text(&event["note"])))
            .collect()
    }

    /// Answers the next `count` requests with 500.
    pub fn refuse(&self, count: u32) {
        *lock(&self.shared.refusals) = count;
    }

    /// How many requests are still to be refused.
    pub fn refusals_left(&self) -> u32 {
        *lock(&self.shared.refusals)
    }

    /// Ends every watch without a word, as a proxy may.
    pub fn close_watches(&self) {
        self.shared.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// How many watches have been told to list again.
    pub fn expired(&self) -> u32 {
        self.shared.expired.load(Ordering::Relaxed)
    }

    /// Forgets its history: every watch is told that it is too old, and must list again.
    pub fn forget_history(&self) {
        self.shared.store().compact();
        self.shared.notify();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.close_watches();
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            server.join().expect("serving does not panic");
        }
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn notify(&self) {
        self.epoch.send_modify(|_| ());
    }

    fn refuses(&self) -> bool {
        let mut left = lock(&self.refusals);
        let refuses = *left > 0;
        *left = left.saturating_sub(1);
        refuses
    }
}

const PORT: u16 = 8001;

fn key(kind: &str, name: &str) -> Key {
    let resource = Resource::of_kind(kind);
    let resource = resource.unwrap_or_else(|| panic!("no such kind: {kind}"));
    (resource, "default".into(), name.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime can be made").block_on(async {
        listener
            .set_nonblocking(true)
            .expect("sockets have this option");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime is here");
        let router = Router::new().fallback(answer).with_state(shared);
        tokio::select! {
            served = axum::serve(listener, router) => served.expect("a listener accepts"),
            _ = stopped => {}
        }
    });
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if shared.refuses() {
        return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
    }
    let Some(call) = Call::parse(&parts.uri) else {
        return status(StatusCode::NOT_FOUND, "NotFound");
    };
    if parts.method != Method::GET {
        shared.writes.fetch_add(1, Ordering::Relaxed);
    }
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let object = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
    match (&parts.method, call) {
        (&Method::GET, call) if call.watch => watch_response(shared, call),
        (&Method::GET, call) => read(&shared.store(), &call),
        (&Method::POST, call) if call.is("events") => {
            let name = object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .into();
            let key = (call.resource, call.namespace.unwrap_or_default(), name);
            json_response(&shared.store().put(key, object))
        }
        (&Method::PATCH, call) => {
            let applies = parts.headers.get(header::CONTENT_TYPE);
            let applies = applies.is_some_and(|kind| kind == "application/apply-patch+yaml");
            let response = patch(&mut shared.store(), call, applies, object);
            shared.notify();
            response
        }
        _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn read(store: &Store, call: &Call) -> Response {
    let Some(key) = call.key() else {
        let mut items = store.list(call.resource, call.namespace.as_deref());
        items.retain(|object| call.selects(object));
        return json_response(&json!({
            "kind": format!("{}List", call.resource.kind),
            "apiVersion": call.resource.api_version,
            "metadata": {"resourceVersion": store.revision().to_string()},
            "items": items,
        }));
    };
    store
        .get(&key)
        .map_or_else(|| status(StatusCode::NOT_FOUND, "NotFound"), json_response)
}

// Statuses are applied; events get their series by a merge, of which the double keeps only that there was one.
fn patch(store: &mut Store, call: Call, applies: bool, object: Value) -> Response {
    let Some(key) = call.key() else {
        return status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed");
    };
    if call.is("events") {
        let Some(mut event) = store.get(&key).cloned() else {
            return status(StatusCode::NOT_FOUND, "NotFound");
        };
        event["series"] = object["series"].clone();
        return json_response(&store.put(key, event));
    }
    let named = object["kind"] == key.0.kind && object["apiVersion"] == key.0.api_version;
    if call.subresource.as_deref() != Some("status") || !applies || !named || !call.field_manager {
        return status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid");
    }
    match store.apply_status(key, &object) {
        Ok(object) => json_response(&object),
        Err(Refusal::NotFound) => status(StatusCode::NOT_FOUND, "NotFound"),
        Err(Refusal::Conflict) => status(StatusCode::CONFLICT, "Conflict"),
    }
}

// One watch: where it has come to, and what ends it.
struct Watch {
    shared: Arc<Shared>,
    call: Call,
    revision: u64,
    wake: watch::Receiver<u64>,
    epoch: u64,
}

fn watch_response(shared: Arc<Shared>, call: Call) -> Response {
    let mut wake = shared.epoch.subscribe();
    let epoch = *wake.borrow_and_update();
    let watch = Watch {
        revision: call.resource_version,
        epoch,
        shared,
        call,
        wake,
    };
    let events = stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        loop {
            match watch.next() {
                Next::Events(text) => return Some((text, Some(watch))),
                Next::TooOld(text) => return Some((text, None)),
                Next::Nothing => {}
            }
            let woken = watch.wake.changed().await;
            if woken.is_err() || *watch.wake.borrow() != watch.epoch {
                return None;
            }
        }
    });
    let body = Body::from_stream(events.map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

enum Next {
    Events(String),
    TooOld(String),
    Nothing,
}

impl Watch {
    fn next(&mut self) -> Next {
        let store = self.shared.store();
        let Some(changes) = store.changes_since(self.revision) else {
            self.shared.expired.fetch_add(1, Ordering::Relaxed);
            let gone = failure(StatusCode::GONE, "Expired");
            return Next::TooOld(format!("{}\n", json!({"type": "ERROR", "object": gone})));
        };
        self.revision = store.revision();
        let changes = changes.iter().filter(|change| self.call.covers(change));
        let lines = changes.map(|Change { event, object, .. }| {
            format!("{}\n", json!({"type": event, "object": object}))
        });
        let text: String = lines.collect();
        if text.is_empty() {
            return Next::Nothing;
        }
        Next::Events(text)
    }
}

fn json_response(value: &Value) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, value.to_string()).into_response()
}

fn status(code: StatusCode, reason: &str) -> Response {
    (code, json_response(&failure(code, reason))).into_response()
}

fn failure(code: StatusCode, reason: &str) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": format!("the double says {reason}"),
        "reason": reason,
        "code": code.as_u16(),
    })
}

//! A server that takes what is posted to it, and answers as it is told.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::server_config;
use crate::{Authority, DEADLINE, own_address};

/// A server that takes what is posted to it.
#[derive(Debug)]
pub struct HttpSink {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What was posted.
#[derive(Clone, Debug)]
pub struct Posted {
    /// The path, with what was asked.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What was answered.
    pub answer: Answer,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// One without headers and body.
    pub fn of(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }
}

type Judge = Box<dyn Fn(&Posted) -> Option<Answer> + Send>;

#[derive(Default)]
struct Shared {
    state: Mutex<Server>,
    changed: Condvar,
}

#[derive(Default)]
struct Server {
    posted: Vec<Posted>,
    answers: VecDeque<Answer>,
    judge: Option<Judge>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Server> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpSink {
    /// One on an address of its own, where nobody listens yet.
    pub fn absent() -> Self {
        Self {
            shared: Arc::default(),
            address: (own_address(), 9090).into(),
            tls: None,
            server: None,
        }
    }

    /// One that answers 200 to everything.
    pub fn open() -> Self {
        let mut sink = Self::absent();
        sink.reopen();
        sink
    }

    /// One that speaks TLS, with a certificate of `authority`, to those who show one of the same.
    pub fn open_encrypted(authority: &Authority) -> Self {
        let mut sink = Self::absent();
        sink.encrypt(authority, Some(authority));
        sink.reopen();
        sink
    }

    /// Has it speak TLS when it listens the next time, with a certificate of `authority`: to whoever comes, or to those alone who
    /// show one of `clients`.
    pub fn encrypt(&mut self, authority: &Authority, clients: Option<&Authority>) {
        let identity = authority.identity(&self.address.ip().to_string());
        self.tls = Some(Arc::new(server_config(&identity, clients)));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens.
    ///
    /// # Panics
    /// If it cannot.
    pub fn reopen(&mut self) {
        let listener = std::net::TcpListener::bind(self.address);
        let listener = listener.expect("the address is free");
        listener
            .set_nonblocking(true)
            .expect("sockets have this option");
        let (stop, stopped) = oneshot::channel();
        let (shared, tls) = (Arc::clone(&self.shared), self.tls.clone());
        let serve = async move {
            let listener = TcpListener::from_std(listener).expect("it is a listener");
            let router = Router::new().fallback(take).with_state(shared);
            let serving = async {
                match tls {
                    None => axum::serve(listener, router).await,
                    Some(config) => {
                        let acceptor = TlsAcceptor::from(config);
                        axum::serve(Encrypted { listener, acceptor }, router).await
                    }
                }
            };
            tokio::select! {
                served = serving => served.expect("a listener accepts"),
                _ = stopped => {}
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        self.server = Some((stop, thread::spawn(move || runtime.block_on(serve))));
    }

    /// Goes away: connections end, whatever is going on.
    ///
    /// # Panics
    /// If the server had failed.
    pub fn close(&mut self) {
        if let Some((stop, server)) = self.server.take() {
            drop(stop);
            server.join().expect("the server does not fail");
        }
    }

    /// Gives these answers to the next requests, before anything else.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.lock().answers.extend(answers);
    }

    /// Has somebody judge every request; `None` from him is 200.
    pub fn judge(&self, judge: impl Fn(&Posted) -> Option<Answer> + Send + 'static) {
        self.shared.lock().judge = Some(Box::new(judge));
    }

    /// What was posted so far, whatever the answer.
    pub fn posted(&self) -> Vec<Posted> {
        self.shared.lock().posted.clone()
    }

    /// Waits until what was posted is as it should be, and returns it.
    ///
    /// # Panics
    /// If it is not in time.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&[Posted]) -> bool) -> Vec<Posted> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.shared.lock();
        while !holds(&state.posted) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "{what}: not in time, of {} requests",
                state.posted.len()
            );
            let waited = self.shared.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.posted.clone()
    }
}

// Who comes and cannot agree with us is passed over.
struct Encrypted {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.close();
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut posted = Posted {
        uri,
        headers,
        body,
        answer: Answer::of(200),
    };
    let mut state = shared.lock();
    let queued = state.answers.pop_front();
    let judged = || state.judge.as_ref().and_then(|judge| judge(&posted));
    if let Some(answer) = queued.or_else(judged) {
        posted.answer = answer;
    }
    let answer = posted.answer.clone();
    state.posted.push(posted);
    drop(state);
    shared.changed.notify_all();
    let status = StatusCode::from_u16(answer.status).expect("it is a status");
    let mut response = (status, answer.body).into_response();
    for (name, value) in answer.headers {
        let value = value.parse().expect("it is a header");
        response.headers_mut().insert(name, value);
    }
    response
}

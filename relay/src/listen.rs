//! Where lines come in: sockets that are bound while the table names them, and the counting of their connections.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use relay_engine::{Listener, ListenerTls};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::connection::Accepted;
use crate::reuseport;
use crate::worker::Workers;

/// Connections that the kernel may hold for us to accept.
const BACKLOG: i32 = 4096;

/// How long a listener that is no longer wanted goes on accepting: whoever is connecting is let in, and who comes later finds
/// the other process, if there is one.
const LINGER: Duration = Duration::from_millis(250);

/// How long accepting rests after it failed, as it does when file descriptors run out.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A listener at work.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) name: Arc<str>,
    settings: ArcSwap<Listener>,
    // What new connections are encrypted with; made of `settings`.
    tls: ArcSwapOption<ServerConfig>,
    stop: CancellationToken,
    pub(crate) connections: AtomicUsize,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
}

impl Listening {
    pub(crate) fn settings(&self) -> arc_swap::Guard<Arc<Listener>> {
        self.settings.load()
    }

    /// What a new connection is encrypted with, if it is.
    pub(crate) fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.load_full()
    }

    /// Resolves when the listener is no longer wanted.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    // A place for one more connection, if there is one.
    fn seat(self: &Arc<Self>) -> Option<Seat> {
        let seat = Seat(Arc::clone(self));
        let taken = self.connections.fetch_add(1, Ordering::Relaxed);
        (taken < self.settings().connections_max).then_some(seat)
    }
}

/// A connection's place among those of its listener.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Listening>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All listeners. One that changes its port is another listener.
#[derive(Default)]
pub(crate) struct Listeners {
    active: BTreeMap<Key, Arc<Listening>>,
    acceptors: JoinSet<()>,
}

type Key = (Arc<str>, u16);

/// Listeners of a table that is not yet in force.
pub(crate) struct Prepared(Vec<PreparedListener>);

struct PreparedListener {
    settings: Listener,
    tls: Option<Arc<ServerConfig>>,
    // `None`: it is bound already.
    socket: Option<TcpListener>,
}

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: {source}")]
pub(crate) struct PrepareError {
    /// The listener's name.
    pub(crate) listener: Arc<str>,
    pub(crate) source: Fault,
}

/// What is wrong with a listener.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The port cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Port(SocketAddr, io::Error),
    /// TLS cannot run on its certificate.
    #[error("{0}")]
    Certificate(relay_tls::Error),
    /// TLS cannot run on its clients' CA.
    #[error("{0}")]
    ClientCa(relay_tls::Error),
}

impl Fault {
    /// The field of the listener that it is about.
    pub(crate) const fn field(&self) -> &'static str {
        match self {
            Self::Port(..) => "port",
            Self::Certificate(_) => "tls.certificate",
            Self::ClientCa(_) => "tls.clientCa",
        }
    }
}

impl Listeners {
    /// Binds what `wanted` has and this has not, and makes TLS ready where it is new.
    ///
    /// # Errors
    /// The first listener that cannot be had; nothing has changed then.
    pub(crate) fn prepare(
        &self,
        wanted: &[Listener],
        address: IpAddr,
    ) -> Result<Prepared, PrepareError> {
        let prepared = wanted.iter().map(|settings| {
            let listener = || Arc::clone(&settings.name);
            let active = self.active.get(&(listener(), settings.port));
            let address = SocketAddr::new(address, settings.port);
            let fault = |source| PrepareError {
                listener: listener(),
                source,
            };
            let tls = match active.filter(|active| active.settings().tls == settings.tls) {
                Some(active) => active.tls(),
                None => settings
                    .tls
                    .as_ref()
                    .map(acceptor)
                    .transpose()
                    .map_err(fault)?,
            };
            let socket = match active {
                Some(_) => None,
                None => Some(bind(address).map_err(|error| fault(Fault::Port(address, error)))?),
            };
            Ok(PreparedListener {
                settings: settings.clone(),
                tls,
                socket,
            })
        });
        prepared.collect::<Result<_, _>>().map(Prepared)
    }

    /// Takes the prepared sockets into service, and those that are no longer wanted out of it. `open` is dropped with the last
    /// connection.
    pub(crate) fn commit(
        &mut self,
        prepared: Prepared,
        workers: &Workers,
        open: &mpsc::Sender<()>,
    ) {
        let mut before = std::mem::take(&mut self.active);
        for listener in prepared.0 {
            let PreparedListener {
                settings,
                tls,
                socket,
            } = listener;
            let key = (Arc::clone(&settings.name), settings.port);
            let kept = before.remove(&key);
            let listening = match (kept, socket) {
                (Some(listening), _) => {
                    listening.settings.store(Arc::new(settings));
                    listening.tls.store(tls);
                    listening
                }
                (None, None) => continue,
                (None, Some(socket)) => self.start(settings, tls, socket, workers, open),
            };
            self.active.insert(key, listening);
        }
        for ((name, port), listening) in before {
            info!(listener = %name, port, "no longer listening");
            listening.stop.cancel();
        }
    }

    /// Stops listening. Who is connected stays so.
    pub(crate) fn close(&mut self) {
        for listening in std::mem::take(&mut self.active).into_values() {
            listening.stop.cancel();
        }
    }

    /// Resolves when every acceptor has ended.
    pub(crate) async fn closed(&mut self) {
        while self.acceptors.join_next().await.is_some() {}
    }

    /// The listeners at work.
    pub(crate) fn active(&self) -> Vec<Arc<Listening>> {
        self.active.values().map(Arc::clone).collect()
    }

    fn start(
        &mut self,
        settings: Listener,
        tls: Option<Arc<ServerConfig>>,
        socket: TcpListener,
        workers: &Workers,
        open: &mpsc::Sender<()>,
    ) -> Arc<Listening> {
        let listening = Arc::new(Listening {
            name: Arc::clone(&settings.name),
            settings: ArcSwap::from_pointee(settings),
            tls: ArcSwapOption::new(tls),
            stop: CancellationToken::new(),
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
        });
        if let Ok(address) = socket.local_addr() {
            info!(listener = %listening.name, %address, "listening");
        }
        let accept = accept(
            socket,
            Arc::clone(&listening),
            workers.clone(),
            open.clone(),
        );
        self.acceptors.spawn(accept);
        listening
    }
}

fn acceptor(tls: &ListenerTls) -> Result<Arc<ServerConfig>, Fault> {
    let (certificate, key) = (&tls.identity.certificate, &tls.identity.key);
    let identity =
        relay_tls::identity(certificate.as_bytes(), key.as_bytes()).map_err(Fault::Certificate)?;
    let client_ca = tls.client_ca.as_ref();
    let client_ca = client_ca
        .map(|ca| relay_tls::authorities(ca.as_bytes()))
        .transpose()
        .map_err(Fault::ClientCa)?;
    Ok(relay_tls::acceptor(identity, client_ca))
}

/// Listens with SO_REUSEPORT, which lets a second process take the port over before this one stops.
///
/// # Errors
/// The address cannot be had.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(
    socket: TcpListener,
    listening: Arc<Listening>,
    workers: Workers,
    open: mpsc::Sender<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = listening.stopped() => break,
        };
        match accepted.and_then(|(stream, source)| Ok((stream.into_std()?, source))) {
            Ok((stream, source)) => {
                hand_over(stream, source, &listening, &workers, &open).await;
            }
            Err(error) => {
                warn!(listener = %listening.name, %error, "cannot accept a connection");
                sleep(ACCEPT_REST).await;
            }
        }
    }
    if let Err(error) = reuseport::give_way(&socket) {
        warn!(listener = %listening.name, %error, "who connects now may be refused");
    }
    let end = sleep(LINGER);
    let mut end = pin!(end);
    loop {
        tokio::select! {
            accepted = socket.accept() => {
                let accepted = accepted.and_then(|(stream, source)| Ok((stream.into_std()?, source)));
                let Ok((stream, source)) = accepted else { break };
                hand_over(stream, source, &listening, &workers, &open).await;
            }
            () = &mut end => break,
        }
    }
    // Those whom the kernel has let in already may have sent lines.
    let Ok(socket) = socket.into_std() else {
        return;
    };
    while let Ok((stream, source)) = socket.accept() {
        if stream.set_nonblocking(true).is_ok() {
            hand_over(stream, source, &listening, &workers, &open).await;
        }
    }
}

async fn hand_over(
    stream: std::net::TcpStream,
    source: SocketAddr,
    listening: &Arc<Listening>,
    workers: &Workers,
    open: &mpsc::Sender<()>,
) {
    let Some(seat) = listening.seat() else {
        listening.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    listening.accepted.fetch_add(1, Ordering::Relaxed);
    let listening = Arc::clone(listening);
    workers
        .serve(Accepted {
            stream,
            source,
            listening,
            seat,
            load: None,
            open: open.clone(),
        })
        .await;
}

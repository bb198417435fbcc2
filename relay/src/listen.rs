//! Where lines come in: sockets that are bound while the table names them, and the counting of their connections.

mod acceptor;
mod sources;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use relay_engine::{ListenAddress, Listener, ListenerTls};
use rustls::ServerConfig;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::connection::Accepted;
use crate::datagrams::Receiver;
use crate::source::Source;
use crate::worker::Workers;
use acceptor::Acceptor;
pub(crate) use acceptor::{Socket, bind_tcp, bind_udp};
pub(crate) use sources::SourceSeat;
use sources::Sources;

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
    pub(crate) sources_refused: AtomicU64,
    pub(crate) proxy_headers_invalid: AtomicU64,
    sources: Arc<Sources>,
    pub(crate) datagrams: AtomicU64,
    pub(crate) datagrams_dropped: AtomicU64,
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

    /// A connection's place among those of its address, if that may connect. What is refused is counted.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<SourceSeat> {
        let address = address.to_canonical();
        if !self.allows(address) {
            self.sources_refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let connections_max = self.settings().connections_per_source_max;
        let seat = self
            .sources
            .seat(address, connections_max.unwrap_or(usize::MAX));
        if seat.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        seat
    }

    /// Whether a datagram is taken from an address.
    pub(crate) fn takes_datagram(&self, address: IpAddr, datagram: &[u8]) -> Result<(), Untaken> {
        let address = address.to_canonical();
        if !self.allows(address) {
            self.sources_refused.fetch_add(1, Ordering::Relaxed);
            return Err(Untaken::NotAllowed);
        }
        let Some(limit) = self.settings().lines_per_second_per_source else {
            return Ok(());
        };
        let newlines = memchr::memchr_iter(b'\n', datagram).count();
        let is_open = datagram.last().is_some_and(|byte| *byte != b'\n');
        let lines = newlines as u64 + u64::from(is_open);
        let is_taken = self.sources.take(address, lines, limit);
        is_taken.then_some(()).ok_or(Untaken::RateLimited { lines })
    }

    fn allows(&self, address: IpAddr) -> bool {
        let settings = self.settings();
        let allowed = &settings.allowed_sources;
        allowed.is_empty() || allowed.iter().any(|network| network.contains(&address))
    }

    // A place for one more connection, if there is one.
    fn seat(self: &Arc<Self>) -> Option<Seat> {
        let seat = Seat(Arc::clone(self));
        let taken = self.connections.fetch_add(1, Ordering::Relaxed);
        (taken < self.settings().connections_max).then_some(seat)
    }
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untaken {
    NotAllowed,
    RateLimited { lines: u64 },
}

/// A connection's place among those of its listener.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Listening>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All listeners. One that changes where it listens, or for what, is another listener.
#[derive(Default)]
pub(crate) struct Listeners {
    active: BTreeMap<Key, Arc<Listening>>,
    acceptors: JoinSet<()>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: Arc<str>,
    address: ListenAddress,
    is_stream: bool,
    is_datagram: bool,
}

impl Key {
    fn of(settings: &Listener) -> Self {
        Self {
            name: Arc::clone(&settings.name),
            address: settings.address.clone(),
            is_stream: settings.is_stream(),
            is_datagram: settings.is_datagram(),
        }
    }
}

/// Listeners of a table that is not yet in force.
pub(crate) struct Prepared(Vec<PreparedListener>);

struct PreparedListener {
    settings: Listener,
    tls: Option<Arc<ServerConfig>>,
    // `None`: they are bound already.
    sockets: Option<Sockets>,
}

// What a listener listens on.
struct Sockets {
    acceptor: Option<Acceptor>,
    // One for each data thread.
    datagrams: Vec<std::net::UdpSocket>,
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
    /// The unix socket cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    UnixSocket(PathBuf, io::Error),
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
            Self::UnixSocket(..) => "unixSocket.path",
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
        threads: usize,
    ) -> Result<Prepared, PrepareError> {
        let prepared = wanted.iter().map(|settings| {
            let active = self.active.get(&Key::of(settings));
            let fault = |source| PrepareError {
                listener: Arc::clone(&settings.name),
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
            let sockets = match active {
                Some(_) => None,
                None => Some(Sockets::bind(settings, address, threads).map_err(fault)?),
            };
            Ok(PreparedListener {
                settings: settings.clone(),
                tls,
                sockets,
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
                sockets,
            } = listener;
            let key = Key::of(&settings);
            let kept = before.remove(&key);
            let listening = match (kept, sockets) {
                (Some(listening), _) => {
                    listening.settings.store(Arc::new(settings));
                    listening.tls.store(tls);
                    listening
                }
                (None, None) => continue,
                (None, Some(sockets)) => self.start(settings, tls, sockets, workers, open),
            };
            self.active.insert(key, listening);
        }
        for (Key { name, .. }, listening) in before {
            info!(listener = %name, "no longer listening");
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
        sockets: Sockets,
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
            sources_refused: AtomicU64::new(0),
            proxy_headers_invalid: AtomicU64::new(0),
            sources: Arc::default(),
            datagrams: AtomicU64::new(0),
            datagrams_dropped: AtomicU64::new(0),
        });
        let Sockets {
            acceptor,
            datagrams,
        } = sockets;
        if let Some(acceptor) = acceptor {
            info!(listener = %listening.name, address = %acceptor, "listening");
            let accept = accept(
                acceptor,
                Arc::clone(&listening),
                workers.clone(),
                open.clone(),
            );
            self.acceptors.spawn(accept);
        }
        if let Some(address) = datagrams
            .first()
            .and_then(|socket| socket.local_addr().ok())
        {
            info!(listener = %listening.name, %address, "listening for datagrams");
            let receiver = |socket| Receiver {
                socket,
                listening: Arc::clone(&listening),
                _open: open.clone(),
            };
            let receivers = datagrams.into_iter().map(receiver).collect();
            let workers = workers.clone();
            self.acceptors
                .spawn(async move { workers.receive(receivers).await });
        }
        listening
    }
}

impl Sockets {
    fn bind(settings: &Listener, address: IpAddr, threads: usize) -> Result<Self, Fault> {
        match &settings.address {
            ListenAddress::Port(port) => {
                let address = SocketAddr::new(address, *port);
                Self::bind_port(settings, address, threads)
                    .map_err(|error| Fault::Port(address, error))
            }
            ListenAddress::Unix { path, mode } => {
                let acceptor = Acceptor::bind_unix(path, *mode)
                    .map_err(|error| Fault::UnixSocket(path.clone(), error))?;
                Ok(Self {
                    acceptor: Some(acceptor),
                    datagrams: Vec::new(),
                })
            }
        }
    }

    fn bind_port(settings: &Listener, address: SocketAddr, threads: usize) -> io::Result<Self> {
        let acceptor = settings.is_stream().then(|| Acceptor::bind_tcp(address));
        let sockets = if settings.is_datagram() { threads } else { 0 };
        let datagrams = (0..sockets).map(|_| bind_udp(address));
        Ok(Self {
            acceptor: acceptor.transpose()?,
            datagrams: datagrams.collect::<io::Result<_>>()?,
        })
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

async fn accept(
    acceptor: Acceptor,
    listening: Arc<Listening>,
    workers: Workers,
    open: mpsc::Sender<()>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            () = listening.stopped() => break,
        };
        match accepted {
            Ok((socket, source)) => {
                hand_over(socket, source, &listening, &workers, &open).await;
            }
            Err(error) => {
                warn!(listener = %listening.name, %error, "cannot accept a connection");
                sleep(ACCEPT_REST).await;
            }
        }
    }
    if let Err(error) = acceptor.give_way() {
        warn!(listener = %listening.name, %error, "who connects now may be refused");
    }
    let end = sleep(LINGER);
    let mut end = pin!(end);
    loop {
        tokio::select! {
            accepted = acceptor.accept() => {
                let Ok((socket, source)) = accepted else { break };
                hand_over(socket, source, &listening, &workers, &open).await;
            }
            () = &mut end => break,
        }
    }
    // Those whom the kernel has let in already may have sent lines.
    let Ok(waiting) = acceptor.into_waiting() else {
        return;
    };
    for (socket, source) in waiting {
        hand_over(socket, source, &listening, &workers, &open).await;
    }
}

async fn hand_over(
    socket: Socket,
    source: Source,
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
            socket,
            source,
            listening,
            seat,
            load: None,
            open: open.clone(),
        })
        .await;
}

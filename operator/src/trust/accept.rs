//! Connections of relays, as TLS, each with the certificate of the moment.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

/// What a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at the same time; who comes then waits in the kernel.
const HANDSHAKES_MAX: usize = 256;
/// How long accepting rests after it failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The certificate that is shown from now on.
#[derive(Debug, Default)]
pub(crate) struct Certificate(ArcSwapOption<CertifiedKey>);

impl Certificate {
    pub(crate) fn set(&self, certificate: CertifiedKey) {
        self.0.store(Some(Arc::new(certificate)));
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// Accepts connections, on a task in `tasks`.
pub(crate) fn incoming(
    listener: TcpListener,
    certificate: Arc<Certificate>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + use<> {
    let (accepted, connections) = mpsc::channel(1);
    let acceptor = TlsAcceptor::from(relay_tls::http2_acceptor(certificate));
    tasks.spawn(accept(listener, acceptor, accepted));
    ReceiverStream::new(connections)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) -> anyhow::Result<()> {
    let mut handshakes = JoinSet::new();
    loop {
        tokio::select! {
            connection = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match connection {
                Ok((stream, _)) => {
                    let acceptor = acceptor.clone();
                    handshakes.spawn(timeout(HANDSHAKE_TIMEOUT, shake_hands(stream, acceptor)));
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_REST).await;
                }
            },
            Some(done) = handshakes.join_next() => match done {
                Ok(Ok(Ok(stream))) => {
                    if accepted.send(Ok(stream)).await.is_err() {
                        // Nobody serves any more.
                        return Ok(());
                    }
                }
                Ok(Ok(Err(error))) => debug!(%error, "TLS was not agreed on"),
                Ok(Err(_)) => debug!("a handshake took too long"),
                Err(error) => warn!(%error, "a handshake died"),
            },
            () = accepted.closed() => return Ok(()),
        }
    }
}

async fn shake_hands(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    acceptor.accept(stream).await
}

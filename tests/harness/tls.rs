//! TLS as others speak it: a CA, senders, and a carbon server behind TLS.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, RootCertStore, ServerConfig,
    ServerConnection, StreamOwned,
};
use socket2::SockRef;

use crate::{DEADLINE, eventually, own_address};

/// A certificate authority of a test's own.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate, in PEM.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

static AUTHORITIES: AtomicU32 = AtomicU32::new(0);

/// A certificate with its key, in PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// Never.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // CAs are told apart by their names first.
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("CA {number} of a test");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.self_signed(&key).expect("a CA signs for itself");
        Self {
            certificate: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs a certificate for a host.
    ///
    /// # Panics
    /// If `host` is neither a host name nor an IP address.
    pub fn identity(&self, host: &str) -> Identity {
        let params = CertificateParams::new([host.to_owned()]).expect("the host is one");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer);
        Identity {
            certificate: certificate.expect("a CA signs anything").pem(),
            key: key.serialize_pem(),
        }
    }

    /// A Secret with the CA's certificate.
    pub fn secret(&self, name: &str) -> String {
        secret(name, &[("ca.crt", &self.certificate)])
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes());
        let added = roots.add(certificate.expect("we made it"));
        added.expect("it is that of a CA");
        Arc::new(roots)
    }
}

impl Identity {
    /// A Secret with the certificate and its key.
    pub fn secret(&self, name: &str) -> String {
        let entries = [("tls.crt", &*self.certificate), ("tls.key", &*self.key)];
        secret(name, &entries)
    }

    /// The certificate, as it is shown in a handshake.
    ///
    /// # Panics
    /// Never.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("we made it")
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("we made it")
    }
}

/// What a server with this certificate says, to whoever comes, or to those alone who show a certificate of a CA.
pub(crate) fn server_config(identity: &Identity, clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for every version");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(clients.roots(), provider)
                .build()
                .expect("there is a CA"),
        ),
    };
    let config = builder.with_single_cert(vec![identity.der()], identity.key());
    config.expect("the key is the certificate's")
}

/// A Secret in YAML.
pub fn secret(name: &str, entries: &[(&str, &str)]) -> String {
    let entries = entries.iter();
    let entries: Vec<_> = entries
        .map(|(key, value)| format!("{key}: {value:?}"))
        .collect();
    let entries = entries.join(", ");
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{{entries}}}\n")
}

/// A connection to a relay that speaks TLS.
#[derive(Debug)]
pub struct TlsSender(StreamOwned<ClientConnection, TcpStream>);

impl TlsSender {
    /// Connects to a relay that must have a certificate of `authority` for the host "relay", showing `identity` if asked.
    ///
    /// # Errors
    /// The two do not agree.
    ///
    /// # Panics
    /// If nobody listens there.
    pub fn connect(
        address: SocketAddr,
        authority: &Authority,
        identity: Option<&Identity>,
    ) -> io::Result<Self> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for every version")
            .with_root_certificates(authority.roots());
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.der()], identity.key())
                .expect("the key is the certificate's"),
        };
        let name = ServerName::try_from("relay").expect("it is a host name");
        let session = ClientConnection::new(Arc::new(config), name);
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("somebody listens");
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let session = session.expect("the configuration is whole");
        let mut stream = StreamOwned::new(session, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self(stream))
    }

    /// What the relay shows of itself.
    pub fn shown(&self) -> Option<CertificateDer<'static>> {
        let shown = self.0.conn.peer_certificates()?.first()?;
        Some(shown.clone().into_owned())
    }

    /// Sends these bytes.
    ///
    /// # Panics
    /// If the relay is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = self.0.write_all(bytes.as_ref());
        sent.and_then(|()| self.0.flush())
            .expect("the relay takes what is sent");
    }

    /// Says that no more will come, and waits until the relay has ended too: by then it has read everything.
    ///
    /// # Panics
    /// If it does not end in good order.
    pub fn close(mut self) {
        self.0.conn.send_close_notify();
        self.0.flush().expect("the relay takes what is sent");
        let ended = self.0.read(&mut [0; 64]);
        assert_eq!(ended.expect("the relay ends in good order"), 0);
    }

    /// Goes away without a word in the session, as if the connection had been cut.
    ///
    /// # Panics
    /// If the relay is gone.
    pub fn cut(self) {
        let shut = self.0.sock.shutdown(Shutdown::Write);
        shut.expect("an open connection can be shut down");
    }

    /// Waits until the relay has ended the connection, and returns why, in the words of TLS.
    ///
    /// # Panics
    /// If it does not end it, or in good order.
    pub fn wait_until_refused(mut self) -> String {
        let refusal = self.0.read(&mut [0; 64]);
        refusal.expect_err("the relay refuses this").to_string()
    }
}

/// A carbon server behind TLS, on an address of its own, port 2003, that keeps what it gets.
#[derive(Debug)]
pub struct TlsSink {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
}

/// What came over one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConnection {
    /// What the peer showed of itself.
    pub shown: Option<CertificateDer<'static>>,
    /// Every byte, in order.
    pub bytes: Vec<u8>,
    /// Whether the peer ended it in good order.
    pub closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_paused: bool,
    connections: Vec<TlsConnection>,
    handshakes_failed: usize,
    open: Vec<(TcpStream, JoinHandle<()>)>,
}

impl TlsSink {
    /// A server that shows `identity`, and with `clients` takes those only to whom it gave a certificate.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn open(identity: &Identity, clients: Option<&Authority>) -> Self {
        let config = Arc::new(server_config(identity, clients));
        let address = (own_address(), 2003).into();
        let listener = Arc::new(TcpListener::bind(address).expect("the address is free"));
        let shared = Arc::<Shared>::default();
        let (accepting, sharing) = (Arc::clone(&listener), Arc::clone(&shared));
        let acceptor = thread::spawn(move || accept(&accepting, &config, &sharing));
        Self {
            address,
            shared,
            listener,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads no more, and takes no connection that is not made yet.
    pub fn pause(&self) {
        self.shared.lock().is_paused = true;
    }

    /// Reads again.
    pub fn resume(&self) {
        self.shared.lock().is_paused = false;
        self.shared.changed.notify_all();
    }

    /// Every connection whose handshake was good, in the order of their beginning.
    pub fn connections(&self) -> Vec<TlsConnection> {
        self.shared.lock().connections.clone()
    }

    /// Everything that came, one connection after the other.
    ///
    /// # Panics
    /// If it is not text.
    pub fn text(&self) -> String {
        let bytes = self.connections();
        let bytes = bytes.into_iter().flat_map(|connection| connection.bytes);
        String::from_utf8(bytes.collect()).expect("only ASCII is forwarded")
    }

    /// Waits until this many lines have come, and returns all that have.
    ///
    /// # Panics
    /// If there are fewer in time.
    pub fn wait_for_lines(&self, count: usize) -> Vec<String> {
        let what = format!("{count} lines at the TLS sink on {}", self.address);
        eventually(DEADLINE, &what, || {
            let text = self.text();
            match text.lines().count() {
                found if found >= count => Ok(text.lines().map(str::to_owned).collect()),
                found => Err(format!("{found} came")),
            }
        })
    }

    /// Waits until this many handshakes have failed.
    ///
    /// # Panics
    /// If fewer do in time.
    pub fn wait_for_failed_handshakes(&self, count: usize) {
        let what = format!(
            "{count} failed handshakes at the TLS sink on {}",
            self.address
        );
        eventually(DEADLINE, &what, || {
            match self.shared.lock().handshakes_failed {
                failed if failed >= count => Ok(()),
                failed => Err(format!("{failed} did")),
            }
        });
    }

    /// Waits until the peer has ended every connection, in good order.
    ///
    /// # Panics
    /// If it has not in time.
    pub fn wait_until_closed(&self) {
        eventually(DEADLINE, "every TLS connection to be closed", || {
            let connections = self.connections();
            match connections
                .iter()
                .filter(|connection| !connection.closed)
                .count()
            {
                0 => Ok(()),
                open => Err(format!("{open} are not")),
            }
        });
    }
}

impl Drop for TlsSink {
    fn drop(&mut self) {
        self.resume();
        // wakes up the thread in accept(); an error means that it is not there any more
        SockRef::from(&*self.listener).shutdown(Shutdown::Both).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("accepting does not panic");
        }
        let open = std::mem::take(&mut self.shared.lock().open);
        for (stream, reader) in open {
            // wakes up the thread in read(); an error means that the peer has gone first
            stream.shutdown(Shutdown::Both).ok();
            reader.join().expect("reading does not panic");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_resumed(&self) {
        let state = self.lock();
        let resumed = self.changed.wait_while(state, |state| state.is_paused);
        drop(resumed.unwrap_or_else(PoisonError::into_inner));
    }
}

fn accept(listener: &TcpListener, config: &Arc<ServerConfig>, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        let session = ServerConnection::new(Arc::clone(config));
        let session = session.expect("the configuration is whole");
        let handle = stream.try_clone().expect("a socket has two handles");
        let sharing = Arc::clone(shared);
        let reader = thread::spawn(move || receive(StreamOwned::new(session, stream), &sharing));
        shared.lock().open.push((handle, reader));
    }
}

fn receive(mut stream: StreamOwned<ServerConnection, TcpStream>, shared: &Shared) {
    shared.wait_until_resumed();
    if stream.conn.complete_io(&mut stream.sock).is_err() {
        // the alert that tells why; an error means that the peer has gone first
        stream.conn.write_tls(&mut stream.sock).ok();
        shared.lock().handshakes_failed += 1;
        return;
    }
    let shown = first_certificate(&stream.conn);
    let index = {
        let mut state = shared.lock();
        state.connections.push(TlsConnection {
            shown,
            ..TlsConnection::default()
        });
        state.connections.len() - 1
    };
    let mut buffer = [0; 4096];
    loop {
        shared.wait_until_resumed();
        match stream.read(&mut buffer) {
            Ok(0) => {
                shared.lock().connections[index].closed = true;
                stream.conn.send_close_notify();
                // an error means that the peer has gone for good meanwhile
                stream.flush().ok();
                return;
            }
            Ok(read) => {
                let connections = &mut shared.lock().connections;
                connections[index].bytes.extend_from_slice(&buffer[..read]);
            }
            Err(_) => return,
        }
    }
}

fn first_certificate<T>(session: &ConnectionCommon<T>) -> Option<CertificateDer<'static>> {
    let shown = session.peer_certificates()?.first()?;
    Some(shown.clone().into_owned())
}

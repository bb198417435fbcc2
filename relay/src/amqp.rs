//! Connections to brokers of AMQP 0-9-1.

use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_compat::Compat;
use lapin::ConnectionProperties;
use lapin::runtime::default_runtime;
use lapin::tcp::{AsyncTcpStream, OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo};
use relay_engine::{AmqpServer, PeerTls};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connect may take, with TLS, the broker's greeting and what is declared there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds between heartbeats: a broker that is not heard of for twice as long is gone.
const HEARTBEAT_SECONDS: u16 = 10;

/// A connection to a broker. When it is dropped lapin says goodbye, and a broker that stands still is given up after some missed
/// heartbeats. One that blocks those who publish hears nothing, and still sends heartbeats: its socket is shut.
#[derive(Debug)]
pub(crate) struct Connection {
    inner: lapin::Connection,
    socket: Socket,
}

impl Deref for Connection {
    type Target = lapin::Connection;

    fn deref(&self) -> &lapin::Connection {
        &self.inner
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.socket.is_shut_at_the_end = self.inner.status().blocked();
    }
}

// The same that lapin has.
#[derive(Debug)]
struct Socket {
    stream: std::net::TcpStream,
    is_shut_at_the_end: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_shut_at_the_end {
            // It may be shut already.
            self.stream.shutdown(Shutdown::Both).ok();
        }
    }
}

/// What a connect comes to, if it does in time.
///
/// # Errors
/// Those of the connect, or the broker takes too long.
pub(crate) async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let connected = timeout(CONNECT_TIMEOUT, Box::pin(connecting)).await;
    connected.unwrap_or_else(|_| {
        let message = format!("the broker did not let us in within {CONNECT_TIMEOUT:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

/// Connects to a broker, and shows it who we are. A broker that stands still is waited for.
///
/// # Errors
/// It is not there, or does not know us.
pub(crate) async fn connect(server: &AmqpServer, tls: Option<&PeerTls>) -> io::Result<Connection> {
    let (host, port) = (server.address.host.as_str(), server.address.port);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let mut socket = Socket {
        stream: stream.as_fd().try_clone_to_owned()?.into(),
        // Should this be given up, lapin would go on waiting for a broker that stands still.
        is_shut_at_the_end: true,
    };
    let mut stream = AsyncTcpStream::Plain(Compat::new(stream));
    if server.is_encrypted {
        stream = stream.into_tls(host, tls_config(tls).as_ref()).await?;
    }
    let properties = ConnectionProperties::default().with_connection_name("carbonway".into());
    let runtime = default_runtime().map_err(io::Error::other)?;
    let stream = Mutex::new(Some(stream));
    let take_stream = async move |_, _| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    };
    let connecting = lapin::Connection::connector(uri(server), runtime, take_stream, properties);
    let inner = connecting.await.map_err(io::Error::other)?;
    socket.is_shut_at_the_end = false;
    Ok(Connection { inner, socket })
}

fn uri(server: &AmqpServer) -> AMQPUri {
    let (username, password) = match &server.credentials {
        Some(credentials) => {
            let password = String::from_utf8_lossy(credentials.password.as_bytes());
            (credentials.username.clone(), password.into_owned())
        }
        None => ("guest".to_owned(), "guest".to_owned()),
    };
    let mut uri = AMQPUri {
        scheme: match server.is_encrypted {
            true => AMQPScheme::AMQPS,
            false => AMQPScheme::AMQP,
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username, password },
            host: server.address.host.clone(),
            port: server.address.port,
        },
        vhost: server.virtual_host.clone(),
        ..AMQPUri::default()
    };
    uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
    uri
}

fn tls_config(tls: Option<&PeerTls>) -> OwnedTLSConfig {
    OwnedTLSConfig {
        identity: tls
            .and_then(|tls| tls.identity.as_ref())
            .map(|identity| OwnedIdentity::PKCS8 {
                pem: identity.certificate.as_bytes().to_vec(),
                key: identity.key.as_bytes().to_vec(),
            }),
        cert_chain: tls
            .and_then(|tls| tls.ca.as_ref())
            .map(|ca| String::from_utf8_lossy(ca.as_bytes()).into_owned()),
    }
}

//! Connections to brokers of AMQP 0-9-1.

use std::io;
use std::time::Duration;

use lapin::runtime::default_runtime;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Connection, ConnectionProperties};
use relay_engine::{AmqpServer, PeerTls};
use tokio::time::timeout;

/// How long a connect may take, with TLS, the broker's greeting and what is declared there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds between heartbeats: a broker that is not heard of for twice as long is gone.
const HEARTBEAT_SECONDS: u16 = 10;

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
    let tls = OwnedTLSConfig {
        identity: tls
            .and_then(|tls| tls.identity.as_ref())
            .map(|identity| OwnedIdentity::PKCS8 {
                pem: identity.certificate.as_bytes().to_vec(),
                key: identity.key.as_bytes().to_vec(),
            }),
        cert_chain: tls
            .and_then(|tls| tls.ca.as_ref())
            .map(|ca| String::from_utf8_lossy(ca.as_bytes()).into_owned()),
    };
    let properties = ConnectionProperties::default().with_connection_name("carbonway".into());
    let runtime = default_runtime().map_err(io::Error::other)?;
    let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
    connecting.await.map_err(io::Error::other)
}

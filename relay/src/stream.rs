//! A sender's connection, encrypted or not.

use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a sender may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a sender may take to let itself be told that nothing more is read.
const END_TIMEOUT: Duration = Duration::from_millis(100);

/// Bytes that a sender sends.
pub(crate) enum Stream {
    Plain(TcpStream),
    Local(UnixStream),
    // Boxed: those that are not encrypted need no room for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Shakes hands with a sender, which may take some seconds.
    ///
    /// # Errors
    /// The sender speaks no TLS, shows no certificate that will do, is gone, or is too slow.
    pub(crate) async fn accept(stream: TcpStream, tls: Arc<ServerConfig>) -> io::Result<Self> {
        // Boxed, so that it is not in the memory of every connection.
        let shaking_hands = Box::pin(TlsAcceptor::from(tls).accept(stream));
        let stream = timeout(HANDSHAKE_TIMEOUT, shaking_hands).await??;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Reads what there is, as `AsyncRead` does. The end of an encrypted stream that the sender did not announce is an error.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Local(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }

    /// Tells the sender that it should send no more. It can still be read.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write),
            Self::Local(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write),
            Self::Tls(stream) => timeout(END_TIMEOUT, stream.shutdown()).await?,
        }
    }

    /// Ends an encrypted stream in good order, where dropping the other kind is enough.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Local(_) => Ok(()),
            Self::Tls(_) => self.end().await,
        }
    }
}

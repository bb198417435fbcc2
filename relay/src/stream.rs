//! A sender's connection: where it says that it comes from, encrypted or not, compressed or not.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use relay_wire::{Decompressor, proxy};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::wire;

/// How long a sender may take to agree on TLS, or to say where it comes from.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What of a compressed stream is read at a time, in bytes.
const PIECE_BYTES: usize = 16 << 10;

/// How long a sender may take to let itself be told that nothing more is read.
const END_TIMEOUT: Duration = Duration::from_millis(100);

/// What a sender sends, decompressed if it is to be.
pub(crate) struct Stream {
    transport: Transport,
    decompressor: Option<Box<Decompressor>>,
}

/// Bytes that a sender sends.
pub(crate) enum Transport {
    Plain(TcpStream),
    Local(UnixStream),
    // Boxed: those that are not encrypted need no room for it.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// Shakes hands with a sender, which may take some seconds. A unix socket is not encrypted.
    ///
    /// # Errors
    /// The sender speaks no TLS, shows no certificate that will do, is gone, or is too slow.
    pub(crate) async fn accept(self, tls: Arc<ServerConfig>) -> io::Result<Self> {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Local(_) | Self::Tls(_) => return Ok(self),
        };
        // Boxed, so that it is not in the memory of every connection.
        let shaking_hands = Box::pin(TlsAcceptor::from(tls).accept(stream));
        let stream = timeout(HANDSHAKE_TIMEOUT, shaking_hands).await??;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Reads the header in front of a connection that says where it comes from; `None`: it does not say.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it takes too long to come.
    pub(crate) async fn read_proxy_header(mut self) -> io::Result<(Self, Option<SocketAddr>)> {
        let told = match &mut self {
            Self::Plain(stream) => proxy_header(stream).await,
            Self::Local(stream) => proxy_header(stream).await,
            Self::Tls(stream) => proxy_header(&mut **stream).await,
        };
        Ok((self, told?))
    }

    // The end of an encrypted stream that the sender did not announce is an error.
    fn poll_read(
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

    async fn end(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write),
            Self::Local(stream) => SockRef::from(&*stream).shutdown(Shutdown::Write),
            Self::Tls(stream) => timeout(END_TIMEOUT, stream.shutdown()).await?,
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Local(_) => Ok(()),
            Self::Tls(_) => self.end().await,
        }
    }
}

impl Stream {
    /// # Errors
    /// There is no memory to decompress it with.
    pub(crate) fn new(
        transport: Transport,
        compression: Option<relay_engine::Compression>,
    ) -> io::Result<Self> {
        let compression = compression.map(wire::compression);
        let decompressor = compression.map(Decompressor::new).transpose()?;
        Ok(Self {
            transport,
            decompressor: decompressor.map(Box::new),
        })
    }

    /// Reads what there is, as `AsyncRead` does.
    pub(crate) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(decompressor) = &mut self.decompressor else {
            return self.transport.poll_read(context, buffer);
        };
        loop {
            match decompressor.read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            let mut piece = [MaybeUninit::uninit(); PIECE_BYTES];
            let mut piece = ReadBuf::uninit(&mut piece);
            ready!(self.transport.poll_read(context, &mut piece))?;
            decompressor.feed(piece.filled())?;
        }
    }

    /// Whether something was read that could not be decompressed.
    pub(crate) fn has_rest(&mut self) -> bool {
        let decompressor = self.decompressor.as_mut();
        decompressor.is_some_and(|decompressor| decompressor.has_rest())
    }

    /// Tells the sender that it should send no more. It can still be read.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        self.transport.end().await
    }

    /// Ends an encrypted stream in good order, where dropping the other kind is enough.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.transport.close().await
    }
}

async fn proxy_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let reading = async {
        let mut begun = Vec::new();
        loop {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            let wanted = match proxy::read(&begun).map_err(invalid)? {
                proxy::Header::Whole(source) => return Ok(source),
                proxy::Header::Wants(bytes) => bytes,
            };
            let have = begun.len();
            begun.resize(have + wanted, 0);
            stream.read_exact(&mut begun[have..]).await?;
        }
    };
    timeout(HANDSHAKE_TIMEOUT, reading).await?
}

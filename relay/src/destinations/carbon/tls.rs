//! TLS with a carbon server. The session is driven by hand over a socket that belongs to the connection: only so is it known
//! when the peer's kernel has what was written, and not just the session.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use relay_engine::PeerTls;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::destinations::tls::{self, Fault};

/// How long a server may take to say that it takes us. Most do at once; those that give no tickets never do.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// What a session is begun with.
pub(super) struct Settings {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

/// A session that has begun.
pub(super) struct Session {
    tls: ClientConnection,
    // Bytes of lines that the session has taken in and the peer's kernel has not.
    pending: usize,
}

impl Settings {
    pub(super) fn of(tls: &PeerTls) -> Result<Self, Fault> {
        let server_name = relay_tls::server_name(&tls.server_name)
            .map_err(|error| Fault::new("serverName", error))?;
        Ok(Self {
            config: tls::client(Some(tls))?,
            server_name,
        })
    }
}

impl Session {
    /// Shakes hands.
    pub(super) async fn begin(
        settings: &Settings,
        stream: TcpStream,
    ) -> io::Result<(TcpStream, Self)> {
        let connector = TlsConnector::from(Arc::clone(&settings.config));
        let shaking_hands = connector.connect(settings.server_name.clone(), stream);
        let (stream, tls) = Box::pin(shaking_hands).await?.into_inner();
        Ok((stream, Self { tls, pending: 0 }))
    }

    /// Waits until the server has taken us. In TLS 1.3 it judges our certificate when for us the handshake is over already, and
    /// lines that were written by then would be lost. A server that takes us says so by a ticket; one that never gives any is
    /// believed after a while.
    pub(super) async fn confirm(&mut self, stream: &TcpStream) -> io::Result<()> {
        if self.tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Ok(());
        }
        let confirmed = async {
            while self.tls.tls13_tickets_received() == 0 {
                stream.readable().await?;
                match self.try_read(stream) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        };
        timeout(CONFIRM_TIMEOUT, confirmed).await.unwrap_or(Ok(()))
    }

    /// Whether bytes that the session has taken in have yet to get to the peer's kernel.
    pub(super) fn is_pending(&self) -> bool {
        self.pending > 0
    }

    /// Takes in what it has room for of `slices`, if nothing is pending, and writes until the peer's kernel has it all.
    /// Returns how many bytes of lines that were.
    ///
    /// # Errors
    /// `WouldBlock`: try again when the stream is writable, with slices that begin with the same bytes. Any other: the
    /// connection is broken.
    pub(super) fn try_write(
        &mut self,
        stream: &TcpStream,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        if self.pending == 0 {
            self.pending = self.tls.writer().write_vectored(slices)?;
        }
        self.flush(stream)?;
        Ok(std::mem::take(&mut self.pending))
    }

    fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            if self.tls.write_tls(&mut Socket(stream))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Reads some and ignores it. Returns how many bytes that were; 0 when the peer has ended the session.
    pub(super) fn try_read(&mut self, stream: &TcpStream) -> io::Result<usize> {
        let read = self.tls.read_tls(&mut Socket(stream))?;
        let state = self
            .tls
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let mut ignored = vec![0; state.plaintext_bytes_to_read()];
        self.tls.reader().read_exact(&mut ignored)?;
        match state.peer_has_closed() {
            true => Ok(0),
            false => Ok(read),
        }
    }

    /// Tells the peer that nothing more will come, and takes in what it has sent: a socket that is closed with something
    /// unread resets the connection, and the peer might lose what it has yet to read.
    pub(super) async fn end(&mut self, stream: &TcpStream) -> io::Result<()> {
        self.tls.send_close_notify();
        while let Err(error) = self.flush(stream) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            stream.writable().await?;
        }
        while self.try_read(stream).is_ok_and(|read| read > 0) {}
        Ok(())
    }
}

// The stream, for one who takes WouldBlock for an answer.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

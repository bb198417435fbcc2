//! A connection to a carbon server, over TCP, in the plaintext protocol, with or without TLS.

mod tls;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use relay_engine::{Address, CarbonTls};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::outq::unacknowledged;
use super::queue::Lane;
use super::sender::InHand;
use tls::Session;
pub(crate) use tls::{Fault, check};

/// Chunks in one write.
const WRITE_CHUNKS_MAX: usize = 64;

/// How long a connection may be silent before the kernel asks whether the peer is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How often the kernel is asked whether the peer has everything, when a connection is closed: nothing tells it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long a peer has to take the rest of a line, when the connection is closed for another endpoint.
const END_LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// An open connection.
pub(crate) struct Connection {
    // Shared with nobody who would keep it.
    stream: Arc<TcpStream>,
    // What is written goes through this, if the connection is encrypted.
    session: Option<Box<Session>>,
    write_timeout: Duration,
}

impl Connection {
    /// Asks for the address anew and tries what the answer has, beginning anywhere, each for `connect_timeout`.
    pub(crate) async fn open(
        address: &Address,
        tls: Option<&CarbonTls>,
        connect_timeout: Duration,
        write_timeout: Duration,
    ) -> io::Result<Self> {
        let tls = tls.map(tls::Settings::of).transpose()?;
        let looking_up = lookup_host((address.host.as_str(), address.port));
        let mut candidates: Vec<_> = within(connect_timeout, "name look-up", looking_up)
            .await?
            .collect();
        fastrand::shuffle(&mut candidates);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in candidates {
            let connecting = connect(candidate, tls.as_ref());
            let connected = match within(connect_timeout, "connect", connecting).await {
                Ok((stream, Some(mut session))) => {
                    let confirmed = session.confirm(&stream).await;
                    confirmed.map(|()| (stream, Some(session)))
                }
                other => other,
            };
            match connected {
                Ok((stream, session)) => {
                    return Ok(Self {
                        stream: Arc::new(stream),
                        session,
                        write_timeout,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What the peer's kernel has not acknowledged, in bytes.
    pub(crate) fn unacknowledged(&self) -> usize {
        unacknowledged(&*self.stream)
    }

    /// The socket, for those who ask the kernel about it.
    pub(crate) fn socket(&self) -> Weak<TcpStream> {
        Arc::downgrade(&self.stream)
    }

    /// Writes what is in hand until the peer's kernel takes no more, at least once.
    ///
    /// # Errors
    /// The connection is broken, or took no byte for the write time-out.
    pub(crate) async fn write(&mut self, in_hand: &mut InHand, lane: &Lane) -> io::Result<()> {
        loop {
            let mut slices = [IoSlice::new(&[]); WRITE_CHUNKS_MAX];
            let mut skip = in_hand.written;
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&in_hand.chunks) {
                *slice = IoSlice::new(&chunk.bytes[skip..]);
                skip = 0;
                count += 1;
            }
            match self.try_write(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    in_hand.advance(bytes, lane);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within(self.write_timeout, "write", self.stream.writable()).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    // Returns how many bytes the peer's kernel got. What a session has taken in before comes first, and `slices` must begin
    // with it.
    fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.session {
            None => self.stream.try_write_vectored(slices),
            Some(session) => session.try_write(&self.stream, slices),
        }
    }

    /// Writes the rest of a line that was written in part, if the peer takes it soon.
    pub(crate) async fn end_line(&mut self, in_hand: &mut InHand, lane: &Lane) {
        loop {
            let is_pending = self
                .session
                .as_ref()
                .is_some_and(|session| session.is_pending());
            let rest = in_hand.rest_of_line();
            if rest.is_empty() && !is_pending {
                break;
            }
            match self.try_write(&[IoSlice::new(rest)]) {
                Ok(bytes) if bytes > 0 => in_hand.advance(bytes, lane),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = self.stream.writable();
                    if within(END_LINE_TIMEOUT, "write", writable).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => return,
            }
        }
        self.end_session().await;
    }

    /// Resolves when the peer closed the connection or it failed. What the peer says otherwise is ignored.
    pub(crate) async fn broken(&mut self) -> io::Error {
        loop {
            if let Err(error) = self.stream.readable().await {
                return error;
            }
            match self.try_read() {
                Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer"),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return error,
            }
        }
    }

    // Reads and ignores. Returns 0 when the peer has said all that it will.
    fn try_read(&mut self) -> io::Result<usize> {
        match &mut self.session {
            None => self.stream.try_read(&mut [0; 512]),
            Some(session) => session.try_read(&self.stream),
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.end_session().await;
        SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write)
    }

    /// Ends the connection in good order. Resolves when the peer's kernel has all that it was given.
    ///
    /// # Errors
    /// It has not after the write time-out, or the connection is broken.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.finish().await?;
        let acknowledged = async {
            while self.unacknowledged() > 0 {
                sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        within(self.write_timeout, "close", acknowledged).await
    }

    // Says so in the session too, if there is one and the peer takes it soon.
    async fn end_session(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        let ending = session.end(&self.stream);
        if let Err(error) = within(END_LINE_TIMEOUT, "close", ending).await {
            debug!(%error, "the peer does not take the end of its session");
        }
    }
}

async fn connect(
    address: SocketAddr,
    tls: Option<&tls::Settings>,
) -> io::Result<(TcpStream, Option<Box<Session>>)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    let Some(tls) = tls else {
        return Ok((stream, None));
    };
    let (stream, session) = Session::begin(tls, stream).await?;
    Ok((stream, Some(Box::new(session))))
}

async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(limit, future).await.unwrap_or_else(|_| {
        let message = format!("{what} took longer than {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

//! A connection to a carbon server, over TCP, with or without TLS: lines as they are, compressed, or points in frames.

mod encoder;
mod tls;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use relay_engine::{Address, CarbonForm, PeerTls};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::in_hand::InHand;
use super::outq::unacknowledged;
use super::queue::Lane;
use encoder::Encoder;
use tls::Session;

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
    // What makes of lines what is written; `None`: they are written as they are.
    encoder: Option<Box<Encoder>>,
    write_timeout: Duration,
}

/// How a connection is to be made.
pub(crate) struct Options<'a> {
    pub(crate) tls: Option<&'a PeerTls>,
    pub(crate) form: CarbonForm,
    pub(crate) connect_timeout: Duration,
    pub(crate) write_timeout: Duration,
}

impl Connection {
    /// Asks for the address anew and tries what the answer has, beginning anywhere, each for the connect time-out.
    pub(crate) async fn open(address: &Address, options: Options<'_>) -> io::Result<Self> {
        let Options {
            tls,
            form,
            connect_timeout,
            write_timeout,
        } = options;
        let tls = tls.map(tls::Settings::of).transpose()?;
        let candidates = candidates(address, connect_timeout).await?;
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
                        encoder: Encoder::new(form)?.map(Box::new),
                        write_timeout,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What the peer's kernel has not acknowledged, in bytes of lines.
    pub(crate) fn unacknowledged(&mut self) -> usize {
        let bytes = unacknowledged(&*self.stream);
        match &mut self.encoder {
            None => bytes,
            Some(encoder) => encoder.unacknowledged(bytes),
        }
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
            match self.try_write_lines(in_hand) {
                Ok(lines) => {
                    in_hand.advance(lines, lane);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within(self.write_timeout, "write", self.stream.writable()).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    // Returns how many bytes of lines the peer's kernel got. Of what is encoded, that may be none for now.
    fn try_write_lines(&mut self, in_hand: &InHand) -> io::Result<usize> {
        let (stream, session) = (&self.stream, &mut self.session);
        if let Some(encoder) = &mut self.encoder {
            let encoded = encoder.fill(&in_hand.chunks, in_hand.written)?;
            let written = try_write(stream, session, &[IoSlice::new(encoded)])?;
            return Ok(encoder.advance(written));
        }
        let mut slices = [IoSlice::new(&[]); WRITE_CHUNKS_MAX];
        let mut skip = in_hand.written;
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&in_hand.chunks) {
            *slice = IoSlice::new(&chunk.bytes[skip..]);
            skip = 0;
            count += 1;
        }
        try_write(stream, session, &slices[..count])
    }

    /// Writes the rest of a line, or of what is encoded, that was written in part, if the peer takes it soon.
    pub(crate) async fn end_line(&mut self, in_hand: &mut InHand, lane: &Lane) {
        loop {
            let (stream, session) = (&self.stream, &mut self.session);
            let is_pending = session.as_ref().is_some_and(|session| session.is_pending());
            let rest = match &self.encoder {
                None => in_hand.rest_of_line(),
                Some(encoder) => encoder.rest(),
            };
            if rest.is_empty() && !is_pending {
                break;
            }
            match try_write(stream, session, &[IoSlice::new(rest)]) {
                Ok(bytes) => {
                    let encoder = self.encoder.as_mut();
                    let lines = encoder.map_or(bytes, |encoder| encoder.advance(bytes));
                    in_hand.advance(lines, lane);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = self.stream.writable();
                    if within(END_LINE_TIMEOUT, "write", writable).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
        if let Err(error) = self.end_stream().await {
            debug!(%error, "the peer does not take the end of its stream");
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
        self.end_stream().await?;
        self.end_session().await;
        SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write)
    }

    /// Ends the connection in good order. Resolves when the peer's kernel has all that it was given.
    ///
    /// # Errors
    /// It has not after the write time-out, or the connection is broken.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        self.finish().await?;
        let limit = self.write_timeout;
        let acknowledged = async {
            while self.unacknowledged() > 0 {
                sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        within(limit, "close", acknowledged).await
    }

    // Writes what a compressed stream ends in, once.
    async fn end_stream(&mut self) -> io::Result<()> {
        let Some(encoder) = &mut self.encoder else {
            return Ok(());
        };
        let end = encoder.end()?;
        let mut rest = &end[..];
        while !rest.is_empty() {
            match try_write(&self.stream, &mut self.session, &[IoSlice::new(rest)]) {
                Ok(bytes) => rest = &rest[bytes..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within(END_LINE_TIMEOUT, "write", self.stream.writable()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
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

// Returns how many bytes the peer's kernel got. What a session has taken in before comes first, and `slices` must begin with
// it.
fn try_write(
    stream: &TcpStream,
    session: &mut Option<Box<Session>>,
    slices: &[IoSlice<'_>],
) -> io::Result<usize> {
    let written = match session {
        None => stream.try_write_vectored(slices)?,
        Some(session) => session.try_write(stream, slices)?,
    };
    match written {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

/// The addresses that a name has now, in any order.
pub(crate) async fn candidates(address: &Address, limit: Duration) -> io::Result<Vec<SocketAddr>> {
    let looking_up = lookup_host((address.host.as_str(), address.port));
    let found = within(limit, "name look-up", looking_up).await?;
    let mut candidates: Vec<_> = found.collect();
    fastrand::shuffle(&mut candidates);
    Ok(candidates)
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

/// What a future comes to, if that takes no longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(limit, future).await.unwrap_or_else(|_| {
        let message = format!("{what} took longer than {limit:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

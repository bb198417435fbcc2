//! A connection to a carbon server, over TCP, in the plaintext protocol.

use std::io::{self, IoSlice};
use std::time::Duration;

use relay_engine::Address;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::outq::unacknowledged;
use super::queue::Queue;
use super::sender::InHand;

/// Chunks in one write.
const WRITE_CHUNKS_MAX: usize = 64;

/// How long a connection may be silent before the kernel asks whether the peer is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long a peer has to take the rest of a line, when the connection is closed for another endpoint.
const END_LINE_TIMEOUT: Duration = Duration::from_secs(1);

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    write_timeout: Duration,
}

impl Connection {
    /// Asks for the address anew and tries what the answer has, beginning anywhere, each for `connect_timeout`.
    pub(crate) async fn open(
        address: &Address,
        connect_timeout: Duration,
        write_timeout: Duration,
    ) -> io::Result<Self> {
        let looking_up = lookup_host((address.host.as_str(), address.port));
        let mut candidates: Vec<_> = within(connect_timeout, "name look-up", looking_up)
            .await?
            .collect();
        fastrand::shuffle(&mut candidates);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in candidates {
            match within(connect_timeout, "connect", TcpStream::connect(candidate)).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let keepalive = TcpKeepalive::new()
                        .with_time(KEEPALIVE)
                        .with_interval(KEEPALIVE);
                    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                    return Ok(Self {
                        stream,
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
        unacknowledged(&self.stream)
    }

    /// Writes what is in hand until the peer's kernel takes no more, at least once.
    ///
    /// # Errors
    /// The connection is broken, or took no byte for the write time-out.
    pub(crate) async fn write(&mut self, in_hand: &mut InHand, queue: &Queue) -> io::Result<()> {
        loop {
            match self.try_write(in_hand) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    in_hand.advance(bytes, queue);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within(self.write_timeout, "write", self.stream.writable()).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_write(&self, in_hand: &InHand) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); WRITE_CHUNKS_MAX];
        let mut skip = in_hand.written;
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&in_hand.chunks) {
            *slice = IoSlice::new(&chunk.bytes[skip..]);
            skip = 0;
            count += 1;
        }
        self.stream.try_write_vectored(&slices[..count])
    }

    /// Writes the rest of a line that was written in part, if the peer takes it soon.
    pub(crate) async fn end_line(&mut self, in_hand: &mut InHand, queue: &Queue) {
        while !in_hand.rest_of_line().is_empty() {
            let rest = in_hand.rest_of_line();
            match self.stream.try_write(rest) {
                Ok(bytes) if bytes > 0 => in_hand.advance(bytes, queue),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = self.stream.writable();
                    if within(END_LINE_TIMEOUT, "write", writable).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Resolves when the peer closed the connection or it failed. What the peer says otherwise is ignored.
    pub(crate) async fn broken(&mut self) -> io::Error {
        let mut ignored = [0; 512];
        loop {
            if let Err(error) = self.stream.readable().await {
                return error;
            }
            match self.stream.try_read(&mut ignored) {
                Ok(0) => return io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer"),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return error,
            }
        }
    }

    /// Tells the peer that nothing more will come.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write)
    }
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

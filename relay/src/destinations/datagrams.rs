//! Lines to a carbon server in datagrams. Nobody says whether they arrive, but the host of a server that is gone may say that.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use relay_engine::Address;
use tokio::net::UdpSocket;

use super::carbon::{candidates, within};
use super::in_hand::InHand;
use super::queue::Lane;

/// The longest datagram, in bytes, unless a line is longer: what an Ethernet frame holds, less what IPv6, UDP and a tunnel take.
const DATAGRAM_BYTES: usize = 1432;

/// Datagrams in a row before the thread's other work has its turn.
const DATAGRAMS_PER_TURN: usize = 256;

/// A socket that is for one server.
pub(crate) struct Connection {
    socket: UdpSocket,
    write_timeout: Duration,
}

impl Connection {
    /// Asks for the address anew, and takes one that there is a way to.
    pub(crate) async fn open(
        address: &Address,
        connect_timeout: Duration,
        write_timeout: Duration,
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for candidate in candidates(address, connect_timeout).await? {
            match connect(candidate).await {
                Ok(socket) => {
                    return Ok(Self {
                        socket,
                        write_timeout,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends what is in hand, some of it at least.
    ///
    /// # Errors
    /// The server's host says that nobody is there, there is no way to it, or this host takes no datagram for the write
    /// time-out.
    pub(crate) async fn write(&mut self, in_hand: &mut InHand, lane: &Lane) -> io::Result<()> {
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(chunk) = in_hand.chunks.front() else {
                break;
            };
            let datagram = datagram(&chunk.bytes[in_hand.written..]);
            match self.socket.try_send(datagram) {
                Ok(_) => in_hand.advance(datagram.len(), lane),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within(self.write_timeout, "write", self.socket.writable()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Resolves when the server's host says that nobody is there. What the server says is ignored.
    pub(crate) async fn broken(&mut self) -> io::Error {
        loop {
            if let Err(error) = self.socket.recv(&mut [0; 512]).await {
                return error;
            }
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(address).await?;
    Ok(socket)
}

// The whole lines that fit; the first one in any case.
fn datagram(lines: &[u8]) -> &[u8] {
    let room = &lines[..lines.len().min(DATAGRAM_BYTES)];
    let last = memchr::memrchr(b'\n', room).or_else(|| memchr::memchr(b'\n', lines));
    &lines[..last.map_or(lines.len(), |newline| newline + 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_holds_as_many_whole_lines_as_fit() {
        assert_eq!(datagram(b"a 1 1\nb 2 2\n"), b"a 1 1\nb 2 2\n");
        let lines = "servers.web1.cpu 1 1700000000\n".repeat(100);
        assert_eq!(datagram(lines.as_bytes()).len(), 1432 / 30 * 30);
        let long = format!("{} 1 1\n", "n".repeat(5000));
        assert_eq!(
            datagram(format!("{long}{long}").as_bytes()),
            long.as_bytes()
        );
    }
}

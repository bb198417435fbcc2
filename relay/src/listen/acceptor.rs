//! Sockets that are listened on.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Type};
use tokio::net::{TcpListener, UnixListener};
use tracing::warn;

use crate::reuseport;
use crate::source::Source;

/// Connections that the kernel may hold for us to accept.
const BACKLOG: i32 = 4096;

/// What the kernel may keep of datagrams until they are read, in bytes, as far as it allows that.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// A socket that connections come to.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Remote(std::net::TcpStream),
    Local(std::os::unix::net::UnixStream),
}

/// The file that a unix socket is found by. It goes with the socket, unless another process has put its own there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Acceptor {
    pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        bind_tcp(address).map(Self::Tcp)
    }

    /// Listens beside the path and moves the socket there, so that there is always one that takes connections.
    pub(super) fn bind_unix(path: &Path, mode: u32) -> io::Result<Self> {
        if let Ok(found) = fs::symlink_metadata(path)
            && !found.file_type().is_socket()
        {
            let error = "something is there that is not a socket: remove it, or take another path";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, error));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, Permissions::from_mode(mode))?;
        fs::rename(&beside, path)?;
        let file = SocketFile {
            path: path.to_owned(),
            inode: fs::symlink_metadata(path)?.ino(),
        };
        Ok(Self::Unix(socket, file))
    }

    /// The next connection.
    ///
    /// # Errors
    /// There is none to be had for now.
    pub(super) async fn accept(&self) -> io::Result<(Socket, Source)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, source) = listener.accept().await?;
                let socket = Socket::Remote(stream.into_std()?);
                Ok((socket, Source::Remote(source)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Local(stream.into_std()?), Source::Local))
            }
        }
    }

    /// Has those who connect from now on find another process, if there is one.
    ///
    /// # Errors
    /// They may find this one, which is about to close.
    pub(super) fn give_way(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => reuseport::give_way(listener, 1),
            Self::Unix(_, file) => {
                file.remove();
                Ok(())
            }
        }
    }

    /// Those whom the kernel has let in already; nobody else is.
    ///
    /// # Errors
    /// They cannot be had.
    pub(super) fn into_waiting(
        self,
    ) -> io::Result<Box<dyn Iterator<Item = (Socket, Source)> + Send>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let listener = listener.into_std()?;
                let waiting = std::iter::from_fn(move || listener.accept().ok());
                Box::new(waiting.filter_map(|(stream, source)| {
                    stream.set_nonblocking(true).ok()?;
                    Some((Socket::Remote(stream), Source::Remote(source)))
                }))
            }
            Self::Unix(listener, _) => {
                let listener = listener.into_std()?;
                let waiting = std::iter::from_fn(move || listener.accept().ok());
                Box::new(waiting.filter_map(|(stream, _)| {
                    stream.set_nonblocking(true).ok()?;
                    Some((Socket::Local(stream), Source::Local))
                }))
            }
        })
    }
}

impl fmt::Display for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => error.fmt(f),
            },
            Self::Unix(_, file) => file.path.display().fmt(f),
        }
    }
}

impl SocketFile {
    fn remove(&self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            warn!(path = %self.path.display(), %error, "a unix socket is left behind");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Listens with SO_REUSEPORT, which lets a second process take the port over before this one stops.
///
/// # Errors
/// The address cannot be had.
pub(crate) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes datagrams, with SO_REUSEPORT: the kernel deals senders out among the sockets of a port.
///
/// # Errors
/// The address cannot be had.
pub(crate) fn bind_udp(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = bind(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

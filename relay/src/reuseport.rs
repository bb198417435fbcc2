//! Which of the sockets that listen on one port gets a new connection.
//!
//! The kernel deals connections out among them by a hash, so a process that leaves would get some to its end, and those that
//! it has not accepted when it closes its socket would be reset. A program attached to the sockets decides instead of the hash.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

/// Has new connections, or datagrams, go to the socket that is the first of another process: that which was bound after `own`
/// others, which are the oldest. Without another process these still get them: the kernel goes back to its hash when a
/// program names a socket that is not there.
///
/// # Errors
/// The kernel does not take the program.
pub(crate) fn give_way(socket: &impl AsFd, own: usize) -> io::Result<()> {
    // "return own": that socket, counting from 0.
    let mut program = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: u32::try_from(own).unwrap_or(u32::MAX),
    }];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    #[expect(unsafe_code, reason = "no crate that we have wraps this option")]
    // SAFETY: the option takes a sock_fprog, whose size is given, and copies the program that it points to, which lives and
    // has that length, before it returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{Duration, timeout};

    use super::*;
    use crate::listen::bind_tcp;

    async fn connects_to(address: SocketAddr, listener: &TcpListener) {
        for _ in 0..50 {
            let (stream, accepted) = tokio::join!(
                TcpStream::connect(address),
                timeout(Duration::from_secs(10), listener.accept())
            );
            stream.unwrap();
            accepted.expect("the connection went elsewhere").unwrap();
        }
    }

    #[tokio::test]
    async fn new_connections_go_to_the_newer_socket_and_without_one_to_the_only_one() {
        let old = bind_tcp((Ipv4Addr::new(127, 1, 2, 3), 0).into()).unwrap();
        let address = old.local_addr().unwrap();
        give_way(&old, 1).unwrap();
        connects_to(address, &old).await;
        let new = bind_tcp(address).unwrap();
        connects_to(address, &new).await;
        drop(old);
        connects_to(address, &new).await;
    }
}

//! How many datagrams the kernel has dropped because a socket had no room for them.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

/// Figures in SO_MEMINFO, as of Linux 4.12.
const FIGURES: usize = 9;
/// Where among them the drops are.
const DROPS: usize = 8;

/// The datagrams dropped since the socket was made, which wrap around; 0 where the system does not say.
pub(crate) fn dropped(socket: &impl AsFd) -> u32 {
    figures(socket).map_or(0, |figures| figures[DROPS])
}

fn figures(socket: &impl AsFd) -> io::Result<[u32; FIGURES]> {
    let mut figures = [0; FIGURES];
    let mut length = size_of::<[u32; FIGURES]>() as libc::socklen_t;
    #[expect(unsafe_code, reason = "no crate that we have wraps this option")]
    // SAFETY: the kernel writes at most `length` bytes, which is what there is room for, and says in it how many it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            figures.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(figures),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn datagrams_that_have_no_room_are_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(dropped(&receiver), 0);
        let mut sent = 0;
        while dropped(&receiver) == 0 {
            sender.send_to(&[b'x'; 1000], address).unwrap();
            sent += 1;
        }
        assert!(sent > 1);
    }
}

//! How much of what was written to a socket the other side's kernel has not acknowledged.

use std::os::fd::AsFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// The bytes that were written to a TCP socket and are not acknowledged; 0 where the system does not say.
pub(crate) fn unacknowledged(socket: &impl AsFd) -> usize {
    // Linux's SIOCOUTQ, which is TIOCOUTQ.
    const SIOCOUTQ: Opcode = 0x5411;
    #[expect(
        unsafe_code,
        reason = "the kernel writes one int for this opcode, which is what the getter holds"
    )]
    // SAFETY: SIOCOUTQ writes a C int, and nothing else.
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) };
    bytes
        .ok()
        .and_then(|bytes| usize::try_from(bytes).ok())
        .unwrap_or(0)
}

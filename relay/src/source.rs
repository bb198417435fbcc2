//! Who sends.

use std::fmt;
use std::net::SocketAddr;

/// Where lines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An address.
    Remote(SocketAddr),
    /// Somebody on this machine, through a unix socket.
    Local,
    /// A broker, which does not say whom it has them from.
    Broker,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(address) => address.fmt(f),
            Self::Local => f.write_str("local"),
            Self::Broker => f.write_str("broker"),
        }
    }
}

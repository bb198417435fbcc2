//! A connection, whatever is at its other end.

use std::io;
use std::sync::Weak;

use relay_engine::Endpoint;
use tokio::net::TcpStream;

use super::in_hand::InHand;
use super::queue::Lane;
use super::sink::{self, Refusal};
use super::{carbon, datagrams, file};

/// An open connection to an endpoint.
pub(super) enum Connection {
    Carbon(carbon::Connection),
    Datagrams(datagrams::Connection),
    File(file::Connection),
    Sink(Box<sink::Connection>),
}

/// Why a connection is given up.
pub(super) enum Ended {
    /// Everything was handed over, and nothing will come.
    Finished,
    /// The destination has other lanes in this one's stead.
    Left,
    /// The destination has another endpoint.
    EndpointChanged,
    /// The connection is as old as it may become.
    Aged,
    Broken(io::Error),
    /// The server is there, and does not take what it is sent.
    Refused(Refusal),
}

impl Connection {
    /// What the other side's kernel has not acknowledged, in bytes of lines.
    pub(super) fn unacknowledged(&mut self) -> usize {
        match self {
            Self::Carbon(connection) => connection.unacknowledged(),
            Self::Datagrams(_) | Self::File(_) | Self::Sink(_) => 0,
        }
    }

    /// The socket, if it is one.
    pub(super) fn socket(&self) -> Option<Weak<TcpStream>> {
        match self {
            Self::Carbon(connection) => Some(connection.socket()),
            Self::Datagrams(_) | Self::File(_) | Self::Sink(_) => None,
        }
    }

    /// Hands over what is in hand, or some of it.
    pub(super) async fn write(&mut self, in_hand: &mut InHand, lane: &Lane) -> Result<(), Ended> {
        let written = match self {
            Self::Carbon(connection) => connection.write(in_hand, lane).await,
            Self::Datagrams(connection) => connection.write(in_hand, lane).await,
            Self::File(connection) => connection.write(in_hand, lane).await,
            Self::Sink(connection) => {
                return connection
                    .write(in_hand, lane)
                    .await
                    .map_err(Ended::Refused);
            }
        };
        written.map_err(Ended::Broken)
    }

    /// Resolves when the other side ends the connection.
    pub(super) async fn broken(&mut self) -> io::Error {
        match self {
            Self::Carbon(connection) => connection.broken().await,
            Self::Datagrams(connection) => connection.broken().await,
            Self::Sink(connection) => connection.broken().await,
            Self::File(_) => std::future::pending().await,
        }
    }

    /// Before a connection is closed on purpose: a receiver may take a line that ends with its connection for a whole one.
    pub(super) async fn end_line(&mut self, in_hand: &mut InHand, lane: &Lane) {
        match self {
            Self::Carbon(connection) => connection.end_line(in_hand, lane).await,
            // The others take whole lines.
            Self::Datagrams(_) | Self::File(_) | Self::Sink(_) => {}
        }
    }

    /// Resolves when the other side has everything.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Carbon(connection) => connection.close().await,
            Self::Datagrams(_) | Self::File(_) | Self::Sink(_) => Ok(()),
        }
    }

    /// Resolves when the other side has everything, after which nothing comes.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Carbon(connection) => connection.finish().await,
            Self::Datagrams(_) | Self::File(_) | Self::Sink(_) => Ok(()),
        }
    }
}

/// An endpoint, for people.
pub(super) struct Described<'a>(pub(super) &'a Endpoint);

impl std::fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Endpoint::Carbon { address, .. } => address.fmt(f),
            Endpoint::File { path, .. } => path.display().fmt(f),
            Endpoint::Sink(sink) => sink.kind.fmt(f),
        }
    }
}

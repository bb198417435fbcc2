//! The PROXY header in front of a connection, in which a load balancer says where it comes from: version 1 is a line of text,
//! version 2 is binary.

use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult as _, v1, v2};

/// The longest header that is read, in bytes. Version 1 has 107 at most; version 2 has 232, and what else a load balancer adds.
pub const HEADER_BYTES_MAX: usize = 4096;

/// What stands first in a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Why a connection does not begin with a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It begins with something else.
    #[error("it does not begin with a PROXY header")]
    Missing,
    /// The header is one that cannot be read.
    #[error("its PROXY header cannot be read: {0}")]
    Invalid(String),
    /// The header is too long.
    #[error("its PROXY header has more than {HEADER_BYTES_MAX} bytes")]
    TooLong,
}

/// How far a header has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// It has at least so many bytes more, and nothing behind it has to be read for them.
    Wants(usize),
    /// It is whole. `None`: the load balancer speaks for itself, or knows no address.
    Whole(Option<SocketAddr>),
}

/// Reads a header of which `begun` has come. It never asks for a byte of what follows the header.
///
/// # Errors
/// It is none.
pub fn read(begun: &[u8]) -> Result<Header, HeaderError> {
    const FIRST: usize = SIGNATURE.len();
    if begun.len() < FIRST {
        return Ok(Header::Wants(FIRST - begun.len()));
    }
    if begun.starts_with(SIGNATURE) {
        const FIXED: usize = FIRST + 4;
        let Some(fixed) = begun.first_chunk::<FIXED>() else {
            return Ok(Header::Wants(FIXED - begun.len()));
        };
        let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        if length > HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        if begun.len() < length {
            return Ok(Header::Wants(length - begun.len()));
        }
    } else if !begun.starts_with(b"PROXY ") {
        return Err(HeaderError::Missing);
    } else if !begun.ends_with(b"\r\n") {
        const LINE_BYTES_MAX: usize = 107;
        return match begun.len() < LINE_BYTES_MAX {
            true => Ok(Header::Wants(1)),
            false => Err(HeaderError::TooLong),
        };
    }
    let header = HeaderResult::parse(begun);
    if header.is_incomplete() {
        return Err(HeaderError::Invalid("it ends too early".to_owned()));
    }
    let invalid = |error: &dyn std::fmt::Display| HeaderError::Invalid(error.to_string());
    let source = match header {
        HeaderResult::V1(header) => match header.map_err(|error| invalid(&error))?.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        },
        HeaderResult::V2(header) => {
            let header = header.map_err(|error| invalid(&error))?;
            match (header.command, header.addresses) {
                (v2::Command::Local, _) => None,
                (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
                    Some((ip.source_address, ip.source_port).into())
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
                    Some((ip.source_address, ip.source_port).into())
                }
                (v2::Command::Proxy, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
            }
        }
    };
    Ok(Header::Whole(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is read of a stream, asking for as much as is wanted each time; and how much is left.
    fn read_from(stream: &[u8]) -> (Result<Option<SocketAddr>, HeaderError>, usize) {
        let mut have = 0;
        loop {
            match read(&stream[..have]) {
                Ok(Header::Wants(bytes)) => {
                    assert!(bytes > 0);
                    have += bytes;
                    assert!(have <= stream.len(), "it wants more than there is");
                }
                Ok(Header::Whole(source)) => return (Ok(source), stream.len() - have),
                Err(error) => return (Err(error), stream.len() - have),
            }
        }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family][..], &length, rest].concat()
    }

    #[test]
    fn both_versions_say_where_a_connection_comes_from() {
        let ipv4 = b"\x0a\x01\x02\x03\x7f\0\0\x01\x1f\x90\x07\xd3";
        let more = [&ipv4[..], b"\x04\0\x03abc"].concat();
        let ipv6 = [&[0x20; 16][..], &[0; 16], b"\x1f\x90\x07\xd3"].concat();
        for (header, source) in [
            (
                b"PROXY TCP4 10.1.2.3 127.0.0.1 8080 2003\r\n".to_vec(),
                Some("10.1.2.3:8080"),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 8080 2003\r\n".to_vec(),
                Some("[2001:db8::1]:8080"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ::1 8080 2003\r\n".to_vec(), None),
            (v2(0x21, 0x11, ipv4), Some("10.1.2.3:8080")),
            (v2(0x21, 0x11, &more), Some("10.1.2.3:8080")),
            (
                v2(0x21, 0x21, &ipv6),
                Some("[2020:2020:2020:2020:2020:2020:2020:2020]:8080"),
            ),
            (v2(0x20, 0x00, b""), None),
            (v2(0x21, 0x31, &[b'x'; 216]), None),
        ] {
            let stream = [&header[..], b"a 1 1\n"].concat();
            let source = source.map(|source| source.parse().unwrap());
            assert_eq!(
                read_from(&stream),
                (Ok(source), 6),
                "{}",
                header.escape_ascii()
            );
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let refused = |stream: &[u8]| read_from(stream).0.unwrap_err();
        assert_eq!(refused(b"servers.web1.cpu 1 1\n"), HeaderError::Missing);
        let long = [b"PROXY TCP4 ", &[b'1'; 200][..]].concat();
        assert_eq!(refused(&long), HeaderError::TooLong);
        assert_eq!(refused(&v2(0x21, 0x11, &[0; 5000])), HeaderError::TooLong);
        for invalid in [
            b"PROXY TCP4 10.1.2 127.0.0.1 8080 2003\r\n".to_vec(),
            b"PROXY UDP4 10.1.2.3 127.0.0.1 8080 2003\r\n".to_vec(),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 3]),
        ] {
            let error = refused(&invalid);
            assert!(matches!(error, HeaderError::Invalid(_)), "{error}");
        }
    }
}

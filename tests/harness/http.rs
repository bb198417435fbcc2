//! The few requests that tests make of admin ports.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What an admin port answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Asks for `path` with GET.
///
/// # Errors
/// If the peer cannot be reached within a second or does not answer in HTTP/1.
pub fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    ask("GET", address, path)
}

/// Posts nothing to `path`.
///
/// # Errors
/// If the peer cannot be reached within a second or does not answer in HTTP/1.
pub fn post(address: SocketAddr, path: &str) -> io::Result<Response> {
    ask("POST", address, path)
}

fn ask(method: &str, address: SocketAddr, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // HTTP/1.0: no chunks, and the end of the body is the end of the connection
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {answer}")))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    Some(Response {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = "HTTP/1.0 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nnot ready";
        let expected = Response {
            status: 503,
            body: "not ready".into(),
        };
        assert_eq!(parse(answer), Some(expected));
        assert_eq!(parse("SSH-2.0-OpenSSH\r\n\r\n"), None);
    }
}

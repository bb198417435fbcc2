//! [`probe`]: asks an operator whether it is ready, for `helm test`: the image has no other program that could.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// What each step may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer is not shown.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Gets `http://HOST:PORT/PATH`, and gives what came.
///
/// # Errors
/// It is not such an address, nobody answers there, or the answer is not 200.
pub fn probe(url: &str) -> anyhow::Result<String> {
    let (host, path) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .with_context(|| format!("'{url}' is not an address: write http://HOST:PORT/PATH"))?;
    let address = host.to_socket_addrs()?.next();
    let address = address.with_context(|| format!("{host} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)
        .with_context(|| format!("cannot connect to {host}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("{url} answers: {}", answer.trim());
    }
    Ok(status.to_owned())
}

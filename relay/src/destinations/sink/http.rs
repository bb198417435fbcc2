//! Servers that speak HTTP: how they are reached, and what their answers mean.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use hyper_util::client::proxy::matcher::Matcher;
use relay_engine::{Credential, PeerTls, UnixSeconds};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::net::TcpStream;

use super::{Refusal, told};
use crate::clock;
use crate::destinations::carbon::within;
use crate::destinations::tls;

/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of an answer is read, in bytes, and how much of that is told to people, in characters.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const ANSWER_CHARS_TOLD: usize = 512;

/// How long a server may have itself be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// A client for one URL.
pub(super) struct Http {
    client: reqwest::Client,
    url: Url,
}

/// What a client is made of.
pub(super) struct Options<'a> {
    pub(super) url: &'a str,
    pub(super) tls: Option<&'a PeerTls>,
    pub(super) authorization: Option<&'a Credential>,
    pub(super) headers: Vec<(&'a str, &'a str)>,
    pub(super) timeout: Duration,
}

impl Http {
    /// Finds out whether something listens there, or at the proxy on the way.
    pub(super) async fn open(options: Options<'_>) -> io::Result<Self> {
        let url = Url::parse(options.url).map_err(invalid)?;
        let mut headers = HeaderMap::new();
        for (name, value) in options.headers {
            let name = HeaderName::try_from(name).map_err(invalid)?;
            headers.insert(name, HeaderValue::from_str(value).map_err(invalid)?);
        }
        if let Some(credential) = options.authorization {
            let mut value = HeaderValue::from_bytes(credential.as_bytes()).map_err(invalid)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let tls = tls::client(options.tls)?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(options.timeout)
            .user_agent(concat!("carbonway/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(io::Error::other)?;
        let next = proxy(&url)?;
        let next = next.as_ref().unwrap_or(&url);
        let host = next.host_str().unwrap_or_default();
        let host = host.trim_matches(['[', ']']);
        let port = next.port_or_known_default().unwrap_or_default();
        within(CONNECT_TIMEOUT, "connect", TcpStream::connect((host, port))).await?;
        Ok(Self { client, url })
    }

    /// A request with this body.
    pub(super) fn post(&self, body: Vec<u8>) -> RequestBuilder {
        self.client.post(self.url.clone()).body(body)
    }

    /// Sends a request. The answer is a good one, and this is what it says, or the beginning of that.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<String, Refusal> {
        self.send_and_judge(request, |status, _| class(status))
            .await
    }

    /// The same, with a server whose other answers mean what `judge` says of status and body.
    pub(super) async fn send_and_judge(
        &self,
        request: RequestBuilder,
        judge: impl FnOnce(StatusCode, &str) -> Class,
    ) -> Result<String, Refusal> {
        let mut answer = request.send().await.map_err(|error| {
            // The URL is told anyway, and may be long.
            Refusal::later(told(&error.without_url()))
        })?;
        // Read in any case, so that the connection is good for another request.
        let body = read(&mut answer).await;
        match answer.status().is_success() {
            true => Ok(body),
            false => Err(refusal(&answer, &body, judge)),
        }
    }
}

// The one that the environment names for this URL: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY. The client uses it by itself.
fn proxy(url: &Url) -> io::Result<Option<Url>> {
    let uri = url.as_str().parse().map_err(invalid)?;
    let Some(proxy) = Matcher::from_env().intercept(&uri) else {
        return Ok(None);
    };
    let proxy = Url::parse(&proxy.uri().to_string()).map_err(invalid)?;
    Ok(Some(proxy))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Later,
    Stopped,
    Never,
}

/// What an answer that is not a good one means by its status.
pub(super) fn class(status: StatusCode) -> Class {
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => Class::Later,
        // Who asks, and where, is wrong, and not what is sent.
        300..=399 | 401 | 402 | 403 | 404 | 405 | 407 | 410 => Class::Stopped,
        _ => Class::Never,
    }
}

async fn read(answer: &mut Response) -> String {
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES_MAX
        && let Ok(Some(piece)) = answer.chunk().await
    {
        body.extend_from_slice(&piece);
    }
    String::from_utf8_lossy(&body).into_owned()
}

fn refusal(
    answer: &Response,
    body: &str,
    judge: impl FnOnce(StatusCode, &str) -> Class,
) -> Refusal {
    let status = answer.status();
    let after = retry_after(answer.headers(), clock::now());
    let class = judge(status, body);
    let text = match shown(body) {
        "" => status.to_string(),
        shown => format!("{status}: {shown}"),
    };
    match class {
        Class::Never => Refusal::Never(text),
        Class::Stopped => Refusal::Stopped(text),
        Class::Later => Refusal::Later {
            error: io::Error::other(text),
            after,
        },
    }
}

/// What of an answer is told to people.
pub(super) fn shown(answer: &str) -> &str {
    let end = answer.char_indices().nth(ANSWER_CHARS_TOLD);
    let end = end.map_or(answer.len(), |(end, _)| end);
    answer[..end].trim()
}

// In seconds, or as a date.
fn retry_after(headers: &HeaderMap, UnixSeconds(now): UnixSeconds) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse() {
        Ok(seconds) => seconds,
        Err(_) => {
            let then = DateTime::parse_from_rfc2822(text).ok()?.timestamp();
            u64::try_from(then).ok()?.saturating_sub(now)
        }
    };
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_say_whether_it_is_worth_another_try() {
        for (status, expected) in [
            (307, Class::Stopped),
            (400, Class::Never),
            (401, Class::Stopped),
            (404, Class::Stopped),
            (408, Class::Later),
            (413, Class::Never),
            (422, Class::Never),
            (429, Class::Later),
            (500, Class::Later),
            (503, Class::Later),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(class(status), expected, "{status}");
        }
    }

    #[test]
    fn a_server_may_be_left_alone_for_some_minutes() {
        let after = |text: &str| {
            let value = HeaderValue::from_str(text).unwrap();
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
            retry_after(&headers, UnixSeconds(1_792_567_680))
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("86400"), Some(RETRY_AFTER_MAX));
        let date = "Wed, 21 Oct 2026 07:28:05 GMT";
        assert_eq!(after(date), Some(Duration::from_secs(5)));
        let past = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(after(past), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }
}

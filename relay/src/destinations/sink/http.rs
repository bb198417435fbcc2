//! Servers that speak HTTP: how they are reached, and what their answers mean.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use hyper_util::client::proxy::matcher::Matcher;
use relay_engine::{Credential, PeerTls, UnixSeconds};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;

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

/// How long connections are used, at most; up to a tenth less, so that they do not all end at once. After that the host name is
/// asked again, and load balancers get to choose.
const AGE_MAX: Duration = Duration::from_secs(3600);
const AGE_SPREAD: f64 = 0.1;

/// A client for one URL.
pub(super) struct Http {
    client: reqwest::Client,
    // When it is replaced, with its connections.
    renew_at: Instant,
    settings: Settings,
    url: Url,
}

// What all clients for the URL have.
struct Settings {
    tls: Arc<ClientConfig>,
    headers: HeaderMap,
    timeout: Duration,
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
        let settings = Settings {
            tls: tls::client(options.tls)?,
            headers,
            timeout: options.timeout,
        };
        let client = settings.client().map_err(io::Error::other)?;
        let next = proxy(&url)?;
        let next = next.as_ref().unwrap_or(&url);
        let host = next.host_str().unwrap_or_default();
        let host = host.trim_matches(['[', ']']);
        let port = next.port_or_known_default().unwrap_or_default();
        within(CONNECT_TIMEOUT, "connect", TcpStream::connect((host, port))).await?;
        Ok(Self {
            client,
            renew_at: renewal(),
            settings,
            url,
        })
    }

    /// A request with this body.
    pub(super) fn post(&mut self, body: Vec<u8>) -> RequestBuilder {
        if self.renew_at <= Instant::now()
            && let Ok(client) = self.settings.client()
        {
            (self.client, self.renew_at) = (client, renewal());
        }
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

impl Settings {
    fn client(&self) -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .default_headers(self.headers.clone())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(self.timeout)
            .user_agent(concat!("carbonway/", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

fn renewal() -> Instant {
    Instant::now() + AGE_MAX.mul_f64(1.0 - AGE_SPREAD * fastrand::f64())
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

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

    #[tokio::test]
    async fn a_connection_is_used_again_until_it_is_old() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (connected, mut connections) = mpsc::unbounded_channel();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut served = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let connected = connected.clone();
                served.spawn(async move {
                    let mut request = [0; 4096];
                    let mut is_used = false;
                    while stream.read(&mut request).await.unwrap_or_default() > 0 {
                        if !std::mem::replace(&mut is_used, true) {
                            connected.send(()).unwrap();
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        let mut http = Http::open(Options {
            url: &url,
            tls: None,
            authorization: None,
            headers: Vec::new(),
            timeout: Duration::from_secs(30),
        })
        .await
        .unwrap();
        let mut made = 0;
        for (is_old, expected) in [(false, 1), (false, 1), (true, 2), (false, 2)] {
            if is_old {
                http.renew_at = Instant::now();
            }
            let request = http.post(b"{}".to_vec());
            assert_eq!(http.send(request).await.unwrap(), "{}");
            while connections.try_recv().is_ok() {
                made += 1;
            }
            assert_eq!(made, expected);
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

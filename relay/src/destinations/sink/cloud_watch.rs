//! A namespace of Amazon CloudWatch, over its JSON protocol.

use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use flate2::write::GzEncoder;
use relay_engine::{CloudWatch, Sink, UnixSeconds};
use relay_wire::Line;
use reqwest::StatusCode;
use serde::Serialize;

use super::http::{Class, Http, Options, class};
use super::{Refusal, Refused, Taken, told};
use crate::clock;
use crate::destinations::carbon::within;

/// Credentials are replaced when they have no longer than this.
const CREDENTIALS_MARGIN: Duration = Duration::from_secs(300);

/// The longest name of a metric.
const NAME_BYTES_MAX: usize = 255;

/// Values are between this and what is as far below zero: 2^360.
const VALUE_MAX: f64 = f64::from_bits((1023 + 360) << 52);

/// How old points may be, and how far ahead of us, in seconds.
const AGE_MAX: u64 = 14 * 24 * 3600;
const AHEAD_MAX: u64 = 2 * 3600;

/// What is signed besides where it goes to.
const HEADERS: [(&str, &str); 3] = [
    ("content-encoding", "gzip"),
    ("content-type", "application/x-amz-json-1.0"),
    (
        "x-amz-target",
        "GraniteServiceVersion20100801.PutMetricData",
    ),
];

pub(super) struct Client {
    http: Http,
    url: String,
    region: String,
    namespace: String,
    dimensions: Vec<Dimension>,
    storage_resolution: u32,
    provider: SharedCredentialsProvider,
    // Those that are used until they expire, or are not good any more.
    credentials: Option<Credentials>,
    timeout: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    namespace: &'a str,
    metric_data: Vec<Datum<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Datum<'a> {
    metric_name: &'a str,
    #[serde(skip_serializing_if = "<[Dimension]>::is_empty")]
    dimensions: &'a [Dimension],
    timestamp: u32,
    value: f64,
    storage_resolution: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension {
    name: String,
    value: String,
}

impl Client {
    pub(super) async fn open(to: &CloudWatch, sink: &Sink) -> io::Result<Self> {
        let url = format!("{}/", to.url);
        let http = Http::open(Options {
            url: &url,
            tls: None,
            authorization: None,
            headers: HEADERS.to_vec(),
            timeout: sink.timeout,
        });
        let dimensions = to.dimensions.iter();
        let mut client = Self {
            http: http.await?,
            url,
            region: to.region.clone(),
            namespace: to.namespace.clone(),
            dimensions: dimensions
                .map(|(name, value)| Dimension {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            storage_resolution: to.storage_resolution,
            provider: provider(to).await?,
            credentials: None,
            timeout: sink.timeout,
        };
        client.credentials().await?;
        Ok(client)
    }

    async fn credentials(&mut self) -> io::Result<Credentials> {
        let soon = now() + CREDENTIALS_MARGIN;
        if let Some(credentials) = &self.credentials
            && credentials.expiry().is_none_or(|expiry| soon < expiry)
        {
            return Ok(credentials.clone());
        }
        let credentials = async {
            let credentials = self.provider.provide_credentials().await;
            credentials.map_err(|error| io::Error::other(told(&error)))
        };
        let credentials = within(self.timeout, "get credentials", credentials).await?;
        Ok(self.credentials.insert(credentials).clone())
    }

    pub(super) async fn send(&mut self, lines: &[u8]) -> Result<Taken, Refusal> {
        let (points, refused) = self.points(lines);
        if !points.is_empty() {
            let body = compressed(&Request {
                namespace: &self.namespace,
                metric_data: points,
            });
            let body = body.map_err(Refusal::later)?;
            let credentials = self.credentials().await.map_err(Refusal::later)?;
            let headers = self.signature(&body, credentials).map_err(Refusal::later)?;
            let mut request = self.http.post(body);
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let sent = self.http.send_and_judge(request, judge).await;
            if let Err(Refusal::Stopped(_)) = sent {
                // There may be better ones.
                self.credentials = None;
            }
            sent?;
        }
        Ok(Taken {
            left_out: 0,
            refused,
        })
    }

    // Those that have a place there; and of the others where they stand, and why they have none.
    fn points<'a>(&'a self, mut lines: &'a [u8]) -> (Vec<Datum<'a>>, Refused) {
        let times = times(clock::now());
        let bytes = lines.len();
        let (mut points, mut refused) = (Vec::new(), Vec::new());
        let mut begin = 0;
        while let Some(line) = Line::take(&mut lines) {
            let end = bytes - lines.len();
            match checked(line, &times) {
                Ok((metric_name, value)) => points.push(Datum {
                    metric_name,
                    dimensions: &self.dimensions,
                    timestamp: line.timestamp,
                    value,
                    storage_resolution: self.storage_resolution,
                }),
                Err(why) => refused.push((begin..end, why)),
            }
            begin = end;
        }
        (points, refused)
    }

    // What is sent besides [`HEADERS`].
    fn signature(
        &self,
        body: &[u8],
        credentials: Credentials,
    ) -> Result<Vec<(String, String)>, Box<dyn std::error::Error + Send + Sync>> {
        let identity = credentials.into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("monitoring")
            .time(now())
            .settings(SigningSettings::default())
            .build()?
            .into();
        let body = SignableBody::Bytes(body);
        let request = SignableRequest::new("POST", &self.url, HEADERS.into_iter(), body)?;
        let (signed, _) = sign(request, &params)?.into_parts();
        let headers = signed.headers();
        Ok(headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

async fn provider(to: &CloudWatch) -> io::Result<SharedCredentialsProvider> {
    if let Some(key) = &to.credentials {
        let secret = String::from_utf8_lossy(key.password.as_bytes());
        let credentials = Credentials::new(&key.username, secret, None, None, "Secret");
        return Ok(SharedCredentialsProvider::new(credentials));
    }
    let https = aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, _| {
        let builder = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(Provider::Rustls(CryptoMode::Ring));
        match settings {
            Some(settings) => builder.connector_settings(settings.clone()).build(),
            None => builder.build(),
        }
    });
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(https)
        .region(Region::new(to.region.clone()))
        .load()
        .await;
    let provider = config.credentials_provider();
    provider.ok_or_else(|| io::Error::other("nothing says where AWS credentials are"))
}

fn compressed(request: &Request<'_>) -> io::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&serde_json::to_vec(request)?)?;
    gzip.finish()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(clock::now().0)
}

// Which timestamps CloudWatch takes.
fn times(UnixSeconds(now): UnixSeconds) -> RangeInclusive<u64> {
    now.saturating_sub(AGE_MAX)..=now + AHEAD_MAX
}

// The name and the value, or why CloudWatch would not take the line.
fn checked<'a>(
    line: Line<'a>,
    times: &RangeInclusive<u64>,
) -> Result<(&'a str, f64), &'static str> {
    let name = str::from_utf8(line.name).unwrap_or_default();
    let is_printable = |name: &str| name.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if name.is_empty() || !is_printable(name) || name.starts_with(':') {
        return Err("CloudWatch takes only printable ASCII as a name, and no : in front");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("CloudWatch takes only names of up to 255 characters");
    }
    let value = line.value.as_f64();
    // Which also says that it is a number.
    if !(-VALUE_MAX..=VALUE_MAX).contains(&value) {
        return Err("CloudWatch takes only values from -2^360 to 2^360");
    }
    if !times.contains(&line.timestamp.into()) {
        return Err(
            "CloudWatch takes only what is not older than two weeks, or more than two hours ahead",
        );
    }
    Ok((name, value))
}

// What an answer means: most have the same status, and a name in the body.
fn judge(status: StatusCode, body: &str) -> Class {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(rename = "__type")]
        name: String,
    }
    let answer = serde_json::from_str(body).ok();
    let name = answer.map_or_else(String::new, |answer: Answer| answer.name);
    // namespace#NameException
    let name = name.rsplit('#').next().unwrap_or_default();
    match name.strip_suffix("Exception").unwrap_or(name) {
        "InternalFailure"
        | "InternalServiceFault"
        | "LimitExceeded"
        | "RequestExpired"
        | "RequestLimitExceeded"
        | "ServiceUnavailable"
        | "Throttled"
        | "Throttling" => Class::Later,
        "AccessDenied"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidSignature"
        | "MissingAuthenticationToken"
        | "NotAuthorized"
        | "OptInRequired"
        | "SignatureDoesNotMatch"
        | "UnknownOperation"
        | "UnrecognizedClient" => Class::Stopped,
        _ => class(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_the_name_in_them() {
        let bad_request = StatusCode::BAD_REQUEST;
        for (body, expected) in [
            (r#"{"__type":"ThrottlingException"}"#, Class::Later),
            (
                r#"{"__type":"a.b#Throttling","message":"slow"}"#,
                Class::Later,
            ),
            (
                r#"{"__type":"com.amazon#ExpiredTokenException"}"#,
                Class::Stopped,
            ),
            (
                r#"{"__type":"x#InvalidParameterValueException"}"#,
                Class::Never,
            ),
            ("no JSON", Class::Never),
        ] {
            assert_eq!(judge(bad_request, body), expected, "{body}");
        }
        assert_eq!(judge(StatusCode::FORBIDDEN, ""), Class::Stopped);
        assert_eq!(judge(StatusCode::BAD_GATEWAY, ""), Class::Later);
    }

    #[test]
    fn what_cloudwatch_does_not_take_is_not_sent() {
        fn taken(line: &str) -> Result<(&str, f64), &'static str> {
            checked(Line::take(&mut line.as_bytes()).unwrap(), &(1000..=2000))
        }
        assert_eq!(taken("a.b;t=x 1.5 1000\n"), Ok(("a.b;t=x", 1.5)));
        assert!(taken(&format!("{} 1 1000\n", "a".repeat(255))).is_ok());
        for line in [
            "é 1 1000\n",
            ":a 1 1000\n",
            "a nan 1000\n",
            "a 1e109 1000\n",
            "a -inf 1000\n",
            "a 1 999\n",
            "a 1 2001\n",
            &format!("{} 1 1000\n", "a".repeat(256)),
        ] {
            assert!(taken(line).is_err(), "{line}");
        }
    }
}

//! A topic of Google Cloud Pub/Sub: a message for each batch, as carbon-relay-ng publishes them.

use std::io::{self, Write as _};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::write::GzEncoder;
use google_cloud_auth::credentials::service_account::{self, AccessSpecifier};
use google_cloud_auth::credentials::{AccessTokenCredentials, Builder};
use relay_engine::{GoogleAccess, PubSub, Sink};
use relay_wire::pickle;

use super::http::{Http, Options};
use super::{Refusal, Taken, host_name, told};
use crate::destinations::carbon::within;

/// What the relay asks Google to let it do.
const SCOPE: &str = "https://www.googleapis.com/auth/pubsub";

pub(super) struct Client {
    http: Http,
    access: GoogleAccess,
    // `None`: it is nobody.
    credentials: Option<AccessTokenCredentials>,
    has_pickles: bool,
    is_compressed: bool,
    ordering_key: Option<String>,
    timeout: Duration,
    pickles: Vec<u8>,
}

impl Client {
    pub(super) async fn open(to: &PubSub, sink: &Sink, number: u32) -> io::Result<Self> {
        // A topic's name may have this one in it.
        let topic = to.topic.replace('%', "%25");
        let url = format!(
            "{}/v1/projects/{}/topics/{topic}:publish",
            to.url, to.project
        );
        let http = Http::open(Options {
            url: &url,
            tls: None,
            authorization: None,
            headers: vec![("Content-Type", "application/json")],
            timeout: sink.timeout,
        });
        let mut client = Self {
            http: http.await?,
            access: to.access.clone(),
            credentials: credentials(&to.access)?,
            has_pickles: to.has_pickles,
            is_compressed: to.is_compressed,
            ordering_key: to.is_ordered.then(|| ordering_key(number)),
            timeout: sink.timeout,
            pickles: Vec::new(),
        };
        client.token().await?;
        Ok(client)
    }

    // The library keeps it, and gets another one before it expires. What was refused once it may never ask for again.
    async fn token(&mut self) -> io::Result<Option<String>> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        let token = async {
            let token = credentials.access_token().await;
            token.map_err(|error| io::Error::other(told(&error)))
        };
        let token = within(self.timeout, "get a token", token).await;
        if token.is_err() {
            self.credentials = self::credentials(&self.access)?;
        }
        Ok(Some(token?.token))
    }

    pub(super) async fn send(&mut self, lines: &[u8]) -> Result<Taken, Refusal> {
        let body = self.message(lines).map_err(Refusal::later)?;
        let mut request = self.http.post(body);
        if let Some(token) = self.token().await.map_err(Refusal::later)? {
            request = request.bearer_auth(token);
        }
        self.http.send(request).await?;
        Ok(Taken::default())
    }

    // The body of a request with one message.
    fn message(&mut self, lines: &[u8]) -> io::Result<Vec<u8>> {
        let (content, content_type) = match self.has_pickles {
            false => (lines, "application/text"),
            true => {
                self.pickles.clear();
                let mut rest = lines;
                while !rest.is_empty() {
                    let taken = pickle::encode(rest, &mut self.pickles);
                    rest = &rest[taken..];
                }
                (&*self.pickles, "application/python-pickle")
            }
        };
        let (data, codec) = match self.is_compressed {
            false => (BASE64_STANDARD.encode(content), "none"),
            true => {
                let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gzip.write_all(content)?;
                (BASE64_STANDARD.encode(gzip.finish()?), "gzip")
            }
        };
        let mut message = serde_json::json!({
            "data": data,
            "attributes": { "content-type": content_type, "codec": codec },
        });
        if let Some(key) = &self.ordering_key {
            message["orderingKey"] = key.as_str().into();
        }
        Ok(serde_json::to_vec(
            &serde_json::json!({ "messages": [message] }),
        )?)
    }
}

// The same for every connection that has a lane's lines, one after the other.
fn ordering_key(number: u32) -> String {
    format!("{}/{number}", host_name())
}

fn credentials(access: &GoogleAccess) -> io::Result<Option<AccessTokenCredentials>> {
    relay_tls::share_provider();
    let built = match access {
        GoogleAccess::Anonymous => return Ok(None),
        GoogleAccess::Found => Builder::default()
            .with_scopes([SCOPE])
            .build_access_token_credentials(),
        GoogleAccess::Key(key) => {
            let key = serde_json::from_slice(key.as_bytes())
                .map_err(|_| io::Error::other("the service account's key is not JSON"))?;
            service_account::Builder::new(key)
                .with_access_specifier(AccessSpecifier::from_scopes([SCOPE]))
                .build_access_token_credentials()
        }
    };
    // What it says shows nothing of the key.
    built
        .map(Some)
        .map_err(|error| io::Error::other(error.to_string()))
}

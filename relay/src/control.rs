//! The operator's client: keeps a stream open, hands on what is offered, answers, and passes on the relay's reports.
//!
//! It knows nothing of what a snapshot or a report means. When the stream ends for whatever reason it comes back, after a wait
//! that is drawn at random so that a fleet does not come back all at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use relay_proto::config_sync_client::ConfigSyncClient;
use relay_proto::{
    Answer, Assembly, Damage, FromRelay, Hello, Leave, Message as _, ObjectError, ObjectRef, Parts,
    Report, SCHEMA, Snapshot, ToRelay, Version, from_relay, to_relay,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tracing::{info, warn};

use crate::health::Reports;

type Token = MetadataValue<Ascii>;

const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// A stream that lasted this long was a good one: the next back-off begins anew.
const GOOD_STREAM: Duration = Duration::from_secs(60);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Where the operator is, and what this relay shows it.
pub(crate) struct Operator {
    /// `https://HOST:PORT`, or `http://…` in the clear.
    pub(crate) address: String,
    /// The CAs that it believes.
    pub(crate) ca: PathBuf,
    /// Its token.
    pub(crate) token: PathBuf,
}

/// The operator's client.
pub(crate) struct Client {
    endpoint: Endpoint,
    // `None`: in the clear.
    credentials: Option<Credentials>,
    hello: Hello,
    offers: mpsc::Sender<Offered>,
    reports: Reports,
    leave: watch::Sender<bool>,
    is_connected: Arc<AtomicBool>,
    // What is running.
    active: Option<(Version, Bytes)>,
    // An offer that has yet to come whole.
    arriving: Option<Assembly>,
}

// Files, because what is in them changes.
struct Credentials {
    ca: PathBuf,
    token: PathBuf,
}

/// A snapshot from the operator, waiting to be applied.
pub(crate) struct Offered {
    pub(crate) snapshot: Snapshot,
    pub(crate) version: Version,
    pub(crate) encoded: Bytes,
    pub(crate) reply: Reply,
}

/// Who waits to hear what became of an offer.
pub(crate) struct Reply(oneshot::Sender<Result<(), Vec<ObjectError>>>);

impl Reply {
    /// Says what became of it.
    pub(crate) fn send(self, applied: Result<(), Vec<ObjectError>>) {
        // If the stream is gone by now, the next hello tells the operator as well.
        drop(self.0.send(applied));
    }
}

impl Client {
    /// A client that speaks for `pod` of `relay`, which has these `reports`, and the offers that it will get. `leave` says
    /// whether the pod is to go for good.
    pub(crate) fn new(
        operator: Operator,
        relay: ObjectRef,
        pod: &str,
        reports: Reports,
        leave: watch::Sender<bool>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Offered>)> {
        let Operator { address, ca, token } = operator;
        let endpoint = Endpoint::from_shared(address.clone())
            .with_context(|| {
                format!("'{address}' is not an operator's address: write https://HOST:PORT")
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let hello = Hello {
            relay: Some(relay),
            pod: pod.to_owned(),
            schema_max: SCHEMA,
            active_version: Vec::new(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            leaving: false,
        };
        let (offers, receiver) = mpsc::channel(1);
        Ok((
            Self {
                credentials: (endpoint.uri().scheme_str() == Some("https"))
                    .then_some(Credentials { ca, token }),
                endpoint,
                hello,
                offers,
                reports,
                leave,
                is_connected: Arc::default(),
                active: None,
                arriving: None,
            },
            receiver,
        ))
    }

    /// Whether it is in touch with the operator.
    pub(crate) fn is_connected(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_connected)
    }

    /// Stays in touch. `active` is the encoded snapshot that is running at first. Does not end while the offers are received.
    pub(crate) async fn run(mut self, active: Option<(Version, Bytes)>) {
        self.set_active(active);
        let mut back_off = BACK_OFF_MIN;
        while !self.offers.is_closed() {
            let began = Instant::now();
            let Err(status) = self.follow().await;
            self.is_connected.store(false, Ordering::Relaxed);
            if began.elapsed() >= GOOD_STREAM {
                back_off = BACK_OFF_MIN;
            }
            let wait = back_off.mul_f64(fastrand::f64());
            let (code, error) = (status.code(), status.message());
            warn!(operator = %self.endpoint.uri(), ?code, %error, retry_in = ?wait, "lost the operator");
            tokio::time::sleep(wait).await;
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    // One stream, to its end.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Status> {
        let (endpoint, token) = self.prepare()?;
        let channel = endpoint.connect().await.map_err(|error| {
            Status::unavailable(format!("cannot connect: {}", with_causes(&error)))
        })?;
        let (outbound, mut inbound) = self.open(channel, token).await?;
        info!(operator = %self.endpoint.uri(), "connected to the operator");
        self.is_connected.store(true, Ordering::Relaxed);
        // What it was told before this stream, it may have forgotten.
        self.reports.mark_changed();
        self.arriving = None;
        loop {
            let message = tokio::select! {
                message = inbound.message() => {
                    let message = message?.ok_or_else(ended)?;
                    match self.hear(message).await? {
                        Some(answer) => from_relay::Message::Answer(answer),
                        None => continue,
                    }
                }
                report = next_report(&mut self.reports) => from_relay::Message::Report(report),
            };
            let message = FromRelay {
                message: Some(message),
            };
            outbound.send(message).await.map_err(|_| ended())?;
        }
    }

    // With the CA and the token as they are now.
    fn prepare(&self) -> Result<(Endpoint, Option<Token>), Status> {
        let Some(Credentials { ca, token }) = &self.credentials else {
            return Ok((self.endpoint.clone(), None));
        };
        let certificates = read(ca)?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates));
        let endpoint = self.endpoint.clone().tls_config(tls).map_err(|error| {
            let path = ca.display();
            Status::unavailable(format!(
                "{path} has no CA to believe: {}",
                with_causes(&error)
            ))
        })?;
        let text = format!("Bearer {}", read(token)?.trim());
        let mut token: Token = text
            .parse()
            .map_err(|_| Status::unavailable(format!("{} is not a token", token.display())))?;
        token.set_sensitive(true);
        Ok((endpoint, Some(token)))
    }

    async fn open(
        &self,
        channel: Channel,
        token: Option<Token>,
    ) -> Result<(mpsc::Sender<FromRelay>, Streaming<ToRelay>), Status> {
        let (outbound, messages) = mpsc::channel(1);
        let hello = FromRelay {
            message: Some(from_relay::Message::Hello(self.hello.clone())),
        };
        outbound
            .send(hello)
            .await
            .map_err(|_| Status::internal("the channel is new"))?;
        let mut client =
            ConfigSyncClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token);
        }
        let inbound = client.sync(request).await?.into_inner();
        Ok((outbound, inbound))
    }

    // The answer, if there is something to answer.
    async fn hear(&mut self, message: ToRelay) -> Result<Option<Answer>, Status> {
        match message.message {
            Some(to_relay::Message::Offer(offer)) => {
                let name = (offer.nonce, offer.version.clone());
                let active = self.active.as_ref();
                let active = active.map(|(version, encoded)| (*version, encoded));
                self.proceed(name, Assembly::new(offer, active)).await
            }
            Some(to_relay::Message::Parts(Parts { parts })) => {
                // Of one that was refused already.
                let Some(mut arriving) = self.arriving.take() else {
                    return Ok(None);
                };
                let (nonce, version) = arriving.name();
                let name = (nonce, version.to_vec());
                let added = arriving.add(parts).map(|()| arriving);
                self.proceed(name, added).await
            }
            Some(to_relay::Message::Leave(Leave { leave })) => {
                self.hello.leaving = leave;
                self.leave.send_replace(leave);
                Ok(None)
            }
            // From a newer operator; what matters to this release comes as something it knows.
            None => Ok(None),
        }
    }

    // Takes a snapshot that is whole, and waits for the rest of one that is not.
    async fn proceed(
        &mut self,
        (nonce, version): (u64, Vec<u8>),
        arrived: Result<Assembly, Damage>,
    ) -> Result<Option<Answer>, Status> {
        let whole = match arrived {
            Ok(assembly) if !assembly.is_complete() => {
                self.arriving = Some(assembly);
                return Ok(None);
            }
            Ok(assembly) => assembly.finish(),
            Err(damage) => Err(damage),
        };
        let errors = match whole.map_err(|damage| damage.to_string()).and_then(decode) {
            Ok((snapshot, version, encoded)) => self.take(snapshot, version, encoded).await?,
            Err(message) => vec![ObjectError {
                source: None,
                field: "snapshot".to_owned(),
                message,
            }],
        };
        Ok(Some(Answer {
            nonce,
            version,
            errors,
        }))
    }

    // What is wrong with it, if it cannot be applied.
    async fn take(
        &mut self,
        snapshot: Snapshot,
        version: Version,
        encoded: Bytes,
    ) -> Result<Vec<ObjectError>, Status> {
        let (reply, applied) = oneshot::channel();
        let offered = Offered {
            snapshot,
            version,
            encoded: encoded.clone(),
            reply: Reply(reply),
        };
        let stopping = || Status::new(Code::Cancelled, "the relay stops");
        self.offers.send(offered).await.map_err(|_| stopping())?;
        match applied.await.map_err(|_| stopping())? {
            Ok(()) => {
                self.set_active(Some((version, encoded)));
                Ok(Vec::new())
            }
            Err(errors) => Ok(errors),
        }
    }

    fn set_active(&mut self, active: Option<(Version, Bytes)>) {
        let version = active.as_ref().map(|(version, _)| version.as_bytes());
        self.hello.active_version = version.map(<[u8]>::to_vec).unwrap_or_default();
        self.active = active;
    }
}

// A mounted file may be missing for a moment, or until the operator has written it.
fn read(path: &Path) -> Result<String, Status> {
    std::fs::read_to_string(path)
        .map_err(|error| Status::unavailable(format!("cannot read {}: {error}", path.display())))
}

fn ended() -> Status {
    Status::unavailable("the stream ended")
}

async fn next_report(reports: &mut Reports) -> Report {
    loop {
        if reports.changed().await.is_err() {
            // The relay is going down, and this client with it.
            std::future::pending().await
        }
        if let Some(report) = &*reports.borrow_and_update() {
            return report.clone();
        }
    }
}

fn decode((version, encoded): (Version, Bytes)) -> Result<(Snapshot, Version, Bytes), String> {
    let snapshot = Snapshot::decode(encoded.clone());
    let snapshot = snapshot.map_err(|error| format!("it cannot be read: {error}"))?;
    Ok((snapshot, version, encoded))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

//! The sync service: one stream per relay, one unanswered offer at a time.
//!
//! ```text
//! relay ──Hello(relay, pod, active version)──▶   same version as published: acknowledged, nothing is sent
//!       ◀──Offer(nonce, version, parts), Parts   else, as it differs from the active one; and whenever something new is published
//!       ──Answer(nonce, version, errors)─────▶   no errors: acknowledged; else refused, and offered again in a while
//!       ◀──Leave─────────────────────────────    whether its pod is to go for good; when that changes
//!       ──Report─────────────────────────────▶   how destinations stand; whenever that changes
//! ```
//!
//! One relay of a fleet is offered a new snapshot first (`waves`). A stream looks at the newest publication when it is free to
//! offer, so a slow relay skips versions and nothing queues up.
//! A fleet that does not exist (yet) is waited for. A stream has no task of its own: tonic polls it with its connection,
//! and drops it, and its place in the roster, when the peer goes away.

mod deltas;
mod hello;
mod rollout;
mod waves;

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, TryStreamExt as _, stream};
use relay_proto::config_sync_server::{ConfigSync, ConfigSyncServer};
use relay_proto::{Answer, Delta, FromRelay, Leave, ToRelay, Version, from_relay, to_relay};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::metadata::MetadataMap;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use hello::Greeting;
use rollout::{Participant, Rollout};
use waves::Turn;

use crate::metrics::{Metrics, Outcome};
use crate::publish::{Publication, Publications, Published};
use crate::roster::{Place, RelayPod, Roster};
use crate::run::stopped;
use crate::trust::{self, Certificate, Gate};

/// Streams at the same time; more are refused.
const STREAMS_MAX: usize = 8192;
/// Streams of one connection; a relay needs one.
const STREAMS_PER_CONNECTION_MAX: u32 = 4;
/// How long a peer may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A message of a relay, in bytes: an answer may name many resources.
const FROM_RELAY_BYTES_MAX: usize = 1 << 20;
/// Errors of a refusal that are kept.
const ERRORS_MAX: usize = 64;
/// What was refused is offered again after this: a port may be free by then.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// A stream ends between this age and twice this age.
const STREAM_AGE: Duration = Duration::from_secs(30 * 60);
/// A peer that does not answer a ping is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves relays until `stopping` turns true: over TLS with this certificate, or without TLS where there is none.
pub(crate) async fn run(
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    service: Sync,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let service = ConfigSyncServer::new(service).max_decoding_message_size(FROM_RELAY_BYTES_MAX);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX);
    let stop = async move { stopped(&mut stopping).await };
    match certificate {
        Some(certificate) => {
            let mut tasks = JoinSet::new();
            let incoming = trust::incoming(listener, certificate, &mut tasks);
            server
                .serve_with_incoming_shutdown(service, incoming, stop)
                .await?;
        }
        None => {
            let incoming = TcpIncoming::from(listener)
                .with_nodelay(Some(true))
                .with_keepalive(Some(KEEPALIVE_INTERVAL));
            server
                .serve_with_incoming_shutdown(service, incoming, stop)
                .await?;
        }
    }
    Ok(())
}

/// The service.
pub(crate) struct Sync {
    // `None`: everybody is let in.
    gate: Option<Arc<Gate>>,
    publications: Publications,
    roster: Arc<Roster>,
    leaving: Leaving,
    rollout: Arc<Rollout>,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
    places: Arc<Semaphore>,
}

/// The pods that are to go for good; `None` while that is not known.
type Leaving = watch::Receiver<Option<BTreeSet<RelayPod>>>;

impl Sync {
    pub(crate) fn new(
        gate: Option<Arc<Gate>>,
        publications: Publications,
        roster: Arc<Roster>,
        leaving: Leaving,
        metrics: Arc<Metrics>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            gate,
            publications,
            roster,
            leaving,
            rollout: Rollout::new(),
            metrics,
            stopping,
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

type ToRelayStream = Pin<Box<dyn Stream<Item = Result<ToRelay, Status>> + Send>>;

#[tonic::async_trait]
impl ConfigSync for Sync {
    type SyncStream = ToRelayStream;

    async fn sync(
        &self,
        request: Request<Streaming<FromRelay>>,
    ) -> Result<Response<ToRelayStream>, Status> {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.sync_streams_refused.inc();
            return Err(Status::resource_exhausted("too many relays are connected"));
        };
        let stranger = Stranger {
            permit,
            peer: request.remote_addr().map(|peer| peer.to_string()),
            gate: self.gate.clone(),
            sent: request.metadata().clone(),
            from_relay: request.into_inner(),
            publications: self.publications.clone(),
            roster: Arc::clone(&self.roster),
            leaving: self.leaving.clone(),
            rollout: Arc::clone(&self.rollout),
            metrics: Arc::clone(&self.metrics),
            stopping: self.stopping.clone(),
        };
        Ok(Response::new(Box::pin(stranger.stream())))
    }
}

/// A peer that has yet to say hello.
struct Stranger {
    permit: OwnedSemaphorePermit,
    peer: Option<String>,
    gate: Option<Arc<Gate>>,
    sent: MetadataMap,
    from_relay: Streaming<FromRelay>,
    publications: Publications,
    roster: Arc<Roster>,
    leaving: Leaving,
    rollout: Arc<Rollout>,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
}

impl Stranger {
    fn stream(self) -> impl Stream<Item = Result<ToRelay, Status>> {
        stream::once(self.greet())
            .map_ok(|conversation| stream::try_unfold(conversation, Conversation::next))
            .try_flatten()
    }

    async fn greet(mut self) -> Result<Conversation, Status> {
        match self.introduce().await {
            Ok(greeting) => Ok(self.admit(greeting)),
            Err(status) => {
                self.metrics.sync_streams_refused.inc();
                warn!(
                    peer = self.peer,
                    error = status.message(),
                    "refused a stream"
                );
                Err(status)
            }
        }
    }

    async fn introduce(&mut self) -> Result<Greeting, Status> {
        let greeting = self.hello().await?;
        if let Some(gate) = &self.gate {
            gate.admit(&self.sent, &greeting.pod).await?;
        }
        Ok(greeting)
    }

    async fn hello(&mut self) -> Result<Greeting, Status> {
        let first = timeout(HELLO_TIMEOUT, self.from_relay.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello in time"))??;
        match first.and_then(|first| first.message) {
            Some(from_relay::Message::Hello(hello)) => Greeting::read(hello),
            Some(from_relay::Message::Answer(_) | from_relay::Message::Report(_)) | None => {
                Err(Status::invalid_argument("say hello first"))
            }
        }
    }

    fn admit(self, greeting: Greeting) -> Conversation {
        let Greeting {
            pod,
            active,
            build,
            reads,
            is_leaving,
        } = greeting;
        info!(relay = %pod.fleet, pod = pod.name, build, peer = self.peer, "relay connected");
        let place = self.roster.join(pod.clone(), active);
        if let Some(newest) = reads {
            warn!(relay = %pod.fleet, pod = pod.name, newest, "the relay cannot read this operator's snapshots, and goes on with what it has");
            place.reads(newest);
        }
        self.metrics.sync_streams.inc();
        let part = self.rollout.join(&pod.fleet);
        Conversation {
            pod,
            place,
            active,
            acknowledged: None,
            refused: None,
            offered: None,
            nonce: 0,
            until: Instant::now() + STREAM_AGE.mul_f64(1.0 + fastrand::f64()),
            from_relay: self.from_relay,
            publications: self.publications,
            leaving: self.leaving,
            part,
            is_able: reads.is_none(),
            look_again: None,
            is_whole: false,
            is_leaving,
            metrics: self.metrics,
            stopping: self.stopping,
            _permit: self.permit,
        }
    }
}

/// A relay that said hello.
struct Conversation {
    pod: RelayPod,
    place: Place,
    /// What the relay runs, as far as it said.
    active: Option<Version>,
    /// The revision that the roster knows of.
    acknowledged: Option<u64>,
    /// What it refused last, unless it acknowledged something since.
    refused: Option<Refused>,
    /// What has not been answered.
    offered: Option<Offered>,
    nonce: u64,
    /// When it ends, so that the relay shows who it is anew.
    until: Instant,
    from_relay: Streaming<FromRelay>,
    publications: Publications,
    leaving: Leaving,
    part: Participant,
    /// It reads what this operator writes.
    is_able: bool,
    /// When it may have its turn, if nothing changes.
    look_again: Option<Instant>,
    /// What it is sent next builds on nothing, for it refused something.
    is_whole: bool,
    /// Whether it knows that it is to go for good.
    is_leaving: bool,
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

struct Offered {
    nonce: u64,
    published: Arc<Published>,
    delta: Arc<Delta>,
    /// Messages of it that were sent.
    sent: usize,
}

impl Offered {
    // What has yet to be sent of it.
    fn more(&mut self) -> Option<ToRelay> {
        let parts = self.delta.more(self.sent)?;
        self.sent += 1;
        Some(ToRelay {
            message: Some(to_relay::Message::Parts(parts)),
        })
    }
}

/// What is not to be offered for a while.
struct Refused {
    version: Version,
    until: Instant,
}

impl Conversation {
    /// The next offer; `None` when the relay has hung up.
    async fn next(mut self) -> Result<Option<(ToRelay, Self)>, Status> {
        loop {
            let rest = self.offered.as_mut().and_then(Offered::more);
            if let Some(message) = rest.or_else(|| self.leave()).or_else(|| self.offer()) {
                return Ok(Some((message, self)));
            }
            tokio::select! {
                message = self.from_relay.message() => match message? {
                    None => return Ok(None),
                    Some(message) => self.hear(message)?,
                },
                // Where publishing has ended, the end of all is near.
                changed = self.publications.changed() => if changed.is_err() {
                    return Err(Status::unavailable("the operator is stopping"));
                },
                Ok(()) = self.leaving.changed() => {}
                () = self.part.changed(), if self.offered.is_none() => {}
                () = at(self.look_again), if self.offered.is_none() => {}
                () = sleep_until(self.until), if self.offered.is_none() => {
                    return Err(Status::unavailable("the stream is old: come again"));
                }
                () = refusal_is_over(self.refused.as_ref()) => self.refused = None,
                _ = &mut self.place.taken_over => {
                    return Err(Status::aborted("another stream of this pod took over"));
                }
                () = stopped(&mut self.stopping) => {
                    return Err(Status::unavailable("the operator is stopping"));
                }
            }
        }
    }

    // Says whether to go for good, if that is news.
    fn leave(&mut self) -> Option<ToRelay> {
        let leave = self
            .leaving
            .borrow_and_update()
            .as_ref()?
            .contains(&self.pod);
        if std::mem::replace(&mut self.is_leaving, leave) == leave {
            return None;
        }
        info!(relay = %self.pod.fleet, pod = self.pod.name, leave, "told whether to go for good");
        Some(ToRelay {
            message: Some(to_relay::Message::Leave(Leave { leave })),
        })
    }

    fn offer(&mut self) -> Option<ToRelay> {
        if self.offered.is_some() || !self.is_able {
            return None;
        }
        let (publication, newest) = self.newest()?;
        self.look_again = None;
        let published = match self.part.turn(&publication, self.active, &newest) {
            Turn::Offer(published) => published,
            Turn::Wait(until) => {
                self.look_again = until;
                return None;
            }
        };
        let version = published.version;
        if self.active == Some(version) {
            self.acknowledge(&published);
            return None;
        }
        let refused = self.refused.as_ref();
        if refused.is_some_and(|refused| refused.version == version) {
            return None;
        }
        self.nonce += 1;
        let base = self.active.filter(|_| !std::mem::take(&mut self.is_whole));
        let delta = self
            .part
            .deltas()
            .get(&publication, &self.pod.fleet, &published, base);
        let offer = delta.offer(self.nonce);
        self.offered = Some(Offered {
            nonce: self.nonce,
            published,
            delta,
            sent: 1,
        });
        self.metrics.sync_offers.inc();
        Some(ToRelay {
            message: Some(to_relay::Message::Offer(offer)),
        })
    }

    fn newest(&mut self) -> Option<(Arc<Publication>, Arc<Published>)> {
        let publication = self
            .publications
            .borrow_and_update()
            .as_ref()
            .map(Arc::clone)?;
        let published = publication.fleets.get(&self.pod.fleet).map(Arc::clone)?;
        Some((publication, published))
    }

    fn acknowledge(&mut self, published: &Arc<Published>) {
        let Published {
            revision, version, ..
        } = **published;
        self.active = Some(version);
        self.refused = None;
        self.part.taken(published);
        if self.acknowledged != Some(revision) {
            self.acknowledged = Some(revision);
            self.place.acknowledge(revision, version);
        }
    }

    fn hear(&mut self, message: FromRelay) -> Result<(), Status> {
        match message.message {
            Some(from_relay::Message::Answer(answer)) => self.take_answer(answer),
            Some(from_relay::Message::Report(report)) => {
                self.place.report(report.into());
                Ok(())
            }
            Some(from_relay::Message::Hello(_)) => Err(Status::invalid_argument(
                "a hello is the first message of a stream, and no other",
            )),
            // Of a newer release.
            None => Ok(()),
        }
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), Status> {
        let Answer {
            nonce,
            version,
            mut errors,
        } = answer;
        let offered = self
            .offered
            .take()
            .filter(|offered| {
                offered.nonce == nonce && offered.published.version.as_bytes() == version
            })
            .ok_or_else(|| Status::invalid_argument("the answer is to no offer"))?;
        let Offered { published, .. } = offered;
        let Published {
            revision, version, ..
        } = *published;
        let (relay, pod) = (&self.pod.fleet, self.pod.name.as_str());
        if errors.is_empty() {
            info!(%relay, pod, %version, revision, "snapshot acknowledged");
            self.metrics.answered(Outcome::Success);
            self.acknowledge(&published);
        } else {
            self.part.refused(version);
            errors.truncate(ERRORS_MAX);
            warn!(%relay, pod, %version, revision, error = %errors[0], "snapshot refused");
            self.metrics.answered(Outcome::Failure);
            // A part that is wrong would be so again.
            self.is_whole = true;
            self.refused = Some(Refused {
                version,
                until: Instant::now() + REFUSED_PAUSE,
            });
            self.place.refuse(revision, &errors);
        }
        Ok(())
    }
}

// Resolves at that time; never, if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

async fn refusal_is_over(refused: Option<&Refused>) {
    match refused {
        Some(refused) => sleep_until(refused.until).await,
        None => pending().await,
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.metrics.sync_streams.dec();
        info!(relay = %self.pod.fleet, pod = self.pod.name, "relay disconnected");
    }
}

#[cfg(test)]
mod tests;

//! An operator in miniature: it serves the snapshot that a test gives it, and writes down what relays say.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use relay_proto::config_sync_server::{ConfigSync, ConfigSyncServer};
use relay_proto::{
    Answer, FromRelay, Hello, Offer, Part, Report, Snapshot, ToRelay, Version, from_relay, part,
    to_relay,
};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use crate::{DEADLINE, eventually, own_address};

/// A ConfigSync server on a loopback address of its own. It is there until dropped, or told to go away.
#[derive(Debug)]
pub struct Operator {
    address: SocketAddr,
    service: Service,
    runtime: Option<Runtime>,
}

/// What relays said to an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// The first message of each stream.
    pub hellos: Vec<Hello>,
    /// How many offers were made.
    pub offers: usize,
    /// The answers to them.
    pub answers: Vec<Answer>,
    /// How things stood with destinations, whenever that changed.
    pub reports: Vec<Report>,
}

impl Operator {
    /// An operator that publishes nothing yet.
    pub fn start() -> Self {
        let mut operator = Self {
            address: (own_address(), 8090).into(),
            service: Service::default(),
            runtime: None,
        };
        operator.come_back();
        operator
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves again, as before [`Operator::go_away`].
    ///
    /// # Panics
    /// If the address is taken.
    pub fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address);
        let listener = listener.expect("the address is nobody else's");
        listener
            .set_nonblocking(true)
            .expect("sockets have this option");
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be made");
        let service = ConfigSyncServer::new(self.service.clone());
        // its owner is the runtime, which go_away() ends
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let incoming = TcpListenerStream::new(listener);
            let served = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await;
            served.map_err(std::io::Error::other)
        });
        self.runtime = Some(runtime);
    }

    /// Ends at once, with every stream.
    pub fn go_away(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Offers a snapshot to every relay from here on. Returns its version.
    pub fn publish(&self, snapshot: &Snapshot) -> Version {
        let (encoded, version) = snapshot.seal();
        self.publish_bytes(version, encoded.into());
        version
    }

    /// Offers bytes as a snapshot, whatever they are.
    pub fn publish_bytes(&self, version: Version, snapshot: Bytes) {
        let version = version.as_bytes().to_vec();
        let newest = Newest { version, snapshot };
        self.service.newest.send_replace(Some(newest));
    }

    /// What relays said so far.
    pub fn heard(&self) -> Heard {
        self.service.heard().clone()
    }

    /// Waits until relays have answered this many offers, and returns the last answer.
    ///
    /// # Panics
    /// If they do not.
    pub fn wait_for_answers(&self, count: usize) -> Answer {
        let what = format!("{count} answers to the operator's offers");
        let answers = eventually(DEADLINE, &what, || {
            let heard = self.heard();
            match heard.answers.len() >= count {
                true => Ok(heard.answers),
                false => Err(format!("{heard:?}")),
            }
        });
        assert_eq!(answers.len(), count, "{answers:?}");
        answers
            .last()
            .cloned()
            .expect("a test waits for at least one")
    }

    /// Waits until the last report is as wished.
    ///
    /// # Panics
    /// If none is in time.
    pub fn wait_for_report(&self, what: &str, mut is_so: impl FnMut(&Report) -> bool) -> Report {
        eventually(DEADLINE, what, || {
            let last = self.heard().reports.pop();
            last.filter(&mut is_so)
                .ok_or_else(|| format!("{:?}", self.heard().reports))
        })
    }

    /// Waits until relays have opened this many streams, and returns the last hello.
    ///
    /// # Panics
    /// If they do not.
    pub fn wait_for_hellos(&self, count: usize) -> Hello {
        let what = format!("{count} streams to the operator");
        eventually(DEADLINE, &what, || {
            let hellos = self.heard().hellos;
            let last = hellos.last().filter(|_| hellos.len() >= count);
            last.cloned()
                .ok_or_else(|| format!("{} were opened", hellos.len()))
        })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.go_away();
    }
}

#[derive(Clone, Debug)]
struct Service {
    newest: watch::Sender<Option<Newest>>,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Clone, Debug)]
struct Newest {
    version: Vec<u8>,
    snapshot: Bytes,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            newest: watch::Sender::new(None),
            heard: Arc::default(),
        }
    }
}

impl Service {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl ConfigSync for Service {
    type SyncStream = BoxStream<'static, Result<ToRelay, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<FromRelay>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let session = Session {
            service: self.clone(),
            newest: self.newest.subscribe(),
            incoming: request.into_inner(),
            turn: Turn::Hello,
            held: Vec::new(),
            nonce: 0,
        };
        let offers = stream::unfold(session, async |mut session| {
            let offer = session.next_offer().await?;
            Some((Ok(offer), session))
        });
        Ok(Response::new(offers.boxed()))
    }
}

// One stream.
struct Session {
    service: Service,
    newest: watch::Receiver<Option<Newest>>,
    incoming: Streaming<FromRelay>,
    turn: Turn,
    // The version that the relay runs, or was offered last.
    held: Vec<u8>,
    nonce: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    // The relay's, to say hello.
    Hello,
    // The relay's, to answer.
    Answer,
    // Ours, when there is something new.
    Offer,
}

impl Session {
    // `None`: the stream is over.
    async fn next_offer(&mut self) -> Option<ToRelay> {
        loop {
            if self.turn == Turn::Offer
                && let Some(offer) = self.offer()
            {
                return Some(offer);
            }
            tokio::select! {
                message = self.incoming.message() => self.hear(message.ok()??),
                changed = self.newest.changed(), if self.turn == Turn::Offer => changed.ok()?,
            }
        }
    }

    fn offer(&mut self) -> Option<ToRelay> {
        let newest = self.newest.borrow_and_update().clone()?;
        if newest.version == self.held {
            return None;
        }
        self.held.clone_from(&newest.version);
        self.nonce += 1;
        self.turn = Turn::Answer;
        self.service.heard().offers += 1;
        let offer = Offer {
            nonce: self.nonce,
            version: newest.version,
            size: newest.snapshot.len() as u64,
            base: Vec::new(),
            parts: vec![Part {
                part: Some(part::Part::Data(newest.snapshot)),
            }],
        };
        Some(ToRelay {
            message: Some(to_relay::Message::Offer(offer)),
        })
    }

    fn hear(&mut self, message: FromRelay) {
        match message.message {
            Some(from_relay::Message::Hello(hello)) => {
                self.held.clone_from(&hello.active_version);
                self.service.heard().hellos.push(hello);
            }
            Some(from_relay::Message::Answer(answer)) => self.service.heard().answers.push(answer),
            Some(from_relay::Message::Report(report)) => {
                self.service.heard().reports.push(report);
                return;
            }
            None => {}
        }
        self.turn = Turn::Offer;
    }
}

#[cfg(test)]
mod tests {
    use relay_proto::ObjectRef;
    use relay_proto::config_sync_client::ConfigSyncClient;

    use super::*;
    use crate::SnapshotBuilder;

    fn hello(active: &[u8]) -> Hello {
        Hello {
            relay: Some(ObjectRef::new("Relay", "default", "edge")),
            pod: "edge-0".into(),
            schema_max: 1,
            active_version: active.to_vec(),
            build: "test".into(),
            leaving: false,
        }
    }

    // Says hello, and answers the offers that come, until there have been `offers`.
    async fn converse(address: SocketAddr, hello: Hello, offers: usize) -> Vec<Version> {
        let endpoint = format!("http://{address}");
        let mut client = ConfigSyncClient::connect(endpoint).await.unwrap();
        let (say, said) = tokio::sync::mpsc::channel(8);
        let message = |message| FromRelay {
            message: Some(message),
        };
        say.send(message(from_relay::Message::Hello(hello)))
            .await
            .unwrap();
        let said = tokio_stream::wrappers::ReceiverStream::new(said);
        let mut heard = client.sync(said).await.unwrap().into_inner();
        let mut versions = Vec::new();
        while versions.len() < offers {
            let Some(to_relay::Message::Offer(offer)) =
                heard.message().await.unwrap().unwrap().message
            else {
                panic!("an operator only offers")
            };
            versions.push(Version::from_bytes(&offer.version).unwrap());
            let answer = Answer {
                nonce: offer.nonce,
                version: offer.version,
                errors: Vec::new(),
            };
            say.send(message(from_relay::Message::Answer(answer)))
                .await
                .unwrap();
        }
        drop(say);
        assert_eq!(heard.message().await.unwrap(), None, "one more offer");
        versions
    }

    #[test]
    fn what_is_published_is_offered_and_answered() {
        let operator = Operator::start();
        let version = operator.publish(&SnapshotBuilder::new().build());
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let offered = runtime.block_on(converse(operator.address(), hello(&[]), 1));
        assert_eq!(offered, [version]);
        let answer = Answer {
            nonce: 1,
            version: version.as_bytes().to_vec(),
            errors: Vec::new(),
        };
        let expected = Heard {
            hellos: vec![hello(&[])],
            offers: 1,
            answers: vec![answer],
            reports: Vec::new(),
        };
        operator.wait_for_answers(1);
        assert_eq!(operator.heard(), expected);
    }

    #[test]
    fn nothing_is_offered_to_a_relay_that_has_it() {
        let mut operator = Operator::start();
        let first = operator.publish(&SnapshotBuilder::new().build());
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        operator.go_away();
        operator.come_back();
        let second = SnapshotBuilder::new().route("all", "", "a").build();
        let offered = runtime.block_on(async {
            let conversation = converse(operator.address(), hello(first.as_bytes()), 1);
            let publication = async {
                while operator.heard().hellos.is_empty() {
                    tokio::task::yield_now().await;
                }
                operator.publish(&second)
            };
            futures::join!(conversation, publication)
        });
        assert_eq!(offered, (vec![second.seal().1], second.seal().1));
        assert_eq!(operator.heard().offers, 1);
    }
}

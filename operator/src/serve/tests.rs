//! Relays in the same process, over real sockets.

use relay_proto::config_sync_client::ConfigSyncClient;
use relay_proto::{Assembly, Hello, ObjectError, ObjectRef, Offer, SCHEMA};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::*;
use crate::conditions::Progress;
use crate::fixture::{ALL, GRAPHITE, RELAY, apply};
use crate::fleet::Said;
use crate::inputs::{Key, Kind};
use crate::publish::{Publication, publication};

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_relay_is_offered_the_snapshot_and_acknowledges_it() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    let offer = relay.offer().await;
    let published = operator.published();
    assert_eq!(offer.version, published.version.as_bytes());
    let whole = Assembly::new(offer.clone(), None).and_then(Assembly::finish);
    assert_eq!(whole.unwrap().0, published.version);
    relay.answer(&offer, &[]).await;
    operator.reaches("1/1").await;
}

#[tokio::test]
async fn a_relay_that_runs_the_newest_is_sent_nothing_until_that_changes() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let active = operator.published().version;
    let mut relay = operator.relay("a", Some(active)).await;
    operator.reaches("1/1").await;
    assert_eq!(operator.metrics.sync_offers.get(), 0);
    operator.publish(&[RELAY, GRAPHITE, &edited("one.")]);
    assert_ne!(relay.offer().await.version, active.as_bytes());
    assert_eq!(operator.progress().to_string(), "0/1");
}

#[tokio::test]
async fn a_slow_relay_skips_versions() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    let first = relay.offer().await;
    operator.publish(&[RELAY, GRAPHITE, &edited("one.")]);
    operator.publish(&[RELAY, GRAPHITE, &edited("two.")]);
    relay.answer(&first, &[]).await;
    let next = relay.offer().await;
    assert_eq!(next.version, operator.published().version.as_bytes());
    relay.answer(&next, &[]).await;
    operator.reaches("1/1").await;
    assert_eq!(operator.metrics.sync_offers.get(), 2);
}

#[tokio::test]
async fn after_a_refusal_the_next_version_is_offered() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    let refused = relay.offer().await;
    let error = ObjectError {
        source: Some(ObjectRef::new("Route", "d", "all")),
        field: "match".into(),
        message: "not here".into(),
    };
    relay.answer(&refused, &[error]).await;
    operator
        .until(|progress| progress.rejection.is_some())
        .await;
    operator.publish(&[RELAY, GRAPHITE, &edited("one.")]);
    let next = relay.offer().await;
    assert_eq!(next.version, operator.published().version.as_bytes());
    relay.answer(&next, &[]).await;
    operator.reaches("1/1").await;
}

#[tokio::test]
async fn a_relay_is_sent_what_differs_from_what_it_runs_and_everything_once_it_refused_that() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    let first = relay.offer().await;
    assert_eq!(first.base, Vec::<u8>::new());
    let whole = Assembly::new(first.clone(), None).and_then(Assembly::finish);
    let (version, encoded) = whole.unwrap();
    relay.answer(&first, &[]).await;
    operator.reaches("1/1").await;

    operator.publish(&[RELAY, GRAPHITE, &edited("one.")]);
    let second = relay.offer().await;
    assert_eq!(second.base, version.as_bytes());
    assert!(second.parts.len() > 1, "{second:?}");
    let assembly = Assembly::new(second.clone(), Some((version, &encoded)));
    let published = operator.published();
    let made = assembly.and_then(Assembly::finish).unwrap();
    assert_eq!(made, (published.version, published.encoded.clone()));
    relay.answer(&second, &[ObjectError::default()]).await;

    operator.publish(&[RELAY, GRAPHITE, &edited("two.")]);
    let third = relay.offer().await;
    assert_eq!(third.base, Vec::<u8>::new());
    relay.answer(&third, &[]).await;
    // another relay that comes back with the first version is sent a delta as well
    let mut other = operator.relay("b", Some(version)).await;
    assert_eq!(other.offer().await.base, version.as_bytes());
}

#[tokio::test]
async fn what_one_relay_refuses_no_other_is_offered() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let good = operator.published().version;
    let mut first = operator.relay("a", Some(good)).await;
    operator.reaches("1/1").await;
    let mut second = operator.relay("b", Some(good)).await;
    operator.reaches("2/2").await;

    operator.publish(&[RELAY, GRAPHITE, &edited("bad.")]);
    let bad = operator.published().version;
    // either of them has it first
    let (offered, is_first) = tokio::select! {
        offered = first.offer() => (offered, true),
        offered = second.offer() => (offered, false),
    };
    assert_eq!(offered.version, bad.as_bytes());
    let scout = if is_first { &first } else { &second };
    let error = ObjectError {
        source: Some(ObjectRef::new("Route", "d", "all")),
        ..ObjectError::default()
    };
    scout.answer(&offered, &[error]).await;
    operator
        .until(|progress| progress.rejection.is_some())
        .await;
    assert_eq!(operator.metrics.sync_offers.get(), 1);

    // who comes now is given what the others run
    let mut third = operator.relay("c", None).await;
    let offered = third.offer().await;
    assert_eq!(offered.version, good.as_bytes());
    third.answer(&offered, &[]).await;

    operator.publish(&[RELAY, GRAPHITE, &edited("mended.")]);
    let mended = operator.published().version;
    let mut relays = [first, second, third];
    for _ in 0..relays.len() {
        let mut offers: Vec<_> = relays
            .iter_mut()
            .map(|relay| Box::pin(relay.offer()))
            .collect();
        let (offered, index, rest) = futures::future::select_all(offers.drain(..)).await;
        drop(rest);
        drop(offers);
        assert_eq!(offered.version, mended.as_bytes());
        relays[index].answer(&offered, &[]).await;
    }
    operator.reaches("3/3").await;
}

#[tokio::test]
async fn what_was_refused_is_offered_again_after_a_while() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    let refused = relay.offer().await;
    relay.answer(&refused, &[ObjectError::default()]).await;
    operator
        .until(|_| operator.metrics.text().contains("outcome=\"failure\"} 1"))
        .await;
    assert_eq!(operator.metrics.sync_offers.get(), 1);
    tokio::time::pause();
    tokio::time::advance(REFUSED_PAUSE).await;
    tokio::time::resume();
    let again = relay.offer().await;
    assert_eq!(again.version, refused.version);
    relay.answer(&again, &[]).await;
    operator.reaches("1/1").await;
}

#[tokio::test]
async fn a_fleet_that_does_not_exist_is_waited_for() {
    let operator = Operator::start(&[GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    operator.publish(&[RELAY, GRAPHITE, ALL]);
    let offer = relay.offer().await;
    assert_eq!(offer.version, operator.published().version.as_bytes());
}

#[tokio::test]
async fn a_second_stream_of_the_same_pod_ends_the_first() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut first = operator.relay("a", None).await;
    first.offer().await;
    let mut second = operator.relay("a", None).await;
    second.offer().await;
    assert_eq!(first.end().await, Some(Code::Aborted));
    assert_eq!(operator.progress().to_string(), "0/1");
}

#[tokio::test]
async fn a_relay_that_hangs_up_leaves() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    relay.offer().await;
    drop(relay);
    operator.reaches("0/0").await;
    assert_eq!(operator.metrics.sync_streams.get(), 0);
}

#[tokio::test]
async fn what_breaks_the_contract_is_told_so() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let good = hello("a", None);
    let no_relay = Hello {
        relay: Some(ObjectRef::new("Route", "d", "edge")),
        ..good.clone()
    };
    let no_pod = Hello {
        pod: String::new(),
        ..good.clone()
    };
    let odd = Hello {
        active_version: vec![1, 2, 3],
        ..good.clone()
    };
    for (hello, code) in [
        (no_relay, Code::InvalidArgument),
        (no_pod, Code::InvalidArgument),
        (odd, Code::InvalidArgument),
    ] {
        let first = from_relay::Message::Hello(hello);
        assert_eq!(operator.stream(first).await.end().await, Some(code));
    }
    let answer = from_relay::Message::Answer(Answer::default());
    let mut unasked = operator.stream(answer.clone()).await;
    assert_eq!(unasked.end().await, Some(Code::InvalidArgument));
    let mut twice = operator.relay("a", None).await;
    twice.offer().await;
    twice.say(answer).await;
    assert_eq!(twice.end().await, Some(Code::InvalidArgument));
    assert_eq!(operator.metrics.sync_streams_refused.get(), 4);
}

#[tokio::test]
async fn a_relay_of_an_older_release_is_offered_nothing_and_the_others_do_not_wait_for_it() {
    let operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let old = Hello {
        schema_max: 0,
        ..hello("old", None)
    };
    let mut old = operator.stream(from_relay::Message::Hello(old)).await;
    operator.until(|progress| progress.unable.is_some()).await;
    let mut new = operator.relay("new", None).await;
    let offer = new.offer().await;
    new.answer(&offer, &[]).await;
    operator.reaches("1/2").await;
    let why = "old reads snapshots up to schema 0 and the operator writes 1: upgrade the relay, which goes on with what it has";
    assert_eq!(operator.progress().unable.as_deref(), Some(why));
    operator.stop.send_replace(true);
    assert_eq!(
        old.end().await,
        Some(Code::Unavailable),
        "no offer came before"
    );
}

#[tokio::test]
async fn streams_end_when_the_operator_stops() {
    let mut operator = Operator::start(&[RELAY, GRAPHITE, ALL]).await;
    let mut relay = operator.relay("a", None).await;
    relay.offer().await;
    operator.stop.send_replace(true);
    assert_eq!(relay.end().await, Some(Code::Unavailable));
    drop(relay);
    let ended = timeout(DEADLINE, operator.tasks.join_next()).await;
    ended.unwrap().unwrap().unwrap().unwrap();
}

struct Operator {
    address: String,
    publications: watch::Sender<Option<Arc<Publication>>>,
    roster: Arc<Roster>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Operator {
    async fn start(manifests: &[&str]) -> Self {
        let (publications, published) =
            watch::channel(Some(Arc::new(publication(apply(manifests)))));
        let (stop, stopping) = watch::channel(false);
        let roster = Roster::new(Duration::from_secs(45));
        let metrics = Arc::new(Metrics::new());
        let service = Sync::new(
            None,
            published,
            Arc::clone(&roster),
            Said::new().leaving(),
            Arc::clone(&metrics),
            stopping.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(run(listener, None, service, stopping));
        Self {
            address,
            publications,
            roster,
            metrics,
            stop,
            tasks,
        }
    }

    fn publish(&self, manifests: &[&str]) {
        crate::publish::publish(
            &self.publications,
            apply(manifests),
            Duration::ZERO,
            &self.metrics,
        );
    }

    fn published(&self) -> Arc<Published> {
        let publication = self.publications.borrow();
        let fleets = &publication.as_ref().unwrap().fleets;
        Arc::clone(&fleets[&Key::new(Kind::Relay, "d", "edge")])
    }

    async fn relay(&self, pod: &str, active: Option<Version>) -> Relay {
        self.stream(from_relay::Message::Hello(hello(pod, active)))
            .await
    }

    async fn stream(&self, first: from_relay::Message) -> Relay {
        let mut client = ConfigSyncClient::connect(self.address.clone())
            .await
            .unwrap();
        let (say, said) = mpsc::channel(4);
        let hear = client.sync(ReceiverStream::new(said)).await.unwrap();
        let relay = Relay {
            say,
            hear: hear.into_inner(),
        };
        relay.say(first).await;
        relay
    }

    fn progress(&self) -> Progress {
        let route = Key::new(Kind::Route, "d", "all");
        let publication = self.publications.borrow();
        let publication = publication.as_ref().unwrap();
        let verdict = &publication.verdicts[&route];
        self.roster
            .view(&[])
            .progress(&route, &verdict.fleets, publication)
    }

    async fn reaches(&self, progress: &str) {
        self.until(|now| now.to_string() == progress).await;
    }

    async fn until(&self, reached: impl Fn(&Progress) -> bool) {
        let waiting = async {
            while !reached(&self.progress()) {
                self.roster.changed.notified().await;
            }
        };
        let progress = |_| panic!("stays at {:?}", self.progress());
        timeout(DEADLINE, waiting).await.unwrap_or_else(progress);
    }
}

struct Relay {
    say: mpsc::Sender<FromRelay>,
    hear: Streaming<ToRelay>,
}

impl Relay {
    async fn say(&self, message: from_relay::Message) {
        let message = FromRelay {
            message: Some(message),
        };
        self.say.send(message).await.unwrap();
    }

    async fn offer(&mut self) -> Offer {
        let heard = timeout(DEADLINE, self.hear.message()).await;
        match heard.expect("an offer in time").unwrap().unwrap().message {
            Some(to_relay::Message::Offer(offer)) => offer,
            other => panic!("not an offer: {other:?}"),
        }
    }

    async fn answer(&self, offer: &Offer, errors: &[ObjectError]) {
        self.say(from_relay::Message::Answer(Answer {
            nonce: offer.nonce,
            version: offer.version.clone(),
            errors: errors.to_vec(),
        }))
        .await;
    }

    /// How the stream ends; `None`: well.
    async fn end(&mut self) -> Option<Code> {
        let ended = timeout(DEADLINE, self.hear.message()).await;
        match ended.expect("an end in time") {
            Ok(None) => None,
            Ok(Some(message)) => panic!("not an end: {message:?}"),
            Err(status) => Some(status.code()),
        }
    }
}

fn hello(pod: &str, active: Option<Version>) -> Hello {
    Hello {
        relay: Some(ObjectRef::new("Relay", "d", "edge")),
        pod: pod.into(),
        schema_max: SCHEMA,
        active_version: active.map_or(Vec::new(), |version| version.as_bytes().to_vec()),
        build: "test".into(),
        leaving: false,
    }
}

fn edited(prefix: &str) -> String {
    ALL.replace("spec: {", &format!("spec: {{match: {{prefix: {prefix}}}, "))
}

//! Relays that take every snapshot and do nothing with it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use relay_proto::config_sync_client::ConfigSyncClient;
use relay_proto::{
    Answer, Assembly, FromRelay, Hello, Message as _, ObjectRef, SCHEMA, Version, from_relay,
    to_relay,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Relays in this process.
pub(crate) struct Fleet {
    _runtime: Runtime,
    seen: Arc<Seen>,
    relays: usize,
}

#[derive(Default)]
struct Seen {
    /// What each has.
    versions: Mutex<Vec<Option<(Version, Bytes)>>>,
    bytes: AtomicU64,
    /// Streams that were lost, and that were made.
    lost: AtomicU64,
    made: AtomicU64,
}

impl Fleet {
    pub(crate) fn start(operator: SocketAddr, relays: usize) -> Self {
        let runtime = Runtime::new().unwrap();
        let seen = Arc::<Seen>::default();
        seen.versions.lock().unwrap().resize(relays, None);
        for number in 0..relays {
            runtime.spawn(run(operator, number, Arc::clone(&seen)));
        }
        Self {
            _runtime: runtime,
            seen,
            relays,
        }
    }

    /// Waits until all have the same, and returns that.
    pub(crate) fn wait_for_all(&self, patience: Duration) -> Version {
        self.wait_for(patience, |_| true)
    }

    /// Waits until all have the same, and not `before`.
    pub(crate) fn wait_for_another(&self, before: Version, patience: Duration) -> Version {
        self.wait_for(patience, |version| version != before)
    }

    /// Waits until all have lost the operator, and found it again.
    pub(crate) fn wait_for_all_to_come_back(&self, patience: Duration) {
        let began = Instant::now();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        while count(&self.seen.made) < self.relays as u64 {
            let (lost, made) = (count(&self.seen.lost), count(&self.seen.made));
            assert!(
                began.elapsed() < patience,
                "{lost} lost it, {made} found it"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn wait_for(&self, patience: Duration, is_it: impl Fn(Version) -> bool) -> Version {
        let began = Instant::now();
        loop {
            let version = {
                let versions = self.seen.versions.lock().unwrap();
                let of = |has: &Option<(Version, Bytes)>| has.as_ref().map(|(version, _)| *version);
                let first = versions
                    .first()
                    .and_then(of)
                    .filter(|version| is_it(*version));
                first.filter(|first| versions.iter().all(|has| of(has) == Some(*first)))
            };
            if let Some(version) = version {
                return version;
            }
            assert!(began.elapsed() < patience, "relays do not come to the same");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn snapshot_bytes(&self) -> usize {
        let versions = self.seen.versions.lock().unwrap();
        versions[0].as_ref().map_or(0, |(_, encoded)| encoded.len())
    }

    pub(crate) fn forget_streams(&self) {
        self.seen.made.store(0, Ordering::Relaxed);
    }

    pub(crate) fn forget_bytes(&self) {
        self.seen.bytes.store(0, Ordering::Relaxed);
    }

    /// What was received, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }
}

// With the back-off of a relay.
async fn run(operator: SocketAddr, number: usize, seen: Arc<Seen>) {
    let mut back_off = Duration::from_millis(200);
    // So that they do not come in step. A Weyl sequence is chance enough.
    let mut chance = number as f64 * 0.618_033_988_75;
    loop {
        if follow(operator, number, &seen).await.is_some() {
            back_off = Duration::from_millis(200);
            seen.lost.fetch_add(1, Ordering::Relaxed);
        }
        chance = (chance + 0.618_033_988_75).fract();
        tokio::time::sleep(back_off.mul_f64(chance)).await;
        back_off = (back_off * 2).min(Duration::from_secs(30));
    }
}

// One stream, to its end; `None` if there was none.
async fn follow(operator: SocketAddr, number: usize, seen: &Seen) -> Option<()> {
    let mut client = ConfigSyncClient::connect(format!("http://{operator}"))
        .await
        .ok()?;
    let (say, messages) = mpsc::channel(1);
    let active = seen.versions.lock().unwrap()[number].clone();
    let version = active
        .as_ref()
        .map(|(version, _)| version.as_bytes().to_vec());
    let hello = Hello {
        relay: Some(ObjectRef::new("Relay", "default", "edge")),
        pod: format!("edge-{number}"),
        schema_max: SCHEMA,
        active_version: version.unwrap_or_default(),
        build: "simulated".to_owned(),
        leaving: false,
    };
    say.send(said(from_relay::Message::Hello(hello)))
        .await
        .ok()?;
    let mut hear = client
        .sync(ReceiverStream::new(messages))
        .await
        .ok()?
        .into_inner();
    seen.made.fetch_add(1, Ordering::Relaxed);
    let mut arriving = None;
    while let Ok(Some(message)) = hear.message().await {
        seen.bytes
            .fetch_add(message.encoded_len() as u64, Ordering::Relaxed);
        let assembly = match message.message {
            Some(to_relay::Message::Offer(offer)) => {
                let active = seen.versions.lock().unwrap()[number].clone();
                let active = active
                    .as_ref()
                    .map(|(version, encoded)| (*version, encoded));
                Assembly::new(offer, active).unwrap()
            }
            Some(to_relay::Message::Parts(parts)) => {
                let mut assembly: Assembly = arriving.take().unwrap();
                assembly.add(parts.parts).unwrap();
                assembly
            }
            Some(to_relay::Message::Leave(_)) | None => continue,
        };
        if !assembly.is_complete() {
            arriving = Some(assembly);
            continue;
        }
        let (nonce, _) = assembly.name();
        let (version, encoded) = assembly.finish().unwrap();
        let answer = Answer {
            nonce,
            version: version.as_bytes().to_vec(),
            errors: Vec::new(),
        };
        seen.versions.lock().unwrap()[number] = Some((version, encoded));
        if say
            .send(said(from_relay::Message::Answer(answer)))
            .await
            .is_err()
        {
            break;
        }
    }
    Some(())
}

fn said(message: from_relay::Message) -> FromRelay {
    FromRelay {
        message: Some(message),
    }
}

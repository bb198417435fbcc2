//! Lines that are fetched: messages of a broker of AMQP 0-9-1.
//!
//! ```text
//! queues ─▶ messages ─▶ lines ─▶ the engine ─▶ queues of destinations ─▶ sent, on disk, or dropped ─▶ acknowledged
//! ```
//!
//! A message is acknowledged when none of its lines is in this process's memory alone any more. Should the relay be killed
//! before, the broker gives it to somebody else, and some points come twice.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer, ExchangeKind};
use relay_engine::{AmqpQueue, AmqpSource, Reason};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::{StreamExt as _, StreamMap};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::amqp::{Connection, connect, in_time};
use crate::clock;
use crate::destinations::Producer;
use crate::handover::Handover;
use crate::refused::RefusedLine;
use crate::source::Source;
use crate::worker::{Bench, Phase, Scratch, Workers};

/// The first wait after a failure; it doubles up to [`BACK_OFF_MAX`], and is drawn between nothing and that.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Bytes of lines that go to the engine together.
const BLOCK_BYTES: usize = 64 << 10;

/// When the relay stops, how long messages may take to be acknowledged that it has.
const LAST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(2);

/// A source at work.
#[derive(Debug)]
pub(crate) struct Consuming {
    pub(crate) settings: AmqpSource,
    stop: CancellationToken,
    pub(crate) is_connected: AtomicBool,
    // Why it is not, if it was tried.
    failure: Mutex<Option<Arc<str>>>,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
}

/// All sources. One that changes in any way is another one.
#[derive(Default)]
pub(crate) struct Consumers(BTreeMap<Arc<str>, Arc<Consuming>>);

impl Consumers {
    /// Has just these sources at work. `open` is dropped with the last that ends.
    pub(crate) async fn reconcile(
        &mut self,
        wanted: &[AmqpSource],
        workers: &Workers,
        open: &mpsc::Sender<()>,
    ) {
        let mut before = std::mem::take(&mut self.0);
        for settings in wanted {
            let kept = before.remove(&settings.name);
            let consuming = match kept.filter(|kept| kept.settings == *settings) {
                Some(kept) => kept,
                None => {
                    let consuming = Arc::new(Consuming::new(settings.clone()));
                    let consumer = Fetcher {
                        consuming: Arc::clone(&consuming),
                        _open: open.clone(),
                    };
                    workers.fetch(consumer).await;
                    consuming
                }
            };
            if let Some(other) = self.0.insert(Arc::clone(&settings.name), consuming) {
                other.stop.cancel();
            }
        }
        for consuming in before.into_values() {
            consuming.stop.cancel();
        }
    }

    /// Stops them.
    pub(crate) fn close(&mut self) {
        for consuming in std::mem::take(&mut self.0).into_values() {
            consuming.stop.cancel();
        }
    }

    /// Those at work.
    pub(crate) fn active(&self) -> Vec<Arc<Consuming>> {
        self.0.values().map(Arc::clone).collect()
    }
}

impl Consuming {
    fn new(settings: AmqpSource) -> Self {
        Self {
            settings,
            stop: CancellationToken::new(),
            is_connected: AtomicBool::new(false),
            failure: Mutex::default(),
            connect_failures: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
        }
    }

    /// Why it takes no messages, if it was tried.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        self.lock_failure().clone()
    }

    fn set_connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
        *self.lock_failure() = None;
    }

    fn set_failed(&self, error: &io::Error) {
        *self.lock_failure() = Some(error.to_string().into());
    }

    fn lock_failure(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What fetches messages, on its way to a data thread.
pub(crate) struct Fetcher {
    consuming: Arc<Consuming>,
    /// Dropped when it is done.
    _open: mpsc::Sender<()>,
}

// An open connection to the broker.
struct Session {
    _connection: Connection,
    channel: Channel,
    deliveries: StreamMap<usize, Consumer>,
}

// Messages whose lines are under way.
struct UnderWay {
    // Where the queues of destinations were when they had the lines.
    tickets: Vec<(Arc<Producer>, u64)>,
    // The last of the messages.
    tag: u64,
    messages: u64,
}

impl Fetcher {
    /// Works until the source is no longer wanted or the relay stops.
    pub(crate) async fn run(self, bench: &Bench) {
        let consuming = &self.consuming;
        let (name, settings) = (&consuming.settings.name, &consuming.settings);
        let mut stopping = pin!(async {
            tokio::select! {
                () = consuming.stop.cancelled() => {}
                () = bench.reached(Phase::Reading) => {}
            }
        });
        let mut back_off = BACK_OFF_MIN;
        loop {
            let session = tokio::select! {
                session = in_time(Session::open(settings)) => session,
                () = &mut stopping => return,
            };
            let ended = match session {
                Ok(mut session) => {
                    info!(listener = %name, broker = %settings.server.address, "taking messages");
                    consuming.set_connected();
                    back_off = BACK_OFF_MIN;
                    let ended = session.work(consuming, bench, &mut stopping).await;
                    consuming.is_connected.store(false, Ordering::Relaxed);
                    ended
                }
                Err(error) => {
                    consuming.connect_failures.fetch_add(1, Ordering::Relaxed);
                    Err(error)
                }
            };
            let Err(error) = ended else { return };
            consuming.set_failed(&error);
            warn!(listener = %name, broker = %settings.server.address, %error, "no messages for now");
            let wait = back_off.mul_f64(fastrand::f64());
            back_off = (back_off * 2).min(BACK_OFF_MAX);
            tokio::select! {
                () = sleep(wait) => {}
                () = &mut stopping => return,
            }
        }
    }
}

impl Session {
    async fn open(settings: &AmqpSource) -> io::Result<Self> {
        let connection = connect(&settings.server, settings.tls.as_ref()).await?;
        let session = async {
            let channel = connection.create_channel().await?;
            let qos = channel.basic_qos(settings.prefetch, BasicQosOptions::default());
            qos.await?;
            let exchange = channel.exchange_declare(
                settings.exchange.as_str().into(),
                ExchangeKind::Topic,
                ExchangeDeclareOptions {
                    durable: true,
                    // Then it must be there already.
                    passive: !settings.declares,
                    ..ExchangeDeclareOptions::default()
                },
                FieldTable::default(),
            );
            exchange.await?;
            let mut deliveries = StreamMap::new();
            for (index, queue) in settings.queues.iter().enumerate() {
                let consumer = consume(&channel, &settings.exchange, queue).await?;
                deliveries.insert(index, consumer);
            }
            lapin::Result::Ok((channel, deliveries))
        };
        let (channel, deliveries) = session.await.map_err(io::Error::other)?;
        Ok(Self {
            _connection: connection,
            channel,
            deliveries,
        })
    }

    // Until something is wrong, or the source is to stop.
    async fn work(
        &mut self,
        consuming: &Consuming,
        bench: &Bench,
        stopping: &mut (impl Future<Output = ()> + Unpin),
    ) -> io::Result<()> {
        let queues = self.deliveries.len();
        let mut under_way = VecDeque::new();
        let mut handover = Handover::default();
        loop {
            let delivery = tokio::select! {
                biased;
                () = &mut *stopping => break,
                () = passed(&under_way) => {
                    self.acknowledge(&mut under_way, consuming).await?;
                    continue;
                }
                delivery = self.deliveries.next() => delivery,
            };
            // A queue that was deleted ends its stream.
            let (_, delivery) = delivery.ok_or_else(|| io::Error::other("the queues are gone"))?;
            let mut block = Block::default();
            block.push(delivery.map_err(io::Error::other)?, &consuming.settings);
            while block.lines.len() < BLOCK_BYTES
                && let Some((_, delivery)) = ready(self.deliveries.next()).await
            {
                block.push(delivery.map_err(io::Error::other)?, &consuming.settings);
            }
            consuming
                .messages
                .fetch_add(block.messages, Ordering::Relaxed);
            under_way.push_back(block.process(consuming, bench, &mut handover).await);
            if self.deliveries.len() < queues {
                return Err(io::Error::other("a queue is gone"));
            }
        }
        let last = async {
            while !under_way.is_empty() {
                passed(&under_way).await;
                self.acknowledge(&mut under_way, consuming).await?;
            }
            Ok(())
        };
        timeout(LAST_ACKNOWLEDGEMENTS, last).await.unwrap_or(Ok(()))
    }

    // The first of those whose lines are under way has none left there.
    async fn acknowledge(
        &self,
        under_way: &mut VecDeque<UnderWay>,
        consuming: &Consuming,
    ) -> io::Result<()> {
        let Some(UnderWay { tag, messages, .. }) = under_way.pop_front() else {
            return Ok(());
        };
        let acknowledged = self
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: true });
        acknowledged.await.map_err(io::Error::other)?;
        consuming
            .acknowledged
            .fetch_add(messages, Ordering::Relaxed);
        Ok(())
    }
}

async fn consume(channel: &Channel, exchange: &str, queue: &AmqpQueue) -> lapin::Result<Consumer> {
    let name = queue.name.as_str();
    let options = QueueDeclareOptions {
        passive: !queue.declares,
        durable: queue.is_durable,
        auto_delete: queue.is_auto_deleted,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(name.into(), options, FieldTable::default());
    declared.await?;
    for key in &queue.binding_keys {
        let bound = channel.queue_bind(
            name.into(),
            exchange.into(),
            key.as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await?;
    }
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(name.into(), "".into(), options, FieldTable::default());
    consumer.await
}

// Lines of several messages.
#[derive(Default)]
struct Block {
    lines: Vec<u8>,
    tag: u64,
    messages: u64,
}

impl Block {
    fn push(&mut self, delivery: Delivery, settings: &AmqpSource) {
        self.tag = delivery.delivery_tag;
        self.messages += 1;
        for line in delivery.data.split_inclusive(|byte| *byte == b'\n') {
            if !settings.has_name_in_body {
                self.lines
                    .extend_from_slice(delivery.routing_key.as_str().as_bytes());
                self.lines.push(b' ');
            }
            self.lines.extend_from_slice(line);
        }
        // The last line needs no newline.
        if self.lines.last().is_some_and(|byte| *byte != b'\n') {
            self.lines.push(b'\n');
        }
    }

    // Resolves when the queues of destinations have taken the lines.
    async fn process(
        self,
        consuming: &Consuming,
        bench: &Bench,
        handover: &mut Handover,
    ) -> UnderWay {
        let AmqpSource {
            name,
            line_bytes_max,
            ..
        } = &consuming.settings;
        let plan = bench.plan.load_full();
        let refused = |reason: Reason, line: std::ops::Range<usize>| {
            let line = RefusedLine::new(&self.lines[line], name, Source::Broker, clock::now());
            bench.refused.note(reason, line);
        };
        let tally = {
            let Scratch { mill, .. } = &mut *bench.scratch.borrow_mut();
            mill.process(&plan, &self.lines, *line_bytes_max, handover, refused)
        };
        bench.count(name, &tally);
        handover.wait_for_room(bench).await;
        let producers = plan.producers.iter();
        UnderWay {
            tickets: producers
                .map(|producer| (Arc::clone(producer), producer.ticket()))
                .collect(),
            tag: self.tag,
            messages: self.messages,
        }
    }
}

// Resolves when the first of these has nothing left in memory; never, if there is none.
async fn passed(under_way: &VecDeque<UnderWay>) {
    let Some(first) = under_way.front() else {
        return std::future::pending().await;
    };
    for (producer, ticket) in &first.tickets {
        producer.passed(*ticket).await;
    }
}

// What a future has come to already, if it has.
async fn ready<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(value),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

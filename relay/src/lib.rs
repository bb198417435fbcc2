//! The data plane: lines come in at listeners, go through the engine, and out to destinations.
//!
//! ```text
//! listen ─▶ connection (engine::process) ─▶ destinations::queue ─▶ destinations::sender ─▶ socket or file
//!                     ▲    │   ▲
//!                     │    └▶ aggregates: buckets that are due come back as lines
//! control ─▶ Relay::apply ─▶ plan (table + queues), loaded anew for every block of lines
//! ```
//!
//! A relay stands alone: it needs no operator and no API server to start, to restart or to run. `worker` holds the data
//! threads; everything else runs beside them and never touches a line.

mod admin;
mod aggregates;
mod amqp;
mod clock;
mod config;
mod connection;
mod consume;
mod control;
mod datagrams;
mod destinations;
mod drops;
mod durable;
mod handover;
mod health;
mod last_good;
mod listen;
pub mod logging;
mod metrics;
mod partial;
mod plan;
mod pod;
mod refused;
mod reuseport;
mod source;
mod stream;
mod succession;
mod wire;
mod worker;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use relay_engine::{Explanation, ListenAddress, Moment, Plaintext, Protocol, Table};
use relay_proto::{ObjectError, Snapshot, Version};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

pub use admin::{bind_admin, serve_admin};
pub use clock::now;
pub use config::{Config, RelayName, one_per_core};
pub use health::Reports;
pub use pod::run;

use crate::aggregates::{Checkpoint, Flusher};
use crate::consume::{Consumers, Consuming};
use crate::destinations::queue::Queue;
use crate::destinations::spooler::directory_name;
use crate::destinations::{Known, Means, New, Orphan, Registry};
use crate::listen::{Listeners, Listening, PrepareError, Prepared};
use crate::plan::{ActivePlan, Plan};
use crate::refused::RefusedLines;
use crate::worker::{Phase, Workers};

/// How long a drain may take after its deadline, to count what is given up.
const GIVE_UP_GRACE: Duration = Duration::from_secs(2);

/// A relay at work. It runs on whatever snapshot was applied last; its owner decides where snapshots come from.
pub struct Relay {
    listen_address: IpAddr,
    plan: ActivePlan,
    workers: Workers,
    registry: Registry,
    listeners: Listeners,
    consumers: Consumers,
    view: View,
    phase: watch::Sender<Phase>,
    died: mpsc::Receiver<()>,
    connections: OpenCount,
    senders: OpenCount,
    flusher: Flusher,
    stop_flushing: oneshot::Sender<()>,
    // The flushing.
    tasks: JoinSet<()>,
    // The watch over destinations, which ends with this.
    watch: JoinSet<()>,
    reports: Reports,
    // Where spools are kept, if anywhere.
    spools: Option<Arc<PathBuf>>,
    // Where dead letters are kept, if anywhere.
    dead_letters: Option<PathBuf>,
    // Nobody is let in any more, for the pod is to go for good.
    is_shut: bool,
    // Where open buckets are kept, if anywhere, and it is ours.
    checkpoint: Option<Checkpoint>,
    // The same, while another process has it.
    awaited: JoinSet<Checkpoint>,
    // Whether buckets that were kept were taken up again, or are awaited.
    is_restored: bool,
}

/// What the admin port may see of a relay.
#[derive(Clone)]
pub struct View {
    plan: ActivePlan,
    workers: Workers,
    phase: watch::Receiver<Phase>,
    shown: Arc<Mutex<Shown>>,
    refused: Arc<RefusedLines>,
    aggregates: Arc<aggregates::Figures>,
    // The pod is to go for good.
    is_leaving: Arc<AtomicBool>,
    // Whether it is connected to an operator, if it is to be.
    sync_connected: Arc<OnceLock<Arc<AtomicBool>>>,
}

#[derive(Default)]
struct Shown {
    listeners: Vec<Arc<Listening>>,
    consumers: Vec<Arc<Consuming>>,
    destinations: Vec<Known>,
    // Those that were removed, by id, for as long as their senders have them.
    leaving: Vec<(Arc<str>, Weak<Queue>)>,
    orphans: Vec<Orphan>,
    applied: u64,
    refused: u64,
}

impl Shown {
    fn set_destinations(&mut self, destinations: Vec<Known>) {
        let before = std::mem::replace(&mut self.destinations, destinations);
        self.leaving.retain(|(_, queue)| queue.strong_count() > 0);
        for Known {
            settings, queue, ..
        } in before
        {
            let is_kept = |known: &Known| Arc::ptr_eq(&known.queue, &queue);
            if !self.destinations.iter().any(is_kept) {
                self.leaving.push((settings.id, Arc::downgrade(&queue)));
            }
        }
    }

    fn leaving(&self) -> Vec<Arc<Queue>> {
        let queues = self.leaving.iter().filter_map(|(_, queue)| queue.upgrade());
        queues.collect()
    }

    // The directories that spools of destinations have, of those included that are leaving.
    fn spools_in_use(&self) -> BTreeSet<String> {
        let present = self.destinations.iter().map(|known| &known.settings.id);
        let leaving = self.leaving.iter();
        let leaving = leaving.filter(|(_, queue)| queue.strong_count() > 0);
        let ids = present.chain(leaving.map(|(id, _)| id));
        ids.map(|id| directory_name(id)).collect()
    }
}

/// What was left when a relay had stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Lines that could not be handed over in time. They are lost.
    pub lines_lost: u64,
}

// Holders of the sender are open; the receiver knows when none is left.
struct OpenCount {
    open: mpsc::Sender<()>,
    none_left: mpsc::Receiver<()>,
}

impl OpenCount {
    fn new() -> Self {
        let (open, none_left) = mpsc::channel(1);
        Self { open, none_left }
    }

    async fn wait(self) {
        let Self {
            open,
            mut none_left,
        } = self;
        drop(open);
        // Nothing is ever sent: this ends when the last holder is gone.
        let None = none_left.recv().await else { return };
    }
}

impl Relay {
    /// Starts the data threads. Nothing is listened on before a snapshot is applied. Open buckets of aggregators outlive a
    /// restart in `state_dir`; without one, what is in them when the relay stops is sent then.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        listen_address: IpAddr,
        threads: NonZeroUsize,
        state_dir: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let plan: ActivePlan = Arc::new(ArcSwap::default());
        let (phase, phases) = watch::channel(Phase::Running);
        let (notice, died) = mpsc::channel(1);
        let refused = Arc::<RefusedLines>::default();
        let workers = Workers::start(threads.get(), &plan, &phases, &refused, &notice)
            .context("cannot start the data threads")?;
        let flusher = Flusher {
            workers: workers.clone(),
            figures: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        let (stop_flushing, stop) = oneshot::channel();
        tasks.spawn(flusher.clone().run(stop));
        let view = View {
            plan: Arc::clone(&plan),
            workers: workers.clone(),
            phase: phases,
            shown: Arc::default(),
            refused,
            aggregates: Arc::clone(&flusher.figures),
            is_leaving: Arc::default(),
            sync_connected: Arc::default(),
        };
        let spools = state_dir.map(|directory| Arc::new(directory.join("spools")));
        let (reports_out, reports) = watch::channel(None);
        let mut watch = JoinSet::new();
        watch.spawn(
            health::Watch {
                view: view.clone(),
                spools: spools.clone(),
                reports: reports_out,
            }
            .run(),
        );
        Ok(Self {
            listen_address,
            plan,
            workers,
            registry: Registry::default(),
            listeners: Listeners::default(),
            consumers: Consumers::default(),
            view,
            phase,
            died,
            connections: OpenCount::new(),
            senders: OpenCount::new(),
            flusher,
            stop_flushing,
            tasks,
            watch,
            reports,
            spools,
            dead_letters: state_dir.map(|directory| directory.join("dead-letters")),
            is_shut: false,
            checkpoint: state_dir.map(Checkpoint::new),
            awaited: JoinSet::new(),
            is_restored: false,
        })
    }

    /// Runs on `snapshot` from now on: when this resolves, every data thread does. Connections, listeners and queues that it
    /// does not concern are not touched, and lines flow on meanwhile: tables are made and let go of beside the data threads.
    ///
    /// # Errors
    /// Why it was refused, by the resource that caused it. Nothing has changed then.
    pub async fn apply(
        &mut self,
        snapshot: Snapshot,
        version: Version,
    ) -> Result<(), Vec<ObjectError>> {
        let applied = self.try_apply(snapshot, version).await;
        let mut shown = self.view.shown();
        match &applied {
            Ok(()) => shown.applied += 1,
            Err(errors) => {
                shown.refused += 1;
                for error in errors {
                    warn!(%version, %error, "snapshot refused");
                }
            }
        }
        applied
    }

    async fn try_apply(
        &mut self,
        snapshot: Snapshot,
        version: Version,
    ) -> Result<(), Vec<ObjectError>> {
        let relay = snapshot.relay.clone();
        let table = elsewhere(move || Table::load(&snapshot))
            .await
            .map_err(|errors| {
                let say = |error: relay_engine::LoadError| ObjectError {
                    source: Some(error.object),
                    field: error.field,
                    message: error.message,
                };
                errors.into_iter().map(say).collect::<Vec<_>>()
            })?;
        let prepared = self.prepare_listeners(&table).map_err(|error| {
            let field = format!("listeners[{}].{}", error.listener, error.source.field());
            vec![ObjectError {
                source: relay,
                field,
                message: error.source.to_string(),
            }]
        })?;
        let faults = destinations::faults(table.destinations());
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut new = New::default();
        let means = Means {
            spools: self.spools.as_deref().map(PathBuf::as_path),
            dead_letters: self.dead_letters.as_deref(),
            open: &self.senders.open,
        };
        let producers = self
            .registry
            .reconcile(table.destinations(), &means, &mut new);
        let known = self.registry.known(table.destinations());
        self.view.shown().set_destinations(known);
        for spooler in new.spoolers {
            self.workers.spool(spooler).await;
        }
        for sender in new.senders {
            self.workers.send(sender).await;
        }
        let before = self.plan.swap(Arc::new(Plan {
            table,
            producers,
            version: Some(version),
        }));
        self.restore_buckets().await;
        self.workers.adopt_plan().await;
        // No data thread has it any more, so none has to take a large table apart.
        elsewhere(move || drop(before)).await;
        self.listeners
            .commit(prepared, &self.workers, &self.connections.open);
        self.view.shown().listeners = self.listeners.active();
        self.reconcile_consumers().await;
        info!(%version, "snapshot applied");
        Ok(())
    }

    fn prepare_listeners(&self, table: &Table) -> Result<Prepared, PrepareError> {
        let wanted = match self.is_shut {
            true => &[],
            false => table.listeners(),
        };
        self.listeners
            .prepare(wanted, self.listen_address, self.workers.count())
    }

    /// Does without a place on disk for what has no room in memory. To be called before the first snapshot is applied.
    pub fn without_spool(self) -> Self {
        Self {
            spools: None,
            ..self
        }
    }

    /// Has metrics tell whether it is connected to an operator.
    fn is_to_be_connected(&self, is_connected: Arc<AtomicBool>) {
        self.view.sync_connected.get_or_init(|| is_connected);
    }

    /// Says whether this relay is to go for good: it is not ready then.
    fn set_leaving(&self, leaving: bool) {
        self.view.is_leaving.store(leaving, Ordering::Relaxed);
    }

    /// Lets nobody in any more, and lets those go who are there, once what they sent is read; or lets people in again.
    async fn set_shut(&mut self, shut: bool) {
        if std::mem::replace(&mut self.is_shut, shut) == shut {
            return;
        }
        match self.prepare_listeners(&self.plan.load().table) {
            Ok(prepared) => {
                self.listeners
                    .commit(prepared, &self.workers, &self.connections.open);
                self.view.shown().listeners = self.listeners.active();
            }
            Err(error) => {
                warn!(%error, "cannot take senders in again; the next snapshot tries anew")
            }
        }
        self.reconcile_consumers().await;
    }

    async fn reconcile_consumers(&mut self) {
        let plan = self.plan.load_full();
        let wanted = match self.is_shut {
            true => &[],
            false => plan.table.amqp_sources(),
        };
        let consumers = &mut self.consumers;
        consumers
            .reconcile(wanted, &self.workers, &self.connections.open)
            .await;
        self.view.shown().consumers = self.consumers.active();
    }

    // Before the first line of the first table comes in, unless another process has yet to leave them.
    async fn restore_buckets(&mut self) {
        if std::mem::replace(&mut self.is_restored, true) {
            return;
        }
        let Some(mut checkpoint) = self.checkpoint.take() else {
            return;
        };
        let (plan, flusher) = (Arc::clone(&self.plan), self.flusher.clone());
        if checkpoint.succession.try_take() {
            flusher.restore(&checkpoint, &plan.load_full().table).await;
            self.checkpoint = Some(checkpoint);
            return;
        }
        self.awaited.spawn(async move {
            checkpoint.succession.take().await;
            let plan = plan.load_full();
            flusher.restore(&checkpoint, &plan.table).await;
            checkpoint
        });
    }

    /// The version that is running.
    pub fn version(&self) -> Option<Version> {
        self.plan.load().version
    }

    /// A port that takes lines over TCP, if there is one.
    pub fn plaintext_port(&self) -> Option<u16> {
        let plan = self.plan.load();
        let mut listeners = plan.table.listeners().iter();
        listeners.find_map(|listener| match (&listener.address, listener.protocol) {
            (ListenAddress::Port(port), Protocol::Plaintext(Plaintext { is_stream, .. })) => {
                (is_stream && listener.tls.is_none()).then_some(*port)
            }
            _ => None,
        })
    }

    /// What the admin port may see.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// How its destinations stand: what it reports when that changes.
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Resolves when a part of it has ended that is never meant to: a data thread, the flushing of aggregates, the watch over
    /// destinations.
    pub async fn failed(&mut self) {
        tokio::select! {
            _ = self.died.recv() => {}
            _ = self.tasks.join_next() => {}
            _ = self.watch.join_next() => {}
        }
    }

    /// Stops, in this order, within the snapshot's drain time-out:
    ///
    /// 1. say that this relay is not ready;
    /// 2. stop accepting; those whom the kernel let in already are served;
    /// 3. read what senders have sent, for half of the time at most, and close their connections;
    /// 4. keep the open buckets of aggregators, or send them where there is no place to keep them;
    /// 5. hand over what waits for destinations;
    /// 6. at the deadline, count what is left as lost.
    pub async fn drain(mut self) -> Drained {
        let drain_timeout = self.plan.load().table.drain_timeout();
        let now = Instant::now();
        let (reading_deadline, deadline) = (now + drain_timeout / 2, now + drain_timeout);
        info!("draining");
        self.phase.send_replace(Phase::Reading);
        self.listeners.close();
        self.consumers.close();
        let (plan, destinations) = (Arc::clone(&self.plan), self.view.destinations());
        let (connections, senders, phase) = (self.connections, self.senders, self.phase);
        let (flusher, mut tasks) = (self.flusher, self.tasks);
        // With a predecessor that is still there, there is nowhere to keep anything.
        let awaited = self.awaited.try_join_next().and_then(Result::ok);
        let checkpoint = self.checkpoint.or(awaited);
        let stop_flushing = self.stop_flushing;
        let mut listeners = self.listeners;
        let handed_over = async {
            let mut all_read = std::pin::pin!(async {
                listeners.closed().await;
                connections.wait().await;
            });
            if timeout_at(reading_deadline, &mut all_read).await.is_err() {
                phase.send_replace(Phase::HandingOver);
                all_read.await;
            }
            drop(stop_flushing);
            while tasks.join_next().await.is_some() {}
            flusher.finish(checkpoint.as_ref()).await;
            // Without a plan no queue has a producer: each closes, and its sender ends when it is empty.
            plan.store(Arc::default());
            drop(self.registry);
            senders.wait().await;
        };
        let mut handed_over = std::pin::pin!(handed_over);
        if timeout_at(deadline, &mut handed_over).await.is_err() {
            phase.send_replace(Phase::GivingUp);
            if timeout_at(Instant::now() + GIVE_UP_GRACE, &mut handed_over)
                .await
                .is_err()
            {
                warn!("a data thread does not answer; what it holds is lost uncounted");
            }
        }
        let lost = |known: &Known| known.queue.figures().lost_at_shutdown();
        let lines_lost = destinations.iter().map(lost).sum();
        Drained { lines_lost }
    }
}

// Does what takes long on a thread that may be busy.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

impl View {
    /// Whether this relay takes lines: it has a snapshot and is not on its way out.
    pub fn is_ready(&self) -> bool {
        self.plan.load().version.is_some()
            && *self.phase.borrow() == Phase::Running
            && !self.is_leaving.load(Ordering::Relaxed)
    }

    /// Whether this relay is to go for good, and nobody can connect to it any more.
    pub(crate) fn has_left(&self) -> bool {
        self.is_leaving.load(Ordering::Relaxed) && self.shown().listeners.is_empty()
    }

    /// Resolves when the relay has come to `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut phases = self.phase.clone();
        // An error means that the relay is gone, which is beyond every phase.
        drop(phases.wait_for(|current| *current >= phase).await);
    }

    /// Tells the way that a line takes through the rules in force, as the listener with the longest limit would let it in.
    pub fn explain(&self, line: &[u8]) -> Explanation {
        let plan = self.plan.load();
        let is_live = |lane| plan.producer(lane).is_live();
        let moment = Moment {
            now: clock::now(),
            stamp: clock::stamp(),
            is_live: &is_live,
        };
        let limits = plan.table.listeners().iter();
        let limit = limits.map(relay_engine::Listener::line_bytes_max).max();
        plan.table.explain(line, limit.unwrap_or_default(), moment)
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destinations(&self) -> Vec<Known> {
        self.shown().destinations.clone()
    }
}

//! What becomes of open buckets: once a second, what is due in all data threads is put together and goes to routing; when the
//! relay stops, what is open is kept on disk, and taken up again when it starts.
//!
//! ```text
//! data thread 1: take_due ─┐
//! data thread 2: take_due ─┼▶ merge ─▶ lines ─▶ a data thread: route ─▶ queues
//! data thread n: …         ┘
//! ```
//!
//! All threads are asked for the same second, and only what all of them gave is merged, so a value is never that of one
//! thread's share.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relay_engine::aggregate::{self, Partial, checkpoint};
use relay_engine::{PointCounts, Routed, Table};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::clock;
use crate::durable;
use crate::succession::Succession;
use crate::worker::{Share, Workers};

/// How often buckets are looked at; they are due on whole seconds.
const TICK: Duration = Duration::from_secs(1);

/// Lines that are routed in one go, in bytes.
const BLOCK_BYTES: usize = 64 << 10;

/// How long the lines of one flush may wait for queues that block. There is no sender to hold back, and other aggregates are
/// not to wait for ever, so after that they are dropped as lines for a full queue are.
const PATIENCE: Duration = Duration::from_secs(5);

/// What aggregators did.
#[derive(Debug, Default)]
pub(crate) struct Figures(Mutex<Counted>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    /// Points that aggregators matched, by the aggregator's id and by what became of them.
    pub(crate) points: BTreeMap<Arc<str>, PointCounts>,
    /// Lines that came of buckets and were forwarded, and those that no route took.
    pub(crate) forwarded: u64,
    pub(crate) unrouted: u64,
    /// Values that were beyond what a double holds.
    pub(crate) not_finite: u64,
    /// Points that could not be taken up again after a restart.
    pub(crate) points_lost: u64,
    /// Buckets that are open, and what they take in memory.
    pub(crate) open_buckets: usize,
    pub(crate) bytes: usize,
}

impl Figures {
    /// The figures at this moment.
    pub(crate) fn counted(&self) -> Counted {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, share: &Share) {
        let mut counted = self.lock();
        for (id, counts) in &share.points {
            let sums = counted.points.entry(Arc::clone(id)).or_default();
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        counted.open_buckets += share.open_buckets;
        counted.bytes += share.bytes;
    }
}

/// Sends what is due on its way.
#[derive(Clone)]
pub(crate) struct Flusher {
    pub(crate) workers: Workers,
    pub(crate) figures: Arc<Figures>,
}

impl Flusher {
    /// Flushes until `stop` resolves, and never stops in the middle: what was taken is in nobody else's hands.
    pub(crate) async fn run(self, mut stop: oneshot::Receiver<()>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => return,
                _ = ticks.tick() => {}
            }
            let now = u32::try_from(clock::now().0).unwrap_or(u32::MAX);
            let shares = self.workers.take_due(now).await;
            let buckets = self.collect(shares);
            self.send(buckets).await;
        }
    }

    /// Takes up what was kept.
    pub(crate) async fn restore(&self, checkpoint: &Checkpoint, table: &Table) {
        let buckets = checkpoint.take(table, &self.figures);
        if !buckets.is_empty() {
            let points_lost = self.workers.restore(buckets).await;
            self.figures.lose(points_lost);
        }
    }

    /// Takes all buckets out, due or not, and keeps them; without a checkpoint, sends what they have come to.
    pub(crate) async fn finish(&self, checkpoint: Option<&Checkpoint>) {
        let shares = self.workers.take_all().await;
        let buckets = aggregate::merge(self.collect(shares));
        let (Some(checkpoint), false) = (checkpoint, buckets.is_empty()) else {
            return self.send(buckets).await;
        };
        match checkpoint.save(&buckets) {
            Ok(()) => info!(
                buckets = buckets.len(),
                "the open buckets of aggregators are kept"
            ),
            Err(error) => {
                let path = checkpoint.path();
                warn!(path = %path.display(), %error, "the open buckets of aggregators cannot be kept and are sent as they are");
                self.send(buckets).await;
            }
        }
    }

    // Merges shares of buckets and routes the lines that come of them.
    async fn send(&self, shares: Vec<Partial>) {
        if shares.is_empty() {
            return;
        }
        // There may be a million.
        let lines = tokio::task::spawn_blocking(move || Lines::of(shares)).await;
        let Ok(Lines { blocks, not_finite }) = lines else {
            return warn!("the lines of aggregators could not be put together and are lost");
        };
        self.figures.lock().not_finite += not_finite;
        let deadline = Instant::now() + PATIENCE;
        for block in blocks {
            let Routed {
                forwarded,
                unrouted,
            } = self.workers.route(block, deadline).await;
            let mut counted = self.figures.lock();
            counted.forwarded += forwarded;
            counted.unrouted += unrouted;
        }
    }

    fn collect(&self, shares: Vec<Share>) -> Vec<Partial> {
        {
            let mut counted = self.figures.lock();
            (counted.open_buckets, counted.bytes) = (0, 0);
        }
        let add = |share: Share| {
            self.figures.add(&share);
            share.buckets
        };
        shares.into_iter().flat_map(add).collect()
    }
}

struct Lines {
    blocks: Vec<Vec<u8>>,
    not_finite: u64,
}

impl Lines {
    fn of(shares: Vec<Partial>) -> Self {
        let mut blocks = Vec::new();
        let mut block = Vec::new();
        let not_finite = aggregate::finish(aggregate::merge(shares), |aggregate| {
            aggregate.write_line(&mut block);
            if block.len() >= BLOCK_BYTES {
                blocks.push(std::mem::take(&mut block));
            }
        });
        if !block.is_empty() {
            blocks.push(block);
        }
        Self { blocks, not_finite }
    }
}

/// Where open buckets are kept while the relay is not running.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    directory: PathBuf,
    /// Whose turn it is, where another process has the directory too.
    pub(crate) succession: Succession,
}

impl Checkpoint {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            succession: Succession::new(directory),
        }
    }

    /// Keeps `buckets`, which are merged.
    pub(crate) fn save(&self, buckets: &[Partial]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        durable::write(&self.path(), &[&checkpoint::encode(buckets)])
    }

    /// Gives back the buckets that were kept and whose aggregators `table` has. They are given once: what comes of them must
    /// not come again.
    pub(crate) fn take(&self, table: &Table, figures: &Figures) -> Vec<Partial> {
        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                warn!(path = %path.display(), %error, "the buckets of aggregators cannot be read and stay where they are");
                return Vec::new();
            }
        };
        let restored = match checkpoint::decode(&bytes, table.aggregation()) {
            Ok(restored) => restored,
            Err(error) => {
                let aside = self.directory.join("aggregates.damaged");
                warn!(path = %aside.display(), %error, "the buckets of aggregators cannot be used and are kept aside");
                if let Err(error) = fs::rename(&path, &aside) {
                    warn!(path = %path.display(), %error, "they cannot be put aside");
                }
                return Vec::new();
            }
        };
        if let Err(error) = fs::remove_file(&path) {
            warn!(path = %path.display(), %error, "the buckets of aggregators are not taken up, for their file cannot be removed");
            return Vec::new();
        }
        for leftover in &restored.leftovers {
            figures.lock().points_lost += leftover.points;
            warn!(
                aggregator = &*leftover.rule,
                name = %leftover.name.escape_ascii(),
                start = leftover.start,
                points = leftover.points,
                "a bucket is lost: its aggregator is gone or has changed"
            );
        }
        if !restored.buckets.is_empty() {
            info!(
                buckets = restored.buckets.len(),
                "the buckets of aggregators are taken up again"
            );
        }
        restored.buckets
    }

    fn path(&self) -> PathBuf {
        self.directory.join("aggregates")
    }
}

impl Figures {
    /// Counts buckets that found no room when they were taken up again.
    pub(crate) fn lose(&self, points: u64) {
        self.lock().points_lost += points;
        if points > 0 {
            warn!(points, "buckets are lost: there is no room for them");
        }
    }
}

//! The data threads. Each has a runtime of its own and serves its share of connections and destinations, so that a line
//! meets no other thread between its socket and its destination's queue.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use relay_engine::{Engine, Outbox, Tally};
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use crate::connection::{self, Accepted};
use crate::destinations::queue::Loss;
use crate::destinations::sender::Sender;
use crate::plan::ActivePlan;

/// What is read from a socket at a time, in bytes: large enough that system calls do not count, small enough for the cache.
/// It holds the longest line twice, so that a line begun in one read is whole in the next.
const READ_BYTES: usize = 256 << 10;

/// Jobs that may wait for a thread that is busy with a block of lines.
const JOBS_MAX: usize = 1024;

/// What names and decisions may take in memory, in bytes: of all threads together, and the most of one. They take that only
/// where there are millions of names.
const NAMES_BYTES: usize = 512 << 20;
const NAMES_BYTES_MAX: usize = 128 << 20;

/// How long a destination that was removed may take what still waits for it.
const REMOVED_GRACE: Duration = Duration::from_secs(30);

/// How far the relay is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// Connections read what senders have sent, and close.
    Reading,
    /// Connections read no more; what they brought is handed over.
    HandingOver,
    /// What waits for destinations is given up.
    GivingUp,
}

/// The data threads, for those who have work for them.
#[derive(Clone)]
pub(crate) struct Workers(Arc<[Thread]>);

struct Thread {
    jobs: mpsc::Sender<Job>,
    // Jobs that it has: what new ones are dealt out by.
    load: Arc<AtomicUsize>,
    counts: Counts,
}

enum Job {
    Serve(Accepted),
    Send(Sender),
}

/// What one data thread has counted, by listener. Only that thread and a scrape lock it.
pub(crate) type Counts = Arc<Mutex<BTreeMap<Arc<str>, Tally>>>;

/// What the tasks of a data thread share.
pub(crate) struct Bench {
    pub(crate) plan: ActivePlan,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) scratch: RefCell<Scratch>,
    counts: Counts,
}

/// Memory for the block of lines at work.
pub(crate) struct Scratch {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) engine: Engine,
    pub(crate) outbox: Outbox,
}

impl Workers {
    /// Starts `count` threads. When one ends, `died` hears of it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(
        count: usize,
        plan: &ActivePlan,
        phase: &watch::Receiver<Phase>,
        died: &mpsc::Sender<()>,
    ) -> io::Result<Self> {
        let threads = (0..count).map(|index| {
            let (jobs, inbox) = mpsc::channel(JOBS_MAX);
            let (load, counts) = (Arc::default(), Counts::default());
            let bench = (Arc::clone(plan), phase.clone(), Arc::clone(&counts));
            let notice = DeathNotice(died.clone());
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            thread::Builder::new()
                .name(format!("data-{index}"))
                .spawn(move || {
                    let _notice = notice;
                    let (plan, phase, counts) = bench;
                    let bench = Rc::new(Bench {
                        plan,
                        phase,
                        scratch: Scratch::new(count).into(),
                        counts,
                    });
                    LocalSet::new().block_on(&runtime, work(bench, inbox));
                    // A write to a file may hang for ever; the process must be able to end.
                    runtime.shutdown_background();
                })?;
            Ok(Thread { jobs, load, counts })
        });
        Ok(Self(threads.collect::<io::Result<_>>()?))
    }

    /// Hands a connection to the thread that has least to do.
    pub(crate) async fn serve(&self, mut accepted: Accepted) {
        let thread = self.least_loaded();
        accepted.load = Some(LoadGuard::new(&thread.load));
        self.hand(thread, Job::Serve(accepted)).await;
    }

    /// Hands a destination's sender to the thread that has least to do.
    pub(crate) async fn send(&self, mut sender: Sender) {
        let thread = self.least_loaded();
        sender.load = Some(LoadGuard::new(&thread.load));
        self.hand(thread, Job::Send(sender)).await;
    }

    /// What each thread has counted.
    pub(crate) fn counts(&self) -> Vec<Counts> {
        self.0
            .iter()
            .map(|thread| Arc::clone(&thread.counts))
            .collect()
    }

    fn least_loaded(&self) -> &Thread {
        self.0
            .iter()
            .min_by_key(|thread| thread.load.load(Ordering::Relaxed))
            .expect("there is at least one thread")
    }

    async fn hand(&self, thread: &Thread, job: Job) {
        if thread.jobs.send(job).await.is_err() {
            // The thread died, and the process ends because of it.
            tracing::error!("a data thread is gone");
        }
    }
}

impl Bench {
    /// Counts a block of a listener's lines.
    pub(crate) fn count(&self, listener: &Arc<str>, tally: &Tally) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(listener) {
            Some(sum) => *sum += tally,
            None => {
                counts.insert(Arc::clone(listener), tally.clone());
            }
        }
    }

    /// Resolves when the relay has come to `phase`.
    pub(crate) async fn reached(&self, phase: Phase) {
        // An error means that the relay is gone, which is beyond every phase.
        drop(
            self.phase
                .clone()
                .wait_for(|current| *current >= phase)
                .await,
        );
    }
}

impl Scratch {
    fn new(threads: usize) -> Self {
        let names_bytes = (NAMES_BYTES / threads).min(NAMES_BYTES_MAX);
        Self {
            buffer: vec![0; READ_BYTES].into(),
            engine: Engine::new(names_bytes),
            outbox: Outbox::default(),
        }
    }
}

/// One job in a thread's load, while it lives.
#[derive(Debug)]
pub(crate) struct LoadGuard(Arc<AtomicUsize>);

impl LoadGuard {
    fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct DeathNotice(mpsc::Sender<()>);

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if self.0.try_send(()).is_err() {
            // Another thread's notice is there already, or nobody is left to read it.
        }
    }
}

async fn work(bench: Rc<Bench>, mut inbox: mpsc::Receiver<Job>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            job = inbox.recv() => match job {
                Some(Job::Serve(accepted)) => {
                    let bench = Rc::clone(&bench);
                    tasks.spawn_local(async move { connection::serve(accepted, &bench).await });
                }
                Some(Job::Send(sender)) => {
                    let bench = Rc::clone(&bench);
                    tasks.spawn_local(async move { send(sender, &bench).await });
                }
                None => return,
            },
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }
}

async fn send(sender: Sender, bench: &Bench) {
    let queue = Arc::clone(sender.queue());
    let deadline = async {
        let removed = async {
            queue.closed().await;
            tokio::time::sleep(REMOVED_GRACE).await;
        };
        tokio::select! {
            () = bench.reached(Phase::GivingUp) => Loss::Shutdown,
            () = removed => Loss::Removed,
        }
    };
    sender.run(deadline).await;
}

//! The data threads. Each has a runtime of its own and serves its share of connections and destinations, so that a line
//! meets no other thread between its socket and its destination's queue.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use relay_engine::aggregate::{self, Flush, Observed, Partial};
use relay_engine::{
    Engine, Limits, Moment, NewestPoints, Outbox, PointCounts, Reason, Routed, Tally,
};
use relay_wire::{Points, pickle};
use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::connection::{self, Accepted};
use crate::consume::Fetcher;
use crate::datagrams::Receiver;
use crate::destinations::queue::Loss;
use crate::destinations::sender::Sender;
use crate::destinations::spooler::Spooler;
use crate::handover::Handover;
use crate::partial::PartialRoom;
use crate::plan::{ActivePlan, Plan};
use crate::refused::RefusedLines;

/// What is read from a socket at a time, in bytes: large enough that system calls do not count, small enough for the cache.
/// It holds the longest line twice, so that a line begun in one read is whole in the next.
const READ_BYTES: usize = 256 << 10;

/// Jobs that may wait for a thread that is busy with a block of lines.
const JOBS_MAX: usize = 1024;

/// What names and decisions may take in memory, in bytes: of all threads together, and the most of one. They take that only
/// where there are millions of names.
const NAMES_BYTES: usize = 512 << 20;
const NAMES_BYTES_MAX: usize = 128 << 20;

/// What the newest timestamps of series may take, in bytes, where points must come in order: four million series.
const NEWEST_POINTS_BYTES: usize = 64 << 20;

/// Buckets that all threads together may have open, and what they may take in memory, in bytes.
const BUCKETS_MAX: usize = 2_000_000;
const BUCKETS_BYTES_MAX: usize = 512 << 20;

/// Buckets that a thread gives before it looks after its connections again.
const BUCKETS_PER_TURN: usize = 4000;

/// What lines that are not yet whole may take in memory, in bytes, beyond what each connection may keep in any case: of all
/// threads together.
const PARTIAL_BYTES: usize = 64 << 20;

/// What frames that are not yet whole may take in memory, in bytes, of all threads together, beyond what each connection may
/// keep in any case. What is made of one frame may take some times as much, while it is.
const FRAMES_BYTES: usize = 64 << 20;

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
    Receive(Box<Receiver>),
    Fetch(Fetcher),
    Send(Box<Sender>),
    Spool(Box<Spooler>),
    /// Go over to the plan in force, and say when that is done.
    Adopt(oneshot::Sender<()>),
    /// Give the buckets that are due at a second since 1970, or all.
    Take(Option<u32>, oneshot::Sender<Share>),
    /// Take up buckets; tell how many points had no room.
    Restore(Vec<Partial>, oneshot::Sender<u64>),
    /// Route lines that came of buckets; wait for room until then.
    Route(Vec<u8>, Instant, oneshot::Sender<Routed>),
}

/// What one thread gives of its aggregates.
#[derive(Default)]
pub(crate) struct Share {
    pub(crate) buckets: Vec<Partial>,
    /// Points that aggregators matched since the last time, by id.
    pub(crate) points: Vec<(Arc<str>, PointCounts)>,
    /// What stays open, and what that takes in memory, in bytes.
    pub(crate) open_buckets: usize,
    pub(crate) bytes: usize,
}

/// What one data thread has counted, by listener. Only that thread and a scrape lock it.
pub(crate) type Counts = Arc<Mutex<BTreeMap<Arc<str>, Tally>>>;

/// What the tasks of a data thread share.
pub(crate) struct Bench {
    pub(crate) plan: ActivePlan,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) refused: Arc<RefusedLines>,
    pub(crate) partial_room: PartialRoom,
    /// Bytes of frames that are not yet whole.
    pub(crate) frame_room: Arc<Semaphore>,
    /// How many data threads there are.
    pub(crate) threads: usize,
    counts: Counts,
}

/// Memory for what is at work.
pub(crate) struct Scratch {
    /// What was read.
    pub(crate) buffer: Box<[u8]>,
    /// What was in a frame, and the lines that it comes to.
    pub(crate) decoder: pickle::Decoder,
    pub(crate) points: Points,
    pub(crate) lines: Vec<u8>,
    pub(crate) mill: Mill,
}

/// What lines go through.
pub(crate) struct Mill {
    engine: Engine,
    outbox: Outbox,
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
        refused: &Arc<RefusedLines>,
        died: &mpsc::Sender<()>,
    ) -> io::Result<Self> {
        let newest = Arc::new(NewestPoints::new(NEWEST_POINTS_BYTES));
        let frame_room = Arc::new(Semaphore::new(FRAMES_BYTES));
        let threads = (0..count).map(|index| {
            let (jobs, inbox) = mpsc::channel(JOBS_MAX);
            let (load, counts) = (Arc::default(), Counts::default());
            let bench = (Arc::clone(plan), phase.clone(), Arc::clone(&counts));
            let (refused, newest) = (Arc::clone(refused), Arc::clone(&newest));
            let frame_room = Arc::clone(&frame_room);
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
                        scratch: Scratch::new(count, newest).into(),
                        refused,
                        partial_room: PartialRoom::new(PARTIAL_BYTES / count),
                        frame_room,
                        threads: count,
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

    /// How many threads there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Hands sockets that take datagrams to the threads, in order.
    pub(crate) async fn receive(&self, receivers: Vec<Receiver>) {
        for (thread, receiver) in self.0.iter().zip(receivers) {
            self.hand(thread, Job::Receive(Box::new(receiver))).await;
        }
    }

    /// Hands what fetches messages to the thread that has least to do.
    pub(crate) async fn fetch(&self, fetcher: Fetcher) {
        self.hand(self.least_loaded(), Job::Fetch(fetcher)).await;
    }

    /// Hands a lane's sender to the thread that has least to do.
    pub(crate) async fn send(&self, mut sender: Sender) {
        let thread = self.least_loaded();
        sender.load = Some(LoadGuard::new(&thread.load));
        self.hand(thread, Job::Send(Box::new(sender))).await;
    }

    /// Hands a destination's spooler to the thread that has least to do.
    pub(crate) async fn spool(&self, spooler: Spooler) {
        let job = Job::Spool(Box::new(spooler));
        self.hand(self.least_loaded(), job).await;
    }

    /// Resolves when no thread holds a plan from before this was called.
    pub(crate) async fn adopt_plan(&self) {
        self.ask(Job::Adopt).await;
    }

    /// What each thread has counted.
    pub(crate) fn counts(&self) -> Vec<Counts> {
        self.0
            .iter()
            .map(|thread| Arc::clone(&thread.counts))
            .collect()
    }

    /// Asks every thread for its shares of the buckets that are due at `now`, in seconds since 1970.
    pub(crate) async fn take_due(&self, now: u32) -> Vec<Share> {
        self.take(Some(now)).await
    }

    /// Asks every thread for its shares of all buckets.
    pub(crate) async fn take_all(&self) -> Vec<Share> {
        self.take(None).await
    }

    async fn take(&self, due: Option<u32>) -> Vec<Share> {
        self.ask(|reply| Job::Take(due, reply)).await
    }

    // Asks every thread, and waits for all answers.
    async fn ask<T: Default>(&self, job: impl Fn(oneshot::Sender<T>) -> Job) -> Vec<T> {
        let mut answers = Vec::with_capacity(self.0.len());
        for thread in self.0.iter() {
            let (reply, answer) = oneshot::channel();
            self.hand(thread, job(reply)).await;
            answers.push(answer);
        }
        let mut given = Vec::with_capacity(answers.len());
        for answer in answers {
            // A thread that is gone ends the process.
            given.push(answer.await.unwrap_or_default());
        }
        given
    }

    /// Has buckets taken up by one thread. Returns how many points had no room.
    pub(crate) async fn restore(&self, buckets: Vec<Partial>) -> u64 {
        let (reply, answer) = oneshot::channel();
        let job = Job::Restore(buckets, reply);
        self.hand(self.least_loaded(), job).await;
        answer.await.unwrap_or_default()
    }

    /// Has lines that came of buckets routed, and resolves when the queues have them. Queues that block have until `deadline`.
    pub(crate) async fn route(&self, block: Vec<u8>, deadline: Instant) -> Routed {
        let (reply, answer) = oneshot::channel();
        let job = Job::Route(block, deadline, reply);
        self.hand(self.least_loaded(), job).await;
        answer.await.unwrap_or_default()
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

    // A plan is not held between two jobs, nor between two blocks of lines.
    fn adopt_plan(&self) {
        let engine = &mut self.scratch.borrow_mut().mill.engine;
        engine.adopt(&self.plan.load().table);
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
    fn new(threads: usize, newest: Arc<NewestPoints>) -> Self {
        let limits = Limits {
            names_bytes: (NAMES_BYTES / threads).min(NAMES_BYTES_MAX),
            aggregates: aggregate::Limits {
                buckets_max: BUCKETS_MAX / threads,
                bytes_max: BUCKETS_BYTES_MAX / threads,
                ..aggregate::Limits::default()
            },
        };
        Self {
            buffer: vec![0; READ_BYTES].into(),
            decoder: pickle::Decoder::default(),
            points: Points::default(),
            lines: Vec::new(),
            mill: Mill {
                engine: Engine::with(limits, newest),
                outbox: Outbox::default(),
            },
        }
    }
}

impl Mill {
    /// Runs whole lines through the engine, and gives queues what they take at once of what comes out. `refused` gets a line
    /// for each reason that one was dropped for.
    pub(crate) fn process(
        &mut self,
        plan: &Plan,
        block: &[u8],
        line_bytes_max: usize,
        handover: &mut Handover,
        mut refused: impl FnMut(Reason, Range<usize>),
    ) -> Tally {
        let Self { engine, outbox } = self;
        let is_live = |lane| plan.producer(lane).is_live();
        let moment = Moment {
            now: clock::now(),
            stamp: clock::stamp(),
            is_live: &is_live,
        };
        let tally = engine.process(&plan.table, block, line_bytes_max, moment, outbox);
        handover.hand_over(plan, outbox);
        for (reason, line) in engine.take_refused() {
            refused(reason, line);
        }
        tally
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
                Some(Job::Receive(receiver)) => {
                    let bench = Rc::clone(&bench);
                    tasks.spawn_local(async move { receiver.run(&bench).await });
                }
                Some(Job::Fetch(fetcher)) => {
                    let bench = Rc::clone(&bench);
                    tasks.spawn_local(async move { fetcher.run(&bench).await });
                }
                Some(Job::Send(sender)) => {
                    let bench = Rc::clone(&bench);
                    tasks.spawn_local(async move { send(*sender, &bench).await });
                }
                Some(Job::Spool(spooler)) => drop(tasks.spawn_local(spooler.run())),
                Some(Job::Adopt(reply)) => {
                    bench.adopt_plan();
                    answer(reply, ());
                }
                Some(Job::Take(due, reply)) => {
                    let bench = Rc::clone(&bench);
                    tasks.spawn_local(async move { answer(reply, take(due, &bench).await) });
                }
                Some(Job::Restore(buckets, reply)) => answer(reply, restore(buckets, &bench)),
                Some(Job::Route(block, deadline, reply)) => {
                    let bench = Rc::clone(&bench);
                    tasks.spawn_local(async move {
                        answer(reply, route(&block, deadline, &bench).await);
                    });
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
    let lane = Arc::clone(sender.lane());
    let deadline = async {
        let removed = async {
            lane.closed().await;
            tokio::time::sleep(REMOVED_GRACE).await;
        };
        tokio::select! {
            () = bench.reached(Phase::GivingUp) => Loss::Shutdown,
            () = removed => Loss::Removed,
        }
    };
    sender.run(deadline).await;
}

// Whoever asked may have given up at the drain's deadline; what it was about is then lost with the process, and said so there.
fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for an answer any more");
    }
}

async fn take(due: Option<u32>, bench: &Bench) -> Share {
    let mut share = Share::default();
    while share.take_more(due, bench) == Flush::Unfinished {
        yield_now().await;
    }
    share
}

impl Share {
    // Takes some of what is asked for, and all of it if nothing is said to be left.
    fn take_more(&mut self, due: Option<u32>, bench: &Bench) -> Flush {
        let engine = &mut bench.scratch.borrow_mut().mill.engine;
        engine.adopt(&bench.plan.load().table);
        let flush = match due {
            Some(now) => engine.take_due(now, BUCKETS_PER_TURN, &mut self.buckets),
            None => {
                self.buckets.extend(engine.take_all());
                Flush::Finished
            }
        };
        if flush == Flush::Finished {
            (self.open_buckets, self.bytes) = engine.open_buckets();
            self.points = engine.take_point_counts();
        }
        flush
    }
}

fn restore(buckets: Vec<Partial>, bench: &Bench) -> u64 {
    let engine = &mut bench.scratch.borrow_mut().mill.engine;
    engine.adopt(&bench.plan.load().table);
    let mut points_lost = 0;
    for bucket in buckets {
        let points = bucket.points();
        if engine.restore(bucket) != Observed::Taken {
            points_lost += points;
        }
    }
    points_lost
}

async fn route(block: &[u8], deadline: Instant, bench: &Bench) -> Routed {
    let mut handover = Handover::default();
    let routed = {
        let scratch = &mut *bench.scratch.borrow_mut();
        let plan = bench.plan.load();
        let is_live = |lane| plan.producer(lane).is_live();
        let moment = Moment {
            now: clock::now(),
            stamp: clock::stamp(),
            is_live: &is_live,
        };
        let Mill { engine, outbox } = &mut scratch.mill;
        let routed = engine.route_aggregates(&plan.table, block, moment, outbox);
        handover.hand_over(&plan, outbox);
        routed
    };
    handover.wait_until(bench, sleep_until(deadline)).await;
    routed
}

//! Hands a destination's lines over, whatever its endpoint is: connect, write, back off, connect again.
//!
//! A sender's life: it waits for a connection, and with one writes chunks until the connection breaks, the endpoint
//! changes, or the queue is closed and empty. A line that a broken connection took only in part is sent again whole on the
//! next one, so no receiver ever sees two lines merged.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use relay_engine::Endpoint;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::carbon;
use super::file;
use super::queue::{Chunk, Loss, Queue};
use crate::worker::LoadGuard;

/// The most bytes taken from the queue at a time: enough for one large write, little enough to bound what is in hand.
const TAKE_BYTES: usize = 1 << 20;

/// The first wait after a failure; it doubles up to [`BACK_OFF_MAX`]. The wait is drawn between nothing and that, so that
/// relays do not come back all at once.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// A connection that lasted this long was a good one: the next back-off begins anew.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// A destination that failed gets lines by failover again when it has been connected for this long.
const LIVE_AGAIN: Duration = Duration::from_secs(5);

/// One destination's sender.
#[derive(Debug)]
pub(crate) struct Sender {
    queue: Arc<Queue>,
    settings: watch::Receiver<relay_engine::Destination>,
    in_hand: InHand,
    back_off: Duration,
    pub(crate) load: Option<LoadGuard>,
    /// Dropped when the sender is done.
    _open: mpsc::Sender<()>,
}

/// Chunks that were taken from the queue and not yet handed over.
#[derive(Debug, Default)]
pub(crate) struct InHand {
    pub(crate) chunks: VecDeque<Chunk>,
    /// How many bytes of the first chunk were handed over.
    pub(crate) written: usize,
}

/// An open connection to an endpoint.
enum Connection {
    Carbon(carbon::Connection),
    File(file::Connection),
}

// Why a connection is given up.
enum Ended {
    // Everything was handed over, and nothing will come.
    Finished,
    // The destination has another endpoint.
    EndpointChanged,
    Broken(io::Error),
}

impl Sender {
    pub(crate) fn new(
        queue: Arc<Queue>,
        settings: watch::Receiver<relay_engine::Destination>,
        open: mpsc::Sender<()>,
    ) -> Self {
        let (in_hand, back_off) = (InHand::default(), BACK_OFF_MIN);
        Self {
            queue,
            settings,
            in_hand,
            back_off,
            load: None,
            _open: open,
        }
    }

    /// The queue that it empties.
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Works until the queue is closed and empty, or until `deadline` resolves; what is left then is counted under its loss.
    pub(crate) async fn run(mut self, deadline: impl Future<Output = Loss>) {
        let name = Arc::clone(&self.settings.borrow().name);
        let loss = tokio::select! {
            () = self.deliver() => None,
            loss = deadline => Some(loss),
        };
        if let Some(loss) = loss {
            self.in_hand.settle(&self.queue);
            let lines = self.queue.give_up(&mut self.in_hand.chunks, loss);
            if lines > 0 {
                let reason = loss.as_str();
                warn!(destination = %name, lines, reason, "lines dropped that could not be handed over in time");
            }
        }
        self.queue.set_connected(false);
    }

    async fn deliver(&mut self) {
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let name = Arc::clone(&settings.name);
            let began = Instant::now();
            let ended = match self.connect(&settings.endpoint).await {
                Ok(mut connection) => {
                    info!(destination = %name, endpoint = %Described(&settings.endpoint), "connected");
                    self.queue.set_connected(true);
                    let ended = self.write(&mut connection, &settings.endpoint).await;
                    if let Ended::EndpointChanged = ended {
                        connection.end_line(&mut self.in_hand, &self.queue).await;
                    }
                    self.queue.set_connected(false);
                    self.in_hand.settle(&self.queue);
                    ended
                }
                Err(ended) => ended,
            };
            match ended {
                Ended::Finished => return,
                Ended::EndpointChanged => self.back_off = BACK_OFF_MIN,
                Ended::Broken(error) => {
                    self.queue.set_live(false);
                    let endpoint = Described(&settings.endpoint);
                    warn!(destination = %name, %endpoint, %error, "connection failed");
                    if began.elapsed() >= GOOD_CONNECTION {
                        self.back_off = BACK_OFF_MIN;
                    }
                    if let Some(Ended::Finished) = self.wait_to_retry(&settings.endpoint).await {
                        return;
                    }
                }
            }
        }
    }

    async fn connect(&mut self, endpoint: &Endpoint) -> Result<Connection, Ended> {
        let connecting = async {
            match endpoint {
                Endpoint::Carbon {
                    address,
                    connect_timeout,
                    write_timeout,
                } => carbon::Connection::open(address, *connect_timeout, *write_timeout)
                    .await
                    .map(Connection::Carbon),
                Endpoint::File { path } => file::Connection::open(path.clone())
                    .await
                    .map(Connection::File),
            }
        };
        tokio::select! {
            connected = connecting => connected.map_err(Ended::Broken),
            () = self.queue.finished() => Err(Ended::Finished),
            () = endpoint_changed(&mut self.settings, endpoint) => Err(Ended::EndpointChanged),
        }
    }

    // `endpoint` is the one that the connection is to; the settings may have another by now.
    async fn write(&mut self, connection: &mut Connection, endpoint: &Endpoint) -> Ended {
        let Self {
            queue,
            settings,
            in_hand,
            ..
        } = self;
        let connected_at = Instant::now();
        let mut live_again = pin!(sleep_until(connected_at + LIVE_AGAIN));
        loop {
            // Under load the timer below is never waited for.
            if !queue.is_live() && connected_at.elapsed() >= LIVE_AGAIN {
                queue.set_live(true);
            }
            if in_hand.chunks.is_empty() {
                let more = tokio::select! {
                    biased;
                    more = queue.take(&mut in_hand.chunks, TAKE_BYTES) => more,
                    error = connection.broken() => return Ended::Broken(error),
                    () = endpoint_changed(settings, endpoint) => return Ended::EndpointChanged,
                    () = &mut live_again, if !queue.is_live() => continue,
                };
                if !more {
                    return match connection.finish().await {
                        Ok(()) => Ended::Finished,
                        Err(error) => Ended::Broken(error),
                    };
                }
            }
            let written = tokio::select! {
                biased;
                written = connection.write(in_hand, queue) => written,
                () = endpoint_changed(settings, endpoint) => return Ended::EndpointChanged,
            };
            if let Err(error) = written {
                return Ended::Broken(error);
            }
        }
    }

    async fn wait_to_retry(&mut self, endpoint: &Endpoint) -> Option<Ended> {
        let wait = self.back_off.mul_f64(fastrand::f64());
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(wait) => None,
            () = endpoint_changed(&mut self.settings, endpoint) => None,
            () = self.queue.finished() => Some(Ended::Finished),
        }
    }
}

impl InHand {
    /// Counts `bytes` more of the chunks as handed over.
    pub(crate) fn advance(&mut self, mut bytes: usize, queue: &Queue) {
        while let Some(chunk) = self.chunks.front() {
            let left = chunk.bytes.len() - self.written;
            if bytes < left {
                self.written += bytes;
                return;
            }
            bytes -= left;
            queue.sent(chunk.bytes.len(), chunk.lines);
            self.written = 0;
            self.chunks.pop_front();
        }
    }

    /// What is missing of the line that was handed over in part; empty if none was.
    pub(crate) fn rest_of_line(&self) -> &[u8] {
        let Some(chunk) = self.chunks.front() else {
            return &[];
        };
        let (written, rest) = chunk.bytes.split_at(self.written);
        match written.last() {
            None | Some(b'\n') => &[],
            Some(_) => {
                &rest[..memchr::memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1)]
            }
        }
    }

    // Counts the whole lines of a chunk that was handed over in part, and keeps the rest to be sent again from a line's start.
    fn settle(&mut self, queue: &Queue) {
        let written = std::mem::take(&mut self.written);
        let Some(chunk) = self.chunks.front_mut() else {
            return;
        };
        let whole =
            memchr::memrchr(b'\n', &chunk.bytes[..written]).map_or(0, |newline| newline + 1);
        let lines = memchr::memchr_iter(b'\n', &chunk.bytes[..whole]).count() as u64;
        chunk.bytes.advance(whole);
        chunk.lines -= lines;
        queue.sent(whole, lines);
    }
}

impl Connection {
    async fn write(&mut self, in_hand: &mut InHand, queue: &Queue) -> io::Result<()> {
        match self {
            Self::Carbon(connection) => connection.write(in_hand, queue).await,
            Self::File(connection) => connection.write(in_hand, queue).await,
        }
    }

    /// Resolves when the other side ends the connection.
    async fn broken(&mut self) -> io::Error {
        match self {
            Self::Carbon(connection) => connection.broken().await,
            Self::File(_) => std::future::pending().await,
        }
    }

    // Before a connection is closed on purpose: a receiver may take a line that ends with its connection for a whole one.
    async fn end_line(&mut self, in_hand: &mut InHand, queue: &Queue) {
        match self {
            Self::Carbon(connection) => connection.end_line(in_hand, queue).await,
            // A file is written in whole chunks.
            Self::File(_) => {}
        }
    }

    async fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Carbon(connection) => connection.finish().await,
            Self::File(_) => Ok(()),
        }
    }
}

// Resolves when the endpoint is another one; other settings do not concern a connection.
async fn endpoint_changed(
    settings: &mut watch::Receiver<relay_engine::Destination>,
    endpoint: &Endpoint,
) {
    if settings
        .wait_for(|settings| settings.endpoint != *endpoint)
        .await
        .is_err()
    {
        // The destination was removed: it keeps the endpoint that it has.
        std::future::pending().await
    }
}

struct Described<'a>(&'a Endpoint);

impl std::fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Endpoint::Carbon { address, .. } => address.fmt(f),
            Endpoint::File { path } => path.display().fmt(f),
        }
    }
}

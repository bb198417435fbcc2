//! Hands the lines of one lane over, whatever its endpoint is: connect, write, back off, connect again.
//!
//! A sender's life: it waits for a connection, and with one writes chunks until the connection breaks, the endpoint
//! changes, or the lane is closed and empty, or has left. What comes in goes first, what waits on disk beside it. A line that a broken
//! connection took only in part is sent again whole on the next one, so no receiver ever sees two lines merged; and so is what
//! the connection took last, for nobody says whether it arrived ([`window`](super::window)).

use std::sync::Arc;
use std::time::Duration;

use relay_engine::{CarbonForm, Endpoint, LaneKey};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::carbon;
use super::connection::{Connection, Described, Ended};
use super::datagrams;
use super::file;
use super::in_hand::InHand;
use super::queue::{Chunk, Lane, Loss};
use super::sink::{self, DeadLetters};
use super::spooler::SpoolHandle;
use crate::worker::LoadGuard;

/// The most bytes taken from the queue at a time: enough for one large write, little enough to bound what is in hand.
const TAKE_BYTES: usize = 1 << 20;

/// While less than this is in hand, in bytes, what waits on disk is sent beside it.
const BESIDE_BYTES: usize = 256 << 10;

/// The first wait after a failure; it doubles up to [`BACK_OFF_MAX`]. The wait is drawn between nothing and that, so that
/// relays do not come back all at once.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// A connection that lasted this long was a good one: the next back-off begins anew.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

/// Connections end earlier than at their greatest age by up to this part of it, so that they do not all end at once.
const AGE_SPREAD: f64 = 0.1;

/// A destination that failed gets lines by failover again when it has been connected for this long.
const LIVE_AGAIN: Duration = Duration::from_secs(5);

/// One lane's sender.
#[derive(Debug)]
pub(crate) struct Sender {
    lane: Arc<Lane>,
    key: LaneKey,
    settings: watch::Receiver<relay_engine::Destination>,
    in_hand: InHand,
    spool: Option<SpoolHandle>,
    dead_letters: Option<Arc<DeadLetters>>,
    // The server refused what it was sent, and has taken nothing since.
    is_doubtful: bool,
    // A connection that is good for another try.
    kept: Option<Box<sink::Connection>>,
    // When the next batch from the spool may go.
    replay_at: Instant,
    back_off: Duration,
    pub(crate) load: Option<LoadGuard>,
    /// Dropped when the sender is done.
    _open: mpsc::Sender<()>,
}

// What happens to a connection as time passes.
struct Term {
    // When its destination gets lines by failover again.
    live_again_at: Instant,
    ends_at: Option<Instant>,
}

impl Term {
    fn new(age_max: Option<Duration>) -> Self {
        let now = Instant::now();
        Self {
            live_again_at: now + LIVE_AGAIN,
            ends_at: age_max.map(|age| now + age.mul_f64(1.0 - AGE_SPREAD * fastrand::f64())),
        }
    }
}

impl Sender {
    pub(crate) fn new(
        lane: Arc<Lane>,
        key: LaneKey,
        settings: watch::Receiver<relay_engine::Destination>,
        spool: Option<SpoolHandle>,
        dead_letters: Option<Arc<DeadLetters>>,
        open: mpsc::Sender<()>,
    ) -> Self {
        Self {
            lane,
            key,
            settings,
            in_hand: InHand::default(),
            spool,
            dead_letters,
            is_doubtful: false,
            kept: None,
            replay_at: Instant::now(),
            back_off: BACK_OFF_MIN,
            load: None,
            _open: open,
        }
    }

    /// The lane that it empties.
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Works until the lane is closed and empty, or has left, or until `deadline` resolves; what is left then goes to the
    /// spool, or is counted under its loss.
    pub(crate) async fn run(mut self, deadline: impl Future<Output = Loss>) {
        let name = Arc::clone(&self.settings.borrow().name);
        let loss = tokio::select! {
            () = self.deliver() => None,
            loss = deadline => Some(loss),
        };
        if let Some(loss) = loss {
            self.in_hand.settle(&self.lane);
            self.tell_spool();
            match &self.spool {
                Some(spool) if self.lane.queue().spools() => {
                    spool
                        .finish(self.lane.moving(&mut self.in_hand.chunks))
                        .await;
                }
                _ => {
                    let lines = self.lane.give_up(&mut self.in_hand.chunks, loss);
                    if lines > 0 {
                        let reason = loss.as_str();
                        warn!(destination = %name, lines, reason, "lines dropped that could not be handed over in time");
                    }
                }
            }
        }
        self.lane.set_connected(false);
    }

    // Says what of the spool was handed over.
    fn tell_spool(&mut self) {
        if let (Some(spool), Some(end)) = (&self.spool, self.in_hand.handed_over.take()) {
            spool.handed_over(end);
        }
    }

    async fn deliver(&mut self) {
        loop {
            let settings = self.settings.borrow_and_update().clone();
            let name = Arc::clone(&settings.name);
            let Some(endpoint) = lane_endpoint(&settings, &self.key) else {
                match self.wait_for_endpoint().await {
                    true => continue,
                    false => return,
                }
            };
            let began = Instant::now();
            let ended = match self.connect(&endpoint).await {
                Ok(mut connection) => {
                    if !self.is_doubtful {
                        info!(destination = %name, endpoint = %Described(&endpoint), "connected");
                    }
                    let ended = self.use_connection(&mut connection, &endpoint, began).await;
                    if let (Ended::Refused(_), Connection::Sink(sink)) = (&ended, connection) {
                        self.kept = Some(sink).filter(|sink| sink.outlives_refusals());
                    }
                    ended
                }
                Err(ended) => {
                    if let Ended::Broken(error) = &ended {
                        self.lane.link().failed(error);
                    }
                    ended
                }
            };
            let (error, wait_min): (&dyn std::fmt::Display, _) = match &ended {
                Ended::Finished | Ended::Left => return,
                Ended::EndpointChanged => {
                    (self.is_doubtful, self.back_off) = (false, BACK_OFF_MIN);
                    continue;
                }
                Ended::Aged => {
                    self.back_off = BACK_OFF_MIN;
                    continue;
                }
                Ended::Broken(error) => (error, Duration::ZERO),
                Ended::Refused(refusal) => (refusal, refusal.wait_min()),
            };
            self.lane.set_live(false);
            let endpoint_text = Described(&endpoint);
            warn!(destination = %name, endpoint = %endpoint_text, %error, "connection failed");
            if self.lane.has_left() {
                return;
            }
            if matches!(ended, Ended::Broken(_)) && began.elapsed() >= GOOD_CONNECTION {
                self.back_off = BACK_OFF_MIN;
            }
            if let Some(Ended::Finished) = self.wait_to_retry(&endpoint, wait_min).await {
                return;
            }
        }
    }

    // From the moment that it is there until nothing of it is left.
    async fn use_connection(
        &mut self,
        connection: &mut Connection,
        endpoint: &Endpoint,
        began: Instant,
    ) -> Ended {
        if !self.is_doubtful {
            self.lane.set_connected(true);
            self.lane.link().connected(connection.socket());
        }
        if let Some(spool) = &mut self.spool {
            spool.connected().await;
        }
        let ended = self.write(connection, endpoint).await;
        if let Ended::EndpointChanged | Ended::Aged | Ended::Left = ended {
            connection.end_line(&mut self.in_hand, &self.lane).await;
        }
        let ended = match ended {
            // Whether it arrived is known, so nothing need go again.
            Ended::Aged | Ended::Left => connection
                .close()
                .await
                .map_or_else(Ended::Broken, |()| ended),
            Ended::Finished | Ended::EndpointChanged | Ended::Broken(_) | Ended::Refused(_) => {
                ended
            }
        };
        self.lane.set_connected(false);
        self.in_hand.settle(&self.lane);
        self.tell_spool();
        if let Some(spool) = &mut self.spool {
            spool.disconnected().await;
        }
        self.take_back(&ended, connection).await;
        match &ended {
            Ended::Broken(error) => self.lane.link().broke(error, began.elapsed()),
            Ended::Refused(refusal) => {
                self.is_doubtful = true;
                self.lane.link().failed(&refusal.to_string());
            }
            Ended::Finished | Ended::Left | Ended::EndpointChanged | Ended::Aged => {}
        }
        ended
    }

    // There is no server for now. Returns whether one may be there; `false`: none will be needed.
    async fn wait_for_endpoint(&mut self) -> bool {
        let key = &self.key;
        let appeared = async {
            let wanted =
                |settings: &relay_engine::Destination| lane_endpoint(settings, key).is_some();
            if self.settings.wait_for(wanted).await.is_err() {
                // The destination was removed.
                std::future::pending().await
            }
        };
        tokio::select! {
            () = appeared => true,
            () = self.lane.finished() => false,
        }
    }

    // What a connection leaves behind waits in the queue, or on disk, and not with the sender.
    async fn take_back(&mut self, ended: &Ended, connection: &mut Connection) {
        self.lane.put_back(self.in_hand.chunks.drain(..));
        let Ended::Broken(_) = ended else {
            self.in_hand.window.clear();
            return;
        };
        let again = self.in_hand.window.take(connection.unacknowledged());
        if again.is_empty() {
            return;
        }
        match &self.spool {
            Some(spool) if self.lane.queue().spools() => spool.resend(again).await,
            _ => self.lane.resend(again),
        }
    }

    async fn connect(&mut self, endpoint: &Endpoint) -> Result<Connection, Ended> {
        if let (Endpoint::Sink(settings), Some(kept)) = (endpoint, self.kept.take())
            && kept.is_for(settings)
        {
            return Ok(Connection::Sink(kept));
        }
        let name = Arc::clone(&self.settings.borrow().name);
        let connecting = async {
            match endpoint {
                Endpoint::Carbon {
                    address,
                    connect_timeout,
                    write_timeout,
                    form: CarbonForm::Datagrams,
                    ..
                } => datagrams::Connection::open(address, *connect_timeout, *write_timeout)
                    .await
                    .map(Connection::Datagrams),
                Endpoint::Carbon {
                    address,
                    connect_timeout,
                    write_timeout,
                    tls,
                    form,
                } => {
                    let options = carbon::Options {
                        tls: tls.as_ref(),
                        form: *form,
                        connect_timeout: *connect_timeout,
                        write_timeout: *write_timeout,
                    };
                    let opening = carbon::Connection::open(address, options);
                    opening.await.map(Connection::Carbon)
                }
                Endpoint::File { path, rotation } => {
                    file::Connection::open(path.clone(), *rotation)
                        .await
                        .map(Connection::File)
                }
                Endpoint::Sink(settings) => {
                    let number = self.key.connection;
                    let dead_letters = self.dead_letters.clone();
                    let opening = sink::Connection::open(settings, name, number, dead_letters);
                    opening
                        .await
                        .map(|connection| Connection::Sink(Box::new(connection)))
                }
            }
        };
        tokio::select! {
            connected = connecting => connected.map_err(Ended::Broken),
            () = self.lane.finished() => Err(Ended::Finished),
            () = endpoint_changed(&mut self.settings, &self.key, endpoint) => Err(Ended::EndpointChanged),
        }
    }

    // `endpoint` is the one that the connection is to; the settings may have another by now.
    async fn write(&mut self, connection: &mut Connection, endpoint: &Endpoint) -> Ended {
        let (term, resend_bytes_max) = {
            let settings = self.settings.borrow();
            let resend_bytes_max = settings.resend_bytes_max / settings.lanes.len().max(1);
            (Term::new(settings.connection_age_max), resend_bytes_max)
        };
        self.in_hand.window.set_bytes_max(match connection {
            Connection::Carbon(_) | Connection::Datagrams(_) => Some(resend_bytes_max),
            Connection::File(_) | Connection::Sink(_) => None,
        });
        // Nothing will come after what is in hand, so it waits for nothing.
        let mut is_last = false;
        loop {
            let written = self.write_some(connection, endpoint, &term, &mut is_last);
            if let Err(ended) = written.await {
                return ended;
            }
        }
    }

    // Waits for lines, or for others that they go together with, or hands over what there is.
    async fn write_some(
        &mut self,
        connection: &mut Connection,
        endpoint: &Endpoint,
        term: &Term,
        is_last: &mut bool,
    ) -> Result<(), Ended> {
        // Under load none of this is ever waited for.
        if !self.lane.is_live() && term.live_again_at <= Instant::now() {
            self.lane.set_live(true);
        }
        if term.ends_at.is_some_and(|end| end <= Instant::now()) {
            return Err(Ended::Aged);
        }
        if self.settings.has_changed().unwrap_or(false)
            && is_elsewhere(&self.settings.borrow_and_update(), &self.key, endpoint)
        {
            return Err(Ended::EndpointChanged);
        }
        if self.in_hand.chunks.is_empty() {
            self.wait_for_lines(connection, endpoint, term).await?;
            if self.in_hand.chunks.is_empty() {
                return Ok(());
            }
        }
        if self.in_hand.bytes() < BESIDE_BYTES
            && self.replay_at <= Instant::now()
            && let Some(batch) = self.spool.as_mut().and_then(SpoolHandle::try_next)
        {
            self.in_hand
                .take_batch(batch, &self.settings, &mut self.replay_at);
        }
        if let Connection::Sink(sink) = connection
            && !*is_last
            && let Some(until) = sink.waits_until(&self.in_hand, &self.lane)
        {
            *is_last = self.wait_for_others(until, endpoint).await?;
            return Ok(());
        }
        self.hand_over(connection, endpoint).await
    }

    // Nothing is in hand. It may still be so when this resolves, with no reason to give the connection up.
    async fn wait_for_lines(
        &mut self,
        connection: &mut Connection,
        endpoint: &Endpoint,
        term: &Term,
    ) -> Result<(), Ended> {
        let Self {
            lane,
            in_hand,
            replay_at,
            ..
        } = self;
        let more = tokio::select! {
            biased;
            more = lane.take(&mut in_hand.chunks, TAKE_BYTES) => more,
            batch = next_batch(&mut self.spool, *replay_at) => {
                in_hand.take_batch(batch, &self.settings, replay_at);
                true
            }
            error = connection.broken() => return Err(Ended::Broken(error)),
            () = endpoint_changed(&mut self.settings, &self.key, endpoint) => {
                return Err(Ended::EndpointChanged);
            }
            () = sleep_until(term.live_again_at), if !lane.is_live() => true,
            () = reached(term.ends_at) => return Err(Ended::Aged),
        };
        match more {
            true => Ok(()),
            false if lane.has_left() => Err(Ended::Left),
            false => Err(match connection.finish().await {
                Ok(()) => Ended::Finished,
                Err(error) => Ended::Broken(error),
            }),
        }
    }

    // Waits for lines that go together with those in hand. Returns whether none will come any more.
    async fn wait_for_others(
        &mut self,
        until: Instant,
        endpoint: &Endpoint,
    ) -> Result<bool, Ended> {
        let room = self.lane.in_hand_max().saturating_sub(self.in_hand.bytes());
        let bytes_max = room.clamp(1, TAKE_BYTES);
        tokio::select! {
            biased;
            more = self.lane.take(&mut self.in_hand.chunks, bytes_max) => Ok(!more),
            () = sleep_until(until) => Ok(false),
            () = self.lane.left() => Err(Ended::Left),
            () = endpoint_changed(&mut self.settings, &self.key, endpoint) => Err(Ended::EndpointChanged),
        }
    }

    async fn hand_over(
        &mut self,
        connection: &mut Connection,
        endpoint: &Endpoint,
    ) -> Result<(), Ended> {
        let Self { lane, in_hand, .. } = self;
        let written = tokio::select! {
            biased;
            written = connection.write(in_hand, lane) => written,
            () = lane.left() => return Err(Ended::Left),
            () = endpoint_changed(&mut self.settings, &self.key, endpoint) => {
                return Err(Ended::EndpointChanged);
            }
        };
        self.tell_spool();
        self.in_hand.window.trim(|| connection.unacknowledged());
        written?;
        if std::mem::take(&mut self.is_doubtful) {
            self.back_off = BACK_OFF_MIN;
            self.lane.set_connected(true);
            self.lane.link().connected(None);
        }
        Ok(())
    }

    async fn wait_to_retry(&mut self, endpoint: &Endpoint, min: Duration) -> Option<Ended> {
        let wait = min + self.back_off.mul_f64(fastrand::f64());
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(wait) => None,
            () = endpoint_changed(&mut self.settings, &self.key, endpoint) => None,
            () = self.lane.finished() => Some(Ended::Finished),
        }
    }
}

// Resolves then, if ever.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

// The next batch from the spool, when it may go.
async fn next_batch(spool: &mut Option<SpoolHandle>, replay_at: Instant) -> Chunk {
    let Some(spool) = spool else {
        return std::future::pending().await;
    };
    sleep_until(replay_at).await;
    spool.next().await
}

// Where a lane goes, if it is still there and has a server.
fn lane_endpoint(settings: &relay_engine::Destination, key: &LaneKey) -> Option<Endpoint> {
    let lane = settings.lanes.iter().find(|lane| lane.key == *key)?;
    lane.endpoint.clone()
}

// Whether the lane's endpoint is another one; other settings, and certificates that were renewed, do not concern a connection.
fn is_elsewhere(settings: &relay_engine::Destination, key: &LaneKey, endpoint: &Endpoint) -> bool {
    let lane = settings.lanes.iter().find(|lane| lane.key == *key);
    lane.is_some_and(|lane| match &lane.endpoint {
        Some(other) => !endpoint.is_renewed_by(other),
        None => true,
    })
}

// Resolves when it is.
async fn endpoint_changed(
    settings: &mut watch::Receiver<relay_engine::Destination>,
    key: &LaneKey,
    endpoint: &Endpoint,
) {
    let is_elsewhere = |settings: &_| is_elsewhere(settings, key, endpoint);
    if settings.wait_for(is_elsewhere).await.is_err() {
        // The destination was removed: it keeps the endpoint that it has.
        std::future::pending().await
    }
}

//! What is taken from each address that sends to a listener.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Addresses that are known though nothing of theirs is open, because of what they sent of late.
const IDLE_MAX: usize = 65_536;

/// The addresses that send to one listener.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<BTreeMap<IpAddr, Arc<SourceState>>>);

#[derive(Debug, Default)]
struct SourceState {
    connections: AtomicUsize,
    budget: Mutex<Budget>,
}

// Lines that an address may send at once. It grows by the limit every second, and never beyond it.
#[derive(Debug)]
struct Budget {
    lines: f64,
    at: Instant,
    // Lines a second: the limit when it was last asked for.
    limit: f64,
}

/// A connection's place among those of its address.
#[derive(Debug)]
pub(crate) struct SourceSeat {
    sources: Arc<Sources>,
    address: IpAddr,
    state: Arc<SourceState>,
}

impl Sources {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, Arc<SourceState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more connection of an address, if it has less than `connections_max`.
    pub(super) fn seat(
        self: &Arc<Self>,
        address: IpAddr,
        connections_max: usize,
    ) -> Option<SourceSeat> {
        let mut known = self.lock();
        make_room(&mut known, address);
        let state = Arc::clone(known.entry(address).or_default());
        // Under the lock, so that it is not let go of in between.
        let taken = state.connections.fetch_add(1, Ordering::Relaxed);
        drop(known);
        let seat = SourceSeat {
            sources: Arc::clone(self),
            address,
            state,
        };
        (taken < connections_max).then_some(seat)
    }

    /// Takes lines that came in a datagram. Returns whether the address may send them.
    pub(super) fn take(&self, address: IpAddr, lines: u64, per_second: u32) -> bool {
        let mut known = self.lock();
        let has_room = make_room(&mut known, address);
        has_room && {
            let state = known.entry(address).or_default();
            state.budget().try_take(lines, per_second)
        }
    }
}

// Forgets addresses that could start afresh, when there are many. Returns whether one more may be known.
fn make_room(known: &mut BTreeMap<IpAddr, Arc<SourceState>>, address: IpAddr) -> bool {
    if known.len() >= IDLE_MAX && !known.contains_key(&address) {
        known.retain(|_, state| !state.is_fresh());
    }
    known.len() < IDLE_MAX || known.contains_key(&address)
}

impl SourceState {
    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Whether it is as if nothing had ever been sent.
    fn is_fresh(&self) -> bool {
        self.connections.load(Ordering::Relaxed) == 0 && self.budget().is_full()
    }
}

impl SourceSeat {
    /// Takes lines that came, and returns how long it is until the next ones may.
    pub(crate) fn take(&self, lines: u64, per_second: u32) -> Duration {
        self.state.budget().take(lines, per_second)
    }
}

impl Drop for SourceSeat {
    fn drop(&mut self) {
        let mut known = self.sources.lock();
        self.state.connections.fetch_sub(1, Ordering::Relaxed);
        // Whoever has sent too much has not less to wait for when he connects again.
        if self.state.is_fresh() {
            known.remove(&self.address);
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            lines: f64::INFINITY,
            at: Instant::now(),
            limit: f64::INFINITY,
        }
    }
}

impl Budget {
    fn fill(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.at).as_secs_f64();
        if self.lines < self.limit {
            self.lines += seconds * self.limit;
        }
        self.lines = self.lines.min(self.limit);
        self.at = now;
    }

    fn is_full(&mut self) -> bool {
        self.fill();
        self.lines >= self.limit
    }

    // Goes below nothing, for the lines are there already.
    fn take(&mut self, lines: u64, per_second: u32) -> Duration {
        self.limit = per_second.into();
        self.fill();
        self.lines -= lines as f64;
        Duration::from_secs_f64((-self.lines).max(0.0) / self.limit)
    }

    // A datagram is taken whole or not at all; one that is larger than the limit is taken when nothing else was.
    fn try_take(&mut self, lines: u64, per_second: u32) -> bool {
        self.limit = per_second.into();
        let fits = self.is_full() || self.lines >= lines as f64;
        if fits {
            self.lines -= lines as f64;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[tokio::test(start_paused = true)]
    async fn an_address_may_send_its_limit_at_once_and_then_so_much_a_second() {
        let sources = Arc::<Sources>::default();
        let seat = sources.seat(A, 2).unwrap();
        assert_eq!(seat.take(1000, 1000), Duration::ZERO);
        assert_eq!(seat.take(500, 1000), Duration::from_millis(500));
        // over all of its connections
        let second = sources.seat(A, 2).unwrap();
        assert_eq!(second.take(500, 1000), Duration::from_secs(1));
        assert_eq!(sources.seat(B, 2).unwrap().take(1000, 1000), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(seat.take(1100, 1000), Duration::from_millis(100));
    }

    #[tokio::test]
    async fn connections_of_an_address_are_bounded_and_forgotten() {
        let sources = Arc::<Sources>::default();
        let seats = [0, 1].map(|_| sources.seat(A, 2).unwrap());
        assert!(sources.seat(A, 2).is_none());
        assert!(sources.seat(B, 2).is_some());
        drop(seats);
        assert!(sources.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_connects_anew_has_not_more_to_send() {
        let sources = Arc::<Sources>::default();
        sources.seat(A, 2).unwrap().take(1500, 1000);
        let seat = sources.seat(A, 2).unwrap();
        assert_eq!(seat.take(100, 1000), Duration::from_millis(600));
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(seat);
        assert!(sources.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_are_taken_whole_or_not_at_all() {
        let sources = Sources::default();
        assert!(sources.take(A, 60, 100));
        assert!(!sources.take(A, 60, 100));
        assert!(sources.take(A, 40, 100));
        assert!(sources.take(B, 300, 100));
        assert!(!sources.take(B, 1, 100));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sources.take(A, 100, 100));
        assert!(!sources.take(B, 1, 100));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(sources.take(B, 100, 100));
    }
}

//! The one place that asks what time it is.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use relay_engine::UnixSeconds;

/// Seconds since 1970; 0 on a machine whose clock is set before that.
#[expect(
    clippy::disallowed_methods,
    reason = "everything else is given the time"
)]
pub fn now() -> UnixSeconds {
    UnixSeconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    )
}

/// Nanoseconds since the first call: never less than what another thread was told before.
pub(crate) fn stamp() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

//! The one place that asks what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use relay_engine::UnixSeconds;

/// Seconds since 1970; 0 on a machine whose clock is set before that.
#[expect(
    clippy::disallowed_methods,
    reason = "everything else is given the time"
)]
pub(crate) fn now() -> UnixSeconds {
    UnixSeconds(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    )
}

//! Waiting, and the clock.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take that should happen at once. Long, because it is only ever used up by a failure.
pub const DEADLINE: Duration = Duration::from_secs(30);

// Short beside everything that is waited for, long beside the cost of looking.
const STEP: Duration = Duration::from_millis(2);

/// Tries until the attempt succeeds, and returns what it gives. This is the only place that sleeps.
///
/// # Panics
/// When the deadline is over, with `what` and the last refusal.
pub fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(refusal) if start.elapsed() > deadline => {
                panic!("waited {deadline:?} for {what}, in vain: {refusal}")
            }
            Err(_) => thread::sleep(STEP),
        }
    }
}

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where tests read the clock"
)]
pub fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is past 1970").as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_on_until_one_succeeds() {
        let mut attempts = 0;
        let value = eventually(DEADLINE, "the third attempt", || {
            attempts += 1;
            if attempts == 3 {
                Ok("here")
            } else {
                Err("not yet".into())
            }
        });
        assert_eq!((value, attempts), ("here", 3));
    }

    #[test]
    #[should_panic(expected = "waited 10ms for a miracle, in vain: none seen")]
    fn a_deadline_that_is_over_says_what_was_waited_for() {
        eventually(Duration::from_millis(10), "a miracle", || {
            Err::<(), _>("none seen".into())
        });
    }
}

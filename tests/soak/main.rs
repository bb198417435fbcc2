//! The soak tier: delivery under faults, for long. By hand, with `make soak`; the process tier has the short forms.
//!
//! Every test prints what it measured. Where chance plays a part, the seed is printed, and CARBONWAY_SEED brings it back.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking, and one that can what it found"
)]

mod kills;
mod scenarios;
mod stop;

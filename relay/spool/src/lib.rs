//! What waits on disk for one destination: lines that it did not take in time, in the order in which they came.
//!
//! ```text
//! batch of lines ─▶ append ─▶ segment files ─▶ read ─▶ bytes for the destination
//!                     sync(now): from here on it     acknowledge: from here on
//!                     outlives a crash               it need not come again
//! ```
//!
//! A [`Spool`] owns one directory. Its owner calls it from a thread that may block: there is no runtime and no thread in
//! here, and no clock either; the time comes with [`Spool::open`] and [`Spool::sync`]. `format` says what the files look
//! like and why every loss can be counted, `spool::recovery` what happens to them after a crash.
//!
//! Invariants: a line comes out whole or not at all, and in order; what was synced and neither acknowledged nor dropped
//! comes out after any crash, once or more often; every line that does not is counted under one [`Loss`]; the bytes on disk
//! and the age of what they hold have limits; only this package knows its files.

#![warn(missing_docs)]

mod spool;

mod cursor;
mod error;
mod figures;
mod format;
mod gaps;
mod limits;
mod owner;
pub mod storage;

pub use error::Error;
pub use figures::{Figures, Loss};
pub use format::{BATCH_BYTES_MAX, IDENTITY_BYTES_MAX};
pub use limits::{Limits, UnixSeconds, WhenFull};
pub use owner::Survey;
pub use spool::{Batch, Position, Spool};

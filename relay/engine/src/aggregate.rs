//! Many points into few: what aggregators do, without the pattern that picks points and names what becomes of them.
//!
//! ```text
//! worker 1: intern, observe ─▶ Buckets ─ take_due ─┐
//! worker 2: intern, observe ─▶ Buckets ─ take_due ─┼▶ merge ─▶ finish ─▶ name.sum 12 1700000000
//! worker n: …                                      ┘
//! ```
//!
//! A bucket is one rule, one output name and one interval of the points' own timestamps. Every worker has [`Buckets`] of its
//! own, so that a point costs neither a lock nor a message; a flush takes what is due from all of them and merges it. So a
//! value is never that of one worker's share, provided that the caller merges what *all* workers gave for one `now`.
//!
//! Invariants:
//!
//! * A bucket that was taken is never opened again by a late point: Graphite would let the rest replace the whole.
//! * What is held is bounded, in buckets and in bytes, and every point that is not taken says why.
//! * The order of the points does not matter, nor which worker had them, but where a function is about order (`Last`,
//!   `Derive`); there the stamp that the caller gives decides. Sums are in `f64`: their last digits may depend on the order.
//! * A value that is not finite is never written.
//!
//! [`checkpoint`] explains the format in which buckets outlive a restart.

mod accumulator;
mod buckets;
pub mod checkpoint;
mod flush;
mod function;
mod percentile;
mod rule;

pub use buckets::{Buckets, Flush, Limits, Observed, OutputId};
pub use flush::{Aggregate, FUNCTION_MARK, Partial, finish, merge};
pub use function::{Function, Statistic, UnknownFunction};
pub use percentile::{Percentile, PercentileDefinition};
pub use rule::{DuplicateRule, InvalidRule, Rule, RuleIndex, RuleSettings, Rules};

#[cfg(test)]
mod tests;

//! The operator: reads Carbonway's resources, compiles them into snapshots, hands these to relays, and reports on every
//! object what is truly applied.
//!
//! ```text
//! API server ─▶ watch ─▶ inputs ─▶ compile ─▶ publish ─▶ serve ══ gRPC ══▶ relays
//!      ▲                              │                    │ acknowledgements, reports
//!      └───────── status ◀── conditions ◀──────────────── roster
//! ```
//!
//! `inputs`, `compile`, `health` and `conditions` are pure and always built; the rest needs the feature `cluster`. The command line
//! tool links just the pure part, so that what runs without a cluster is the same compilation.

#![warn(missing_docs)]

pub mod inputs;

pub mod compile;

pub mod conditions;

#[cfg(feature = "cluster")]
mod watch;

#[cfg(feature = "cluster")]
mod secrets;

#[cfg(feature = "cluster")]
mod endpoints;

#[cfg(feature = "cluster")]
mod namespaces;

#[cfg(feature = "cluster")]
mod fleet;
#[cfg(feature = "cluster")]
mod lease;

#[cfg(feature = "cluster")]
mod trust;

#[cfg(feature = "cluster")]
mod publish;

pub mod health;

#[cfg(feature = "cluster")]
mod roster;

#[cfg(feature = "cluster")]
mod serve;

#[cfg(feature = "cluster")]
mod status;

#[cfg(feature = "cluster")]
mod admin;

#[cfg(feature = "cluster")]
mod metrics;

#[cfg(feature = "cluster")]
pub mod config;

#[cfg(feature = "cluster")]
mod causes;

#[cfg(feature = "cluster")]
mod probe;

#[cfg(feature = "cluster")]
mod run;

#[cfg(feature = "cluster")]
pub use {causes::causes, config::Config, probe::probe, run::run};

#[cfg(test)]
mod fixture;

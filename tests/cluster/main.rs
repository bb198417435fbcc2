//! The cluster tier: the operator and the relays as people run them on Kubernetes.
//!
//! Most of it needs a real kube-apiserver and etcd (see `harness::Cluster`), real kubectl, and Helm's engine, and says
//! SKIPPED where there is none. `double` runs everywhere: the same operator, against a double of the API.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod bad_objects;
mod chaos;
mod chart;
mod double;
mod fleets;
mod flow;
mod gitops;
mod helm;
mod installation;
mod monitoring;
mod outage;
mod release;
mod schema;
mod service;
mod tenancy;
mod trust;

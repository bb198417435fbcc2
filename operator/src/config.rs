//! What can be set from outside: flags, each also an environment variable.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

/// Hands snapshots of Carbonway's resources to relays and reports what is applied.
#[derive(Clone, Debug, Parser)]
#[command(name = "carbonway-operator", version)]
pub struct Flags {
    /// What the operator does.
    #[command(flatten)]
    pub config: Config,

    /// What is logged: a level (error, warn, info, debug, trace), or a filter such as info,operator=debug.
    #[arg(long, env = "CARBONWAY_LOG_LEVEL", default_value = "info")]
    pub log_level: String,

    /// How it is logged. auto: text on a terminal, JSON otherwise.
    #[arg(long, env = "CARBONWAY_LOG_FORMAT", value_enum, default_value = "auto")]
    pub log_format: LogFormat,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What the operator does.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where relays connect to.
    #[arg(
        long,
        env = "CARBONWAY_SYNC_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8090"
    )]
    pub sync_address: SocketAddr,

    /// Where /livez, /readyz and /metrics are.
    #[arg(
        long,
        env = "CARBONWAY_ADMIN_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub admin_address: SocketAddr,

    /// The one namespace to look at. Default: all.
    #[arg(long, env = "CARBONWAY_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// For how long a relay that lost its connection, or has yet to connect to an operator that was just started, is taken
    /// to run what it ran before. It spares every object two changes of its status when an operator is replaced, and should
    /// be longer than a relay waits between attempts to connect, which is 30s at most.
    #[arg(
        long,
        env = "CARBONWAY_RECONNECT_GRACE",
        value_name = "DURATION",
        default_value = "45s"
    )]
    pub reconnect_grace: crds::Duration,

    /// Names this instance in the events that it writes.
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "carbonway-operator",
        hide = true
    )]
    pub pod_name: String,
}

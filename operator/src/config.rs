//! What can be set from outside: flags, each also an environment variable.

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};

use crate::fleet::Settings;
pub use crate::lease::LeaseName;
use crate::trust::Source;

/// Hands snapshots of Carbonway's resources to relays and reports what is applied.
#[derive(Clone, Debug, Parser)]
#[command(name = "carbonway-operator", version)]
pub struct Flags {
    /// What the operator does.
    #[command(flatten)]
    pub config: Config,

    /// Asks an operator whether it is ready, says what it answers, and exits: 0 if it is.
    #[arg(long, value_name = "http://HOST:PORT/PATH", exclusive = true)]
    pub probe: Option<String>,

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

    /// The Lease by which one of several operators leads; the others are warm, and take over. Default: none, and there must be
    /// one operator only.
    #[arg(long, env = "CARBONWAY_LEASE", value_name = "NAMESPACE/NAME")]
    pub lease: Option<LeaseName>,

    /// What relays may believe.
    #[command(flatten)]
    pub trust: Trust,

    /// What Relays' pods are made with.
    #[command(flatten)]
    pub fleets: FleetFlags,

    /// For how long a relay that lost its connection, or has yet to connect to an operator that was just started, is taken
    /// to run what it ran before. It spares every object two changes of its status when an operator is replaced, and should
    /// be longer than a relay waits between attempts to connect, which is 10s at most.
    #[arg(
        long,
        env = "CARBONWAY_RECONNECT_GRACE",
        value_name = "DURATION",
        default_value = "45s"
    )]
    pub reconnect_grace: crds::Duration,

    /// For how long a Relay that loses more than half of its Routes at once goes on with them, in case that is a mistake; 0s: it
    /// does not. Relays with fewer than ten Routes are not guarded.
    #[arg(
        long,
        env = "CARBONWAY_SHRINK_HOLD",
        value_name = "DURATION",
        default_value = "30s"
    )]
    pub shrink_hold: crds::Duration,

    /// Names this instance in the events that it writes, and as the Lease's holder: another one for each.
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "carbonway-operator",
        hide = true
    )]
    pub pod_name: String,
}

/// What Relays' pods are made with. Without these flags none are made, and relays come by themselves.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FleetFlags {
    /// The image of relays whose Relay names none.
    #[arg(
        long,
        env = "CARBONWAY_RELAY_IMAGE",
        value_name = "IMAGE",
        requires = "relay_operator"
    )]
    pub relay_image: Option<String>,

    /// What relays call this operator.
    #[arg(
        long,
        env = "CARBONWAY_RELAY_OPERATOR",
        value_name = "https://HOST:PORT"
    )]
    pub relay_operator: Option<String>,
}

impl FleetFlags {
    pub(crate) fn settings(&self) -> Option<Settings> {
        Some(Settings {
            image: self.relay_image.clone()?,
            operator: self.relay_operator.clone()?,
        })
    }
}

/// How relays are served: over TLS, to those that show a token of their pod; or, without any of these flags, in the clear and
/// to everybody, which is for tests and for trying.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Trust {
    /// What relays call this operator: certificates are made for these names, by an authority of its own.
    #[arg(
        long,
        env = "CARBONWAY_TLS_NAMES",
        value_name = "NAME,…",
        value_delimiter = ',',
        requires = "tls_authority"
    )]
    pub tls_names: Vec<String>,

    /// The Secret that the authority is kept in; it is made if need be.
    #[arg(long, env = "CARBONWAY_TLS_AUTHORITY", value_name = "NAMESPACE/NAME")]
    pub tls_authority: Option<LeaseName>,

    /// A directory with tls.crt, tls.key and ca.crt that somebody else keeps up to date, such as cert-manager by a mounted
    /// Secret. It is read again when it changes.
    #[arg(
        long,
        env = "CARBONWAY_TLS_DIRECTORY",
        value_name = "DIRECTORY",
        conflicts_with = "tls_names"
    )]
    pub tls_directory: Option<std::path::PathBuf>,

    /// How relays show who they are, over TLS. review takes the right to create TokenReviews, which is cluster-wide.
    #[arg(long, env = "CARBONWAY_TOKENS", value_enum, default_value = "review")]
    pub tokens: Tokens,
}

/// How relays show who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tokens {
    /// By the token of their pod, which the API server is asked about (TokenReview).
    #[default]
    Review,
    /// Not at all.
    None,
}

impl Trust {
    pub(crate) fn source(&self) -> Option<Source> {
        let directory = self.tls_directory.clone().map(Source::Directory);
        directory.or_else(|| {
            let secret = self.tls_authority.clone()?;
            let names = self.tls_names.clone();
            (!names.is_empty()).then_some(Source::Own { secret, names })
        })
    }
}

//! Flags of `carbonway-relay`. What is routed where is not here: that is in the snapshot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;

use crate::logging::LogArgs;

/// Relays Graphite lines as its operator says.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "carbonway-relay", version)]
pub struct Config {
    /// The operator's sync service.
    /// With http:// in the clear, for tests and for trying.
    #[arg(long, env = "CARBONWAY_OPERATOR", value_name = "https://HOST:PORT")]
    pub operator: String,

    /// The CAs, in PEM, one of which must have signed the operator's certificate. Read again for every connection.
    #[arg(
        long,
        env = "CARBONWAY_OPERATOR_CA",
        value_name = "FILE",
        default_value = "/etc/carbonway/ca/ca.crt"
    )]
    pub operator_ca: PathBuf,

    /// The token of this pod's service account, which shows the operator who this is. Read again for every connection.
    #[arg(
        long,
        env = "CARBONWAY_TOKEN_FILE",
        value_name = "FILE",
        default_value = "/var/run/secrets/carbonway/token"
    )]
    pub token_file: PathBuf,

    /// The Relay resource that this process is a pod of.
    #[arg(long, env = "CARBONWAY_RELAY", value_name = "NAMESPACE/NAME")]
    pub relay: RelayName,

    /// This pod's name, unique in the fleet.
    #[arg(long, env = "CARBONWAY_POD")]
    pub pod: String,

    /// Where the last good snapshot is kept, and the open buckets of aggregators while the relay does not run.
    #[arg(long, env = "CARBONWAY_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: PathBuf,

    /// Keeps nothing on disk that waits for a Destination: what has no room in memory is dropped and counted.
    #[arg(long, env = "CARBONWAY_NO_SPOOL")]
    pub no_spool: bool,

    /// The address that listeners bind to.
    #[arg(long, env = "CARBONWAY_LISTEN_ADDRESS", default_value_t = IpAddr::from(Ipv4Addr::UNSPECIFIED))]
    pub listen_address: IpAddr,

    /// Where /livez, /readyz, /metrics and /refused are served.
    #[arg(long, env = "CARBONWAY_ADMIN_ADDRESS", default_value = "0.0.0.0:8080")]
    pub admin_address: SocketAddr,

    /// Data threads. Default: one per core.
    #[arg(long, env = "CARBONWAY_THREADS")]
    pub threads: Option<NonZeroUsize>,

    #[command(flatten)]
    pub log: LogArgs,
}

impl Config {
    /// How many data threads to start.
    pub fn threads(&self) -> NonZeroUsize {
        self.threads.unwrap_or_else(one_per_core)
    }
}

/// As many threads as this process may use cores.
pub fn one_per_core() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// `NAMESPACE/NAME` of a Relay resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayName {
    pub namespace: String,
    pub name: String,
}

impl FromStr for RelayName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err("write NAMESPACE/NAME".to_owned()),
        }
    }
}

//! Logs: text on a terminal, JSON otherwise.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

/// Libraries that say what is for those who mend them: lapin every message that no queue wants, and what we did to its socket. A
/// directive of the user about them comes later, and holds.
const QUIET: &str = "rskafka=warn,lapin=off";

/// Flags about logs.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// How logs are written to standard error. Auto: text on a terminal, JSON otherwise.
    #[arg(long, env = "CARBONWAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// Which logs are written: error, warn, info, debug or trace, or directives of tracing's EnvFilter.
    #[arg(long, env = "CARBONWAY_LOG_LEVEL", default_value = "info")]
    pub log_level: EnvFilterText,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}

/// Directives of tracing's `EnvFilter` that were seen to parse.
#[derive(Clone, Debug)]
pub struct EnvFilterText(String);

impl std::str::FromStr for EnvFilterText {
    type Err = tracing_subscriber::filter::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Display for EnvFilterText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl LogArgs {
    /// Whether logs are for programs.
    pub fn is_json(&self) -> bool {
        match self.log_format {
            LogFormat::Auto => !io::stderr().is_terminal(),
            LogFormat::Text => false,
            LogFormat::Json => true,
        }
    }

    /// Begins to log. Once per process.
    pub fn init(&self) {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(format!("{QUIET},{}", self.log_level.0)))
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_timer(SystemTime);
        if self.is_json() {
            subscriber.json().flatten_event(true).init()
        } else {
            subscriber.init()
        }
    }
}

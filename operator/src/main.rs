//! `carbonway-operator`: flags, log, signals, exit code. Everything else is in the library.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use kube::Client;
use operator::config::{Flags, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let flags = Flags::parse();
    if let Err(error) = start_log(&flags) {
        eprintln!("carbonway-operator: {}", operator::causes(error.as_ref()));
        return ExitCode::FAILURE;
    }
    if let Some(url) = &flags.probe {
        return match operator::probe(url) {
            Ok(answer) => match writeln!(stdout(), "{answer}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            },
            Err(error) => {
                eprintln!("carbonway-operator: {}", operator::causes(error.as_ref()));
                ExitCode::FAILURE
            }
        };
    }
    match run(flags) {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error!(error = operator::causes(error.as_ref()), "stopped");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
        let client = Client::try_default()
            .await
            .context("cannot find out how to reach the API server")?;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            namespace = flags.config.namespace,
            "starting"
        );
        operator::run(flags.config, client, async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    })
}

fn start_log(flags: &Flags) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&flags.log_level)
        .with_context(|| format!("'{}' is not a log level", flags.log_level))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr);
    let is_text = match flags.log_format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if is_text {
        log.init();
    } else {
        log.json().flatten_event(true).init();
    }
    Ok(())
}

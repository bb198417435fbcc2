//! `carbonway`: the same resources, the same compilation and the same relay, without a cluster.

mod check;
mod directory;
mod explain;
mod finding;
mod run;
mod schema;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A relay for Graphite metrics.
#[derive(Parser)]
#[command(name = "carbonway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a relay on a directory of resources, and follow its changes.
    Run(run::Args),
    /// Check a directory of resources: exit 0 if all is well, 1 if not.
    Check(check::Args),
    /// Tell the way of one line through the rules of a directory.
    Explain(explain::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::main(args),
        Command::Check(args) => check::main(&args),
        Command::Explain(args) => explain::main(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("carbonway: {error:#}");
        ExitCode::FAILURE
    })
}

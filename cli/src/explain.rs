//! `carbonway explain`: the way of one line through the rules of a directory, told.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use operator::inputs::{Key, Kind};
use relay::RelayName;
use relay_engine::{Moment, Table};

use crate::check::{Output, check};
use crate::directory;
use crate::schema::Schemas;

/// Flags of `carbonway explain`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The directory of resources, or one file.
    directory: PathBuf,

    /// The line: 'name value timestamp'. A name alone is enough; value and time are then 1 and now.
    line: String,

    /// The Relay whose rules are meant. Default: the only one in the directory.
    #[arg(long, env = "CARBONWAY_RELAY", value_name = "NAMESPACE/NAME")]
    relay: Option<RelayName>,

    /// How it is written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs `carbonway explain`.
#[expect(clippy::print_stdout, reason = "the explanation is what was asked for")]
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let files = directory::read(&args.directory)?;
    let checked = match check(&files, &Schemas::new()?) {
        Ok(checked) => checked,
        Err(findings) => {
            findings.iter().for_each(|finding| eprintln!("{finding}"));
            bail!("{} has faults: mend them first", args.directory.display());
        }
    };
    let fleets = &checked.compiled.fleets;
    let fleet = match &args.relay {
        Some(RelayName { namespace, name }) => fleets
            .get(&Key::new(Kind::Relay, namespace, name))
            .with_context(|| format!("there is no Relay {namespace}/{name}"))?,
        None if fleets.len() == 1 => fleets.values().next().context("there is one")?,
        None => bail!(
            "there are {} Relays in {}: name the one that is meant with --relay NAMESPACE/NAME",
            fleets.len(),
            args.directory.display()
        ),
    };
    let table = Table::load(&fleet.snapshot).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the relay refuses it: {}", errors.join("; "))
    })?;
    let mut line = args.line.trim_end_matches('\n').to_owned();
    if line.split_ascii_whitespace().count() == 1 {
        line += " 1 N";
    }
    let moment = Moment {
        now: relay::now(),
        stamp: 0,
        is_live: &|_| true,
    };
    let limits = table.listeners().iter();
    let limit = limits.map(relay_engine::Listener::line_bytes_max).max();
    let explanation = table.explain(line.as_bytes(), limit.unwrap_or_default(), moment);
    match args.output {
        Output::Text => println!("{explanation}"),
        Output::Json => println!("{}", serde_json::to_string(&explanation)?),
    }
    Ok(ExitCode::SUCCESS)
}

//! Measures relays side by side on one machine, one after another, each from both ends: floods it with Graphite lines,
//! counts what comes out, and charges it with the CPU time that the kernel accounted to it meanwhile.
//!
//! Senders, sinks and the relay share the machine, so compare CPU per line, and ratios within one run, rather than lines
//! per second. Rounds go through the relays in turn, so that a machine that gets slower gets slower for all. Every round
//! is a new process. Run it by hand (`make bench`); it has no place in CI.

mod cases;
mod kafka;
mod load;
mod measure;
mod process;
mod relays;
mod report;
mod sink;

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::{
    cases::{CASES, Case, Output},
    relays::Relay,
    sink::Sinks,
};

const USAGE: &str = "bench [--cases A,C] [--only haproxy,carbon-c-relay,carbon-relay.py,carbonway] [--lines N] [--rounds 5]";

struct Options {
    cases: Vec<&'static Case>,
    relays: Vec<Relay>,
    /// Per round, in place of what each case has.
    lines: Option<u64>,
    rounds: usize,
}

fn main() -> ExitCode {
    match parse(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        cases: vec![&CASES[0]],
        relays: Relay::ALL.into(),
        lines: None,
        rounds: 5,
    };
    while let Some(option) = arguments.next() {
        let value = arguments.next().context(USAGE)?;
        match option.as_str() {
            "--cases" => options.cases = list(&value, Case::named)?,
            "--only" => options.relays = list(&value, Relay::named)?,
            "--lines" => options.lines = Some(value.parse().context("--lines")?),
            "--rounds" => options.rounds = value.parse().context("--rounds")?,
            _ => bail!("{USAGE}"),
        }
    }
    if options.rounds == 0 {
        bail!("--rounds: at least 1");
    }
    Ok(options)
}

fn list<T>(names: &str, named: fn(&str) -> Option<T>) -> Result<Vec<T>> {
    names
        .split(',')
        .map(|name| named(name).with_context(|| format!("there is no {name}; {USAGE}")))
        .collect()
}

/// Measures, prints, and returns what a relay of ours did wrong.
fn run(options: &Options) -> Result<Vec<String>> {
    let dir = Path::new("target/bench");
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let is_wanted = |relay: &&Relay| options.cases.iter().any(|case| relay.has(case));
    for relay in options.relays.iter().filter(is_wanted) {
        relay.version()?;
    }
    let sinks = Sinks::open(
        options
            .cases
            .iter()
            .map(|case| case.sinks)
            .max()
            .unwrap_or(0),
        options
            .cases
            .iter()
            .any(|case| case.output == Output::Kafka),
    )?;
    let mut problems = Vec::new();
    for case in &options.cases {
        let lines = options.lines.unwrap_or(case.lines);
        let mut runs = Vec::new();
        for round in 1..=options.rounds {
            for relay in options.relays.iter().filter(|relay| relay.has(case)) {
                eprintln!("case {}, round {round}: {}", case.name, relay.name());
                let run = measure::measure(case, *relay, &sinks, lines, dir)?;
                problems.extend(run.problems.iter().cloned());
                runs.push((*relay, run));
            }
        }
        report::print(case, &runs, dir)?;
    }
    Ok(problems)
}

//! The table for people, on standard output, and the figures for programs, in a file.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::{cases::Case, measure::Run, relays::Relay};

struct Figure {
    name: &'static str,
    key: &'static str,
    decimals: usize,
    of: fn(&Run) -> f64,
}

const FIGURES: [Figure; 4] = [
    Figure {
        name: "CPU, ns per line",
        key: "cpu_ns_per_line",
        decimals: 0,
        of: |run| run.cpu_ns_per_line,
    },
    Figure {
        name: "lines per second",
        key: "lines_per_second",
        decimals: 0,
        of: |run| run.lines_per_second,
    },
    Figure {
        name: "lost, %",
        key: "lost_percent",
        decimals: 2,
        of: |run| run.lost_percent,
    },
    Figure {
        name: "peak memory, MiB",
        key: "peak_rss_mib",
        decimals: 0,
        of: |run| run.peak_rss_mib,
    },
];

/// Prints `case` with the median of its rounds for each relay, and leaves all of them in `dir`.
pub(crate) fn print(case: &Case, runs: &[(Relay, Run)], dir: &Path) -> Result<()> {
    let mut by_relay: BTreeMap<Relay, Vec<&Run>> = BTreeMap::new();
    for (relay, run) in runs {
        by_relay.entry(*relay).or_default().push(run);
    }
    let path = dir.join(format!("case-{}.json", case.name.to_lowercase()));
    fs::write(&path, to_json(case, &by_relay)?)
        .with_context(|| format!("cannot write {}", path.display()))?;

    let mut table = format!(
        "\ncase {}: {}\n\n| median of rounds |",
        case.name, case.title
    );
    for (relay, runs) in &by_relay {
        table += &format!(" {} ({}×) |", relay.name(), runs.len());
    }
    table += &format!("\n|---|{}\n", "--:|".repeat(by_relay.len()));
    for Figure {
        name, decimals, of, ..
    } in FIGURES
    {
        table += &format!("| {name} |");
        for runs in by_relay.values() {
            table += &format!(" {:.decimals$} |", median(runs, of));
        }
        table += "\n";
    }
    table += &format!("\ngoal: {}\n", case.goal);
    io::stdout().write_all(table.as_bytes())?;
    Ok(())
}

fn to_json(case: &Case, by_relay: &BTreeMap<Relay, Vec<&Run>>) -> Result<String> {
    let mut relays = serde_json::Map::new();
    for (relay, runs) in by_relay {
        let figures: serde_json::Map<_, _> = FIGURES
            .iter()
            .map(|figure| {
                let all: Vec<f64> = runs.iter().map(|run| (figure.of)(run)).collect();
                (
                    figure.key.to_owned(),
                    json!({ "median": median(runs, figure.of), "rounds": all }),
                )
            })
            .collect();
        relays.insert(
            relay.name().to_owned(),
            json!({ "version": relay.version()?, "figures": figures }),
        );
    }
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let report = json!({
        "case": case.name,
        "title": case.title,
        "goal": case.goal,
        "machine": { "cores": cores, "cpu": cpu_model() },
        "relays": relays,
    });
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}

fn cpu_model() -> String {
    fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            Some(
                line.strip_prefix("model name")?
                    .split_once(": ")?
                    .1
                    .to_owned(),
            )
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

fn median(runs: &[&Run], of: fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(|run| of(run)).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    }
}

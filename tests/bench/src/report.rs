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
    /// `None`: was not measured.
    of: fn(&Run) -> Option<f64>,
}

const FIGURES: [Figure; 8] = [
    Figure {
        name: "CPU, ns per line",
        key: "cpu_ns_per_line",
        decimals: 0,
        of: |run| Some(run.cpu_ns_per_line),
    },
    Figure {
        name: "lines per second",
        key: "lines_per_second",
        decimals: 0,
        of: |run| Some(run.lines_per_second),
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
        of: |run| Some(run.peak_rss_mib),
    },
    Figure {
        name: "latency, median, ms",
        key: "latency_p50_ms",
        decimals: 2,
        of: |run| Some(run.latency?.p50_ms),
    },
    Figure {
        name: "latency, 99 %, ms",
        key: "latency_p99_ms",
        decimals: 2,
        of: |run| Some(run.latency?.p99_ms),
    },
    Figure {
        name: "latency, worst, ms",
        key: "latency_max_ms",
        decimals: 2,
        of: |run| Some(run.latency?.max_ms),
    },
    Figure {
        name: "tables swapped",
        key: "swaps",
        decimals: 0,
        of: |run| Some(run.swaps? as f64),
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
    for figure in FIGURES {
        let medians: Vec<f64> = by_relay
            .values()
            .filter_map(|runs| median(&values(runs, &figure)))
            .collect();
        if medians.len() == by_relay.len() {
            table += &format!("| {} |", figure.name);
            for median in medians {
                table += &format!(" {median:.*} |", figure.decimals);
            }
            table += "\n";
        }
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
                let rounds = values(runs, figure);
                (
                    figure.key.to_owned(),
                    json!({ "median": median(&rounds), "rounds": rounds }),
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

fn values(runs: &[&Run], figure: &Figure) -> Vec<f64> {
    runs.iter().filter_map(|run| (figure.of)(run)).collect()
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some((lower + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_between_the_two() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 9.0, 1.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 9.0]), Some(3.5));
    }
}

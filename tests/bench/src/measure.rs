//! One round: start a relay, flood it, wait until what it holds has come out, and read its bill.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cases::{Case, Input, Output},
    load::{self, Load, Stream},
    process::Process,
    relays::{ADMIN, RELAY, Relay},
    sink::{Latency, Sinks},
};

const START_LIMIT: Duration = Duration::from_secs(60);
// A relay that gave nothing for this long has nothing more to give.
const QUIET: Duration = Duration::from_secs(3);
// When the last buckets of case F have been sent, after the last line.
const BUCKETS_SENT: Duration = Duration::from_secs(14);
// Rules are edited this often, where they are.
const EDIT_EVERY: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(2);

/// What one round gave.
pub(crate) struct Run {
    pub cpu_ns_per_line: f64,
    pub lines_per_second: f64,
    /// `None`: what comes out does not tell.
    pub lost_percent: Option<f64>,
    pub peak_rss_mib: f64,
    /// From when a line was due to be sent; at a pace only.
    pub latency: Option<Latency>,
    /// How often it went over to another table; where rules are edited only.
    pub swaps: Option<u64>,
    /// What a relay must never do, in words.
    pub problems: Vec<String>,
}

pub(crate) fn measure(
    case: &Case,
    relay: Relay,
    sinks: &Sinks,
    lines: u64,
    dir: &Path,
) -> Result<Run> {
    let log = dir.join(format!("{}.log", relay.name()));
    let mut process = Process::start(relay.command(case, sinks, dir)?, &log)?;
    sinks.expect(case.output);
    let probes = send_probes(case, sinks, &mut process)?;
    let (before, had) = (sinks.tally(), arrived(case, sinks));
    let epoch = Instant::now();
    if let Load::Paced { .. } = case.load {
        sinks.read_stamps(epoch);
    }

    let cpu_before = process.cpu()?;
    let start = Instant::now();
    let sent = match case.is_edited {
        false => load::send(RELAY, case, lines, epoch)?,
        true => edited_meanwhile(relay, dir, || load::send(RELAY, case, lines, epoch))?,
    };
    let sent_in = start.elapsed();
    let due = sent * case.copies;
    if case.copies == 0 {
        thread::sleep(BUCKETS_SENT);
    }
    let last = wait_for(case, sinks, had + due.lines);
    let cpu = process.cpu()? - cpu_before;
    process.still_runs()?;

    if case.copies == 0 {
        let run = aggregated(relay, &process, cpu, sent.lines, probes, sent_in)?;
        ensure!(sinks.tally() != before, "no aggregate came out");
        drop(process);
        wait_until(START_LIMIT, || Ok(sinks.connections() == 0))?;
        return Ok(run);
    }
    let mut got = sinks.tally() - before;
    got.lines = arrived(case, sinks) - had;
    let mut problems = Vec::new();
    if got.lines > due.lines {
        problems.push(format!("got {} lines of {}", got.lines, due.lines));
    } else if got.lines == due.lines && got != due && is_plain(case) {
        problems.push(format!("sent {due:?}, but got {got:?}"));
    }
    if relay == Relay::Carbonway {
        problems.extend(wrong_accounts(
            sent.lines + probes,
            got.lines + probes * case.copies,
        )?);
    }
    let run = Run {
        cpu_ns_per_line: cpu.as_nanos() as f64 / sent.lines as f64,
        lines_per_second: got.lines as f64 / case.copies as f64 / (last - start).as_secs_f64(),
        lost_percent: Some(100.0 * due.lines.saturating_sub(got.lines) as f64 / due.lines as f64),
        peak_rss_mib: process.peak_rss_mib()?,
        latency: sinks.latency(),
        swaps: match case.is_edited {
            false => None,
            // The first table was nothing's successor.
            true => Some(scrape()?["carbonway_snapshots_applied_total"] - 1),
        },
        problems: problems
            .into_iter()
            .map(|problem| format!("case {}, {}: {problem}", case.name, relay.name()))
            .collect(),
    };
    drop(process);
    wait_until(START_LIMIT, || Ok(sinks.connections() == 0))?;
    Ok(run)
}

// Whether what comes out is, byte by byte, what goes in.
fn is_plain(case: &Case) -> bool {
    case.input != Input::Pickle && case.output == Output::Lines
}

// A round whose lines go into aggregates. Carbonway says how many did; of others what comes out does not tell.
fn aggregated(
    relay: Relay,
    process: &Process,
    cpu: Duration,
    sent: u64,
    probes: u64,
    sent_in: Duration,
) -> Result<Run> {
    let mut problems = Vec::new();
    let mut lost_percent = None;
    if relay == Relay::Carbonway {
        let metrics = scrape()?;
        let of = |name: &str| metrics.get(name).copied().unwrap_or(0);
        let absorbed = of("carbonway_lines_absorbed_total");
        let (received, forwarded) = (
            of("carbonway_lines_received_total"),
            of("carbonway_lines_forwarded_total"),
        );
        if received != sent + probes || received != absorbed + forwarded {
            problems.push(format!(
                "case F: sent {sent}, and it says: received {received}, forwarded {forwarded}, absorbed {absorbed}"
            ));
        }
        lost_percent = Some(100.0 * sent.saturating_sub(absorbed) as f64 / sent as f64);
    }
    Ok(Run {
        cpu_ns_per_line: cpu.as_nanos() as f64 / sent as f64,
        lines_per_second: sent as f64 / sent_in.as_secs_f64(),
        lost_percent,
        peak_rss_mib: process.peak_rss_mib()?,
        latency: None,
        swaps: None,
        problems,
    })
}

/// Changes a rule once in [`EDIT_EVERY`] until `send` is done.
fn edited_meanwhile<T>(relay: Relay, dir: &Path, send: impl FnOnce() -> Result<T>) -> Result<T> {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let editor = scope.spawn(move || {
            let mut number = 0;
            while is_done.recv_timeout(EDIT_EVERY) == Err(RecvTimeoutError::Timeout) {
                number += 1;
                relay.edit(number, dir)?;
            }
            Ok(())
        });
        let sent = send();
        drop(done);
        editor.join().expect("an editor does not panic").and(sent)
    })
}

/// Sends lines, one at a time, until they come out: the relay is up and connected. Returns how many it took.
fn send_probes(case: &Case, sinks: &Sinks, process: &mut Process) -> Result<u64> {
    let before = arrived(case, sinks);
    // Who takes datagrams takes lines over TCP, too, and these are not lost while it starts.
    let input = match case.input {
        Input::Pickle => Input::Pickle,
        Input::Lines | Input::Datagrams => Input::Lines,
    };
    let mut stream = None;
    wait_until(START_LIMIT, || {
        process.still_runs()?;
        stream = Stream::open(RELAY, input).ok();
        Ok(stream.is_some())
    })?;
    let mut stream = stream.context("not connected")?;
    stream.send(b"bench.probe 1 1700000000\n")?;
    wait_until(START_LIMIT, || {
        process.still_runs()?;
        Ok(arrived(case, sinks) == before + case.copies.max(1))
    })
    .context("the first line did not arrive")?;
    Ok(1)
}

/// When the sinks had `lines`, or the last line arrived before they went quiet.
fn wait_for(case: &Case, sinks: &Sinks, lines: u64) -> Instant {
    let (mut seen, mut last) = (arrived(case, sinks), Instant::now());
    while seen < lines && last.elapsed() < QUIET {
        thread::sleep(POLL);
        let now = arrived(case, sinks);
        if now != seen {
            (seen, last) = (now, Instant::now());
        }
    }
    last
}

// How many lines have arrived. What a broker has, the relay says, to which it acknowledged it.
fn arrived(case: &Case, sinks: &Sinks) -> u64 {
    match case.output {
        Output::Kafka => {
            // It costs the relay something to say so.
            thread::sleep(Duration::from_millis(50));
            let metrics = scrape().unwrap_or_default();
            let sent = metrics.get("carbonway_destination_lines_sent_total");
            sent.copied().unwrap_or(0)
        }
        Output::Lines | Output::Pickle | Output::RemoteWrite => sinks.tally().lines,
    }
}

fn wait_until(limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < limit, "waited for {limit:?}");
        thread::sleep(POLL);
    }
    Ok(())
}

/// Compares Carbonway's own accounts with what was put in and what came out.
fn wrong_accounts(sent: u64, got: u64) -> Result<Option<String>> {
    let metrics = scrape()?;
    let of = |name: &str| metrics.get(name).copied().unwrap_or(0);
    let received = of("carbonway_lines_received_total");
    let forwarded = of("carbonway_lines_forwarded_total");
    let absorbed = of("carbonway_lines_absorbed_total");
    let dropped = of("carbonway_lines_dropped_total");
    let delivered = of("carbonway_destination_lines_sent_total");
    let right = received == sent && received == forwarded + absorbed + dropped && delivered == got;
    Ok((!right).then(|| {
        format!(
            "sent {sent}, and it says: received {received} = forwarded {forwarded} + absorbed {absorbed} \
             + dropped {dropped}; got {got}, and it says: delivered {delivered}"
        )
    }))
}

/// Carbonway's metrics, each summed over its labels.
fn scrape() -> Result<BTreeMap<String, u64>> {
    let mut stream = TcpStream::connect(ADMIN).context("cannot ask for metrics")?;
    stream.set_read_timeout(Some(START_LIMIT))?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        bail!(
            "/metrics answered: {}",
            answer.lines().next().unwrap_or_default()
        );
    }
    let mut metrics = BTreeMap::new();
    for line in answer.lines().filter(|line| line.starts_with("carbonway_")) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = name.split('{').next().unwrap_or(name);
        // Counters are whole numbers; anything else is none of ours.
        if let Ok(value) = value.parse::<u64>() {
            *metrics.entry(name.to_owned()).or_default() += value;
        }
    }
    Ok(metrics)
}

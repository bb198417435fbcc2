//! A process that spools and is killed, twenty times over the same directory: what it said was synced is there.
//!
//! This program runs itself as the process to be killed. That one appends numbered lines, reads and acknowledges some, and
//! says what it has synced; how far it is when the signal comes is up to the machine.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use relay_spool::{Limits, Spool, UnixSeconds, WhenFull};

const KILLS: u64 = 20;

const NOW: UnixSeconds = UnixSeconds(1_000_000);

const BATCH_LINES: u64 = 100;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    match &arguments[..] {
        [_, mode, directory, next] if mode == "spool" => {
            spool(Path::new(directory), next.parse().expect("a number"));
        }
        _ => kill_and_check(),
    }
}

fn open(directory: &Path) -> Spool {
    let limits = Limits {
        bytes_max: 1 << 30,
        age_max: None,
        segment_bytes: 1 << 20,
        when_full: WhenFull::DropNewest,
    };
    Spool::open(directory, "uid", limits, NOW).expect("nobody else has it")
}

// Says, a line each time: up to where it synced, and how far it may have acknowledged.
fn spool(directory: &Path, mut next: u64) {
    let mut spool = open(directory);
    let mut bytes = Vec::new();
    let mut acknowledged = None;
    let mut stdout = io::stdout();
    loop {
        for _ in 0..100 {
            let lines: String = (next..next + BATCH_LINES)
                .map(|n| format!("servers.web.cpu {n} 1000000\n"))
                .collect();
            spool
                .append(lines.as_bytes(), BATCH_LINES)
                .expect("there is room");
            next += BATCH_LINES;
        }
        spool.sync(NOW).expect("the disk works");
        // Slower than it appends.
        if let Some(batch) = spool.read(&mut bytes, 140_000).expect("the disk works") {
            acknowledged = numbers(&bytes).last().copied();
            let end = acknowledged.expect("no batch is empty") + 1;
            writeln!(stdout, "{next} {end}").expect("the other end waits");
            spool.acknowledge(batch.end);
        }
        let end = acknowledged.map_or(0, |last| last + 1);
        writeln!(stdout, "{next} {end}").expect("the other end waits");
    }
}

fn kill_and_check() {
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let mut random: u64 = 0x5eed;
    let mut next = 0;
    let mut came_before = 0;
    for _ in 0..KILLS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (synced, acknowledged) = run_and_kill(directory.path(), next, random >> 33);
        let mut spool = open(directory.path());
        let mut bytes = Vec::new();
        let mut came = Vec::new();
        while let Some(batch) = spool.read(&mut bytes, 1 << 20).expect("the disk works") {
            let numbers = numbers(&bytes);
            assert_eq!(numbers.len() as u64, batch.lines);
            came.extend(numbers);
        }
        let (first, last) = (came[0], came[came.len() - 1]);
        assert!(
            came.iter().copied().eq(first..=last),
            "out of order or with a gap"
        );
        assert!(
            first <= acknowledged.max(came_before),
            "{first} is the first of what waits"
        );
        assert!(
            last + 1 >= synced,
            "{synced} were synced, {} are there",
            last + 1
        );
        let figures = spool.figures();
        assert_eq!(figures.dropped, [0; 5]);
        next = last + 1;
        came_before = first;
    }
    writeln!(
        io::stderr(),
        "killed {KILLS} times, {next} lines: none missing"
    )
    .expect("stderr is open");
}

// Returns what it said last.
fn run_and_kill(directory: &Path, next: u64, random: u64) -> (u64, u64) {
    let (reports, moment) = (1 + random % 20, random / 20 % 300_000);
    let itself = env::current_exe().expect("this program has a path");
    let mut child = Command::new(itself)
        .args(["spool".as_ref(), directory.as_os_str()])
        .arg(next.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let stdout = child.stdout.take().expect("it was asked for");
    let mut last = (0, 0);
    let mut killed = false;
    // What was written before the signal is still in the pipe after it.
    for (i, line) in BufReader::new(stdout).lines().enumerate() {
        let line = line.expect("the pipe works");
        if let Some((synced, acknowledged)) = line.split_once(' ')
            && let (Ok(synced), Ok(acknowledged)) = (synced.parse(), acknowledged.parse())
        {
            last = (synced, acknowledged);
        }
        if i as u64 >= reports && !killed {
            // Into whatever it does next.
            for _ in 0..moment {
                std::hint::spin_loop();
            }
            child.kill().expect("it runs");
            killed = true;
        }
    }
    child.wait().expect("it was killed");
    assert!(killed, "it ended by itself");
    last
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    let text = str::from_utf8(bytes).expect("it was text");
    text.lines()
        .map(|line| {
            let number = line.strip_prefix("servers.web.cpu ");
            let number = number.and_then(|rest| rest.strip_suffix(" 1000000"));
            number.expect("a whole line").parse().expect("a number")
        })
        .collect()
}

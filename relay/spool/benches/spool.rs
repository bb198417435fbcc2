//! How fast lines go to disk and come back: `cargo bench --package relay-spool`, optionally with a directory after `--`.
//!
//! Lines of 60 bytes in batches of 64 KiB, synced every second and once at the end. What comes back is mostly in the page
//! cache, as it is after a short outage; add the disk's reading speed for a long one.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use relay_spool::{Limits, Spool, UnixSeconds, WhenFull};

const LINES: u64 = 20_000_000;

const LINE_BYTES: usize = 60;

const SYNC_INTERVAL: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let parent = directory.map_or(env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let directory = tempfile::tempdir_in(parent)?;
    let batch = batch();
    let batch_lines = (batch.len() / LINE_BYTES) as u64;
    let batches = LINES.div_ceil(batch_lines);

    let mut spool = open(directory.path())?;
    let mut clock = Clock::new();
    for _ in 0..batches {
        spool.append(&batch, batch_lines)?;
        clock.tick(&mut spool)?;
    }
    clock.sync(&mut spool)?;
    let lines = batches * batch_lines;
    report("in", lines, &clock)?;
    let bytes = spool.figures().bytes as f64 / lines as f64;
    writeln!(
        io::stdout(),
        "{bytes:.2} bytes on disk per line of {LINE_BYTES}"
    )?;

    drop(spool);
    let mut spool = open(directory.path())?;
    let mut clock = Clock::new();
    let mut bytes = Vec::new();
    let mut lines_out = 0;
    while let Some(batch) = spool.read(&mut bytes, 256 << 10)? {
        lines_out += spool.acknowledge(batch.end);
        clock.tick(&mut spool)?;
    }
    clock.sync(&mut spool)?;
    assert_eq!(lines_out, lines);
    report("out", lines, &clock)?;

    let mut clock = Clock::new();
    for _ in 0..batches {
        spool.append(&batch, batch_lines)?;
        if let Some(batch) = spool.read(&mut bytes, 256 << 10)? {
            spool.acknowledge(batch.end);
        }
        clock.tick(&mut spool)?;
    }
    clock.sync(&mut spool)?;
    assert_eq!(spool.figures().waiting, 0);
    report("in and out at once", lines, &clock)?;
    Ok(())
}

fn open(directory: &Path) -> Result<Spool, relay_spool::Error> {
    let limits = Limits {
        bytes_max: 10 << 30,
        age_max: Some(Duration::from_secs(86_400)),
        segment_bytes: Limits::SEGMENT_BYTES,
        when_full: WhenFull::DropNewest,
    };
    Spool::open(directory, "uid", limits, UnixSeconds(1_000_000))
}

fn batch() -> Vec<u8> {
    let lines = (64 << 10) / LINE_BYTES;
    let mut batch = Vec::new();
    for line in 0..lines {
        let mut text = format!("servers.web{line:04}.cpu.total.user 12.5 ");
        let digits = LINE_BYTES - 1 - text.len();
        text.push_str(&format!("{:0>digits$}\n", 1_700_000_000 + line));
        batch.extend_from_slice(text.as_bytes());
    }
    assert_eq!(batch.len(), lines * LINE_BYTES);
    batch
}

struct Clock {
    began: Instant,
    synced: Instant,
    syncing: Duration,
    longest: Duration,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            synced: now,
            syncing: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }

    fn tick(&mut self, spool: &mut Spool) -> Result<(), relay_spool::Error> {
        match self.synced.elapsed() >= SYNC_INTERVAL {
            true => self.sync(spool),
            false => Ok(()),
        }
    }

    fn sync(&mut self, spool: &mut Spool) -> Result<(), relay_spool::Error> {
        self.synced = Instant::now();
        spool.sync(UnixSeconds(1_000_000))?;
        let took = self.synced.elapsed();
        self.syncing += took;
        self.longest = self.longest.max(took);
        Ok(())
    }
}

fn report(what: &str, lines: u64, clock: &Clock) -> io::Result<()> {
    let seconds = clock.began.elapsed().as_secs_f64();
    let rate = lines as f64 / seconds;
    let Clock {
        syncing, longest, ..
    } = clock;
    writeln!(
        io::stdout(),
        "{what}: {rate:.0} lines/s ({lines} lines in {seconds:.2} s; {syncing:.2?} in sync, {longest:.2?} at most)"
    )
}

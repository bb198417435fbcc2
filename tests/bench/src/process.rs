//! A relay's process, and what the kernel says about it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

// The kernel reports CPU time in ticks of USER_HZ, which is 100 on every Linux (man 5 proc).
const TICK: Duration = Duration::from_millis(10);

/// A running relay; ends with its owner.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// # Errors
    /// It has ended; the message has what it said.
    pub(crate) fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("the relay ended ({status}) and said:\n{said}");
        }
        Ok(())
    }

    /// User and system time of all its threads so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = self.proc_file("stat")?;
        // The second field is the command's name in parentheses, and may hold anything; utime and stime are the 14th
        // and 15th.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: Vec<u32> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .context("cannot read /proc/PID/stat")?;
        Ok(TICK * ticks.iter().sum())
    }

    /// The most memory that it ever held, in MiB.
    pub(crate) fn peak_rss_mib(&self) -> Result<f64> {
        let status = self.proc_file("status")?;
        let kib: f64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmHWM in /proc/PID/status")?
            .parse()?;
        Ok(kib / 1024.0)
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that has ended, and been seen to.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

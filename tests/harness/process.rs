//! The real binaries, as child processes whose output is kept.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually;

/// The binary that this build of the tests goes with.
///
/// # Panics
/// If it was not built.
pub fn binary(name: &str) -> PathBuf {
    let path = profile_directory().join(name);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build --workspace --bins` first (make test does)",
        path.display()
    );
    path
}

// target/debug, where this test is target/debug/deps/process-0123456789abcdef.
pub(crate) fn profile_directory() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    let directory = test.parent().and_then(Path::parent);
    directory
        .expect("cargo puts tests two levels below target")
        .to_owned()
}

/// A running program. It is killed when dropped; when its test fails, what it said is printed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    exit: Option<ExitStatus>,
    stdout: Output,
    stderr: Output,
}

impl Process {
    /// Starts a program with its output captured and no input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let program = Path::new(command.get_program());
        let name = program.file_name().unwrap_or(OsStr::new("process"));
        let name = name.to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        Self {
            name,
            child,
            exit: None,
            stdout: Output::of(stdout),
            stderr: Output::of(stderr),
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines on standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.lines()
    }

    /// The lines on standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lines()
    }

    /// Waits for a line on standard error that has all of `words` in it, after the first `skipped` lines.
    ///
    /// # Panics
    /// If there is none in time.
    pub fn wait_for_stderr(&self, deadline: Duration, skipped: usize, words: &[&str]) -> String {
        let what = format!("a line on {}'s stderr with {words:?}", self.name);
        eventually(deadline, &what, || {
            let lines = self.stderr();
            let found = lines
                .iter()
                .skip(skipped)
                .find(|line| words.iter().all(|word| line.contains(word)));
            found
                .cloned()
                .ok_or_else(|| format!("{} lines, none of them that", lines.len()))
        })
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.expect("a child has a positive process id");
        kill_process(id, signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Whether it has ended, and how.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().expect("a child can be waited for");
        }
        self.exit
    }

    /// Waits for the end. Standard output and standard error are complete then.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        let exit = eventually(deadline, &what, || {
            self.exited().ok_or_else(|| "it runs".into())
        });
        self.stdout.finish();
        self.stderr.finish();
        exit
    }

    /// Ends it at once, without a chance to tidy up.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            self.signal(Signal::KILL);
            self.wait(Duration::from_secs(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let exit = self.exited();
        if exit.is_none() && self.child.kill().is_ok() {
            self.exit = self.child.wait().ok();
        }
        if thread::panicking() {
            let (name, id) = (&self.name, self.child.id());
            let exit = exit.map_or("running until now".into(), |exit| exit.to_string());
            eprintln!("---- {name} (pid {id}), {exit}");
            for (stream, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                let lines = output.lines();
                let hidden = lines.len().saturating_sub(200);
                eprintln!("---- {stream}, {} lines, the last:", lines.len());
                lines[hidden..].iter().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// A program that ran to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a program to its end.
///
/// # Panics
/// If it cannot be started.
pub fn finish(command: &mut Command) -> Finished {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

// The lines that a process has written to one of its streams, read by a thread for as long as the stream is open.
#[derive(Debug)]
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line).into_owned();
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Self {
            lines,
            reader: Some(reader),
        }
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading lines does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;
    use crate::DEADLINE;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_exit_code_are_kept() {
        let mut process = Process::start(&mut shell("echo out; echo err >&2; exit 3"));
        assert_eq!(process.wait(DEADLINE).code(), Some(3));
        assert_eq!(
            (process.stdout(), process.stderr()),
            (vec!["out".into()], vec!["err".into()])
        );
    }

    #[test]
    fn a_line_on_stderr_is_waited_for() {
        let mut process = Process::start(&mut shell(
            "echo one fish >&2; echo two fish >&2; exec sleep 60",
        ));
        let line = process.wait_for_stderr(DEADLINE, 1, &["fish"]);
        assert_eq!(line, "two fish");
        process.kill();
        assert_eq!(process.exited().and_then(|exit| exit.signal()), Some(9));
    }

    #[test]
    fn a_program_is_run_to_its_end() {
        let finished = finish(&mut shell("echo out; echo err >&2; exit 1"));
        let expected = Finished {
            code: Some(1),
            stdout: "out\n".into(),
            stderr: "err\n".into(),
        };
        assert_eq!(finished, expected);
    }
}

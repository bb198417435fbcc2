//! A relay process, in either of the two ways in which users run one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use crate::{Accounts, DEADLINE, Directory, Metrics, Process, binary, eventually, get};

/// A relay on a loopback address of its own: lines go in on port 2003, the admin port is 8080.
#[derive(Debug)]
pub struct RelayProcess {
    /// The program.
    pub process: Process,
    address: Ipv4Addr,
}

/// What a relay of a fleet is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct Fleet<'a> {
    /// Where the operator serves, or would.
    pub operator: SocketAddr,
    /// The Relay resource: "namespace/name".
    pub relay: &'a str,
    /// The pod's name.
    pub pod: &'a str,
    /// Where it keeps its last good snapshot.
    pub state: &'a Path,
    /// With what it goes to the operator; `None`: in the clear.
    pub credentials: Option<Credentials<'a>>,
}

/// Files with which a relay goes to its operator over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The CA that it believes.
    pub ca: &'a Path,
    /// The token that it shows.
    pub token: &'a Path,
}

impl RelayProcess {
    /// Runs `carbonway run` on a directory, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn run(directory: &Directory) -> Self {
        let mut relay = Self::start_run(directory);
        relay.wait_until_ready();
        relay
    }

    /// Runs `carbonway run` on a file, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn run_file(file: &Path) -> Self {
        let mut command = Command::new(binary("carbonway"));
        let mut relay = Self::start(command.arg("run").arg(file));
        relay.wait_until_ready();
        relay
    }

    /// Runs `carbonway run` on a directory with a state directory, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn run_with_state(directory: &Directory, state: &Path) -> Self {
        let mut command = Command::new(binary("carbonway"));
        command.arg("run").arg(directory.path());
        command.arg("--state-dir").arg(state);
        let mut relay = Self::start(&mut command);
        relay.wait_until_ready();
        relay
    }

    /// Kills it, and runs `carbonway run` on a directory in its stead, with its addresses.
    ///
    /// # Panics
    /// If that does not become ready in time.
    pub fn kill_and_run(&mut self, directory: &Directory) {
        self.process.kill();
        let mut command = Command::new(binary("carbonway"));
        command.arg("run").arg(directory.path());
        *self = Self::start_at(&mut command, self.address);
        self.wait_until_ready();
    }

    /// Runs a second process of the same kind beside a relay, with its addresses and state directory, and waits until it
    /// takes lines too.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn take_over(from: &Self, directory: &Directory, state: &Path) -> Self {
        let mut command = Command::new(binary("carbonway"));
        command.arg("run").arg(directory.path());
        command.arg("--state-dir").arg(state);
        let relay = Self::start_at(&mut command, from.address);
        // The admin port may be answered by either of them.
        relay
            .process
            .wait_for_stderr(DEADLINE, 0, &["listening", "listener=plain"]);
        relay
    }

    /// Runs `carbonway run` on a directory as a process that may have this many files open, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn run_with_files(directory: &Directory, files_max: u32) -> Self {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {files_max}; exec \"$@\"");
        command.args(["-c", &limited, "sh"]);
        command.arg(binary("carbonway")).arg("run");
        command.arg(directory.path());
        let mut relay = Self::start(&mut command);
        relay.wait_until_ready();
        relay
    }

    /// Runs `carbonway run` on a directory with more in its environment, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn run_with_environment(directory: &Directory, more: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary("carbonway"));
        command.arg("run").arg(directory.path());
        command.envs(more.iter().copied());
        let mut relay = Self::start(&mut command);
        relay.wait_until_ready();
        relay
    }

    /// Runs `carbonway run` on a directory with a state directory, at an address, as the last words of another command:
    /// `unshare`, `ip netns exec`. Waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn run_under(
        words: &[&str],
        address: Ipv4Addr,
        directory: &Directory,
        state: &Path,
    ) -> Self {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.arg(binary("carbonway")).arg("run");
        command.arg(directory.path());
        command.arg("--state-dir").arg(state);
        let mut relay = Self::start_at(&mut command, address);
        relay.wait_until_ready();
        relay
    }

    /// The most memory that it has had, in bytes.
    ///
    /// # Panics
    /// If the system does not say.
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).expect("the process is there");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .expect("it says VmHWM in kB")
            * 1024
    }

    /// Starts `carbonway run` on a directory.
    pub fn start_run(directory: &Directory) -> Self {
        let mut command = Command::new(binary("carbonway"));
        command.arg("run").arg(directory.path());
        Self::start(&mut command)
    }

    /// Starts `carbonway-relay` in a fleet.
    pub fn start_in(fleet: Fleet<'_>) -> Self {
        let mut command = Command::new(binary("carbonway-relay"));
        let scheme = match fleet.credentials {
            Some(Credentials { ca, token }) => {
                command.arg("--operator-ca").arg(ca);
                command.arg("--token-file").arg(token);
                "https"
            }
            None => "http",
        };
        command
            .args(["--operator", &format!("{scheme}://{}", fleet.operator)])
            .args(["--relay", fleet.relay, "--pod", fleet.pod])
            .arg("--state-dir")
            .arg(fleet.state);
        Self::start(&mut command)
    }

    fn start(command: &mut Command) -> Self {
        Self::start_at(command, crate::own_address())
    }

    fn start_at(command: &mut Command, address: Ipv4Addr) -> Self {
        // What this machine reaches others through is not for what is tested here.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            for name in [name, &name.to_lowercase()] {
                if !command.get_envs().any(|(set, _)| set == name) {
                    command.env_remove(name);
                }
            }
        }
        command
            .args(["--listen-address", &address.to_string()])
            .args(["--admin-address", &format!("{address}:8080")])
            .env("CARBONWAY_LOG_FORMAT", "text");
        Self {
            process: Process::start(command),
            address,
        }
    }

    /// Where it takes lines.
    pub fn address(&self) -> SocketAddr {
        (self.address, 2003).into()
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// If it does not in time, or ends.
    pub fn wait_until_ready(&mut self) {
        eventually(DEADLINE, "the relay to be ready", || {
            if let Some(exit) = self.process.exited() {
                panic!("the relay ended while it was waited for: {exit}");
            }
            match self.status("/readyz") {
                Some(200) => Ok(()),
                status => Err(format!("/readyz gives {status:?}")),
            }
        });
    }

    /// The HTTP status of a path on the admin port; `None` if nobody answers.
    pub fn status(&self, path: &str) -> Option<u16> {
        let response = get(self.admin(), path).ok();
        response.map(|response| response.status)
    }

    /// Where the admin port is.
    pub fn admin(&self) -> SocketAddr {
        (self.address, 8080).into()
    }

    /// Its metrics at this moment.
    ///
    /// # Panics
    /// If it has none.
    pub fn metrics(&self) -> Metrics {
        let response = get(self.admin(), "/metrics").expect("the admin port answers");
        assert_eq!(response.status, 200, "{}", response.body);
        Metrics::parse(&response.body).expect("/metrics is in the Prometheus text format")
    }

    /// What a path on the admin port gives.
    ///
    /// # Panics
    /// If that is not JSON.
    pub fn json(&self, path: &str) -> serde_json::Value {
        let response = get(self.admin(), path).expect("the admin port answers");
        assert_eq!(response.status, 200, "{}", response.body);
        serde_json::from_str(&response.body).expect("it is JSON")
    }

    /// What became of the lines so far.
    pub fn accounts(&self) -> Accounts {
        Accounts::of(&self.metrics())
    }

    /// Waits until `received` lines have come in, every one is accounted for, and nothing is queued.
    ///
    /// # Panics
    /// If that does not happen in time, or more lines have come in.
    pub fn settle(&self, received: u64) -> Accounts {
        let what = format!("{received} lines received and accounted for");
        let accounts = eventually(DEADLINE, &what, || {
            let accounts = self.accounts();
            accounts.balance()?;
            let queued: u64 = accounts.destinations.values().map(|d| d.queued).sum();
            match accounts.received >= received && queued == 0 {
                true => Ok(accounts),
                false => Err(format!("{accounts:?}")),
            }
        });
        assert_eq!(accounts.received, received, "{accounts:?}");
        accounts
    }

    /// [`RelayProcess::settle`]s, and returns the lines dropped by reason.
    pub fn dropped(&self, received: u64) -> BTreeMap<String, u64> {
        self.settle(received).dropped
    }

    /// Waits until a destination in the default namespace is connected, or is not.
    ///
    /// # Panics
    /// If it stays otherwise.
    pub fn wait_for_connected(&self, destination: &str, connected: bool) {
        self.wait_for_gauge("carbonway_destination_connected", destination, connected);
    }

    /// Waits until failover gives a destination in the default namespace lines, or does not.
    ///
    /// # Panics
    /// If it stays otherwise.
    pub fn wait_for_live(&self, destination: &str, live: bool) {
        self.wait_for_gauge("carbonway_destination_live", destination, live);
    }

    fn wait_for_gauge(&self, gauge: &str, destination: &str, set: bool) {
        let name = format!("default/{destination}");
        eventually(DEADLINE, &format!("{gauge} of {name} to be {set}"), || {
            let value = self.metrics().get(gauge, &[("destination", &name)]);
            match value == Some(f64::from(u8::from(set))) {
                true => Ok(()),
                false => Err(format!("{gauge} is {value:?}")),
            }
        });
    }
}

//! The relays: how each is configured and started. All listen on [`RELAY`] and send to the sinks.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    cases::{self, Case},
    sink::Sinks,
};

// An address of their own, so that nothing else on the machine is in the way.
const RELAY_HOST: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
/// Where the relay that is measured takes lines.
pub(crate) const RELAY: SocketAddrV4 = SocketAddrV4::new(RELAY_HOST, 12003);
/// Where Carbonway serves its metrics.
pub(crate) const ADMIN: SocketAddrV4 = SocketAddrV4::new(RELAY_HOST, 18080);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Relay {
    HaProxy,
    CarbonC,
    Carbonway,
}

impl Relay {
    pub(crate) const ALL: [Self; 3] = [Self::HaProxy, Self::CarbonC, Self::Carbonway];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|relay| relay.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::CarbonC => "carbon-c-relay",
            Self::Carbonway => "Carbonway",
        }
    }

    pub(crate) fn has(self, case: &Case) -> bool {
        (case.rules)(self).is_some()
    }

    /// The first line in which the program names its release.
    ///
    /// # Errors
    /// The program is not there.
    pub(crate) fn version(self) -> Result<String> {
        let option = match self {
            Self::HaProxy | Self::CarbonC => "-v",
            Self::Carbonway => "--version",
        };
        let program = self.program()?;
        let output = Command::new(&program).arg(option).output().with_context(|| {
            format!(
                "cannot run {}: install Debian's haproxy and carbon-c-relay (it starts both as services: stop them), \
                 or leave them out with --only carbonway",
                program.display()
            )
        })?;
        let text = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        Ok(String::from_utf8_lossy(&text)
            .lines()
            .next()
            .unwrap_or("unknown")
            .to_owned())
    }

    fn program(self) -> Result<PathBuf> {
        Ok(match self {
            Self::HaProxy => "haproxy".into(),
            Self::CarbonC => "carbon-c-relay".into(),
            Self::Carbonway => env::current_exe()
                .context("cannot tell where this program is")?
                .with_file_name("carbonway"),
        })
    }

    /// Writes the configuration for `case` into `dir` and returns the command that runs with it.
    pub(crate) fn command(self, case: &Case, sinks: &Sinks, dir: &Path) -> Result<Command> {
        let rules = (case.rules)(self).context("this relay has no such case")?;
        let mut config = self.frame(case.sinks) + &rules;
        for (index, address) in sinks.addresses().iter().enumerate() {
            config = config.replace(&format!("{{sink{index}}}"), &address.to_string());
        }
        let config_dir = dir.join(self.name());
        if config_dir.exists() {
            fs::remove_dir_all(&config_dir)?;
        }
        fs::create_dir_all(&config_dir)?;
        let path = config_dir.join("bench.yaml");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;

        // A relay must not outlive a bench that is killed: the next one would find its port taken.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(self.program()?);
        match self {
            Self::HaProxy => command.arg("-db").arg("-f").arg(path),
            Self::CarbonC => command
                // -s: no lines of its own about itself.
                .args([
                    "-s", "-w", "2", "-q", "1000000", "-L", "0", "-b", "10000", "-f",
                ])
                .arg(path),
            Self::Carbonway => command
                .arg("run")
                .arg(config_dir)
                .args(["--listen-address", &RELAY_HOST.to_string()])
                .args(["--admin-address", &ADMIN.to_string()]),
        };
        Ok(command)
    }

    /// Changes a rule of the case that was last written into `dir`.
    pub(crate) fn edit(self, number: usize, dir: &Path) -> Result<()> {
        let path = dir.join(self.name()).join("edit.yaml");
        fs::write(&path, cases::edit(number))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    // What every case has in common: the listener, and the sinks by name where the rules need them.
    fn frame(self, sinks: usize) -> String {
        let port = RELAY.port();
        let frame = match self {
            Self::HaProxy => format!(
                "global\n  nbthread 2\n\
                 defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                 listen bench\n  bind {RELAY}\n"
            ),
            Self::CarbonC => format!("listen type linemode {RELAY} proto tcp;\n"),
            Self::Carbonway => format!(
                "apiVersion: carbonway.io/v1alpha1\n\
                 kind: Relay\n\
                 metadata: {{name: bench, labels: {{carbonway.io/default: 'true'}}}}\n\
                 spec: {{listeners: [{{name: plain, port: {port}, plaintext: {{}}}}]}}\n"
            ),
        };
        (0..sinks).fold(frame, |frame, sink| {
            frame
                + &match self {
                    Self::HaProxy => String::new(),
                    Self::CarbonC => format!("cluster sink{sink} forward {{sink{sink}}};\n"),
                    Self::Carbonway => format!(
                        "---\n\
                         apiVersion: carbonway.io/v1alpha1\n\
                         kind: Destination\n\
                         metadata: {{name: sink{sink}}}\n\
                         spec: {{carbon: {{address: '{{sink{sink}}}'}}, queue: {{whenFull: Block}}}}\n"
                    ),
                }
        })
    }
}

//! The relays: how each is configured and started. All listen on [`RELAY`] and send to the sinks.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    cases::{self, Case, Input, Output},
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
    PythonCarbon,
    Carbonway,
}

impl Relay {
    pub(crate) const ALL: [Self; 4] = [
        Self::HaProxy,
        Self::CarbonC,
        Self::PythonCarbon,
        Self::Carbonway,
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|relay| relay.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::CarbonC => "carbon-c-relay",
            Self::PythonCarbon => "carbon-relay.py",
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
        let (program, arguments) = match self {
            Self::HaProxy | Self::CarbonC => (self.program()?, ["-v"].as_slice()),
            Self::PythonCarbon => (
                tools("python"),
                [
                    "-c",
                    "from importlib.metadata import version; print('carbon', version('carbon'))",
                ]
                .as_slice(),
            ),
            Self::Carbonway => (self.program()?, ["--version"].as_slice()),
        };
        let output = Command::new(&program).args(arguments).output().with_context(|| {
            format!(
                "cannot run {}: install Debian's haproxy and carbon-c-relay (it starts both as services: stop them), \
                 and what `make tools` does, or leave them out with --only carbonway",
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
            Self::PythonCarbon => tools("carbon-relay.py"),
            Self::Carbonway => env::current_exe()
                .context("cannot tell where this program is")?
                .with_file_name("carbonway"),
        })
    }

    /// Writes the configuration for `case` into `dir` and returns the command that runs with it.
    pub(crate) fn command(self, case: &Case, sinks: &Sinks, dir: &Path) -> Result<Command> {
        let rules = (case.rules)(self).context("this relay has no such case")?;
        let mut config = self.frame(case) + &rules;
        for (index, address) in sinks.addresses(case.output).iter().enumerate() {
            config = config.replace(&format!("{{sink{index}}}"), &address.to_string());
        }
        let config_dir = dir.join(self.name());
        if config_dir.exists() {
            fs::remove_dir_all(&config_dir)?;
        }
        fs::create_dir_all(&config_dir)?;
        let config_dir = fs::canonicalize(config_dir)?;
        let config = config.replace("{dir}", &config_dir.to_string_lossy());
        let path = config_dir.join("bench.yaml");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;

        if self == Self::PythonCarbon {
            let schemas = config_dir.join("storage-schemas.conf");
            fs::write(schemas, "[all]\npattern = .*\nretentions = 10s:1d\n")?;
        }

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
            Self::PythonCarbon => command
                .args(["--nodaemon", "--config"])
                .arg(path)
                .arg("start")
                .env("GRAPHITE_ROOT", config_dir),
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
    fn frame(self, case: &Case) -> String {
        let port = RELAY.port();
        let frame = match self {
            Self::HaProxy => format!(
                "global\n  nbthread 2\n\
                 defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                 listen bench\n  bind {RELAY}\n"
            ),
            Self::CarbonC => format!("listen type linemode {RELAY} proto tcp;\n"),
            Self::PythonCarbon => python_carbon(case),
            Self::Carbonway => {
                let protocol = match case.input {
                    Input::Lines => "plaintext: {}",
                    Input::Pickle => "pickle: {}",
                    Input::Datagrams => "plaintext: {transport: TcpAndUdp}",
                };
                format!(
                    "apiVersion: carbonway.io/v1alpha1\n\
                     kind: Relay\n\
                     metadata: {{name: bench, labels: {{carbonway.io/default: 'true'}}}}\n\
                     spec: {{listeners: [{{name: in, port: {port}, {protocol}}}]}}\n"
                )
            }
        };
        let endpoint = match case.output {
            Output::Lines => "carbon: {address: '{at}'}",
            Output::Pickle => "carbon: {address: '{at}', encoding: Pickle}",
            Output::RemoteWrite => "prometheusRemoteWrite: {url: 'http://{at}/'}",
            Output::Kafka => "kafka: {brokers: ['{at}'], topic: bench}",
        };
        (0..case.sinks).fold(frame, |frame, sink| {
            frame
                + &match self {
                    Self::HaProxy | Self::PythonCarbon => String::new(),
                    Self::CarbonC => format!("cluster sink{sink} forward {{sink{sink}}};\n"),
                    Self::Carbonway => format!(
                        "---\n\
                         apiVersion: carbonway.io/v1alpha1\n\
                         kind: Destination\n\
                         metadata: {{name: sink{sink}}}\n\
                         spec: {{queue: {{whenFull: Block}}, {}}}\n",
                        endpoint.replace("{at}", &format!("{{sink{sink}}}"))
                    ),
                }
        })
    }
}

// It is told to wait, as we do, when what it sends to is slower than it.
fn python_carbon(case: &Case) -> String {
    let (port, unused) = (RELAY.port(), RELAY.port() + 1);
    let (lines, pickles) = match case.input {
        Input::Lines | Input::Datagrams => (port, unused),
        Input::Pickle => (unused, port),
    };
    let protocol = match case.output {
        Output::Pickle => "pickle",
        Output::Lines | Output::RemoteWrite | Output::Kafka => "line",
    };
    let is_udp = if case.input == Input::Datagrams {
        "True"
    } else {
        "False"
    };
    format!(
        "[relay]\nUSER =\n\
         LINE_RECEIVER_INTERFACE = {RELAY_HOST}\nLINE_RECEIVER_PORT = {lines}\n\
         PICKLE_RECEIVER_INTERFACE = {RELAY_HOST}\nPICKLE_RECEIVER_PORT = {pickles}\n\
         ENABLE_UDP_LISTENER = {is_udp}\n\
         UDP_RECEIVER_INTERFACE = {RELAY_HOST}\nUDP_RECEIVER_PORT = {port}\n\
         RELAY_METHOD = consistent-hashing\nDESTINATIONS = {{sink0}}:a\nDESTINATION_PROTOCOL = {protocol}\n\
         USE_FLOW_CONTROL = True\nMAX_QUEUE_SIZE = 100000\nCARBON_METRIC_INTERVAL = 0\nSTORAGE_DIR = {{dir}}\n"
    )
}

/// A program that `make tools` installs.
pub(crate) fn tools(program: &str) -> PathBuf {
    let environment =
        env::var_os("CARBONWAY_TOOLS").map_or_else(|| "target/tools/venv".into(), PathBuf::from);
    environment.join("bin").join(program)
}

//! A real Prometheus that takes remote writes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::get;
use crate::{DEADLINE, Process, eventually, own_address, skip, tools};

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: Ipv4Addr,
    directory: TempDir,
}

impl Prometheus {
    /// Starts one. `None`, with a message, where it is not installed.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn start() -> Option<Self> {
        if let Err(why) = tools("prometheus") {
            skip(&why);
            return None;
        }
        let directory = TempDir::new().expect("a temporary directory can be made");
        std::fs::write(directory.path().join("prometheus.yml"), "{}\n").expect("it can be written");
        let address = own_address();
        let process = Self::process(address, &directory);
        let this = Self {
            process,
            address,
            directory,
        };
        this.wait_until_ready();
        Some(this)
    }

    fn process(address: Ipv4Addr, directory: &TempDir) -> Process {
        let mut command = Command::new(tools("prometheus").expect("it was there"));
        let file = directory.path().join("prometheus.yml");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={address}:9090"))
            .arg("--web.enable-remote-write-receiver");
        Process::start(&mut command)
    }

    fn wait_until_ready(&self) {
        eventually(DEADLINE, "Prometheus to be ready", || {
            match get(self.address(), "/-/ready") {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (self.address, 9090).into()
    }

    /// Kills it, and starts it again with what it has on disk.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process = Self::process(self.address, &self.directory);
        self.wait_until_ready();
    }

    /// What a query at a time, in seconds since 1970, gives: the result of the API.
    ///
    /// # Panics
    /// If Prometheus does not answer.
    pub fn query(&self, query: &str, time: u64) -> Value {
        let mut encoded = String::new();
        for byte in query.bytes() {
            encoded += &format!("%{byte:02X}");
        }
        let path = format!("/api/v1/query?time={time}&query={encoded}");
        let answer = get(self.address(), &path).expect("it answers");
        let body: Value = serde_json::from_str(&answer.body).expect("it is JSON");
        body["data"]["result"].clone()
    }
}

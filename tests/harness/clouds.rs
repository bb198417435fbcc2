//! What stands in for clouds: Google's emulator of Pub/Sub, and moto as AWS; and clients of Google's and AWS' own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{env, fs};

use serde_json::Value;

use crate::{DEADLINE, Process, Signal, eventually, finish, own_address, skip, tools};

const SCRIPT: &str = include_str!("clouds.py");

/// The project that topics are in.
pub const PROJECT: &str = "monitoring";

/// An emulator of Pub/Sub, with what was published to it in memory.
#[derive(Debug)]
pub struct PubSub {
    program: PathBuf,
    process: Option<Process>,
    address: SocketAddr,
}

impl PubSub {
    /// One that does not run yet. `None`, with a message, where there is none.
    pub fn absent() -> Option<Self> {
        let found = emulator().and_then(|program| clients().map(|()| program));
        match found {
            Ok(program) => Some(Self {
                program,
                process: None,
                address: (Ipv4Addr::LOCALHOST, own_port()).into(),
            }),
            Err(why) => {
                skip(&why);
                None
            }
        }
    }

    /// A running one with a topic. `None`, with a message, where there is none.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn with_topic(topic: &str) -> Option<Self> {
        let mut pub_sub = Self::absent()?;
        pub_sub.start();
        pub_sub.create(topic);
        Some(pub_sub)
    }

    /// Runs it.
    pub fn start(&mut self) {
        let mut command = Command::new(&self.program);
        command.args([
            format!("--host={}", self.address.ip()),
            format!("--port={}", self.address.port()),
        ]);
        self.process = Some(Process::start(&mut command));
        wait_for_listener(self.address);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has it stand still, or go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Makes a topic and a subscription.
    ///
    /// # Panics
    /// If the emulator does not.
    pub fn create(&self, topic: &str) {
        cloud(&["topic", &self.address.to_string(), PROJECT, topic]);
    }

    /// The next messages of a topic with at least so many lines or points: attributes, the ordering key being one of them, and lines
    /// or points.
    ///
    /// # Panics
    /// If the emulator does not give them.
    pub fn pull(&self, topic: &str, lines: usize) -> Vec<(Value, Vec<Value>)> {
        let lines = lines.to_string();
        let text = cloud(&["pull", &self.address.to_string(), PROJECT, topic, &lines]);
        let messages = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("it is JSON"));
        messages.collect()
    }
}

/// CloudWatch, S3 and the rest of AWS, with what they have in memory. They let in everybody.
#[derive(Debug)]
pub struct Aws {
    _process: Process,
    address: SocketAddr,
}

impl Aws {
    /// Starts it. `None`, with a message, where there is none.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn start() -> Option<Self> {
        let program = match clients().and_then(|()| tools("moto_server")) {
            Ok(program) => program,
            Err(why) => {
                skip(&why);
                return None;
            }
        };
        let address = SocketAddr::from((own_address(), 5000));
        let mut command = Command::new(program);
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        command.args(["--host", &host, "--port", &port]);
        let process = Process::start(&mut command);
        wait_for_listener(address);
        Some(Self {
            _process: process,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a bucket of S3.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn make_bucket(&self, name: &str) {
        cloud(&["bucket", &self.address.to_string(), name]);
    }

    /// The points of a metric of CloudWatch in eu-west-1 that are not older than two hours: timestamp and value. A dimension is
    /// name=value.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn points(&self, namespace: &str, metric: &str, dimensions: &[&str]) -> Vec<(u64, f64)> {
        let address = self.address.to_string();
        let arguments = ["datapoints", &address, "eu-west-1", namespace, metric];
        let text = cloud(&[&arguments, dimensions].concat());
        serde_json::from_str(&text).expect("it is JSON")
    }
}

/// Runs a client of Google's or AWS': see clouds.py. Returns what it prints.
///
/// # Panics
/// If it fails.
pub fn cloud(arguments: &[&str]) -> String {
    let mut command = Command::new(tools("python").expect("it was there"));
    let finished = finish(command.args(["-c", SCRIPT]).args(arguments));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

/// Whether [`cloud`] has what it needs.
///
/// # Errors
/// If it has not, in words for [`skip`].
pub fn clients() -> Result<(), String> {
    let python = tools("python")?;
    let found = finish(Command::new(python).args(["-c", "import boto3, cryptography, moto"]));
    match found.code {
        Some(0) => Ok(()),
        _ => Err("moto of PyPI is not installed: run make tools".to_owned()),
    }
}

// It is a part of the Google Cloud SDK, and wants Java.
fn emulator() -> Result<PathBuf, String> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| {
        env::split_paths(&paths)
            .find_map(|directory| fs::canonicalize(directory.join(program)).ok())
    };
    let missing = "the Pub/Sub emulator is not there: install the Google Cloud SDK's component pubsub-emulator, and Java";
    let gcloud = found("gcloud").ok_or(missing)?;
    found("java").ok_or(missing)?;
    // SDK/bin/gcloud
    let sdk = gcloud.ancestors().nth(2).unwrap_or(&gcloud);
    let emulator = sdk.join("platform/pubsub-emulator/bin/cloud-pubsub-emulator");
    fs::canonicalize(emulator).map_err(|_| missing.to_owned())
}

// What speaks HTTP in the emulator asks the rest of it at localhost, so it has a port of its own and not an address.
fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(18085);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn wait_for_listener(address: SocketAddr) {
    eventually(DEADLINE, "it to listen", || {
        let connected = std::net::TcpStream::connect(address);
        connected.map(drop).map_err(|error| error.to_string())
    });
}

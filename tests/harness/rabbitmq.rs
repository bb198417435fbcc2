//! A real RabbitMQ.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Authority, Process, eventually, finish, own_address, skip, tools};

const SCRIPT: &str = include_str!("rabbitmq.py");

/// Where Debian has its programs; those in the path want to run as another user.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// Erlang takes its time.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// A running RabbitMQ.
#[derive(Debug)]
pub struct RabbitMq {
    process: Process,
    address: Ipv4Addr,
    node: String,
    distribution_port: u16,
    directory: TempDir,
}

impl RabbitMq {
    /// Starts one. `None`, with a message, where it is not installed.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn start() -> Option<Self> {
        Self::start_with(None)
    }

    /// One that takes clients of a CA over TLS, too, and shows them a certificate of it. `None`, with a message, where it is not
    /// installed.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn start_encrypted(authority: &Authority) -> Option<Self> {
        Self::start_with(Some(authority))
    }

    fn start_with(authority: Option<&Authority>) -> Option<Self> {
        let has_client = tools("python").is_ok_and(|python| {
            finish(Command::new(python).args(["-c", "import pika"])).code == Some(0)
        });
        if !Path::new(PROGRAMS).is_dir() || !has_client {
            skip("rabbitmq-server of Debian or pika of PyPI is not installed: run make tools");
            return None;
        }
        let address = own_address();
        let node = format!(
            "carbonway-{}@localhost",
            address.to_string().replace('.', "-")
        );
        let free = TcpListener::bind("0.0.0.0:0").expect("a port is free");
        let distribution_port = free.local_addr().expect("it is bound").port();
        drop(free);
        let directory = TempDir::new().expect("a temporary directory can be made");
        if let Some(authority) = authority {
            Self::write_tls(authority, address, &directory);
        }
        let mut command = Self::program("rabbitmq-server", &node, &directory);
        Self::at(&mut command, address, distribution_port);
        let this = Self {
            process: Process::start(&mut command),
            address,
            node,
            distribution_port,
            directory,
        };
        this.wait_until_it_listens();
        Some(this)
    }

    fn write_tls(authority: &Authority, address: Ipv4Addr, directory: &TempDir) {
        let identity = authority.identity(&address.to_string());
        let write = |name: &str, content: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).expect("it can be written");
            path.display().to_string()
        };
        let settings = format!(
            "listeners.ssl.1 = {address}:5671\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\n",
            write("ca.pem", &authority.certificate),
            write("cert.pem", &identity.certificate),
            write("key.pem", &identity.key),
        );
        write("rabbitmq.conf", &settings);
    }

    fn at(command: &mut Command, address: Ipv4Addr, distribution_port: u16) {
        command
            .env("RABBITMQ_NODE_IP_ADDRESS", address.to_string())
            .env("RABBITMQ_NODE_PORT", "5672")
            .env("RABBITMQ_DIST_PORT", distribution_port.to_string());
    }

    fn program(name: &str, node: &str, directory: &TempDir) -> Command {
        let within = |name: &str| directory.path().join(name);
        let mut command = Command::new(Path::new(PROGRAMS).join(name));
        command
            // Where it leaves a dump when it is killed at a bad moment.
            .current_dir(directory.path())
            .env("HOME", directory.path())
            .env("RABBITMQ_NODENAME", node)
            .env("RABBITMQ_MNESIA_BASE", within("mnesia"))
            .env("RABBITMQ_LOG_BASE", within("log"))
            .env("RABBITMQ_CONFIG_FILE", within("rabbitmq"))
            .env("RABBITMQ_PID_FILE", within("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", within("plugins"));
        command
    }

    fn wait_until_it_listens(&self) {
        eventually(START_DEADLINE, "RabbitMQ to listen", || {
            let connected = TcpStream::connect(self.address());
            connected.map(drop).map_err(|error| error.to_string())
        });
    }

    /// Kills it, and starts it again with what it has on disk.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Starts it again with what it has on disk, when it was killed.
    ///
    /// # Panics
    /// If it does not listen in time.
    pub fn restart(&mut self) {
        let mut command = Self::program("rabbitmq-server", &self.node, &self.directory);
        Self::at(&mut command, self.address, self.distribution_port);
        self.process = Process::start(&mut command);
        self.wait_until_it_listens();
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::KILL).ok();
        }
        self.process.kill();
    }

    /// Has it stand still, or go on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid().expect("it runs"), signal).expect("it runs");
    }

    // Of the server, which is a child of what was started, and ends that with itself.
    fn pid(&self) -> Option<Pid> {
        let pid = std::fs::read_to_string(self.directory.path().join("pid")).ok()?;
        Pid::from_raw(pid.trim().parse().ok()?)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (self.address, 5672).into()
    }

    /// Where it listens for those who speak TLS.
    pub fn encrypted_address(&self) -> SocketAddr {
        (self.address, 5671).into()
    }

    /// Ends all connections.
    ///
    /// # Panics
    /// If it does not.
    pub fn close_connections(&self) {
        self.control(&["close_all_connections", "a test wants it"]);
    }

    /// Has it be short of memory, which blocks those who publish, or not.
    ///
    /// # Panics
    /// If it does not.
    pub fn set_short_of_memory(&self, is_short: bool) {
        let share = match is_short {
            true => "0.00001",
            false => "0.4",
        };
        self.control(&["set_vm_memory_high_watermark", share]);
    }

    fn control(&self, arguments: &[&str]) {
        let mut command = Self::program("rabbitmqctl", &self.node, &self.directory);
        let finished = finish(command.args(arguments));
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }

    /// Makes a durable queue, and has it get what comes to an exchange with a routing key of this pattern.
    pub fn bind(&self, exchange: &str, queue: &str, pattern: &str) {
        self.run(
            &[
                "bind",
                &self.address().to_string(),
                exchange,
                queue,
                pattern,
            ],
            "",
        );
    }

    /// Removes a queue with what is in it.
    pub fn delete(&self, queue: &str) {
        self.run(&["delete", &self.address().to_string(), queue], "");
    }

    /// Publishes messages: routing keys and bodies.
    pub fn publish<'m>(
        &self,
        exchange: &str,
        messages: impl IntoIterator<Item = (&'m str, &'m str)>,
    ) {
        let lines = messages.into_iter();
        let lines = lines.map(|(key, body)| format!("{key}\t{}\n", body.replace('\n', "|")));
        let lines: String = lines.collect();
        self.run(&["publish", &self.address().to_string(), exchange], &lines);
    }

    /// Takes so many messages out of a queue, or as many as come: their routing keys and bodies.
    ///
    /// # Panics
    /// If the broker does not give any.
    pub fn consume(&self, queue: &str, count: usize) -> Vec<(String, String)> {
        let text = self.run(
            &[
                "consume",
                &self.address().to_string(),
                queue,
                &count.to_string(),
            ],
            "",
        );
        let messages = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("it is JSON"));
        messages.collect()
    }

    /// How many messages wait in a queue for somebody who takes them.
    ///
    /// # Panics
    /// If there is no such queue.
    pub fn count(&self, queue: &str) -> u64 {
        let text = self.run(&["count", &self.address().to_string(), queue], "");
        text.trim().parse().expect("it is a number")
    }

    fn run(&self, arguments: &[&str], input: &str) -> String {
        let mut command = Command::new(tools("python").expect("it was there"));
        command.args(["-c", SCRIPT]).args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("Python can be started");
        let mut stdin = child.stdin.take().expect("it was asked for");
        stdin
            .write_all(input.as_bytes())
            .expect("it reads its input");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("it is text")
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.kill();
    }
}

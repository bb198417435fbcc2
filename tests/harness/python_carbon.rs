//! Graphite's own daemons, in Python.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use crate::{Directory, Process, own_address, skip, tools};

/// A running carbon-cache or carbon-relay.
#[derive(Debug)]
pub struct PythonCarbon {
    _process: Process,
    address: Ipv4Addr,
    directory: Directory,
}

impl PythonCarbon {
    /// carbon-cache, which writes whisper files. `None`, with a message, where it is not installed.
    pub fn cache() -> Option<Self> {
        let settings = "LOG_CREATES = True\nMAX_CREATES_PER_MINUTE = inf\n";
        Self::start("carbon-cache.py", "cache", settings)
    }

    /// carbon-relay, which sends everything to `address` in a protocol that it knows: line, pickle, protobuf or udp. `None`,
    /// with a message, where it is not installed.
    pub fn relay_to(address: SocketAddr, protocol: &str) -> Option<Self> {
        let settings = format!(
            "RELAY_METHOD = consistent-hashing\nDESTINATIONS = {address}:a\nDESTINATION_PROTOCOL = {protocol}\n\
             MAX_QUEUE_SIZE = 100000\n"
        );
        Self::start("carbon-relay.py", "relay", &settings)
    }

    fn start(program: &str, section: &str, settings: &str) -> Option<Self> {
        let program = match tools(program) {
            Ok(program) => program,
            Err(why) => {
                skip(&why);
                return None;
            }
        };
        let directory = Directory::of([]);
        let (root, address) = (directory.path().display().to_string(), own_address());
        directory.write(
            "carbon.conf",
            &format!(
                "[{section}]\nSTORAGE_DIR = {root}\nLOCAL_DATA_DIR = {root}/whisper\n\
                 LINE_RECEIVER_INTERFACE = {address}\nLINE_RECEIVER_PORT = 2003\n\
                 PICKLE_RECEIVER_INTERFACE = {address}\nPICKLE_RECEIVER_PORT = 2004\n\
                 PROTOBUF_RECEIVER_INTERFACE = {address}\nPROTOBUF_RECEIVER_PORT = 2005\n\
                 UDP_RECEIVER_INTERFACE = {address}\nUDP_RECEIVER_PORT = 2003\nENABLE_UDP_LISTENER = True\n\
                 CACHE_QUERY_INTERFACE = {address}\nCACHE_QUERY_PORT = 7002\n\
                 CARBON_METRIC_INTERVAL = 0\n{settings}"
            ),
        );
        directory.write(
            "storage-schemas.conf",
            "[all]\npattern = .*\nretentions = 1s:1h\n",
        );
        let mut command = Command::new(program);
        command
            .args(["--nodaemon", "--config"])
            .arg(directory.file("carbon.conf"))
            .arg("start")
            .env("GRAPHITE_ROOT", &root);
        Some(Self {
            _process: Process::start(&mut command),
            address,
            directory,
        })
    }

    /// Where it takes lines, over TCP and UDP.
    pub fn line(&self) -> SocketAddr {
        (self.address, 2003).into()
    }

    /// Where it takes pickles.
    pub fn pickle(&self) -> SocketAddr {
        (self.address, 2004).into()
    }

    /// Where it takes protobuf.
    pub fn protobuf(&self) -> SocketAddr {
        (self.address, 2005).into()
    }

    /// Where a cache keeps a series.
    pub fn whisper_file(&self, name: &str) -> PathBuf {
        let path = format!("whisper/{}.wsp", name.replace('.', "/"));
        self.directory.file(&path)
    }
}

//! `Destination`: who gets lines, and how much may wait for it.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Size, Status};

/// Who gets lines, and how much may wait for it. Exactly one endpoint is set: carbon or file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "carbonway.io",
    version = "v1alpha1",
    kind = "Destination",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    shortname = "cwdest",
    category = "carbonway",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.programmedPods"
    ),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.carbon.address"),
    printcolumn(
        name = "File",
        type_ = "string",
        json_path = ".spec.file.path",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.carbon), has(self.file)].exists_one(set, set)")
    .message("set exactly one endpoint: carbon or file"))]
pub struct DestinationSpec {
    /// A carbon server, over TCP.
    pub carbon: Option<Carbon>,
    /// A file that lines are appended to.
    pub file: Option<File>,
    /// What may wait in memory.
    #[serde(default)]
    pub queue: Queue,
}

/// A carbon server, over TCP, in the plaintext protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Carbon {
    /// host:port, or [address]:port for IPv6. A host name is asked again at every connect.
    #[schemars(
        length(min = 3, max = 261),
        regex(pattern = r"^(\[[0-9a-fA-F:.%a-z]+\]|[^:\[\]\s/]+):[0-9]{1,5}$")
    )]
    pub address: String,
    /// How long a connect may take.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Duration,
    /// A connection that took no byte for this long is given up and made anew.
    #[serde(default = "default_write_timeout")]
    pub write_timeout: Duration,
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_write_timeout() -> Duration {
    Duration::from_secs(30)
}

/// A file that lines are appended to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// The absolute path on the relay. /dev/stdout is the relay's standard output.
    #[schemars(length(min = 2, max = 4096), regex(pattern = "^/"))]
    pub path: String,
}

/// What may wait in memory for a destination, in every relay pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Queue {
    /// The bytes that may wait; at least 64Ki.
    pub max_bytes: Size,
    /// What happens to a line for a full queue.
    pub when_full: WhenFull,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_bytes: Size::from_mib(64),
            when_full: WhenFull::DropNewest,
        }
    }
}

/// What happens to a line for a full queue. DropNewest: it is dropped and counted. Block: the connection that brought it
/// waits until there is room, and so does its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenFull {
    DropNewest,
    Block,
}

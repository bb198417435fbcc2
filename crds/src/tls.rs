//! What TLS is made of: references to Secrets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a listener speaks TLS, 1.2 or 1.3. A change of its Secrets is for new connections; those there are stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// The Secret with what the relay shows of itself: tls.crt (the certificate, then those that lead to its CA) and tls.key,
    /// as in type kubernetes.io/tls.
    pub certificate: SecretRef,
    /// The Secret with the CAs, in ca.crt, one of which must have signed what senders show of themselves. Default: they need
    /// show nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<SecretRef>,
}

/// How a server is spoken to over TLS, 1.2 or 1.3. A change of its Secrets is for new connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerTls {
    /// The Secret with the CAs, in ca.crt, one of which must have signed the server's certificate. Default: those that the
    /// relay's system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretRef>,
    /// The Secret with what the relay shows of itself to a server that asks: tls.crt and tls.key, as in type
    /// kubernetes.io/tls. Default: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<SecretRef>,
    /// The host name or IP address that the server's certificate must be for. Default: the address's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[0-9a-zA-Z_:]([-0-9a-zA-Z_.:]*[0-9a-zA-Z_:])?$")
    )]
    pub server_name: Option<String>,
}

/// A Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

//! What TLS with a server of a destination runs on.

use std::io;
use std::sync::{Arc, LazyLock};

use relay_engine::PeerTls;
use rustls::{ClientConfig, RootCertStore};
use tracing::warn;

/// Something in a destination's settings that TLS cannot run on.
#[derive(Debug, thiserror::Error)]
#[error("tls.{field}: {message}")]
pub(crate) struct Fault {
    /// Where in the endpoint's `tls`.
    pub(crate) field: &'static str,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(field: &'static str, error: impl std::error::Error) -> Self {
        let message = error.to_string();
        Self { field, message }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidInput, fault)
    }
}

/// Checks what can be checked without a server.
pub(crate) fn check(tls: &PeerTls) -> Result<(), Fault> {
    relay_tls::server_name(&tls.server_name).map_err(|error| Fault::new("serverName", error))?;
    client(Some(tls)).map(drop)
}

/// What connections are made with; without settings, those to a server whose certificate leads to a CA that the system trusts.
pub(crate) fn client(tls: Option<&PeerTls>) -> Result<Arc<ClientConfig>, Fault> {
    let authorities = match tls.and_then(|tls| tls.ca.as_ref()) {
        Some(ca) => relay_tls::authorities(ca.as_bytes())
            .map(Arc::new)
            .map_err(|error| Fault::new("ca", error))?,
        None => Arc::clone(&SYSTEM_AUTHORITIES),
    };
    let identity = tls.and_then(|tls| tls.identity.as_ref()).map(|identity| {
        relay_tls::identity(identity.certificate.as_bytes(), identity.key.as_bytes())
    });
    let identity = identity
        .transpose()
        .map_err(|error| Fault::new("certificate", error))?;
    Ok(relay_tls::connector(authorities, identity))
}

// Read once. Without any, no server is trusted whose Destination names no CA.
static SYSTEM_AUTHORITIES: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        warn!(errors = ?found.errors, "this system trusts no CA: Destinations must name theirs in tls.ca");
    }
    Arc::new(authorities)
});

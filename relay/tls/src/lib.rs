//! Certificates and keys in PEM: what TLS runs on, or what is wrong with them.
//!
//! The operator calls it before it publishes, the relay before it swaps: one definition of a usable certificate. It opens
//! nothing, and whether a certificate has expired is only asked in a handshake. Errors name the key of the Secret that
//! something came from, and never show what is in there.

#![warn(missing_docs)]

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The key of a Secret that holds a certificate, and after it those that lead to its CA.
pub const CERTIFICATE: &str = "tls.crt";

/// The key of a Secret that holds the certificate's key.
pub const KEY: &str = "tls.key";

/// The key of a Secret that holds the certificates of CAs.
pub const CA: &str = "ca.crt";

/// Something that TLS cannot run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no certificate, or something that is none.
    #[error("{0} is not a certificate in PEM")]
    NotACertificate(&'static str),
    /// There is no key that can be used.
    #[error(
        "{KEY} is not a key in PEM that can be used: it is RSA, ECDSA or Ed25519, and not encrypted"
    )]
    NotAKey,
    /// The key belongs to another certificate.
    #[error("{KEY} is not the key of the certificate in {CERTIFICATE}")]
    KeyMismatch,
}

/// A name that no certificate can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is neither a host name nor an IP address")]
pub struct NameError(String);

/// A certificate, with those that lead to its CA, and its key.
///
/// # Errors
/// The certificate or the key cannot be used, or they do not belong together.
pub fn identity(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, Error> {
    let chain = certificates(certificate, CERTIFICATE)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::NotAKey)?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|_| Error::NotAKey)?;
    let identity = CertifiedKey::new(chain, key);
    match identity.keys_match() {
        // Unknown: a key of a kind that does not tell its public half.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(identity)
        }
        Err(_) => Err(Error::KeyMismatch),
    }
}

/// When the first of these certificates is over, in seconds since 1970; `None` if there is none that can be read.
pub fn expires(certificates: &[u8]) -> Option<u64> {
    let certificates = self::certificates(certificates, CERTIFICATE).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(certificates.first()?).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

/// The CAs whose certificates these are.
///
/// # Errors
/// There is none, or one cannot be used.
pub fn authorities(certificates: &[u8]) -> Result<RootCertStore, Error> {
    let mut authorities = RootCertStore::empty();
    for certificate in self::certificates(certificates, CA)? {
        authorities
            .add(certificate)
            .map_err(|_| Error::NotACertificate(CA))?;
    }
    Ok(authorities)
}

/// A name that the other side's certificate must have.
///
/// # Errors
/// It is neither a host name nor an IP address.
pub fn server_name(name: &str) -> Result<ServerName<'static>, NameError> {
    ServerName::try_from(name.to_owned()).map_err(|_| NameError(name.to_owned()))
}

/// How connections are accepted. With `clients` they must show a certificate that one of these signed.
pub fn acceptor(identity: CertifiedKey, clients: Option<RootCertStore>) -> Arc<ServerConfig> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for every version");
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider)
                .build()
                .expect("there is at least one CA, and there are no revocation lists"),
        ),
    };
    Arc::new(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity))))
}

/// How connections are accepted that speak HTTP/2, each with the certificate that `certificate` gives then.
pub fn http2_acceptor(certificate: Arc<dyn ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for every version")
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// How connections are made to servers whose certificates lead to `servers`, showing `identity` to those that ask.
pub fn connector(servers: Arc<RootCertStore>, identity: Option<CertifiedKey>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for every version")
        .with_root_certificates(servers);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
    })
}

/// Has libraries that bring no cryptography of their own use ours. It may be called again.
pub fn share_provider() {
    // An error says that it was done before.
    ring::default_provider().install_default().ok();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

// At least one, each of which is a certificate.
fn certificates(pem: &[u8], from: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates)
            if !certificates.is_empty()
                && certificates
                    .iter()
                    .all(|certificate| ParsedCertificate::try_from(certificate).is_ok()) =>
        {
            Ok(certificates)
        }
        Ok(_) | Err(_) => Err(Error::NotACertificate(from)),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use super::*;

    fn generated() -> (String, String) {
        let Generated { cert, signing_key } =
            generate_simple_self_signed(["graphite".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    fn refusal(certificate: &str, key: &str) -> Option<Error> {
        identity(certificate.as_bytes(), key.as_bytes()).err()
    }

    #[test]
    fn a_certificate_and_its_key_belong_together() {
        let ((certificate, key), (other, other_key)) = (generated(), generated());
        assert_eq!(refusal(&certificate, &key), None);
        assert_eq!(refusal(&format!("{certificate}{other}"), &key), None);
        assert_eq!(refusal(&certificate, &other_key), Some(Error::KeyMismatch));
        assert_eq!(refusal(&other, &key), Some(Error::KeyMismatch));
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_refused() {
        let (certificate, key) = generated();
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = &certificate[..certificate.len() / 2];
        for bad in ["", "hush", &key, cut, junk, &format!("{certificate}{junk}")] {
            let error = Error::NotACertificate(CERTIFICATE);
            assert_eq!(refusal(bad, &key), Some(error), "{bad}");
            let error = authorities(bad.as_bytes()).err();
            assert_eq!(error, Some(Error::NotACertificate(CA)), "{bad}");
        }
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        for bad in ["", "hush", &certificate, &key[..key.len() / 2], &encrypted] {
            assert_eq!(refusal(&certificate, bad), Some(Error::NotAKey), "{bad}");
        }
    }

    #[test]
    fn errors_name_the_key_of_the_secret_and_not_its_content() {
        for (error, text) in [
            (
                refusal("hush", "hush"),
                "tls.crt is not a certificate in PEM",
            ),
            (
                authorities(b"hush").err(),
                "ca.crt is not a certificate in PEM",
            ),
        ] {
            assert_eq!(error.unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_are_hosts_or_addresses() {
        for name in ["graphite", "graphite-0.graphite.svc", "10.0.0.1", "::1"] {
            assert_eq!(server_name(name).unwrap().to_str(), name);
        }
        for name in ["", "a b", "a:1", "-a"] {
            assert_eq!(server_name(name), Err(NameError(name.to_owned())));
        }
    }
}

//! The operator's own certificate authority, and what it signs. No client and no clock.
//!
//! A CA signs for two thirds of its validity. Its successor is made then and shown to relays, and signs a day later, when
//! every relay has it; the old one is shown until the last certificate that it signed is over.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

const DAY: u64 = 24 * 3600;

/// How long a CA is valid, and a certificate that it signs.
const AUTHORITY_SECONDS: u64 = 365 * DAY;
const CERTIFICATE_SECONDS: u64 = 30 * DAY;

/// How long relays are shown a CA before it signs anything.
const SHOWN_SECONDS: u64 = DAY;

/// What clocks may differ by.
const SKEW_SECONDS: u64 = 3600;

/// Everything about CAs that outlives a process. Its `Debug` shows no key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Authorities {
    signing: Option<Authority>,
    next: Option<Authority>,
    retired: Vec<Retired>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Authority {
    certificate: String,
    key: String,
    // Seconds since 1970.
    made: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority(made {})", self.made)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Retired {
    certificate: String,
    // Seconds since 1970.
    until: u64,
}

/// A certificate with its key, in PEM.
pub(crate) struct Signed {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// When it is to be made anew, in seconds since 1970.
    pub(crate) renew: u64,
}

impl Authorities {
    /// Does what is due at `now`, in seconds since 1970. Returns whether that changed something.
    pub(crate) fn advance(&mut self, now: u64) -> Result<bool, rcgen::Error> {
        let before = self.clone();
        self.retired.retain(|retired| retired.until > now);
        let Some(signing) = &self.signing else {
            self.signing = Some(Authority::make(now)?);
            return Ok(true);
        };
        let is_old = now >= signing.made + AUTHORITY_SECONDS / 3 * 2;
        match &self.next {
            None if is_old => self.next = Some(Authority::make(now)?),
            Some(next) if now >= next.made + SHOWN_SECONDS => {
                self.retired.push(Retired {
                    certificate: signing.certificate.clone(),
                    until: now + CERTIFICATE_SECONDS,
                });
                self.signing = self.next.take();
            }
            None | Some(_) => {}
        }
        Ok(*self != before)
    }

    /// The certificates of all that relays are to believe, in PEM.
    pub(crate) fn bundle(&self) -> String {
        let current = self.signing.iter().chain(&self.next);
        let current = current.map(|authority| authority.certificate.as_str());
        let retired = self.retired.iter().map(|retired| &*retired.certificate);
        current.chain(retired).collect()
    }

    /// The certificate of the CA that signs.
    pub(crate) fn signing(&self) -> Option<&str> {
        self.signing.as_ref().map(|signing| &*signing.certificate)
    }

    /// A certificate for a server that goes by `names`. `None`: there is no CA yet.
    pub(crate) fn sign(&self, names: &[String], now: u64) -> Result<Option<Signed>, rcgen::Error> {
        let Some(signing) = &self.signing else {
            return Ok(None);
        };
        let key = KeyPair::from_pem(&signing.key)?;
        let issuer = Issuer::from_ca_cert_pem(&signing.certificate, key)?;
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(now.saturating_sub(SKEW_SECONDS));
        params.not_after = date(now + CERTIFICATE_SECONDS);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Some(Signed {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            renew: now + CERTIFICATE_SECONDS / 3 * 2,
        }))
    }
}

impl Authority {
    fn make(now: u64) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = Self::params(now).self_signed(&key)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            made: now,
        })
    }

    // CAs are told apart by their names first.
    fn params(made: u64) -> CertificateParams {
        let mut params = CertificateParams::default();
        let name = format!("Carbonway operator CA {made}");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date(made.saturating_sub(SKEW_SECONDS));
        params.not_after = date(made + AUTHORITY_SECONDS);
        params
    }
}

fn date(seconds: u64) -> OffsetDateTime {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_790_000_000;

    fn count(bundle: &str) -> usize {
        bundle.matches("BEGIN CERTIFICATE").count()
    }

    #[test]
    fn a_ca_is_followed_by_another_one_that_relays_know_before_it_signs() {
        let mut authorities = Authorities::default();
        assert!(authorities.advance(START).unwrap());
        assert!(!authorities.advance(START + 1).unwrap());
        let first = authorities.signing().unwrap().to_owned();
        assert_eq!(authorities.bundle(), first);

        let due = START + AUTHORITY_SECONDS / 3 * 2;
        assert!(!authorities.advance(due - 1).unwrap());
        assert!(authorities.advance(due).unwrap());
        assert_eq!(authorities.signing(), Some(&*first));
        assert_eq!(count(&authorities.bundle()), 2);
        assert!(!authorities.advance(due + SHOWN_SECONDS - 1).unwrap());

        assert!(authorities.advance(due + SHOWN_SECONDS).unwrap());
        let second = authorities.signing().unwrap().to_owned();
        assert_ne!(second, first);
        let bundle = authorities.bundle();
        assert!(bundle.contains(&second) && bundle.contains(&first));

        let over = due + SHOWN_SECONDS + CERTIFICATE_SECONDS;
        assert!(!authorities.advance(over - 1).unwrap());
        assert!(authorities.advance(over).unwrap());
        assert_eq!(authorities.bundle(), second);
    }

    #[test]
    fn what_it_signs_leads_to_it_also_after_it_was_written_down() {
        let mut authorities = Authorities::default();
        authorities.advance(START).unwrap();
        let text = serde_json::to_string(&authorities).unwrap();
        let read: Authorities = serde_json::from_str(&text).unwrap();
        assert_eq!(read, authorities);
        let names = ["operator.a.svc".to_owned()];
        let signed = read.sign(&names, START).unwrap().unwrap();
        assert!(signed.renew > START && signed.renew < START + CERTIFICATE_SECONDS);
        let (certificate, key) = (signed.certificate.as_bytes(), signed.key.as_bytes());
        relay_tls::identity(certificate, key).unwrap();
        relay_tls::authorities(read.bundle().as_bytes()).unwrap();
        assert!(!format!("{read:?}").contains("PRIVATE"));
    }
}

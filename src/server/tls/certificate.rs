//! A certificate with its key: what is served, and until when.

use std::time::{SystemTime, UNIX_EPOCH};

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A place for a certificate that can be renewed while it is served.
#[derive(Debug)]
pub(crate) struct Certificate {
    name: Box<str>,
    renewed: bool,
    held: ArcSwapOption<Held>,
}

/// A certificate with its key, and what it says.
#[derive(Debug)]
pub(crate) struct Held {
    /// For handshakes.
    pub(crate) key: Arc<CertifiedKey>,
    /// What the certificate says.
    pub(crate) leaf: Leaf,
}

/// What a certificate says.
#[derive(Debug, PartialEq)]
pub(crate) struct Leaf {
    /// The DNS names that it is for, in lower case.
    pub(crate) names: Vec<String>,
    common_name: Option<String>,
    /// The first second of its validity, since 1970.
    pub(crate) not_before: i64,
    /// The last.
    pub(crate) not_after: i64,
}

impl Certificate {
    /// One that stays as it is.
    pub(crate) fn fixed(held: Held) -> Self {
        Self { name: held.leaf.name().into(), renewed: false, held: ArcSwapOption::from_pointee(held) }
    }

    /// A place for one that somebody obtains, and renews in time.
    pub(crate) fn renewed(name: &str) -> Self {
        Self { name: name.into(), renewed: true, held: ArcSwapOption::empty() }
    }

    /// What it is called in logs and metrics.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether somebody renews it.
    pub(crate) fn is_renewed(&self) -> bool {
        self.renewed
    }

    /// What is served now.
    pub(crate) fn held(&self) -> Option<Arc<Held>> {
        self.held.load_full()
    }

    /// The key for a handshake.
    pub(crate) fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.held.load().as_ref().map(|held| held.key.clone())
    }

    /// Serves another from now on.
    pub(crate) fn install(&self, held: Held) {
        self.held.store(Some(Arc::new(held)));
    }
}

impl Held {
    /// From a private key and a chain in PEM.
    ///
    /// # Errors
    /// Why they cannot be served; never a part of the key.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("the certificates cannot be read: {error}"))?;
        let first = chain.first().ok_or("there is no certificate in it")?;
        let leaf = Leaf::read(first).ok_or("the certificate cannot be read")?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "the private key cannot be read")?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| format!("the key cannot be used with the certificate: {error}"))?;
        Ok(Self { key: Arc::new(key), leaf })
    }
}

impl Leaf {
    /// Reads a certificate in DER.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or(&[]);
        let dns = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        let names = names.iter().filter_map(dns).collect();
        let common_name = certificate.subject().iter_common_name().next();
        let common_name = common_name.and_then(|name| name.as_str().ok()).map(str::to_owned);
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Some(Self { names, common_name, not_before, not_after })
    }

    /// What it is called: its first DNS name, or the common name of its subject.
    fn name(&self) -> &str {
        self.names.first().or(self.common_name.as_ref()).map_or("", String::as_str)
    }

    /// Whether it is valid now.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn check(&self, now: i64) -> Result<(), String> {
        if now > self.not_after {
            return Err(format!("the certificate expired on {}", date(self.not_after)));
        }
        if now < self.not_before {
            return Err(format!("the certificate is not valid before {}", date(self.not_before)));
        }
        Ok(())
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A time in words (RFC 3339).
pub(crate) fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
}

#[cfg(test)]
impl Leaf {
    /// One without a name.
    pub(crate) fn lasting(not_before: i64, not_after: i64) -> Self {
        Self { names: Vec::new(), common_name: None, not_before, not_after }
    }
}

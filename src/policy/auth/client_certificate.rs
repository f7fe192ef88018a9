//! `client_certificate`: the certificate that the client's connection was made with.
//!
//! ```toml
//! [auth.mesh]
//! client_certificate = { name = "uri" }        # "cn", "dns", "email"
//!
//! [consumer.billing]
//! certificates = ["spiffe://example.com/billing"]
//! ```
//!
//! The listener verifies it, by its `tls.client_ca`. The caller is the consumer that has the name among its
//! `certificates`, and else somebody of that name: whoever the authority gives a certificate is known.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Map;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Judgement;
use super::identity::Identities;
use super::remembered::Remembered;
use crate::telemetry::metrics::policies::Reason;

/// `client_certificate` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateConfig {
    #[serde(default)]
    name: Name,
}

/// Which of its names is the caller's: the first of the kind.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Name {
    /// The common name of the subject.
    #[default]
    Cn,
    Dns,
    Email,
    Uri,
}

/// A compiled `client_certificate`.
pub(super) struct ClientCertificate {
    name: Name,
    identities: Identities,
    remembered: Remembered,
}

impl ClientCertificate {
    /// Compiles.
    pub(super) fn new(config: &CertificateConfig, identities: Identities) -> Self {
        Self { name: config.name, identities, remembered: Remembered::default() }
    }

    /// Whose certificate it is, in DER. It is verified.
    pub(super) fn judge(&self, certificate: &[u8], now: u64) -> Judgement {
        if let Some(consumer) = self.remembered.find(certificate, 0, now) {
            return Judgement::Known(consumer);
        }
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Judgement::Wrong(Reason::Malformed, "the client's certificate cannot be read");
        };
        // A connection can outlive the certificate that it was made with.
        let until = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        if now >= until {
            return Judgement::Wrong(Reason::Expired, "the client's certificate is expired");
        }
        let Some(name) = self.name.of(&parsed) else {
            return Judgement::Wrong(Reason::Claims, "the client's certificate has no such name");
        };
        let name = self.identities.consumers.with_certificate(&name).unwrap_or(name);
        match self.identities.of(Map::from_iter([("sub".to_owned(), name.into())])) {
            Ok(consumer) => {
                self.remembered.put(certificate, 0, now, until, &consumer);
                Judgement::Known(consumer)
            }
            Err(why) => Judgement::Wrong(Reason::Claims, why),
        }
    }

    /// Who somebody with these claims would be.
    pub(super) fn assume(
        &self,
        claims: Map<String, serde_json::Value>,
    ) -> Result<Arc<crate::facts::Consumer>, &'static str> {
        self.identities.of(claims)
    }
}

impl Name {
    fn of(self, certificate: &X509Certificate<'_>) -> Option<String> {
        if let Self::Cn = self {
            return certificate.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned);
        }
        let names = &certificate.subject_alternative_name().ok()??.value.general_names;
        names.iter().find_map(|name| match (self, name) {
            (Self::Dns, GeneralName::DNSName(name))
            | (Self::Email, GeneralName::RFC822Name(name))
            | (Self::Uri, GeneralName::URI(name)) => Some((*name).to_owned()),
            _ => None,
        })
    }
}

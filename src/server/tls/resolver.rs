//! Which certificate a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// Certificates by the names in them.
#[derive(Debug, Default)]
pub(super) struct ByName {
    /// Those that are obtained by ACME, which go before files once they are there.
    obtained: HashMap<String, Arc<Certificate>>,
    exact: HashMap<String, Arc<Certificate>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<Certificate>>,
    /// For clients that ask for no name or for another: the first file, then the first that was obtained.
    others: Vec<Arc<Certificate>>,
}

impl ByName {
    /// Adds a certificate of a file.
    ///
    /// # Errors
    /// The names that an earlier file answers for.
    pub(super) fn file(&mut self, certificate: &Arc<Certificate>, names: &[String]) -> Result<(), Vec<String>> {
        let mut taken = Vec::new();
        for full in names {
            let (map, name) = match full.strip_prefix("*.") {
                Some(rest) => (&mut self.wildcard, rest),
                None => (&mut self.exact, full.as_str()),
            };
            if map.insert(name.to_owned(), certificate.clone()).is_some() {
                taken.push(full.clone());
            }
        }
        self.others.push(certificate.clone());
        if taken.is_empty() { Ok(()) } else { Err(taken) }
    }

    /// Adds a certificate that is obtained.
    ///
    /// # Errors
    /// The names that an earlier one is obtained for.
    pub(super) fn obtained(&mut self, certificate: &Arc<Certificate>, names: &[String]) -> Result<(), Vec<String>> {
        let mut taken = Vec::new();
        for name in names {
            if self.obtained.insert(name.clone(), certificate.clone()).is_some() {
                taken.push(name.clone());
            }
        }
        self.others.push(certificate.clone());
        if taken.is_empty() { Ok(()) } else { Err(taken) }
    }

    fn named(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let lower;
        let name = match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => {
                lower = name.to_ascii_lowercase();
                &lower
            }
            false => name,
        };
        let obtained = self.obtained.get(name).and_then(|certificate| certificate.key());
        let exact = || self.exact.get(name)?.key();
        let wildcard = || self.wildcard.get(name.split_once('.')?.1)?.key();
        obtained.or_else(exact).or_else(wildcard)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(name));
        named.or_else(|| self.others.iter().find_map(|certificate| certificate.key()))
    }
}

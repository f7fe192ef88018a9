//! Certificates and keys in PEM files that a configuration names (RFC 7468).

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Build;
use crate::types::file;

impl Build<'_> {
    /// The certificates of a file, each checked to be readable; reports a file without any.
    pub fn certificates(&mut self, key: &str, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let path = self.path(path);
        let shown = path.display();
        let read = file::read(&path).and_then(|bytes| {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            let chain = chain.map_err(|error| format!("cannot read certificates from {shown}: {error}"))?;
            match !chain.is_empty() && chain.iter().all(|der| X509Certificate::from_der(der).is_ok()) {
                true => Ok(chain),
                false => Err(format!("{shown} holds no readable certificate in PEM form")),
            }
        });
        self.or_report(key, read)
    }

    /// The private key of a file; reports a file without one.
    pub fn private_key(&mut self, key: &str, path: &Path) -> Option<PrivateKeyDer<'static>> {
        let path = self.path(path);
        let read = file::read(&path).and_then(|bytes| {
            PrivateKeyDer::from_pem_slice(&bytes)
                .map_err(|error| format!("cannot read a private key from {}: {error}", path.display()))
        });
        self.or_report(key, read)
    }

    /// What was made, or nothing after a report of why not.
    pub fn or_report<T>(&mut self, key: &str, made: Result<T, impl Into<String>>) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(error) => {
                self.error(key, error);
                None
            }
        }
    }
}

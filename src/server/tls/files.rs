//! Certificates and keys in files, in PEM.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use super::certificate::{Held, Leaf, now};
use super::expiry;
use crate::build::Build;
use crate::types::file;

/// An entry of `certificates`.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct CertificateConfig {
    cert: PathBuf,
    key: PathBuf,
    ocsp: Option<PathBuf>,
}

/// The certificate of a file, with its key.
pub(super) fn load(config: &CertificateConfig, build: &mut Build<'_>) -> Option<Held> {
    let chain = build.certificates("cert", &config.cert);
    let key = build.private_key("key", &config.key);
    let ocsp = match &config.ocsp {
        None => Some(None),
        Some(path) => {
            let read = file::read(&build.path(path));
            build.or_report("ocsp", read).map(Some)
        }
    };
    let (chain, key, ocsp) = (chain?, key?, ocsp?);
    let leaf = check_leaf(&chain[0], build)?;
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Ok(mut certified) => {
            certified.ocsp = ocsp;
            Some(Held { key: Arc::new(certified), leaf })
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            build.error("key", "the key does not belong to the certificate");
            None
        }
        Err(error) => {
            build.error("key", format!("the key cannot be used: {error}"));
            None
        }
    }
}

/// What a certificate says that is valid now.
fn check_leaf(leaf: &CertificateDer<'_>, build: &mut Build<'_>) -> Option<Leaf> {
    let Some(leaf) = Leaf::read(leaf) else {
        build.error("cert", "the first certificate in the file cannot be read");
        return None;
    };
    if let Err(error) = leaf.check(now()) {
        build.error("cert", error);
        return None;
    }
    if let Some(near) = expiry::near(&leaf, false, now()) {
        build.warning("cert", format!("the certificate {near}"));
    }
    Some(leaf)
}

/// Who looks at the certificates of clients.
pub(super) fn client_verifier(
    path: &Path,
    optional: bool,
    provider: Arc<CryptoProvider>,
    build: &mut Build<'_>,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in build.certificates("client_ca", path)? {
        if let Err(error) = roots.add(certificate) {
            build.error("client_ca", format!("a certificate in the file cannot be a CA: {error}"));
            return None;
        }
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if optional {
        builder = builder.allow_unauthenticated();
    }
    match builder.build() {
        Ok(verifier) => Some(verifier),
        Err(error) => {
            build.error("client_ca", format!("client certificates cannot be verified with it: {error}"));
            None
        }
    }
}

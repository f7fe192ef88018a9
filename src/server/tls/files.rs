//! Certificates and keys in files, in PEM.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use super::certificate::{Held, Leaf, now};
use super::expiry;
use crate::build::Build;

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
    let chain = certificates("cert", &config.cert, build);
    let key = private_key("key", &config.key, build);
    let ocsp = match &config.ocsp {
        None => Some(None),
        Some(path) => match std::fs::read(build.path(path)) {
            Ok(bytes) => Some(Some(bytes)),
            Err(error) => {
                build.error("ocsp", format!("cannot read {}: {error}", build.path(path).display()));
                None
            }
        },
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
    for certificate in certificates("client_ca", path, build)? {
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

fn certificates(key: &str, path: &Path, build: &mut Build<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let path = build.path(path);
    let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if !chain.is_empty() => Some(chain),
        Ok(_) => {
            build.error(key, format!("{} holds no certificate in PEM form", path.display()));
            None
        }
        Err(error) => {
            build.error(key, format!("cannot read certificates from {}: {error}", path.display()));
            None
        }
    }
}

fn private_key(key: &str, path: &Path, build: &mut Build<'_>) -> Option<PrivateKeyDer<'static>> {
    let path = build.path(path);
    match PrivateKeyDer::from_pem_file(&path) {
        Ok(private) => Some(private),
        Err(error) => {
            build.error(key, format!("cannot read a private key from {}: {error}", path.display()));
            None
        }
    }
}

//! TLS towards clients, by rustls: several certificates chosen by server name, TLS 1.2 and 1.3, resumption,
//! stapled OCSP responses, client certificates.
//!
//! ```toml
//! [listen.public]
//! address = "0.0.0.0:443"
//! tls = { certificates = [{ cert = "api.pem", key = "api.key" }, { cert = "w.pem", key = "w.key" }], min_version = "1.3" }
//! ```
//!
//! A certificate answers for the DNS names in it, `*.example.com` for one label. A client that asks for another
//! name, or for none, gets the first certificate.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::build::Build;

/// `tls` of a listener.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    certificates: Vec<CertificateConfig>,
    client_ca: Option<PathBuf>,
    client_auth: Option<ClientAuth>,
    #[serde(default)]
    min_version: MinVersion,
    #[serde(default)]
    acme: Option<bool>,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct CertificateConfig {
    cert: PathBuf,
    key: PathBuf,
    ocsp: Option<PathBuf>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
enum ClientAuth {
    Required,
    Optional,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Debug, Default)]
enum MinVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Compiles a listener's TLS; `None` after reporting what is wrong.
pub fn compile(config: &TlsConfig, http2: bool, build: &mut Build<'_>) -> Option<Arc<ServerConfig>> {
    if config.acme.is_some() {
        build.error("acme", "`acme` is not available in this version");
        return None;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let resolver = resolver(&config.certificates, build);
    let verifier = match &config.client_ca {
        None if config.client_auth.is_some() => {
            build
                .error(
                    "client_auth",
                    "`client_auth` says nothing without a `client_ca`: no client is asked for a certificate",
                )
                .help("add `client_ca` with the authorities whose clients are let in, or leave `client_auth` out");
            None
        }
        None => Some(WebPkiClientVerifier::no_client_auth()),
        Some(path) => {
            let auth = config.client_auth.unwrap_or(ClientAuth::Required);
            client_verifier(path, auth, provider.clone(), build)
        }
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match config.min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let (resolver, verifier) = (resolver?, verifier?);
    let builder = match ServerConfig::builder_with_provider(provider).with_protocol_versions(versions) {
        Ok(builder) => builder,
        Err(error) => {
            build.error("", format!("TLS cannot be set up: {error}"));
            return None;
        }
    };
    let mut server = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(resolver));
    server.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    match aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => server.ticketer = ticketer,
        Err(error) => drop(build.error("", format!("TLS tickets cannot be set up: {error}"))),
    }
    server.send_tls13_tickets = 1;
    Some(Arc::new(server))
}

/// Certificates by the names in them.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else { return Some(self.default.clone()) };
        let lower;
        let name = match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => {
                lower = name.to_ascii_lowercase();
                &lower
            }
            false => name,
        };
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        Some(self.exact.get(name).or_else(wildcard).unwrap_or(&self.default).clone())
    }
}

fn resolver(configs: &[CertificateConfig], build: &mut Build<'_>) -> Option<ByName> {
    if configs.is_empty() {
        build
            .error("certificates", "TLS needs a certificate")
            .help("certificates = [{ cert = \"a.pem\", key = \"a.key\" }]");
        return None;
    }
    let mut exact: HashMap<String, Arc<CertifiedKey>> = HashMap::new();
    let mut wildcard: HashMap<String, Arc<CertifiedKey>> = HashMap::new();
    let mut default = None;
    let mut whole = true;
    for (i, config) in configs.iter().enumerate() {
        let loaded = build.within(&format!("certificates[{i}]"), |build| load(config, build));
        let Some((key, names)) = loaded else {
            whole = false;
            continue;
        };
        let key = Arc::new(key);
        default.get_or_insert(key.clone());
        for name in names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(rest) => (&mut wildcard, rest.to_owned()),
                None => (&mut exact, name),
            };
            if map.contains_key(&name) {
                build.error(
                    &format!("certificates[{i}].cert"),
                    format!("an earlier certificate already answers for `{name}`"),
                );
                whole = false;
            }
            map.insert(name, key.clone());
        }
    }
    whole.then_some(ByName { exact, wildcard, default: default? })
}

/// A certificate with its key, and the names in it.
fn load(config: &CertificateConfig, build: &mut Build<'_>) -> Option<(CertifiedKey, Vec<String>)> {
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
    let names = check_leaf(&chain[0], build)?;
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Ok(mut certified) => {
            certified.ocsp = ocsp;
            Some((certified, names))
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

/// The DNS names of a certificate that is valid now.
fn check_leaf(leaf: &CertificateDer<'_>, build: &mut Build<'_>) -> Option<Vec<String>> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        build.error("cert", "the first certificate in the file cannot be read");
        return None;
    };
    let validity = certificate.validity();
    let now = x509_parser::time::ASN1Time::now();
    if now > validity.not_after {
        build.error("cert", format!("the certificate expired on {}", validity.not_after));
        return None;
    }
    if now < validity.not_before {
        build.error("cert", format!("the certificate is not valid before {}", validity.not_before));
        return None;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or(&[]);
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Some(names.iter().filter_map(dns).collect())
}

fn client_verifier(
    path: &std::path::Path,
    auth: ClientAuth,
    provider: Arc<rustls::crypto::CryptoProvider>,
    build: &mut Build<'_>,
) -> Option<Arc<dyn rustls::server::danger::ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", path, build)? {
        if let Err(error) = roots.add(certificate) {
            build.error("client_ca", format!("a certificate in the file cannot be a CA: {error}"));
            return None;
        }
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if auth == ClientAuth::Optional {
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

fn certificates(key: &str, path: &std::path::Path, build: &mut Build<'_>) -> Option<Vec<CertificateDer<'static>>> {
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

fn private_key(key: &str, path: &std::path::Path, build: &mut Build<'_>) -> Option<PrivateKeyDer<'static>> {
    let path = build.path(path);
    match PrivateKeyDer::from_pem_file(&path) {
        Ok(private) => Some(private),
        Err(error) => {
            build.error(key, format!("cannot read a private key from {}: {error}", path.display()));
            None
        }
    }
}

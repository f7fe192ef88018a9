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
//! name, or for none, gets the first certificate. Certificates of [`acme`](super::acme) go before those of files as
//! soon as they are there; where there is no certificate at all, the handshake fails.

mod certificate;
pub(crate) mod expiry;
mod files;
mod resolver;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use super::acme::{ALPN, Acme, AcmeConfig, Managed};
use crate::build::Build;
use files::CertificateConfig;
use resolver::ByName;

pub(crate) use certificate::{Certificate, Held, Leaf, date, now};

/// A listener's TLS.
pub struct Tls {
    config: Arc<ServerConfig>,
    /// For the CA that checks a TLS-ALPN-01 challenge.
    challenges: Option<Arc<ServerConfig>>,
    certificates: Vec<Arc<Certificate>>,
    managed: Vec<Arc<Managed>>,
}

impl Tls {
    /// Shakes hands; `None` when it was with a CA that has seen what it came for.
    ///
    /// # Errors
    /// The handshake failed.
    pub(super) async fn accept<IO>(&self, io: IO) -> io::Result<Option<TlsStream<IO>>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(challenges) = &self.challenges else {
            return TlsAcceptor::from(self.config.clone()).accept(io).await.map(Some);
        };
        let begun = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io).await?;
        // RFC 8737, section 3: this protocol and no other.
        let is_challenge = begun
            .client_hello()
            .alpn()
            .is_some_and(|mut offered| offered.next() == Some(ALPN) && offered.next().is_none());
        if !is_challenge {
            return begun.into_stream(self.config.clone()).await.map(Some);
        }
        begun.into_stream(challenges.clone()).await?.shutdown().await?;
        Ok(None)
    }

    /// Every certificate that it may serve.
    pub(crate) fn certificates(&self) -> &[Arc<Certificate>] {
        &self.certificates
    }

    /// Those that are obtained by ACME.
    pub(crate) fn managed(&self) -> &[Arc<Managed>] {
        &self.managed
    }
}

/// `tls` of a listener.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    #[serde(default)]
    certificates: Vec<CertificateConfig>,
    client_ca: Option<PathBuf>,
    client_auth: Option<ClientAuth>,
    #[serde(default)]
    min_version: MinVersion,
    #[serde(default)]
    acme: AcmeConfig,
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
pub fn compile(config: &TlsConfig, http2: bool, acme: &Acme, build: &mut Build<'_>) -> Option<Arc<Tls>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let served = served(config, acme, build);
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
            let optional = config.client_auth == Some(ClientAuth::Optional);
            files::client_verifier(path, optional, provider.clone(), build)
        }
    };
    let versions: &[&rustls::SupportedProtocolVersion] = match config.min_version {
        MinVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        MinVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let (served, verifier) = (served?, verifier?);
    let builder = match ServerConfig::builder_with_provider(provider).with_protocol_versions(versions) {
        Ok(builder) => builder,
        Err(error) => {
            build.error("", format!("TLS cannot be set up: {error}"));
            return None;
        }
    };
    let mut server = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(served.resolver));
    server.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    match aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => server.ticketer = ticketer,
        Err(error) => drop(build.error("", format!("TLS tickets cannot be set up: {error}"))),
    }
    server.send_tls13_tickets = 1;
    let challenges = served.managed.iter().any(|managed| managed.is_checked_by_tls()).then(|| acme.challenges());
    let Served { certificates, managed, .. } = served;
    Some(Arc::new(Tls { config: Arc::new(server), challenges, certificates, managed }))
}

/// The certificates of a listener.
#[derive(Default)]
struct Served {
    resolver: ByName,
    certificates: Vec<Arc<Certificate>>,
    managed: Vec<Arc<Managed>>,
}

fn served(config: &TlsConfig, acme: &Acme, build: &mut Build<'_>) -> Option<Served> {
    if config.certificates.is_empty() && config.acme.is_empty() {
        build
            .error("certificates", "TLS needs a certificate")
            .help("certificates = [{ cert = \"a.pem\", key = \"a.key\" }], or acme to have one obtained");
        return None;
    }
    let before = build.errors();
    let mut served = Served::default();
    for (i, config) in config.certificates.iter().enumerate() {
        let Some(held) = build.within(&format!("certificates[{i}]"), |build| files::load(config, build)) else {
            continue;
        };
        let names = held.leaf.names.clone();
        let certificate = Arc::new(Certificate::fixed(held));
        for name in served.resolver.file(&certificate, &names).err().into_iter().flatten() {
            let message = format!("an earlier certificate already answers for `{name}`");
            build.error(&format!("certificates[{i}].cert"), message);
        }
        served.certificates.push(certificate);
    }
    for (at, managed) in config.acme.compile(acme, build) {
        for name in served.resolver.obtained(managed.certificate(), managed.names()).err().into_iter().flatten() {
            build.error(&at, format!("an earlier certificate is already obtained for `{name}`"));
        }
        served.certificates.push(managed.certificate().clone());
        served.managed.push(managed);
    }
    (build.errors() == before).then_some(served)
}

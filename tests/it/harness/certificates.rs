//! A certificate authority for one test.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A certificate authority that nobody else knows.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate in PEM.
    pub cert: String,
    /// The private key in PEM.
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("an authority can sign itself") }
    }

    /// The authority's own certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for names or addresses, as a server or as a client.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_for(names, Duration::from_secs(365 * 24 * 3600), Duration::from_secs(365 * 24 * 3600))
    }

    /// One that is `old` already, and expires after `left`.
    pub fn issue_for(&self, names: &[&str], old: Duration, left: Duration) -> Identity {
        self.issue_between(names, SystemTime::now() - old, SystemTime::now() + left)
    }

    /// One that is valid between these times.
    pub fn issue_between(&self, names: &[&str], from: SystemTime, until: SystemTime) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("the names are valid");
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        params.not_before = from.into();
        params.not_after = until.into();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key can be made");
        let cert = params.signed_by(&key, &self.issuer).expect("the authority can sign");
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A client that trusts this authority and nobody else.
    pub fn client(&self, alpn: &[&str]) -> ClientConfig {
        self.client_of(alpn, rustls::ALL_VERSIONS, None)
    }

    /// As [`Self::client`], with the versions of TLS and the client's own certificate chosen.
    pub fn client_of(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the provider knows the versions")
            .with_root_certificates(self.roots());
        let mut config = match identity {
            Some(identity) => {
                builder.with_client_auth_cert(identity.chain(), identity.private_key()).expect("the key fits")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// A server with a certificate of this authority; with `demand`, clients need one too.
    pub fn server(&self, names: &[&str], alpn: &[&str], demand: bool) -> ServerConfig {
        let identity = self.issue(names);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions");
        let builder = if demand {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
            builder.with_client_cert_verifier(verifier.build().expect("there is a root"))
        } else {
            builder.with_no_client_auth()
        };
        let mut config =
            builder.with_single_cert(identity.chain(), identity.private_key()).expect("the key fits the certificate");
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config
    }

    /// The authority as all that is trusted.
    pub fn roots(&self) -> RootCertStore {
        roots(&self.pem())
    }
}

/// A client that trusts an authority, in PEM, and nobody else.
pub fn client_trusting(pem: &str, alpn: &[&str]) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(rustls::ALL_VERSIONS);
    let builder = builder.expect("the provider knows the versions");
    let mut config = builder.with_root_certificates(roots(pem)).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(pem.as_bytes()).expect("this is a certificate in PEM");
    roots.add(authority).expect("the authority's certificate is a root");
    roots
}

impl Identity {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("we wrote this PEM")]
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("we wrote this PEM")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

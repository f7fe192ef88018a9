//! TLS-ALPN-01 (RFC 8737): a CA that offers the protocol `acme-tls/1` and no other gets a certificate that says what
//! the CA wants to see. The connection ends with the handshake.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivatePkcs8KeyDer;

/// The protocol by which a CA asks.
pub(in crate::server) const ALPN: &[u8] = b"acme-tls/1";

/// The challenges that are pending, by name.
#[derive(Debug, Default)]
pub(super) struct TlsAlpn01 {
    answers: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

/// A challenge that is answered for as long as this lives.
#[must_use]
pub(super) struct Pending {
    challenges: Arc<TlsAlpn01>,
    name: String,
    answer: Arc<CertifiedKey>,
}

impl TlsAlpn01 {
    /// Answers a challenge for a name; `digest` is that of the key authorization.
    pub(super) fn offer(self: &Arc<Self>, name: &str, digest: &[u8]) -> Result<Pending, String> {
        let answer = Arc::new(certificate(name, digest)?);
        self.answers.lock().insert(name.to_owned(), answer.clone());
        Ok(Pending { challenges: self.clone(), name: name.to_owned(), answer })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut answers = self.challenges.answers.lock();
        // Another certificate for the same name may have a challenge of its own by now.
        if answers.get(&self.name).is_some_and(|answer| Arc::ptr_eq(answer, &self.answer)) {
            answers.remove(&self.name);
        }
    }
}

impl ResolvesServerCert for TlsAlpn01 {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.answers.lock().get(&hello.server_name()?.to_ascii_lowercase()).cloned()
    }
}

/// What is spoken to a CA, apart from what clients are asked for: it shows no certificate of its own.
pub(super) fn server(challenges: &Arc<TlsAlpn01>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("the provider has TLS 1.2 and 1.3");
    let mut config = builder.with_no_client_auth().with_cert_resolver(challenges.clone());
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// Self-signed, with the digest in its extension (RFC 8737, section 3).
fn certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, String> {
    if digest.len() != 32 {
        return Err("the digest of a key authorization has 32 bytes".to_owned());
    }
    let made = || -> Result<_, rcgen::Error> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        Ok((params.self_signed(&key)?, key))
    };
    let (certificate, key) = made().map_err(|error| error.to_string())?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    // Not by `CertifiedKey::from_der`, which refuses a certificate with a critical extension that it does not know.
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_lives_as_long_as_it_is_pending() {
        let challenges = Arc::new(TlsAlpn01::default());
        let first = challenges.offer("a.test", &[1; 32]).unwrap();
        let second = challenges.offer("a.test", &[2; 32]).unwrap();
        drop(first);
        assert!(Arc::ptr_eq(&challenges.answers.lock()["a.test"], &second.answer));
        drop(second);
        assert!(challenges.answers.lock().is_empty());
    }
}

//! How a pool's servers are connected to: one template, from which every server gets its peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::{Address, Long, Protocol, TlsConfig};
use crate::build::Build;

/// What the peers of one pool have in common.
pub(super) struct Template {
    tls: bool,
    sni: Option<String>,
    client: Option<Arc<CertKey>>,
    /// Keeps connections from being shared with pools that trust others: every compiled pool has its own.
    group: u64,
    options: PeerOptions,
}

static GROUPS: AtomicU64 = AtomicU64::new(0);

impl Template {
    pub fn compile(config: &Long, build: &mut Build<'_>) -> Option<Self> {
        let mut options = PeerOptions::new();
        options.connection_timeout = Some(config.timeouts.connect.into());
        options.total_connection_timeout = Some(config.timeouts.connect.into());
        options.read_timeout = Some(config.timeouts.first_byte.into());
        options.write_timeout = Some(config.timeouts.first_byte.into());
        options.idle_timeout = Some(config.keepalive.idle.into());
        options.max_h2_streams = 100;
        options.h2_ping_interval = Some(Duration::from_secs(30));
        options.alpn = match config.protocol {
            Protocol::H1 => ALPN::H1,
            Protocol::H2 | Protocol::H2c => ALPN::H2,
        };
        let group = GROUPS.fetch_add(1, Ordering::Relaxed);
        let mut template = Self { tls: config.tls.is_some(), sni: None, client: None, group, options };
        match (config.protocol, &config.tls) {
            (Protocol::H2, None) => {
                build
                    .error("protocol", "`h2` is HTTP/2 over TLS")
                    .help("add `tls = {}`, or write \"h2c\" for HTTP/2 without TLS");
                None
            }
            (Protocol::H2c, Some(_)) => {
                build.error("protocol", "`h2c` is HTTP/2 without TLS").help("remove `tls`, or write \"h2\"");
                None
            }
            (_, None) => Some(template),
            (_, Some(tls)) => build.within("tls", |build| template.tls(tls, config, build)).then_some(template),
        }
    }

    /// A server's peer. The name that the certificate is checked against is `sni`, or the server's own.
    pub fn peer(&self, address: &Address, written: &Address) -> Option<HttpPeer> {
        let name = match (&self.sni, written) {
            (Some(sni), _) => sni.clone(),
            (None, Address::Name(host, _)) => host.clone(),
            (None, Address::Inet(address)) => address.ip().to_string(),
            (None, Address::Unix(_)) => String::new(),
        };
        let sni = if self.tls { name } else { String::new() };
        let mut peer = match address {
            Address::Inet(address) => HttpPeer::new(*address, self.tls, sni),
            Address::Unix(path) => HttpPeer::new_uds(path.to_str()?, self.tls, sni).ok()?,
            Address::Name(..) => return None,
        };
        peer.options = self.options.clone();
        peer.group_key = self.group;
        peer.client_cert_key = self.client.clone();
        Some(peer)
    }

    fn tls(&mut self, tls: &TlsConfig, config: &Long, build: &mut Build<'_>) -> bool {
        let before = build.errors();
        self.sni = tls.sni.clone();
        if tls.verify.is_some() {
            build
                .error("verify", "certificates are always verified")
                .help("to trust anyone who answers, say so in full: insecure_skip_verify = true");
        }
        if tls.insecure_skip_verify {
            build.warning("insecure_skip_verify", "anyone who can answer at the address is trusted");
            self.options.verify_cert = false;
            self.options.verify_hostname = false;
        } else if tls.sni.is_none() && config.servers.iter().any(|s| matches!(s.address, Address::Unix(_))) {
            build.error("", "a server at a Unix socket has no name to verify").help("give `sni`");
        }
        if let Some(path) = &tls.ca
            && let Some(certificates) = build.certificates("ca", path)
        {
            let wrapped: Vec<WrappedX509> =
                certificates.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect();
            self.options.ca = Some(Arc::<CaType>::from(wrapped));
        }
        match (&tls.cert, &tls.key) {
            (None, None) => {}
            (Some(cert), Some(key)) => {
                if let (Some(chain), Some(key)) = (build.certificates("cert", cert), build.private_key("key", key)) {
                    self.client_certificate(chain, key, build);
                }
            }
            (Some(_), None) => drop(build.error("cert", "the certificate needs its `key`")),
            (None, Some(_)) => drop(build.error("key", "the key needs its `cert`")),
        }
        build.errors() == before
    }

    fn client_certificate(
        &mut self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        build: &mut Build<'_>,
    ) {
        let der = chain.iter().map(|der| der.to_vec()).collect();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        match rustls::sign::CertifiedKey::from_der(chain, key.clone_key(), &provider) {
            Ok(_) => self.client = Some(Arc::new(CertKey::new(der, key.secret_der().to_vec()))),
            Err(rustls::Error::InconsistentKeys(_)) => {
                build.error("key", "the key does not belong to the certificate");
            }
            Err(error) => drop(build.error("key", format!("the key cannot be used: {error}"))),
        }
    }
}

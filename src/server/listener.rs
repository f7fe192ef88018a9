//! `[listen.NAME]`: where clients connect, and what they may do there.
//!
//! ```toml
//! [listen.public]
//! address   = "0.0.0.0:8080"                      # or "unix:/run/portcullis/public.sock"
//! client_ip = { header = "X-Forwarded-For", trust = ["10.0.0.0/8"] }
//! max_connections = 20000
//! limits    = { max_headers = 100, max_header_size = "32KiB", max_uri = "8KiB", max_body = "10MiB" }
//! timeouts  = { tls_handshake = "10s", head = "15s", idle = "60s", body = "60s", stream_idle = "1h" }
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderName;
use serde::Deserialize;

use super::acme::{Acme, Managed, hide_secrets};
use super::tls::{self, Tls, TlsConfig};
use crate::admin::Access;
use crate::build::{Build, Node, Table};
use crate::facts::{ClientIp, Limits, Listener, Timeouts};
use crate::telemetry::metrics::traffic::Meter;
use crate::types::{Cidr, Secret, SecretText, Size, Timespan};

/// A listener as it is to be bound.
#[derive(Clone)]
pub struct ListenerSpec {
    /// Where.
    pub address: Address,
    /// What requests ask for.
    pub facts: Arc<Listener>,
    /// TLS, if it has it.
    pub tls: Option<Arc<Tls>>,
    /// The peers that speak the PROXY protocol.
    pub proxy_protocol: Option<Vec<Cidr>>,
    /// How many connections may be open at once, over all workers.
    pub max_connections: usize,
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Inet(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenConfig {
    address: String,
    tls: Option<TlsConfig>,
    #[serde(default = "yes")]
    http2: bool,
    proxy_protocol: Option<ProxyProtocolConfig>,
    client_ip: Option<ClientIpConfig>,
    max_connections: Option<u32>,
    #[serde(default)]
    limits: LimitsConfig,
    #[serde(default)]
    timeouts: TimeoutsConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProxyProtocolConfig {
    trust: Vec<Cidr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientIpConfig {
    header: String,
    trust: Vec<Cidr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsConfig {
    max_headers: Option<u16>,
    max_header_size: Option<Size>,
    max_uri: Option<Size>,
    max_body: Option<Size>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct TimeoutsConfig {
    tls_handshake: Option<Timespan>,
    head: Option<Timespan>,
    idle: Option<Timespan>,
    body: Option<Timespan>,
    stream_idle: Option<Timespan>,
}

const DEFAULT_CONNECTIONS: u32 = 20_000;

fn yes() -> bool {
    true
}

/// Compiles every `[listen.NAME]`; `None` after every mistake in them was reported. `acme` has the
/// certificates that they name to be obtained.
pub fn compile(acme: &Acme, meter: &Meter, build: &mut Build<'_>) -> Option<Vec<Arc<ListenerSpec>>> {
    let before = build.errors();
    let mut specs: Vec<Arc<ListenerSpec>> = Vec::new();
    for (name, entry) in build.node().get("listen").and_then(Node::table).into_iter().flat_map(Table::iter) {
        let made_of = build.fingerprint(&entry.node, &["cert", "key", "ocsp", "client_ca", "ca", "file"]);
        hide_secrets(&entry.node, build);
        let make = |build: &mut Build<'_>| build.keep(name, made_of, |build| listener(name, acme, meter, build));
        if let Some(spec) = build.within_node(&entry.node, make) {
            let same = |other: &&Arc<ListenerSpec>| other.address == spec.address;
            let taken = specs.iter().find(same).filter(|_| !spec.address.is_any_port());
            if let Some(other) = taken {
                let message = format!("the listener `{}` already has this address", other.facts.name);
                build.within_node(&entry.node, |build| {
                    build.error("address", message);
                });
            }
            specs.push(spec);
        }
    }
    if specs.is_empty() && build.errors() == before {
        build.error("", "there is no listener, so nobody can connect").help("add [listen.public] with an address");
    }
    if build.errors() == before {
        check_acme(&specs, build);
    }
    (build.errors() == before).then_some(specs)
}

/// What no listener knows alone of the certificates that are obtained.
fn check_acme(specs: &[Arc<ListenerSpec>], build: &mut Build<'_>) {
    let answered = specs.iter().any(|spec| spec.facts.challenges.is_some());
    let mut before: Vec<&Arc<Managed>> = Vec::new();
    for spec in specs {
        let managed = spec.tls.as_ref().map_or(&[][..], |tls| tls.managed());
        let mut report = |message: String, help: &str| {
            let node = build.node().get("listen").and_then(|listeners| listeners.get(&spec.facts.name));
            if let Some(node) = node {
                build.within_node(node, |build| {
                    build.error("tls.acme", message).help(help);
                });
            }
        };
        if !answered && managed.iter().any(|managed| !managed.is_checked_by_tls()) {
            let message = "the challenge `http-01` is answered by listeners without TLS, and there is none";
            report(message.to_owned(), "add one at port 80, or write challenge = \"tls-alpn-01\"");
        }
        for own in managed {
            if before.iter().any(|other| own.is_at_odds_with(other)) {
                let names = own.names().join(", ");
                let message = format!("another listener has the certificate for {names} obtained with other settings");
                report(message, "a certificate is obtained once: write the same for both");
            }
        }
        before.extend(managed);
    }
}

fn listener(name: &str, acme: &Acme, meter: &Meter, build: &mut Build<'_>) -> Option<ListenerSpec> {
    let config: ListenConfig = build.deserialize()?;
    let address = match config.address.parse() {
        Ok(address) => Some(address),
        Err(error) => {
            build.error("address", error);
            None
        }
    };
    let tls = match &config.tls {
        None => Some(None),
        Some(tls) => build.within("tls", |build| tls::compile(tls, config.http2, acme, build)).map(Some),
    };
    let client_ip = match config.client_ip {
        None => Some(None),
        Some(client_ip) => client_ip_facts(client_ip, build).map(Some),
    };
    if config.max_connections == Some(0) {
        build.error("max_connections", "with no connection allowed nobody could be served");
    }
    let limits = &config.limits;
    let defaults = Limits::default();
    let size = |size: Option<Size>, default: usize| size.map_or(default, Size::as_usize);
    let facts_limits = Limits {
        max_headers: limits.max_headers.map_or(defaults.max_headers, usize::from),
        max_header_size: size(limits.max_header_size, defaults.max_header_size),
        max_uri: size(limits.max_uri, defaults.max_uri),
        max_body: limits.max_body.map(|size| size.0),
    };
    if facts_limits.max_header_size > 1 << 20 {
        build.error("limits.max_header_size", "more than 1MiB of headers cannot be taken");
    }
    if facts_limits.max_headers > 256 {
        build.error("limits.max_headers", "more than 256 header fields cannot be taken");
    }
    let timeouts = &config.timeouts;
    let defaults = Timeouts::default();
    let timeouts = Timeouts {
        tls_handshake: timeouts.tls_handshake.map_or(defaults.tls_handshake, Into::into),
        head: timeouts.head.map_or(defaults.head, Into::into),
        idle: timeouts.idle.map_or(defaults.idle, Into::into),
        body: timeouts.body.map_or(defaults.body, Into::into),
        stream_idle: timeouts.stream_idle.map_or(defaults.stream_idle, Into::into),
    };
    Some(ListenerSpec {
        address: address?,
        facts: Arc::new(Listener {
            name: name.into(),
            client_ip: client_ip?,
            limits: facts_limits,
            timeouts,
            http2: config.http2,
            challenges: config.tls.is_none().then(|| acme.http01()),
            counts: Some(meter.listener(name)),
        }),
        tls: tls?,
        proxy_protocol: config.proxy_protocol.map(|config| config.trust),
        max_connections: config.max_connections.unwrap_or(DEFAULT_CONNECTIONS) as usize,
    })
}

fn client_ip_facts(config: ClientIpConfig, build: &mut Build<'_>) -> Option<ClientIp> {
    let header = match config.header.to_ascii_lowercase().as_str() {
        "x-forwarded-for" => HeaderName::from_static("x-forwarded-for"),
        "forwarded" => http::header::FORWARDED,
        _ => {
            build.error("client_ip.header", "the client's address is taken from `X-Forwarded-For` or `Forwarded`");
            return None;
        }
    };
    Some(ClientIp { header, trust: config.trust })
}

impl Address {
    fn is_any_port(&self) -> bool {
        matches!(self, Self::Inet(address) if address.port() == 0)
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                1..=107 => Ok(Self::Unix(path.into())),
                _ => Err("the path of a Unix socket has 1 to 107 bytes".to_owned()),
            };
        }
        text.parse().map(Self::Inet).map_err(|_| {
            format!("`{text}` is not an address to listen on: write \"0.0.0.0:8080\", \"[::]:8080\" or \"unix:/path\"")
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminConfig {
    address: String,
    token: Option<Secret>,
}

/// The admin interface as it is to be bound.
pub struct AdminSpec {
    /// Where.
    pub listener: Arc<ListenerSpec>,
    /// Who may ask.
    pub access: Access,
}

/// The name of its listener.
const ADMIN: &str = "admin";
/// A token with fewer characters can be guessed.
const SHORT_TOKEN: usize = 16;

/// Compiles `[admin]`: `Some(None)` when there is none, `None` after a mistake in it was reported.
pub fn compile_admin(build: &mut Build<'_>) -> Option<Option<AdminSpec>> {
    let Some(node) = build.node().get("admin") else { return Some(None) };
    build.within_node(node, |build| {
        let given = node.get("token").is_none_or(|token| token_is_a_source(token, build));
        let config: AdminConfig = if given { build.deserialize()? } else { return None };
        // What is wrong with the address is reported together with what is wrong with the token.
        let before = build.errors();
        let token = config.token.and_then(|secret| token(&secret, build));
        let address = match config.address.parse::<Address>() {
            Ok(address) => address,
            Err(error) => {
                build.error("address", error);
                return None;
            }
        };
        if let Address::Inet(inet) = &address
            && !inet.ip().is_loopback()
        {
            build
                .error("address", "the admin interface listens on a loopback address or a Unix socket only")
                .help("write \"127.0.0.1:9900\" or \"unix:/run/portcullis/admin.sock\"");
            return None;
        }
        if build.errors() > before {
            return None;
        }
        let access = match &address {
            Address::Inet(_) => Access::tcp(ADMIN, token),
            Address::Unix(_) => Access::unix(token),
        };
        Some(Some(AdminSpec { listener: Arc::new(ListenerSpec::plain(ADMIN, address, false)), access }))
    })
}

/// Hides a token that is written in the file from all reports; gives whether it can be a token at all.
fn token_is_a_source(token: &Node, build: &mut Build<'_>) -> bool {
    let sources = ["env", "file", "credential"];
    let names = |table: &Table| table.keys().all(|key| sources.contains(&key.as_str()));
    if token.table().is_some_and(names) {
        return true;
    }
    build.hide("token");
    if token.str().is_none() {
        // The deserializer would say what it found.
        build
            .error("token", "a token is text in quotes, or a table that says where it is")
            .help("write { env = \"NAME\" }, { file = \"path\" } or { credential = \"name\" }");
        return false;
    }
    true
}

fn token(secret: &Secret, build: &mut Build<'_>) -> Option<SecretText> {
    let token = build.secret("token", secret)?;
    let text = token.expose();
    if text.is_empty() {
        build.error("token", "an empty token would protect nothing");
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        build.error("token", "a token has letters, digits and signs of ASCII only, and no white space");
        return None;
    }
    if text.len() < SHORT_TOKEN {
        build
            .warning("token", format!("the token has fewer than {SHORT_TOKEN} characters"))
            .help("make one that cannot be guessed: openssl rand -hex 32");
    }
    Some(token)
}

impl ListenerSpec {
    /// Whether a socket that was bound for a listener of this address and name is the one for this listener.
    pub(super) fn is_at(&self, address: &Address, name: &str) -> bool {
        self.address == *address && (!address.is_any_port() || *self.facts.name == *name)
    }

    /// A listener without TLS and with every other default.
    pub fn plain(name: &str, address: Address, http2: bool) -> Self {
        let facts = Listener {
            name: name.into(),
            client_ip: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            http2,
            challenges: None,
            counts: None,
        };
        Self { address, facts: Arc::new(facts), tls: None, proxy_protocol: None, max_connections: 1000 }
    }
}

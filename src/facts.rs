//! What is known of a connection and of a request, as typed fields that every part reads by name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::types::Cidr;

/// What is known of the client's connection: made once by the server, shared by the requests on it.
#[derive(Debug)]
pub struct Connection {
    /// Who connected: the socket's peer, or what the PROXY protocol says. `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that was connected to. `None` on a Unix socket.
    pub local: Option<SocketAddr>,
    /// The listener that accepted it.
    pub listener: Arc<Listener>,
    /// TLS, if the connection has it.
    pub tls: Option<Tls>,
}

/// The TLS side of a connection.
#[derive(Debug)]
pub struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, in the IANA name.
    pub cipher: &'static str,
    /// The server name that the client asked for (RFC 6066, section 3).
    pub sni: Option<Box<str>>,
    /// The client's own certificate, in DER, once verified.
    pub client_certificate: Option<Vec<u8>>,
}

/// The part of a `[listen.NAME]` table that requests ask for.
#[derive(Debug)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// Whose word on the client's address counts.
    pub client_ip: Option<ClientIp>,
    /// How large a request may be.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
}

/// Where the client's address comes from when proxies stand in front.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientIp {
    /// `X-Forwarded-For` or `Forwarded` (RFC 7239).
    pub header: HeaderName,
    /// The proxies whose header is believed.
    pub trust: Vec<Cidr>,
}

/// How large a request may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Header fields in a request.
    pub max_headers: usize,
    /// Bytes of the whole request head.
    pub max_header_size: usize,
    /// Bytes of the request target.
    pub max_uri: usize,
    /// Bytes of a request body.
    pub max_body: Option<u64>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timeouts {
    /// The whole TLS handshake.
    pub tls_handshake: Duration,
    /// The whole request head, from its first byte.
    pub head: Duration,
    /// Waiting for a request.
    pub idle: Duration,
    /// One read of a request body.
    pub body: Duration,
    /// One read of a WebSocket or of a stream of events.
    pub stream_idle: Duration,
}

impl Connection {
    /// The peer's address; a Unix socket's peer counts as the loopback address.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip().to_canonical())
    }

    /// Whether the peer is a proxy whose word on the client counts.
    pub fn peer_is_trusted(&self) -> bool {
        let peer = self.peer_ip();
        self.listener
            .client_ip
            .as_ref()
            .is_some_and(|c| self.peer.is_none() || c.trust.iter().any(|t| t.contains(peer)))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_headers: 100, max_header_size: 32 << 10, max_uri: 8 << 10, max_body: None }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(60),
            stream_idle: Duration::from_secs(3600),
        }
    }
}

//! The gateway's own requests over HTTP/1: with bounds on the time of an exchange and on the size of the answer.
//! Redirects are not followed, and certificates are always verified.
//!
//! Connections are for one exchange, unless they are asked to be kept. A kept connection stays with the thread that made
//! it, for that drives it.
//!
//! ```no_run
//! # async fn example() -> Result<(), String> {
//! use portcullis::client::Client;
//!
//! let request = http::Request::get("https://id.example.com/keys").body(bytes::Bytes::new()).unwrap();
//! let answer = Client::new(None, std::time::Duration::from_secs(5), 64 << 10).exchange(request).await?;
//! assert_eq!(answer.status(), 200);
//! # Ok(())
//! # }
//! ```

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Request, Response};
use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::{HttpPeer, Peer};
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use pingora_http::RequestHeader;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a kept connection waits for its next exchange.
const IDLE: Duration = Duration::from_secs(30);
/// How long the addresses of a name are believed where connections are kept.
const RESOLVED: Duration = Duration::from_secs(10);

/// Asks servers.
pub struct Client {
    connector: TransportConnector,
    /// Whom to trust; else the system's authorities.
    roots: Option<Arc<CaType>>,
    longest: Duration,
    largest: usize,
    keeps: bool,
    resolved: ArcSwapOption<Resolved>,
}

/// The addresses of the name that was asked for last.
struct Resolved {
    name: Box<str>,
    addresses: Vec<IpAddr>,
    at: Instant,
}

/// How an exchange failed.
struct Failure {
    why: String,
    /// Whether there was the head of an answer.
    answered: bool,
}

impl Client {
    /// One that trusts these authorities, in readable DER, or those of the system. An exchange may take `longest`,
    /// from the look-up of the name to the last byte, and its answer may have `largest` bytes.
    pub fn new(roots: Option<&[Vec<u8>]>, longest: Duration, largest: usize) -> Self {
        let wrap = |roots: &[Vec<u8>]| {
            let wrapped: Vec<_> = roots.iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect();
            Arc::<CaType>::from(wrapped)
        };
        Self {
            connector: TransportConnector::new(None),
            roots: roots.map(wrap),
            longest,
            largest,
            keeps: false,
            resolved: ArcSwapOption::empty(),
        }
    }

    /// Keeps connections for later exchanges. A request that gets no answer on a kept connection, which the server may
    /// be closing, is sent again on a new one: it must be one that may arrive twice.
    pub fn keeping_connections(self) -> Self {
        Self { keeps: true, ..self }
    }

    /// Asks the server of an absolute `http` or `https` URL.
    ///
    /// # Errors
    /// There was no whole answer, in words.
    pub async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        match tokio::time::timeout(self.longest, self.unbounded(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", self.longest)),
        }
    }

    async fn unbounded(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (head, body) = request.into_parts();
        let host = head.uri.host().unwrap_or_default();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let tls = match head.uri.scheme_str() {
            Some("https") if !host.is_empty() => true,
            Some("http") if !host.is_empty() => false,
            _ => return Err("not a URL with http or https".to_owned()),
        };
        let bodiless = matches!(head.method, Method::GET | Method::HEAD) && body.is_empty();
        let mut outgoing = RequestHeader::build(head.method, target.as_bytes(), None).map_err(text)?;
        for (name, value) in &head.headers {
            outgoing.append_header(name.clone(), value.clone()).map_err(text)?;
        }
        let authority = head.uri.authority().map_or(host, |authority| authority.as_str());
        outgoing.insert_header(HOST, authority).map_err(text)?;
        if !bodiless {
            outgoing.insert_header(CONTENT_LENGTH, body.len()).map_err(text)?;
        }

        let port = head.uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = self.addresses(host).await?;
        let peers = addresses.iter().map(|address| self.peer(host, SocketAddr::new(*address, port), tls));
        if self.keeps {
            for peer in peers.clone() {
                let Some(stream) = self.connector.reused_stream(&peer).await else { continue };
                match self.ask(HttpSession::new(stream), &peer, &outgoing, &body).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) if failure.answered => return Err(failure.why),
                    Err(_) => break,
                }
            }
        }
        let mut last = "the name has no address".to_owned();
        for peer in peers {
            match self.connector.new_stream(&peer).await {
                Ok(stream) => {
                    let asked = self.ask(HttpSession::new(stream), &peer, &outgoing, &body);
                    return asked.await.map_err(|failure| failure.why);
                }
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn ask(
        &self,
        mut session: HttpSession,
        peer: &HttpPeer,
        request: &RequestHeader,
        body: &[u8],
    ) -> Result<Response<Bytes>, Failure> {
        let unanswered = |error: Box<pingora_core::Error>| Failure { why: error.to_string(), answered: false };
        session.write_request_header(Box::new(request.clone())).await.map_err(unanswered)?;
        if !body.is_empty() {
            session.write_body(body).await.map_err(unanswered)?;
        }
        session.finish_body().await.map_err(unanswered)?;
        let mut answer = Response::new(());
        loop {
            session.read_response().await.map_err(unanswered)?;
            if let Some(head) = session.resp_header().filter(|head| !head.status.is_informational()) {
                *answer.status_mut() = head.status;
                *answer.headers_mut() = head.headers.clone();
                break;
            }
        }
        let broken = |why: String| Failure { why, answered: true };
        let mut body = BytesMut::new();
        while let Some(part) = session.read_body_bytes().await.map_err(|error| broken(error.to_string()))? {
            if body.len() + part.len() > self.largest {
                return Err(broken(format!("an answer of more than {} bytes", self.largest)));
            }
            body.extend_from_slice(&part);
        }
        if self.keeps {
            session.respect_keepalive();
            if let Some(stream) = session.reuse().await {
                self.connector.release_stream(stream, peer.reuse_hash(), Some(IDLE));
            }
        }
        Ok(answer.map(|()| body.freeze()))
    }

    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if let Some(resolved) = self.resolved.load().as_ref().filter(|r| *r.name == *host && r.at.elapsed() < RESOLVED)
        {
            return Ok(resolved.addresses.clone());
        }
        let found = tokio::net::lookup_host((host, 0)).await;
        let found = found.map_err(|error| format!("the name cannot be resolved: {error}"))?;
        let addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        if self.keeps {
            let resolved = Resolved { name: host.into(), addresses: addresses.clone(), at: Instant::now() };
            self.resolved.store(Some(Arc::new(resolved)));
        }
        Ok(addresses)
    }

    fn peer(&self, host: &str, address: SocketAddr, tls: bool) -> HttpPeer {
        // Without a name nothing would be verified; `unbounded` has seen that there is one.
        let mut peer = HttpPeer::new(address, tls, host.to_owned());
        peer.options.alpn = ALPN::H1;
        peer.options.ca = self.roots.clone();
        peer.group_key = this_thread();
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.total_connection_timeout = Some(CONNECT);
        peer
    }
}

fn this_thread() -> u64 {
    let mut hasher = DefaultHasher::new();
    std::thread::current().id().hash(&mut hasher);
    hasher.finish()
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

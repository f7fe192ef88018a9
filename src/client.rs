//! The gateway's own requests over HTTP/1: one exchange at a time, with bounds on its time and on the size of the
//! answer. Redirects are not followed, and certificates are always verified.
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

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{Method, Request, Response};
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use pingora_http::RequestHeader;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Asks servers.
pub struct Client {
    connector: Connector,
    /// Whom to trust; else the system's authorities.
    roots: Option<Arc<CaType>>,
    longest: Duration,
    largest: usize,
}

impl Client {
    /// One that trusts these authorities, in readable DER, or those of the system. An exchange may take `longest`,
    /// from the look-up of the name to the last byte, and its answer may have `largest` bytes.
    pub fn new(roots: Option<&[Vec<u8>]>, longest: Duration, largest: usize) -> Self {
        let wrap = |roots: &[Vec<u8>]| {
            let wrapped: Vec<_> = roots.iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect();
            Arc::<CaType>::from(wrapped)
        };
        Self { connector: Connector::new(None), roots: roots.map(wrap), longest, largest }
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
        let mut session = self.connect(host, port, tls).await?;
        session.write_request_header(Box::new(outgoing)).await.map_err(text)?;
        if !body.is_empty() {
            session.write_body(&body).await.map_err(text)?;
        }
        session.finish_body().await.map_err(text)?;
        let mut answer = Response::new(());
        loop {
            session.read_response().await.map_err(text)?;
            if let Some(head) = session.resp_header().filter(|head| !head.status.is_informational()) {
                *answer.status_mut() = head.status;
                *answer.headers_mut() = head.headers.clone();
                break;
            }
        }
        let mut body = BytesMut::new();
        while let Some(part) = session.read_body_bytes().await.map_err(text)? {
            if body.len() + part.len() > self.largest {
                return Err(format!("an answer of more than {} bytes", self.largest));
            }
            body.extend_from_slice(&part);
        }
        Ok(answer.map(|()| body.freeze()))
    }

    /// To the first of the name's addresses that can be connected to.
    async fn connect(&self, host: &str, port: u16, tls: bool) -> Result<HttpSession, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = tokio::net::lookup_host((host, port)).await;
        let mut last = "the name has no address".to_owned();
        for address in addresses.map_err(|error| format!("the name cannot be resolved: {error}"))? {
            match self.connector.get_http_session(&self.peer(host, address, tls)).await {
                Ok((session, _)) => return Ok(session),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn peer(&self, host: &str, address: SocketAddr, tls: bool) -> HttpPeer {
        // Without a name nothing would be verified; `unbounded` has seen that there is one.
        let mut peer = HttpPeer::new(address, tls, host.to_owned());
        peer.options.alpn = ALPN::H1;
        peer.options.ca = self.roots.clone();
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.total_connection_timeout = Some(CONNECT);
        peer
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

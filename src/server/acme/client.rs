//! HTTPS to a CA: one exchange at a time, with bounds on its time and on the size of the answer.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{WrappedX509, parse_x509};
use pingora_http::RequestHeader;

/// How long an exchange may take, from the look-up of the name to the last byte.
const LONGEST: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// A chain of certificates has some kilobytes.
const LARGEST: usize = 1 << 20;

/// Asks the servers of one CA.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    connector: Connector,
    /// Whom to trust; else the system's authorities.
    roots: Option<Arc<CaType>>,
}

impl Client {
    /// One that trusts these authorities, in readable DER, or those of the system.
    pub(super) fn new(roots: Option<&[Vec<u8>]>) -> Self {
        let wrap = |roots: &[Vec<u8>]| {
            let wrapped: Vec<_> = roots.iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect();
            Arc::<CaType>::from(wrapped)
        };
        Self(Arc::new(Inner { connector: Connector::new(None), roots: roots.map(wrap) }))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let inner = self.0.clone();
        Box::pin(async move {
            let uri = request.uri().clone();
            let answer = match tokio::time::timeout(LONGEST, inner.exchange(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("no answer within {LONGEST:?}")),
            };
            answer.map_err(|error| Error::Other(format!("{uri}: {error}").into()))
        })
    }
}

impl Inner {
    async fn exchange(&self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, String> {
        let (head, body) = request.into_parts();
        // The type lets its body be read as that of a response only.
        let body = BytesResponse::from(Response::new(body)).body.into_bytes().await.map_err(text)?;
        let host = head.uri.host().unwrap_or_default();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        if head.uri.scheme_str() != Some("https") || host.is_empty() {
            return Err("not a URL with https".to_owned());
        }
        let mut outgoing = RequestHeader::build(head.method, target.as_bytes(), None).map_err(text)?;
        for (name, value) in &head.headers {
            outgoing.append_header(name.clone(), value.clone()).map_err(text)?;
        }
        let authority = head.uri.authority().map_or(host, |authority| authority.as_str());
        outgoing.insert_header(HOST, authority).map_err(text)?;
        outgoing.insert_header(CONTENT_LENGTH, body.len()).map_err(text)?;

        let mut session = self.connect(host, head.uri.port_u16().unwrap_or(443)).await?;
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
            if body.len() + part.len() > LARGEST {
                return Err(format!("an answer of more than {LARGEST} bytes"));
            }
            body.extend_from_slice(&part);
        }
        let status = answer.status();
        // What is no problem document would be reported as JSON that cannot be read.
        if status.as_u16() >= 400 && !body.starts_with(b"{") {
            return Err(format!("the status {status}"));
        }
        Ok(BytesResponse { parts: answer.into_parts().0, body: Box::new(body.freeze()) })
    }

    /// To the first of the name's addresses that can be connected to.
    async fn connect(&self, host: &str, port: u16) -> Result<HttpSession, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = tokio::net::lookup_host((host, port)).await;
        let mut last = "the name has no address".to_owned();
        for address in addresses.map_err(|error| format!("the name cannot be resolved: {error}"))? {
            match self.connector.get_http_session(&self.peer(host, address)).await {
                Ok((session, _)) => return Ok(session),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn peer(&self, host: &str, address: SocketAddr) -> HttpPeer {
        // Without a name nothing would be verified; `exchange` has seen that there is one.
        let mut peer = HttpPeer::new(address, true, host.to_owned());
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

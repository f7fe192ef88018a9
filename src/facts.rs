//! What is known of a connection and of a request, as typed fields that every part reads by name.

use std::any::Any;
use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use crate::body::grpc::{Call, web};
use crate::body::xml::soap::Version;
use crate::body::{Parts, Sends};
use crate::deadline::Deadline;
use crate::http01::Http01;
use crate::reply::Reply;
use crate::telemetry::metrics::traffic::{Cached, ListenerSeries};
use crate::telemetry::trace::Trace;
use crate::types::template::{Variable, Variables, query_value};
use crate::types::{Captures, Cidr, Pace, hex};

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
    peer_text: HeaderValue,
    /// What the request that comes by it is known to be: for one that the gateway makes itself.
    handed: Mutex<Option<Handed>>,
    /// Until when the exchange at hand must have gone on; then reading from the connection fails. Only for
    /// HTTP/1, where a connection has one exchange at a time.
    pub deadline: Deadline,
}

/// What a request is known to be.
struct Handed(Box<dyn Any + Send>);

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handed")
    }
}

/// The TLS side of a connection.
#[derive(Debug, Clone)]
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
    /// The challenges of a CA that are answered here: without TLS, and not at the admin interface.
    pub challenges: Option<Arc<Http01>>,
    /// What is counted of it; nothing at the admin interface.
    pub counts: Option<ListenerSeries>,
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
    /// One read of a request body, and one write of an answer.
    pub body: Duration,
    /// One read of a WebSocket or of a stream of events.
    pub stream_idle: Duration,
}

impl Connection {
    /// Puts together what the server found out.
    pub fn new(peer: Option<SocketAddr>, local: Option<SocketAddr>, listener: Arc<Listener>, tls: Option<Tls>) -> Self {
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip().to_canonical());
        let peer_text = HeaderValue::from_str(&address.to_string()).expect("an address is visible ASCII");
        Self { peer, local, listener, tls, peer_text, handed: Mutex::default(), deadline: Deadline::default() }
    }

    /// A connection within the gateway, for a request that it makes itself on behalf of one that came by this.
    pub fn within(&self) -> Self {
        Self::new(self.peer, self.local, self.listener.clone(), self.tls.clone())
    }

    /// Leaves what the request that comes by it is known to be.
    pub fn hand(&self, known: Box<dyn Any + Send>) {
        *self.handed.lock() = Some(Handed(known));
    }

    /// Takes what the request that comes by it is known to be, if it is of this type.
    pub fn take_handed<T: 'static>(&self) -> Option<Box<T>> {
        self.handed.lock().take().and_then(|handed| handed.0.downcast().ok())
    }

    /// The peer's address as the value of a header field.
    pub fn peer_text(&self) -> HeaderValue {
        self.peer_text.clone()
    }

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

/// What is known of one request so far.
#[derive(Debug)]
pub struct Facts {
    /// The connection that the request came by.
    pub connection: Arc<Connection>,
    /// Who asks: the peer, or whom a trusted proxy in front names.
    pub client: IpAddr,
    /// Whether the peer is a proxy whose word counts.
    pub trusted: bool,
    /// Who it is that asks, once that is known.
    pub consumer: Option<Arc<Consumer>>,
    /// Claims to be taken for true, in a request without a network.
    pub assumed: Option<Box<serde_json::Map<String, serde_json::Value>>>,
    /// Names the request in logs and towards the upstream.
    pub id: HeaderValue,
    /// Where it came from and what it was sent to, where traces are made.
    pub trace: Option<Box<Trace>>,
    /// When the request's head was complete.
    pub started: Instant,
    /// Where in the path the route's captures are.
    pub captures: Captures,
    /// The name of the route, once there is one.
    pub route: Option<Arc<str>>,
    /// The name of the upstream, once there is one.
    pub upstream: Option<Arc<str>>,
    /// The server that was tried last.
    pub server: Option<Arc<str>>,
    /// How often a server was asked.
    pub attempts: u32,
    /// How long it waited in policies: for its turn, a place, or somebody's answer.
    pub waited: Duration,
    /// From the request's head to the first attempt.
    pub asked_after: Option<Duration>,
    /// From the last attempt's start to the head of its answer.
    pub first_byte: Option<Duration>,
    /// How many of the route's steps saw the request, and so see the response.
    pub entered: usize,
    /// What the request's limits have left for whom they count, as far as clients are told.
    pub allowances: SmallVec<[Allowance; 2]>,
    /// The place that the request takes among those under way, given back when it ends.
    pub place: Option<Place>,
    /// What a cache had to do with the answer.
    pub cache: Option<Cached>,
    /// The parts that the answer goes without, and why.
    pub missing: Option<Box<str>>,
    /// The policy that would have stopped the request, were it not in a shadow.
    pub shadowed: Option<&'static str>,
    /// Whether nobody asks, and the request is only talked about: nothing may be counted or taken.
    pub rehearsal: bool,
    /// What answered instead of an upstream: a policy, or the kind of problem.
    pub stopped_by: Option<&'static str>,
    /// What went wrong, for the operator.
    pub cause: Option<Cow<'static, str>>,
    /// What the parts of an aggregate have answered so far, for a request that is one of them.
    pub parts: Option<Arc<Parts>>,
    /// What the upstream is told of a body that is not the client's own.
    pub sends: Option<Box<Sends>>,
    /// What the client calls by SOAP.
    pub soap: Option<Called>,
    /// Whether the client speaks gRPC or gRPC-Web, and so wants errors as gRPC statuses.
    pub grpc: bool,
    /// How it writes bodies, if it is gRPC-Web.
    pub grpc_web: Option<web::Coding>,
    /// The method of gRPC that its request in JSON calls.
    pub call: Option<Box<Call>>,
    /// When everything must be over, once a server is taken.
    pub deadline: Option<Instant>,
    /// Whether the response is known to be a stream of unknown length (WebSocket, events, gRPC).
    pub streaming: bool,
}

/// What a message of SOAP calls.
#[derive(Debug, Clone, Copy)]
pub struct Called {
    /// The version of the message.
    pub version: Version,
    /// Which of the route's operations it is.
    pub operation: usize,
}

/// What one of a policy's limits has left.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Which of them, in their order.
    pub limit: usize,
    /// How many more requests would go through at once.
    pub remaining: u64,
    /// In how many seconds it is untouched again, or a request that it refused would go through.
    pub reset: u64,
}

/// A place that a request takes until it ends, however it ends: dropping it gives it back.
pub struct Place {
    of: Arc<dyn Taker>,
    key: u64,
}

/// Who takes places back.
pub trait Taker: Send + Sync {
    /// A place of this key is free again.
    fn give_back(self: Arc<Self>, key: u64);
}

impl Place {
    /// One of the places of a key.
    pub fn new(of: Arc<dyn Taker>, key: u64) -> Self {
        Self { of, key }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.clone().give_back(self.key);
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

/// Who asks, as a policy has found out: what everything after it knows of the caller.
#[derive(Debug, Default)]
pub struct Consumer {
    /// Names the caller in limits, caches, logs and metrics.
    pub name: Box<str>,
    /// The groups that the caller belongs to.
    pub groups: Vec<Box<str>>,
    /// What the credential says of the caller.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// What upstreams are told of the caller.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How often it may ask where a limit counts by consumers, in place of the limit's own numbers.
    pub pace: Option<Arc<Pace>>,
}

impl Consumer {
    /// A claim by its name. One within another has a dotted name: `realm_access.roles`.
    pub fn claim(&self, name: &str) -> Option<&serde_json::Value> {
        claim(&self.claims, name)
    }
}

impl Variables for Consumer {
    /// Lists have commas between their elements; what is no text, number or boolean is left out.
    fn write(&self, variable: &Variable, out: &mut Vec<u8>) {
        fn put(value: &serde_json::Value, out: &mut Vec<u8>) {
            match value {
                serde_json::Value::String(text) => out.extend_from_slice(text.as_bytes()),
                serde_json::Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
                serde_json::Value::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
                _ => {}
            }
        }
        match variable {
            Variable::Consumer => out.extend_from_slice(self.name.as_bytes()),
            Variable::ConsumerGroups => out.extend_from_slice(self.groups.join(",").as_bytes()),
            Variable::Claim(name) => match self.claim(name) {
                Some(serde_json::Value::Array(values)) => {
                    for (i, value) in values.iter().enumerate() {
                        out.extend_from_slice(if i > 0 { b"," } else { b"" });
                        put(value, out);
                    }
                }
                value => value.iter().for_each(|value| put(value, out)),
            },
            _ => {}
        }
    }
}

/// A claim by its name. One within another has a dotted name.
pub fn claim<'c>(claims: &'c serde_json::Map<String, serde_json::Value>, name: &str) -> Option<&'c serde_json::Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    claim(claims.get(outer)?.as_object()?, inner)
}

impl Facts {
    /// What is known of a request once its head is there.
    pub fn new(connection: Arc<Connection>, client: IpAddr, id: HeaderValue) -> Self {
        Self {
            connection,
            client,
            trusted: false,
            consumer: None,
            assumed: None,
            id,
            trace: None,
            started: Instant::now(),
            captures: Captures::default(),
            route: None,
            upstream: None,
            server: None,
            attempts: 0,
            waited: Duration::ZERO,
            asked_after: None,
            first_byte: None,
            entered: 0,
            allowances: SmallVec::new(),
            place: None,
            cache: None,
            missing: None,
            shadowed: None,
            rehearsal: false,
            stopped_by: None,
            cause: None,
            parts: None,
            sends: None,
            soap: None,
            grpc: false,
            grpc_web: None,
            call: None,
            deadline: None,
            streaming: false,
        }
    }

    /// What is known of a request by this client, for tests.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_client(client: &str) -> Self {
        let listener = Listener {
            name: "test".into(),
            client_ip: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            http2: true,
            challenges: None,
            counts: None,
        };
        let connection = Arc::new(Connection::new(None, None, Arc::new(listener), None));
        Self {
            route: Some("a route".into()),
            ..Self::new(connection, client.parse().expect("a test gives an address"), HeaderValue::from_static("id"))
        }
    }

    /// What is known of a request that the gateway makes itself to answer this one, by this connection. None of the steps
    /// sees its response.
    pub fn fork(&self, connection: Arc<Connection>) -> Self {
        Self {
            trusted: self.trusted,
            consumer: self.consumer.clone(),
            trace: self.trace.clone(),
            started: self.started,
            captures: self.captures.clone(),
            route: self.route.clone(),
            upstream: self.upstream.clone(),
            server: self.server.clone(),
            attempts: self.attempts,
            asked_after: self.asked_after,
            first_byte: self.first_byte,
            stopped_by: self.stopped_by,
            cause: self.cause.clone(),
            parts: self.parts.clone(),
            sends: self.sends.clone(),
            grpc: self.grpc,
            grpc_web: self.grpc_web,
            call: self.call.clone(),
            streaming: self.streaming,
            soap: self.soap,
            ..Self::new(connection, self.client, self.id.clone())
        }
    }

    /// What is known of a request before a server was asked.
    pub fn unasked(&self) -> Self {
        let trace = self.trace.as_ref().map(|trace| Box::new(trace.fork()));
        Self { attempts: 0, trace, ..self.fork(self.connection.clone()) }
    }

    /// Takes over what was found out on the way of a request that was made to answer this one.
    pub fn adopt(&mut self, fork: Self) {
        self.upstream = fork.upstream;
        self.server = fork.server;
        self.attempts = fork.attempts;
        self.asked_after = fork.asked_after;
        self.first_byte = fork.first_byte;
        self.stopped_by = fork.stopped_by;
        self.cause = fork.cause;
        self.trace = fork.trace;
    }

    /// Whether the request becomes a call of gRPC, whatever the client speaks.
    pub fn is_call(&self) -> bool {
        self.grpc || self.call.is_some()
    }

    /// Whether the client speaks gRPC itself, and needs nothing changed.
    pub fn is_native_grpc(&self) -> bool {
        self.grpc && self.grpc_web.is_none()
    }

    /// The scheme that the client used: a trusted proxy in front is asked by the header, else the connection.
    pub fn scheme(&self, request: &RequestHeader) -> &'static str {
        if self.trusted {
            match request.headers.get("x-forwarded-proto").map(HeaderValue::as_bytes) {
                Some(b"https") => return "https",
                Some(b"http") => return "http",
                _ => {}
            }
        }
        if self.connection.tls.is_some() { "https" } else { "http" }
    }
}

/// What of a request decides its route.
pub struct RequestView<'r> {
    /// The method.
    pub method: &'r http::Method,
    /// The host in lower case, without port.
    pub host: &'r str,
    /// The normalised path.
    pub path: &'r str,
    /// The query as it was sent.
    pub query: Option<&'r str>,
    /// The header fields.
    pub headers: &'r http::HeaderMap,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// Who asks.
    pub client: IpAddr,
    /// The name of the listener that it came by.
    pub listener: &'r str,
}

impl<'r> RequestView<'r> {
    /// What of this request decides. `host` is its [`lower_host`].
    pub fn of(request: &'r RequestHeader, host: &'r str, facts: &'r Facts) -> Self {
        Self {
            method: &request.method,
            host: host.trim_end_matches('.'),
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
            scheme: facts.scheme(request),
            client: facts.client,
            listener: &facts.connection.listener.name,
        }
    }
}

/// The host in lower case.
pub fn lower_host(request: &RequestHeader) -> Cow<'_, str> {
    let host = host(request);
    match host.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

/// The authority that a request is for, without its port, as written: from the URI (HTTP/2, absolute form) or
/// from `Host`.
pub fn host(request: &RequestHeader) -> &str {
    let authority = authority(request);
    match authority.strip_prefix('[').and_then(|rest| rest.find(']')) {
        Some(end) => &authority[..end + 2],
        None => authority.split(':').next().unwrap_or(""),
    }
}

/// The authority that a request is for, with its port if it has one.
pub fn authority(request: &RequestHeader) -> &str {
    match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(""),
    }
}

/// The length of its body that a request states. What is no number is longer than anything.
pub fn body_length(request: &RequestHeader) -> Option<u64> {
    let length = request.headers.get(http::header::CONTENT_LENGTH)?;
    Some(length.to_str().ok().and_then(|length| length.parse().ok()).unwrap_or(u64::MAX))
}

/// Refuses a body that is said to have more bytes than it may have.
///
/// # Errors
/// The answer: 413.
pub fn check_length(request: &RequestHeader, most: u64) -> Result<(), Reply> {
    match body_length(request) {
        Some(length) if length > most => {
            Err(Reply::body_too_large(format!("the body has {length} bytes, {most} are allowed")).closing())
        }
        _ => Ok(()),
    }
}

/// 128 random bits in hexadecimal.
pub fn new_request_id() -> HeaderValue {
    let text: [u8; 32] = hex(fastrand::u128(..));
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible ASCII")
}

/// The values of the variables of a text: what the client sent, and what is known.
pub struct Values<'r> {
    /// What the client sent.
    pub request: &'r RequestHeader,
    /// What is known.
    pub facts: &'r Facts,
}

impl Variables for Values<'_> {
    fn write(&self, variable: &Variable, out: &mut Vec<u8>) {
        let Self { request, facts } = self;
        let name = |name: &Option<Arc<str>>, out: &mut Vec<u8>| {
            out.extend_from_slice(name.as_deref().unwrap_or("").as_bytes());
        };
        match variable {
            Variable::Capture(position) => {
                out.extend_from_slice(facts.captures.text(*position, request.uri.path()).as_bytes());
            }
            Variable::Path => out.extend_from_slice(request.uri.path().as_bytes()),
            Variable::Host => out.extend_from_slice(host(request).to_ascii_lowercase().as_bytes()),
            Variable::Method => out.extend_from_slice(request.method.as_str().as_bytes()),
            Variable::Scheme => out.extend_from_slice(facts.scheme(request).as_bytes()),
            Variable::Header(header) => {
                out.extend_from_slice(request.headers.get(header).map_or(b"", HeaderValue::as_bytes));
            }
            Variable::Query(query) => {
                let value = query_value(request.uri.query(), query);
                out.extend_from_slice(value.as_deref().unwrap_or("").as_bytes());
            }
            Variable::Consumer | Variable::ConsumerGroups | Variable::Claim(_) => {
                facts.consumer.iter().for_each(|consumer| consumer.write(variable, out));
            }
            Variable::ClientIp => out.extend_from_slice(facts.client.to_string().as_bytes()),
            Variable::RequestId => out.extend_from_slice(facts.id.as_bytes()),
            Variable::Listener => out.extend_from_slice(facts.connection.listener.name.as_bytes()),
            Variable::Route => name(&facts.route, out),
            Variable::Upstream => name(&facts.upstream, out),
            Variable::Part(position, path) => {
                out.extend(facts.parts.as_ref().and_then(|parts| parts.text(*position, path)).unwrap_or_default());
            }
        }
    }
}

//! Traces: where a request came from and what it was sent to, for OpenTelemetry collectors.
//!
//! ```toml
//! [trace]
//! endpoint = "http://127.0.0.1:4318"    # OTLP over HTTP, as JSON, at /v1/traces
//! sample   = 0.1
//! ```
//!
//! A request from a trusted peer goes on with its `traceparent` and `tracestate` (W3C Trace Context) and is sampled if
//! the peer says so; any other begins a trace of its own. The upstream gets a `traceparent` that names the attempt. A
//! request that failed is exported even if it was not sampled. Spans have the names and attributes of OpenTelemetry's
//! semantic conventions for HTTP.
//!
//! A policy has a span where a request waited in it or was stopped by it: the others have nothing to say.
//!
//! Nothing here waits: what the queue cannot take is dropped and counted.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus::IntCounter;
use serde::{Serialize, Serializer};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use crate::types::hex;

/// `traceparent`.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Spans that may wait to be exported.
const QUEUE: usize = 4096;

/// Begins traces, and takes what became of them.
pub struct Tracer {
    /// The share of requests that are sampled, of 2³².
    sampled: u64,
    queue: mpsc::Sender<Box<Span>>,
    dropped: IntCounter,
}

/// The trace of one request.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The gateway's own part.
    span: u64,
    /// Who sent the request, where that is known.
    parent: Option<u64>,
    sampled: bool,
    /// The trace's id in hexadecimal.
    text: [u8; 32],
    policies: Vec<Passed>,
    attempts: SmallVec<[Attempt; 1]>,
}

/// A policy that a request waited in, or was stopped by.
#[derive(Debug, Clone)]
struct Passed {
    policy: &'static str,
    /// Since the request began.
    began: Duration,
    ended: Duration,
    /// The status that it answered with.
    status: Option<u16>,
}

/// One attempt at a server.
#[derive(Debug, Clone)]
struct Attempt {
    span: u64,
    server: Arc<str>,
    /// Since the request began.
    began: Duration,
    /// The head of the answer, since the request began, and its status.
    answered: Option<(Duration, u16)>,
    /// Why there was no answer, or none that was taken.
    failed: Option<&'static str>,
    /// What only an attempt of a request has that the gateway makes to answer another.
    part: Option<Box<OfPart>>,
}

/// An attempt of a request that the gateway makes to answer another.
#[derive(Debug, Clone)]
struct OfPart {
    upstream: Option<Arc<str>>,
    method: Box<str>,
    /// Since the request began.
    ended: Duration,
    /// How often its request was sent before.
    resent: u64,
}

/// What became of a request.
pub struct Span {
    /// Where it came from, and what it was sent to.
    pub trace: Box<Trace>,
    /// How long it took.
    pub duration: Duration,
    /// The method.
    pub method: Box<str>,
    /// The scheme.
    pub scheme: &'static str,
    /// The host.
    pub host: Box<str>,
    /// Its port, where the client named one.
    pub port: Option<u16>,
    /// The version of HTTP.
    pub version: &'static str,
    /// The request's `User-Agent`.
    pub user_agent: Option<Box<str>>,
    /// The path.
    pub path: Box<str>,
    /// Who asked.
    pub client: IpAddr,
    /// The API that the route belongs to.
    pub api: Option<Arc<str>>,
    /// The route's name.
    pub route: Option<Arc<str>>,
    /// The pattern of the route's paths.
    pub pattern: Option<Arc<str>>,
    /// The upstream's name.
    pub upstream: Option<Arc<str>>,
    /// The status of the answer; none when the client left before it.
    pub status: Option<u16>,
    /// Whether the gateway or the upstream failed.
    pub failed: bool,
    /// What answered instead of an upstream.
    pub stopped_by: Option<&'static str>,
    /// The parts that the answer went without, and why.
    pub missing: Option<Box<str>>,
    /// When it ended.
    pub ended: SystemTime,
}

impl Tracer {
    /// One that samples this share of the requests; gives where its spans come out.
    pub fn new(sample: f64, dropped: IntCounter) -> (Self, mpsc::Receiver<Box<Span>>) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let sampled = (sample * 2f64.powi(32)) as u64;
        (Self { sampled, queue, dropped }, spans)
    }

    /// Begins the trace of a request, or goes on with that of a peer that is believed.
    pub fn begin(&self, headers: &HeaderMap, trusted: bool) -> Box<Trace> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let given = match (parents.next(), parents.next()) {
            (Some(parent), None) if trusted => parse(parent.as_bytes()),
            _ => None,
        };
        let (id, parent, sampled) = match given {
            Some((id, parent, sampled)) => (id, Some(parent), sampled),
            None => (fastrand::u128(1..), None, u64::from(fastrand::u32(..)) < self.sampled),
        };
        Box::new(Trace {
            span: fastrand::u64(1..),
            parent,
            sampled,
            text: hex(id),
            policies: Vec::new(),
            attempts: SmallVec::new(),
        })
    }

    /// Takes a span to be exported, if there is room for it.
    pub fn end(&self, span: Span) {
        if self.queue.try_send(Box::new(span)).is_err() {
            self.dropped.inc();
        }
    }
}

impl Trace {
    /// Whether it is exported even if nothing fails.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// Its id in hexadecimal, for logs.
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// A request waited in a policy, or was answered by it with a status; the times are since it began.
    pub fn policy(&mut self, policy: &'static str, began: Duration, ended: Duration, status: Option<u16>) {
        self.policies.push(Passed { policy, began, ended, status });
    }

    /// A server is asked, this long after the request began.
    pub fn attempt(&mut self, server: Arc<str>, began: Duration) {
        self.attempts.push(Attempt {
            span: fastrand::u64(1..),
            server,
            began,
            answered: None,
            failed: None,
            part: None,
        });
    }

    /// The server that was asked last has answered, this long after the request began.
    pub fn answered(&mut self, after: Duration, status: u16) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.answered = Some((after, status));
        }
    }

    /// The server that was asked last gave no answer, or one that was not taken.
    pub fn failed(&mut self, how: &'static str) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.failed = Some(how);
        }
    }

    /// The trace of a request that is made to answer this one.
    pub fn fork(&self) -> Self {
        Self { policies: Vec::new(), attempts: SmallVec::new(), ..self.clone() }
    }

    /// Takes over what became of a request that was made to answer this one: by this method, at an upstream, until so long
    /// after this one began.
    pub fn join(&mut self, fork: Self, method: &str, upstream: Option<&Arc<str>>, ended: Duration) {
        let began: SmallVec<[Duration; 4]> = fork.attempts.iter().map(|attempt| attempt.began).collect();
        for (i, mut attempt) in fork.attempts.into_iter().enumerate() {
            attempt.part.get_or_insert_with(|| {
                let ended = began.get(i + 1).copied().unwrap_or(ended);
                Box::new(OfPart { upstream: upstream.cloned(), method: method.into(), ended, resent: i as u64 })
            });
            self.attempts.push(attempt);
        }
        self.policies.extend(fork.policies);
    }

    /// Tells a server of the trace. Who is not believed has nothing to tell.
    pub fn write(&self, fields: &mut HeaderMap) {
        let span = self.attempts.last().map_or(self.span, |attempt| attempt.span);
        let mut text = *b"00-________________________________-________________-00";
        text[3..35].copy_from_slice(&self.text);
        text[36..52].copy_from_slice(&hex::<16>(span.into()));
        text[54] = b'0' + u8::from(self.sampled);
        if let Ok(text) = HeaderValue::from_bytes(&text) {
            fields.insert(TRACEPARENT, text);
        }
        if self.parent.is_none() {
            fields.remove(TRACESTATE);
        }
    }
}

impl Span {
    /// The spans of OTLP that it is: the gateway's own, and one for each attempt and each policy that took part.
    fn export<'s>(&'s self, spans: &mut Vec<Exported<'s>>) {
        let Self { trace, duration, .. } = self;
        let began = self.ended.checked_sub(*duration).unwrap_or(UNIX_EPOCH);
        let at = |time: Duration| nanos(began + time);
        let below = |id, name, kind, from, to: Duration, attributes, failed| Exported {
            trace_id: trace.id(),
            span_id: Some(id),
            parent_span_id: Some(trace.span),
            flags: trace.sampled.into(),
            name,
            kind,
            start_time_unix_nano: at(from),
            end_time_unix_nano: at(to.max(from)),
            attributes,
            status: Status::of(failed),
        };
        let method = known_method(&self.method);
        // A name has few values: a method that nobody knows is not part of it.
        let short = if method == OTHER_METHOD { "HTTP" } else { &*self.method };
        spans.push(Exported {
            parent_span_id: trace.parent,
            ..below(
                trace.span,
                match &self.pattern {
                    Some(pattern) => Cow::Owned(format!("{short} {pattern}")),
                    None => Cow::Borrowed(short),
                },
                SERVER,
                Duration::ZERO,
                *duration,
                self.attributes(method),
                self.failed,
            )
        });
        for passed in &trace.policies {
            let mut attributes = vec![text("portcullis.policy", passed.policy)];
            attributes.extend(passed.status.map(|status| number("http.response.status_code", status.into())));
            let failed = passed.status.is_some_and(|status| status >= 500);
            let name = Cow::Borrowed(passed.policy);
            spans.push(below(fastrand::u64(1..), name, INTERNAL, passed.began, passed.ended, attributes, failed));
        }
        for (i, attempt) in trace.attempts.iter().enumerate() {
            let part = attempt.part.as_deref();
            let next = trace.attempts.get(i + 1).map_or(*duration, |next| next.began);
            let end = part.map_or(next, |part| part.ended);
            let (short, method) = part.map_or((short, method), |part| (&*part.method, known_method(&part.method)));
            let mut attributes = Vec::with_capacity(8);
            attributes.push(text("http.request.method", method));
            match attempt.server.parse::<SocketAddr>() {
                Ok(server) => {
                    attributes.push(text("server.address", server.ip().to_string()));
                    attributes.push(number("server.port", server.port().into()));
                }
                Err(_) => attributes.push(text("server.address", &*attempt.server)),
            }
            let upstream = part.map_or(self.upstream.as_deref(), |part| part.upstream.as_deref());
            attributes.extend(upstream.map(|upstream| text("portcullis.upstream", upstream)));
            let resent = part.map_or(i as u64, |part| part.resent);
            attributes.extend((resent > 0).then(|| number("http.request.resend_count", resent)));
            if let Some((after, status)) = attempt.answered {
                attributes.push(number("http.response.status_code", status.into()));
                let waited = after.saturating_sub(attempt.began);
                attributes.push(number("portcullis.first_byte_us", waited.as_micros() as u64));
            }
            let error = match (attempt.failed, attempt.answered) {
                (Some(how), _) => Some(Cow::Borrowed(how)),
                (None, Some((_, status))) => (status >= 400).then(|| status.to_string().into()),
                // The client left before there was an answer.
                (None, None) => Some(Cow::Borrowed("canceled")),
            };
            let failed = error.is_some();
            attributes.extend(error.map(|error| text("error.type", error)));
            let name = Cow::Borrowed(short);
            spans.push(below(attempt.span, name, CLIENT, attempt.began, end, attributes, failed));
        }
    }

    /// What is said of the request itself.
    fn attributes<'s>(&'s self, method: &'s str) -> Vec<Attribute<'s>> {
        let mut attributes = Vec::with_capacity(16);
        attributes.extend([
            text("http.request.method", method),
            text("url.scheme", self.scheme),
            text("url.path", &*self.path),
            text("server.address", &*self.host),
            text("client.address", self.client.to_string()),
            text("network.protocol.version", self.version),
        ]);
        attributes.extend((method == OTHER_METHOD).then(|| text("http.request.method_original", &*self.method)));
        attributes.extend(self.port.map(|port| number("server.port", port.into())));
        attributes.extend(self.user_agent.as_deref().map(|agent| text("user_agent.original", agent)));
        attributes.extend(self.pattern.as_deref().map(|pattern| text("http.route", pattern)));
        attributes.extend(self.api.as_deref().map(|api| text("portcullis.api", api)));
        attributes.extend(self.route.as_deref().map(|route| text("portcullis.route", route)));
        attributes.extend(self.status.map(|status| number("http.response.status_code", status.into())));
        if self.failed {
            let error = match self.status {
                Some(status @ 500..) => status.to_string().into(),
                _ => Cow::Borrowed("aborted"),
            };
            attributes.push(text("error.type", error));
        }
        attributes.extend(self.stopped_by.map(|by| text("portcullis.stopped_by", by)));
        attributes.extend(self.missing.as_deref().map(|missing| text("portcullis.missing", missing)));
        attributes
    }
}

/// What stands for a method that is not known.
const OTHER_METHOD: &str = "_OTHER";

/// The method, if it is one of RFC 9110 or of RFC 5789.
fn known_method(method: &str) -> &str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    if KNOWN.contains(&method) { method } else { OTHER_METHOD }
}

/// A span of OTLP.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exported<'s> {
    trace_id: &'s str,
    #[serde(serialize_with = "id")]
    span_id: Option<u64>,
    #[serde(serialize_with = "id")]
    parent_span_id: Option<u64>,
    flags: u8,
    name: Cow<'s, str>,
    kind: u8,
    #[serde(serialize_with = "digits")]
    start_time_unix_nano: u64,
    #[serde(serialize_with = "digits")]
    end_time_unix_nano: u64,
    attributes: Vec<Attribute<'s>>,
    status: Status,
}

/// What happens within.
const INTERNAL: u8 = 1;
/// What receives a request.
const SERVER: u8 = 2;
/// What sends one.
const CLIENT: u8 = 3;

#[derive(Serialize)]
struct Attribute<'s> {
    key: &'static str,
    value: Value<'s>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'s> {
    StringValue(Cow<'s, str>),
    IntValue(#[serde(serialize_with = "digits")] u64),
}

/// Spans are named in hexadecimal, and who has no parent says so by no digits.
fn id<S: Serializer>(span: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = span.map(|span| hex::<16>(span.into()));
    serializer.serialize_str(text.as_ref().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default())
}

/// Numbers of 64 bits are text in the JSON of OTLP.
fn digits<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(itoa::Buffer::new().format(*number))
}

#[derive(Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
}

impl Status {
    fn of(failed: bool) -> Self {
        Self { code: failed.then_some(2) }
    }
}

/// What a collector is sent (OTLP 1.0, `ExportTraceServiceRequest` as JSON).
pub fn export(spans: &[Box<Span>]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'s> {
        resource_spans: [ResourceSpans<'s>; 1],
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ResourceSpans<'s> {
        resource: Resource<'s>,
        scope_spans: [ScopeSpans<'s>; 1],
    }
    #[derive(Serialize)]
    struct Resource<'s> {
        attributes: [Attribute<'s>; 2],
    }
    #[derive(Serialize)]
    struct ScopeSpans<'s> {
        scope: Scope,
        spans: Vec<Exported<'s>>,
    }
    #[derive(Serialize)]
    struct Scope {
        name: &'static str,
        version: &'static str,
    }
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let mut all = Vec::with_capacity(2 * spans.len());
    spans.iter().for_each(|span| span.export(&mut all));
    let resource = Resource { attributes: [text("service.name", "portcullis"), text("service.version", VERSION)] };
    let scope = Scope { name: "portcullis", version: VERSION };
    let request =
        Request { resource_spans: [ResourceSpans { resource, scope_spans: [ScopeSpans { scope, spans: all }] }] };
    let mut body = Vec::with_capacity(2048 * spans.len());
    if let Err(error) = serde_json::to_writer(&mut body, &request) {
        log::error!("traces cannot be written: {error}");
    }
    body
}

/// The ids of a `traceparent`, and whether it is sampled.
fn parse(text: &[u8]) -> Option<(u128, u64, bool)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut parts = text.split('-');
    let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let sound = is_hex(version, 2) && is_hex(id, 32) && is_hex(parent, 16) && is_hex(flags, 2) && version != "ff";
    // Only a later version may say more.
    if !sound || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let (id, parent) = (u128::from_str_radix(id, 16).ok()?, u64::from_str_radix(parent, 16).ok()?);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (id != 0 && parent != 0).then_some((id, parent, flags & 1 == 1))
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn text<'s>(key: &'static str, value: impl Into<Cow<'s, str>>) -> Attribute<'s> {
    Attribute { key, value: Value::StringValue(value.into()) }
}

fn number<'s>(key: &'static str, value: u64) -> Attribute<'s> {
    Attribute { key, value: Value::IntValue(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_parent_is_sound_or_nothing() {
        let parse = |text: &str| parse(text.as_bytes());
        let sound = format!("00-{ID}-00f067aa0ba902b7-01");
        assert_eq!(parse(&sound), Some((0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true)));
        assert_eq!(parse(&format!("00-{ID}-00f067aa0ba902b7-00")).map(|(.., sampled)| sampled), Some(false));
        assert!(parse(&format!("01-{ID}-00f067aa0ba902b7-01-more")).is_some());
        for wrong in [
            String::new(),
            format!("{sound}-more"),
            sound.to_uppercase(),
            sound.replace(ID, &"0".repeat(32)),
            sound.replace("00f067aa0ba902b7", &"0".repeat(16)),
            sound.replacen("00", "ff", 1),
            sound.replace("-01", ""),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_share_is_sampled_and_a_full_queue_drops() {
        let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
        let share = |sample| {
            let (tracer, _) = Tracer::new(sample, dropped.clone());
            (0..10_000).filter(|_| tracer.begin(&HeaderMap::new(), false).is_sampled()).count()
        };
        assert_eq!((share(0.0), share(1.0)), (0, 10_000));
        assert!((800..1200).contains(&share(0.1)));

        let (tracer, _spans) = Tracer::new(1.0, dropped.clone());
        for _ in 0..QUEUE + 3 {
            tracer.end(Span {
                trace: tracer.begin(&HeaderMap::new(), false),
                duration: Duration::ZERO,
                method: "GET".into(),
                scheme: "http",
                host: "a.test".into(),
                port: None,
                version: "1.1",
                user_agent: None,
                path: "/".into(),
                client: [127, 0, 0, 1].into(),
                api: None,
                route: None,
                pattern: None,
                upstream: None,
                status: Some(200),
                failed: false,
                stopped_by: None,
                missing: None,
                ended: SystemTime::now(),
            });
        }
        assert_eq!(dropped.get(), 3);
    }
}

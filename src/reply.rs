//! What the gateway itself tells clients: one catalogue of problems (RFC 9457), written as
//! `application/problem+json`, or as a gRPC status where the client speaks gRPC.
//!
//! A problem says what a client may know. Its `cause` is for the operator and goes to the log only.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use pingora_http::ResponseHeader;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// An answer that the gateway makes itself.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// Header fields besides `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of an answer that is not a problem, or the document of one that is [prepared](Self::prepared).
    pub body: Bytes,
    /// What went wrong, if something did.
    pub problem: Option<Arc<Problem>>,
    /// Whether the connection ends with this answer.
    pub close: bool,
}

/// What went wrong, in the terms of RFC 9457.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The stable name of the kind of problem: the end of its `type` URI.
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// This occurrence in words, for the client.
    pub detail: Cow<'static, str>,
    /// What else the document has (RFC 9457, section 3.2).
    pub members: Map<String, Value>,
    /// The cause, for the operator's log.
    pub cause: Option<Cow<'static, str>>,
}

/// One thing that is wrong with a request, as in the example of RFC 9457, section 3.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where it is.
    #[serde(flatten)]
    pub at: At,
    /// What is wrong there, for the client.
    pub detail: String,
}

/// Where something is wrong in a request.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    /// In the body: a JSON pointer in a URI fragment.
    Pointer(String),
    /// In a parameter of the path, the query or the cookies.
    Parameter(String),
    /// In a header field.
    Header(String),
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $kind:literal, $title:literal;)*) => {
        impl Reply {
            $($(#[$doc])*
            pub fn $name(detail: impl Into<Cow<'static, str>>) -> Self {
                Self::problem(StatusCode::$status, $kind, $title, detail.into())
            })*
        }
    };
}

problems! {
    /// 400: the request cannot be understood, or can be understood in two ways.
    bad_request = BAD_REQUEST, "bad-request", "The request is malformed";
    /// 400: parameters or the body are not as the route wants them.
    invalid_request = BAD_REQUEST, "invalid-request", "The request is not as it must be";
    /// 400: a GraphQL document that is not let through.
    graphql_refused = BAD_REQUEST, "graphql-refused", "The GraphQL request is refused";
    /// 401: nobody knows who asks.
    unauthorized = UNAUTHORIZED, "unauthorized", "The request needs a valid credential";
    /// 403: a policy does not allow it.
    forbidden = FORBIDDEN, "forbidden", "The request is not allowed";
    /// 404: no route matches.
    no_route = NOT_FOUND, "no-route", "No route matches the request";
    /// 405: the path exists, but not with this method.
    method_not_allowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    /// 404, or 400 or 406, by where a version is named: there is no such version.
    unknown_version = NOT_FOUND, "unknown-version", "There is no such version";
    /// 410: the version had its time.
    gone = GONE, "gone", "The version is no longer there";
    /// 413: the body is larger than allowed.
    body_too_large = PAYLOAD_TOO_LARGE, "body-too-large", "The request body is too large";
    /// 414: the target is longer than allowed.
    uri_too_long = URI_TOO_LONG, "uri-too-long", "The request target is too long";
    /// 415: the body is of a kind that is not taken here.
    unsupported_media_type = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The kind of the body is not taken here";
    /// 417: an expectation other than `100-continue`.
    expectation_failed = EXPECTATION_FAILED, "expectation-failed", "The expectation cannot be met";
    /// 421: the request came by a connection that is not for its host.
    misdirected = MISDIRECTED_REQUEST, "misdirected-request", "The request came by the wrong connection";
    /// 429: a limit is used up.
    too_many_requests = TOO_MANY_REQUESTS, "too-many-requests", "Too many requests";
    /// 431: the head is larger than allowed.
    head_too_large = REQUEST_HEADER_FIELDS_TOO_LARGE, "head-too-large", "The request head is too large";
    /// 500: the gateway is at fault.
    internal = INTERNAL_SERVER_ERROR, "internal", "The gateway failed";
    /// 501: a method or coding that the gateway does not know.
    not_implemented = NOT_IMPLEMENTED, "not-implemented", "The gateway does not implement this";
    /// 502: the upstream gave no proper answer.
    bad_upstream = BAD_GATEWAY, "upstream-failed", "The upstream gave no valid answer";
    /// 502, or the status of the part: a part of an answer that is put together failed.
    part_failed = BAD_GATEWAY, "part-failed", "A part of the answer failed";
    /// 502, or what its status is in HTTP: a call of gRPC failed.
    call_failed = BAD_GATEWAY, "grpc-status", "The call failed";
    /// 502: the upstream's answer cannot be made what it is to be.
    bad_answer = BAD_GATEWAY, "answer-unusable", "The upstream's answer cannot be used";
    /// 502, or what the fault means: the upstream's answer is a SOAP Fault.
    soap_fault = BAD_GATEWAY, "soap-fault", "The upstream answered with a SOAP Fault";
    /// 502, or what the errors mean: the upstream's answer has GraphQL errors.
    graphql_errors = BAD_GATEWAY, "graphql-errors", "The upstream answered with GraphQL errors";
    /// 503: no server of the upstream can take the request.
    no_upstream = SERVICE_UNAVAILABLE, "no-upstream", "No server can take the request now";
    /// 503: as many requests are under way as may be.
    busy = SERVICE_UNAVAILABLE, "busy", "Too many requests are under way";
    /// 503: too many requests to the upstream failed.
    breaker_open = SERVICE_UNAVAILABLE, "breaker-open", "The upstream is given time to recover";
    /// 503: the gateway has all the connections that it may have.
    overloaded = SERVICE_UNAVAILABLE, "overloaded", "The gateway is at its limit of connections";
    /// 503: it cannot be found out who asks.
    auth_unavailable = SERVICE_UNAVAILABLE, "auth-unavailable", "Credentials cannot be checked now";
    /// 503: the store of a limit is down.
    limit_unavailable = SERVICE_UNAVAILABLE, "limit-unavailable", "The limit of requests cannot be checked now";
    /// 504: the upstream took too long.
    upstream_timeout = GATEWAY_TIMEOUT, "upstream-timeout", "The upstream took too long";
    /// 504: the client wants a stored answer, and there is none (RFC 9111, section 5.2.1.7).
    not_cached = GATEWAY_TIMEOUT, "not-cached", "There is no stored answer";
    /// 505: another version of HTTP.
    version_not_supported = HTTP_VERSION_NOT_SUPPORTED, "version-not-supported", "The version of HTTP is not supported";
    /// 408: the request did not arrive in time.
    request_timeout = REQUEST_TIMEOUT, "request-timeout", "The request did not arrive in time";
}

/// The methods that can be taken, as in `Allow`.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Reply {
    /// An answer that is no problem.
    pub fn new(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), problem: None, close: false }
    }

    /// A refusal by the status that the reading of a request gives it.
    pub fn refusal(status: u16, detail: impl Into<Cow<'static, str>>) -> Self {
        let reply = match status {
            405 => Self::method_not_allowed(detail).allow(METHODS),
            408 => Self::request_timeout(detail),
            413 => Self::body_too_large(detail),
            414 => Self::uri_too_long(detail),
            417 => Self::expectation_failed(detail),
            431 => Self::head_too_large(detail),
            501 => Self::not_implemented(detail),
            503 => Self::overloaded(detail),
            505 => Self::version_not_supported(detail),
            _ => Self::bad_request(detail),
        };
        reply.closing()
    }

    /// Adds a header field.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds the methods that the path allows (RFC 9110, section 10.2.1).
    pub fn allow(self, methods: &str) -> Self {
        match HeaderValue::from_str(methods) {
            Ok(value) => self.with(ALLOW, value),
            Err(_) => self,
        }
    }

    /// Adds when to try again, in seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds the cause for the operator's log.
    pub fn because(mut self, cause: impl Into<Cow<'static, str>>) -> Self {
        if let Some(problem) = &mut self.problem {
            Arc::make_mut(problem).cause = Some(cause.into());
        }
        self
    }

    /// Adds a member to the document of a problem.
    pub fn and(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        if let Some(problem) = &mut self.problem {
            Arc::make_mut(problem).members.insert(name.into(), value.into());
        }
        self
    }

    /// Gives the answer another status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Writes the document of a problem once, for an answer that many requests get: its clones share it.
    pub fn prepared(mut self) -> Self {
        if let Some(problem) = &self.problem {
            self.body = problem.to_json(self.status).into();
        }
        self
    }

    /// Adds what is wrong with the request, one by one.
    pub fn listing(self, faults: &[Fault]) -> Self {
        self.and("errors", serde_json::json!(faults))
    }

    /// Ends the connection with this answer.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// The answer's head and body. A gRPC client gets its status in trailers-only form.
    pub fn render(&self, grpc: bool) -> (ResponseHeader, Bytes) {
        match &self.problem {
            Some(problem) if grpc => (self.grpc_head(problem), Bytes::new()),
            Some(problem) => {
                let body = match self.body.is_empty() {
                    true => problem.to_json(self.status).into(),
                    false => self.body.clone(),
                };
                (self.head(Some("application/problem+json"), body.len()), body)
            }
            None => (self.head(None, self.body.len()), self.body.clone()),
        }
    }

    fn head(&self, content_type: Option<&'static str>, length: usize) -> ResponseHeader {
        let mut fields = HeaderMap::with_capacity(self.headers.len() + ROOM);
        for (name, value) in &self.headers {
            fields.append(name, value.clone());
        }
        if let Some(content_type) = content_type {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        let forbids_body = self.status.is_informational() || self.status == StatusCode::NO_CONTENT;
        if !forbids_body {
            fields.insert(CONTENT_LENGTH, length.into());
        }
        head(self.status, fields)
    }

    /// Trailers-only: one block of headers that ends the stream.
    fn grpc_head(&self, problem: &Problem) -> ResponseHeader {
        let mut fields = HeaderMap::with_capacity(ROOM);
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(GRPC_STATUS, HeaderValue::from_static(grpc_status(self.status)));
        let message = percent_encoding::utf8_percent_encode(&problem.detail, GRPC_MESSAGE_SET).to_string();
        if let Ok(message) = HeaderValue::try_from(message) {
            fields.insert(GRPC_MESSAGE, message);
        }
        head(StatusCode::OK, fields)
    }

    fn problem(status: StatusCode, kind: &'static str, title: &'static str, detail: Cow<'static, str>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            problem: Some(Arc::new(Problem { kind, title, detail, members: Map::new(), cause: None })),
            close: false,
        }
    }
}

impl Problem {
    fn to_json(&self, status: StatusCode) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document<'p> {
            #[serde(rename = "type", serialize_with = "urn")]
            kind: &'static str,
            title: &'static str,
            status: u16,
            detail: &'p str,
            #[serde(flatten)]
            members: &'p Map<String, Value>,
        }
        fn urn<S: Serializer>(kind: &&'static str, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(&format_args!("urn:portcullis:problem:{kind}"))
        }
        let document = Document {
            kind: self.kind,
            title: self.title,
            status: status.as_u16(),
            detail: &self.detail,
            members: &self.members,
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

/// What gRPC calls an HTTP status: the mapping of the gRPC project, save that a limit is
/// `RESOURCE_EXHAUSTED` and a time-out `DEADLINE_EXCEEDED`, for the gateway knows which it was.
fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "3",
        401 => "16",
        403 => "7",
        404 | 405 | 501 => "12",
        413 | 429 | 431 => "8",
        408 | 504 => "4",
        502 | 503 => "14",
        500 => "13",
        _ => "2",
    }
}

/// gRPC over HTTP/2: everything but printable ASCII, and `%` itself, is percent-encoded.
const GRPC_MESSAGE_SET: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Fields of an answer besides its own, with some that policies add.
const ROOM: usize = 8;

/// Made from plain fields: Pingora's parses every name that it is given.
fn head(status: StatusCode, fields: HeaderMap) -> ResponseHeader {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = status;
    parts.headers = fields;
    parts.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_a_problem_document() {
        let (head, body) = Reply::no_route("no route for GET /x").because("secret").render(false);
        assert_eq!(head.status, 404);
        assert_eq!(head.headers[CONTENT_TYPE], "application/problem+json");
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["type"], "urn:portcullis:problem:no-route");
        assert_eq!(json["status"], 404);
        assert!(!json.to_string().contains("secret"));
    }

    #[test]
    fn what_is_wrong_is_listed() {
        let fault = |at: At, detail: &str| Fault { at, detail: detail.to_owned() };
        let faults = vec![fault(At::Pointer("#/a".into()), "is missing"), fault(At::Parameter("p".into()), "is long")];
        let (_, body) = Reply::invalid_request("two").listing(&faults).render(false);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!([
            { "pointer": "#/a", "detail": "is missing" }, { "parameter": "p", "detail": "is long" }
        ]);
        assert_eq!(json["errors"], expected);
    }

    #[test]
    fn a_grpc_client_gets_a_grpc_status() {
        let (head, body) = Reply::no_route("no route für 100%").render(true);
        assert_eq!((head.status, body.len()), (StatusCode::OK, 0));
        assert_eq!(head.headers["grpc-status"], "12");
        assert_eq!(head.headers["grpc-message"], "no route f%C3%BCr 100%25");
    }
}

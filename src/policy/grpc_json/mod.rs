//! `grpc_json`: gRPC servers for clients that speak JSON, as the annotations `google.api.http` of the methods say.
//!
//! ```toml
//! grpc_json = { descriptors = "shop.binpb", services = ["shop.v1.Shelves"] }
//! ```
//!
//! The route's upstream speaks HTTP/2. A request is judged by its method and path before its body is read; the body is held
//! whole, at most as much as `validate.max_body` allows. Requests in gRPC and gRPC-Web are left alone.
//!
//! Of a method with one answer the whole answer is awaited, so that a status is a problem document. The messages of a stream
//! go on as they come. What is not told in JSON are the trailers besides the status.
//!
//! The message is made of the path and query as the client sent them; a `path` of the policy `request` has no effect.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use pingora_http::{RequestHeader, ResponseHeader};

use super::{Policy, Scope, Shaped, Terms, Verdict};
use crate::body::grpc::{Answer, Call, GrpcConfig, Refused, Status, Transcoder, timeout};
use crate::body::media;
use crate::body::{Filter, HELD, Held, Malformed, Shaper, refusal, reshaped};
use crate::build::Build;
use crate::facts::Facts;
use crate::reply::Reply;
use crate::types::file;

/// The compiled policy.
pub struct GrpcJson {
    transcoder: Arc<Transcoder>,
    /// Bytes of an answer that is held.
    most: u64,
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Fields of an answer that are about gRPC alone.
const OF_GRPC: [HeaderName; 6] = [
    GRPC_STATUS,
    GRPC_ENCODING,
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("grpc-accept-encoding"),
    TRAILER,
];

/// INTERNAL: what is not as it must be is the server's fault.
const INTERNAL: u8 = 13;

impl Policy for GrpcJson {
    type Config = GrpcConfig;

    fn compile(config: GrpcConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let made_of = build.fingerprint(build.node(), &["descriptors"]);
        let transcoder = build.keep(&format!("grpc_json of {}", scope.owner), made_of, |build| {
            let path = build.within("descriptors", |build| build.path(&config.descriptors));
            let descriptors = build.or_report("descriptors", file::read(&path))?;
            match Transcoder::new(&config, &descriptors) {
                Ok(transcoder) => Some(transcoder),
                Err(mistakes) => {
                    for mistake in mistakes {
                        build.error("descriptors", mistake);
                    }
                    None
                }
            }
        })?;
        Some(Self { transcoder, most: config.max_message.0.saturating_add(HEAD) })
    }

    fn settle(&self, terms: &mut Terms) {
        terms.grpc_json = true;
        terms.most_answer = Some(terms.most_answer.unwrap_or(HELD).max(self.most));
    }

    async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        if facts.grpc {
            return Ok(());
        }
        let call = self.transcoder.find(request.method.as_str(), request.uri.path()).map_err(refused)?;
        facts.streaming = call.is_stream();
        facts.call = Some(Box::new(call));
        Ok(())
    }

    fn body(&self, body: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        let Some(call) = &facts.call else { return Ok(()) };
        let content = body.content()?;
        // What is no text is no JSON.
        let content_type = body.content_type().map(|value| value.to_str().unwrap_or_default());
        let frames = call.request(request.uri.query(), content_type, &content).map_err(refused)?;
        body.replace(frames.into(), Some(HeaderValue::from_static("application/grpc")));
        Ok(())
    }

    fn upstream(&self, head: &mut RequestHeader, _: &RequestHeader, facts: &Facts) -> Verdict {
        let Some(call) = &facts.call else { return Ok(()) };
        let mut parts = head.uri.clone().into_parts();
        parts.path_and_query = call.path().parse().ok();
        let uri = Uri::from_parts(parts).map_err(|_| Reply::internal("the method has no path"))?;
        head.set_uri(uri);
        head.set_method(Method::POST);
        [ACCEPT_ENCODING, CONTENT_LENGTH, GRPC_ENCODING, GRPC_TIMEOUT]
            .iter()
            .for_each(|name| drop(head.remove_header(name)));
        for (name, value) in Call::headers() {
            let _ = head.insert_header(name, value);
        }
        if let Some(deadline) = facts.deadline {
            let left = timeout(deadline.saturating_duration_since(Instant::now()));
            let _ = head.insert_header(GRPC_TIMEOUT, left);
        }
        Ok(())
    }

    fn shaper(&self, head: &ResponseHeader, request: &RequestHeader, facts: &Facts) -> Shaped {
        let Some(call) = &facts.call else { return Ok(None) };
        if !is_grpc(head) {
            return Err(failed(&Status::from_http(head.status)));
        }
        let over = head.headers.contains_key(GRPC_STATUS);
        if over {
            // There is nothing but a head.
            let status = Status::from_trailers(&head.headers, Some(&self.transcoder));
            if !status.is_ok() {
                return Err(failed(&status));
            }
        }
        let text = |value: Option<&'_ HeaderValue>| value.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (accept, encoding) = (text(request.headers.get(ACCEPT)), text(head.headers.get(GRPC_ENCODING)));
        let answer =
            call.answer(accept.as_deref(), encoding.as_deref()).map_err(|malformed| refusal(malformed.to_string()))?;
        Ok(Some(Box::new(ToJson { answer, over, transcoder: self.transcoder.clone() })))
    }
}

/// Bytes before a message.
const HEAD: u64 = 5;

/// Whether an answer is one of a gRPC server.
pub(super) fn is_grpc(head: &ResponseHeader) -> bool {
    let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    head.status == StatusCode::OK && media::is_grpc(content_type)
}

/// The answer to a request that is no call.
fn refused(refused: Refused) -> Reply {
    let text = refused.to_string();
    match refused {
        Refused::Path => Reply::no_route(text),
        Refused::Method(allowed) => Reply::method_not_allowed(text).allow(&allowed.join(", ")),
        Refused::MediaType => Reply::unsupported_media_type(text),
        Refused::Variable(_) | Refused::Query(_) | Refused::Body(_) => Reply::bad_request(text),
    }
}

/// The answer to a call that failed.
pub(super) fn failed(status: &Status) -> Reply {
    let detail = match status.message.as_str() {
        "" => format!("the call ended with {}", status.name()),
        message => message.to_owned(),
    };
    let reply = Reply::call_failed(detail).with_status(status.http());
    status.members().into_iter().fold(reply, |reply, (name, value)| reply.and(name, value))
}

/// Makes JSON of an answer.
struct ToJson {
    answer: Answer,
    /// The head said already that the call succeeded.
    over: bool,
    transcoder: Arc<Transcoder>,
}

impl ToJson {
    fn status(&self, trailers: Option<&HeaderMap>) -> Status {
        match trailers {
            None if self.over => Status::new(0, ""),
            None => Status::from_trailers(&HeaderMap::new(), None),
            Some(trailers) => Status::from_trailers(trailers, Some(&self.transcoder)),
        }
    }

    /// Ends a stream whose messages cannot be read.
    fn unreadable(&mut self, malformed: Malformed, out: &mut Vec<u8>) -> Malformed {
        self.answer.fail(&Status::new(INTERNAL, "the server's answer cannot be read"), out);
        // What ends with an error has an end.
        let _ = self.answer.end(out);
        malformed
    }
}

impl Shaper for ToJson {
    fn needs(&self) -> Option<usize> {
        self.answer.is_stream().then_some(0)
    }

    fn head(&mut self, head: &mut ResponseHeader) {
        reshaped(head);
        OF_GRPC.iter().for_each(|name| drop(head.remove_header(name)));
        let _ = head.insert_header(CONTENT_TYPE, HeaderValue::from_static(self.answer.content_type()));
    }

    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, trailers: Option<&HeaderMap>) -> Result<Bytes, Reply> {
        let status = self.status(trailers);
        if !status.is_ok() {
            return Err(failed(&status));
        }
        let mut out = Vec::new();
        let read = self.answer.push(&body, &mut out).and_then(|()| self.answer.end(&mut out));
        read.map_err(|malformed| refusal(malformed.to_string()))?;
        self.head(head);
        Ok(out.into())
    }

    fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.answer.push(part, out).map_err(|malformed| self.unreadable(malformed, out))
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let status = self.status(trailers);
        if !status.is_ok() {
            self.answer.fail(&status, out);
        }
        self.answer.end(out).map_err(|malformed| self.unreadable(malformed, out))
    }
}

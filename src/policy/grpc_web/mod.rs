//! `grpc_web`: gRPC servers for browsers, which cannot read trailers
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>).
//!
//! ```toml
//! grpc_web = true
//! ```
//!
//! The route's upstream speaks HTTP/2. Bodies go on as they come in both directions, but for requests in base64, which are
//! held whole. An answer without a body has its status in the head, as gRPC has it. Other requests are left alone.
//!
//! A browser needs a `cors` policy too, which exposes `grpc-status`, `grpc-message` and `grpc-status-details-bin`.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use super::grpc_json::{failed, is_grpc};
use super::{Policy, Scope, Shaped, Terms, Verdict};
use crate::body::grpc::Status;
use crate::body::grpc::web::{Coding, Decode, Encode};
use crate::body::{Filter, Held, Malformed, Shaper, refusal, reshaped};
use crate::build::{Build, Node, Table, Value};
use crate::facts::Facts;
use crate::reply::Reply;

/// `grpc_web` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// The policy.
pub struct GrpcWeb;

impl Policy for GrpcWeb {
    type Config = Config;

    fn long(short: &Node) -> Option<Node> {
        (short.value == Value::Boolean(true)).then(|| Node { place: short.place, value: Value::Table(Table::new()) })
    }

    fn compile(_: Config, _: &Scope<'_>, _: &mut Build<'_>) -> Option<Self> {
        Some(Self)
    }

    fn settle(&self, terms: &mut Terms) {
        terms.grpc_web = true;
    }

    fn body(&self, body: &mut Held, _: &RequestHeader, facts: &mut Facts) -> Verdict {
        if facts.grpc_web != Some(Coding::Text) {
            return Ok(());
        }
        let (mut decode, mut frames) = (Decode::default(), Vec::new());
        decode.push(&body.content()?, &mut frames)?;
        decode.end(&mut frames)?;
        body.replace(frames.into(), None);
        Ok(())
    }

    fn upstream(&self, head: &mut RequestHeader, request: &RequestHeader, facts: &Facts) -> Verdict {
        if facts.grpc_web.is_some()
            && let Some((_, plain)) = content_type(request).and_then(Coding::of)
        {
            let _ = head.insert_header(CONTENT_TYPE, plain);
            head.remove_header(&CONTENT_LENGTH);
        }
        Ok(())
    }

    fn shaper(&self, head: &ResponseHeader, request: &RequestHeader, facts: &Facts) -> Shaped {
        let (Some(coding), Some(content_type)) = (facts.grpc_web, request.headers.get(CONTENT_TYPE)) else {
            return Ok(None);
        };
        if !is_grpc(head) {
            return Err(failed(&Status::from_http(head.status)));
        }
        let over = head.headers.contains_key("grpc-status");
        Ok(Some(Box::new(ToWeb { encode: Encode::new(coding), over, content_type: content_type.clone() })))
    }
}

fn content_type(request: &RequestHeader) -> Option<&str> {
    request.headers.get(CONTENT_TYPE)?.to_str().ok()
}

/// Puts the trailers of an answer at the end of its body.
struct ToWeb {
    encode: Encode,
    /// The head has the status, and there is no body.
    over: bool,
    /// The client's, which the answer has too.
    content_type: HeaderValue,
}

impl Shaper for ToWeb {
    fn needs(&self) -> Option<usize> {
        Some(0)
    }

    fn head(&mut self, head: &mut ResponseHeader) {
        reshaped(head);
        head.remove_header(&TRAILER);
        let _ = head.insert_header(CONTENT_TYPE, self.content_type.clone());
    }

    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, trailers: Option<&HeaderMap>) -> Result<Bytes, Reply> {
        let mut out = Vec::new();
        let read = self.push(&body, &mut out).and_then(|()| self.end(trailers, &mut out));
        read.map_err(|malformed| refusal(malformed.to_string()))?;
        self.head(head);
        Ok(out.into())
    }

    fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.encode.push(part, out)
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match trailers {
            None if self.over => return Ok(()),
            None => {}
            Some(trailers) => self.encode.trailers(trailers),
        }
        self.encode.end(out)
    }
}

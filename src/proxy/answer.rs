//! What the client gets: the gateway's own answers, and the shaping of an upstream's.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use pingora_core::protocols::http::{HttpTask, ServerSession};
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, Session};

use super::Ctx;
use crate::body::xml::soap::{self, Blame, Version};
use crate::facts::Facts;
use crate::reply::Reply;

/// How long what is left of a request's body is awaited on HTTP/2 once it is answered: a stream whose request was not
/// read to its end would be reset, and the reset may overtake the answer.
pub(super) const DRAIN: Duration = Duration::from_millis(100);

/// Makes an answer of the gateway's own. The policies that saw the request see it too.
pub(super) fn render(reply: &Reply, request: &RequestHeader, ctx: &mut Ctx) -> (ResponseHeader, Bytes) {
    let grpc = ctx.facts.as_ref().is_some_and(|facts| facts.grpc);
    let (mut head, body) = fault(reply, request, ctx).unwrap_or_else(|| reply.render(grpc));
    let is_web = ctx.facts.as_ref().is_some_and(|facts| facts.grpc_web.is_some());
    if let Some(content_type) = request.headers.get(CONTENT_TYPE).filter(|_| is_web && reply.problem.is_some()) {
        let _ = head.insert_header(CONTENT_TYPE, content_type.clone());
    }
    if let (Some(route), Some(facts)) = (&ctx.route, &ctx.facts) {
        route.chain.response(&mut head, request, facts);
    }
    if let (Some(problem), Some(facts)) = (&reply.problem, &mut ctx.facts) {
        facts.stopped_by.get_or_insert(problem.kind);
        facts.cause = facts.cause.take().or_else(|| problem.cause.clone());
    }
    (head, body)
}

/// A problem as a SOAP Fault, for clients that speak SOAP.
fn fault(reply: &Reply, request: &RequestHeader, ctx: &Ctx) -> Option<(ResponseHeader, Bytes)> {
    let problem = reply.problem.as_ref().filter(|_| ctx.terms().is_some_and(|terms| terms.speaks_soap))?;
    let called = ctx.facts.as_ref().and_then(|facts| facts.soap);
    let content_type = request.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let version = called.map_or_else(|| Version::of(content_type), |called| called.version);
    let blame = if reply.status.is_server_error() { Blame::Receiver } else { Blame::Sender };
    let mut told = Reply { problem: None, ..reply.clone() }.with(CONTENT_TYPE, version.content_type());
    told.headers.push((CACHE_CONTROL, HeaderValue::from_static("no-store")));
    told.body = soap::fault(version, blame, &problem.detail, None).into();
    if version == Version::V11 && told.status == StatusCode::BAD_REQUEST {
        // SOAP 1.1, section 6.2.
        told.status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    Some(told.render(false))
}

/// Sends an answer of the gateway's own.
pub(super) async fn send(session: &mut Session, ctx: &mut Ctx, reply: &Reply) -> Result<()> {
    let (head, body) = render(reply, session.req_header(), ctx);
    report(ctx);
    if reply.close {
        session.set_keepalive(None);
    }
    let bodiless = body.is_empty() || session.req_header().method == Method::HEAD;
    // As tasks, for only they let a head end a stream of HTTP/2, as a gRPC status needs it.
    let mut tasks = vec![HttpTask::Header(Box::new(head), bodiless)];
    if !bodiless {
        tasks.push(HttpTask::Body(Some(body), true));
    }
    session.write_response_tasks(tasks).await.map(drop)
}

/// Shapes the head of an upstream's answer for the client.
pub(super) fn shape(session: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) {
    if head.status.is_informational() && head.status != 101 {
        return;
    }
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Either side may be silent while the other speaks: how long both may be is the exchange's own bound.
        session.set_read_timeout(None);
    }
    report(ctx);
    if ctx.fetching.is_some() && ctx.facts.as_ref().is_some_and(Facts::is_call) {
        // Its end is where the trailers are, and not where its length says.
        head.remove_header(&CONTENT_LENGTH);
    }
    ctx.shape_answer(head, session.req_header());
    if session.is_process_shutting_down() {
        session.set_keepalive(None);
    }
}

/// Tells whoever the gateway asks for what was found out.
fn report(ctx: &Ctx) {
    if let (Some(elsewhere), Some(facts)) = (&ctx.fetching, &ctx.facts) {
        *elsewhere.facts.lock() = Some(Box::new(facts.fork(facts.connection.clone())));
    }
}

/// Answers for what went wrong on the way, where there still is someone to answer.
pub(super) async fn failure(session: &mut Session, ctx: &mut Ctx, e: &Error) -> FailToProxy {
    let reply = ctx.stopped.take().or_else(|| explain(ctx, e));
    let code = reply.as_ref().map_or(0, |reply| reply.status.as_u16());
    if let Some(facts) = &mut ctx.facts {
        facts.cause.get_or_insert_with(|| e.to_string().into());
    }
    let answered = session.response_written().is_some_and(|head| !head.status.is_informational());
    let Some(reply) = reply.filter(|_| !answered) else {
        return FailToProxy { error_code: code, can_reuse_downstream: false };
    };
    // Pingora ends a connection whose request failed, and the client is told.
    session.set_keepalive(None);
    let _ = send(session, ctx, &reply).await;
    if session.is_http2() {
        let server: &mut ServerSession = session;
        let _ = tokio::time::timeout(DRAIN, server.drain_request_body()).await;
    }
    FailToProxy { error_code: code, can_reuse_downstream: false }
}

/// The answer for an error; `None` when the client is gone.
fn explain(ctx: &Ctx, e: &Error) -> Option<Reply> {
    Some(match (e.etype(), e.esource()) {
        (ErrorType::HTTPStatus(413), _) => Reply::body_too_large("the body is larger than allowed").closing(),
        (ErrorType::HTTPStatus(503), _) => no_server(ctx),
        (
            ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::HTTPStatus(504),
            ErrorSource::Upstream,
        ) => upstream_failed(ctx, true),
        (_, ErrorSource::Upstream) => upstream_failed(ctx, false),
        (ErrorType::ReadTimedout, ErrorSource::Downstream) => {
            Reply::request_timeout("the request's body did not arrive in time").closing()
        }
        (ErrorType::ReadError, ErrorSource::Downstream) if is_framing(e) => {
            Reply::bad_request("the framing of the request's body is wrong").closing()
        }
        (ErrorType::InvalidHTTPHeader, ErrorSource::Downstream) => {
            Reply::bad_request("the request is malformed").closing()
        }
        (_, ErrorSource::Downstream) => return None,
        _ => Reply::internal("the gateway failed").closing(),
    })
}

/// No server of the upstream is usable.
pub(super) fn no_server(ctx: &Ctx) -> Reply {
    let seconds = ctx.pool().map_or(1, |pool| pool.retry_after().as_secs_f64().ceil().max(1.0) as u64);
    let upstream = ctx.pool().map_or("?", |pool| pool.name());
    if ctx.pool().is_some_and(|pool| pool.is_broken()) {
        return Reply::breaker_open(format!("too many requests to `{upstream}` failed")).retry_after(seconds);
    }
    Reply::no_upstream(format!("no server of `{upstream}` can take requests now")).retry_after(seconds)
}

/// The upstream did not answer, or not in time.
pub(super) fn upstream_failed(ctx: &Ctx, late: bool) -> Reply {
    let upstream = ctx.pool().map_or("?", |pool| pool.name());
    match late {
        true => Reply::upstream_timeout(format!("`{upstream}` did not answer in time")),
        false => Reply::bad_upstream(format!("`{upstream}` gave no valid answer")),
    }
}

/// The connection reports broken framing of a body as invalid data.
fn is_framing(e: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(e);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::InvalidData;
        }
        cause = error.source();
    }
    e.to_string().contains("invalid framing")
}

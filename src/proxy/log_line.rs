//! The access log's line for a request.

use std::time::{Duration, SystemTime};

use http::Version;
use http::header::USER_AGENT;
use pingora_core::Error;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{Ctx, patience};
use crate::facts::{Facts, authority, host};
use crate::telemetry::access_log::Line;
use crate::telemetry::metrics::traffic::{Cached, RouteCounts};
use crate::telemetry::trace::Span;

/// What only the carrier of the exchange knows.
pub(super) struct Carried {
    /// The status that the client got, if it got one.
    pub status: Option<u16>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the response's body.
    pub bytes_out: u64,
    /// Whether the exchange broke.
    pub broke: bool,
}

/// The request is under way: it is counted, and will be logged.
pub(super) fn begin(ctx: &Ctx) {
    counts(ctx).begin();
}

/// What Pingora carried.
pub(super) fn carried(session: &Session, error: Option<&Error>, ctx: &Ctx) -> Carried {
    Carried {
        status: session.response_written().map(|head| head.status.as_u16()),
        bytes_in: if session.was_upgraded() { session.body_bytes_read() as u64 } else { ctx.body },
        bytes_out: session.body_bytes_sent() as u64,
        broke: error.is_some(),
    }
}

/// Counts the request, writes the line, and lets go of the server and of the place among the requests under way.
pub(super) fn write(request: &RequestHeader, carried: &Carried, ctx: &mut Ctx) {
    ctx.attempt = None;
    patience::end(ctx);
    if let Some(facts) = &mut ctx.facts {
        facts.place = None;
    }
    let Some(facts) = &ctx.facts else { return };
    let duration = facts.started.elapsed();
    let own = facts.asked_after.unwrap_or(duration);
    counts(ctx).end(carried.status, duration, facts.first_byte, own);
    if let (Some(how), Some(cache)) = (facts.cache, ctx.route.as_ref().and_then(|route| route.chain.cache())) {
        cache.zone.store.counts().own().answered(how);
    }
    if let Some(api) = ctx.route.as_ref().and_then(|route| route.api.as_ref()) {
        api.uses.count(facts.consumer.as_ref().map(|consumer| &*consumer.name));
    }
    if let Some(by) = facts.stopped_by {
        ctx.gateway.stopped.count(by);
    }
    line(request, carried, facts, (duration, own), ctx);
    trace(request, carried, duration, ctx);
}

fn line(request: &RequestHeader, carried: &Carried, facts: &Facts, (duration, own): (Duration, Duration), ctx: &Ctx) {
    let api = ctx.route.as_ref().and_then(|route| route.api.as_ref());
    let Some(log) = ctx.gateway.logs.at(api.map_or(0, |api| api.log)) else { return };
    let explained = carried.broke || facts.stopped_by.is_some() || facts.shadowed.is_some();
    let cause = facts.cause.as_deref().filter(|_| explained).unwrap_or("");
    log.write(&Line {
        time: None,
        listener: &facts.connection.listener.name,
        client: Some(facts.client),
        consumer: facts.consumer.as_ref().map_or("", |consumer| &consumer.name),
        method: request.method.as_str(),
        host: host(request),
        path: request.uri.path(),
        protocol: match request.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        status: carried.status.unwrap_or(499),
        api: api.map_or("", |api| &api.name),
        route: facts.route.as_deref().unwrap_or(""),
        upstream: facts.upstream.as_deref().unwrap_or(""),
        server: facts.server.as_deref().unwrap_or(""),
        attempts: facts.attempts,
        duration: Some(duration),
        gateway: Some(own),
        waited: Some(facts.waited).filter(|time| !time.is_zero()),
        first_byte: facts.first_byte,
        bytes_in: carried.bytes_in,
        bytes_out: carried.bytes_out,
        trace_id: facts.trace.as_ref().map_or("", |trace| trace.id()),
        request_id: facts.id.to_str().unwrap_or(""),
        tls: facts.connection.tls.as_ref().map_or("", |tls| tls.version),
        stopped_by: facts.stopped_by.unwrap_or(""),
        shadowed: facts.shadowed.unwrap_or(""),
        missing: facts.missing.as_deref().unwrap_or(""),
        cache: facts.cache.map_or("", Cached::word),
        refused: "",
        cause,
        headers: Some(&request.headers),
    });
}

/// Has what became of the request exported: if it was sampled, or has failed.
fn trace(request: &RequestHeader, carried: &Carried, duration: Duration, ctx: &mut Ctx) {
    let (Some(tracer), Some(facts)) = (&ctx.gateway.tracer, &mut ctx.facts) else { return };
    let Some(trace) = facts.trace.take() else { return };
    let failed = carried.status.is_some_and(|status| status >= 500 || (status < 400 && carried.broke));
    if !failed && !trace.is_sampled() {
        return;
    }
    tracer.end(Span {
        trace,
        duration,
        method: request.method.as_str().into(),
        scheme: facts.scheme(request),
        host: host(request).into(),
        port: authority(request).rsplit_once(':').and_then(|(_, port)| port.parse().ok()),
        version: match request.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        },
        user_agent: request.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(Box::from),
        path: request.uri.path().into(),
        client: facts.client,
        api: ctx.route.as_ref().and_then(|route| route.api.as_ref()).map(|api| api.name.clone()),
        route: facts.route.clone(),
        pattern: ctx.route.as_ref().map(|route| route.pattern.clone()),
        upstream: facts.upstream.clone(),
        status: carried.status,
        failed,
        stopped_by: facts.stopped_by,
        missing: facts.missing.clone(),
        ended: SystemTime::now(),
    });
}

/// The numbers of the request's route, or of all requests without one.
fn counts(ctx: &Ctx) -> &RouteCounts {
    ctx.route.as_ref().map_or(&ctx.gateway.no_route, |route| &route.counts).own()
}

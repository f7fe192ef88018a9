//! The access log's line for a request.

use http::Version;
use pingora_core::Error;
use pingora_proxy::Session;

use super::{Ctx, patience};
use crate::facts::host;
use crate::telemetry::access_log::Line;

/// Writes the line, and lets go of the server.
pub(super) fn write(session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
    let upgraded = session.was_upgraded();
    ctx.attempt = None;
    patience::end(ctx);
    let (Some(log), Some(facts)) = (&ctx.gateway.access_log, &ctx.facts) else { return };
    let request = session.req_header();
    let cause = match (&facts.cause, error) {
        (_, None) if facts.stopped_by.is_none() => "",
        (Some(cause), _) => cause,
        (None, _) => "",
    };
    log.write(&Line {
        time: None,
        listener: &facts.connection.listener.name,
        client: Some(facts.client),
        method: request.method.as_str(),
        host: host(request),
        path: request.uri.path(),
        protocol: match request.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        status: session.response_written().map_or(499, |head| head.status.as_u16()),
        route: facts.route.as_deref().unwrap_or(""),
        upstream: facts.upstream.as_deref().unwrap_or(""),
        server: facts.server.as_deref().unwrap_or(""),
        attempts: facts.attempts,
        duration: Some(facts.started.elapsed()),
        first_byte: facts.first_byte,
        bytes_in: if upgraded { session.body_bytes_read() as u64 } else { ctx.body },
        bytes_out: session.body_bytes_sent() as u64,
        request_id: facts.id.to_str().unwrap_or(""),
        tls: facts.connection.tls.as_ref().map_or("", |tls| tls.version),
        stopped_by: facts.stopped_by.unwrap_or(""),
        refused: "",
        cause,
        headers: Some(&request.headers),
    });
}

//! The access log's line for a request.

use http::Version;
use pingora_core::Error;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{Ctx, patience};
use crate::facts::host;
use crate::telemetry::access_log::Line;

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

/// What Pingora carried.
pub(super) fn carried(session: &Session, error: Option<&Error>, ctx: &Ctx) -> Carried {
    Carried {
        status: session.response_written().map(|head| head.status.as_u16()),
        bytes_in: if session.was_upgraded() { session.body_bytes_read() as u64 } else { ctx.body },
        bytes_out: session.body_bytes_sent() as u64,
        broke: error.is_some(),
    }
}

/// Writes the line, and lets go of the server.
pub(super) fn write(request: &RequestHeader, carried: &Carried, ctx: &mut Ctx) {
    ctx.attempt = None;
    patience::end(ctx);
    let (Some(log), Some(facts)) = (&ctx.gateway.access_log, &ctx.facts) else { return };
    let explained = carried.broke || facts.stopped_by.is_some();
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
        route: facts.route.as_deref().unwrap_or(""),
        upstream: facts.upstream.as_deref().unwrap_or(""),
        server: facts.server.as_deref().unwrap_or(""),
        attempts: facts.attempts,
        duration: Some(facts.started.elapsed()),
        first_byte: facts.first_byte,
        bytes_in: carried.bytes_in,
        bytes_out: carried.bytes_out,
        request_id: facts.id.to_str().unwrap_or(""),
        tls: facts.connection.tls.as_ref().map_or("", |tls| tls.version),
        stopped_by: facts.stopped_by.unwrap_or(""),
        refused: "",
        cause,
        headers: Some(&request.headers),
    });
}

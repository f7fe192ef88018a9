//! One attempt at an upstream: which server, what is sent, what its answer means.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::header::{ACCEPT_ENCODING, EXPECT, IF_RANGE, RANGE, TE};
use http::{HeaderValue, Method, Version};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::mirror::{self, Mirrors};
use super::{Attempt, Ctx, forwarded, patience};
use crate::policy::Verdict;
use crate::types::Failure;
use crate::upstream::Pool;

/// The pool that the request goes to, whose name is known from here on.
pub(super) fn pool(ctx: &mut Ctx) -> Option<Arc<Pool>> {
    let pool = ctx.pool()?.clone();
    ctx.facts.as_mut()?.upstream.get_or_insert_with(|| pool.shared_name());
    Some(pool)
}

/// Takes a server for the next attempt; `false` when none is usable.
pub(super) fn choose(ctx: &mut Ctx, request: &RequestHeader) -> bool {
    ctx.attempt = None;
    let Some(pool) = pool(ctx) else { return false };
    let Some(facts) = &mut ctx.facts else { return false };
    let Some(pick) = pool.pick(pool.key(request, facts.client), &ctx.tried) else { return false };
    let started = Instant::now();
    if facts.attempts == 0 {
        pool.budget().request();
        facts.asked_after = Some(started.saturating_duration_since(facts.started));
    } else {
        pick.retried();
    }
    facts.attempts += 1;
    facts.server = Some(pick.backend().name());
    if let Some(trace) = &mut facts.trace {
        trace.attempt(pick.backend().name(), started.saturating_duration_since(facts.started));
    }
    ctx.tried.add(&pick);
    ctx.attempt = Some(Attempt { pick, started, answered: false });
    patience::begin(ctx, request);
    true
}

/// What Pingora needs to know of the server that was taken.
pub(super) fn peer(session: &mut Session, mirrors: &Mirrors, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    if !choose(ctx, session.req_header()) {
        return Err(Error::explain(ErrorType::HTTPStatus(503), "no server is usable"));
    }
    mirror::begin(mirrors, session.req_header(), ctx);
    let Some(attempt) = &ctx.attempt else {
        return Err(Error::explain(ErrorType::InternalError, "no server was taken"));
    };
    let mut peer = attempt.pick.peer();
    peer.options.read_timeout = patience::longest_silence(ctx);
    if let Some(timeouts) = ctx.timeouts() {
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        peer.options.write_timeout = Some(timeouts.first_byte);
    }
    Ok(peer)
}

/// Shapes what Pingora sends to the upstream.
pub(super) fn request(session: &mut Session, head: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    if session.as_mut().is_body_done() {
        patience::sent(ctx);
        mirror::whole_plain(ctx);
    }
    shape(session.req_header(), head, ctx).map_err(|reply| {
        ctx.stopped = Some(reply);
        Error::explain(ErrorType::InternalError, "a policy stopped the request").into_down()
    })
}

/// Shapes what is sent to the upstream: once per attempt.
pub(super) fn shape(original: &RequestHeader, head: &mut RequestHeader, ctx: &Ctx) -> Verdict {
    ctx.pool().map_or(Ok(()), |pool| shape_for(pool, original, head, ctx))
}

/// Shapes what is sent to an upstream that need not be the one of the request.
pub(super) fn shape_for(pool: &Pool, original: &RequestHeader, head: &mut RequestHeader, ctx: &Ctx) -> Verdict {
    let (Some(facts), Some(route)) = (&ctx.facts, &ctx.route) else { return Ok(()) };
    forwarded::write(original, head, facts, pool.forwarded());
    if let Some(sends) = &facts.sends {
        sends.tell(head);
    }
    if route.chain.terms().reads_answers(facts) {
        // Of an answer that is read all is needed, and as it is.
        [RANGE, IF_RANGE].iter().for_each(|name| drop(head.remove_header(name)));
        let _ = head.insert_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if route.shapes_bodies(facts) {
        head.remove_header(&EXPECT);
    }
    route.chain.upstream(head, original, facts)?;
    if facts.is_call() && pool.is_http2() {
        // gRPC servers may insist on it.
        let _ = head.insert_header(TE, HeaderValue::from_static("trailers"));
    }
    Ok(())
}

/// Judges the head of an upstream's answer: it counts, and it may be worth another attempt.
pub(super) fn response(session: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
    if head.status.is_informational() && head.status != 101 {
        return Ok(());
    }
    if head.version == Version::HTTP_10 {
        // A version is that of the sender, not of whom it passes on (RFC 9110, section 2.5).
        head.set_version(Version::HTTP_11);
    }
    let untouched = session.response_written().is_none();
    if answered(&session.req_header().method, untouched, head, ctx) {
        return Ok(());
    }
    let mut error = Error::explain(ErrorType::HTTPStatus(head.status.as_u16()), "the answer is worth another try");
    error.set_retry(true);
    Err(error.into_up())
}

/// The head of the answer is here; gives whether it is the one for the client. `untouched` says that nothing was
/// sent to the client yet.
pub(super) fn answered(method: &Method, untouched: bool, head: &ResponseHeader, ctx: &mut Ctx) -> bool {
    let Some(attempt) = &mut ctx.attempt else { return true };
    let now = Instant::now();
    let latency = now.saturating_duration_since(attempt.started);
    attempt.pick.answered(head.status.as_u16(), latency);
    attempt.answered = true;
    if let Some(facts) = &mut ctx.facts {
        facts.first_byte = Some(latency);
        if let Some(trace) = &mut facts.trace {
            trace.answered(now.saturating_duration_since(facts.started), head.status.as_u16());
        }
    }
    let failure = Failure::Status(head.status.as_u16());
    if head.status.is_server_error() && may_retry(method, untouched, ctx, failure, false) {
        attempt_failed(ctx, failure, false);
        return false;
    }
    patience::answered(ctx, head);
    true
}

/// Decides what follows from an attempt that Pingora could not finish.
pub(super) fn failed(
    session: &mut Session,
    ctx: &mut Ctx,
    mut e: Box<Error>,
    failure: Failure,
    reused: bool,
) -> Box<Error> {
    let retry = match failure {
        // An answer that is worth another try was judged when it came.
        Failure::Status(_) => e.retry(),
        _ => broke(&session.req_header().method, session.response_written().is_none(), ctx, failure, reused),
    };
    if let Some(facts) = &mut ctx.facts {
        facts.cause = Some(Cow::Owned(e.to_string()));
    }
    e.set_retry(retry);
    e
}

/// The attempt broke before its answer was judged; gives whether another one follows.
pub(super) fn broke(method: &Method, untouched: bool, ctx: &mut Ctx, failure: Failure, reused: bool) -> bool {
    let retry = may_retry(method, untouched, ctx, failure, reused);
    attempt_failed(ctx, failure, reused);
    if retry && reused && failure == Failure::Reset {
        // The server closed an idle connection: the same one may be asked again.
        ctx.tried.clear();
    }
    retry
}

fn attempt_failed(ctx: &mut Ctx, failure: Failure, reused: bool) {
    if let Some(trace) = ctx.facts.as_mut().and_then(|facts| facts.trace.as_mut()) {
        match failure {
            Failure::Connect => trace.failed("connect"),
            Failure::ConnectTimeout => trace.failed("connect_timeout"),
            Failure::Reset => trace.failed("reset"),
            Failure::Timeout => trace.failed("timeout"),
            Failure::Status(_) => {}
        }
    }
    if let Some(attempt) = &ctx.attempt
        && !(reused && failure == Failure::Reset)
    {
        attempt.pick.failed(failure);
    }
}

/// Whether another attempt is allowed: by the method, the body, the policy, and the budget.
fn may_retry(method: &Method, untouched: bool, ctx: &Ctx, failure: Failure, reused: bool) -> bool {
    let (Some(pool), Some(facts)) = (ctx.pool(), &ctx.facts) else { return false };
    if !untouched || (ctx.body > 0 && !ctx.replays) {
        // Part of the body may have been sent, and is not there any more.
        return false;
    }
    if ctx.patience.is_over() {
        // The next server would have no time, and it would count against it.
        return false;
    }
    let idempotent = method.is_idempotent();
    if reused && failure == Failure::Reset {
        return idempotent && facts.attempts < 8;
    }
    let (attempts, on) = pool.retry();
    let own = ctx.terms().map(|terms| &terms.retry);
    let attempts = own.and_then(|own| own.attempts).unwrap_or(attempts);
    let on = own.and_then(|own| own.on.as_ref()).unwrap_or(on);
    let safe = idempotent || matches!(failure, Failure::Connect | Failure::ConnectTimeout);
    safe && facts.attempts <= attempts && on.has(failure) && !pool.is_broken() && pool.budget().withdraw()
}

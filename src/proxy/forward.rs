//! One attempt at an upstream: which server, what is sent, what its answer means.

use std::borrow::Cow;
use std::time::Instant;

use http::Version;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{Attempt, Ctx, forwarded, patience};
use crate::upstream::{Failure, ForwardedStyle};

/// Takes a server for the next attempt.
pub(super) fn peer(session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
    ctx.attempt = None;
    let Some(pool) = ctx.pool().cloned() else {
        return Err(Error::explain(ErrorType::InternalError, "the route has no upstream"));
    };
    let Some(facts) = &mut ctx.facts else {
        return Err(Error::explain(ErrorType::InternalError, "no facts were gathered"));
    };
    let request = session.req_header();
    facts.upstream.get_or_insert_with(|| pool.shared_name());
    let Some(pick) = pool.pick(pool.key(request, facts.client), &ctx.tried) else {
        return Err(Error::explain(ErrorType::HTTPStatus(503), "no server is usable"));
    };
    if facts.attempts == 0 {
        pool.budget().request();
    }
    facts.attempts += 1;
    facts.server = Some(pick.backend().name());

    let mut peer = pick.peer();
    ctx.tried.add(&pick);
    ctx.attempt = Some(Attempt { pick, started: Instant::now(), answered: false });
    patience::begin(ctx, request, &pool, &mut peer);
    Ok(peer)
}

/// Shapes what is sent to the upstream.
pub(super) fn request(session: &mut Session, head: &mut RequestHeader, ctx: &mut Ctx) -> Result<()> {
    if session.as_mut().is_body_done() {
        patience::sent(ctx);
    }
    let original = session.req_header();
    let facts = ctx.facts()?;
    let style = ctx.pool().map_or(ForwardedStyle::None, |pool| pool.forwarded());
    forwarded::write(original, head, facts, style);
    if let Some(route) = &ctx.route
        && let Err(reply) = route.chain.upstream(head, original, facts)
    {
        ctx.stopped = Some(reply);
        return Err(Error::explain(ErrorType::InternalError, "a policy stopped the request").into_down());
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
    let Some(attempt) = &mut ctx.attempt else { return Ok(()) };
    let latency = attempt.started.elapsed();
    attempt.pick.first_byte(latency);
    attempt.answered = true;
    if let Some(facts) = &mut ctx.facts {
        facts.first_byte = Some(latency);
    }
    let failure = Failure::Status(head.status.as_u16());
    if head.status.is_server_error() && may_retry(session, ctx, failure, false) {
        let mut error = Error::explain(ErrorType::HTTPStatus(head.status.as_u16()), "the answer is worth another try");
        error.set_retry(true);
        return Err(error.into_up());
    }
    patience::answered(ctx, head);
    Ok(())
}

/// Decides what follows from a failed attempt.
pub(super) fn failed(
    session: &mut Session,
    ctx: &mut Ctx,
    mut e: Box<Error>,
    failure: Failure,
    reused: bool,
) -> Box<Error> {
    // An answer that is worth another try was judged when it came.
    let judged = matches!(failure, Failure::Status(_));
    let retry = if judged { e.retry() } else { may_retry(session, ctx, failure, reused) };
    if let Some(attempt) = &ctx.attempt
        && !(reused && failure == Failure::Reset)
    {
        attempt.pick.failed(failure);
    }
    if retry && reused && failure == Failure::Reset {
        // The server closed an idle connection: the same one may be asked again.
        ctx.tried.clear();
    }
    if let Some(facts) = &mut ctx.facts {
        facts.cause = Some(Cow::Owned(e.to_string()));
    }
    e.set_retry(retry);
    e
}

/// Whether another attempt is allowed: by the method, the body, the policy, and the budget.
fn may_retry(session: &mut Session, ctx: &Ctx, failure: Failure, reused: bool) -> bool {
    let (Some(pool), Some(facts)) = (ctx.pool(), &ctx.facts) else { return false };
    if session.response_written().is_some() || ctx.body > 0 {
        // Part of the body may have been sent, and what was sent is never sent again.
        return false;
    }
    let idempotent = session.req_header().method.is_idempotent();
    if reused && failure == Failure::Reset {
        return idempotent && facts.attempts < 8;
    }
    let policy = pool.retry();
    let safe = idempotent || failure == Failure::Connect;
    safe && facts.attempts <= policy.attempts && policy.allows(failure) && pool.budget().withdraw()
}

//! Copies of requests for another upstream, whose answers nobody waits for.
//!
//! A copy is begun when the first server is taken for its request, and sent when that is whole: by a task of its own,
//! on the worker that has the request. The client's exchange only hands over what it sends anyway, so nothing that
//! becomes of a copy can be felt there. What copies may cost is bounded: in number by [`MOST`], in memory by the
//! `max_body` of the mirror, in time by the `timeouts` of its upstream or [`LONGEST`].
//!
//! A copy is never sent twice, but for a connection that its server had closed already (and then only where the method
//! is idempotent). It counts for the health of its upstream as any request does.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::http::header::{CONNECTION, EXPECT};
use ::http::request::Parts;
use ::http::{HeaderValue, Method};
use pingora_http::RequestHeader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::forwarded::X_PORTCULLIS_MIRROR;
use super::{Ctx, forward};
use crate::facts::{Facts, body_length};
use crate::gateway::{Mirror, Route};
use crate::http1::{Framing, Malformed, remove_nominated, write_request};
use crate::telemetry::metrics::traffic::Mirrored;
use crate::types::Failure;
use crate::upstream::{Idle, Server, Tried};

/// The copies of one worker.
pub struct Mirrors {
    idle: Arc<Idle>,
    places: Arc<Semaphore>,
}

/// Copies under way at most, on one worker.
const MOST: usize = 64;
/// How long a copy may take where its upstream has no `total`.
const LONGEST: Duration = Duration::from_secs(60);
/// Interim answers before an answer.
const MOST_INTERIM: usize = 100;

/// A copy in the making, or on its way.
pub(super) struct Copy {
    route: Arc<Route>,
    /// What the mirror's hash is taken of.
    key: Option<u64>,
    head: RequestHeader,
    /// The body, framed as it is sent.
    body: Vec<u8>,
    idle: Arc<Idle>,
    /// What is counted of it in the end.
    result: Mirrored,
    _place: OwnedSemaphorePermit,
}

impl Mirrors {
    /// The idle connections to servers, which copies share with what they are copies of.
    pub(super) fn idle(&self) -> Arc<Idle> {
        self.idle.clone()
    }
}

impl Default for Mirrors {
    /// No copies and no connections yet.
    fn default() -> Self {
        Self { idle: Arc::default(), places: Arc::new(Semaphore::new(MOST)) }
    }
}

/// Whether a mirror takes copies of requests like this: no streams, and no bodies that are said to be too long.
pub(super) fn takes(mirror: &Mirror, request: &RequestHeader, facts: &Facts) -> bool {
    !facts.streaming && body_length(request).is_none_or(|length| length <= mirror.max_body)
}

/// A server was taken for the request: begins a copy, if its route has a mirror and its turn has come.
pub(super) fn begin(mirrors: &Mirrors, request: &RequestHeader, ctx: &mut Ctx) {
    let (Some(route), Some(facts)) = (&ctx.route, &ctx.facts) else { return };
    let Some(mirror) = &route.mirror else { return };
    if facts.attempts != 1 || fastrand::f64() >= mirror.share {
        return;
    }
    if !takes(mirror, request, facts) {
        return mirror.counts.count(Mirrored::Skipped);
    }
    let Ok(place) = mirrors.places.clone().try_acquire_owned() else {
        return mirror.counts.count(Mirrored::Dropped);
    };
    let mut head = request.clone();
    // Where a policy stops it, it stops the request itself as well.
    let Ok(()) = forward::shape_for(&mirror.pool, request, &mut head, ctx) else { return };
    let mut parts = Parts::from(head);
    if parts.headers.contains_key(CONNECTION) {
        remove_nominated(&mut parts.headers);
    }
    parts.headers.remove(EXPECT);
    parts.headers.insert(X_PORTCULLIS_MIRROR, HeaderValue::from_static("1"));
    ctx.copy = Some(Box::new(Copy {
        route: route.clone(),
        key: mirror.pool.key(request, facts.client),
        head: parts.into(),
        body: Vec::new(),
        idle: mirrors.idle.clone(),
        result: Mirrored::Skipped,
        _place: place,
    }));
}

/// A part of the request's body is sent, framed like this.
pub(super) fn part(bytes: &[u8], ctx: &mut Ctx) {
    let Some(copy) = &mut ctx.copy else { return };
    let most = copy.route.mirror.as_ref().map_or(0, |mirror| mirror.max_body);
    match (copy.body.len() + bytes.len()) as u64 > most {
        true => ctx.copy = None,
        false => copy.body.extend_from_slice(bytes),
    }
}

/// The request is whole, with a body framed like this: its copy is sent.
pub(super) fn whole(framing: Framing, ctx: &mut Ctx) {
    if let Some(copy) = ctx.copy.take() {
        tokio::spawn(copy.send(framing));
    }
}

/// As [`whole`], where the body was handed over without any framing.
pub(super) fn whole_plain(ctx: &mut Ctx) {
    let framing = match ctx.copy.as_ref().map_or(0, |copy| copy.body.len()) {
        0 => Framing::None,
        length => Framing::Length(length as u64),
    };
    whole(framing, ctx);
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(mirror) = &self.route.mirror {
            mirror.counts.count(self.result);
        }
    }
}

impl Copy {
    async fn send(mut self: Box<Self>, framing: Framing) {
        self.result = Mirrored::Failed;
        let route = self.route.clone();
        if let Some(mirror) = &route.mirror
            && self.exchange(mirror, framing).await.is_some()
        {
            self.result = Mirrored::Answered;
        }
    }

    /// One exchange, whose answer is read and forgotten; `None` where there is none.
    async fn exchange(&self, mirror: &Mirror, framing: Framing) -> Option<()> {
        let pool = &mirror.pool;
        let timeouts = pool.timeouts();
        let until = Instant::now() + timeouts.total.unwrap_or(LONGEST);
        let pick = pool.pick(self.key, &Tried::default())?;
        let backend = pick.shared();
        let mut kept = self.idle.take(&backend);
        loop {
            let reused = kept.is_some();
            let mut server = match kept.take() {
                Some(server) => server,
                None => match Server::connect(&backend, timeouts.connect).await {
                    Ok(server) => server,
                    Err(error) => {
                        pick.failed(match error.kind() {
                            io::ErrorKind::TimedOut => Failure::ConnectTimeout,
                            _ => Failure::Connect,
                        });
                        return None;
                    }
                },
            };
            write_request(&self.head, framing, &mut server.unsent);
            server.unsent.extend_from_slice(&self.body);
            let asked = Instant::now();
            let status = match timeout_at(until.min(asked + timeouts.first_byte), self.answer(&mut server)).await {
                Ok(Ok(status)) => status,
                Ok(Err(_)) if reused && !server.was_heard() => match self.head.method.is_idempotent() {
                    true => continue,
                    false => return None,
                },
                Ok(Err(_)) => {
                    pick.failed(Failure::Reset);
                    return None;
                }
                Err(_) => {
                    pick.failed(Failure::Timeout);
                    return None;
                }
            };
            pick.answered(status, asked.elapsed());
            if let Ok(Ok(())) = timeout_at(until, discard(&mut server, timeouts.idle)).await {
                self.idle.put(&backend, server, true, pool.keepalive());
            }
            return Some(());
        }
    }

    /// Sends the request and gives the status of its answer.
    async fn answer(&self, server: &mut Server) -> io::Result<u16> {
        let bodiless = self.head.method == Method::HEAD;
        for _ in 0..MOST_INTERIM {
            let answer = poll_fn(|cx| {
                // A server may answer before it has read everything, and then take no more.
                if let Poll::Ready(Err(_)) = server.poll_send(cx) {
                    server.give_up();
                }
                server.poll_head(cx, bodiless)
            });
            match answer.await?.head.status.as_u16() {
                101 => return Err(Malformed("the server switched protocols unasked").into()),
                100..=199 => {}
                status => return Ok(status),
            }
        }
        Err(Malformed("the server gave interim answers only").into())
    }
}

/// Reads the body of an answer to its end, unless it is silent for too long.
async fn discard(server: &mut Server, idle: Duration) -> io::Result<()> {
    loop {
        let more = poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = server.poll_send(cx) {
                server.give_up();
            }
            server.poll_body(cx)
        });
        if !timeout(idle, more).await?? {
            return Ok(());
        }
        server.consume(server.data().len());
    }
}

//! The short way: a request to a server that speaks HTTP/1.1 without TLS goes from socket to socket.
//!
//! It asks the same gateway for the same things in the same order as Pingora's hooks do, and costs little over half
//! as much, for nothing lies between the two connections. What needs more goes the long way, by Pingora: HTTP/2 and
//! TLS to the server, protocols that are switched to, `Expect`.

mod aggregate;
mod around;
mod cached;
mod exchange;
mod fetch;
mod http1;
mod http2;
mod shaped;
mod upload;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::Version;
use ::http::header::{CONTENT_LENGTH, EXPECT};
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_http::RequestHeader;
use tokio::io::DuplexStream;

use self::cached::Not;
use self::exchange::{Broken, Client, Exchange, Fault, Waiting};
use self::http1::Http1;
use self::http2::Http2;
use self::upload::Upload;
use super::log_line::Carried;
use super::mirror::{self, Mirrors};
use super::patience::Patience;
use super::{Ctx, admit, answer, forward, log_line};
use crate::deadline::Alarm;
use crate::facts::Connection;
use crate::gateway::{Destination, Gateway};
use crate::http1::{Framing, keeps_alive, parse_request};
use crate::reply::Reply;
use crate::types::Failure;
use crate::upstream::{Idle, Server};

pub(super) use self::around::Elsewhere;
pub(super) use self::cached::Said;
pub use self::http1::Wire;

/// A worker's short way.
#[derive(Clone)]
pub struct Direct {
    gateway: Arc<ArcSwap<Gateway>>,
    idle: Arc<Idle>,
    long_way: LongWay,
    mirrors: Arc<Mirrors>,
}

/// Serves a request of the gateway's own by Pingora, at a stream within the gateway: the connection that it comes by, its
/// head, and how the body is framed that follows.
pub type LongWay = Arc<dyn Fn(DuplexStream, Arc<Connection>, BytesMut, Framing) + Send + Sync>;

/// What became of a request.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Served {
    /// Nothing: it goes the long way.
    NotHere,
    /// It was answered, and the connection waits for the next.
    Keep,
    /// It was answered, or could not be, and the connection ends.
    Close,
}

/// Whether a connection is to end with the answer that begins.
pub type Ending<'e> = dyn Fn() -> bool + Send + Sync + 'e;

/// How often idle connections are looked over.
const SWEEP: Duration = Duration::from_secs(5);

impl Direct {
    /// A short way over the configuration that `gateway` holds at the time of each request, beside this long one and with its
    /// copies of requests. Must be made on the runtime of the worker that it is for.
    pub fn new(gateway: Arc<ArcSwap<Gateway>>, mirrors: Arc<Mirrors>, long_way: LongWay) -> Self {
        let idle = mirrors.idle();
        let swept = Arc::downgrade(&idle);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                match swept.upgrade() {
                    Some(idle) => idle.sweep(),
                    None => return,
                }
            }
        });
        Self { gateway, idle, mirrors, long_way }
    }

    /// Serves a request whose head was found to be sound. `ending` says, when the answer begins, whether the
    /// connection is to end with it.
    pub async fn http1<W: Wire>(&self, wire: &mut W, head: &Bytes, body: Framing, ending: &Ending<'_>) -> Served {
        let Ok(mut request) = parse_request(head) else { return Served::NotHere };
        let old = request.version == Version::HTTP_10;
        let keep = keeps_alive(&request.headers, old);
        let ctx = Ctx::new(self.gateway.load_full());
        let mut client = Http1 { wire, old, chunk: None };
        match self.serve(&mut client, &mut request, body, ctx, keep, ending).await {
            None => Served::NotHere,
            Some(true) => Served::Keep,
            Some(false) => Served::Close,
        }
    }

    /// Serves a stream of HTTP/2; gives whether it did.
    pub async fn http2(&self, session: &mut HttpSession, connection: Arc<Connection>) -> bool {
        let empty = ::http::Request::new(()).into_parts().0;
        let mut request = std::mem::replace(session.req_header_mut(), empty.into());
        let length = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = match (session.is_body_done(), length) {
            (true, _) | (_, Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Chunked,
        };
        let mut ctx = Ctx::new(self.gateway.load_full());
        ctx.patience = Patience::own();
        let mut client = Http2 { session, connection, alarm: Alarm::default() };
        let served = self.serve(&mut client, &mut request, body, ctx, true, &|| false).await;
        if served.is_none() {
            *client.session.req_header_mut() = request;
        } else {
            client.drain().await;
        }
        served.is_some()
    }

    /// Gives whether the connection is to be kept; `None` when the request has to go the long way.
    async fn serve<C: Client>(
        &self,
        client: &mut C,
        request: &mut RequestHeader,
        body: Framing,
        mut ctx: Ctx,
        keep: bool,
        ending: &Ending<'_>,
    ) -> Option<bool> {
        ctx.facts = Some(admit::gather(client.connection().clone(), request));
        let mut verdict = admit::route(request, &mut ctx);
        let needs_more = |ctx: &Ctx| {
            request.headers.contains_key(EXPECT)
                || (!cached::is_for_it(request, body, ctx) && ctx.pools().any(|pool| !pool.is_plain_h1()))
        };
        if !ctx.shapes_bodies() && needs_more(&ctx) {
            return None;
        }
        log_line::begin(&ctx);
        admit::trace(request, &mut ctx);
        if verdict.is_ok() {
            verdict = admit::enter(request, &mut ctx).await;
        }
        let upload = Upload::new(body);
        let mut exchange =
            Exchange { client, request, keep, ending, upload, waiting: Waiting::Nobody, status: None, sent: 0 };
        let ended = match verdict {
            Ok(()) => self.answer(&mut exchange, &mut ctx).await,
            Err(reply) => Err(Fault::Reply(reply)),
        };
        let broke = match ended {
            Ok(()) => false,
            Err(fault) => exchange.end(fault, &mut ctx).await,
        };
        let carried = Carried { status: exchange.status, bytes_in: ctx.body, bytes_out: exchange.sent, broke };
        let keep = exchange.keep;
        log_line::write(request, &carried, &mut ctx);
        Some(keep)
    }

    /// Has the request answered from the cache or by a server.
    async fn answer<C: Client>(&self, exchange: &mut Exchange<'_, C>, ctx: &mut Ctx) -> Result<(), Fault> {
        if ctx.route.as_ref().is_some_and(|route| route.chain.cache().is_some()) {
            match self.answer_from_cache(exchange, ctx).await {
                Ok(()) => return Ok(()),
                Err(Not::Done(fault)) => return Err(fault),
                Err(Not::Asked) => {}
            }
        }
        self.ask(exchange, ctx).await
    }

    /// Has the request answered by whoever is behind the route.
    async fn ask<C: Client>(&self, exchange: &mut Exchange<'_, C>, ctx: &mut Ctx) -> Result<(), Fault> {
        let Some(route) = ctx.route.clone() else { return Err(Fault::Reply(Reply::internal("there is no route"))) };
        let aggregate = match &route.destination {
            Destination::Aggregate(aggregate) => Some(aggregate),
            _ => None,
        };
        match ctx.facts.as_ref().is_some_and(|facts| route.holds_body(facts)) {
            true => exchange.hold(ctx).await?,
            false => exchange.go_on(ctx).await?,
        }
        match aggregate {
            Some(aggregate) => self.aggregate(aggregate, exchange, ctx).await,
            None => self.reach(exchange, ctx).await,
        }
    }

    /// Has the request answered by a server, by the short way or by the long.
    async fn reach<C: Client>(&self, exchange: &mut Exchange<'_, C>, ctx: &mut Ctx) -> Result<(), Fault> {
        match ctx.pool().is_some_and(|pool| pool.is_plain_h1()) {
            true => self.forward(exchange, ctx).await,
            false => self.by_pingora(exchange, ctx).await,
        }
    }

    /// Asks one server after the other, as far as that is allowed.
    async fn forward<C: Client>(&self, exchange: &mut Exchange<'_, C>, ctx: &mut Ctx) -> Result<(), Fault> {
        let method = &exchange.request.method;
        let (Some(pool), Some(timeouts)) = (ctx.pool().cloned(), ctx.timeouts()) else {
            return Err(Fault::Reply(Reply::internal("the route has no upstream")));
        };
        loop {
            if !forward::choose(ctx, exchange.request) {
                return Err(Fault::Reply(answer::no_server(ctx)));
            }
            mirror::begin(&self.mirrors, exchange.request, ctx);
            let Some(backend) = ctx.attempt.as_ref().map(|attempt| attempt.pick.shared()) else {
                return Err(Fault::Reply(Reply::internal("no server was taken")));
            };
            let (mut server, reused) = match self.idle.take(&backend) {
                Some(server) => (server, true),
                None => match Server::connect(&backend, timeouts.connect).await {
                    Ok(server) => (server, false),
                    Err(error) => {
                        let late = error.kind() == io::ErrorKind::TimedOut;
                        explain(ctx, "connecting", &error);
                        let failure = if late { Failure::ConnectTimeout } else { Failure::Connect };
                        if forward::broke(method, true, ctx, failure, false) {
                            continue;
                        }
                        return Err(Fault::Reply(answer::upstream_failed(ctx, late)));
                    }
                },
            };
            match exchange.attempt(&mut server, ctx).await {
                Ok(()) => {
                    self.idle.put(&backend, server, exchange.upload.is_read(), pool.keepalive());
                    return Ok(());
                }
                Err(Broken::Again) => {}
                Err(Broken::Server(error)) => {
                    let late = error.kind() == io::ErrorKind::TimedOut;
                    explain(ctx, "the exchange with the server", &error);
                    let untouched = exchange.status.is_none();
                    let failure = if late { Failure::Timeout } else { Failure::Reset };
                    // Who said something was not gone already.
                    let stale = reused && !server.was_heard();
                    if forward::broke(method, untouched, ctx, failure, stale) {
                        continue;
                    }
                    return Err(match untouched {
                        true => Fault::Reply(answer::upstream_failed(ctx, late)),
                        false => Fault::Cut,
                    });
                }
                Err(Broken::Client(fault)) => return Err(fault),
            }
        }
    }
}

fn explain(ctx: &mut Ctx, what: &str, error: &impl std::fmt::Display) {
    if let Some(facts) = &mut ctx.facts {
        facts.cause = Some(format!("{what}: {error}").into());
    }
}

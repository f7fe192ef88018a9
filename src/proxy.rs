//! The adapter between Pingora's hooks and the gateway: each hook asks the gateway's own, socket-free code and
//! carries the answer over.
//!
//! What a plain HTTP/1 server can answer goes a shorter way, past Pingora: see [`Direct`]. Both ask the same
//! functions in the same order.
//!
//! The way of a request: [`early_request_filter`](ProxyHttp::early_request_filter) gathers what is known,
//! `request_filter` judges it and answers what needs no upstream, `upstream_peer` takes a server (once per
//! attempt), `upstream_request_filter` shapes what is sent, `response_filter` shapes what comes back, and
//! `logging` writes the line.

mod admit;
mod answer;
mod direct;
mod forward;
mod forwarded;
mod log_line;
mod mirror;
mod patience;
mod rehearsal;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::body::{Room, Shaping};
use crate::facts::{Connection, Facts};
use crate::gateway::{Choice, Destination, Gateway, Part, Route};
use crate::policy::Terms;
use crate::reply::Reply;
use crate::types::Failure;
use crate::upstream::{Pick, Pool, Timeouts, Tried};
use patience::Patience;

pub use direct::{Direct, LongWay, Served, Wire};
use direct::{Elsewhere, Said};
pub use mirror::Mirrors;
pub use rehearsal::{End, Outcome};

/// The gateway as Pingora sees it; every worker has one of its own over the same configuration.
pub struct Proxy {
    gateway: Arc<ArcSwap<Gateway>>,
    mirrors: Arc<Mirrors>,
}

/// What lives for one request.
pub struct Ctx {
    /// The configuration that the request began with and ends with.
    gateway: Arc<Gateway>,
    route: Option<Arc<Route>>,
    /// Which of a split's upstreams takes it.
    choice: Choice,
    facts: Option<Facts>,
    attempt: Option<Attempt>,
    tried: Tried,
    /// The answer of a policy that stopped the request on its way to the upstream.
    stopped: Option<Reply>,
    /// Bytes of the request body so far.
    body: u64,
    /// The body is held, so that every server gets all of it.
    replays: bool,
    /// How long the upstream is waited for.
    patience: Patience,
    /// What the cache had to do with the answer.
    said: Option<Said>,
    /// Who waits for the answer, if the gateway makes the request itself.
    fetching: Option<Arc<Elsewhere>>,
    /// Where the request is made, if it is made by another of the gateway's own.
    elsewhere: Option<Arc<Elsewhere>>,
    /// What the request's body takes where bodies are held.
    room: Room,
    /// The copy of the request that is being made, if one is.
    copy: Option<Box<mirror::Copy>>,
}

/// One try at one server.
struct Attempt {
    pick: Pick,
    started: Instant,
    answered: bool,
}

impl Proxy {
    /// A proxy over the configuration that `gateway` holds at the time of each request, with the copies of its
    /// worker's short way.
    pub fn new(gateway: Arc<ArcSwap<Gateway>>, mirrors: Arc<Mirrors>) -> Self {
        Self { gateway, mirrors }
    }
}

impl Ctx {
    fn new(gateway: Arc<Gateway>) -> Self {
        Self {
            gateway,
            route: None,
            choice: Choice::default(),
            facts: None,
            attempt: None,
            tried: Tried::default(),
            stopped: None,
            body: 0,
            replays: false,
            patience: Patience::default(),
            said: None,
            fetching: None,
            elsewhere: None,
            room: Room::default(),
            copy: None,
        }
    }

    /// For a fetch on behalf of a request, which comes by this connection.
    fn for_fetch(&self, connection: Arc<Connection>) -> Self {
        Self {
            route: self.route.clone(),
            choice: self.choice,
            facts: self.facts.as_ref().map(|facts| facts.fork(connection)),
            ..Self::new(self.gateway.clone())
        }
    }

    /// For a part of an answer that is put together.
    fn for_part(&self, part: &Part) -> Option<Self> {
        let facts = self.facts.as_ref()?;
        let mut own = Facts { connection: Arc::new(facts.connection.within()), ..facts.unasked() };
        (own.grpc, own.grpc_web, own.streaming) = (false, None, false);
        Some(Self {
            route: Some(part.route.clone()),
            facts: Some(own),
            patience: Patience::own(),
            ..Self::new(self.gateway.clone())
        })
    }

    /// What the cache had to do with the answer.
    fn say(&mut self, said: Said) {
        if let Some(facts) = &mut self.facts {
            facts.cache = Some(said.how());
        }
        self.said = Some(said);
    }

    fn pool(&self) -> Option<&Arc<Pool>> {
        match self.route.as_ref().map(|route| &route.destination) {
            Some(Destination::Upstream(pool)) => Some(pool),
            Some(Destination::Split(split)) => Some(split.pool(self.choice)),
            _ => None,
        }
    }

    /// What the route's policies say of the exchange.
    fn terms(&self) -> Option<&Terms> {
        self.route.as_ref().map(|route| route.chain.terms())
    }

    /// Bytes that the request's body may have.
    fn max_body(&self) -> Option<u64> {
        let listener = self.facts.as_ref().and_then(|facts| facts.connection.listener.limits.max_body);
        listener.into_iter().chain(self.terms().and_then(|terms| terms.max_body)).min()
    }

    /// The longest that things may take: what the route says, and else what the upstream does.
    fn timeouts(&self) -> Option<Timeouts> {
        let (all, own) = (self.pool()?.timeouts(), &self.terms()?.timeout);
        Some(Timeouts {
            connect: own.connect.unwrap_or(all.connect),
            first_byte: own.first_byte.unwrap_or(all.first_byte),
            idle: own.idle.unwrap_or(all.idle),
            total: own.total.or(all.total),
        })
    }

    /// The upstreams that the request may go to.
    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        let (one, several) = match self.route.as_ref().map(|route| &route.destination) {
            Some(Destination::Upstream(pool)) => (Some(pool), None),
            Some(Destination::Split(split)) => (None, Some(split.pools())),
            _ => (None, None),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    /// Takes over what was found out where the request was made.
    fn catch_up(&mut self) {
        let found = self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.facts.lock().take());
        if let (Some(facts), Some(found)) = (&mut self.facts, found) {
            facts.adopt(*found);
        }
    }

    /// What came after the body of the answer.
    fn trailers(&self) -> Option<HeaderMap> {
        self.elsewhere.as_ref().and_then(|elsewhere| elsewhere.trailers.lock().take())
    }

    /// What becomes of the body of an answer with this head, if anything does: `to_shape` as the upstream gave it, and
    /// `to_send` to a client. The gateway's own answers are left as they are.
    fn shaping(
        &self,
        head: &mut ResponseHeader,
        what: (bool, bool),
        request: &RequestHeader,
    ) -> Result<Option<Shaping>, Reply> {
        let (Some(route), Some(facts)) = (&self.route, &self.facts) else { return Ok(None) };
        if !route.chain.shapes_bodies(facts) || facts.stopped_by.is_some() {
            return Ok(None);
        }
        let shaping = route.chain.shaping(head, what, request, facts)?;
        Ok(Some(shaping).filter(|shaping| !shaping.is_empty()))
    }

    /// Whether the request's bodies are looked at, or made by the gateway.
    fn reads_bodies(&self) -> bool {
        let known = self.route.as_ref().zip(self.facts.as_ref());
        known.is_some_and(|(route, facts)| route.reads_bodies(facts))
    }

    /// Whether they are looked at, made or compressed.
    fn shapes_bodies(&self) -> bool {
        let known = self.route.as_ref().zip(self.facts.as_ref());
        known.is_some_and(|(route, facts)| route.shapes_bodies(facts))
    }

    /// Shapes the head of an upstream's answer for the client.
    fn shape_answer(&self, head: &mut ResponseHeader, request: &RequestHeader) {
        let (Some(route), Some(facts)) = (&self.route, &self.facts) else { return };
        if self.fetching.is_some() {
            return;
        }
        if !request.method.is_safe() && (head.status.is_success() || head.status.is_redirection()) {
            self.gateway.changed(request, head);
        }
        if let Some(said) = &self.said {
            said.tell(head);
        }
        if let Destination::Split(split) = &route.destination {
            split.tell(self.choice, head);
        }
        route.chain.response(head, request, facts);
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        Ctx::new(self.gateway.load_full())
    }

    /// No modules: the default one compresses, and what nobody asked for should cost nothing.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<()> {
        let connection = admit::connection(session)?;
        if let Some(handed) = connection.take_handed::<Self::CTX>() {
            *ctx = *handed;
            return Ok(());
        }
        let facts = admit::gather(connection, session.req_header());
        let timeouts = &facts.connection.listener.timeouts;
        session.set_read_timeout(Some(timeouts.body));
        session.set_write_timeout(Some(timeouts.body));
        ctx.facts = Some(facts);
        admit::trace(session.req_header(), ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> Result<bool> {
        if ctx.fetching.is_some() {
            return Ok(false);
        }
        let request = session.req_header_mut();
        let routed = admit::route(request, ctx);
        log_line::begin(ctx);
        let verdict = match routed {
            // What comes this way cannot be held, and is not let through unseen.
            Ok(()) if ctx.reads_bodies() => Err(Reply::not_implemented("this route does not switch protocols")),
            Ok(()) => admit::enter(request, ctx).await,
            refused => refused,
        };
        match verdict {
            Ok(()) => Ok(false),
            Err(reply) => {
                answer::send(session, ctx, &reply).await?;
                Ok(true)
            }
        }
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<()> {
        match end && ctx.attempt.as_ref().is_some_and(|attempt| !attempt.answered) {
            true => patience::sent(ctx),
            false => patience::went_on(ctx),
        }
        if let Some(body) = body {
            ctx.body += body.len() as u64;
            if let Some(most) = ctx.max_body().filter(|most| ctx.body > *most && ctx.fetching.is_none()) {
                let why = format!("the body has more than {most} bytes");
                return Err(Error::explain(ErrorType::HTTPStatus(413), why).into_down());
            }
            mirror::part(body, ctx);
        }
        if end {
            mirror::whole_plain(ctx);
        }
        Ok(())
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Box<HttpPeer>> {
        forward::peer(session, &self.mirrors, ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        head: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        forward::request(session, head, ctx)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> Result<()> {
        forward::response(session, head, ctx)
    }

    async fn response_filter(&self, session: &mut Session, head: &mut ResponseHeader, ctx: &mut Ctx) -> Result<()> {
        answer::shape(session, head, ctx);
        Ok(())
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Ctx,
    ) -> Result<Option<Bytes>> {
        if let Some(elsewhere) = &ctx.fetching {
            *elsewhere.trailers.lock() = Some(trailers.clone());
        }
        Ok(None)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> Result<Option<Duration>> {
        if !end && ctx.patience.is_over() {
            return Err(Error::explain(ErrorType::ReadTimedout, "the exchange took longer than its total").into_up());
        }
        patience::went_on(ctx);
        Ok(None)
    }

    fn fail_to_connect(&self, session: &mut Session, _peer: &HttpPeer, ctx: &mut Ctx, e: Box<Error>) -> Box<Error> {
        let failure = match e.etype() {
            ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
            _ => Failure::Connect,
        };
        forward::failed(session, ctx, e, failure, false)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Ctx,
        reused: bool,
    ) -> Box<Error> {
        let mut e = e;
        if e.esource() == &ErrorSource::Downstream {
            // The connection's deadline is about the upstream: see `patience`.
            if !ctx.facts.as_ref().is_some_and(|facts| facts.connection.deadline.is_over()) {
                return e;
            }
            e = Error::explain(ErrorType::ReadTimedout, "the upstream was silent for too long").into_up();
        }
        let failure = match e.etype() {
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
            ErrorType::HTTPStatus(status) => Failure::Status(*status),
            _ => Failure::Reset,
        };
        forward::failed(session, ctx, e, failure, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Ctx) -> FailToProxy {
        answer::failure(session, ctx, e).await
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Ctx) {
        if ctx.fetching.is_some() {
            ctx.attempt = None;
            return;
        }
        let carried = log_line::carried(session, e, ctx);
        log_line::write(session.req_header(), &carried, ctx);
    }

    /// The access log has the cause.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

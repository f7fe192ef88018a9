//! A request without a network: what the gateway would do with it.
//!
//! The functions that judge, route, shape and answer it are those of live requests, in the same order. What is left
//! out is what needs a server or leaves a trace: none is taken, nothing is counted and nothing is logged.
//!
//! Of a split it is for the upstream that it is tied to, else for the one with the greatest weight.
//!
//! The id of a request is random, and here it is always `<request-id>`, unless a trusted proxy gave one.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method};
use pingora_http::{RequestHeader, ResponseHeader};

use super::forwarded::X_REQUEST_ID;
use super::{Ctx, admit, answer, forward, mirror};
use crate::body::{HELD, Held};
use crate::facts::{Connection, Facts, RequestView, lower_host};
use crate::gateway::{Destination, Gateway, Mirror, Route};
use crate::http1::{Framing, write_request};
use crate::policy::Cache;
use crate::reply::Reply;
use crate::telemetry::metrics::traffic::Cached;
use crate::upstream::Pool;

/// What would become of a request.
pub struct Outcome {
    /// The request as the policies saw it and what is known of it; nothing where its head was refused.
    known: Option<(RequestHeader, Facts)>,
    /// The route that takes it.
    pub route: Option<Arc<Route>>,
    /// How it would end.
    pub end: End,
}

/// How a request would end, as far as the gateway can tell.
pub enum End {
    /// The gateway answers.
    Answer {
        /// The head of the answer.
        head: Box<ResponseHeader>,
        /// Its body.
        body: Bytes,
    },
    /// Several servers are asked for the parts of an answer: their names.
    Parts(Vec<Box<str>>),
    /// A server is asked.
    Upstream {
        /// The pool that it is one of.
        pool: Arc<Pool>,
        /// The head of what it is sent, as HTTP/1.1 has it.
        head: Vec<u8>,
        /// The body of what it is sent, as far as it is known.
        body: Bytes,
    },
}

impl Outcome {
    /// Takes a request that came by a connection through the gateway, with a body that is framed like this, and that is
    /// known or not. `assumed` claims of the caller are taken for true.
    pub async fn of(
        gateway: Arc<Gateway>,
        connection: Arc<Connection>,
        mut request: RequestHeader,
        (framing, body): (Framing, Option<Bytes>),
        assumed: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Self {
        let mut ctx = Ctx::new(gateway);
        let mut facts = admit::gather(connection, &request);
        facts.rehearsal = true;
        if request.headers.get(X_REQUEST_ID) != Some(&facts.id) {
            facts.id = HeaderValue::from_static("<request-id>");
        }
        facts.assumed = assumed.map(Box::new);
        ctx.facts = Some(facts);
        let end = match through(&mut request, framing, body, &mut ctx).await {
            Ok(end) => end,
            Err(reply) => {
                let (head, body) = answer::render(&reply, &request, &mut ctx);
                let bodiless = request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
                End::Answer { head: Box::new(head), body: if bodiless { Bytes::new() } else { body } }
            }
        };
        Self { known: ctx.facts.map(|facts| (request, facts)), route: ctx.route, end }
    }

    /// A request whose head was refused before it became one.
    pub fn refused(status: u16, reason: &'static str) -> Self {
        let (head, body) = Reply::refusal(status, reason).render(false);
        Self { known: None, route: None, end: End::Answer { head: Box::new(head), body } }
    }

    /// The upstream that it is for, in the word of the log: also where a policy stops it on its way there.
    pub fn upstream(&self) -> Option<&str> {
        self.known.as_ref().and_then(|(_, facts)| facts.upstream.as_deref())
    }

    /// Who may get a copy of it: a share of requests like this is copied.
    pub fn mirror(&self) -> Option<&Mirror> {
        let mirror = self.route.as_ref()?.mirror.as_ref()?;
        let (request, facts) = self.known.as_ref()?;
        (matches!(self.end, End::Upstream { .. }) && mirror::takes(mirror, request, facts)).then_some(mirror)
    }

    /// What answers instead of an upstream, in the word of the log.
    pub fn stopped_by(&self) -> Option<&'static str> {
        self.known.as_ref().and_then(|(_, facts)| facts.stopped_by)
    }

    /// What a cache would have to do with the answer, if it were empty.
    pub fn cache(&self) -> Option<Cached> {
        self.known.as_ref().and_then(|(_, facts)| facts.cache)
    }

    /// Whether claims were assumed and nothing on the request's way asked for them.
    pub fn ignores_claims(&self) -> bool {
        let stopped = self.stopped_by().is_some_and(|by| crate::policy::KEYS.contains(&by));
        let unasked = self.known.as_ref().is_some_and(|(_, facts)| facts.assumed.is_some());
        unasked && self.route.is_some() && !stopped
    }

    /// Who asks, in the end.
    pub fn client(&self) -> Option<std::net::IpAddr> {
        self.known.as_ref().map(|(_, facts)| facts.client)
    }

    /// The text of each of the route's captures.
    pub fn captures(&self) -> Vec<&str> {
        let Some((request, facts)) = &self.known else { return Vec::new() };
        (0..facts.captures.len()).map(|i| facts.captures.text(i, request.uri.path())).collect()
    }

    /// Looks at what decided the route. `None` where none was looked for.
    pub fn view<T>(&self, look: impl FnOnce(&RequestView<'_>) -> T) -> Option<T> {
        let (request, facts) = self.known.as_ref()?;
        let unrouted = matches!(facts.stopped_by, Some("no-route" | "method-not-allowed"));
        (self.route.is_some() || unrouted).then(|| look(&RequestView::of(request, &lower_host(request), facts)))
    }
}

async fn through(
    request: &mut RequestHeader,
    framing: Framing,
    body: Option<Bytes>,
    ctx: &mut Ctx,
) -> Result<End, Reply> {
    admit::route(request, ctx)?;
    admit::enter(request, ctx).await?;
    if let (Some(facts), Some(Destination::Split(split))) = (&ctx.facts, ctx.route.as_ref().map(|r| &r.destination)) {
        ctx.choice = split.likely(request, facts);
    }
    if let (Some(facts), Some(route)) = (&mut ctx.facts, &ctx.route)
        && route.chain.cache().is_some()
    {
        let asked = Cache::takes(request, facts, framing != Framing::None);
        facts.cache = Some(if asked { Cached::Miss } else { Cached::Bypass });
    }
    // Of a body that there is none of, all is known.
    let mut body = body.or((framing == Framing::None).then(Bytes::new));
    let most = ctx.max_body().unwrap_or(HELD);
    if let (Some(facts), Some(route), Some(body)) = (&mut ctx.facts, &ctx.route, &mut body)
        && route.holds_body(facts)
    {
        if body.len() as u64 > most {
            return Err(Reply::body_too_large(format!("the body has more than {most} bytes")));
        }
        let mut held = Held::new(std::mem::take(body), request, most)?;
        route.chain.body(&mut held, request, facts)?;
        (*body, facts.sends) = held.into_sent();
    }
    let framing = match &body {
        Some(body) if body.is_empty() => Framing::None,
        Some(body) => Framing::Length(body.len() as u64),
        None => framing,
    };
    if let Some(Destination::Aggregate(aggregate)) = ctx.route.as_ref().map(|route| &route.destination) {
        return Ok(End::Parts(aggregate.parts.iter().map(|part| part.name.clone()).collect()));
    }
    let pool = forward::pool(ctx).ok_or_else(|| Reply::internal("the route has no upstream"))?;
    let mut head = request.clone();
    forward::shape(request, &mut head, ctx)?;
    let mut written = Vec::new();
    write_request(&head, framing, &mut written);
    Ok(End::Upstream { pool, head: written, body: body.unwrap_or_default() })
}

//! Requests that a stored answer may answer.
//!
//! What is fresh is given from memory. What is not is fetched by a request of the gateway's own ([`Fetch`]), which no
//! client can slow down or break off, and whoever wants the same waits for that one and reads along.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use ::http::Method;
use ::http::header::{AGE, CONTENT_LENGTH, HeaderName, HeaderValue, IF_RANGE, RANGE};
use bytes::Bytes;
use pingora_core::protocols::http::conditional_filter::{not_modified_filter, to_304};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{RangeType, range_header_filter};

use super::Direct;
use super::exchange::{Broken, Client, Exchange, Fault, Waiting, refused};
use super::fetch::Fetch;
use super::shaped::Source;
use crate::cache::{Directives, Found, Outcome, Stored, Use, answers_both};
use crate::http1::Framing;
use crate::policy::Cache;
use crate::proxy::Ctx;
use crate::reply::Reply;
use crate::telemetry::metrics::traffic::Cached;

/// What the cache had to do with an answer.
#[derive(Debug, Clone)]
pub(in crate::proxy) struct Said {
    how: Cached,
    /// As a member of `Cache-Status` (RFC 9211), after the name of the cache.
    status: String,
}

impl Said {
    fn hit(ttl: i64) -> Self {
        Self { how: if ttl > 0 { Cached::Hit } else { Cached::Stale }, status: format!("hit; ttl={ttl}") }
    }

    fn forward(how: Cached, why: &str) -> Self {
        Self { how, status: format!("fwd={why}") }
    }

    fn and(mut self, more: &str) -> Self {
        self.status.push_str("; ");
        self.status.push_str(more);
        self
    }

    /// For the log and the metrics.
    pub fn how(&self) -> Cached {
        self.how
    }

    /// Tells the client.
    pub fn tell(&self, head: &mut ResponseHeader) {
        if let Ok(value) = HeaderValue::from_str(&format!("portcullis; {}", self.status)) {
            let _ = head.append_header(CACHE_STATUS, value);
        }
    }
}

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why the cache does not answer.
pub(super) enum Not {
    /// It is not asked: the request goes to the upstream as it is.
    Asked,
    /// The exchange ended otherwise.
    Done(Fault),
}

impl From<Broken> for Not {
    fn from(broken: Broken) -> Self {
        Self::Done(broken.into())
    }
}

/// Whether the cache is asked for an answer to a request.
pub(super) fn is_for_it(request: &RequestHeader, body: Framing, ctx: &Ctx) -> bool {
    let has_cache = ctx.route.as_ref().is_some_and(|route| route.chain.cache().is_some());
    has_cache && ctx.facts.as_ref().is_some_and(|facts| Cache::takes(request, facts, body != Framing::None))
}

impl Direct {
    /// Answers from the cache, and what the cache lacks it fetches.
    pub(super) async fn answer_from_cache<C: Client>(
        &self,
        exchange: &mut Exchange<'_, C>,
        ctx: &mut Ctx,
    ) -> Result<(), Not> {
        let Some(route) = ctx.route.clone() else { return Err(Not::Asked) };
        let (Some(cache), Some(facts)) = (route.chain.cache(), &ctx.facts) else {
            return Err(Not::Asked);
        };
        // An aggregate is its route's own.
        let upstream = ctx.pool().map_or("", |pool| pool.name());
        let request = exchange.request;
        if !Cache::takes(request, facts, exchange.upload.framing != Framing::None) {
            let why = if request.method.is_safe() { "bypass" } else { "method" };
            ctx.say(Said::forward(Cached::Bypass, why));
            return Err(Not::Asked);
        }
        let wanted = cache.wanted(request, facts, upstream);
        let asked = match cache.rules.request_directives {
            true => Directives::of_request(&request.headers),
            false => Directives::default(),
        };
        let zone = &cache.zone;
        let mut alone = false;
        loop {
            let now = Instant::now();
            let found = zone.store.find(&wanted.key, &request.headers);
            let (stored, why) = match found {
                Found::Nothing => (None, "uri-miss"),
                Found::OtherVariant => (None, "vary-miss"),
                Found::Answer(stored) => {
                    let said = Said::hit(stored.life.ttl(now));
                    match stored.life.usable(&asked, now) {
                        Use::Fresh => {
                            ctx.say(said);
                            return Ok(self.give(exchange, &stored, ctx).await?);
                        }
                        Use::WhileRevalidate => {
                            ctx.say(said);
                            let join = || zone.store.join(&wanted.key, &request.headers, &wanted.resource);
                            if let Some((fill, true)) = (!zone.store.is_busy()).then(join) {
                                let fetch = cache.fetch(request);
                                self.spawn(Fetch::new(fill, &route, &wanted, fetch, Some(stored.clone())), ctx);
                            }
                            return Ok(self.give(exchange, &stored, ctx).await?);
                        }
                        Use::Validated => {
                            let why = if stored.life.is_fresh(now) { "request" } else { "stale" };
                            (Some(stored), why)
                        }
                    }
                }
            };
            if asked.only_if_cached {
                return Err(Not::Done(Fault::Reply(Reply::not_cached("there is no stored answer that may be used"))));
            }
            let hopeless = stored.is_none() && (request.method == Method::HEAD || zone.store.is_hopeless(&wanted.key));
            if asked.no_store || hopeless || zone.store.is_busy() {
                ctx.say(Said::forward(Cached::Bypass, "bypass"));
                return Err(Not::Asked);
            }
            let (fill, mine) = match alone {
                true => (zone.store.alone(&request.headers, &wanted.resource), true),
                false => zone.store.join(&wanted.key, &request.headers, &wanted.resource),
            };
            let Some(reader) = fill.reader() else {
                alone = true;
                continue;
            };
            if mine {
                self.spawn(Fetch::new(fill.clone(), &route, &wanted, cache.fetch(request), stored.clone()), ctx);
            }
            let outcome = exchange.wait(fill.outcome(), ctx).await?;
            if mine && let (Some(report), Some(facts)) = (fill.take_report(), &mut ctx.facts) {
                facts.adopt(*report);
            }
            let collapsed = |said: Said| if mine { said } else { said.and("collapsed") };
            let stands_in = |status: u16| {
                let failed = matches!(status, 500 | 502 | 503 | 504);
                stored.as_ref().filter(|stored| failed && stored.life.stands_in(Instant::now()))
            };
            match outcome {
                Outcome::Lost if mine => {
                    return Err(Not::Done(Fault::Reply(Reply::internal("the answer could not be fetched"))));
                }
                Outcome::Lost => alone = true,
                Outcome::Valid(valid) => {
                    if !mine && valid.life.usable(&asked, Instant::now()) != Use::Fresh {
                        alone = true;
                        continue;
                    }
                    ctx.say(collapsed(Said::forward(Cached::Revalidated, why).and("fwd-status=304")));
                    return Ok(self.give(exchange, &valid, ctx).await?);
                }
                Outcome::Failed(reply) => {
                    if let Some(stored) = stands_in(reply.status.as_u16()) {
                        ctx.say(
                            Said::forward(Cached::Stale, why).and(&format!("fwd-status={}", reply.status.as_u16())),
                        );
                        if let Some(facts) = &mut ctx.facts {
                            facts.stopped_by = None;
                        }
                        return Ok(self.give(exchange, stored, ctx).await?);
                    }
                    ctx.say(collapsed(Said::forward(Cached::Miss, why)));
                    return Err(Not::Done(Fault::Reply((*reply).clone())));
                }
                Outcome::Answer(answer) => {
                    let status = answer.head.status.as_u16();
                    if let Some(stored) = stands_in(status) {
                        ctx.say(Said::forward(Cached::Stale, why).and(&format!("fwd-status={status}")));
                        if let Some(facts) = &mut ctx.facts {
                            facts.stopped_by = None;
                        }
                        return Ok(self.give(exchange, stored, ctx).await?);
                    }
                    let head = match (mine, &answer.shared, &answer.life) {
                        (true, ..) => answer.head.clone(),
                        (false, shared, Some(life))
                            if life.usable(&asked, Instant::now()) == Use::Fresh
                                && answers_both(&answer.head.headers, &fill.asked, &request.headers) =>
                        {
                            shared.as_ref().unwrap_or(&answer.head).clone()
                        }
                        (false, _, Some(_)) => {
                            alone = true;
                            continue;
                        }
                        (false, _, None) => {
                            ctx.say(Said::forward(Cached::Bypass, "bypass"));
                            return Err(Not::Asked);
                        }
                    };
                    let said = Said::forward(Cached::Miss, why).and(&format!("fwd-status={status}"));
                    ctx.say(collapsed(match answer.reason {
                        None => said.and("stored"),
                        Some(reason) => said.and(&format!("detail={reason}")),
                    }));
                    let given = exchange.answer(head, Source::Coming(reader, answer.length), ctx).await;
                    if let (Err(_), Some(report), Some(facts)) = (&given, fill.take_report(), &mut ctx.facts) {
                        facts.cause = report.cause;
                    }
                    return Ok(given?);
                }
            }
        }
    }

    /// Gives a stored answer.
    async fn give<C: Client>(
        &self,
        exchange: &mut Exchange<'_, C>,
        stored: &Stored,
        ctx: &mut Ctx,
    ) -> Result<(), Broken> {
        let mut head = stored.head.clone();
        let _ = head.insert_header(AGE, stored.life.age(Instant::now()).as_secs());
        exchange.answer(head, Source::Here(stored.body.clone()), ctx).await
    }

    /// Has an answer fetched, whatever becomes of the client.
    fn spawn(&self, fetch: Fetch, ctx: &Ctx) {
        let Some(facts) = &ctx.facts else { return };
        let direct = self.clone();
        let own = ctx.for_fetch(Arc::new(facts.connection.within()));
        tokio::spawn(async move { fetch.run(&direct, own).await });
    }
}

impl<C: Client> Exchange<'_, C> {
    /// Waits for something that is not the client's, while the client is there.
    pub(super) async fn wait<T>(&mut self, what: impl Future<Output = T>, ctx: &mut Ctx) -> Result<T, Broken> {
        let mut what = pin!(what);
        self.waiting = Waiting::Nobody;
        self.wait_for(Waiting::Server, ctx);
        let waited = poll_fn(|cx| match what.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_client(cx, ctx),
        })
        .await;
        self.waiting = Waiting::Nobody;
        waited
    }

    /// Gives an answer to what the client asked for: all of it, a part of it, its head, or that it has not changed.
    async fn answer(&mut self, mut head: ResponseHeader, source: Source<'_>, ctx: &mut Ctx) -> Result<(), Broken> {
        let mut range = None;
        if not_modified_filter(self.request, &head) {
            to_304(&mut head);
        } else if self.request.method == Method::GET
            && self.request.headers.contains_key(RANGE)
            && is_strong(self.request)
        {
            if let Some(length) = source.length() {
                let _ = head.insert_header(CONTENT_LENGTH, length);
            }
            // Two ranges and more are answered with the whole.
            match range_header_filter(self.request, &mut head, Some(2)) {
                RangeType::Single(part) => range = Some((part.start as u64, part.end as u64)),
                RangeType::Invalid => range = Some((0, 0)),
                RangeType::None | RangeType::Multi(_) => {}
            }
        }
        self.answer_part(head, source, range, ctx).await
    }

    /// Gives an answer with this head, and this part of the body or all of it.
    async fn answer_part(
        &mut self,
        mut head: ResponseHeader,
        source: Source<'_>,
        range: Option<(u64, u64)>,
        ctx: &mut Ctx,
    ) -> Result<(), Broken> {
        let bodiless = self.request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
        if let Some(shaping) = ctx.shaping(&mut head, (false, true), self.request).map_err(refused)? {
            return self.shaped(head, source, bodiless, shaping, ctx).await;
        }
        self.client.shape(&mut head, self.request, ctx);
        let framing = match (bodiless, range, source.length()) {
            (true, ..) => Framing::None,
            (_, Some((start, end)), _) => Framing::Length(end - start),
            (_, None, Some(length)) => Framing::Length(length),
            (_, None, None) => Framing::Chunked,
        };
        self.begin(head, framing).map_err(|_| Broken::Client(Fault::Gone))?;
        if framing == Framing::None {
            return C::pass(self, Bytes::new(), true, ctx).await;
        }
        let (start, end) = range.unwrap_or((0, u64::MAX));
        match source {
            Source::Here(body) => {
                let part = body.slice(start as usize..end.min(body.len() as u64) as usize);
                C::pass(self, part, true, ctx).await
            }
            mut source => {
                let mut at = 0;
                while at < end {
                    let Some(part) = self.next(&mut source, ctx).await? else { break };
                    let (from, to) = (at, at + part.len() as u64);
                    at = to;
                    if to <= start {
                        continue;
                    }
                    let part = part.slice((start.max(from) - from) as usize..(end.min(to) - from) as usize);
                    C::pass(self, part, false, ctx).await?;
                }
                C::pass(self, Bytes::new(), true, ctx).await
            }
        }
    }
}

/// Whether the answer is to be given in part only if it is the very same (RFC 9110, section 13.1.5).
fn is_strong(request: &RequestHeader) -> bool {
    request.headers.get(IF_RANGE).is_none_or(|tag| !tag.as_bytes().starts_with(b"W/"))
}

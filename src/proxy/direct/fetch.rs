//! Fetches for the cache: a request of the gateway's own, and what becomes of its answer.
//!
//! It takes the short way to the server where there is one, else it goes by Pingora, at whose other end it stands like
//! any client. Whoever wants the answer reads it from the [`Fill`]; if it may be stored, it is once it is whole.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use ::http::StatusCode;
use ::http::header::{AGE, CONTENT_LENGTH, DATE, ETAG, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use bytes::Bytes;
use pingora_http::{RequestHeader, ResponseHeader};

use super::Direct;
use super::exchange::{Broken, Client, Exchange, Fault, Opening, Waiting};
use super::shaped::Source;
use super::upload::Upload;
use crate::cache::{Answer, Arrival, Caller, Directives, End, Fill, Life, Outcome, Stored, Zone, merged, to_store};
use crate::deadline::Alarm;
use crate::facts::{Connection, Facts};
use crate::gateway::Route;
use crate::http1::Framing;
use crate::policy::{Cache, Wanted};
use crate::proxy::patience::Patience;
use crate::proxy::{Ctx, answer};
use crate::reply::Reply;
use crate::upstream::Server;

/// A request of the gateway's own.
pub(super) struct Fetch {
    fill: Arc<Fill>,
    route: Arc<Route>,
    wanted: Wanted,
    request: RequestHeader,
    /// What the upstream may say of that it still holds.
    stored: Option<Arc<Stored>>,
}

impl Fetch {
    pub fn new(
        fill: Arc<Fill>,
        route: &Arc<Route>,
        wanted: &Wanted,
        request: RequestHeader,
        stored: Option<Arc<Stored>>,
    ) -> Self {
        Self { fill, route: route.clone(), wanted: wanted.clone(), request, stored }
    }

    /// Fetches, whatever becomes of who wanted it.
    pub async fn run(mut self, direct: &Direct, mut ctx: Ctx) {
        let route = self.route.clone();
        let Some(cache) = route.chain.cache() else { return };
        let _ended = Ended { fill: self.fill.clone(), zone: cache.zone.clone() };
        ctx.patience = Patience::own();
        let mut conditional = self.request.clone();
        if let Some(stored) = &self.stored {
            let mut any = false;
            for (have, ask) in [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)] {
                if let Some(value) = stored.head.headers.get(have) {
                    any |= conditional.insert_header(ask, value.clone()).is_ok();
                }
            }
            if !any {
                self.stored = None;
            }
        }
        let again = self.attempt(&conditional, cache, direct, &mut ctx).await;
        if again {
            // What it says holds is not what is stored.
            cache.zone.store.remove(&self.wanted.key, &self.request.headers);
            self.stored = None;
            let Some(facts) = &ctx.facts else { return };
            let mut anew = Ctx { patience: Patience::own(), ..ctx.for_fetch(facts.connection.clone()) };
            self.attempt(&self.request, cache, direct, &mut anew).await;
        }
    }

    /// Gives whether what is stored turned out to be something else than what the upstream said still holds.
    async fn attempt(&self, request: &RequestHeader, cache: &Cache, direct: &Direct, ctx: &mut Ctx) -> bool {
        let Some(connection) = ctx.facts.as_ref().map(|facts| facts.connection.clone()) else { return false };
        let unwanted = self.fill.clone();
        let mut filler = Filler {
            fetch: self,
            cache,
            connection,
            asked: Instant::now(),
            alarm: Alarm::default(),
            unwanted: Box::pin(async move { unwanted.unwanted().await }),
            taking: Taking::Nothing,
            again: false,
        };
        let mut exchange = Exchange {
            client: &mut filler,
            request,
            keep: true,
            ending: &|| false,
            upload: Upload::new(Framing::None),
            waiting: Waiting::Nobody,
            status: None,
            sent: 0,
        };
        let ended = direct.ask(&mut exchange, ctx).await;
        let again = filler.again;
        ctx.attempt = None;
        if again {
            return true;
        }
        if let Err(fault) = ended {
            report(&self.fill, ctx.facts.as_mut());
            if !self.fill.is_decided() {
                let reply = match fault {
                    Fault::Reply(reply) => reply,
                    Fault::Cut | Fault::Slow | Fault::Gone => answer::upstream_failed(ctx, false),
                };
                self.fill.decide(Outcome::Failed(Arc::new(reply)));
            }
            self.fill.end(End::Broken);
        }
        false
    }
}

/// Whatever becomes of a fetch, nobody waits for it for ever.
struct Ended {
    fill: Arc<Fill>,
    zone: Arc<Zone>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.fill.decide(Outcome::Lost);
        self.fill.end(End::Broken);
        self.zone.store.leave(&self.fill);
    }
}

/// Tells whoever asked what was found out.
fn report(fill: &Fill, facts: Option<&mut Facts>) {
    if let Some(facts) = facts {
        let connection = facts.connection.clone();
        fill.report(Box::new(facts.fork(connection)));
    }
}

/// The client of a fetch: who fills the store.
struct Filler<'f> {
    fetch: &'f Fetch,
    cache: &'f Cache,
    connection: Arc<Connection>,
    asked: Instant,
    alarm: Alarm,
    unwanted: Pin<Box<dyn Future<Output = ()> + Send>>,
    taking: Taking,
    again: bool,
}

/// What is done with the body.
enum Taking {
    /// It is of no use.
    Nothing,
    /// It is passed on.
    Pass,
    /// It is passed on, and stored when it is whole.
    Store(Box<ResponseHeader>, Life),
}

impl Filler<'_> {
    fn answered(&mut self, mut head: ResponseHeader, length: Option<u64>) {
        let Fetch { fill, wanted, .. } = self.fetch;
        let zone = &self.cache.zone;
        let now = Instant::now();
        let arrival = Arrival { at: now, date: SystemTime::now(), delay: now - self.asked };
        if !head.headers.contains_key(DATE) {
            // When it came (RFC 9110, section 6.6.1).
            let _ = head.insert_header(DATE, httpdate::fmt_http_date(arrival.date));
        }
        if head.status == StatusCode::NOT_MODIFIED {
            return self.validated(&head, arrival);
        }
        let (said, targeted) = Directives::of_response(&head.headers);
        let rules = &self.cache.rules;
        let judged = match () {
            () if length.is_some_and(|length| length > zone.max_object) => Err("too-large"),
            () => Life::of(head.status, &head.headers, (&said, targeted), rules, wanted.caller, arrival),
        };
        let shared = (!said.withheld.is_empty()).then(|| to_store(&head, &said.withheld));
        match &judged {
            Ok(life) => self.taking = Taking::Store(Box::new(to_store(&head, &said.withheld)), life.clone()),
            Err(reason) => {
                self.taking = Taking::Pass;
                self.pass_only(reason, !head.status.is_server_error());
            }
        }
        let reason = judged.as_ref().err().copied();
        fill.decide(Outcome::Answer(Arc::new(Answer { head, shared, length, reason, life: judged.ok() })));
    }

    /// The upstream says that nothing has changed.
    fn validated(&mut self, head: &ResponseHeader, arrival: Arrival) {
        let Fetch { fill, wanted, stored, .. } = self.fetch;
        let store = &self.cache.zone.store;
        let Some(stored) = stored.as_ref().filter(|stored| is_of(&stored.head, head)) else {
            self.again = stored.is_some();
            if !self.again {
                let reply = Reply::bad_upstream("the upstream says that nothing has changed, which nobody asked for");
                fill.decide(Outcome::Failed(Arc::new(reply)));
            }
            return;
        };
        let merged = merged(&stored.head, head);
        let (said, targeted) = Directives::of_response(&merged.headers);
        let mut judged = merged.headers.clone();
        if let Some(age) = head.headers.get(AGE) {
            judged.insert(AGE, age.clone());
        }
        let rules = &self.cache.rules;
        let life = Life::of(merged.status, &judged, (&said, targeted), rules, wanted.caller, arrival);
        let storable = life.is_ok();
        let renewed = Arc::new(Stored {
            resource: stored.resource.clone(),
            tags: tags(&merged, self.cache.tags.as_ref()),
            head: to_store(&merged, &said.withheld),
            body: stored.body.clone(),
            life: life.unwrap_or_else(|_| stored.life.clone()),
        });
        match storable {
            true => drop(store.put(&wanted.key, &fill.asked, &renewed, fill)),
            // It still holds, and for this once only.
            false => store.remove(&wanted.key, &fill.asked),
        }
        fill.decide(Outcome::Valid(renewed));
    }

    /// What is fetched is only passed on, and replaces nothing unless it is an answer.
    fn pass_only(&self, reason: &str, answer: bool) {
        let Fetch { fill, wanted, stored, .. } = self.fetch;
        let zone = &self.cache.zone;
        fill.close();
        zone.store.leave(fill);
        // What depends on who asks says nothing of others.
        let lasting = answer && !matches!(reason, "authorization" | "cookie");
        if lasting && wanted.caller == Caller::Anyone {
            zone.store.give_up(&wanted.key);
        }
        if answer && stored.is_some() {
            zone.store.remove(&wanted.key, &fill.asked);
        }
    }

    /// Counts a part of the body; it may be one too many to be stored.
    fn take(&mut self, length: usize) {
        if !matches!(self.taking, Taking::Store(..)) {
            return;
        }
        let most = self.cache.zone.max_object;
        if !self.fetch.fill.take(length as u64, most) {
            self.taking = Taking::Pass;
            self.pass_only("too-large", self.fetch.fill.taken() + length as u64 > most);
        }
    }

    /// The body is whole.
    fn finish(&mut self) {
        if self.again {
            // That was not the answer: another one comes.
            return;
        }
        let fill = &self.fetch.fill;
        if let Taking::Store(mut head, life) = std::mem::replace(&mut self.taking, Taking::Nothing)
            && let Some(body) = fill.whole()
        {
            if head.status != StatusCode::NO_CONTENT {
                let _ = head.insert_header(CONTENT_LENGTH, body.len());
            }
            let tags = tags(&head, self.cache.tags.as_ref());
            let stored = Arc::new(Stored { resource: fill.resource.clone(), head: *head, body, life, tags });
            self.cache.zone.store.put(&self.fetch.wanted.key, &fill.asked, &stored, fill);
        }
        fill.end(End::Whole);
    }
}

impl Client for Filler<'_> {
    fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The request has none.
    fn poll_body(&mut self, _: &mut Upload, _: &mut Vec<u8>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(0))
    }

    fn poll_gone(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self.unwanted.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => self.poll_late(patience, cx).map(|()| io::ErrorKind::TimedOut.into()),
        }
    }

    fn poll_late(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll_deadline(patience.kept_by_exchange(), cx)
    }

    /// Interim answers are for one client, and this is none.
    async fn inform(&mut self, _: &ResponseHeader) -> io::Result<()> {
        Ok(())
    }

    const STORES: bool = true;

    /// What is stored is as the server gave it: it is shaped for each client that gets it.
    fn shape(&mut self, _: &mut ResponseHeader, _: &RequestHeader, ctx: &mut Ctx) {
        report(&self.fetch.fill, ctx.facts.as_mut());
    }

    fn begin(&mut self, head: ResponseHeader, opening: Opening) -> io::Result<bool> {
        let length = match opening.body {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        self.answered(head, length);
        Ok(true)
    }

    async fn relay(exchange: &mut Exchange<'_, Self>, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        let mut source = Source::Server(server);
        while let Some(part) = exchange.next(&mut source, ctx).await? {
            Self::pass(exchange, part, false, ctx).await?;
        }
        Self::pass(exchange, Bytes::new(), true, ctx).await
    }

    async fn pass(exchange: &mut Exchange<'_, Self>, part: Bytes, last: bool, _: &mut Ctx) -> Result<(), Broken> {
        let filler = &mut *exchange.client;
        filler.take(part.len());
        let part = match filler.taking {
            _ if part.is_empty() => None,
            Taking::Nothing => None,
            Taking::Pass => Some(part),
            // In memory of its own, for what was read into may be larger.
            Taking::Store(..) => Some(Bytes::copy_from_slice(&part)),
        };
        if let Some(part) = part
            && filler.fetch.fill.push(part).await.is_err()
        {
            return Err(Broken::Client(Fault::Gone));
        }
        if last {
            filler.finish();
        }
        Ok(())
    }
}

/// Whether a 304 is about what is stored (RFC 9111, section 4.3.4): what it names is not something else.
fn is_of(stored: &ResponseHeader, not_modified: &ResponseHeader) -> bool {
    let opaque = |head: &ResponseHeader| {
        let tag = head.headers.get(ETAG)?.as_bytes();
        Some(tag.strip_prefix(b"W/").unwrap_or(tag).to_vec())
    };
    match (opaque(stored), opaque(not_modified)) {
        (Some(stored), Some(named)) => stored == named,
        (None, Some(_)) => false,
        (_, None) => true,
    }
}

/// The tags of an answer: words between commas or spaces.
fn tags(head: &ResponseHeader, field: Option<&HeaderName>) -> Box<[Box<str>]> {
    let lines = field.into_iter().flat_map(|field| head.headers.get_all(field)).filter_map(|line| line.to_str().ok());
    let words = lines.flat_map(|line| line.split([',', ' '])).filter(|word| !word.is_empty());
    words.map(Box::from).collect()
}

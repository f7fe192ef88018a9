//! Answers that are put together of several: each part is a request of the gateway's own, and takes the way that any takes.
//!
//! The parts are tasks that end with the exchange, so a client that leaves leaves nothing behind.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use ::http::header::{
    ACCEPT, ACCEPT_ENCODING, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderName,
    HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, SET_COOKIE, VARY,
};
use ::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use pingora_http::{RequestHeader, ResponseHeader};
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::Direct;
use super::exchange::{Broken, Client, Exchange, Fault, Opening, Waiting, refused};
use super::shaped::Source;
use super::upload::Upload;
use crate::body::coding::{Decoder, Failed, codings};
use crate::body::jq::Bounds;
use crate::body::{NO_ROOM, Parts, Room, merge, no_room, object, refusal};
use crate::cache::Directives;
use crate::deadline::Alarm;
use crate::facts::{Connection, Facts, Values};
use crate::gateway::{Aggregate, Compose, Part, PartBody};
use crate::proxy::Ctx;
use crate::proxy::patience::Patience;
use crate::reply::Reply;
use crate::upstream::Server;

/// Names the parts that an answer goes without.
const MISSING: HeaderName = HeaderName::from_static("portcullis-missing");

/// Fields of the client's request that are about its own body and answer.
const NOT_PASSED: [HeaderName; 9] = [
    ACCEPT_ENCODING,
    CONTENT_LENGTH,
    EXPECT,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    RANGE,
];

/// What became of a part.
struct Became {
    part: usize,
    /// A JSON text, or the status to tell and why.
    answer: Result<Bytes, (StatusCode, String)>,
    along: Along,
    facts: Option<Box<Facts>>,
}

/// What an answer brings along.
struct Along {
    keep: Keep,
    /// The fields of the request that it depends on.
    vary: Vec<HeaderValue>,
    /// What it takes where bodies are held.
    rooms: Vec<Room>,
}

impl Default for Along {
    /// That of no answer.
    fn default() -> Self {
        Self { keep: Keep::For(u64::MAX), vary: Vec::new(), rooms: Vec::new() }
    }
}

impl Along {
    fn add(&mut self, other: Self) {
        self.keep = self.keep.min(other.keep);
        self.vary.extend(other.vary);
        self.rooms.extend(other.rooms);
    }
}

/// How long an answer may be kept, by what its upstream says. What is put together may be kept as long as every part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Keep {
    Never,
    Private,
    /// It says nothing.
    Unsaid,
    /// For so many seconds.
    For(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Asked,
    Done,
}

/// What there is of an answer.
struct Gathered {
    parts: Parts,
    /// What is missing, and why.
    missing: Vec<(Box<str>, String)>,
    along: Along,
}

impl Direct {
    /// Asks the parts of an aggregate and gives what they make.
    pub(super) async fn aggregate<C: Client>(
        &self,
        aggregate: &Arc<Aggregate>,
        exchange: &mut Exchange<'_, C>,
        ctx: &mut Ctx,
    ) -> Result<(), Fault> {
        let asked = Instant::now();
        if let Some(facts) = &mut ctx.facts {
            facts.asked_after = Some(facts.started.elapsed());
        }
        let gathered = self.gather(aggregate, exchange, ctx).await?;
        let Gathered { parts, missing, along: Along { keep, mut vary, rooms } } = gathered;
        let names = missing.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ");
        if let Some(facts) = &mut ctx.facts {
            facts.first_byte = Some(asked.elapsed());
            if !missing.is_empty() {
                let why: Vec<String> = missing.iter().map(|(name, why)| format!("{name}: {why}")).collect();
                facts.missing = Some(why.join("; ").into());
            }
        }
        let body = compose(aggregate, &parts).map_err(Fault::Reply)?;
        drop((parts, rooms));
        if !ctx.room.grow(body.len() as u64) {
            return Err(Fault::Reply(no_room()));
        }
        let internal = |_| Fault::Reply(Reply::internal("the answer could not be begun"));
        let mut head = ResponseHeader::build(StatusCode::OK, Some(8)).map_err(internal)?;
        let _ = head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // What is missing now may be there for the next.
        let keep = if missing.is_empty() { keep } else { Keep::Never };
        if let Some(keep) = keep.told() {
            let _ = head.insert_header(CACHE_CONTROL, keep);
        }
        if !missing.is_empty() {
            let _ = head.insert_header(MISSING, names);
        }
        vary.sort();
        vary.dedup();
        vary.into_iter().for_each(|fields| drop(head.append_header(VARY, fields)));
        Ok(exchange.made(head, body, ctx).await?)
    }

    /// Asks every part once those are there that it waits for.
    async fn gather<C: Client>(
        &self,
        aggregate: &Arc<Aggregate>,
        exchange: &mut Exchange<'_, C>,
        ctx: &mut Ctx,
    ) -> Result<Gathered, Fault> {
        let count = aggregate.parts.len();
        let mut gathered = Gathered { parts: Parts(vec![None; count]), missing: Vec::new(), along: Along::default() };
        let mut states = vec![State::Waits; count];
        let mut tasks = JoinSet::new();
        let until = tokio::time::Instant::now() + aggregate.deadline;
        let body = exchange.upload.held().cloned().unwrap_or_default();
        loop {
            for (i, part) in aggregate.parts.iter().enumerate() {
                if states[i] == State::Waits && part.after.iter().all(|before| states[*before] == State::Done) {
                    states[i] = State::Asked;
                    let Some(own) = ctx.for_part(part) else { return Err(Fault::Cut) };
                    let asking = Asking {
                        direct: self.clone(),
                        aggregate: aggregate.clone(),
                        part: i,
                        request: exchange.request.clone(),
                        parts: gathered.parts.clone(),
                        body: body.clone(),
                    };
                    tasks.spawn(asking.run(own));
                }
            }
            if tasks.is_empty() {
                return Ok(gathered);
            }
            let done = exchange.wait(tokio::time::timeout_at(until, tasks.join_next()), ctx).await?;
            let became = match done {
                Ok(Some(Ok(became))) => became,
                Ok(_) => return Err(Fault::Reply(Reply::internal("a part of the answer was lost"))),
                Err(_) => {
                    for (i, part) in aggregate.parts.iter().enumerate().filter(|(i, _)| states[*i] != State::Done) {
                        let late = (StatusCode::GATEWAY_TIMEOUT, "it was not there in time".to_owned());
                        gathered.take(part, i, Err(late))?;
                    }
                    return Ok(gathered);
                }
            };
            states[became.part] = State::Done;
            if let (Some(all), Some(facts)) = (&mut ctx.facts, became.facts) {
                join(all, *facts, &aggregate.parts[became.part].method);
            }
            if became.answer.is_ok() {
                gathered.along.add(became.along);
            }
            gathered.take(&aggregate.parts[became.part], became.part, became.answer)?;
        }
    }
}

impl Gathered {
    /// Takes what became of a part.
    ///
    /// # Errors
    /// It failed, and the answer cannot go without it.
    fn take(&mut self, part: &Part, position: usize, answer: Result<Bytes, (StatusCode, String)>) -> Result<(), Fault> {
        match answer {
            Ok(json) => self.parts.0[position] = Some(json),
            Err((_, why)) if part.optional => {
                self.parts.0[position] = part.fallback.clone();
                self.missing.push((part.name.clone(), why));
            }
            Err((status, why)) => {
                let detail = format!("the part `{}` of the answer failed", part.name);
                let reply = Reply::part_failed(detail).because(format!("{}: {why}", part.name));
                return Err(Fault::Reply(reply.with_status(status)));
            }
        }
        Ok(())
    }
}

/// What a task needs to ask for a part.
#[derive(Clone)]
struct Asking {
    direct: Direct,
    aggregate: Arc<Aggregate>,
    part: usize,
    /// The client's.
    request: RequestHeader,
    parts: Parts,
    /// Of the client's request.
    body: Bytes,
}

impl Asking {
    /// Asks, once or for each element of an array.
    async fn run(mut self, ctx: Ctx) -> Became {
        let aggregate = self.aggregate.clone();
        let part = &aggregate.parts[self.part];
        let lost = |why: &str| Became::failed(self.part, StatusCode::BAD_GATEWAY, why);
        let Some(each) = &part.each else {
            self.parts.0.push(None);
            return self.once(ctx).await;
        };
        let list =
            self.parts.json(each.part, &each.path).and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list).ok());
        let Some(list) = list else { return lost("there is no array to go through") };
        if list.len() > each.most {
            return lost(&format!("the array has {} elements, more than {}", list.len(), each.most));
        }
        let list: Vec<Bytes> = list.into_iter().map(|element| element.get().to_owned().into()).collect();
        let mut answers: Vec<Option<Bytes>> = vec![None; list.len()];
        let mut tasks = JoinSet::new();
        let (mut next, mut along, mut all_facts) = (0, Along::default(), None::<Box<Facts>>);
        loop {
            while next < list.len() && tasks.len() < each.at_once {
                let mut asking = self.clone();
                asking.parts.0.push(Some(list[next].clone()));
                let Some(ctx) = ctx.for_part(part) else { return lost("nothing is known of the request") };
                tasks.spawn(async move { (next, asking.once(ctx).await) });
                next += 1;
            }
            let Some(done) = tasks.join_next().await else { break };
            let Ok((at, became)) = done else { return lost("a request was lost") };
            along.add(became.along);
            if let Some(facts) = became.facts {
                let all = all_facts.get_or_insert_with(|| Box::new(facts.unasked()));
                join(all, *facts, &part.method);
            }
            match became.answer {
                Ok(json) => answers[at] = Some(json),
                answer => return Became { part: self.part, answer, along, facts: all_facts },
            }
        }
        // What they take is taken by the whole from here on.
        let mut room = Room::default();
        along.rooms.clear();
        if !room.fit(answers.iter().flatten().map(|answer| answer.len() as u64 + 1).sum::<u64>() + 2) {
            return Became {
                along,
                facts: all_facts,
                ..Became::failed(self.part, StatusCode::SERVICE_UNAVAILABLE, NO_ROOM)
            };
        }
        along.rooms.push(room);
        let mut all = vec![b'['];
        for (i, answer) in answers.iter().flatten().enumerate() {
            all.extend_from_slice(if i > 0 { b"," } else { b"" });
            all.extend_from_slice(answer);
        }
        all.push(b']');
        Became { part: self.part, answer: Ok(all.into()), along, facts: all_facts }
    }

    /// Asks once. What it is asked for of an array, if it is, is the last of the parts.
    async fn once(self, mut ctx: Ctx) -> Became {
        let (position, aggregate) = (self.part, self.aggregate);
        let part = &aggregate.parts[position];
        let there = |(of, path): &(usize, Box<str>)| self.parts.json(*of, path).is_some_and(|json| json != "null");
        if let Some((of, path)) = part.needs.iter().find(|needed| !there(needed)) {
            let of = aggregate.parts.get(*of).map_or("each", |part| &part.name);
            let why = format!("`{of}.{path}`, which it needs, is not there");
            return Became::failed(position, StatusCode::BAD_GATEWAY, &why);
        }
        let Some(facts) = &mut ctx.facts else { return Became::failed(position, StatusCode::BAD_GATEWAY, "lost") };
        facts.parts = Some(Arc::new(self.parts));
        let connection = facts.connection.clone();
        let mut request = self.request;
        NOT_PASSED.iter().for_each(|name| drop(request.remove_header(name)));
        let body = match &part.body {
            PartBody::Clients => self.body,
            body => {
                [CONTENT_TYPE, CONTENT_ENCODING].iter().for_each(|name| drop(request.remove_header(name)));
                match body {
                    PartBody::Json(template) => {
                        let _ = request.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                        template.render(&Values { request: &request, facts }).into()
                    }
                    _ => Bytes::new(),
                }
            }
        };
        request.set_method(part.method.clone());
        let _ = request.insert_header(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"));
        let _ = request.insert_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (alarm, room) = (Alarm::default(), Room::default());
        let mut taker = Taker { connection, alarm, head: None, body: Vec::new(), room, most: part.most };
        let mut exchange = Exchange {
            client: &mut taker,
            request: &request,
            keep: true,
            ending: &|| false,
            upload: Upload::of(body),
            waiting: Waiting::Nobody,
            status: None,
            sent: 0,
        };
        let ended = self.direct.reach(&mut exchange, &mut ctx).await;
        ctx.attempt = None;
        let answer = match ended {
            Ok(()) => taker.judge(),
            Err(Fault::Reply(reply)) => {
                let told =
                    reply.problem.as_ref().map(|problem| problem.cause.clone().unwrap_or(problem.detail.clone()));
                let cause = ctx.facts.as_mut().and_then(|facts| facts.cause.take()).or(told);
                Err((reply.status, cause.unwrap_or_default().into_owned()))
            }
            Err(Fault::Cut | Fault::Slow | Fault::Gone) => {
                Err((StatusCode::BAD_GATEWAY, "the answer was cut short".to_owned()))
            }
        };
        Became { part: position, answer, along: taker.along(), facts: ctx.facts.map(Box::new) }
    }
}

/// Takes over what became of a request that was made to answer another.
fn join(all: &mut Facts, part: Facts, method: &Method) {
    all.attempts += part.attempts;
    if let (Some(trace), Some(of_part)) = (&mut all.trace, part.trace) {
        trace.join(*of_part, method.as_str(), part.upstream.as_ref(), all.started.elapsed());
    }
}

impl Became {
    fn failed(part: usize, status: StatusCode, why: &str) -> Self {
        Self { part, answer: Err((status, why.to_owned())), along: Along::default(), facts: None }
    }
}

impl Keep {
    fn of(headers: &HeaderMap) -> Self {
        let (said, _) = Directives::of_response(headers);
        let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
        match said.s_maxage.or(said.max_age) {
            _ if said.no_store || said.no_cache => Self::Never,
            _ if said.private || (headers.contains_key(SET_COOKIE) && !said.public) => Self::Private,
            Some(time) => Self::For(time.as_secs().saturating_sub(age)),
            None => Self::Unsaid,
        }
    }

    /// As `Cache-Control` has it.
    fn told(self) -> Option<HeaderValue> {
        match self {
            Self::Never => Some(HeaderValue::from_static("no-store")),
            Self::Private => Some(HeaderValue::from_static("private")),
            Self::Unsaid | Self::For(u64::MAX) => None,
            Self::For(seconds) => HeaderValue::try_from(format!("max-age={seconds}")).ok(),
        }
    }
}

/// Puts the answers together.
fn compose(aggregate: &Aggregate, parts: &Parts) -> Result<Bytes, Reply> {
    let named = aggregate.parts.iter().enumerate().filter_map(|(i, part)| Some((&*part.name, parts.whole(i)?)));
    match &aggregate.compose {
        Compose::Names => Ok(object(named).into()),
        Compose::Jq(program) => {
            let named: Vec<(&str, &[u8])> = named.map(|(name, json)| (name, json.as_bytes())).collect();
            let made = program.run_parts(&named, &[], &Bounds::default());
            made.map(Bytes::from).map_err(|error| refusal(format!("`compose` failed: {error}")))
        }
        Compose::Merge => {
            let (names, texts): (Vec<&str>, Vec<&str>) = named.unzip();
            let no_object = |i: usize| refusal(format!("the part `{}` is no object, so it cannot be merged", names[i]));
            merge(&texts).map(Bytes::from).map_err(no_object)
        }
    }
}

/// The client of a part: takes all of its answer.
struct Taker {
    connection: Arc<Connection>,
    alarm: Alarm,
    head: Option<ResponseHeader>,
    body: Vec<u8>,
    room: Room,
    most: u64,
}

impl Taker {
    /// What the answer brings along.
    fn along(&mut self) -> Along {
        let rooms = vec![std::mem::take(&mut self.room)];
        match &self.head {
            None => Along { rooms, ..Along::default() },
            Some(head) => {
                let vary = head.headers.get_all(VARY).iter().cloned().collect();
                Along { keep: Keep::of(&head.headers), vary, rooms }
            }
        }
    }

    /// What the answer comes to: a JSON text, or the status to tell and why.
    fn judge(&mut self) -> Result<Bytes, (StatusCode, String)> {
        let bad = |why: String| Err((StatusCode::BAD_GATEWAY, why));
        let Some(head) = &self.head else { return bad("there was no answer".to_owned()) };
        match head.status {
            status if status.is_success() => {}
            status if status.is_client_error() || status.is_server_error() => {
                return Err((status, format!("it was answered with {status}")));
            }
            status => return bad(format!("it was answered with {status}")),
        }
        let body = match codings(&head.headers).map(|codings| Decoder::of(codings.as_bytes(), self.most)) {
            None | Some(Some(None)) => Bytes::from(std::mem::take(&mut self.body)),
            Some(Some(Some(decoder))) => match decoder.whole(&self.body) {
                Ok(body) => body,
                Err(Failed::Malformed) => return bad("its content coding is broken".to_owned()),
                Err(Failed::TooLarge) => return bad(format!("an answer of more than {} bytes", self.most)),
            },
            Some(None) => return bad("its content coding is not known here".to_owned()),
        };
        if body.is_empty() {
            return Ok(Bytes::from_static(b"null"));
        }
        if !self.room.fit(body.len() as u64) {
            return Err((StatusCode::SERVICE_UNAVAILABLE, NO_ROOM.to_owned()));
        }
        match serde_json::from_slice::<&RawValue>(&body) {
            // Without the space around it.
            Ok(json) if json.get().len() < body.len() => Ok(json.get().to_owned().into()),
            Ok(_) => Ok(body),
            Err(error) => bad(format!("its answer is not JSON: {error}")),
        }
    }
}

impl Client for Taker {
    const STORES: bool = true;

    fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The body is held.
    fn poll_body(&mut self, _: &mut Upload, _: &mut Vec<u8>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(0))
    }

    fn poll_gone(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_late(patience, cx).map(|()| io::ErrorKind::TimedOut.into())
    }

    fn poll_late(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll_deadline(patience.kept_by_exchange(), cx)
    }

    async fn inform(&mut self, _: &ResponseHeader) -> io::Result<()> {
        Ok(())
    }

    /// It is shaped when it is put together.
    fn shape(&mut self, _: &mut ResponseHeader, _: &RequestHeader, _: &mut Ctx) {}

    fn begin(&mut self, head: ResponseHeader, _: Opening) -> io::Result<bool> {
        self.head = Some(head);
        Ok(true)
    }

    async fn relay(exchange: &mut Exchange<'_, Self>, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        let mut source = Source::Server(server);
        while let Some(part) = exchange.next(&mut source, ctx).await? {
            Self::pass(exchange, part, false, ctx).await?;
        }
        Ok(())
    }

    async fn pass(exchange: &mut Exchange<'_, Self>, part: Bytes, _: bool, _: &mut Ctx) -> Result<(), Broken> {
        let taker = &mut *exchange.client;
        if (taker.body.len() + part.len()) as u64 > taker.most {
            let why = format!("an answer of more than {} bytes", taker.most);
            return Err(refused(refusal(why)));
        }
        if !taker.room.grow((taker.body.len() + part.len()) as u64) {
            return Err(refused(no_room()));
        }
        taker.body.extend_from_slice(&part);
        Ok(())
    }
}

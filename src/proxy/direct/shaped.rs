//! Bodies that policies look at: those of requests are held before the upstream is asked, those of answers go through the
//! steps of a [`Shaping`].

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, EXPECT};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use pingora_http::ResponseHeader;

use super::exchange::{Broken, Client, Exchange, Fault, Waiting, refused, too_slow};
use super::explain;
use super::upload::Upload;
use crate::body::{HELD, Held, Malformed, Room, Shaping, no_room, refusal};
use crate::cache::Reader;
use crate::http1::Framing;
use crate::proxy::Ctx;
use crate::reply::Reply;
use crate::upstream::Server;

/// Where the body of an answer is.
pub(super) enum Source<'s> {
    /// Here.
    Here(Bytes),
    /// It comes from a server.
    Server(&'s mut Server),
    /// It is fetched for several, and is so long, where that is known.
    Coming(Reader, Option<u64>),
}

impl Source<'_> {
    /// How many bytes the body has, where that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Here(body) => Some(body.len() as u64),
            Self::Coming(_, length) => *length,
            Self::Server(_) => None,
        }
    }
}

/// How long the next part of an answer is awaited before what is held goes on, where the answer may go on in parts.
const PAUSE: Duration = Duration::from_millis(20);
/// How many bytes a second a body comes in at least that is held, beside the time that it may be silent.
const SLOWEST: u64 = 32 << 10;
/// Bytes of a body that is here already which are shaped at once.
const PART: usize = 64 << 10;
/// A part that is as large as it can be read is followed by another.
const LARGE_PART: usize = 16 << 10;

impl<C: Client> Exchange<'_, C> {
    /// Reads the request's body and has the policies look at it; what is left of it is what is sent.
    pub(super) async fn hold(&mut self, ctx: &mut Ctx) -> Result<(), Fault> {
        let Some(route) = ctx.route.clone() else { return Ok(()) };
        let most = ctx.max_body().unwrap_or(HELD);
        let raw = match self.upload.framing {
            Framing::None => Bytes::new(),
            framing => self.read(framing, most, ctx).await?,
        };
        // It is read, whatever is said of it: the connection can have another request.
        self.upload = Upload::of(Bytes::new());
        let mut held = Held::new(raw, self.request, most).map_err(Fault::Reply)?;
        if let Some(facts) = &mut ctx.facts {
            route.chain.body(&mut held, self.request, facts).map_err(Fault::Reply)?;
            let (body, sends) = held.into_sent();
            facts.sends = sends;
            if !ctx.room.fit(body.len() as u64) {
                return Err(Fault::Reply(no_room()));
            }
            self.upload = Upload::of(body);
            ctx.replays = true;
        }
        Ok(())
    }

    /// Says that the body may come, to who waits for that.
    pub(super) async fn go_on(&mut self, ctx: &Ctx) -> Result<(), Fault> {
        if self.request.headers.contains_key(EXPECT) {
            let head = ResponseHeader::build(StatusCode::CONTINUE, None)
                .map_err(|_| Fault::Reply(Reply::internal("there is no 100")))?;
            self.wait_for(Waiting::Client, ctx);
            self.client.inform(&head).await.map_err(|_| Fault::Gone)?;
            self.waiting = Waiting::Nobody;
        }
        Ok(())
    }

    async fn read(&mut self, framing: Framing, most: u64, ctx: &mut Ctx) -> Result<Bytes, Fault> {
        let too_large =
            || Fault::Reply(Reply::body_too_large(format!("the body has more than {most} bytes")).closing());
        if matches!(framing, Framing::Length(length) if length > most) {
            return Err(too_large());
        }
        self.go_on(ctx).await?;
        let length = if let Framing::Length(length) = framing { length } else { most };
        let patience = self.client.connection().listener.timeouts.body + Duration::from_secs(length / SLOWEST);
        let mut upload = Upload::to_hold(framing);
        let mut held = Vec::new();
        let read = poll_fn(|cx| {
            while !upload.is_read() {
                match self.client.poll_body(&mut upload, &mut held, cx) {
                    Poll::Ready(Ok(data)) => ctx.body += data,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.client_failed(&error, ctx).into())),
                    Poll::Pending => {
                        self.wait_for(Waiting::Client, ctx);
                        return self.client.poll_late(&ctx.patience, cx).map(|()| Err(self.late(ctx).into()));
                    }
                }
                self.waiting = Waiting::Nobody;
                if held.len() as u64 > most {
                    return Poll::Ready(Err(too_large()));
                }
                if !ctx.room.grow(held.capacity() as u64) {
                    return Poll::Ready(Err(Fault::Reply(no_room())));
                }
            }
            Poll::Ready(Ok(()))
        });
        match tokio::time::timeout(patience, read).await {
            Ok(read) => read?,
            Err(_) => return Err(too_slow()),
        }
        Ok(held.into())
    }

    /// Gives an answer whose body goes through the steps.
    pub(super) async fn shaped(
        &mut self,
        mut head: ResponseHeader,
        mut source: Source<'_>,
        bodiless: bool,
        mut shaping: Shaping,
        ctx: &mut Ctx,
    ) -> Result<(), Broken> {
        let is_head = self.request.method == Method::HEAD;
        if bodiless && (is_head || !shaping.fills()) {
            shaping.head(&mut head).map_err(refused)?;
            self.open(head, Framing::None, ctx)?;
            return C::pass(self, Bytes::new(), true, ctx).await;
        }
        let mut room = Room::default();
        let (held, whole) = self.gather(&mut source, (shaping.needs(), shaping.most()), &mut room, ctx).await?;
        let made = match whole {
            true => shaping.whole(&mut head, &held, ctx.trailers().as_ref()).map_err(refused)?,
            false => None,
        };
        if let Some(body) = made {
            drop(held);
            if !room.fit(body.len() as u64) {
                return Err(refused(no_room()));
            }
            let framing = if body.is_empty() { Framing::None } else { Framing::Length(body.len() as u64) };
            let _ = head.insert_header(CONTENT_LENGTH, body.len());
            self.open(head, framing, ctx)?;
            return C::pass(self, body, true, ctx).await;
        }
        if shaping.needs().is_none() {
            shaping.outgrown(&head).map_err(refused)?;
        }
        if whole {
            source = Source::Here(Bytes::new());
        }
        drop(room);
        shaping.head(&mut head).map_err(refused)?;
        self.stream(head, held, &mut source, shaping, ctx).await
    }

    /// As much of a body as steps need at once, which is at most `most` where they need all; and whether that is all of it.
    async fn gather(
        &mut self,
        source: &mut Source<'_>,
        (needs, most): (Option<usize>, u64),
        room: &mut Room,
        ctx: &mut Ctx,
    ) -> Result<(Bytes, bool), Broken> {
        let most = needs.map_or(most, |needs| needs as u64);
        if let Source::Here(body) = source {
            return Ok(match body.len() as u64 <= most {
                true => (std::mem::take(body), true),
                false => (Bytes::new(), false),
            });
        }
        let mut held = Vec::new();
        while held.len() as u64 <= most {
            let part = match (needs, held.is_empty()) {
                (Some(_), false) => match tokio::time::timeout(PAUSE, self.next(source, ctx)).await {
                    Ok(part) => part?,
                    Err(_) => break,
                },
                _ => self.next(source, ctx).await?,
            };
            let Some(part) = part else { return Ok((held.into(), true)) };
            held.extend_from_slice(&part);
            if !room.grow(held.capacity() as u64) {
                match needs {
                    // What can go on in parts needs no room.
                    Some(_) => break,
                    None => return Err(refused(no_room())),
                }
            }
        }
        Ok((held.into(), false))
    }

    /// Gives an answer that was made here: it is shaped as one of an upstream is.
    pub(super) async fn made(&mut self, mut head: ResponseHeader, body: Bytes, ctx: &mut Ctx) -> Result<(), Broken> {
        let bodiless = self.request.method == Method::HEAD;
        if let Some(shaping) = ctx.shaping(&mut head, (true, !C::STORES), self.request).map_err(refused)? {
            return self.shaped(head, Source::Here(body), bodiless, shaping, ctx).await;
        }
        let _ = head.insert_header(CONTENT_LENGTH, body.len());
        let body = if bodiless { Bytes::new() } else { body };
        let framing = if body.is_empty() { Framing::None } else { Framing::Length(body.len() as u64) };
        self.open(head, framing, ctx)?;
        C::pass(self, body, true, ctx).await
    }

    /// Takes an answer through the steps as it comes. Where nothing can be made of what is held, the client is told so.
    async fn stream(
        &mut self,
        head: ResponseHeader,
        held: Bytes,
        source: &mut Source<'_>,
        mut shaping: Shaping,
        ctx: &mut Ctx,
    ) -> Result<(), Broken> {
        let (mut head, mut next) = (Some(head), Some(held));
        loop {
            let mut out = Vec::new();
            let last = next.is_none();
            let done = match &mut next {
                Some(rest) => {
                    let part = rest.split_to(rest.len().min(shaping.at_once()));
                    let pushed = shaping.push(&part, &mut out);
                    match rest.is_empty() && part.len() < LARGE_PART {
                        true => pushed.and_then(|()| shaping.flush(&mut out)),
                        false => pushed,
                    }
                }
                None => shaping.end(ctx.trailers().as_ref(), &mut out),
            };
            if let Some(head) = head.take() {
                if let Err(malformed) = &done
                    && out.is_empty()
                {
                    return Err(refused(refusal(malformed.to_string())));
                }
                self.open(head, Framing::Chunked, ctx)?;
            }
            let ended = done.map_err(|malformed| cut(&malformed, ctx));
            if !out.is_empty() || last {
                C::pass(self, out.into(), last && ended.is_ok(), ctx).await?;
            }
            ended?;
            if last {
                return Ok(());
            }
            if next.as_ref().is_none_or(Bytes::is_empty) {
                next = self.next(source, ctx).await?;
            }
        }
    }

    /// The next part of a body; `None` at its end.
    pub(super) async fn next(&mut self, source: &mut Source<'_>, ctx: &mut Ctx) -> Result<Option<Bytes>, Broken> {
        match source {
            Source::Here(body) if body.is_empty() => Ok(None),
            Source::Here(body) => {
                // Others have their turn between two parts.
                tokio::task::yield_now().await;
                Ok(Some(body.split_to(body.len().min(PART))))
            }
            Source::Coming(reader, _) => self.wait(reader.next(), ctx).await?.map_err(|_| Broken::Client(Fault::Cut)),
            Source::Server(server) => {
                if !self.more(server, ctx).await? {
                    return Ok(None);
                }
                self.went_on(ctx)?;
                Ok(Some(server.take_data()))
            }
        }
    }

    /// Shapes the head of an answer for the client and writes it.
    fn open(&mut self, mut head: ResponseHeader, framing: Framing, ctx: &mut Ctx) -> Result<(), Broken> {
        self.client.shape(&mut head, self.request, ctx);
        self.begin(head, framing).map_err(|_| Broken::Client(Fault::Gone))
    }
}

/// The answer ends in the middle, and the log says why.
fn cut(malformed: &Malformed, ctx: &mut Ctx) -> Broken {
    explain(ctx, "the upstream's answer cannot be read", malformed);
    Broken::Client(Fault::Cut)
}
